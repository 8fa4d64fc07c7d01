// A whole relaxation of a whole network for a few samples at a time: no hidden bound ever leaves a thread's scratch.
// Layers are bounded as in ibp.h and pass.h, in the same arithmetic; what is saved is the way to memory and back, and
// making each layer's relaxation anew for every later pass.
#pragma once

#include <new>

#include "cpu/ibp.h"
#include "cpu/pass.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainWorker {
 public:
  explicit ChainWorker(const ChainArgs<T>& args) : a(args) {}

  ~ChainWorker() {
    for (int k = 0; k < a.depth; ++k) {
      if (workers) delete workers[k];
      if (plans) delete plans[k];
    }
    free(workers), free(plans), free(pass_args), free(layers), free(shapes), free(offsets), free(memory), free(lanes);
  }

  // Takes all memory; false if there is none.
  bool prepare() {
    const int depth = a.depth;
    workers = zeroed<Worker<T>*>(depth);
    plans = zeroed<Plan<T>*>(depth);
    pass_args = zeroed<PassArgs<T>>(depth);
    layers = zeroed<Layer<T>>(depth);
    shapes = zeroed<Geometry>(int64_t(depth) * depth);
    offsets = zeroed<int64_t>(int64_t(depth) * depth * Plan<T>::OFFSETS);
    if (!workers || !plans || !pass_args || !layers || !shapes || !offsets) return false;
    int64_t widest = a.rows, held = 0, bytes = 0;
    for (int j = 0; j < depth; ++j) {
      layers[j] = a.layers[j];
      const Geometry& g = layers[j].g;
      widest = Plan<T>::larger(widest, Plan<T>::larger(g.inputs(), g.outputs()));
      held += 2 * L * int64_t(g.outputs());
    }
    const int64_t spec = a.C ? int64_t(a.rows) * a.layers[depth - 1].g.outputs() : 0;
    lanes = allocate<T>((6 * widest + spec) * L + held + L);
    if (!lanes) return false;
    for (int k = 0; k < depth; ++k) {
      if (!passed(k)) continue;
      PassArgs<T>& p = pass_args[k];
      p = {1, SAMPLES, k + 1, layers, nullptr, nullptr, 0, nullptr, a.layers[k].g.outputs(), nullptr, nullptr,
           nullptr, nullptr, false, 1};
      // Only whether they are null matters to the plan.
      p.lower = p.upper = lanes;
      if (k == depth - 1) {
        p.C = a.C;
        if (a.C) p.rows = a.rows;
        if (!a.upper) p.upper = nullptr;
      }
      plans[k] = new (std::nothrow) Plan<T>(p, shapes + int64_t(k) * depth, offsets + int64_t(k) * depth * Plan<T>::OFFSETS);
      if (!plans[k]) return false;
      bytes += Arena::size<char>(Worker<T>::bytes(*plans[k]));
    }
    memory = allocate<char>(bytes + 1);
    if (!memory) return false;
    char* at = memory;
    for (int k = 0; k < depth; ++k) {
      if (!passed(k)) continue;
      workers[k] = new (std::nothrow) Worker<T>(*plans[k], at);
      if (!workers[k]) return false;
      at += Arena::size<char>(Worker<T>::bytes(*plans[k]));
    }
    for (int k = 0; k + 1 < depth; ++k)
      if (workers[k]) workers[k]->share_samples(*workers[depth - 1]);
    T* to = lanes + (6 * widest + spec) * L;
    for (int i = 0; i < 3; ++i) {
      center[i] = lanes + 2 * i * widest * L;
      radius[i] = center[i] + widest * L;
    }
    spec_lanes = lanes + 6 * widest * L;
    for (int j = 0; j < depth; ++j) {
      layers[j].lower = to;
      layers[j].upper = to + L * int64_t(layers[j].g.outputs());
      to += 2 * L * int64_t(layers[j].g.outputs());
    }
    return true;
  }

  void load_member(int64_t p) {
    if (p == member) return;
    member = p;
    for (int j = 0; j < a.depth; ++j) {
      layers[j].weight = a.layers[j].weight + p * a.layers[j].weight_stride;
      layers[j].bias = a.layers[j].bias ? a.layers[j].bias + p * a.layers[j].bias_stride : nullptr;
    }
    for (int k = 0; k < a.depth; ++k)
      if (workers[k]) workers[k]->load_member(0);
  }

  // Samples b..b+count, at most LANES, of the loaded member.
  void run(int64_t b, int count) {
    const int64_t n = layers[0].g.inputs();
    if (tile != b) {  // the box is the same for every member
      load_box<T>(a.x_lower + b * n, a.x_upper + b * n, int(n), count, false, center[0], radius[0]);
      if (a.method == IBP_METHOD && a.C) load_specification(b, count);
      tile = b;
    }
    const int last = a.depth - 1, boxed = a.method == CROWN_METHOD ? 1 : last;
    int from = 0;
    for (int j = 0; j < boxed && j < last; ++j) from = interval_step(j, from, count);
    if (a.method == IBP_METHOD)
      interval_output(from, b, count);
    else
      for (int s = 0; s < count; s += SAMPLES) back_substitute(b + s, s, count - s < SAMPLES ? count - s : SAMPLES);
  }

 private:
  static constexpr int L = LANES<T>;
  const ChainArgs<T>& a;
  Worker<T>** workers = nullptr;
  Plan<T>** plans = nullptr;
  PassArgs<T>* pass_args = nullptr;
  Layer<T>* layers = nullptr;  // of the loaded member; bounds [LANES samples][outputs], or [SAMPLES] where a pass made them
  Geometry* shapes = nullptr;
  int64_t* offsets = nullptr;
  char* memory = nullptr;
  T *lanes = nullptr, *center[3], *radius[3], *spec_lanes;
  int64_t member = -1, tile = -1;

  template <class U>
  static U* zeroed(int64_t count) {
    return static_cast<U*>(calloc(size_t(count), sizeof(U)));
  }

  // Whether layer k (the last: the output) is bounded by back-substitution.
  bool passed(int k) const {
    if (k == a.depth - 1) return a.method != IBP_METHOD;
    return a.method == CROWN_METHOD && k > 0 && a.layers[k].g.relu;
  }

  // Layer j by intervals, from the box in centre/radius `from`; keeps its bounds if a pass will read them, and returns
  // where the box after its activation stands (place 0 keeps the input's).
  int interval_step(int j, int from, int count) {
    const Geometry& g = layers[j].g;
    const int to = from == 1 ? 2 : 1;
    const T *weight = layers[j].weight, *bias = layers[j].bias;
    if (a.method != IBP_METHOD && g.relu) {
      const int64_t n = g.outputs();
      ibp_layer<T>(g, weight, bias, center[from], radius[from], center[to], radius[to]);
      store_rows<T>(center[to], int(n), count, const_cast<T*>(layers[j].lower));
      store_rows<T>(radius[to], int(n), count, const_cast<T*>(layers[j].upper));
      if (a.method == CROWN_IBP_METHOD && j + 2 < a.depth)
        for (int64_t i = 0; i < n * L; i += L) {
          const Vec<T> l = load<T>(center[to] + i), u = load<T>(radius[to] + i), half = broadcast<T>(T(0.5));
          store_unit<T, BOX_AFTER_RELU>((l + u) * half, (u - l) * half, center[to] + i, radius[to] + i);
        }
    } else if (g.relu) {
      ibp_layer<T, BOX_AFTER_RELU>(g, weight, bias, center[from], radius[from], center[to], radius[to]);
    } else {
      ibp_layer<T, BOX>(g, weight, bias, center[from], radius[from], center[to], radius[to]);
    }
    return to;
  }

  // C of the tile, [rows * outputs][lanes].
  void load_specification(int64_t b, int count) {
    const int64_t n = int64_t(a.rows) * layers[a.depth - 1].g.outputs();
    for (int64_t i = 0; i < n; ++i)
      for (int s = 0; s < L; ++s) spec_lanes[i * L + s] = s < count ? a.C[(b + s) * n + i] : T(0);
  }

  void interval_output(int from, int64_t b, int count) {
    const Layer<T>& layer = layers[a.depth - 1];
    const int to = from == 1 ? 2 : 1;
    T *lower = center[to], *upper = radius[to];
    if (a.C)
      interval_specification(layer, center[from], radius[from], lower, upper);
    else
      ibp_layer<T>(layer.g, layer.weight, layer.bias, center[from], radius[from], lower, upper);
    const int64_t out = (member * a.samples + b) * a.rows;
    store_rows<T>(lower, a.rows, count, a.lower + out);
    if (a.upper) store_rows<T>(upper, a.rows, count, a.upper + out);
  }

  // Rows of C W, merged first, over the box of the last (linear) layer's inputs.
  void interval_specification(const Layer<T>& layer, const T* c, const T* r, T* lower, T* upper) {
    const int64_t inputs = layer.g.inputs();
    const int outputs = layer.g.outputs();
    for (int row = 0; row < a.rows; ++row) {
      const T* C = spec_lanes + int64_t(row) * outputs * L;
      Vec<T> middle = {}, spread = {};
      if (layer.bias)
        for (int k = 0; k < outputs; ++k) middle += load<T>(C + k * L) * layer.bias[k];
      int64_t i = 0;
      for (; i + 4 <= inputs; i += 4) merge<4>(layer.weight + i, inputs, outputs, C, c + i * L, r + i * L, middle, spread);
      for (; i < inputs; ++i) merge<1>(layer.weight + i, inputs, outputs, C, c + i * L, r + i * L, middle, spread);
      store<T>(lower + int64_t(row) * L, middle - spread);
      store<T>(upper + int64_t(row) * L, middle + spread);
    }
  }

  template <int N>
  static GLSK_INLINE void merge(const T* w, int64_t pitch, int outputs, const T* C, const T* c, const T* r,
                                Vec<T>& middle, Vec<T>& spread) {
    Vec<T> m[N] = {};
    for (int k = 0; k < outputs; ++k) {
      const Vec<T> value = load<T>(C + k * L);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) m[n] += w[k * pitch + n] * value;
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
      middle += m[n] * load<T>(c + n * L);
      spread += absolute<T>(m[n]) * load<T>(r + n * L);
    }
  }

  // Samples b..b+count; `at` is their place in the tile.
  void back_substitute(int64_t b, int at, int count) {
    const int last = a.depth - 1;
    const int64_t n = layers[0].g.inputs();
    Worker<T>& output = *workers[last];
    PassArgs<T>& out = pass_args[last];
    out.x_lower = a.x_lower + b * n;
    out.x_upper = a.x_upper + b * n;
    output.load_box(0, 0, count);
    for (int k = 0; k < last; ++k) {
      const bool by_interval = k == 0 || a.method != CROWN_METHOD;
      if (workers[k]) {
        pass_args[k].lower = const_cast<T*>(layers[k].lower);
        pass_args[k].upper = const_cast<T*>(layers[k].upper);
        workers[k]->bound(0, 0, count);
      }
      output.load_layer(k, 0, by_interval ? at : 0, count);
    }
    if (a.C) out.C = a.C + b * a.rows * layers[last].g.outputs();
    const int64_t to = (member * a.samples + b) * a.rows;
    out.lower = a.lower + to;
    out.upper = a.upper ? a.upper + to : nullptr;
    output.bound(0, 0, count);
  }
};

template <class T>
bool run_chain(const ChainArgs<T>& a) {
  constexpr int L = LANES<T>;
  const int64_t tiles = (a.samples + L - 1) / L, tasks = tiles * a.members;
  const int threads = tasks < a.threads ? int(tasks) : a.threads;
  ChainWorker<T>** workers = static_cast<ChainWorker<T>**>(calloc(size_t(threads), sizeof(ChainWorker<T>*)));
  bool ready = workers != nullptr;
  for (int i = 0; ready && i < threads; ++i) {
    workers[i] = new (std::nothrow) ChainWorker<T>(a);
    ready = workers[i] && workers[i]->prepare();
  }
  if (ready) {
    // A tile's members in turn: they share its box, and packing a member's weights is quick.
    parallel_ranges(threads, tasks, [&](int thread, int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) {
        const int64_t p = task % a.members, b = task / a.members * L;
        workers[thread]->load_member(p);
        workers[thread]->run(b, a.samples - b < L ? int(a.samples - b) : L);
      }
    });
  }
  for (int i = 0; workers && i < threads; ++i) delete workers[i];
  free(workers);
  return ready;
}

}  // namespace GLSK_ISA
}  // namespace glsk
