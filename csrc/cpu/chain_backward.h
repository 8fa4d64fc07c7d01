// The gradient of a whole relaxation of a whole network, a tile of samples at a time, from the hidden bounds that the
// forward kept. Layers are gone through from the last to the first: the lines of a layer are complete once every later
// pass has been differentiated, and only rows whose bounds have a gradient are walked again.
#pragma once

#include "cpu/chain_gradient_tile.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainGradient : public ChainGradientTile<T> {
 public:
  using ChainGradientTile<T>::ChainGradientTile;

  // Tiles t0..t1 of members p0..p1; sums_of(p, sums) says where a member's sums are.
  template <class SumsOf>
  void run(int64_t p0, int64_t p1, int64_t t0, int64_t t1, const SumsOf& sums_of) {
    for (int64_t t = t0; t < t1; ++t) {
      const int64_t b = t * L;
      const int count = a.samples - b < L ? int(a.samples - b) : L;
      load_samples(b, count);
      for (int64_t p = p0; p < p1; ++p) {
        sums_of(p, sums);
        load_member(p);
        load_bounds(p, b, count);
        output(count);
        for (int j = a.depth - 2; j >= 0; --j) hidden(j, count);
      }
      store_shared(b, count);
    }
  }

 private:
  using Base = ChainGradientTile<T>;
  using typename Base::Held;
  using Base::a, Base::chain, Base::d, Base::L, Base::passes, Base::places, Base::sums;
  using Base::box_sums, Base::by_C, Base::by_center, Base::by_radius, Base::in_center, Base::in_radius, Base::merged,
      Base::mid_center, Base::mid_radius, Base::out_lower, Base::out_upper, Base::spec_lanes;
  using Base::boxed, Base::clear, Base::load_bounds, Base::load_member, Base::load_samples, Base::store_shared;

  // ---- the output ----

  void output(int count) {
    const int last = a.depth - 1;
    const bool hbox = a.method == HBOX_METHOD;
    if (!passes[last] || hbox) {
      interval_output();
    } else {
      clear(by_center, a.layers[last].g.inputs());
      clear(by_radius, a.layers[last].g.inputs());
    }
    if (!passes[last]) return;
    if (hbox)  // lower - radius, upper + radius, and the radius is minus the pass's lower bound
      for (int64_t i = 0; i < int64_t(a.rows) * L; i += L)
        store<T>(out_lower + i, load<T>(out_lower + i) - load<T>(out_upper + i));
    const T* by_upper = hbox || !d.d_upper ? nullptr : out_upper;
    if (a.C)
      passes[last]->specification(spec_lanes, a.rows, out_lower, by_upper, sums, box_sums, by_C);
    else
      passes[last]->layer(out_lower, by_upper, count, sums, box_sums);
  }

  void interval_output() {
    const int last = a.depth - 1;
    if (!a.C) {
      by_bounds_to_box<T>(out_lower, out_upper, a.layers[last].g.outputs(), mid_center, mid_radius);
      through_layer(last);
      return;
    }
    const Held& at = places[last];
    const LayerSums<T>& to = sums[last];
    const IntervalRows<T> output = {
        chain.layers[last], a.rows,    spec_lanes,       out_lower, out_upper, at.center, at.radius,
        by_center,          by_radius, to.merged_weight, to.bias,   by_C,      merged};
    output.run();
    if (last == 0) add_input();
  }

  // ---- a hidden layer ----

  void hidden(int j, int count) {
    const Layer<T>& layer = chain.layers[j];
    const Held& at = places[j];
    if (layer.g.relu && sums[j].by_unit) add_lines(j);
    if (a.method == HBOX_METHOD) {
      hbox_layer(j, count);
    } else if (chain.interval(1)) {  // as the method does in every layer
      if (layer.g.relu)
        activation_backward<T>(at.lower, at.upper, layer.leak, layer.g.outputs(), by_center, by_radius, at.by_lower,
                               at.by_upper);
      interval_layer(j);
    } else if (layer.g.relu && j) {
      passes[j]->layer(at.by_lower, at.by_upper, count, sums, box_sums);
    } else if (layer.g.relu) {
      interval_layer(0);
    }
  }

  // The gradients by layer j's lines, which every pass after it has added to, become gradients by its bounds.
  void add_lines(int j) {
    const Held& at = places[j];
    fold_bounds<T>(a.layers[j], sums[j], chain.rule(), at.lower, at.upper,
                   [&](int64_t unit, Vec<T> by_l, Vec<T> by_u) GLSK_LAMBDA_INLINE {
                     store<T>(at.by_lower + unit, load<T>(at.by_lower + unit) + by_l);
                     store<T>(at.by_upper + unit, load<T>(at.by_upper + unit) + by_u);
                   });
  }

  // From the bounds, or where no activation follows from the box that reaches the next layer, through layer j.
  void interval_layer(int j) {
    const Held& at = places[j];
    const int64_t n = a.layers[j].g.outputs();
    if (a.layers[j].g.relu) {
      by_bounds_to_box<T>(at.by_lower, at.by_upper, n, mid_center, mid_radius);
    } else {
      memcpy(mid_center, by_center, sizeof(T) * n * L);
      memcpy(mid_radius, by_radius, sizeof(T) * n * L);
    }
    through_layer(j);
  }

  // Layer j of a hybrid zonotope: its bounds are centre -/+ (uncorrelated radius + radius of the exact part).
  void hbox_layer(int j, int count) {
    const Layer<T>& layer = chain.layers[j];
    const Held& at = places[j];
    const int64_t n = layer.g.outputs();
    for (int64_t i = 0; i < n * L; i += L) {
      Vec<T> c = load<T>(by_center + i), r = load<T>(by_radius + i), exact = {};
      if (layer.g.relu) {
        const Vec<T> l = load<T>(at.lower + i), u = load<T>(at.upper + i), one = broadcast<T>(1);
        const Mask<T> unstable = (l < 0) & (u > 0);
        const T half = (1 - layer.leak) * T(0.5);
        const Vec<T> by_l = load<T>(at.by_lower + i);
        const Vec<T> by_u = load<T>(at.by_upper + i) + (unstable ? (c + r) * half : Vec<T>{});
        const Vec<T> slope = l >= 0 ? one : broadcast<T>(layer.leak);
        exact = by_u - by_l;
        c = c * slope + by_l + by_u;
        r = r * slope + exact;
      }
      store<T>(mid_center + i, c);
      store<T>(mid_radius + i, j ? r : exact);
      store<T>(at.by_lower + i, -exact);
    }
    if (j && layer.g.relu) passes[j]->layer(at.by_lower, nullptr, count, sums, box_sums);
    through_layer(j);
  }

  // ---- an interval step ----

  // From mid_center and mid_radius by layer j's weights and, in by_center and by_radius, by the box of its inputs.
  void through_layer(int j) {
    const Held& at = places[j];
    const Geometry& g = a.layers[j].g;
    ibp_layer_weights<T>(g, mid_center, mid_radius, at.center, at.radius, sums[j]);
    if (at.packed) ibp_layer_inputs<T>(g, at.packed, mid_center, mid_radius, by_center, by_radius);
    if (j == 0) add_input();
  }

  void add_input() {
    if (!boxed()) return;
    for (int64_t i = 0; i < int64_t(a.layers[0].g.inputs()) * L; i += L) {
      store<T>(in_center + i, load<T>(in_center + i) + load<T>(by_center + i));
      store<T>(in_radius + i, load<T>(in_radius + i) + load<T>(by_radius + i));
    }
  }
};

template <class T>
bool run_chain_backward(const ChainGradientArgs<T>& d) {
  const ChainArgs<T>& a = d.chain;
  const bool together = d.x_lower || d.x_upper || d.C;
  Crew<ChainGradient<T>, ChainGradientArgs<T>> crew(d, a.threads, a.threads);
  LayerGradient<T>* wanted = zeroed<LayerGradient<T>>(a.depth);
  if (!crew.ready || !wanted) {
    free(wanted);
    return false;
  }
  const ChainPlans<T> plans(a);
  for (int j = 0; j < a.depth; ++j) {
    wanted[j] = d.layers[j];
    const bool last = j == a.depth - 1, passed = plans.passed(j);
    wanted[j].merged = last && a.C && (!passed || a.method == HBOX_METHOD);
    wanted[j].inner = !wanted[j].merged || passed;
    wanted[j].radius = plans.interval(j) && !wanted[j].merged && !(last && passed && a.method == CROWN_IBP_METHOD);
    wanted[j].own = passed && !(last && a.C);
  }
  const bool done = run_groups<T>(a.members, a.samples, d.groups, together, a.threads, a.layers, wanted, a.depth,
                                  [&](int thread, int64_t p0, int64_t p1, int64_t t0, int64_t t1, const auto& sums_of) {
                                    crew[thread].run(p0, p1, t0, t1, sums_of);
                                  });
  free(wanted);
  return done;
}

}  // namespace GLSK_ISA
}  // namespace glsk
