// What the gradient of a whole relaxation holds of a tile of samples: the hidden bounds that the forward kept, the boxes
// that intervals made of them, and the gradients by all of that.
#pragma once

#include "cpu/chain_plans.h"
#include "cpu/folding.h"
#include "cpu/ibp_backward.h"
#include "cpu/interval_rows.h"
#include "cpu/tile_pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainGradientTile {
 public:
  explicit ChainGradientTile(const ChainGradientArgs<T>& args) : d(args), a(args.chain), chain(args.chain) {}

  ~ChainGradientTile() {
    for (int k = 0; passes && k < a.depth; ++k) delete passes[k];
    free(passes), free(sums), free(places), free(lanes);
  }

  // Takes all memory; false if there is none.
  bool prepare() {
    passes = zeroed<PassGradient<T>*>(a.depth);
    sums = zeroed<LayerSums<T>>(a.depth);
    places = zeroed<Held>(a.depth);
    if (!passes || !sums || !places) return false;
    if (!chain.prepare(true, [](const Plan<T>& plan) { return PassGradient<T>::bytes(plan); })) return false;
    for (int k = 0; k < a.depth; ++k) {
      if (!chain.plans[k]) continue;
      const Plan<T>& plan = *chain.plans[k];
      passes[k] = new (std::nothrow) PassGradient<T>(plan, *chain.tile, chain.take(PassGradient<T>::bytes(plan)));
      if (!passes[k]) return false;
    }
    return prepare_lanes();
  }

 protected:
  static constexpr int L = LANES<T>;
  // Of one layer, [units][lanes]: its bounds and their gradients; centre and radius of the box of its inputs, as its
  // method propagates it; and its weights packed by input.
  struct Held {
    T *lower, *upper, *by_lower, *by_upper, *center, *radius, *packed;
  };

  const ChainGradientArgs<T>& d;
  const ChainArgs<T>& a;
  ChainPlans<T> chain;
  PassGradient<T>** passes = nullptr;
  LayerSums<T>* sums = nullptr;
  Held* places = nullptr;
  T* lanes = nullptr;
  T *spec_lanes, *by_C, *out_lower, *out_upper;  // the specification and the output's gradients
  T *by_center, *by_radius;                      // by the box that reaches the layer after the present one
  T *mid_center, *mid_radius;                    // by centre and radius of the present layer's outputs
  T *in_center, *in_radius;                      // by those of the input
  T* merged;                                     // room for rows merged with the last layer
  BoxSums<T> box_sums = {};
  int64_t member = -1;

  bool boxed() const { return d.x_lower || d.x_upper; }

  template <class Take>
  void lay_out(const Take& take) {
    const int depth = a.depth, last = depth - 1;
    const int64_t widest = chain.widest(), inputs = a.layers[0].g.inputs();
    for (int j = 0; j < depth; ++j) {
      const Geometry& g = a.layers[j].g;
      T** const some[] = {&places[j].lower, &places[j].upper, &places[j].by_lower, &places[j].by_upper};
      for (T** to : some) take(to, j < last ? int64_t(g.outputs()) * L : 0);
      T** const more[] = {&places[j].center, &places[j].radius};
      for (T** to : more) take(to, chain.interval(j) ? int64_t(g.inputs()) * L : 0);
      const bool passed_back = j ? chain.interval(j) : boxed();
      take(&places[j].packed, passed_back ? int64_t(g.kh) * g.kw * g.cout * gather_pitch(g) : 0);
      const bool lined = chain.plans[last] && j < last && g.relu && chain.rule() != MASK;
      sums[j].both = chain.rule() == PARALLEL;
      take(&sums[j].by_unit, lined ? int64_t(g.outputs()) * sums[j].quantities() * L : 0);
      take(&sums[j].by_sample, lined ? int64_t(g.outputs()) * sums[j].quantities() * L : 0);
    }
    const Geometry& g = a.layers[last].g;
    const int64_t spec = a.C ? int64_t(a.rows) * g.outputs() * L : 0;
    take(&spec_lanes, spec);
    take(&by_C, d.C ? spec : 0);
    T** const others[] = {&out_lower, &out_upper, &by_center, &by_radius, &mid_center, &mid_radius};
    for (T** to : others) take(to, widest * L);
    take(&merged, a.C ? IntervalRows<T>::room(a.rows) : 0);
    take(&box_sums.by_input, boxed() ? 2 * inputs * L : 0);
    take(&box_sums.by_sample, boxed() ? 2 * inputs * L : 0);
    T** const rest[] = {&in_center, &in_radius};
    for (T** to : rest) take(to, boxed() ? inputs * L : 0);
  }

  bool prepare_lanes() {
    int64_t total = 0;
    const auto rounded = [](int64_t n) { return (n + L - 1) / L * L; };
    lay_out([&](T**, int64_t n) { total += rounded(n); });
    lanes = allocate<T>(total);
    if (!lanes) return false;
    T* at = lanes;
    lay_out([&](T** to, int64_t n) {
      *to = n ? at : nullptr;
      at += rounded(n);
    });
    return true;
  }

  // ---- what a tile is given ----

  void load_member(int64_t p) {
    if (p == member) return;
    member = p;
    chain.load_member(p);
    for (int k = 0; k < a.depth; ++k) {
      if (passes[k]) passes[k]->load_member();
      const Geometry& g = a.layers[k].g;
      if (places[k].packed) pack_by_input<T>(g, chain.layers[k].weight, gather_pitch(g), places[k].packed);
    }
  }

  void load_samples(int64_t b, int count) {
    const int64_t n = a.layers[0].g.inputs();
    T *center = places[0].center, *radius = places[0].radius;
    load_lanes<T>(a.x_lower + b * n, a.x_upper + b * n, int(n), count, center, radius);
    if (chain.tile && a.method != HBOX_METHOD) chain.tile->load_box(center, radius, n);
    to_box<T, BOX>(center, radius, n, T(1), center, radius);
    if (chain.tile && a.method == HBOX_METHOD) {
      for (int64_t i = 0; i < n * L; i += L) store<T>(by_center + i, -load<T>(radius + i));
      chain.tile->load_box(by_center, radius, n);
    }
    if (a.C) chain.load_specification(b, count, spec_lanes);
    if (by_C) clear(by_C, int64_t(a.rows) * a.layers[a.depth - 1].g.outputs());
    if (boxed()) {
      clear(box_sums.by_input, 2 * n);
      clear(box_sums.by_sample, 2 * n);
      clear(in_center, n);
      clear(in_radius, n);
    }
  }

  static void clear(T* at, int64_t units) { memset(at, 0, sizeof(T) * units * L); }

  // The hidden bounds, the gradients that they and the output come with, and what follows from them.
  void load_bounds(int64_t p, int64_t b, int count) {
    const int last = a.depth - 1;
    const int64_t units = chain.hidden_units(last), row = (p * a.samples + b) * 2 * units;
    for (int j = 0; j < last; ++j) {
      const int n = a.layers[j].g.outputs();
      const Held& at = places[j];
      const int64_t from = row + chain.hidden_units(j);
      load_lanes<T>(a.hidden + from, a.hidden + from + units, n, count, at.lower, at.upper, 2 * units);
      if (d.d_hidden && a.layers[j].g.relu) {
        load_lanes<T>(d.d_hidden + from, d.d_hidden + from + units, n, count, at.by_lower, at.by_upper, 2 * units);
      } else {
        clear(at.by_lower, n);
        clear(at.by_upper, n);
      }
      if (chain.tile) chain.tile->load_layer(j, at.lower, at.upper, chain.rule());
      if (sums[j].by_unit) {
        clear(sums[j].by_unit, int64_t(n) * sums[j].quantities());
        clear(sums[j].by_sample, int64_t(n) * sums[j].quantities());
      }
      if (chain.interval(j + 1)) propagate(j);
    }
    const int64_t out = (p * a.samples + b) * a.rows;
    load_lanes<T>(d.d_lower + out, d.d_upper ? d.d_upper + out : d.d_lower + out, a.rows, count, out_lower, out_upper);
    if (!d.d_upper) clear(out_upper, a.rows);
  }

  // The box of layer j + 1's inputs, as the forward had it.
  void propagate(int j) {
    const Layer<T>& layer = chain.layers[j];
    const Held &at = places[j], &next = places[j + 1];
    const int64_t n = layer.g.outputs();
    if (a.method == HBOX_METHOD) {
      ibp_layer<T, BOX>(layer, at.center, at.radius, next.center, next.radius);
      if (j == 0) clear(next.radius, n);  // the input's radius is all exact
      if (!layer.g.relu) return;
      for (int64_t i = 0; i < n * L; i += L) {
        Vec<T> c = load<T>(next.center + i), r = load<T>(next.radius + i);
        hbox_unit<T>(load<T>(at.lower + i), load<T>(at.upper + i), layer.leak, c, r);
        store<T>(next.center + i, c);
        store<T>(next.radius + i, r);
      }
    } else if (layer.g.relu) {
      to_box<T, BOX_AFTER_ACTIVATION>(at.lower, at.upper, n, layer.leak, next.center, next.radius);
    } else {
      ibp_layer<T, BOX>(layer, at.center, at.radius, next.center, next.radius);
    }
  }

  // ---- what all members add to ----

  void store_shared(int64_t b, int count) {
    if (boxed()) store_box(b, count);
    if (!by_C) return;
    const int n = a.rows * a.layers[a.depth - 1].g.outputs();
    store_rows<T>(by_C, n, count, d.C + b * n);
  }

  void store_box(int64_t b, int count) {
    const int64_t n = a.layers[0].g.inputs();
    T *to_lower = places[0].center, *to_upper = places[0].radius;  // the tile is done with them
    fold_box<T>(n, box_sums, [&](int64_t at, Vec<T> low, Vec<T> up) GLSK_LAMBDA_INLINE {
      Vec<T> c = load<T>(in_center + at), r = load<T>(in_radius + at);
      if (a.method == HBOX_METHOD) {  // its passes go over [-radius, radius]
        r += up - low;
        low = up = Vec<T>{};
      }
      store<T>(to_lower + at, low + (c - r) * T(0.5));
      store<T>(to_upper + at, up + (c + r) * T(0.5));
    });
    if (d.x_lower) store_rows<T>(to_lower, int(n), count, d.x_lower + b * n);
    if (d.x_upper) store_rows<T>(to_upper, int(n), count, d.x_upper + b * n);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
