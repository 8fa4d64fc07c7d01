// The Python module glsk._C: raw addresses, shapes and strides in; no PyTorch. The caller (glsk/cpu.py) owns every tensor,
// has checked it, and keeps it alive; calls run without the interpreter's lock.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <new>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/loss.h"
#include "cpu/types.h"

namespace py = pybind11;
using Address = uintptr_t;  // 0 is none

namespace {

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// The layers of a chain: 13 integers of geometry, the slope below zero of what follows, and addresses with the strides
// between members.
struct LayerGiven {
  std::vector<int> geometry;
  double leak;
  Address weight;
  int64_t weight_stride;
  Address bias;
  int64_t bias_stride;
};

template <class T>
std::vector<glsk::Layer<T>> layers_of(const std::vector<LayerGiven>& given) {
  std::vector<glsk::Layer<T>> chain;
  for (const LayerGiven& l : given) {
    const std::vector<int>& v = l.geometry;
    if (v.size() * sizeof(int) != sizeof(glsk::Geometry)) throw py::value_error("geometry: wrong number of integers");
    const glsk::Geometry g = {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11], v[12]};
    chain.push_back({glsk::as_convolution(g, chain.empty() ? nullptr : &chain.back().g), T(l.leak), at<T>(l.weight),
                     l.weight_stride, at<T>(l.bias), l.bias_stride});
  }
  return chain;
}

// Lower and upper bounds, or lines with their strides between members, samples and rows.
using InnerGiven = std::tuple<Address, Address, Address, int64_t, int64_t, int64_t>;

struct PassGiven {
  int members, samples;
  std::vector<LayerGiven> layers;
  std::vector<InnerGiven> inner;
  int rule;
  Address x_lower, x_upper;
  int64_t box_stride;
  Address C;
  int rows;
  Address known_lower, known_upper, lower, upper;
  int threads;
};

struct ChainGiven {
  int members, samples;
  std::vector<LayerGiven> layers;
  Address x_lower, x_upper, C;
  int rows, method;
  bool prune;
  Address lower, upper, hidden;
  int threads;
};

struct IbpGiven {
  int members, samples;
  std::vector<LayerGiven> layers;  // one
  Address in_lower, in_upper;
  int64_t in_stride;
  bool relu;
  double in_leak;
  Address lower, upper;
  int threads;
};

// Gradients of a layer: weight, bias, lower, upper, lines.
using GradientGiven = std::tuple<Address, Address, Address, Address, Address>;

template <class T>
std::vector<glsk::LayerGradient<T>> gradients_of(const std::vector<GradientGiven>& given) {
  std::vector<glsk::LayerGradient<T>> found;
  for (const auto& [weight, bias, lower, upper, lines] : given)
    found.push_back({at<T>(weight), at<T>(bias), at<T>(lower), at<T>(upper), at<T>(lines), false, false, false, false});
  return found;
}

// A pass and the arrays that its arguments point to.
template <class T>
struct Pass {
  std::vector<glsk::Layer<T>> layers;
  std::vector<glsk::Inner<T>> inner;
  glsk::PassArgs<T> args;

  explicit Pass(const PassGiven& g) : layers(layers_of<T>(g.layers)) {
    for (const auto& [lower, upper, lines, member, sample, row] : g.inner)
      inner.push_back({at<T>(lower), at<T>(upper), at<T>(lines), member, sample, row});
    if (layers.empty() || inner.size() + 1 != layers.size())
      throw py::value_error("inner: one of each layer but the last");
    // clang-format off
    args = {g.members,         g.samples,         int(layers.size()), layers.data(), inner.data(), glsk::Rule(g.rule),
            at<T>(g.x_lower),  at<T>(g.x_upper),  g.box_stride,       at<T>(g.C),    g.rows,       at<T>(g.known_lower),
            at<T>(g.known_upper), at<T>(g.lower), at<T>(g.upper),     g.threads};
    // clang-format on
  }
};

template <class T>
struct Chain {
  std::vector<glsk::Layer<T>> layers;
  glsk::ChainArgs<T> args;

  explicit Chain(const ChainGiven& g) : layers(layers_of<T>(g.layers)) {
    if (layers.empty() || g.method < 0 || g.method >= glsk::METHODS) throw py::value_error("method: unknown");
    args = {g.members,       g.samples, int(layers.size()),     layers.data(), at<T>(g.x_lower), at<T>(g.x_upper),
            at<T>(g.C),      g.rows,    glsk::Method(g.method), g.prune,       at<T>(g.lower),   at<T>(g.upper),
            at<T>(g.hidden), g.threads};
  }
};

template <class T>
struct Ibp {
  std::vector<glsk::Layer<T>> layers;
  glsk::IbpArgs<T> args;

  explicit Ibp(const IbpGiven& g) : layers(layers_of<T>(g.layers)) {
    if (layers.size() != 1) throw py::value_error("layers: expected one");
    args = {g.members, g.samples,    layers[0],      at<T>(g.in_lower), at<T>(g.in_upper), g.in_stride,
            g.relu,    T(g.in_leak), at<T>(g.lower), at<T>(g.upper),    g.threads};
  }
};

template <class Kernel, class Args>
void run(Kernel kernel, const Args& args) {
  py::gil_scoped_release unlocked;
  if (!kernel(args)) throw std::bad_alloc();
}

template <class T>
void add(py::module_& m, const std::string& suffix) {
  const auto name = [&](const char* op) { return std::string(op) + "_" + suffix; };
  m.def(name("crown_pass").c_str(), [](const PassGiven& g) { run(glsk::kernels().of<T>().pass, Pass<T>(g).args); });
  m.def(name("crown_pass_backward").c_str(),
        [](const PassGiven& g, Address d_lower, Address d_upper, const std::vector<GradientGiven>& gradients,
           Address x_lower, Address x_upper, Address C, int groups) {
          const Pass<T> pass(g);
          const std::vector<glsk::LayerGradient<T>> to = gradients_of<T>(gradients);
          const glsk::PassGradientArgs<T> args = {pass.args,      at<T>(d_lower), at<T>(d_upper), to.data(),
                                                  at<T>(x_lower), at<T>(x_upper), at<T>(C),       groups};
          run(glsk::kernels().of<T>().pass_backward, args);
        });
  m.def(name("optimised_pass").c_str(), [](const PassGiven& g, int iterations, double rate, double decay) {
    const Pass<T> pass(g);
    run(glsk::kernels().of<T>().optimised, glsk::OptimisedArgs<T>{pass.args, iterations, T(rate), T(decay)});
  });
  m.def(name("branch_pass").c_str(),
        [](const std::vector<LayerGiven>& given, int64_t subproblems, int rows, int64_t units, int64_t width,
           const std::array<Address, 13>& in, int iterations, double rate_alpha, double rate_beta, double decay,
           const std::array<Address, 4>& out, int threads) {
          const std::vector<glsk::Layer<T>> layers = layers_of<T>(given);
          if (layers.empty()) throw py::value_error("layers: expected one");
          // clang-format off
          run(glsk::kernels().of<T>().branch,
              glsk::BranchArgs<T>{int(layers.size()), layers.data(), subproblems, rows, units, width,
                                  at<T>(in[0]), at<T>(in[1]), at<T>(in[2]), at<T>(in[3]), at<int64_t>(in[4]),
                                  at<int8_t>(in[5]), at<T>(in[6]), at<T>(in[7]), at<T>(in[8]), at<int64_t>(in[9]),
                                  at<int32_t>(in[10]), at<int64_t>(in[11]), at<T>(in[12]), iterations, T(rate_alpha), T(rate_beta),
                                  T(decay), at<T>(out[0]), at<T>(out[1]), at<T>(out[2]), at<T>(out[3]), threads});
          // clang-format on
        });
  m.def(name("plane_search").c_str(),
        [](const std::vector<LayerGiven>& given, int64_t rows, int64_t units, int64_t most,
           const std::array<Address, 8>& in, int iterations, double rate, double rate_shares, double decay,
           const std::array<Address, 4>& out, int threads) {
          const std::vector<glsk::Layer<T>> layers = layers_of<T>(given);
          if (layers.size() < 2) throw py::value_error("layers: expected two");
          glsk::PlaneSearchArgs<T> args = {};
          glsk::BranchArgs<T>& a = args.rows;
          a.depth = int(layers.size()), a.layers = layers.data(), a.subproblems = rows, a.rows = 1;
          a.units = a.width = units, a.x_lower = at<T>(in[0]), a.x_upper = at<T>(in[1]);
          a.lower = at<T>(in[2]), a.upper = at<T>(in[3]), a.splits = at<int8_t>(in[4]), a.C = at<T>(in[5]);
          a.start = at<T>(in[6]), a.iterations = iterations, a.rate_alpha = a.rate_beta = T(rate), a.decay = T(decay);
          a.bounds = at<T>(out[0]), a.duals = at<T>(out[1]), a.threads = threads, a.beside = true;
          args.listed = at<int64_t>(in[7]), args.most = most, args.rate_shares = T(rate_shares);
          args.shares = at<T>(out[2]), args.lost = at<T>(out[3]);
          run(glsk::kernels().of<T>().plane_search, args);
        });
  m.def(name("chain_bounds").c_str(),
        [](const ChainGiven& g) { run(glsk::kernels().of<T>().chain, Chain<T>(g).args); });
  m.def(name("chain_bounds_backward").c_str(), [](const ChainGiven& g, Address d_lower, Address d_upper,
                                                  Address d_hidden, const std::vector<GradientGiven>& gradients,
                                                  Address x_lower, Address x_upper, Address C, int groups) {
    const Chain<T> chain(g);
    const std::vector<glsk::LayerGradient<T>> to = gradients_of<T>(gradients);
    const glsk::ChainGradientArgs<T> args = {chain.args,     at<T>(d_lower), at<T>(d_upper), at<T>(d_hidden), to.data(),
                                             at<T>(x_lower), at<T>(x_upper), at<T>(C),       groups};
    run(glsk::kernels().of<T>().chain_backward, args);
  });
  m.def(name("ibp_affine").c_str(), [](const IbpGiven& g) { run(glsk::kernels().of<T>().ibp, Ibp<T>(g).args); });
  m.def(name("ibp_affine_backward").c_str(),
        [](const IbpGiven& g, Address d_lower, Address d_upper, const GradientGiven& gradient, Address in_lower,
           Address in_upper, int groups) {
          const Ibp<T> step(g);
          const glsk::IbpGradientArgs<T> args = {
              step.args,       at<T>(d_lower),  at<T>(d_upper), gradients_of<T>({gradient})[0],
              at<T>(in_lower), at<T>(in_upper), groups};
          run(glsk::kernels().of<T>().ibp_backward, args);
        });
  m.def(
      name("sign_ascent").c_str(),
      [](int members, int samples, int points, const std::vector<LayerGiven>& given, Address start,
         int64_t start_stride, int start_points, Address lower, Address upper, int64_t box_stride, Address rows,
         Address labels, double step, int steps, Address out, int threads) {
        const std::vector<glsk::Layer<T>> layers = layers_of<T>(given);
        const glsk::AscentArgs<T> args = {members,
                                          samples,
                                          points,
                                          int(layers.size()),
                                          layers.data(),
                                          at<T>(start),
                                          start_stride,
                                          start_points,
                                          at<T>(lower),
                                          at<T>(upper),
                                          box_stride,
                                          at<T>(rows),
                                          at<int64_t>(labels),
                                          T(step),
                                          steps,
                                          at<T>(out),
                                          threads};
        run(glsk::kernels().of<T>().ascent, args);
      },
      py::kw_only(), py::arg("members"), py::arg("samples"), py::arg("points"), py::arg("layers"), py::arg("start"),
      py::arg("start_stride"), py::arg("start_points"), py::arg("lower"), py::arg("upper"), py::arg("box_stride"),
      py::arg("rows"), py::arg("labels"), py::arg("step"), py::arg("steps"), py::arg("out"), py::arg("threads"));
  m.def(name("robust_cross_entropy").c_str(),
        [](Address margins, int64_t members, int64_t samples, int64_t rows, Address loss, int threads) {
          py::gil_scoped_release unlocked;
          glsk::robust_cross_entropy<T>(at<T>(margins), members, samples, rows, at<T>(loss), threads);
        });
  m.def(name("robust_cross_entropy_backward").c_str(),
        [](Address margins, Address d_loss, int64_t members, int64_t samples, int64_t rows, Address d_margins,
           int threads) {
          py::gil_scoped_release unlocked;
          glsk::robust_cross_entropy_backward<T>(at<T>(margins), at<T>(d_loss), members, samples, rows,
                                                 at<T>(d_margins), threads);
        });
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU kernels of glsk";
  py::class_<LayerGiven>(m, "Layer")
      .def(py::init([](std::vector<int> geometry, double leak, Address weight, int64_t weight_stride, Address bias,
                       int64_t bias_stride) {
        return LayerGiven{std::move(geometry), leak, weight, weight_stride, bias, bias_stride};
      }));
  py::class_<PassGiven>(m, "Pass").def(
      py::init([](int members, int samples, std::vector<LayerGiven> layers, std::vector<InnerGiven> inner, int rule,
                  Address x_lower, Address x_upper, int64_t box_stride, Address C, int rows, Address known_lower,
                  Address known_upper, Address lower, Address upper, int threads) {
        return PassGiven{members, samples, std::move(layers), std::move(inner), rule,  x_lower, x_upper, box_stride,
                         C,       rows,    known_lower,       known_upper,      lower, upper,   threads};
      }),
      py::kw_only(), py::arg("members"), py::arg("samples"), py::arg("layers"), py::arg("inner"), py::arg("rule"),
      py::arg("x_lower"), py::arg("x_upper"), py::arg("box_stride"), py::arg("C"), py::arg("rows"),
      py::arg("known_lower"), py::arg("known_upper"), py::arg("lower"), py::arg("upper"), py::arg("threads"));
  py::class_<ChainGiven>(m, "Chain")
      .def(py::init([](int members, int samples, std::vector<LayerGiven> layers, Address x_lower, Address x_upper,
                       Address C, int rows, int method, bool prune, Address lower, Address upper, Address hidden,
                       int threads) {
             return ChainGiven{
                 members, samples, std::move(layers), x_lower, x_upper, C, rows, method, prune, lower, upper,
                 hidden,  threads};
           }),
           py::kw_only(), py::arg("members"), py::arg("samples"), py::arg("layers"), py::arg("x_lower"),
           py::arg("x_upper"), py::arg("C"), py::arg("rows"), py::arg("method"), py::arg("prune"), py::arg("lower"),
           py::arg("upper"), py::arg("hidden"), py::arg("threads"));
  py::class_<IbpGiven>(m, "Ibp").def(
      py::init([](int members, int samples, std::vector<LayerGiven> layers, Address in_lower, Address in_upper,
                  int64_t in_stride, bool relu, double in_leak, Address lower, Address upper, int threads) {
        return IbpGiven{members, samples, std::move(layers), in_lower, in_upper, in_stride, relu, in_leak, lower,
                        upper,   threads};
      }),
      py::kw_only(), py::arg("members"), py::arg("samples"), py::arg("layers"), py::arg("in_lower"),
      py::arg("in_upper"), py::arg("in_stride"), py::arg("relu"), py::arg("in_leak"), py::arg("lower"),
      py::arg("upper"), py::arg("threads"));
  add<float>(m, "float32");
  add<double>(m, "float64");
  m.attr("methods") =
      std::vector<std::string>{"IBP", "HBox", "CROWN-IBP", "CROWN", "DeepZ"};  // of glsk::Method, in order
  m.attr("rules") = std::vector<std::string>{"adaptive", "parallel", "mask"};  // of glsk::Rule
  m.def("isa", [] { return glsk::kernels().name; }, "The instruction set in use.");
  m.def("select_isa", &glsk::select_isa, "Use another instruction set; False if it is not available.");
  m.def("available_isas", &glsk::available_isas, "Instruction sets of this build that the machine has, best first.");
  m.def("cpu_features", &glsk::cpu_features, "Instruction-set extensions of the processor.");
}
