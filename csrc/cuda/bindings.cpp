// The Python module glsk._CUDA: numbers and addresses in, launches out. Tensors are unpacked by glsk/backends/cuda_views.py.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <vector>

#include "cuda/api.h"

namespace py = pybind11;

namespace {

using glsk::cuda::Around;
using glsk::cuda::Interval;
using glsk::cuda::Layer;
using glsk::cuda::OnDevice;
using glsk::cuda::Pass;
using glsk::cuda::Products;
using glsk::cuda::Rule;
using glsk::cuda::View;
using Address = std::uintptr_t;
using ViewArgument = std::tuple<Address, std::int64_t, std::int64_t>;  // address, member and sample stride in elements
using WeightArgument = std::pair<Address, std::int64_t>;               // address, member stride
// Lines or bounds around a layer's activations: two addresses (of bounds, or of lines and 0), and strides in elements
// by member, sample, row and line.
using AroundArgument = std::tuple<Address, Address, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

constexpr std::size_t WIDTH = 13;  // integers a layer, the fields of glsk.geometry.Geometry

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

View view(const ViewArgument& argument) {
    return {pointer(std::get<0>(argument)), std::get<1>(argument), std::get<2>(argument)};
}

Around around(const AroundArgument& argument) {
    const auto [lower, upper, member, sample, row, line] = argument;
    return {pointer(lower), pointer(upper), member, sample, row, line};
}

Rule rule(const std::string& name) {
    if (name == "adaptive") return Rule::adaptive;
    if (name == "parallel") return Rule::parallel;
    if (name == "mask") return Rule::mask;
    throw std::invalid_argument("rule: unknown " + name);
}

Products products(const std::string& name) {
    if (name == "bf16x3") return Products::bf16x3;
    if (name == "fp16") return Products::fp16;
    throw std::invalid_argument("products: unknown " + name);
}

Layer layer(const std::int64_t* fields, const WeightArgument& weight, const WeightArgument& bias) {
    Layer result = {};
    int* const targets[WIDTH] = {
        &result.in_channels, &result.in_height,     &result.in_width,     &result.out_channels,  &result.out_height,
        &result.out_width,   &result.kernel_height, &result.kernel_width, &result.stride_height, &result.stride_width,
        &result.pad_height,  &result.pad_width,     &result.relu};
    for (std::size_t i = 0; i < WIDTH; ++i) {
        if (fields[i] < 0 || fields[i] > 0x7fffffff) throw std::invalid_argument("geometry: out of range");
        *targets[i] = static_cast<int>(fields[i]);
    }
    result.weight = pointer(weight.first), result.weight_member = weight.second;
    result.bias = pointer(bias.first), result.bias_member = bias.second;
    return result;
}

struct PassArguments {
    std::int64_t members, samples, rows;
    int signs;
    std::string rule, products;
    bool is_double;
    std::vector<std::int64_t> geometry;
    std::vector<WeightArgument> weights, biases;
    std::vector<AroundArgument> arounds;  // of all layers but the last
    std::vector<double> leaks;
    ViewArgument x_lower, x_upper, C, known_lower, known_upper;
    Address lower, upper;

    Pass pass() const {
        const std::size_t layers = weights.size();
        if (layers < 1 || layers > glsk::cuda::MAX_LAYERS) throw std::invalid_argument("a pass of too many layers");
        if (geometry.size() != layers * WIDTH || biases.size() != layers || arounds.size() != layers - 1 ||
            leaks.size() != layers) {
            throw std::invalid_argument("geometry, weights, biases, bounds and leaks differ in length");
        }
        Pass result = {};
        if (rows < 0 || rows > 0x7fffffff) throw std::invalid_argument("a pass of more than 2^31 - 1 rows");
        result.members = members, result.samples = samples, result.rows = static_cast<int>(rows);
        result.layers = static_cast<int>(layers), result.signs = signs, result.rule = ::rule(rule);
        result.products = ::products(products);
        result.x_lower = view(x_lower), result.x_upper = view(x_upper), result.C = view(C);
        result.known_lower = view(known_lower), result.known_upper = view(known_upper);
        result.lower = pointer(lower), result.upper = pointer(upper);
        for (std::size_t k = 0; k < layers; ++k) {
            result.layer[k] = layer(&geometry[k * WIDTH], weights[k], biases[k]);
            if (k + 1 < layers) result.layer[k].around = around(arounds[k]);
            result.layer[k].leak = leaks[k];
        }
        return result;
    }
};

std::string run_pass(int device, Address stream, const PassArguments& arguments, const std::string& variant,
                     const std::function<Address(std::size_t)>& allocate) {
    const OnDevice on(device);
    return glsk::cuda::run_pass(arguments.pass(), arguments.is_double, variant, pointer(stream),
                                [&](std::size_t bytes) { return pointer(allocate(bytes)); });
}

void run_pass_backward(int device, Address stream, const PassArguments& arguments, const std::array<Address, 7>& at,
                       const std::function<Address(std::size_t)>& allocate) {
    const OnDevice on(device);
    const glsk::cuda::PassGradient gradient = {pointer(at[0]), pointer(at[1]), pointer(at[2]), pointer(at[3]),
                                               pointer(at[4]), pointer(at[5]), pointer(at[6])};
    glsk::cuda::run_pass_backward(arguments.pass(), gradient, arguments.is_double, pointer(stream),
                                  [&](std::size_t bytes) { return pointer(allocate(bytes)); });
}

void run_ibp(int device, Address stream, bool is_double, std::int64_t members, std::int64_t samples,
             const std::vector<std::int64_t>& geometry, bool relu, double leak, const WeightArgument& weight,
             const WeightArgument& bias, const ViewArgument& lower, const ViewArgument& upper, Address out_lower,
             Address out_upper) {
    if (geometry.size() != WIDTH) throw std::invalid_argument("geometry: expected one layer");
    const OnDevice on(device);
    const Interval interval = {members,
                               samples,
                               relu,
                               leak,
                               view(lower),
                               view(upper),
                               pointer(out_lower),
                               pointer(out_upper),
                               layer(geometry.data(), weight, bias)};
    glsk::cuda::run_ibp(interval, is_double, pointer(stream));
}

void run_ibp_backward(int device, Address stream, bool is_double, std::int64_t members, std::int64_t samples,
                      const std::vector<std::int64_t>& geometry, bool relu, double leak, const WeightArgument& weight,
                      const ViewArgument& lower, const ViewArgument& upper, const std::array<Address, 4>& at,
                      const std::function<Address(std::size_t)>& allocate) {
    if (geometry.size() != WIDTH) throw std::invalid_argument("geometry: expected one layer");
    const OnDevice on(device);
    const Interval interval = {
        members, samples, relu, leak, view(lower), view(upper), nullptr, nullptr, layer(geometry.data(), weight, {})};
    const glsk::cuda::IntervalGradient gradient = {pointer(at[0]), pointer(at[1]), pointer(at[2]), pointer(at[3])};
    glsk::cuda::run_ibp_backward(interval, gradient, is_double, pointer(stream),
                                 [&](std::size_t bytes) { return pointer(allocate(bytes)); });
}

}  // namespace

PYBIND11_MODULE(_CUDA, module) {
    module.doc() = "CUDA kernels of glsk; called by glsk.backends.cuda_forward with addresses of device memory.";
    module.attr("max_layers") = glsk::cuda::MAX_LAYERS;

    py::class_<PassArguments>(module, "Pass", py::module_local())
        .def(py::init([](std::int64_t members, std::int64_t samples, std::int64_t rows, int signs, std::string rule,
                         std::string products, bool is_double, std::vector<std::int64_t> geometry,
                         std::vector<WeightArgument> weights, std::vector<WeightArgument> biases,
                         std::vector<AroundArgument> arounds, std::vector<double> leaks, ViewArgument x_lower,
                         ViewArgument x_upper, ViewArgument C, ViewArgument known_lower, ViewArgument known_upper,
                         Address lower, Address upper) {
                 return PassArguments{members,  samples,     rows,        signs,   rule,  products, is_double,
                                      geometry, weights,     biases,      arounds, leaks, x_lower,  x_upper,
                                      C,        known_lower, known_upper, lower,   upper};
             }),
             py::kw_only(), py::arg("members"), py::arg("samples"), py::arg("rows"), py::arg("signs"), py::arg("rule"),
             py::arg("products"), py::arg("is_double"), py::arg("geometry"), py::arg("weights"), py::arg("biases"),
             py::arg("arounds"), py::arg("leaks"), py::arg("x_lower"), py::arg("x_upper"), py::arg("C"),
             py::arg("known_lower"), py::arg("known_upper"), py::arg("lower"), py::arg("upper"));

    module.def("run_pass", &run_pass, py::arg("device"), py::arg("stream"), py::arg("arguments"), py::arg("variant"),
               py::arg("allocate"), "Launch a pass; returns the name of the kernel that serves it.");
    module.def(
        "select_pass",
        [](int device, const PassArguments& arguments) {
            const OnDevice on(device);
            return glsk::cuda::select_pass(arguments.pass(), arguments.is_double);
        },
        py::arg("device"), py::arg("arguments"), "The kernel that run_pass would take.");
    module.def(
        "deep_workspace",
        [](int device, const PassArguments& arguments) {
            const OnDevice on(device);
            return glsk::cuda::deep_workspace(arguments.pass());
        },
        py::arg("device"), py::arg("arguments"), "Bytes that the deep kernel would ask for.");
    module.def("run_pass_backward", &run_pass_backward, py::arg("device"), py::arg("stream"), py::arg("arguments"),
               py::arg("addresses"), py::arg("allocate"),
               "Addresses of the gradients of lower and upper bounds; of box, C, bounds, lines and parameters, or 0.");
    module.def(
        "backward_workspace",
        [](int device, const PassArguments& arguments) {
            const OnDevice on(device);
            const auto pass = arguments.pass();
            return std::pair(glsk::cuda::backward_block_bytes(pass, arguments.is_double),
                             glsk::cuda::backward_blocks(pass, arguments.is_double));
        },
        py::arg("device"), py::arg("arguments"),
        "Bytes of a thread block of a pass's gradient, and how many there are at most.");
    module.def("run_ibp", &run_ibp, py::arg("device"), py::arg("stream"), py::arg("is_double"), py::arg("members"),
               py::arg("samples"), py::arg("geometry"), py::arg("relu"), py::arg("leak"), py::arg("weight"),
               py::arg("bias"), py::arg("lower"), py::arg("upper"), py::arg("out_lower"), py::arg("out_upper"));
    module.def("run_ibp_backward", &run_ibp_backward, py::arg("device"), py::arg("stream"), py::arg("is_double"),
               py::arg("members"), py::arg("samples"), py::arg("geometry"), py::arg("relu"), py::arg("leak"),
               py::arg("weight"), py::arg("lower"), py::arg("upper"), py::arg("addresses"), py::arg("allocate"),
               "Addresses of the gradients of lower and upper bounds; of the box and the parameters, or 0.");
    module.def(
        "run_hbox_relu",
        [](int device, Address stream, bool is_double, std::int64_t size, const std::array<Address, 6>& at,
           double leak) {
            const OnDevice on(device);
            glsk::cuda::run_hbox_relu(pointer(at[0]), pointer(at[1]), pointer(at[2]), pointer(at[3]), pointer(at[4]),
                                      pointer(at[5]), leak, size, is_double, pointer(stream));
        },
        py::arg("device"), py::arg("stream"), py::arg("is_double"), py::arg("size"), py::arg("addresses"),
        py::arg("leak"));
    module.def(
        "run_robust_cross_entropy",
        [](int device, Address stream, bool is_double, std::int64_t members, std::int64_t samples, std::int64_t rows,
           const ViewArgument& margins, Address loss) {
            const OnDevice on(device);
            glsk::cuda::run_robust_cross_entropy(view(margins), members, samples, rows, pointer(loss), is_double,
                                                 pointer(stream));
        },
        py::arg("device"), py::arg("stream"), py::arg("is_double"), py::arg("members"), py::arg("samples"),
        py::arg("rows"), py::arg("margins"), py::arg("loss"));
    module.def("why_unusable", &glsk::cuda::why_unusable, py::arg("device"),
               "Empty if this build can run on the device, else one line that says why not.");
}
