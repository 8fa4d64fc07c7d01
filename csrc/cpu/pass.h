// One back-substitution pass for every (member, sample), on tiles of samples.
#pragma once

#include "cpu/pass_tile.h"
#include "cpu/tile_pass.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class PassWorker {
 public:
  explicit PassWorker(const PassArgs<T>& args) : a(args), given(args, false) {}
  ~PassWorker() {
    delete pass;
    free(lanes);
  }

  bool prepare() {
    if (!given.prepare(TilePass<T>::bytes(given.plan()))) return false;
    pass = new (std::nothrow) TilePass<T>(given.plan(), *given.tile, given.rest);
    lanes = allocate<T>(4 * int64_t(a.rows) * L);
    return pass && lanes;
  }

  void run(int64_t p, int64_t b, int count) {
    if (given.load_member(p)) pass->load_member();
    given.load_samples(p, b, count);
    T *lower = lanes, *upper = lower + int64_t(a.rows) * L, *known_lower = upper + int64_t(a.rows) * L;
    T* known_upper = known_lower + int64_t(a.rows) * L;
    const int64_t at = (p * a.samples + b) * a.rows;
    if (a.C && given.lines_a_row()) {
      for (int row = 0; row < a.rows; ++row) {
        given.load_lines(p, b, count, row);
        pass->bound_specification(given.C(row), 1, count, lower + row * L, a.upper ? upper + row * L : nullptr);
      }
    } else if (a.C) {
      pass->bound_specification(given.C(0), a.rows, count, lower, a.upper ? upper : nullptr);
    } else {
      if (a.known_lower) load_lanes<T>(a.known_lower + at, a.known_upper + at, a.rows, count, known_lower, known_upper);
      pass->bound_layer(a.known_lower ? known_lower : nullptr, known_upper, false, count, lower,
                        a.upper ? upper : nullptr);
    }
    store_rows<T>(lower, a.rows, count, a.lower + at);
    if (a.upper) store_rows<T>(upper, a.rows, count, a.upper + at);
  }

 private:
  static constexpr int L = LANES<T>;
  const PassArgs<T>& a;
  PassTile<T> given;
  TilePass<T>* pass = nullptr;
  T* lanes = nullptr;
};

template <class T>
bool run_pass(const PassArgs<T>& a) {
  constexpr int L = LANES<T>;
  const int64_t tiles = (a.samples + L - 1) / L, tasks = tiles * a.members;
  Crew<PassWorker<T>, PassArgs<T>> crew(a, tasks, a.threads);
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
