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
           Arena::size<uint64_t>(plan.alive_size) + Arena::size<bool>(plan.args.depth);
  }

  Tile(const Plan<T>& plan_, Arena arena) : plan(plan_) {
    ends = arena.take<T>(2 * L * int64_t(plan.g[0].inputs()));
    lines = arena.take<T>(4 * L * plan.units_size);
    alive = arena.take<uint64_t>(plan.alive_size);
    dense = arena.take<bool>(plan.args.depth);
  }

  // The ends of the box, [inputs][lanes] each.
  void load_box(const T* lower, const T* upper, int64_t inputs) {
    for (int64_t i = 0; i < inputs; ++i) {
      store<T>(ends + 2 * L * i, load<T>(lower + L * i));
      store<T>(ends + 2 * L * i + L, load<T>(upper + L * i));
    }
  }

  // The activation that follows layer j, from j's bounds [outputs][lanes], with j's bias folded into its constants.
  // Where no ReLU follows, bounds are not read. hbox: only what stays an exact function of the input.
  void load_layer(int j, const T* lower, const T* upper, const T* bias) {
    const Geometry& g = plan.g[j];
    const int64_t pixels = int64_t(g.oh) * g.ow;
    const int words = words_of(g.cout);
    uint64_t* bits = alive + plan.alive[j];
    memset(bits, 0, sizeof(uint64_t) * pixels * words);
    int64_t living = 0;
    for (int c = 0; c < g.cout; ++c) {
      const T shift = bias && !plan.args.hbox ? bias[c] : T(0);
      T* to = lines + 4 * L * (plan.units[j] + c);
      for (int64_t i = 0; i < pixels; ++i, to += 4 * L * g.cout) {
        const int64_t unit = L * (c * pixels + i);
        bool kept = true;
        if (!g.relu)
          store_lines(broadcast<T>(1), broadcast<T>(1), broadcast<T>(shift), broadcast<T>(shift), to);
        else if (plan.args.hbox)
          kept = mask(load<T>(lower + unit), to);
        else
          kept = relaxation(load<T>(lower + unit), load<T>(upper + unit), shift, to);
        bits[i * words + c / 64] |= uint64_t(kept) << (c % 64);
        living += kept;
      }
    }
    dense[j] = 4 * living >= 3 * int64_t(g.outputs());
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

 private:
  static constexpr int L = LANES<T>;
  const Plan<T>& plan;
  T *ends, *lines;
  uint64_t* alive;  // in any lane
  bool* dense;

  // slope_pos, slope_neg, const_pos, const_neg of one unit; whether a row of any sample can depend on it.
  static GLSK_INLINE bool relaxation(Vec<T> l, Vec<T> u, T shift, T* to) {
    const Vec<T> zero = {}, one = broadcast<T>(1);
    Vec<T> neg = u / (u - l), pos = u <= -l ? zero : one, constant = neg * (shift - l);  // NaN bounds stay NaN
    neg = u <= 0 ? zero : neg;
    pos = u <= 0 ? zero : pos;
    constant = u <= 0 ? zero : constant;
    neg = l >= 0 ? one : neg;
    pos = l >= 0 ? one : pos;
    constant = l >= 0 ? broadcast<T>(shift) : constant;
    store_lines(pos, neg, pos * shift, constant, to);
    return any<T>(neg != 0);
  }

  static GLSK_INLINE bool mask(Vec<T> l, T* to) {
    const Vec<T> zero = {}, active = l >= 0 ? broadcast<T>(1) : zero;
    store_lines(active, active, zero, zero, to);
    return any<T>(active != 0);
  }

  static GLSK_INLINE void store_lines(Vec<T> pos, Vec<T> neg, Vec<T> const_pos, Vec<T> const_neg, T* to) {
    store<T>(to, pos);
    store<T>(to + L, neg);
    store<T>(to + 2 * L, const_pos);
    store<T>(to + 3 * L, const_neg);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
