// A whole relaxation of a whole network for a few samples at a time: no hidden bound ever leaves a thread's scratch.
// What is saved is the way to memory and back, making each layer's relaxation anew for every later pass, and idle lanes.
#pragma once

#include "cpu/chain_plans.h"
#include "cpu/tile_pass.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainWorker {
 public:
  explicit ChainWorker(const ChainArgs<T>& args) : a(args), chain(args) {}

  ~ChainWorker() {
    for (int k = 0; passes && k < a.depth; ++k) delete passes[k];
    free(passes), free(lanes);
  }

  // Takes all memory; false if there is none.
  bool prepare() {
    passes = zeroed<TilePass<T>*>(a.depth);
    if (!passes || !chain.prepare(false, [](const Plan<T>& plan) { return TilePass<T>::bytes(plan); })) return false;
    for (int k = 0; k < a.depth; ++k) {
      if (!chain.plans[k]) continue;
      const Plan<T>& plan = *chain.plans[k];
      passes[k] = new (std::nothrow) TilePass<T>(plan, *chain.tile, chain.take(TilePass<T>::bytes(plan)));
      if (!passes[k]) return false;
    }
    return prepare_lanes();
  }

  void load_member(int64_t p) {
    if (p == member) return;
    member = p;
    chain.load_member(p);
    for (int k = 0; k < a.depth; ++k)
      if (passes[k]) passes[k]->load_member();
  }

  // Samples b..b+count, at most LANES, of the loaded member.
  void run(int64_t b, int count) {
    if (held != b) load_samples(b, count);
    const int last = a.depth - 1;
    int from = 0;  // where the box of the next layer's inputs stands, in layers bounded by intervals
    for (int j = 0; j < last; ++j) {
      switch (a.method) {
        case IBP_METHOD: from = a.hidden ? interval_layer(j, from) : interval_step(j, from); break;
        case HBOX_METHOD: from = hbox_layer(j, from, count); break;
        case CROWN_IBP_METHOD: from = interval_layer(j, from); break;
        default: crown_layer(j, count);
      }
      if (a.hidden) keep(j, b, count);
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
  ChainPlans<T> chain;
  TilePass<T>** passes = nullptr;  // of the layers bounded by back-substitution
  T* lanes = nullptr;              // what follows, [units][lanes]
  T *center[3], *radius[3], *lower, *upper, *known_lower, *known_upper, *spec_lanes;
  int64_t member = -1, held = -1;

  bool prepare_lanes() {
    const int64_t widest = chain.widest();
    const int64_t spec = a.C ? int64_t(a.rows) * a.layers[a.depth - 1].g.outputs() : 0;
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

  void load_samples(int64_t b, int count) {
    const int64_t n = a.layers[0].g.inputs();
    const T *from_lower = a.x_lower + b * n, *from_upper = a.x_upper + b * n;
    load_lanes<T>(from_lower, from_upper, int(n), count, center[0], radius[0]);
    if (chain.tile && a.method != HBOX_METHOD) chain.tile->load_box(center[0], radius[0], n);
    to_box<T, BOX>(center[0], radius[0], n, T(1), center[0], radius[0]);
    if (chain.tile && a.method == HBOX_METHOD) {  // the radius of a row is minus its lower bound on [-r, r]
      for (int64_t i = 0; i < n * L; i += L) store<T>(known_lower + i, -load<T>(radius[0] + i));
      chain.tile->load_box(known_lower, radius[0], n);
    }
    if (a.C) chain.load_specification(b, count, spec_lanes);
    held = b;
  }

  // Layer j's bounds [outputs][lanes], to where a gradient or a caller reads them; zeros where nothing bounds them.
  void keep(int j, int64_t b, int count) {
    const int n = a.layers[j].g.outputs();
    const int64_t units = chain.hidden_units(a.depth - 1);
    T* to = a.hidden + (member * a.samples + b) * 2 * units + chain.hidden_units(j);
    if (a.layers[j].g.relu) {
      store_rows<T>(lower, n, count, to, 2 * units);
      store_rows<T>(upper, n, count, to + units, 2 * units);
    } else {
      for (int s = 0; s < count; ++s, to += 2 * units) {
        memset(to, 0, n * sizeof(T));
        memset(to + units, 0, n * sizeof(T));
      }
    }
  }

  // Layer j from the box in centre/radius `from`; returns where the box after its activation stands (place 0 keeps the
  // input's).
  int interval_step(int j, int from) {
    const Layer<T>& layer = chain.layers[j];
    const int to = from == 1 ? 2 : 1;
    if (layer.g.relu)
      ibp_layer<T, BOX_AFTER_ACTIVATION>(layer, center[from], radius[from], center[to], radius[to]);
    else
      ibp_layer<T, BOX>(layer, center[from], radius[from], center[to], radius[to]);
    return to;
  }

  // The same, with its bounds kept, and the activation for the pass of the output.
  int interval_layer(int j, int from) {
    const Layer<T>& layer = chain.layers[j];
    const int to = from == 1 ? 2 : 1;
    ibp_layer<T>(layer, center[from], radius[from], lower, upper);
    if (chain.tile) chain.tile->load_layer(j, lower, upper, chain.rule());
    if (layer.g.relu)
      to_box<T, BOX_AFTER_ACTIVATION>(lower, upper, layer.g.outputs(), layer.leak, center[to], radius[to]);
    else
      to_box<T, BOX>(lower, upper, layer.g.outputs(), T(1), center[to], radius[to]);
    return to;
  }

  // Layer j of a hybrid zonotope: centre and uncorrelated radius in `from`; the exact part is a pass.
  int hbox_layer(int j, int from, int count) {
    const Layer<T>& layer = chain.layers[j];
    const int64_t n = layer.g.outputs() * int64_t(L);
    const int to = from == 1 ? 2 : 1;
    T *h = center[to], *beta = radius[to];
    ibp_layer<T, BOX>(layer, center[from], radius[from], h, beta);
    if (j == 0) {  // nothing is uncorrelated yet: that radius is the exact part
      for (int64_t i = 0; i < n; i += L) {
        store<T>(known_lower + i, -load<T>(beta + i));
        store<T>(beta + i, Vec<T>{});
      }
    } else if (layer.g.relu) {
      passes[j]->bound_layer(nullptr, nullptr, false, count, known_lower, nullptr);
    }
    if (layer.g.relu) {
      for (int64_t i = 0; i < n; i += L) {
        Vec<T> c = load<T>(h + i), r = load<T>(beta + i);
        store<T>(lower + i, c - r);
        store<T>(upper + i, c + r);
        widen(known_lower + i, lower + i, upper + i);
        hbox_unit<T>(load<T>(lower + i), load<T>(upper + i), layer.leak, c, r);
        store<T>(h + i, c);
        store<T>(beta + i, r);
      }
    }
    chain.tile->load_layer(j, lower, upper, chain.rule());
    return to;
  }

  // by: minus what the bounds are to be widened by.
  static GLSK_INLINE void widen(const T* by, T* lower, T* upper) {
    store<T>(lower, load<T>(lower) + load<T>(by));
    store<T>(upper, load<T>(upper) - load<T>(by));
  }

  // Layer j by back-substitution, the first one by intervals; `lower` and `upper` hold the bounds of the one before.
  void crown_layer(int j, int count) {
    const Layer<T>& layer = chain.layers[j];
    if (layer.g.relu && j == 0) {
      ibp_layer<T>(layer, center[0], radius[0], lower, upper);
    } else if (layer.g.relu) {
      const bool prune = a.prune && a.layers[j - 1].g.relu;
      if (prune) {
        const int64_t n = layer.g.inputs();
        to_box<T, BOX_AFTER_ACTIVATION>(lower, upper, n, a.layers[j - 1].leak, center[1], radius[1]);
        ibp_layer<T>(layer, center[1], radius[1], known_lower, known_upper);
      }
      passes[j]->bound_layer(prune ? known_lower : nullptr, known_upper, true, count, lower, upper);
    }
    chain.tile->load_layer(j, lower, upper, chain.rule());
  }

  void pass_output(int count, T* lower, T* upper) {
    TilePass<T>& pass = *passes[a.depth - 1];
    if (a.C)
      pass.bound_specification(spec_lanes, a.rows, count, lower, upper);
    else
      pass.bound_layer(nullptr, nullptr, false, count, lower, upper);
  }

  void interval_output(int from) {
    const Layer<T>& layer = chain.layers[a.depth - 1];
    if (a.C)
      interval_specification(layer, center[from], radius[from]);
    else
      ibp_layer<T>(layer, center[from], radius[from], lower, upper);
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
      for (; i + 4 <= inputs; i += 4)
        merge<4>(layer.weight + i, inputs, outputs, C, c + i * L, r + i * L, middle, spread);
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
  Crew<ChainWorker<T>, ChainArgs<T>> crew(a, tasks, a.threads);
  if (!crew.ready) return false;
  // A tile's members in turn: they share its box, and packing a member's weights is quick.
  parallel_ranges(crew.threads, tasks, [&](int thread, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t p = task % a.members, b = task / a.members * L;
      crew[thread].load_member(p);
      crew[thread].run(b, a.samples - b < L ? int(a.samples - b) : L);
    }
  });
  return true;
}

}  // namespace GLSK_ISA
}  // namespace glsk
