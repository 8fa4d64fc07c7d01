// A back-substitution pass for a whole tile of samples. Rows of a specification are a vector each, a lane a sample: no
// lane is idle, however few rows there are. Rows of a layer are compacted: at one position they share a window whatever
// their channel, side and sample, so a vector holds any LANES pairs (sample, row) that are still to bound, and reads
// weights and activations through a permutation of its lanes.
#pragma once

#include "cpu/packed.h"
#include "cpu/tile.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class TilePass : public Packed<T> {
 public:
  static int64_t bytes(const Plan<T>& plan) { return Packed<T>::bytes(plan) + 3 * Arena::size<T>(PAIRS); }

  TilePass(const Plan<T>& plan_, Tile<T>& tile_, Arena arena) : Packed<T>(plan_, arena), tile(tile_) {
    queue = {arena.take<Int>(PAIRS), arena.take<Int>(PAIRS), arena.take<Int>(PAIRS), 0};
  }

  // Bounds [outputs][lanes] of the last layer for `count` samples of the loaded member; upper may be null. Where known
  // bounds [outputs][lanes] are given, rows that those prove stable keep them. Of the others the side that may prove it
  // is bounded first: where it does, the other side keeps what was known, since the ReLU no longer depends on it.
  void bound_layer(const T* known_lower, const T* known_upper, int count, T* lower, T* upper) {
    const Geometry& g = plan.g[plan.last()];
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox)
        for (int c0 = 0; c0 < g.cout; c0 += L) {
          const int channels = g.cout - c0 < L ? g.cout - c0 : L;
          const Group group = {oy, ox, c0, (int64_t(c0) * g.oh + oy) * g.ow + ox, int64_t(g.oh) * g.ow, lower, upper};
          queue.length = 0;
          if (known_lower) {
            enqueue_preferred(group, channels, count, known_lower, known_upper);
          } else {
            for (int c = 0; c < channels; ++c)
              for (int s = 0; s < count; ++s)
                for (int side = 0; side < (upper ? 2 : 1); ++side) queue.put(s, c, side, true);
          }
          run_queue(group, known_lower != nullptr);
        }
  }

  // Bounds [rows][lanes] of the specification C [rows][outputs][lanes]; upper may be null.
  void bound_specification(const T* C, T* lower, T* upper) {
    const int total = a.rows * (upper ? 2 : 1);
    int nth = 0;
    for (; total - nth >= 2; nth += TILE_ROWS) specification_block<TILE_ROWS>(C, nth, total, lower, upper);
    if (nth < total) specification_block<1>(C, nth, total, lower, upper);
  }

 private:
  using Packed<T>::a, Packed<T>::bias, Packed<T>::coef, Packed<T>::L, Packed<T>::plan, Packed<T>::weights;

  using Int = decltype(Mask<T>{}[0] + 0);
  static constexpr int PAIRS = 2 * L * L + 2 * L;  // the last vectors overhang

  // What is to bound at a position: rows of a group of channels, each for one sample, from one side. As arrays, so that
  // a block's lanes are loaded.
  struct Queue {
    Int *sample, *channel, *sign;  // sign: the sign bit, for an upper bound
    int length;

    GLSK_INLINE void put(int s, int c, bool upper, bool really) {
      sample[length] = s;
      channel[length] = c;
      sign[length] = Int(upper) << (8 * sizeof(T) - 1);
      length += really;
    }
  };

  // Up to LANES channels at one position, and where their bounds go.
  struct Group {
    int oy, ox, c0;
    int64_t unit, pitch;  // the first channel's unit, and the way to the next channel's
    T *lower, *upper;

    int64_t at(const Queue& queue, int i) const { return (unit + queue.channel[i] * pitch) * L + queue.sample[i]; }
  };

  Tile<T>& tile;
  Queue queue;

  // ---- a layer ----

  // Takes over the known bounds; of rows that those do not prove stable, the side that is nearer to it.
  void enqueue_preferred(const Group& group, int channels, int count, const T* known_lower, const T* known_upper) {
    Queue to = queue;  // a copy, for the registers
    for (int c = 0; c < channels; ++c) {
      const int64_t at = (group.unit + c * group.pitch) * L;
      memcpy(group.lower + at, known_lower + at, L * sizeof(T));
      memcpy(group.upper + at, known_upper + at, L * sizeof(T));
      for (int s = 0; s < count; ++s) {
        const T l = known_lower[at + s], u = known_upper[at + s];
        to.put(s, c, l + u < 0, !(l >= 0 || u <= 0));
      }
    }
    queue = to;
  }

  // A first side is bounded alone; the other side follows in the queue where it does not prove the row stable.
  void run_queue(const Group& group, bool one_side_first) {
    const int once = one_side_first ? queue.length : 0;
    for (int at = 0; at < queue.length;) {
      const int n = queue.length - at < 2 * L ? queue.length - at : 2 * L;
      for (int i = 0; i < 2 * L; ++i)  // idle lanes need a sample and a channel, of any row
        queue.sample[queue.length + i] = queue.channel[queue.length + i] = 0;
      n > L ? layer_block<2>(group, at, n) : layer_block<1>(group, at, n);
      for (int end = at + n; at < end; ++at) {
        if (at >= once) continue;
        const int64_t bound = group.at(queue, at);
        const bool upper = queue.sign[at] != 0, proved = upper ? group.upper[bound] <= 0 : group.lower[bound] >= 0;
        queue.put(int(queue.sample[at]), int(queue.channel[at]), !upper, !proved);
      }
    }
  }

  // The queue's n entries from `at` on, at most V vectors.
  template <int V>
  void layer_block(const Group& group, int at, int n) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    Mask<T> sample[V], channel[V], sign[V];
    memcpy(sample, queue.sample + at, sizeof sample);
    memcpy(channel, queue.channel + at, sizeof channel);
    memcpy(sign, queue.sign + at, sizeof sign);
    const Window window = inputs_of(g, {group.oy, group.oy + 1, group.ox, group.ox + 1});
    Constants<T, V> constants = {};
    first_coefficients<V>(group, window, sample, channel, sign, constants);
    substitute<V, MIXED>(k - 1, window, constants, sample, false);
    for (int v = 0; v < V; ++v) {
      const Vec<T> value = total<V>(constants, v);
      for (int i = 0; i < L && v * L + i < n; ++i) {
        const int nth = at + v * L + i;
        const T constant = bias(k, 0, group.c0 + int(queue.channel[nth]));
        if (queue.sign[nth])
          group.upper[group.at(queue, nth)] = constant - value[i];
        else
          group.lower[group.at(queue, nth)] = constant + value[i];
      }
    }
  }

  // The rows' own weights, negated for an upper bound, on the window of inputs; they pass the activation before it.
  template <int V>
  __attribute__((noinline)) void first_coefficients(const Group& group, Window window, const Mask<T>* sample_,
                                                    const Mask<T>* channel_, const Mask<T>* sign_,
                                                    Constants<T, V>& constants) {
    const int k = plan.last();
    const Geometry g = plan.g[k];
    const int64_t pixels = int64_t(g.h) * g.w;
    Mask<T> sample[V], channel[V], sign[V];  // copies, for the registers
    for (int v = 0; v < V; ++v) sample[v] = sample_[v], channel[v] = channel_[v], sign[v] = sign_[v];
    Step<T> step = tile.met(k, true);
    step.sample = sample;
    T* to = coef[(k - 1) & 1];
    Constants<T, V> sums = constants;
    for (int y = window.y0; y < window.y1; ++y)
      for (int x = window.x0; x < window.x1; ++x) {
        const int ky = y + g.ph - group.oy * g.sh, kx = x + g.pw - group.ox * g.sw;
        const T* from = weights + plan.weights[k] + (int64_t(ky) * g.kw + kx) * g.cin * plan.pitch + group.c0;
        const int64_t pixel = int64_t(y) * g.w + x;
        const auto one = [&](int c, Vec<T>(&sum)[V]) GLSK_LAMBDA_INLINE {
          Vec<T> row[V];
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v)
            row[v] = (Vec<T>)((Mask<T>)__builtin_shuffle(load<T>(from + c * plan.pitch), channel[v]) ^ sign[v]);
          pass_activation<T, V, MIXED>(step, c, g.cin, pixel, pixels, row, sum, to + c * V * L);
        };
        int c = 0;
        for (; c + SUMS <= g.cin; c += SUMS) {
#pragma GCC unroll 4
          for (int i = 0; i < SUMS; ++i) one(c + i, sums.sum[i]);
        }
        for (; c < g.cin; ++c) one(c, sums.sum[0]);
        to += int64_t(g.cin) * V * L;
      }
    constants = sums;
  }

  // ---- a specification ----

  // Rows nth, nth + 1, ... of `total`, the upper bounds after all lower ones; past the end they repeat the last.
  template <int V>
  void specification_block(const T* C, int nth, int total_rows, T* lower, T* upper) {
    const int k = plan.last(), outputs = plan.g[k].outputs();
    Constants<T, V> constants = {};
    int row[V], side[V];
    for (int v = 0; v < V; ++v) {
      const int index = nth + v < total_rows ? nth + v : total_rows - 1;
      row[v] = index % a.rows;
      side[v] = index >= a.rows;
    }
    T* to = coef[k & 1];
    for (int i = 0; i < outputs; ++i)
      for (int v = 0; v < V; ++v, to += L) {
        const Vec<T> value = load<T>(C + (int64_t(row[v]) * outputs + i) * L);
        store<T>(to, side[v] ? -value : value);
        constants.sum[0][v] += load<T>(to) * bias(k, 0, i);
      }
    substitute<V, TILE>(k, {0, 1, 0, 1}, constants, nullptr, true);
    for (int v = 0; v < V; ++v) {
      const Vec<T> value = total<V>(constants, v);
      if (side[v])
        store<T>(upper + int64_t(row[v]) * L, -value);
      else
        store<T>(lower + int64_t(row[v]) * L, value);
    }
  }

  // all: every output of layer j may stand in a row.
  template <int V, int S>
  void substitute(int j, Window out, Constants<T, V>& constants, const Mask<T>* sample, bool all) {
    Packed<T>::template substitute<V, S>(j, out, constants, 0, [&](int i) {
      Step<T> step = tile.met(i, all && i == j);
      step.sample = sample;
      return step;
    });
  }

  template <int V>
  static Vec<T> total(const Constants<T, V>& constants, int v) {
    const auto& s = constants.sum;
    return (s[0][v] + s[1][v]) + (s[2][v] + s[3][v]);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
