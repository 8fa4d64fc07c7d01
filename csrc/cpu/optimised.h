// Rows of a specification, each with lower slopes of its own for every unstable unit, found by gradient ascent on the
// row's bound (alpha-CROWN: Xu et al., 2021): Adam from CROWN's slopes, which are the first that are tried.
#pragma once

#include <cmath>

#include "cpu/pass_tile.h"
#include "cpu/tile_pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

// Adam's state of a layer's slopes, [unit][lanes] in the order of the tile's lines.
template <class T>
struct Ascent {
  T *first, *second, *start;  // moments; the lines to start from, [4][lanes] a unit
  int* units;                 // those that are unstable in some lane
  int count;
};

template <class T>
class OptimisedWorker {
 public:
  explicit OptimisedWorker(const OptimisedArgs<T>& args) : o(args), a(args.pass), given(args.pass, true) {}
  ~OptimisedWorker() {
    delete pass;
    free(sums), free(ascents), free(units), free(lanes);
  }

  bool prepare() {
    const int inner = a.depth - 1;
    sums = zeroed<LayerSums<T>>(a.depth);
    ascents = zeroed<Ascent<T>>(a.depth);
    if (!sums || !ascents || !given.prepare(PassGradient<T>::bytes(given.plan()))) return false;
    pass = new (std::nothrow) PassGradient<T>(given.plan(), *given.tile, given.rest);
    int64_t total = 0;
    for (int j = 0; j < inner; ++j) total += chosen(j) ? a.layers[j].g.outputs() : 0;
    units = zeroed<int>(total);
    lanes = allocate<T>((total * 10 + 2 * a.rows) * L);
    if (!pass || !units || !lanes) return false;
    T* at = lanes;
    int* listed = units;
    for (int j = 0; j < inner; ++j) {
      if (!chosen(j)) continue;
      const int64_t n = a.layers[j].g.outputs();
      Ascent<T>& s = ascents[j];
      s.units = listed;
      listed += n;
      s.first = at;
      s.second = at + n * L;
      s.start = at + 2 * n * L;
      sums[j].by_unit = at + 6 * n * L;
      sums[j].both = true;
      at += 10 * n * L;
    }
    lower = at;
    upper = at + int64_t(a.rows) * L;
    return true;
  }

  void run(int64_t p, int64_t b, int count) {
    if (given.load_member(p)) pass->load_member();
    given.load_samples(p, b, count);
    for (int j = 0; j + 1 < a.depth; ++j)
      if (ascents[j].units) load_ascent(j, p, b, count);
    const bool each = given.lines_a_row();
    for (int row = 0; row < a.rows; ++row) {
      if (each) given.load_lines(p, b, count, row);
      optimise(row, false, lower + row * L);
      if (a.upper) optimise(row, true, upper + row * L);
    }
    const int64_t at = (p * a.samples + b) * a.rows;
    store_rows<T>(lower, a.rows, count, a.lower + at);
    if (a.upper) store_rows<T>(upper, a.rows, count, a.upper + at);
  }

 private:
  static constexpr int L = LANES<T>;
  const OptimisedArgs<T>& o;
  const PassArgs<T>& a;
  PassTile<T> given;
  PassGradient<T>* pass = nullptr;
  LayerSums<T>* sums = nullptr;
  Ascent<T>* ascents = nullptr;
  int* units = nullptr;
  T *lanes = nullptr, *lower, *upper;

  // Whether layer j's slopes are free: lines that are given stay.
  bool chosen(int j) const { return a.layers[j].g.relu && !a.inner[j].lines; }

  // Which units have a slope to choose, and CROWN's lines to come back to.
  void load_ascent(int j, int64_t p, int64_t b, int count) {
    const Geometry& g = a.layers[j].g;
    const int64_t pixels = int64_t(g.oh) * g.ow, n = g.outputs();
    Ascent<T>& s = ascents[j];
    T *low = sums[j].by_unit, *up = low + n * L;
    given.bounds(j, p, b, count, low, up);
    s.count = 0;
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
      for (int c = 0; c < g.cout; ++c) {
        const int64_t at = (c * pixels + pixel) * L;
        const Mask<T> unstable = (load<T>(low + at) < 0) & (load<T>(up + at) > 0);
        if (!any<T>(unstable)) continue;
        store<T>(s.second + (pixel * g.cout + c) * L, (Vec<T>)unstable);  // for a moment: who moves
        s.units[s.count++] = int(pixel * g.cout + c);
      }
    // Only these are ever written; a mask stands before each unit's start.
    memcpy(s.start, given.tile->lines_of(j), sizeof(T) * 4 * n * L);
    for (int i = 0; i < s.count; ++i) {
      const int64_t unit = s.units[i];
      const Vec<T> unstable = load<T>(s.second + unit * L);
      // The intercept of a lower line is 0: its place, less the bias, can hold the mask.
      store<T>(s.start + (4 * unit + 2) * L, unstable);
    }
  }

  void optimise(int row, bool is_upper, T* best) {
    const T sign = is_upper ? -1 : 1;
    for (int j = 0; j + 1 < a.depth; ++j) reset(j);
    Vec<T> found = broadcast<T>(-T(__builtin_inf()));
    T rate = o.rate, power1 = 1, power2 = 1;
    for (int i = 1; i <= o.iterations; ++i) {
      const Vec<T> value = pass->evaluate(given.C(row), is_upper, sums);
      // A NaN stays: it says that something overflowed.
      found = value > found ? value : value == value ? found : value;
      if (i == o.iterations) break;
      power1 *= T(0.9);
      power2 *= T(0.999);
      for (int j = 0; j + 1 < a.depth; ++j) step(j, rate / (1 - power1), 1 / (1 - power2));
      rate *= o.decay;
    }
    store<T>(best, found * sign);
  }

  void reset(int j) {
    const Ascent<T>& s = ascents[j];
    if (!s.units) return;
    T* lines = given.tile->lines_of(j);
    const Geometry& g = a.layers[j].g;
    const T* bias = given.layers[j].bias;
    for (int i = 0; i < s.count; ++i) {
      const int64_t unit = s.units[i];
      const Vec<T> slope = load<T>(s.start + 4 * unit * L);
      store<T>(lines + 4 * unit * L, slope);
      store<T>(lines + (4 * unit + 2) * L, slope * (bias ? bias[unit % g.cout] : T(0)));
      store<T>(s.first + unit * L, Vec<T>{});
      store<T>(s.second + unit * L, Vec<T>{});
      for (int q = 0; q < 4; ++q) store<T>(sums[j].by_unit + (4 * unit + q) * L, Vec<T>{});
    }
  }

  // One step of Adam for layer j's slopes, and their gradient cleared.
  void step(int j, T rate, T correction) {
    const Ascent<T>& s = ascents[j];
    if (!s.units) return;
    T* lines = given.tile->lines_of(j);
    const Geometry& g = a.layers[j].g;
    const T leak = a.layers[j].leak;
    const T* bias = given.layers[j].bias;
    const Vec<T> one = broadcast<T>(1), least = broadcast<T>(leak);
    for (int i = 0; i < s.count; ++i) {
      const int64_t unit = s.units[i];
      const Vec<T> by = load<T>(sums[j].by_unit + 4 * unit * L);
      const Vec<T> m = load<T>(s.first + unit * L) * T(0.9) + by * T(0.1);
      const Vec<T> v = load<T>(s.second + unit * L) * T(0.999) + by * by * T(0.001);
      store<T>(s.first + unit * L, m);
      store<T>(s.second + unit * L, v);
      Vec<T> root, scaled = v * correction;
      for (int k = 0; k < L; ++k) root[k] = std::sqrt(scaled[k]);
      Vec<T> slope = load<T>(lines + 4 * unit * L) + m * (rate * (1 - leak)) / (root + T(1e-8));
      slope = slope < least ? least : slope > one ? one : slope;
      const Mask<T> moves = (Mask<T>)load<T>(s.start + (4 * unit + 2) * L);
      slope = moves ? slope : load<T>(s.start + 4 * unit * L);
      store<T>(lines + 4 * unit * L, slope);
      store<T>(lines + (4 * unit + 2) * L, slope * (bias ? bias[unit % g.cout] : T(0)));
      for (int q = 0; q < 4; ++q) store<T>(sums[j].by_unit + (4 * unit + q) * L, Vec<T>{});
    }
  }
};

template <class T>
bool run_optimised(const OptimisedArgs<T>& o) {
  constexpr int L = LANES<T>;
  const PassArgs<T>& a = o.pass;
  const int64_t tiles = (a.samples + L - 1) / L, tasks = tiles * a.members;
  Crew<OptimisedWorker<T>, OptimisedArgs<T>> crew(o, tasks, a.threads);
  if (!crew.ready) return false;
  parallel_ranges(crew.threads, tasks, [&](int thread, int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) {
      const int64_t p = task / tiles, b = task % tiles * L;
      crew[thread].run(p, b, a.samples - b < L ? int(a.samples - b) : L);
    }
  });
  return true;
}

}  // namespace GLSK_ISA
}  // namespace glsk
