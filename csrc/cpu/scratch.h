// What one thread of a pass over single samples holds of up to SAMPLES of them: the box, and the activation of every
// layer before the rows'.
#pragma once

#include "cpu/packed.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class Scratch : public Packed<T> {
 public:
  static int64_t bytes(const Plan<T>& plan) {
    return Packed<T>::bytes(plan) + SAMPLES * Arena::size<Unit<T>>(plan.units_size) +
           SAMPLES * Arena::size<T>(2 * plan.g[0].inputs()) + Arena::size<uint64_t>(plan.alive_size) +
           Arena::size<bool>(plan.args.depth) + Arena::size<int>(plan.g[plan.last()].cout);
  }

  Scratch(const Plan<T>& plan_, Arena arena) : Packed<T>(plan_, arena) {
    for (int s = 0; s < SAMPLES; ++s) {
      units[s] = arena.take<Unit<T>>(plan.units_size);
      box[s] = arena.take<T>(2 * plan.g[0].inputs());
    }
    alive = arena.take<uint64_t>(plan.alive_size);
    dense = arena.take<bool>(a.depth);
    channels = arena.take<int>(plan.g[plan.last()].cout);
  }

  // The box of samples b..b+count of member p.
  void load_box(int64_t p, int64_t b, int count) {
    const int64_t n = plan.g[0].inputs();
    for (int s = 0; s < count; ++s) {
      const int64_t at = p * a.box_stride + (b + s) * n;
      for (int64_t i = 0; i < n; ++i) {
        const T lower = a.x_lower[at + i], upper = a.x_upper[at + i], radius = (upper - lower) / 2;
        box[s][2 * i] = a.hbox ? -radius : lower;
        box[s][2 * i + 1] = a.hbox ? radius : upper;
      }
    }
  }

  // The activation after layer j, from j's bounds for these samples.
  void load_layer(int j, int64_t p, int64_t b, int count) {
    const Geometry& g = plan.g[j];
    memset(alive + plan.alive[j], 0, sizeof(uint64_t) * g.oh * g.ow * words_of(g.cout));
    int64_t living = 0;
    for (int s = 0; s < count; ++s) living += load_units(j, p, b + s, units[s] + plan.units[j]);
    dense[j] = 4 * living >= int64_t(3) * count * g.outputs();
  }

 protected:
  using Packed<T>::a, Packed<T>::plan, Packed<T>::bias, Packed<T>::L;
  T* box[SAMPLES];
  Unit<T>* units[SAMPLES];
  uint64_t* alive;  // by any of the samples held
  bool* dense;
  int* channels;    // those of the last layer still to bound, at one position

 private:
  // The activation that follows layer j, with j's bias folded into its constants. Marks the units that rows can depend
  // on, and returns how many they are.
  int64_t load_units(int j, int64_t p, int64_t b, Unit<T>* units) {
    const Geometry& g = plan.g[j];
    const int64_t pixels = int64_t(g.oh) * g.ow, at = (p * a.samples + b) * g.outputs();
    const int words = words_of(g.cout);
    int64_t living = 0;
    for (int c = 0; c < g.cout; ++c) {
      const T shift = bias(j, p, c);
      Unit<T>* to = units + c * pixels;
      uint64_t* bits = alive + plan.alive[j] + c / 64;
      for (int64_t i = 0; i < pixels; i += L) {
        const int count = pixels - i < L ? int(pixels - i) : L;
        int32_t kept[L];
        if (g.relu)
          relaxation(a.layers[j].lower + at + c * pixels + i, a.layers[j].upper + at + c * pixels + i, count, shift,
                     &to[i].slope_pos, kept);
        else
          for (int k = 0; k < count; ++k) to[i + k] = {T(kept[k] = 1), 1, shift, shift};
        if (words == 1 && count == L) {  // the common case, in a form that vectorises
          for (int k = 0; k < L; ++k) bits[i + k] |= uint64_t(uint32_t(kept[k])) << c;
        } else {
          for (int k = 0; k < count; ++k) bits[(i + k) * words] |= uint64_t(uint32_t(kept[k])) << (c % 64);
        }
        for (int k = 0; k < count; ++k) living += kept[k];
      }
    }
    return living;
  }

  // LANES units from their bounds; kept: 0 where no row can depend on the unit. `to` has room for whole vectors.
  GLSK_INLINE void relaxation(const T* lower, const T* upper, int count, T shift, T* to,
                              int32_t (&kept)[L]) {
    Vec<T> l = {}, u = {};
    if (count == L) {
      l = load<T>(lower);
      u = load<T>(upper);
    } else {
      memcpy(&l, lower, sizeof(T) * count);
      memcpy(&u, upper, sizeof(T) * count);
    }
    const Lines<T> lines = relax<T>(l, u, shift, a.hbox);
    const Mask<T> some = (lines.slope_neg != 0) & 1;
    for (int k = 0; k < L; ++k) kept[k] = int32_t(some[k]);
    store_interleaved<T>(lines.slope_pos, lines.slope_neg, lines.const_pos, lines.const_neg, to);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
