// Where gradients are summed. A member's tiles of samples are dealt into groups, whose number does not depend on threads;
// a group is summed in the order of its tiles, and the groups in their order: the same bits for any number of threads.
#pragma once

#include "cpu/outer.h"
#include "cpu/plan.h"
#include "cpu/subnormals.h"

namespace glsk {
namespace GLSK_ISA {

// Of one layer; null: not wanted.
template <class T>
struct LayerSums {
  // for a whole group of tiles
  T* weight;         // blocks of outer products (outer.h)
  T* radius_weight;  // the same, by |weight|
  T* bias;           // [cout][lanes]
  T* own_weight;     // of the layer's rows: [cout][kh][kw][cin]
  T* own_bias;       // [cout]
  T* merged_weight;  // of rows merged with the layer (interval_rows.h): [cout][cin][kh][kw]
  // for one tile: of the lines, by slope and intercept of the upper one or, if both, of the lower one and the upper one
  T* by_unit;    // [oh * ow][cout][2 or 4][lanes]
  T* by_sample;  // [lanes][oh * ow][cout][2 or 4]
  bool both;

  int quantities() const { return both ? 4 : 2; }
};

// By the ends of the box, for one tile; null: not wanted.
template <class T>
struct BoxSums {
  T* by_input;   // [inputs][2][lanes]
  T* by_sample;  // [lanes][inputs][2]
};

// The sums of one (member, group) in one piece of memory.
template <class T>
struct GroupLayout {
  // Numbers of one layer; want: what of it is wanted.
  static int64_t layer_size(const Geometry& g, const LayerGradient<T>& want) {
    return (want.weight ? (want.inner + want.radius) * round_up(outer_size(g)) +
                              (want.own + want.merged) * round_up(g.cout * g.taps())
                        : 0) +
           (want.bias ? g.cout * int64_t(LANES<T>) + round_up(g.cout) : 0);
  }

  static int64_t size(const Layer<T>* layers, const LayerGradient<T>* want, int depth) {
    int64_t total = 0;
    for (int j = 0; j < depth; ++j) total += layer_size(layers[j].g, want[j]);
    return total;
  }

  static void place(const Layer<T>* layers, const LayerGradient<T>* want, int depth, T* at, LayerSums<T>* sums) {
    for (int j = 0; j < depth; ++j) {
      const Geometry& g = layers[j].g;
      LayerSums<T>& s = sums[j];
      s.weight = s.radius_weight = s.own_weight = s.merged_weight = s.bias = s.own_bias = nullptr;
      if (want[j].weight) {
        if (want[j].inner) s.weight = take(at, round_up(outer_size(g)));
        if (want[j].radius) s.radius_weight = take(at, round_up(outer_size(g)));
        if (want[j].own) s.own_weight = take(at, round_up(g.cout * g.taps()));
        if (want[j].merged) s.merged_weight = take(at, round_up(g.cout * g.taps()));
      }
      if (want[j].bias) {
        s.bias = take(at, g.cout * int64_t(LANES<T>));
        s.own_bias = take(at, round_up(g.cout));
      }
    }
  }

  // Adds a group's sums to a member's gradients, which PyTorch's layout has: of every layer the share `part` of `parts` of
  // the output channels.
  static void finish(const Layer<T>* layers, const LayerSums<T>* sums, const LayerGradient<T>* to, int depth, int64_t p,
                     int part, int parts) {
    constexpr int L = LANES<T>;
    for (int j = 0; j < depth; ++j) {
      const Geometry& g = layers[j].g;
      const int blocks = (g.cout + OUTER_CHANNELS - 1) / OUTER_CHANNELS;
      const int o0 = blocks * part / parts * OUTER_CHANNELS, end = blocks * (part + 1) / parts * OUTER_CHANNELS;
      const int o1 = end < g.cout ? end : g.cout;
      const int64_t taps = g.taps(), positions = int64_t(g.kh) * g.kw;
      if (T* out = to[j].weight) {
        out += p * g.cout * taps;
        if (sums[j].weight) add_outer<T>(g, sums[j].weight, nullptr, o0, o1, out);
        if (sums[j].radius_weight)
          add_outer<T>(g, sums[j].radius_weight, layers[j].weight + p * layers[j].weight_stride, o0, o1, out);
        for (int64_t o = o0; sums[j].own_weight && o < o1; ++o)
          for (int64_t c = 0; c < g.cin; ++c)
            for (int64_t k = 0; k < positions; ++k)
              out[(o * g.cin + c) * positions + k] += sums[j].own_weight[o * taps + k * g.cin + c];
        for (int64_t i = o0 * taps; sums[j].merged_weight && i < o1 * taps; ++i) out[i] += sums[j].merged_weight[i];
      }
      if (T* out = to[j].bias) {
        for (int o = o0; o < o1; ++o) {
          T sum = sums[j].own_bias[o];
          for (int s = 0; s < L; ++s) sum += sums[j].bias[o * L + s];
          out[p * g.cout + o] += sum;
        }
      }
    }
  }

 private:
  static int64_t round_up(int64_t n) {
    const int64_t whole = GLSK_ALIGN / sizeof(T);
    return (n + whole - 1) / whole * whole;
  }
  static T* take(T*& at, int64_t n) {
    T* found = at;
    at += n;
    return found;
  }
};

// Runs body(worker thread, member range, tile range, where sums are) over all tasks and adds up the groups. together: the members of
// a tile go to one task, since they share something that they all add to.
template <class T, class Body>
bool run_groups(int members, int samples, int groups, bool together, int threads, const Layer<T>* layers,
                const LayerGradient<T>* want, int depth, const Body& body) {
  const int64_t tiles = (samples + LANES<T> - 1) / LANES<T>;
  const int64_t parts = tiles < groups ? tiles : groups, size = GroupLayout<T>::size(layers, want, depth);
  const int64_t tasks = together ? parts : parts * members;
  // Members that share weights still have gradients of their own.
  T* memory = allocate<T>(size * parts * members + 1);
  LayerSums<T>* tables = static_cast<LayerSums<T>*>(calloc(size_t(threads) * size_t(depth), sizeof(LayerSums<T>)));
  const bool ready = memory && tables;
  if (ready) {
    memset(memory, 0, sizeof(T) * size * parts * members);
    parallel_ranges(tasks < threads ? int(tasks) : threads, tasks, [&](int thread, int64_t first, int64_t last) {
      const NoSubnormals flushed;
      for (int64_t task = first; task < last; ++task) {
        const int64_t group = together ? task : task / members;
        const int64_t p0 = together ? 0 : task % members, p1 = together ? members : p0 + 1;
        body(thread, p0, p1, tiles * group / parts, tiles * (group + 1) / parts, [&](int64_t p, LayerSums<T>* sums) {
          GroupLayout<T>::place(layers, want, depth, memory + (p * parts + group) * size, sums);
        });
      }
    });
    const int shares = 8;
    const int64_t finishing = int64_t(members) * shares;
    parallel_ranges(finishing < threads ? int(finishing) : threads, finishing,
                    [&](int thread, int64_t first, int64_t last) {
                      LayerSums<T>* sums = tables + int64_t(thread) * depth;
                      for (int64_t task = first; task < last; ++task)
                        for (int64_t group = 0; group < parts; ++group) {
                          const int64_t p = task / shares;
                          GroupLayout<T>::place(layers, want, depth, memory + (p * parts + group) * size, sums);
                          GroupLayout<T>::finish(layers, sums, want, depth, p, int(task % shares), shares);
                        }
                    });
  }
  free(memory);
  free(tables);
  return ready;
}

}  // namespace GLSK_ISA
}  // namespace glsk
