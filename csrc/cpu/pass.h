// A back-substitution pass on the CPU: every row of a layer, or of a specification, from its own weights to the box,
// for every (member, sample). Coefficients live in a thread's scratch memory, which fits its L2 cache.
//
// The engine bounds rows from below only. An upper bound is minus the lower bound of the negated row, so both sides of a
// row are two lanes of one block, and an HBox pass is the same walk with 0/1 slopes over the box [-r, r].
#pragma once

#include <cstdlib>

#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {

// The lanes of one block: which row each bounds, from which side, and where its first coefficients stand.
template <class T>
struct Lanes {
  int vectors;
  bool gathered;                       // sources are anywhere; else they are consecutive within a vector
  int row[MAX_VECTORS * LANES<T>];     // -1: the lane is idle
  int side[MAX_VECTORS * LANES<T>];    // 1: the upper bound, by the negated row
  int source[MAX_VECTORS * LANES<T>];
  T sign[MAX_VECTORS];                 // what the packed coefficients of a vector are multiplied by

  void set(int lane, int row_, int side_, int source_) {
    row[lane] = row_;
    side[lane] = side_;
    source[lane] = source_;
  }
};

// Blocks of V vectors, for S samples: rows of one sample (S = 1, of the samples held the one from `first` on), or the
// same rows of both samples held (S = V = 2).
template <class T>
class Worker : public Scratch<T> {
 public:
  using Scratch<T>::Scratch;

  // Samples b..b+count of member p, which are loaded.
  void bound(int64_t p, int64_t b, int count) {
    if (a.C) {
      dense[plan.last()] = true;  // every output may stand in a row
      bound_specification(p, b, count);
    } else {
      bound_layer(p, b, count);
    }
  }

 private:
  using Base = Scratch<T>;
  using Base::a, Base::alive, Base::bias, Base::box, Base::coef, Base::dense, Base::L, Base::plan, Base::channels,
      Base::units, Base::weights;

  // ---- a specification: rows over the outputs of the last layer ----

  void bound_specification(int64_t p, int64_t b, int count) {
    const int64_t total = int64_t(a.rows) * plan.sides;
    for (int64_t first = 0; first < total; first += MAX_VECTORS * L) {
      Lanes<T> lanes;
      lanes.vectors = total - first <= L ? 1 : MAX_VECTORS;
      for (int i = 0; i < MAX_VECTORS * L; ++i) {
        const int64_t nth = first + i;
        lanes.set(i, nth < total ? int(nth % a.rows) : -1, nth >= a.rows, 0);
      }
      if (lanes.vectors == 1 && count == 2)
        specification_block<2, 2>(lanes, p, b, 0);
      else
        for (int s = 0; s < count; ++s)
          lanes.vectors == 1 ? specification_block<1, 1>(lanes, p, b, s) : specification_block<2, 1>(lanes, p, b, s);
    }
  }

  template <int V, int S>
  void specification_block(const Lanes<T>& lanes, int64_t p, int64_t b, int first) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    const int64_t pixels = int64_t(g.oh) * g.ow, n = g.outputs();
    Constants<T, V> constants = {};
    T* to = coef[k & 1];
    for (int64_t i = 0; i < pixels; ++i)
      for (int c = 0; c < g.cout; ++c, to += V * L)
        for (int v = 0; v < V; ++v) {
          const T* C = a.C + (b + first + (S == 1 ? 0 : v)) * a.rows * n + c * pixels + i;
          for (int lane = 0; lane < L; ++lane) {
            const int at = (S == 1 ? v : 0) * L + lane, row = lanes.row[at];
            const T value = row < 0 ? T(0) : C[row * n];
            to[v * L + lane] = lanes.side[at] ? -value : value;
          }
          constants.sum[0][v] += load<T>(to + v * L) * bias(k, p, c);
        }
    substitute<V, S>(k, {0, g.oh, 0, g.ow}, constants, p, first);
    finish<V, S>(lanes, constants, nullptr, (p * a.samples + b + first) * a.rows, 1);
  }

  // ---- a layer: at each position the rows are its channels, and they share a window ----

  void bound_layer(int64_t p, int64_t b, int count) {
    const Geometry& g = plan.g[plan.last()];
    const int64_t n = g.outputs(), out = (p * a.samples + b) * n;
    const Lanes<T> all = lanes_of(nullptr, 0, g.cout);
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox) {
        const int64_t at = out + int64_t(oy) * g.ow + ox;
        if (plan.paired && count == 2) {
          const int rows = unproved(at) + unproved(at + n);
          if (rows) layer_block<2, 2>(oy, ox, all, p, at, 0);
        } else {
          for (int s = 0; s < count; ++s) bound_position(oy, ox, p, at + s * n, s);
        }
      }
  }

  void bound_position(int oy, int ox, int64_t p, int64_t at, int sample) {
    const int cout = plan.g[plan.last()].cout, count = unproved(at);
    if (count == 0) return;
    const int per_block = plan.paired ? cout : MAX_VECTORS * L / plan.sides;
    // Packing the unproved rows side by side costs a gather a coefficient: only where it saves a block.
    const bool packed = (count + per_block - 1) / per_block < (cout + per_block - 1) / per_block;
    const int rows = packed ? count : cout;
    for (int first = 0; first < rows; first += per_block) {
      const int n = rows - first < per_block ? rows - first : per_block;
      const Lanes<T> lanes = lanes_of(packed ? channels : nullptr, first, n);
      if (lanes.vectors == 1)
        layer_block<1, 1>(oy, ox, lanes, p, at, sample);
      else
        layer_block<2, 1>(oy, ox, lanes, p, at, sample);
    }
  }

  // Lists the channels at one position that known bounds do not prove stable; the others keep those bounds.
  int unproved(int64_t at) {
    const Geometry& g = plan.g[plan.last()];
    if (!a.known_lower) return g.cout;
    int count = 0;
    for (int c = 0; c < g.cout; ++c)
      if (!proved(at + int64_t(c) * g.oh * g.ow)) channels[count++] = c;
    return count;
  }

  bool known(int64_t unit) const {
    return a.known_lower && (a.known_lower[unit] >= 0 || a.known_upper[unit] <= 0);
  }

  bool proved(int64_t unit) {
    if (!known(unit)) return false;
    a.lower[unit] = a.known_lower[unit];
    if (a.upper) a.upper[unit] = a.known_upper[unit];
    return true;
  }

  // Channels first..first+n of a list (or of all): both sides in a vector each, or in one if paired, or one side only.
  Lanes<T> lanes_of(const int* list, int first, int n) {
    const int pair = plan.paired && plan.sides == 2 ? plan.g[plan.last()].cout : MAX_VECTORS * L;
    Lanes<T> lanes;
    lanes.vectors = plan.paired || (plan.sides == 1 && n <= L) ? 1 : MAX_VECTORS;
    lanes.gathered = list != nullptr;
    for (int i = 0; i < MAX_VECTORS * L; ++i) {
      int nth = i, side = 0;
      if (plan.paired ? i >= pair : plan.sides == 2 && i >= L) {
        side = 1;
        nth = plan.paired ? i - pair : i - L;
      }
      const int row = nth < n ? (list ? list[first + nth] : first + nth) : -1;
      // Idle lanes read coefficients too: of any row, within what is packed.
      lanes.set(i, row, side, plan.paired ? i : row >= 0 ? row : list ? list[first] : first + nth);
    }
    for (int v = 0; v < MAX_VECTORS; ++v) lanes.sign[v] = !plan.paired && plan.sides == 2 && v == 1 ? T(-1) : T(1);
    return lanes;
  }

  template <int V, int S>
  void layer_block(int oy, int ox, const Lanes<T>& lanes, int64_t p, int64_t at, int first) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    const Window window = inputs_of(g, {oy, oy + 1, ox, ox + 1});
    Constants<T, V> constants = {};
    if (plan.paired)
      first_coefficients<V, S, PAIRED>(oy, ox, lanes, window, constants, first);
    else if (lanes.gathered)
      first_coefficients<V, S, GATHERED>(oy, ox, lanes, window, constants, first);
    else
      first_coefficients<V, S, CONSECUTIVE>(oy, ox, lanes, window, constants, first);
    if (k) substitute<V, S>(k - 1, window, constants, p, first);
    const Layer<T>& layer = a.layers[k];
    const T* bias = layer.bias && !a.hbox ? layer.bias + p * layer.bias_stride : nullptr;
    finish<V, S>(lanes, constants, bias, at, int64_t(g.oh) * g.ow);
  }

  // How the packed first coefficients become a vector of rows.
  enum Source { PAIRED, CONSECUTIVE, GATHERED };

  // The rows' own weights, on the window of inputs of layer k; they pass the activation before it, or meet the box.
  template <int V, int S, Source SOURCE>
  __attribute__((noinline)) void first_coefficients(int oy, int ox, const Lanes<T>& lanes, Window window,
                                                    Constants<T, V>& constants, int sample) {
    const int k = plan.last(), pitch = plan.pitch;
    const Geometry g = plan.g[k];
    const int64_t pixels = int64_t(g.h) * g.w;
    const Step<T> step = ends(k, sample);
    T* to = k ? coef[(k - 1) & 1] : nullptr;
    Constants<T, V> sums = constants;  // a copy, for the registers
    for (int y = window.y0; y < window.y1; ++y)
      for (int x = window.x0; x < window.x1; ++x) {
        const int ky = y + g.ph - oy * g.sh, kx = x + g.pw - ox * g.sw;
        const T* from = weights + plan.weights[k] + (int64_t(ky) * g.kw + kx) * g.cin * pitch;
        const int64_t pixel = int64_t(y) * g.w + x;
        const auto one = [&](int c, Vec<T>(&sum)[V]) GLSK_LAMBDA_INLINE {
          Vec<T> first[V];
#pragma GCC unroll 2
          for (int v = 0; v < V; ++v) first[v] = packed<SOURCE>(from + int64_t(c) * pitch, lanes, v);
          if (k == 0)
            meet_box<T, V, S>(step, c * pixels + pixel, first, sum);
          else
            pass_activation<T, V, S>(step, c, g.cin, pixel, pixels, first, sum, to + int64_t(c) * V * L);
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

  template <Source SOURCE>
  static GLSK_INLINE Vec<T> packed(const T* from, const Lanes<T>& lanes, int v) {
    if (SOURCE == PAIRED) return load<T>(from);  // one vector, whatever the sample
    if (SOURCE == CONSECUTIVE) return load<T>(from + lanes.source[v * L]) * lanes.sign[v];
    T values[L];
    for (int i = 0; i < L; ++i) values[i] = from[lanes.source[v * L + i]];
    return load<T>(values) * lanes.sign[v];
  }

  // ---- from the outputs of layer j to the box ----

  template <int V, int S>
  void substitute(int j, Window out, Constants<T, V>& constants, int64_t p, int sample) {
    Base::template substitute<V, S>(j, out, constants, p, [&](int j) {
      Step<T> step = ends(j, sample);
      step.dense = dense[j];
      step.alive = alive + plan.alive[j];
      return step;
    });
  }

  // What coefficients on the inputs of layer j meet, for the samples from `sample` on.
  Step<T> ends(int j, int sample) {
    Step<T> step = {};
    for (int s = 0; s < SAMPLES; ++s) {
      const int held = s + sample < SAMPLES ? s + sample : sample;
      step.box[s] = box[held];
      step.before[s] = j ? units[held] + plan.units[j - 1] : nullptr;
    }
    if (j) {
      step.before_alive = alive + plan.alive[j - 1];
      step.before_words = words_of(plan.g[j - 1].cout);
    }
    return step;
  }

  // out: the first row's place, of the first sample.
  template <int V, int S>
  void finish(const Lanes<T>& lanes, const Constants<T, V>& constants, const T* bias, int64_t out, int64_t stride) {
    for (int v = 0; v < V; ++v) {
      const auto& s = constants.sum;
      const Vec<T> value = (s[0][v] + s[1][v]) + (s[2][v] + s[3][v]);
      for (int i = 0; i < L; ++i) {
        const int lane = (S == 1 ? v : 0) * L + i, row = lanes.row[lane];
        if (row < 0) continue;
        const int64_t at = out + (S == 1 ? 0 : v) * int64_t(a.rows) + row * stride;
        if (known(at)) continue;  // keeps what it has
        const T constant = bias ? bias[row] : T(0);
        if (lanes.side[lane])
          a.upper[at] = constant - value[i];
        else
          a.lower[at] = a.hbox ? -value[i] : constant + value[i];
      }
    }
  }
};

template <class T>
bool run_pass(const PassArgs<T>& a) {
  Geometry* shapes = allocate<Geometry>(a.depth);
  int64_t* offsets = allocate<int64_t>(Plan<T>::OFFSETS * a.depth);
  char* memory = nullptr;
  if (shapes && offsets) {
    const Plan<T> plan(a, shapes, offsets, false);
    const int64_t groups = (a.samples + SAMPLES - 1) / SAMPLES, tasks = a.members * groups;
    const int64_t bytes = Worker<T>::bytes(plan);
    const int threads = tasks < a.threads ? int(tasks) : a.threads;
    memory = allocate<char>(bytes * threads);
    if (memory) {
      parallel_ranges(threads, tasks, [&](int thread, int64_t first, int64_t last) {
        Worker<T> worker(plan, Arena{memory + bytes * thread});
        for (int64_t task = first; task < last; ++task) {
          const int64_t p = task / groups, b = task % groups * SAMPLES;
          const int count = a.samples - b < SAMPLES ? int(a.samples - b) : SAMPLES;
          if (task == first || b == 0) worker.load_member(p);
          worker.load_box(p, b, count);
          for (int j = 0; j < plan.last(); ++j) worker.load_layer(j, p, b, count);
          worker.bound(p, b, count);
        }
      });
    }
  }
  const bool done = memory != nullptr;
  free(shapes);
  free(offsets);
  free(memory);
  return done;
}

}  // namespace GLSK_ISA
}  // namespace glsk
