// The gradient of one back-substitution pass for every (member, sample).
#pragma once

#include "cpu/folding.h"
#include "cpu/pass_tile.h"
#include "cpu/tile_pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class PassGradientWorker {
 public:
  explicit PassGradientWorker(const PassGradientArgs<T>& args) : d(args), a(args.pass), given(args.pass, true) {}
  ~PassGradientWorker() {
    delete pass;
    free(sums), free(lanes);
  }

  bool prepare() {
    sums = zeroed<LayerSums<T>>(a.depth);
    if (!sums || !given.prepare(PassGradient<T>::bytes(given.plan()))) return false;
    pass = new (std::nothrow) PassGradient<T>(given.plan(), *given.tile, given.rest);
    int64_t total = 0;
    lay_out([&](T**, int64_t n) { total += n * L; });
    lanes = allocate<T>(total);
    if (!pass || !lanes) return false;
    T* at = lanes;
    lay_out([&](T** to, int64_t n) {
      *to = n ? at : nullptr;
      at += n * L;
    });
    return true;
  }

  template <class SumsOf>
  void run(int64_t p0, int64_t p1, int64_t t0, int64_t t1, const SumsOf& sums_of) {
    for (int64_t t = t0; t < t1; ++t) {
      const int64_t b = t * L;
      const int count = a.samples - b < L ? int(a.samples - b) : L;
      for (int64_t p = p0; p < p1; ++p) {
        sums_of(p, sums);
        if (given.load_member(p)) pass->load_member();
        given.load_samples(p, b, count);
        const int64_t at = (p * a.samples + b) * a.rows;
        load_lanes<T>(d.d_lower + at, d.d_upper ? d.d_upper + at : d.d_lower + at, a.rows, count, by_lower, by_upper);
        if (p == p0 || a.box_stride) clear_box();
        if (by_C && p == p0) clear(by_C, int64_t(a.rows) * outputs());
        rows(p, b, count);
        if (box.by_input && (p + 1 == p1 || a.box_stride)) store_box(p * a.box_stride + b * inputs(), count);
      }
      if (by_C) store_rows<T>(by_C, int(a.rows * outputs()), count, d.C + b * a.rows * outputs());
    }
  }

 private:
  static constexpr int L = LANES<T>;
  const PassGradientArgs<T>& d;
  const PassArgs<T>& a;
  PassTile<T> given;
  PassGradient<T>* pass = nullptr;
  LayerSums<T>* sums = nullptr;
  T *lanes = nullptr, *by_lower, *by_upper, *by_C, *found, *low, *up;
  BoxSums<T> box = {};

  int64_t inputs() const { return a.layers[0].g.inputs(); }
  int64_t outputs() const { return a.layers[a.depth - 1].g.outputs(); }
  static void clear(T* at, int64_t units) { memset(at, 0, sizeof(T) * units * L); }
  bool lined(int j) const { return d.layers[j].lines || d.layers[j].lower || d.layers[j].upper; }

  template <class Take>
  void lay_out(const Take& take) {
    int64_t widest = inputs();
    for (int j = 0; j + 1 < a.depth; ++j) {
      const int64_t n = a.layers[j].g.outputs();
      widest = larger(widest, n);
      sums[j].both = d.layers[j].lines || a.rule == PARALLEL;
      take(&sums[j].by_unit, lined(j) ? n * sums[j].quantities() : 0);
      take(&sums[j].by_sample, lined(j) ? n * sums[j].quantities() : 0);
    }
    take(&by_lower, a.rows);
    take(&by_upper, a.rows);
    take(&by_C, d.C ? a.rows * outputs() : 0);
    take(&found, 4 * widest);
    take(&low, widest);
    take(&up, widest);
    const bool boxed = d.x_lower || d.x_upper;
    take(&box.by_input, boxed ? 2 * inputs() : 0);
    take(&box.by_sample, boxed ? 2 * inputs() : 0);
  }

  void clear_box() {
    if (!box.by_input) return;
    clear(box.by_input, 2 * inputs());
    clear(box.by_sample, 2 * inputs());
  }

  void clear_lines() {
    for (int j = 0; j + 1 < a.depth; ++j) {
      if (!lined(j)) continue;
      const int64_t n = a.layers[j].g.outputs() * int64_t(sums[j].quantities());
      clear(sums[j].by_unit, n);
      clear(sums[j].by_sample, n);
    }
  }

  void rows(int64_t p, int64_t b, int count) {
    const T* upper = d.d_upper ? by_upper : nullptr;
    clear_lines();
    if (!a.C) {
      pass->layer(by_lower, upper, count, sums, box);
      store_lines(p, b, count, 0);
      return;
    }
    const bool each = given.lines_a_row();
    for (int row = 0; row < (each ? a.rows : 1); ++row) {
      if (each) given.load_lines(p, b, count, row);
      const T* C = given.C(row);
      T* to_C = by_C ? by_C + row * outputs() * L : nullptr;
      pass->specification(C, each ? 1 : a.rows, by_lower + row * L, upper ? upper + row * L : nullptr, sums, box, to_C);
      if (!each || row + 1 == a.rows) {
        store_lines(p, b, count, row);
      } else {
        store_lines_a_row(p, b, count, row);
      }
    }
  }

  // Of the layers whose lines differ from row to row, which then start anew.
  void store_lines_a_row(int64_t p, int64_t b, int count, int64_t row) {
    for (int j = 0; j + 1 < a.depth; ++j) {
      if (!lined(j) || !a.inner[j].row) continue;
      store_layer(j, p, b, count, row);
      const int64_t n = a.layers[j].g.outputs() * int64_t(sums[j].quantities());
      clear(sums[j].by_unit, n);
      clear(sums[j].by_sample, n);
    }
  }

  void store_lines(int64_t p, int64_t b, int count, int64_t row) {
    for (int j = 0; j + 1 < a.depth; ++j)
      if (lined(j)) store_layer(j, p, b, count, a.inner[j].row ? row : 0);
  }

  void store_layer(int j, int64_t p, int64_t b, int count, int64_t row) {
    const Geometry& g = a.layers[j].g;
    const int64_t n = g.outputs();
    const bool by_bounds = !d.layers[j].lines;
    if (by_bounds) {
      given.bounds(j, p, b, count, low, up);
      fold_bounds<T>(a.layers[j], sums[j], a.rule, low, up,
                     [&](int64_t at, Vec<T> by_l, Vec<T> by_u) GLSK_LAMBDA_INLINE {
                       store<T>(found + at, by_l);
                       store<T>(found + n * L + at, by_u);
                     });
    } else {
      fold_lines<T>(g, sums[j], [&](int64_t at, const Vec<T>(&by)[4]) GLSK_LAMBDA_INLINE {
        for (int i = 0; i < 4; ++i) store<T>(found + i * n * L + at, by[i]);
      });
    }
    const int64_t at = p * a.samples + b;
    if (!by_bounds) {
      const int64_t lines_rows = a.inner[j].row ? a.rows : 1, pitch = lines_rows * 4 * n;
      store_rows<T>(found, int(4 * n), count, d.layers[j].lines + at * pitch + row * 4 * n, pitch);
      return;
    }
    if (d.layers[j].lower) store_rows<T>(found, int(n), count, d.layers[j].lower + at * n);
    if (d.layers[j].upper) store_rows<T>(found + n * L, int(n), count, d.layers[j].upper + at * n);
  }

  void store_box(int64_t to, int count) {
    const int64_t n = inputs();
    fold_box<T>(n, box, [&](int64_t at, Vec<T> l, Vec<T> u) GLSK_LAMBDA_INLINE {
      store<T>(low + at, l);
      store<T>(up + at, u);
    });
    if (d.x_lower) store_rows<T>(low, int(n), count, d.x_lower + to);
    if (d.x_upper) store_rows<T>(up, int(n), count, d.x_upper + to);
  }
};

template <class T>
bool run_pass_backward(const PassGradientArgs<T>& d) {
  const PassArgs<T>& a = d.pass;
  const bool together = d.C || ((d.x_lower || d.x_upper) && !a.box_stride);
  Crew<PassGradientWorker<T>, PassGradientArgs<T>> crew(d, a.threads, a.threads);
  LayerGradient<T>* wanted = zeroed<LayerGradient<T>>(a.depth);
  if (!crew.ready || !wanted) {
    free(wanted);
    return false;
  }
  for (int j = 0; j < a.depth; ++j) {
    wanted[j] = d.layers[j];
    wanted[j].own = j == a.depth - 1 && !a.C;
    wanted[j].inner = !wanted[j].own;
  }
  const bool done = run_groups<T>(a.members, a.samples, d.groups, together, a.threads, a.layers, wanted, a.depth,
                                  [&](int thread, int64_t p0, int64_t p1, int64_t t0, int64_t t1, const auto& sums_of) {
                                    crew[thread].run(p0, p1, t0, t1, sums_of);
                                  });
  free(wanted);
  return done;
}

}  // namespace GLSK_ISA
}  // namespace glsk
