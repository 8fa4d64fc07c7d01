#include "emulated_cases.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <type_traits>

#include "cuda/api.h"
#include "emulate.h"
#include "emulate_blocks.h"
#include "emulate_switch.h"

namespace {

using emulate::Contents;
using namespace glsk::cuda;

// The memory of one call: every buffer is an allocation of its own and no byte larger than it must be.
class Memory {
public:
    ~Memory() { emulate::observer::forget(); }

    void* bytes(std::size_t size, const std::string& name, Contents contents, bool result = false) {
        const std::size_t shift = contents == Contents::unwritten && !result ? emulate::switches.workspace_shift : 0;
        auto* const memory = static_cast<unsigned char*>(std::malloc(size + shift));
        owned_.emplace_back(memory, std::free);
        std::memset(memory, 0xff, size + shift);
        emulate::observer::know(memory + shift, size, name, contents);
        if (result) results_.emplace_back(memory, size);
        return memory + shift;
    }
    template <class T>
    T* input(std::size_t size, const std::string& name, T low, T high) {
        auto* const values = static_cast<T*>(bytes(size * sizeof(T), name, Contents::input));
        for (std::size_t i = 0; i < size; ++i) values[i] = std::uniform_real_distribution<T>(low, high)(numbers_);
        return values;
    }
    template <class T>
    T* result(std::size_t size, const std::string& name) {
        return static_cast<T*>(bytes(size * sizeof(T), name, Contents::unwritten, true));
    }
    template <class T>
    T* sums(std::size_t size, const std::string& name) {  // to which a kernel adds
        void* const memory = bytes(size * sizeof(T), name, Contents::given, true);
        return static_cast<T*>(std::memset(memory, 0, size * sizeof(T)));
    }
    Allocate workspace() {
        return [this](std::size_t size) { return bytes(size, "workspace", Contents::unwritten); };
    }
    std::uint64_t digest() const {
        std::uint64_t sum = 1469598103934665603u;
        for (const auto& [from, size] : results_) {
            for (std::size_t i = 0; i < size; ++i) sum = (sum ^ from[i]) * 1099511628211u;
        }
        return sum;
    }

private:
    std::mt19937 numbers_{7};
    std::vector<std::unique_ptr<unsigned char, void (*)(void*)>> owned_;
    std::vector<std::pair<const unsigned char*, std::size_t>> results_;
};

struct Conv {
    int out, kernel, stride, pad;
};

struct Chain {
    int channels, height, width;
    std::vector<Conv> convs;
    int outputs;  // of a linear layer on top; 0: none
};

struct Options {
    int members = 2, samples = 2, rows = 0;  // rows: of a specification; 0: the chain's outputs
    int signs = 2;
    bool known = false, lines = false;       // known bounds of the rows; lines that differ by the row
    bool sparse = false;                     // every third row has no gradient of its lower bound
    bool parameters = true, others = true;   // which gradients are wanted; that of the box always is
    Products products = Products::bf16x3;
};

template <class T>
Layer layer_of(Memory& memory, int channels, int height, int width, const Conv& conv, int members, bool relu) {
    Layer layer = {};
    layer.in_channels = channels, layer.in_height = height, layer.in_width = width, layer.out_channels = conv.out;
    layer.kernel_height = layer.kernel_width = conv.kernel, layer.stride_height = layer.stride_width = conv.stride;
    layer.pad_height = layer.pad_width = conv.pad, layer.relu = relu;
    layer.out_height = (height + 2 * conv.pad - conv.kernel) / conv.stride + 1;
    layer.out_width = (width + 2 * conv.pad - conv.kernel) / conv.stride + 1;
    layer.weight_member = std::int64_t(conv.out) * channels * conv.kernel * conv.kernel, layer.bias_member = conv.out;
    layer.weight = memory.input<T>(layer.weight_member * members, "weight", T(-0.5), T(0.5));
    layer.bias = memory.input<T>(std::size_t(conv.out) * members, "bias", T(-1), T(1));
    return layer;
}

template <class T>
Pass pass_of(Memory& memory, const Chain& chain, const Options& options) {
    Pass pass = {};
    const int members = pass.members = options.members, samples = pass.samples = options.samples;
    int channels = chain.channels, height = chain.height, width = chain.width;
    for (const Conv& conv : chain.convs) {
        const bool last = pass.layers + 1 == static_cast<int>(chain.convs.size()) && chain.outputs == 0;
        const Layer& made = pass.layer[pass.layers++] = layer_of<T>(memory, channels, height, width, conv, members, !last);
        channels = made.out_channels, height = made.out_height, width = made.out_width;
    }
    if (chain.outputs > 0) {
        const Conv linear = {chain.outputs, 1, 1, 0};
        pass.layer[pass.layers++] = layer_of<T>(memory, channels * height * width, 1, 1, linear, members, false);
    }
    const Layer& last = pass.layer[pass.layers - 1];
    pass.rows = options.rows > 0 ? options.rows : static_cast<int>(last.out_features());
    pass.signs = options.signs, pass.rule = Rule::adaptive, pass.products = options.products;
    for (int k = 0; k + 1 < pass.layers; ++k) {
        Around& around = pass.layer[k].around;
        const std::int64_t units = pass.layer[k].out_features();
        if (options.lines) {
            around = {memory.input<T>(pass.rows * 4 * units, "lines", T(0), T(1)), nullptr, 0, 0, 4 * units, units};
            continue;
        }
        T* const lower = memory.input<T>(members * samples * units, "lower", T(-1), T(0.3));
        T* const upper = memory.input<T>(members * samples * units, "upper", T(-0.2), T(1));
        for (std::int64_t i = 0; i < members * samples * units; ++i) upper[i] = std::max(lower[i], upper[i]);
        around = {lower, upper, samples * units, units, 0, 0};
    }
    const std::int64_t inputs = pass.layer[0].in_features();
    pass.x_lower = {memory.input<T>(samples * inputs, "x_lower", T(0), T(0.5)), 0, inputs};
    pass.x_upper = {memory.input<T>(samples * inputs, "x_upper", T(0.5), T(1)), 0, inputs};
    if (options.rows > 0) {
        const std::int64_t n = last.out_features();
        pass.C = {memory.input<T>(samples * pass.rows * n, "C", T(-1), T(1)), n, pass.rows * n};
    }
    const std::int64_t bounds = std::int64_t(members) * samples * pass.rows;
    if (options.known) {
        pass.known_lower = {memory.input<T>(bounds, "known_lower", T(-1), T(0.3)), samples * pass.rows, pass.rows};
        pass.known_upper = {memory.input<T>(bounds, "known_upper", T(0.4), T(1)), samples * pass.rows, pass.rows};
    }
    return pass;
}

EmulatedCase forward(const std::string& name, const std::string& variant, const Chain& chain, const Options& options,
                     bool is_double = false) {
    return {name, [=] {
                Memory memory;
                Pass pass = is_double ? pass_of<double>(memory, chain, options) : pass_of<float>(memory, chain, options);
                const std::size_t size = pass.members * pass.samples * pass.rows * (is_double ? 8 : 4);
                pass.lower = memory.bytes(size, "lower bounds", Contents::unwritten, true);
                if (pass.signs == 2) pass.upper = memory.bytes(size, "upper bounds", Contents::unwritten, true);
                run_pass(pass, is_double, variant, nullptr, memory.workspace());
                return memory.digest();
            }};
}

template <class T>
EmulatedCase backward(const std::string& name, const Chain& chain, const Options& options) {
    return {name, [=] {
                Memory memory;
                const Pass pass = pass_of<T>(memory, chain, options);
                const std::int64_t pairs = pass.members * pass.samples, bounds = pairs * pass.rows;
                std::int64_t units = 0, parameters = 0;
                for (int k = 0; k < pass.layers; ++k) {
                    if (k + 1 < pass.layers) units += pass.layer[k].out_features();
                    parameters += pass.layer[k].weight_member + pass.layer[k].bias_member;
                }
                PassGradient gradient = {};
                T* const lower = memory.input<T>(bounds, "gradient of lower", T(-1), T(1));
                for (std::int64_t i = 0; options.sparse && i < bounds; i += 3) lower[i] = T(0);
                gradient.lower = lower;
                gradient.upper = memory.input<T>(bounds, "gradient of upper", T(-1), T(1));
                gradient.box = memory.sums<T>(pairs * 2 * pass.layer[0].in_features(), "gradient of the box");
                if (options.rows > 0 && options.others) {
                    gradient.C = memory.sums<T>(bounds * pass.layer[pass.layers - 1].out_features(), "gradient of C");
                }
                if (options.lines && options.others) {
                    gradient.lines = memory.sums<T>(bounds * 4 * units, "gradient of lines");
                } else if (options.others) {
                    gradient.bounds = memory.sums<T>(pairs * 2 * units, "gradient of bounds");
                }
                if (options.parameters) {
                    gradient.parameters = memory.result<T>(pass.members * parameters, "gradient of parameters");
                }
                run_pass_backward(pass, gradient, std::is_same<T, double>::value, nullptr, memory.workspace());
                return memory.digest();
            }};
}

template <class T>
EmulatedCase intervals(const std::string& name, int channels, int height, int width, const Conv& conv, int samples) {
    return {name, [=] {
                constexpr bool is_double = std::is_same<T, double>::value;
                Memory memory;
                Interval interval = {};
                interval.members = 2, interval.samples = samples, interval.relu = 1;
                interval.layer = layer_of<T>(memory, channels, height, width, conv, 2, false);
                const std::int64_t in = interval.layer.in_features(), out = interval.layer.out_features();
                interval.lower = {memory.input<T>(samples * in, "lower", T(-1), T(0.5)), 0, in};
                interval.upper = {memory.input<T>(samples * in, "upper", T(0.5), T(1)), 0, in};
                interval.out_lower = memory.result<T>(2 * samples * out, "lower bounds");
                interval.out_upper = memory.result<T>(2 * samples * out, "upper bounds");
                run_ibp(interval, is_double, nullptr);
                IntervalGradient gradient = {};
                gradient.lower = memory.input<T>(2 * samples * out, "gradient of lower", T(-1), T(1));
                gradient.upper = memory.input<T>(2 * samples * out, "gradient of upper", T(-1), T(1));
                gradient.box = memory.result<T>(2 * samples * 2 * in, "gradient of the box");
                gradient.parameters = memory.result<T>(
                    2 * (interval.layer.weight_member + interval.layer.bias_member), "gradient of parameters");
                run_ibp_backward(interval, gradient, is_double, nullptr, memory.workspace());
                return memory.digest();
            }};
}

EmulatedCase elementwise() {
    return {"elementwise", [] {
                constexpr std::int64_t SIZE = 300;
                Memory memory;
                const float* lower = memory.input<float>(SIZE, "lower", -1.f, 0.f);
                const float* upper = memory.input<float>(SIZE, "upper", 0.f, 1.f);
                float* results[2];
                for (float*& result : results) result = memory.result<float>(SIZE, "result");
                run_hbox_relu(lower, upper, lower, upper, results[0], results[1], 0.1, SIZE, false, nullptr);
                return memory.digest();
            }};
}

EmulatedCase loss() {
    return {"loss", [] {
                Memory memory;
                const View margins = {memory.input<float>(3 * 300 * 9, "margins", -3.f, 3.f), 300 * 9, 9};
                run_robust_cross_entropy(margins, 3, 300, 9, memory.result<float>(3, "loss"), false, nullptr);
                return memory.digest();
            }};
}

}  // namespace

std::vector<EmulatedCase> emulated_cases() {
    const Chain one_group = {1, 12, 12, {{16, 5, 2, 2}, {16, 4, 2, 1}}, 27};
    const Chain cifar = {3, 12, 10, {{5, 5, 2, 2}, {7, 4, 2, 1}}, 9};
    const Chain groups = {2, 10, 9, {{3, 5, 2, 2}, {21, 4, 2, 1}, {18, 4, 2, 1}}, 5};
    const Chain groups_one = {1, 11, 12, {{9, 5, 2, 2}, {20, 4, 2, 1}, {5, 3, 1, 2}}, 0};
    const Chain three = {1, 12, 11, {{3, 5, 2, 2}, {5, 4, 2, 1}}, 10}, two = {1, 12, 11, {{3, 5, 2, 2}, {5, 4, 2, 1}}, 0};
    const Chain any = {2, 6, 5, {{3, 3, 1, 1}, {5, 3, 2, 0}}, 0}, deeper = {1, 7, 6, {{2, 3, 1, 1}, {3, 2, 2, 0}}, 12};
    const Chain large = {1, 14, 14, {{16, 3, 1, 1}, {8, 3, 1, 1}}, 6};
    const auto fp16 = [](Options options) { return options.products = Products::fp16, options; };
    return {
        forward("deep, one group", "deep", one_group, {1, 3}),
        forward("deep, three image channels", "deep", cifar, {2, 1, 0, 1}),
        forward("deep, several groups", "deep", groups, {1, 2, 7}),
        forward("deep, rows of a convolution", "deep", groups_one, {1, 2, 0, 2, true}),
        forward("deep, FP16, one group", "deep", one_group, fp16({2, 2})),
        forward("deep, FP16, three image channels", "deep", cifar, fp16({2, 1, 0, 1})),
        forward("deep, FP16, several groups", "deep", groups, fp16({1, 2, 7})),
        forward("deep, FP16, rows of a convolution", "deep", groups_one, fp16({1, 2, 0, 2, true})),
        forward("patch", "patch", two, {2, 2, 0, 2, true}),
        forward("patch, lower bounds", "patch", two, {1, 1, 0, 1}),
        forward("margins", "margins", three, {1, 2, 9}),
        forward("general", "general", any, {1, 3, 0, 2, true}),
        forward("general, one layer", "general", {2, 4, 4, {{3, 3, 1, 1}}, 0}, {1, 8}),
        forward("general, double, lines by row", "general", deeper, {1, 3, 9, 1, false, true}, true),
        backward<float>("backward, rows of C", deeper, {2, 2, 9}),
        backward<float>("backward, rows of a convolution", any, {1, 2}),
        backward<double>("backward, lines by row", deeper, {1, 2, 5, 2, false, true, true}),
        backward<float>("backward, no parameters", deeper, {1, 1, 4, 2, false, false, false, false}),
        backward<float>("backward, the box alone", any, {1, 2, 0, 2, false, false, false, false, false}),
        backward<float>("backward, one layer", {2, 4, 4, {{3, 3, 1, 1}}, 0}, {1, 2}),
        backward<float>("backward, in global memory", large, {1, 2, 3}),
        intervals<float>("intervals of a convolution", 3, 7, 6, {11, 3, 2, 1}, 3),
        intervals<float>("intervals, many channels", 300, 2, 2, {3, 3, 1, 1}, 1),
        intervals<double>("intervals of a linear layer", 37, 1, 1, {45, 1, 1, 0}, 35),
        intervals<float>("intervals, sums in parts", 1, 18, 17, {2, 5, 1, 2}, 2),
        elementwise(),
        loss(),
    };
}
