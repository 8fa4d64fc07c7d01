// A back-substitution pass for a whole tile of samples. Rows of a specification are a vector each, a lane a sample: no
// lane is idle, however few rows there are. Rows of a layer, and of a specification of few samples, are compacted: at
// one position they share a window whatever their channel, side and sample, so a vector holds any LANES pairs (sample,
// row) that are still to bound, and reads weights and activations through a permutation of its lanes.
#pragma once

#include "cpu/rows.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class TilePass : public Rows<T> {
 public:
  static int64_t bytes(const Plan<T>& plan) { return Packed<T>::bytes(plan) + Queue<T>::bytes(pairs(plan)); }

  TilePass(const Plan<T>& plan_, Tile<T>& tile_, Arena arena) : Rows<T>(plan_, tile_, arena) {
    queue = Queue<T>(arena, pairs(plan));
  }

  // Bounds [outputs][lanes] of the last layer for `count` samples of the loaded member; upper may be null. Where known
  // bounds [outputs][lanes] are given, rows that those prove stable keep them. Of the others the side that may prove it
  // is bounded first: where it does and `sparing`, the other side keeps what was known, since the ReLU no longer depends
  // on it.
  void bound_layer(const T* known_lower, const T* known_upper, bool sparing, int count, T* lower, T* upper) {
    const Geometry& g = plan.g[plan.last()];
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox)
        for (int c0 = 0; c0 < g.cout; c0 += L) {
          const int channels = g.cout - c0 < L ? g.cout - c0 : L;
          const Group group = {{oy, ox, c0}, (int64_t(c0) * g.oh + oy) * g.ow + ox, int64_t(g.oh) * g.ow, lower, upper};
          queue.length = 0;
          if (known_lower && sparing && upper) {
            enqueue_preferred(group, channels, count, known_lower, known_upper);
            run_queue(group, true);
          } else {
            enqueue_unproved(group, channels, count, known_lower, known_upper);
            run_queue(group, false);
          }
        }
  }

  // Bounds [rows][lanes] of rows of a specification, C [rows][outputs][lanes]; upper may be null.
  void bound_specification(const T* C, int rows, int count, T* lower, T* upper) {
    const int sides = rows * (upper ? 2 : 1);
    if (2 * count <= L) {
      mixed_specification(C, rows, count, lower, upper);
      return;
    }
    int nth = 0;
    for (; sides - nth >= 2; nth += TILE_ROWS) specification_block<TILE_ROWS>(C, nth, rows, sides, lower, upper);
    if (nth < sides) specification_block<1>(C, nth, rows, sides, lower, upper);
  }

 private:
  using Rows<T>::bias, Rows<T>::L, Rows<T>::plan, Rows<T>::whole_output;

  // Up to LANES channels at one position, and where their bounds go.
  struct Group {
    Place place;
    int64_t unit, pitch;  // the first channel's unit, and the way to the next channel's
    T *lower, *upper;

    int64_t at(const Queue<T>& queue, int i) const { return (unit + queue.row[i] * pitch) * L + queue.sample[i]; }
  };

  Queue<T> queue;

  // The most pairs queued at once; the last vectors overhang.
  static int64_t pairs(const Plan<T>& plan) { return larger(2 * L * L, plan.spec.rows * int64_t(L)) + 2 * L; }

  // ---- a layer ----

  // Takes over the known bounds; of rows that those do not prove stable, the side that is nearer to it.
  void enqueue_preferred(const Group& group, int channels, int count, const T* known_lower, const T* known_upper) {
    Queue<T> to = queue;  // a copy, for the registers
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

  // All sides of the rows that nothing known proves stable; the others take over what is known.
  void enqueue_unproved(const Group& group, int channels, int count, const T* known_lower, const T* known_upper) {
    for (int c = 0; c < channels; ++c)
      for (int s = 0; s < count; ++s) {
        const int64_t at = (group.unit + c * group.pitch) * L + s;
        if (known_lower && (known_lower[at] >= 0 || known_upper[at] <= 0)) {
          group.lower[at] = known_lower[at];
          if (group.upper) group.upper[at] = known_upper[at];
          continue;
        }
        for (int side = 0; side < (group.upper ? 2 : 1); ++side) queue.put(s, c, side, true);
      }
  }

  // A first side is bounded alone; the other side follows in the queue where it does not prove the row stable.
  void run_queue(const Group& group, bool one_side_first) {
    const int once = one_side_first ? queue.length : 0;
    for (int at = 0; at < queue.length;) {
      const int n = queue.length - at < 2 * L ? queue.length - at : 2 * L;
      queue.overhang(2 * L);
      n > L ? layer_block<2>(group, at, n) : layer_block<1>(group, at, n);
      for (int end = at + n; at < end; ++at) {
        if (at >= once) continue;
        const int64_t bound = group.at(queue, at);
        const bool upper = queue.sign[at] != 0, proved = upper ? group.upper[bound] <= 0 : group.lower[bound] >= 0;
        queue.put(int(queue.sample[at]), int(queue.row[at]), !upper, !proved);
      }
    }
  }

  // The queue's n entries from `at` on, at most V vectors.
  template <int V>
  void layer_block(const Group& group, int at, int n) {
    const int k = plan.last();
    const Place& p = group.place;
    const Window window = inputs_of(plan.g[k], {p.oy, p.oy + 1, p.ox, p.ox + 1});
    const Block<T, V> block(queue, at);
    Constants<T, V> constants = {};
    this->template layer_rows<V, MIXED, false>(p, window, block, constants);
    this->template descend<V, MIXED>(k - 1, window, constants, block, false);
    for (int v = 0; v < V; ++v) {
      const Vec<T> value = total<V>(constants, v);
      for (int i = 0; i < L && v * L + i < n; ++i) {
        const int nth = at + v * L + i;
        const T constant = bias(k, p.c0 + int(queue.row[nth]));
        if (queue.sign[nth])
          group.upper[group.at(queue, nth)] = constant - value[i];
        else
          group.lower[group.at(queue, nth)] = constant + value[i];
      }
    }
  }

  // ---- a specification ----

  // Sides nth, nth + 1, ... of the rows', the upper bounds after all lower ones; past the end they repeat the last.
  template <int V>
  void specification_block(const T* C, int nth, int rows, int sides, T* lower, T* upper) {
    Constants<T, V> constants = {};
    Block<T, V> block;
    for (int v = 0; v < V; ++v) {
      const int index = nth + v < sides ? nth + v : sides - 1;
      block.row[v] = Mask<T>{} + Int<T>(index % rows);
      block.sign[v] = Mask<T>{} + (Int<T>(index >= rows) << SIGN_BIT<T>);
    }
    this->template specification_rows<V, TILE>(C, block, constants);
    this->template descend<V, TILE>(plan.last(), whole_output(), constants, block, true);
    for (int v = 0; v < V; ++v) {
      const Vec<T> value = total<V>(constants, v);
      const int64_t at = int64_t(block.row[v][0]) * L;
      block.sign[v][0] ? store<T>(upper + at, -value) : store<T>(lower + at, value);
    }
  }

  void mixed_specification(const T* C, int rows, int count, T* lower, T* upper) {
    for (int side = 0; side < (upper ? 2 : 1); ++side) {
      queue.length = 0;
      for (int s = 0; s < count; ++s)
        for (int row = 0; row < rows; ++row) queue.put(s, row, side, true);
      queue.overhang(2 * L);
      for (int at = 0; at < queue.length; at += 2 * L)
        queue.length - at > L ? mixed_block<2>(C, at, lower, upper) : mixed_block<1>(C, at, lower, upper);
    }
  }

  template <int V>
  void mixed_block(const T* C, int at, T* lower, T* upper) {
    const Block<T, V> block(queue, at);
    Constants<T, V> constants = {};
    this->template specification_rows<V, MIXED>(C, block, constants);
    this->template descend<V, MIXED>(plan.last(), whole_output(), constants, block, true);
    for (int v = 0; v < V; ++v) {
      const Vec<T> value = total<V>(constants, v);
      for (int i = 0; i < L && at + v * L + i < queue.length; ++i) {
        const int64_t to = int64_t(block.row[v][i]) * L + block.sample[v][i];
        if (block.sign[v][i])
          upper[to] = -value[i];
        else
          lower[to] = value[i];
      }
    }
  }

  template <int V>
  static Vec<T> total(const Constants<T, V>& constants, int v) {
    const auto& s = constants.sum;
    return (s[0][v] + s[1][v]) + (s[2][v] + s[3][v]);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
