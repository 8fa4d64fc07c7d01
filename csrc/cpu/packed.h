// What every pass of one thread holds: a member's packed weights, room for coefficients, and the walk down the layers.
#pragma once

#include "cpu/plan.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class Packed {
 public:
  static int64_t bytes(const Plan<T>& plan) {
    return Arena::size<T>(plan.weights_size) + Arena::size<Reach>(plan.reach_size) +
           2 * Arena::size<T>(plan.coef_size) + Arena::size<T>(plan.row_size) + 2 * Arena::size<int>(plan.list_size);
  }

  Packed(const Plan<T>& plan_, Arena& arena) : plan(plan_), a(plan_.args) {
    weights = arena.take<T>(plan.weights_size);
    reach = arena.take<Reach>(plan.reach_size);
    coef[0] = arena.take<T>(plan.coef_size);
    coef[1] = arena.take<T>(plan.coef_size);
    row = arena.take<T>(plan.row_size);
    list = {arena.take<int>(plan.list_size), arena.take<int>(plan.list_size), 0};
    for (int j = 0; j < a.depth; ++j) {
      const Geometry& g = plan.g[j];
      Reach* to = reach + plan.reach[j];
      for (int y = 0; y < g.h; ++y) *to++ = {(y + g.ph) % g.sh, (y + g.ph) / g.sh};
      for (int x = 0; x < g.w; ++x) *to++ = {(x + g.pw) % g.sw, (x + g.pw) / g.sw};
    }
  }

  void load_member(int64_t p) {
    for (int j = 0; j <= plan.last(); ++j) {
      const T* from = a.layers[j].weight + p * a.layers[j].weight_stride;
      if (j == plan.last() && !a.C)
        pack_first(plan.g[j], from, weights + plan.weights[j]);
      else if (!plan.scattered(j))
        pack_gather(plan.g[j], from, weights + plan.weights[j]);
    }
  }

 protected:
  static constexpr int L = LANES<T>;
  const Plan<T>& plan;
  const PassArgs<T>& a;
  T *weights, *coef[2], *row;
  Reach* reach;
  AliveList list;

  T bias(int j, int64_t p, int channel) const {
    const Layer<T>& layer = a.layers[j];
    return layer.bias && !a.hbox ? layer.bias[p * layer.bias_stride + channel] : T(0);
  }

  // From coefficients on the outputs of layer j (in coef[j & 1]) to the box. met(j) gives a step what its inputs meet,
  // and which of its outputs are alive.
  template <int V, int S, class Met>
  void substitute(int j, Window out, Constants<T, V>& constants, int64_t p, const Met& met) {
    for (; j >= 0; --j) {
      const Window in = inputs_of(plan.g[j], out);
      Step<T> step = met(j);
      step.g = plan.g[j];
      step.rows = reach + plan.reach[j];
      step.cols = step.rows + plan.g[j].h;
      step.weight = plan.scattered(j) ? a.layers[j].weight + p * a.layers[j].weight_stride : weights + plan.weights[j];
      step.words = words_of(plan.g[j].cout);
      const Scatter<T, V> scatter = j == 0 ? scatter_for<T, V, S>(plan.g[0]) : nullptr;
      if (scatter)
        scatter(step, out, coef[0], in, row, list, constants);
      else if (j == 0)
        gather<T, V, S, true>(step, out, coef[0], in, nullptr, list, constants);
      else
        gather<T, V, S, false>(step, out, coef[j & 1], in, coef[(j - 1) & 1], list, constants);
      out = in;
    }
  }

 private:
  // [ky][kx][cin][pitch]: the first coefficients of a channel's rows, on each input unit; with both signs if paired.
  void pack_first(const Geometry& g, const T* w, T* to) {
    for (int ky = 0; ky < g.kh; ++ky)
      for (int kx = 0; kx < g.kw; ++kx)
        for (int c = 0; c < g.cin; ++c, to += plan.pitch) {
          memset(to, 0, sizeof(T) * plan.pitch);
          for (int o = 0; o < g.cout; ++o) {
            to[o] = w[((int64_t(o) * g.cin + c) * g.kh + ky) * g.kw + kx];
            if (plan.paired && plan.sides == 2) to[g.cout + o] = -to[o];
          }
        }
  }

  void pack_gather(const Geometry& g, const T* w, T* to) {
    const int wide = gather_pitch(g);
    for (int ky = 0; ky < g.kh; ++ky)
      for (int kx = 0; kx < g.kw; ++kx)
        for (int o = 0; o < g.cout; ++o, to += wide)
          for (int c = 0; c < wide; ++c)
            to[c] = c < g.cin ? w[((int64_t(o) * g.cin + c) * g.kh + ky) * g.kw + kx] : T(0);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
