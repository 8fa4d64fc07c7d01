// What every pass of one thread holds: a member's packed weights, room for coefficients, and the walk down the layers.
#pragma once

#include "cpu/plan.h"

namespace glsk {
namespace GLSK_ISA {

// [ky][kx][cin][pitch]: output channels side by side, for the first coefficients of rows and for the way up.
template <class T>
void pack_by_output(const Geometry& g, const T* w, int pitch, T* to) {
  for (int ky = 0; ky < g.kh; ++ky)
    for (int kx = 0; kx < g.kw; ++kx)
      for (int c = 0; c < g.cin; ++c, to += pitch) {
        memset(to, 0, sizeof(T) * pitch);
        for (int o = 0; o < g.cout; ++o) to[o] = w[((int64_t(o) * g.cin + c) * g.kh + ky) * g.kw + kx];
      }
}

// [ky][kx][cout][pitch]: input channels side by side, for the gathering step.
template <class T>
void pack_by_input(const Geometry& g, const T* w, int pitch, T* to) {
  for (int ky = 0; ky < g.kh; ++ky)
    for (int kx = 0; kx < g.kw; ++kx)
      for (int o = 0; o < g.cout; ++o, to += pitch)
        for (int c = 0; c < pitch; ++c)
          to[c] = c < g.cin ? w[((int64_t(o) * g.cin + c) * g.kh + ky) * g.kw + kx] : T(0);
}

template <class T>
class Packed {
 public:
  static int64_t bytes(const Plan<T>& plan) {
    return Arena::size<T>(plan.weights_size) + Arena::size<Reach>(plan.reach_size) +
           Arena::size<T>(2 * plan.coef_size) + Arena::size<T>(plan.row_size) + 2 * Arena::size<int>(plan.list_size);
  }

  Packed(const Plan<T>& plan_, Arena& arena) : plan(plan_) {
    weights = arena.take<T>(plan.weights_size);
    reach = arena.take<Reach>(plan.reach_size);
    coefs = arena.take<T>(2 * plan.coef_size);
    row = arena.take<T>(plan.row_size);
    list = {arena.take<int>(plan.list_size), arena.take<int>(plan.list_size), 0};
    for (int j = 0; j < plan.spec.depth; ++j) {
      const Geometry& g = plan.g[j];
      Reach* to = reach + plan.reach[j];
      for (int y = 0; y < g.h; ++y) *to++ = {(y + g.ph) % g.sh, (y + g.ph) / g.sh};
      for (int x = 0; x < g.w; ++x) *to++ = {(x + g.pw) % g.sw, (x + g.pw) / g.sw};
    }
  }

  // Packs the weights of the layers' present member.
  void load_member() {
    for (int j = 0; j <= plan.last(); ++j) {
      const T* from = plan.spec.layers[j].weight;
      if (j == plan.last() && !plan.spec.specified)
        pack_by_output<T>(plan.g[j], from, plan.pitch, weights + plan.weights[j]);
      else if (!plan.scattered(j))
        pack_by_input<T>(plan.g[j], from, gather_pitch(plan.g[j]), weights + plan.weights[j]);
    }
  }

 protected:
  static constexpr int L = LANES<T>;
  const Plan<T>& plan;
  T *weights, *coefs, *row;
  Reach* reach;
  AliveList list;

  T bias(int j, int channel) const {
    const T* from = plan.spec.layers[j].bias;
    return from && plan.spec.biased ? from[channel] : T(0);
  }

  T* coef(int j) const { return coefs + plan.coefs[j]; }

  // From coefficients on the outputs of layer j, in the window `out` (in coef(j)), to the box. met(j) gives a step what
  // its inputs meet, and which of its outputs are alive.
  template <int V, int S, class Met>
  void substitute(int j, Window out, Constants<T, V>& constants, const Met& met) {
    for (; j >= 0; --j) {
      const Window in = inputs_of(plan.g[j], out);
      Step<T> step = met(j);
      step.g = plan.g[j];
      step.rows = reach + plan.reach[j];
      step.cols = step.rows + plan.g[j].h;
      step.weight = plan.scattered(j) ? plan.spec.layers[j].weight : weights + plan.weights[j];
      step.words = words_of(plan.g[j].cout);
      if (S & KEPT) step.raw = plan.coef_size;
      const AddRow<T, V> add = j == 0 ? scatter_for<T, V>(plan.g[0]) : nullptr;
      if (add)
        scatter<T, V, S>(add, step, out, coef(0), in, row, list, constants);
      else if (j == 0)
        gather<T, V, S, true>(step, out, coef(0), in, nullptr, list, constants);
      else
        gather<T, V, S, false>(step, out, coef(j), in, coef(j - 1), list, constants);
      out = in;
    }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
