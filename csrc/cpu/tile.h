// A tile of up to LANES samples of one member: the box and the activations that back-substituted coefficients meet, a
// lane a sample.
#pragma once

#include "cpu/plan.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class Tile {
 public:
  // plan: of the pass that goes through all layers; offsets of a layer agree with those of shorter passes.
  static int64_t bytes(const Plan<T>& plan) {
    return Arena::size<T>(2 * L * int64_t(plan.g[0].inputs())) + Arena::size<T>(4 * L * plan.units_size) +
           Arena::size<uint64_t>(plan.alive_size) + Arena::size<bool>(plan.spec.depth);
  }

  Tile(const Plan<T>& plan_, Arena arena) : plan(plan_) {
    ends = arena.take<T>(2 * L * int64_t(plan.g[0].inputs()));
    lines = arena.take<T>(4 * L * plan.units_size);
    alive = arena.take<uint64_t>(plan.alive_size);
    dense = arena.take<bool>(plan.spec.depth);
  }

  // The ends of the box, [inputs][lanes] each.
  void load_box(const T* lower, const T* upper, int64_t inputs) {
    for (int64_t i = 0; i < inputs; ++i) {
      store<T>(ends + 2 * L * i, load<T>(lower + L * i));
      store<T>(ends + 2 * L * i + L, load<T>(upper + L * i));
    }
  }

  // The activation that follows layer j, from j's bounds [outputs][lanes]; where none follows, bounds are not read.
  void load_layer(int j, const T* lower, const T* upper, Rule rule) {
    const Layer<T>& layer = plan.spec.layers[j];
    const Vec<T> one = broadcast<T>(1), zero = {};
    if (!layer.g.relu)
      fill(j, [&](int64_t) GLSK_LAMBDA_INLINE { return Lines<T>{one, one, zero, zero}; });
    else
      fill(j, [&](int64_t unit) GLSK_LAMBDA_INLINE {
        return relax<T>(load<T>(lower + L * unit), load<T>(upper + L * unit), layer.leak, rule);
      });
  }

  // The same from lines [4][outputs][lanes].
  void load_lines(int j, const T* given) {
    const int64_t n = L * int64_t(plan.g[j].outputs());
    fill(j, [&](int64_t unit) GLSK_LAMBDA_INLINE {
      const T* at = given + L * unit;
      return Lines<T>{load<T>(at), load<T>(at + 2 * n), load<T>(at + n), load<T>(at + 3 * n)};
    });
  }

  // What coefficients on the inputs of layer j meet, and which of its outputs are alive; `all`: any may stand in a row.
  Step<T> met(int j, bool all) const {
    Step<T> step = {};
    step.dense = all || dense[j];
    step.alive = alive + plan.alive[j];
    step.ends = ends;
    if (j) {
      step.lines = lines + 4 * L * plan.units[j - 1];
      step.before_alive = alive + plan.alive[j - 1];
      step.before_words = words_of(plan.g[j - 1].cout);
    }
    return step;
  }

  // The lines of layer j, [pixel][channel][4][lanes] as Step has them; and whether most of its units are alive.
  T* lines_of(int j) const { return lines + 4 * L * plan.units[j]; }
  bool mostly_alive(int j) const { return dense[j]; }
  const uint64_t* alive_of(int j) const { return alive + plan.alive[j]; }
  const T* box() const { return ends; }

 private:
  static constexpr int L = LANES<T>;
  const Plan<T>& plan;
  T *ends, *lines;
  uint64_t* alive;  // in any lane
  bool* dense;

  // lines_at(unit), the units in channel, row, column order, with the layer's bias folded into the constants.
  template <class Source>
  GLSK_INLINE void fill(int j, const Source& lines_at) {
    const Geometry& g = plan.g[j];
    const int64_t pixels = int64_t(g.oh) * g.ow;
    const int words = words_of(g.cout);
    const T* bias = plan.spec.biased ? plan.spec.layers[j].bias : nullptr;
    uint64_t* bits = alive + plan.alive[j];
    memset(bits, 0, sizeof(uint64_t) * pixels * words);
    int64_t living = 0;
    for (int c = 0; c < g.cout; ++c) {
      const T shift = bias ? bias[c] : T(0);
      T* to = lines_of(j) + 4 * L * c;
      for (int64_t i = 0; i < pixels; ++i, to += 4 * L * g.cout) {
        const Lines<T> found = with_shift<T>(lines_at(c * pixels + i), shift);
        store<T>(to, found.slope_pos);
        store<T>(to + L, found.slope_neg);
        store<T>(to + 2 * L, found.const_pos);
        store<T>(to + 3 * L, found.const_neg);
        const bool kept =
            any<T>((found.slope_neg != 0) | (found.slope_pos != 0) | (found.const_neg != 0) | (found.const_pos != 0));
        bits[i * words + c / 64] |= uint64_t(kept) << (c % 64);
        living += kept;
      }
    }
    dense[j] = 4 * living >= 3 * int64_t(g.outputs());
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
