// A whole relaxation of a whole network for a few samples at a time: no hidden bound ever leaves a thread's scratch.
// What is saved is the way to memory and back, making each layer's relaxation anew for every later pass, and idle lanes.
#pragma once

#include <new>

#include "cpu/ibp.h"
#include "cpu/tile_pass.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainWorker {
 public:
  explicit ChainWorker(const ChainArgs<T>& args) : a(args) {}

  ~ChainWorker() {
    for (int k = 0; k < a.depth; ++k) {
      if (passes) delete passes[k];
      if (plans) delete plans[k];
    }
    delete tile;
    free(passes), free(plans), free(pass_args), free(layers), free(shapes), free(offsets), free(memory), free(lanes);
  }

  // Takes all memory; false if there is none.
  bool prepare() {
    const int depth = a.depth;
    passes = zeroed<TilePass<T>*>(depth);
    plans = zeroed<Plan<T>*>(depth);
    pass_args = zeroed<PassArgs<T>>(depth);
    layers = zeroed<Layer<T>>(depth);
    shapes = zeroed<Geometry>(int64_t(depth) * depth);
    offsets = zeroed<int64_t>(int64_t(depth) * depth * Plan<T>::OFFSETS);
    if (!passes || !plans || !pass_args || !layers || !shapes || !offsets) return false;
    for (int j = 0; j < depth; ++j) layers[j] = a.layers[j];
    return prepare_lanes() && prepare_passes();
  }

  void load_member(int64_t p) {
    if (p == member) return;
    member = p;
    for (int j = 0; j < a.depth; ++j) {
      layers[j].weight = a.layers[j].weight + p * a.layers[j].weight_stride;
      layers[j].bias = a.layers[j].bias ? a.layers[j].bias + p * a.layers[j].bias_stride : nullptr;
    }
    for (int k = 0; k < a.depth; ++k)
      if (passes[k]) passes[k]->load_member(0);
  }

  // Samples b..b+count, at most LANES, of the loaded member.
  void run(int64_t b, int count) {
    if (held != b) load_samples(b, count);
    const int last = a.depth - 1;
    int from = 0;  // where the box of the next layer's inputs stands, in layers bounded by intervals
    for (int j = 0; j < last; ++j) {
      switch (a.method) {
        case IBP_METHOD: from = interval_step(j, from); break;
        case HBOX_METHOD: from = hbox_layer(j, from, count); break;
        case CROWN_IBP_METHOD: from = crown_ibp_layer(j, from); break;
        case CROWN_METHOD: crown_layer(j, count); break;
      }
    }
    if (!passes[last]) {
      interval_output(from);
    } else if (a.method == HBOX_METHOD) {
      interval_output(from);
      pass_output(count, known_lower, nullptr);
      for (int64_t i = 0; i < int64_t(a.rows) * L; i += L) widen(known_lower + i, lower + i, upper + i);
    } else {
      pass_output(count, lower, a.upper ? upper : nullptr);
    }
    const int64_t out = (member * a.samples + b) * a.rows;
    store_rows<T>(lower, a.rows, count, a.lower + out);
    if (a.upper) store_rows<T>(upper, a.rows, count, a.upper + out);
  }

 private:
  static constexpr int L = LANES<T>;
  const ChainArgs<T>& a;
  TilePass<T>** passes = nullptr;  // of the layers bounded by back-substitution
  Plan<T>** plans = nullptr;
  Tile<T>* tile = nullptr;
  PassArgs<T>* pass_args = nullptr;
  Layer<T>* layers = nullptr;      // of the loaded member
  Geometry* shapes = nullptr;
  int64_t* offsets = nullptr;
  char* memory = nullptr;
  T* lanes = nullptr;              // what follows, [units][lanes]
  T *center[3], *radius[3], *lower, *upper, *known_lower, *known_upper, *spec_lanes;
  int64_t member = -1, held = -1;

  template <class U>
  static U* zeroed(int64_t count) {
    return static_cast<U*>(calloc(size_t(count), sizeof(U)));
  }

  bool prepare_lanes() {
    int64_t widest = a.rows;
    for (int j = 0; j < a.depth; ++j)
      widest = Plan<T>::larger(widest, Plan<T>::larger(layers[j].g.inputs(), layers[j].g.outputs()));
    const int64_t spec = a.C ? int64_t(a.rows) * layers[a.depth - 1].g.outputs() : 0;
    lanes = allocate<T>((10 * widest + spec) * L);
    if (!lanes) return false;
    T* to = lanes;
    T** const places[] = {&center[0], &center[1], &center[2], &radius[0],   &radius[1],
                          &radius[2], &lower,     &upper,     &known_lower, &known_upper};
    for (T** place : places) {
      *place = to;
      to += widest * L;
    }
    spec_lanes = to;
    return true;
  }

  bool prepare_passes() {
    const int depth = a.depth;
    int64_t bytes = 0;
    for (int k = 0; k < depth; ++k) {
      if (!passed(k)) continue;
      PassArgs<T>& p = pass_args[k];
      const bool hbox = a.method == HBOX_METHOD;
      p = {1, L, k + 1, layers, nullptr, nullptr, 0, nullptr, a.layers[k].g.outputs(), nullptr, nullptr,
           nullptr, nullptr, hbox, 1};
      p.lower = lower;
      p.upper = !hbox && (k < depth - 1 || a.upper) ? upper : nullptr;  // only whether it is null matters to the plan
      if (k == depth - 1 && a.C) {
        p.C = a.C;
        p.rows = a.rows;
      }
      int64_t* at = offsets + int64_t(k) * depth * Plan<T>::OFFSETS;
      plans[k] = new (std::nothrow) Plan<T>(p, shapes + int64_t(k) * depth, at, true);
      if (!plans[k]) return false;
      bytes += Arena::size<char>(TilePass<T>::bytes(*plans[k]));
    }
    const Plan<T>* whole = plans[depth - 1];
    if (!whole) return true;
    bytes += Arena::size<char>(Tile<T>::bytes(*whole));
    memory = allocate<char>(bytes);
    if (!memory) return false;
    char* at = memory;
    tile = new (std::nothrow) Tile<T>(*whole, Arena{at});
    if (!tile) return false;
    at += Arena::size<char>(Tile<T>::bytes(*whole));
    for (int k = 0; k < depth; ++k) {
      if (!plans[k]) continue;
      passes[k] = new (std::nothrow) TilePass<T>(*plans[k], *tile, Arena{at});
      if (!passes[k]) return false;
      at += Arena::size<char>(TilePass<T>::bytes(*plans[k]));
    }
    return true;
  }

  // Whether layer k (the last: the output) is bounded by back-substitution; through one layer intervals do the same.
  bool passed(int k) const {
    if (a.method == IBP_METHOD || k == 0) return false;
    return k == a.depth - 1 || (a.method != CROWN_IBP_METHOD && a.layers[k].g.relu);
  }

  void load_samples(int64_t b, int count) {
    const int64_t n = layers[0].g.inputs();
    const T *from_lower = a.x_lower + b * n, *from_upper = a.x_upper + b * n;
    load_lanes<T>(from_lower, from_upper, int(n), count, center[0], radius[0]);
    if (tile && a.method != HBOX_METHOD) tile->load_box(center[0], radius[0], n);
    to_box<T, BOX>(center[0], radius[0], n, center[0], radius[0]);
    if (tile && a.method == HBOX_METHOD) {  // the radius of a row is minus its lower bound on [-r, r]
      for (int64_t i = 0; i < n * L; i += L) store<T>(known_lower + i, -load<T>(radius[0] + i));
      tile->load_box(known_lower, radius[0], n);
    }
    if (a.C) load_specification(b, count);
    held = b;
  }

  // Layer j from the box in centre/radius `from`; returns where the box after its activation stands (place 0 keeps the
  // input's).
  int interval_step(int j, int from) {
    const Layer<T>& layer = layers[j];
    const int to = from == 1 ? 2 : 1;
    if (layer.g.relu)
      ibp_layer<T, BOX_AFTER_RELU>(layer.g, layer.weight, layer.bias, center[from], radius[from], center[to], radius[to]);
    else
      ibp_layer<T, BOX>(layer.g, layer.weight, layer.bias, center[from], radius[from], center[to], radius[to]);
    return to;
  }

  // The same, with the activation kept for the pass of the output.
  int crown_ibp_layer(int j, int from) {
    const Layer<T>& layer = layers[j];
    const int to = from == 1 ? 2 : 1;
    ibp_layer<T>(layer.g, layer.weight, layer.bias, center[from], radius[from], lower, upper);
    tile->load_layer(j, lower, upper, layer.bias);
    if (layer.g.relu)
      to_box<T, BOX_AFTER_RELU>(lower, upper, layer.g.outputs(), center[to], radius[to]);
    else
      to_box<T, BOX>(lower, upper, layer.g.outputs(), center[to], radius[to]);
    return to;
  }

  // Layer j of a hybrid zonotope: centre and uncorrelated radius in `from`; the exact part is a pass.
  int hbox_layer(int j, int from, int count) {
    const Layer<T>& layer = layers[j];
    const int64_t n = layer.g.outputs() * int64_t(L);
    const int to = from == 1 ? 2 : 1;
    T *h = center[to], *beta = radius[to];
    ibp_layer<T, BOX>(layer.g, layer.weight, layer.bias, center[from], radius[from], h, beta);
    if (j == 0) {  // nothing is uncorrelated yet: that radius is the exact part
      for (int64_t i = 0; i < n; i += L) {
        store<T>(known_lower + i, -load<T>(beta + i));
        store<T>(beta + i, Vec<T>{});
      }
    } else if (layer.g.relu) {
      passes[j]->bound_layer(nullptr, nullptr, count, known_lower, nullptr);
    }
    if (layer.g.relu) {
      for (int64_t i = 0; i < n; i += L) {
        const Vec<T> c = load<T>(h + i), r = load<T>(beta + i), zero = {};
        store<T>(lower + i, c - r);
        store<T>(upper + i, c + r);
        widen(known_lower + i, lower + i, upper + i);
        const Vec<T> l = load<T>(lower + i), u = load<T>(upper + i), half = u * T(0.5);
        store<T>(h + i, l >= 0 ? c : u <= 0 ? zero : half);
        store<T>(beta + i, l >= 0 ? r : u <= 0 ? zero : half);
      }
    }
    tile->load_layer(j, lower, upper, layer.bias);
    return to;
  }

  // by: minus what the bounds are to be widened by.
  static GLSK_INLINE void widen(const T* by, T* lower, T* upper) {
    store<T>(lower, load<T>(lower) + load<T>(by));
    store<T>(upper, load<T>(upper) - load<T>(by));
  }

  // Layer j by back-substitution, the first one by intervals; `lower` and `upper` hold the bounds of the one before.
  void crown_layer(int j, int count) {
    const Layer<T>& layer = layers[j];
    if (layer.g.relu && j == 0) {
      ibp_layer<T>(layer.g, layer.weight, layer.bias, center[0], radius[0], lower, upper);
    } else if (layer.g.relu) {
      const bool prune = a.prune && layers[j - 1].g.relu;
      if (prune) {
        to_box<T, BOX_AFTER_RELU>(lower, upper, layer.g.inputs(), center[1], radius[1]);
        ibp_layer<T>(layer.g, layer.weight, layer.bias, center[1], radius[1], known_lower, known_upper);
      }
      passes[j]->bound_layer(prune ? known_lower : nullptr, known_upper, count, lower, upper);
    }
    tile->load_layer(j, lower, upper, layer.bias);
  }

  void pass_output(int count, T* lower, T* upper) {
    TilePass<T>& pass = *passes[a.depth - 1];
    if (a.C)
      pass.bound_specification(spec_lanes, lower, upper);
    else
      pass.bound_layer(nullptr, nullptr, count, lower, upper);
  }

  // C of the tile, [rows * outputs][lanes].
  void load_specification(int64_t b, int count) {
    const int64_t n = int64_t(a.rows) * layers[a.depth - 1].g.outputs();
    for (int64_t i = 0; i < n; ++i)
      for (int s = 0; s < L; ++s) spec_lanes[i * L + s] = s < count ? a.C[(b + s) * n + i] : T(0);
  }

  void interval_output(int from) {
    const Layer<T>& layer = layers[a.depth - 1];
    if (a.C)
      interval_specification(layer, center[from], radius[from]);
    else
      ibp_layer<T>(layer.g, layer.weight, layer.bias, center[from], radius[from], lower, upper);
  }

  // Rows of C W, merged first, over the box of the last (linear) layer's inputs.
  void interval_specification(const Layer<T>& layer, const T* c, const T* r) {
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
