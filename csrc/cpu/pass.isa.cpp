// A back-substitution pass on the CPU: every row of a layer, or of a specification, from its own weights to the box,
// for every (member, sample). Coefficients live in a thread's scratch memory, which fits its L2 cache.
//
// The engine bounds rows from below only. An upper bound is minus the lower bound of the negated row, so both sides of a
// row are two lanes of one block, and an HBox pass is the same walk with 0/1 slopes over the box [-r, r].
#include <cstdlib>

#include "cpu/parallel.h"
#include "cpu/plan.h"
#include "cpu/simd.h"
#include "cpu/types.h"

namespace glsk {
namespace GLSK_ISA {
namespace {

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

template <class T>
class Worker {
 public:
  static int64_t bytes(const Plan<T>& plan) {
    return Arena::size<T>(plan.weights_size) + Arena::size<Unit<T>>(plan.units_size) +
           Arena::size<uint64_t>(plan.alive_size) + Arena::size<T>(2 * plan.g[0].inputs()) +
           2 * Arena::size<T>(plan.coef_size) + Arena::size<T>(plan.row_size) + 2 * Arena::size<int>(plan.list_size) +
           Arena::size<int>(plan.g[plan.last()].cout) + Arena::size<bool>(plan.last() + 1);
  }

  Worker(const Plan<T>& plan_, char* memory) : plan(plan_), a(plan_.args) {
    Arena arena{memory};
    weights = arena.take<T>(plan.weights_size);
    units = arena.take<Unit<T>>(plan.units_size);
    alive = arena.take<uint64_t>(plan.alive_size);
    box = arena.take<T>(2 * plan.g[0].inputs());
    coef[0] = arena.take<T>(plan.coef_size);
    coef[1] = arena.take<T>(plan.coef_size);
    row = arena.take<T>(plan.row_size);
    list = {arena.take<int>(plan.list_size), arena.take<int>(plan.list_size), 0};
    channels = arena.take<int>(plan.g[plan.last()].cout);
    dense = arena.take<bool>(plan.last() + 1);
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

  void bound(int64_t p, int64_t b) {
    load_sample(p, b);
    if (a.C)
      bound_specification(p, b);
    else
      bound_layer(p, b);
  }

 private:
  static constexpr int L = LANES<T>;
  const Plan<T>& plan;
  const PassArgs<T>& a;
  T *weights, *box, *coef[2], *row;
  Unit<T>* units;
  uint64_t* alive;
  bool* dense;
  AliveList list;
  int* channels;

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

  void load_sample(int64_t p, int64_t b) {
    for (int j = 0; j < plan.last(); ++j) load_units(j, p, b);
    if (a.C) {  // every output of the last layer may stand in a row
      dense[plan.last()] = true;
    }
    const int64_t n = plan.g[0].inputs(), at = p * a.box_stride + b * n;
    for (int64_t i = 0; i < n; ++i) {
      const T lower = a.x_lower[at + i], upper = a.x_upper[at + i], radius = (upper - lower) / 2;
      box[2 * i] = a.hbox ? -radius : lower;
      box[2 * i + 1] = a.hbox ? radius : upper;
    }
  }

  // The activation that follows layer j, with j's bias folded into its constants.
  void load_units(int j, int64_t p, int64_t b) {
    const Geometry& g = plan.g[j];
    const int64_t pixels = int64_t(g.oh) * g.ow, at = (p * a.samples + b) * g.outputs();
    const int words = words_of(g.cout);
    memset(alive + plan.alive[j], 0, sizeof(uint64_t) * pixels * words);
    int64_t living = 0;
    for (int c = 0; c < g.cout; ++c) {
      const T shift = bias(j, p, c);
      Unit<T>* to = units + plan.units[j] + c * pixels;
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
    dense[j] = 4 * living >= 3 * pixels * g.cout;
  }

  // LANES units from their bounds; kept: 0 where no row can depend on the unit. `to` has room for whole vectors.
  GLSK_INLINE void relaxation(const T* lower, const T* upper, int count, T shift, T* to,
                              int32_t (&kept)[L]) {
    const Vec<T> zero = {}, one = broadcast<T>(1);
    Vec<T> l = zero, u = zero;
    if (count == L) {
      l = load<T>(lower);
      u = load<T>(upper);
    } else {
      memcpy(&l, lower, sizeof(T) * count);
      memcpy(&u, upper, sizeof(T) * count);
    }
    Vec<T> neg, pos, constant;  // of an unstable unit; NaN bounds make it one, and stay NaN
    if (a.hbox) {
      neg = pos = constant = zero;
    } else {
      neg = u / (u - l);
      pos = u <= -l ? zero : one;
      constant = neg * (shift - l);
    }
    neg = u <= 0 ? zero : neg;
    pos = u <= 0 ? zero : pos;
    constant = u <= 0 ? zero : constant;
    neg = l >= 0 ? one : neg;
    pos = l >= 0 ? one : pos;
    constant = l >= 0 ? broadcast<T>(shift) : constant;
    const Mask<T> some = (neg != 0) & 1;
    for (int k = 0; k < L; ++k) kept[k] = int32_t(some[k]);
    store_interleaved<T>(pos, neg, pos * shift, constant, to);
  }

  // ---- a specification: rows over the outputs of the last layer ----

  void bound_specification(int64_t p, int64_t b) {
    const int64_t total = int64_t(a.rows) * plan.sides;
    const T* C = a.C + b * a.rows * plan.g[plan.last()].outputs();
    for (int64_t first = 0; first < total; first += MAX_VECTORS * L) {
      Lanes<T> lanes;
      lanes.vectors = total - first <= L ? 1 : MAX_VECTORS;
      for (int i = 0; i < MAX_VECTORS * L; ++i) {
        const int64_t nth = first + i;
        lanes.set(i, nth < total ? int(nth % a.rows) : -1, nth >= a.rows, 0);
      }
      const int64_t out = (p * a.samples + b) * a.rows;
      if (lanes.vectors == 1)
        specification_block<1>(C, lanes, p, out);
      else
        specification_block<2>(C, lanes, p, out);
    }
  }

  template <int V>
  void specification_block(const T* C, const Lanes<T>& lanes, int64_t p, int64_t out) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    const int64_t pixels = int64_t(g.oh) * g.ow;
    Constants<T, V> constants = {};
    T* to = coef[k & 1];
    for (int64_t i = 0; i < pixels; ++i)
      for (int c = 0; c < g.cout; ++c, to += V * L)
        for (int v = 0; v < V; ++v) {
          for (int lane = v * L; lane < (v + 1) * L; ++lane) {
            const T value = lanes.row[lane] < 0 ? T(0) : C[int64_t(lanes.row[lane]) * g.outputs() + c * pixels + i];
            to[lane] = lanes.side[lane] ? -value : value;
          }
          constants.sum[0][v] += load<T>(to + v * L) * bias(k, p, c);
        }
    substitute<V>(k, {0, g.oh, 0, g.ow}, constants, p);
    finish<V>(lanes, constants, nullptr, out, 1);
  }

  // ---- a layer: at each position the rows are its channels, and they share a window ----

  void bound_layer(int64_t p, int64_t b) {
    const Geometry& g = plan.g[plan.last()];
    const int64_t positions = int64_t(g.oh) * g.ow, out = (p * a.samples + b) * g.outputs();
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox) {
        const int64_t at = out + int64_t(oy) * g.ow + ox;
        const int count = unproved(at, positions);
        if (count == 0) continue;
        const int per_block = plan.paired ? g.cout : MAX_VECTORS * L / plan.sides;
        // Packing the unproved rows side by side costs a gather a coefficient: only where it saves a block.
        const bool packed = (count + per_block - 1) / per_block < (g.cout + per_block - 1) / per_block;
        const int rows = packed ? count : g.cout;
        for (int first = 0; first < rows; first += per_block) {
          const int n = rows - first < per_block ? rows - first : per_block;
          const Lanes<T> lanes = lanes_of(packed ? channels : nullptr, first, n);
          if (lanes.vectors == 1)
            layer_block<1>(oy, ox, lanes, p, at, positions);
          else
            layer_block<2>(oy, ox, lanes, p, at, positions);
        }
      }
  }

  // Lists the channels at one position that known bounds do not prove stable; the others keep those bounds.
  int unproved(int64_t at, int64_t positions) {
    const int cout = plan.g[plan.last()].cout;
    int count = 0;
    for (int c = 0; c < cout; ++c)
      if (!proved(at + c * positions)) channels[count++] = c;
    return count;
  }

  bool proved(int64_t unit) {
    if (!a.known_lower || !(a.known_lower[unit] >= 0 || a.known_upper[unit] <= 0)) return false;
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

  template <int V>
  void layer_block(int oy, int ox, const Lanes<T>& lanes, int64_t p, int64_t at, int64_t positions) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    const Window window = inputs_of(g, {oy, oy + 1, ox, ox + 1});
    Constants<T, V> constants = {};
    if (plan.paired)
      first_coefficients<V, PAIRED>(oy, ox, lanes, window, constants);
    else if (lanes.gathered)
      first_coefficients<V, GATHERED>(oy, ox, lanes, window, constants);
    else
      first_coefficients<V, CONSECUTIVE>(oy, ox, lanes, window, constants);
    if (k) substitute<V>(k - 1, window, constants, p);
    const Layer<T>& layer = a.layers[k];
    finish<V>(lanes, constants, layer.bias && !a.hbox ? layer.bias + p * layer.bias_stride : nullptr, at, positions);
  }

  // How the packed first coefficients become a vector of rows.
  enum Source { PAIRED, CONSECUTIVE, GATHERED };

  // The rows' own weights, on the window of inputs of layer k; they pass the activation before it, or meet the box.
  template <int V, Source SOURCE>
  __attribute__((noinline)) void first_coefficients(int oy, int ox, const Lanes<T>& lanes, Window window,
                                                    Constants<T, V>& constants) {
    const int k = plan.last(), pitch = plan.pitch;
    const Geometry g = plan.g[k];
    const int64_t pixels = int64_t(g.h) * g.w;
    const Unit<T>* before = k ? units + plan.units[k - 1] : nullptr;
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
            meet_box<T, V>(box + 2 * (c * pixels + pixel), first, sum);
          else
            pass_activation<T, V>(before[c * pixels + pixel], first, sum, to + int64_t(c) * V * L);
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
    if (SOURCE == PAIRED) return load<T>(from);
    if (SOURCE == CONSECUTIVE) return load<T>(from + lanes.source[v * L]) * lanes.sign[v];
    T values[L];
    for (int i = 0; i < L; ++i) values[i] = from[lanes.source[v * L + i]];
    return load<T>(values) * lanes.sign[v];
  }

  // ---- from the outputs of layer j to the box ----

  template <int V>
  void substitute(int j, Window out, Constants<T, V>& constants, int64_t p) {
    for (; j >= 0; --j) {
      const Window in = inputs_of(plan.g[j], out);
      const Step<T> step = step_of(j, p);
      const Scatter<T, V> scatter = j == 0 ? scatter_for<T, V>(plan.g[0]) : nullptr;
      if (scatter)
        scatter(step, out, coef[0], in, row, list, constants);
      else if (j == 0)
        gather<T, V, true>(step, out, coef[0], in, nullptr, list, constants);
      else
        gather<T, V, false>(step, out, coef[j & 1], in, coef[(j - 1) & 1], list, constants);
      out = in;
    }
  }

  Step<T> step_of(int j, int64_t p) {
    Step<T> step = {};
    step.g = plan.g[j];
    step.weight = plan.scattered(j) ? a.layers[j].weight + p * a.layers[j].weight_stride : weights + plan.weights[j];
    step.dense = dense[j];
    step.words = words_of(plan.g[j].cout);
    step.alive = alive + plan.alive[j];
    step.box = box;
    if (j) {
      step.before = units + plan.units[j - 1];
      step.before_alive = alive + plan.alive[j - 1];
      step.before_words = words_of(plan.g[j - 1].cout);
    }
    return step;
  }

  T bias(int j, int64_t p, int channel) const {
    const Layer<T>& layer = a.layers[j];
    return layer.bias && !a.hbox ? layer.bias[p * layer.bias_stride + channel] : T(0);
  }

  template <int V>
  void finish(const Lanes<T>& lanes, const Constants<T, V>& constants, const T* bias, int64_t out, int64_t stride) {
    for (int v = 0; v < V; ++v) {
      const auto& s = constants.sum;
      const Vec<T> value = (s[0][v] + s[1][v]) + (s[2][v] + s[3][v]);
      for (int i = 0; i < L; ++i) {
        const int lane = v * L + i, row = lanes.row[lane];
        if (row < 0) continue;
        const int64_t at = out + row * stride;
        if (a.known_lower && (a.known_lower[at] >= 0 || a.known_upper[at] <= 0)) continue;  // keeps what it has
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
bool run(const PassArgs<T>& a) {
  Geometry* shapes = allocate<Geometry>(a.depth);
  int64_t* offsets = allocate<int64_t>(3 * a.depth);
  char* memory = nullptr;
  if (shapes && offsets) {
    const Plan<T> plan(a, shapes, offsets);
    const int64_t tasks = int64_t(a.members) * a.samples, bytes = Worker<T>::bytes(plan);
    const int threads = tasks < a.threads ? int(tasks) : a.threads;
    memory = allocate<char>(bytes * threads);
    if (memory) {
      parallel_ranges(threads, tasks, [&](int thread, int64_t first, int64_t last) {
        Worker<T> worker(plan, memory + bytes * thread);
        for (int64_t task = first; task < last; ++task) {
          const int64_t p = task / a.samples, b = task % a.samples;
          if (task == first || b == 0) worker.load_member(p);
          worker.bound(p, b);
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

}  // namespace

bool pass_f32(const PassArgs<float>& a) { return run<float>(a); }
bool pass_f64(const PassArgs<double>& a) { return run<double>(a); }

}  // namespace GLSK_ISA
}  // namespace glsk
