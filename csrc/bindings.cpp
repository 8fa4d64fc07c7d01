// The Python module glsk._C: raw addresses, shapes and strides in; no PyTorch. The caller (glsk/cpu.py) owns every tensor,
// has checked it, and keeps it alive; calls run without the interpreter's lock.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <new>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/pointwise.h"
#include "cpu/types.h"

namespace py = pybind11;
using Address = uintptr_t;

namespace {

// weight address and member stride, bias address and member stride, lower and upper address; 0 is none.
using LayerAddresses = std::tuple<Address, int64_t, Address, int64_t, Address, Address>;

template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

glsk::Geometry geometry_of(const std::vector<int>& v, size_t first) {
  constexpr size_t width = sizeof(glsk::Geometry) / sizeof(int);
  if (v.size() < first + width) throw py::value_error("geometry: too few integers");
  return {v[first],     v[first + 1], v[first + 2], v[first + 3],  v[first + 4],  v[first + 5], v[first + 6],
          v[first + 7], v[first + 8], v[first + 9], v[first + 10], v[first + 11], v[first + 12]};
}

template <class T>
std::vector<glsk::Layer<T>> layers_of(const std::vector<int>& geometry, const std::vector<LayerAddresses>& layers) {
  std::vector<glsk::Layer<T>> chain;
  for (size_t j = 0; j < layers.size(); ++j) {
    const auto& [weight, weight_stride, bias, bias_stride, low, up] = layers[j];
    const glsk::Geometry g = geometry_of(geometry, j * (sizeof(glsk::Geometry) / sizeof(int)));
    chain.push_back({g, at<T>(weight), weight_stride, at<T>(bias), bias_stride, at<T>(low), at<T>(up)});
  }
  return chain;
}

template <class T>
void pass(int members, int samples, const std::vector<int>& geometry, const std::vector<LayerAddresses>& layers,
          Address x_lower, Address x_upper, int64_t box_stride, Address C, int rows, Address known_lower,
          Address known_upper, Address lower, Address upper, bool hbox, int threads) {
  const std::vector<glsk::Layer<T>> chain = layers_of<T>(geometry, layers);
  const glsk::PassArgs<T> args = {members,         samples,       int(chain.size()), chain.data(),
                                  at<T>(x_lower),  at<T>(x_upper), box_stride,       at<T>(C),
                                  rows,            at<T>(known_lower), at<T>(known_upper), at<T>(lower),
                                  at<T>(upper),    hbox,          threads};
  py::gil_scoped_release unlocked;
  bool done;
  if constexpr (std::is_same_v<T, float>)
    done = glsk::kernels().pass_f32(args);
  else
    done = glsk::kernels().pass_f64(args);
  if (!done) throw std::bad_alloc();
}

template <class T>
void chain(int members, int samples, const std::vector<int>& geometry, const std::vector<LayerAddresses>& layers,
           Address x_lower, Address x_upper, Address C, int rows, int method, bool prune, Address lower,
           Address upper, int threads) {
  const std::vector<glsk::Layer<T>> chain = layers_of<T>(geometry, layers);
  const glsk::ChainArgs<T> args = {members,        samples,      int(chain.size()), chain.data(), at<T>(x_lower),
                                   at<T>(x_upper), at<T>(C),     rows,              glsk::Method(method),
                                   prune,          at<T>(lower), at<T>(upper),      threads};
  py::gil_scoped_release unlocked;
  bool done;
  if constexpr (std::is_same_v<T, float>)
    done = glsk::kernels().chain_f32(args);
  else
    done = glsk::kernels().chain_f64(args);
  if (!done) throw std::bad_alloc();
}

template <class T>
void ibp(int members, int samples, const std::vector<int>& geometry, Address weight, int64_t weight_stride, Address bias,
         int64_t bias_stride, Address in_lower, Address in_upper, int64_t in_stride, bool relu, Address lower,
         Address upper, int threads) {
  const glsk::IbpArgs<T> args = {members,         samples,   geometry_of(geometry, 0), at<T>(weight), weight_stride,
                                 at<T>(bias),     bias_stride, at<T>(in_lower),        at<T>(in_upper), in_stride,
                                 relu,            at<T>(lower), at<T>(upper),          threads};
  py::gil_scoped_release unlocked;
  bool done;
  if constexpr (std::is_same_v<T, float>)
    done = glsk::kernels().ibp_f32(args);
  else
    done = glsk::kernels().ibp_f64(args);
  if (!done) throw std::bad_alloc();
}

template <class T>
void add(py::module_& m, const std::string& suffix) {
  m.def(("pass_" + suffix).c_str(), &pass<T>);
  m.def(("ibp_" + suffix).c_str(), &ibp<T>);
  m.def(("chain_" + suffix).c_str(), &chain<T>);
  m.def(("relu_relaxation_" + suffix).c_str(),
        [](Address lower, Address upper, int64_t n, Address lower_slope, Address upper_slope, Address intercept,
           int threads) {
          py::gil_scoped_release unlocked;
          glsk::relu_relaxation<T>(at<T>(lower), at<T>(upper), n, at<T>(lower_slope), at<T>(upper_slope),
                                   at<T>(intercept), threads);
        });
  m.def(("hbox_relu_" + suffix).c_str(), [](Address box_lower, Address box_upper, Address lower, Address upper,
                                            int64_t n, Address out_lower, Address out_upper, int threads) {
    py::gil_scoped_release unlocked;
    glsk::hbox_relu<T>(at<T>(box_lower), at<T>(box_upper), at<T>(lower), at<T>(upper), n, at<T>(out_lower),
                       at<T>(out_upper), threads);
  });
  m.def(("robust_cross_entropy_" + suffix).c_str(),
        [](Address margins, int64_t members, int64_t samples, int64_t rows, Address loss, int threads) {
          py::gil_scoped_release unlocked;
          glsk::robust_cross_entropy<T>(at<T>(margins), members, samples, rows, at<T>(loss), threads);
        });
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "CPU kernels of glsk";
  add<float>(m, "float32");
  add<double>(m, "float64");
  m.def("isa", [] { return glsk::kernels().name; }, "The instruction set in use.");
  m.def("select_isa", &glsk::select_isa, "Use another instruction set; False if it is not available.");
  m.def("available_isas", &glsk::available_isas, "Instruction sets of this build that the machine has, best first.");
  m.def("cpu_features", &glsk::cpu_features, "Instruction-set extensions of the processor.");
}
