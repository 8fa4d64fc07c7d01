// The outer products of a layer whose kernel is its whole input: each block of rows has one output pixel, so that summing
// lanes would cost more than multiplying. The blocks' values are put side by side, as one wide image, and summed together.
#pragma once

#include "cpu/outer.h"
#include "cpu/plan.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class Stack {
 public:
  static bool serves(const Geometry& g) {
    return g.oh * g.ow == 1 && g.ph == 0 && g.pw == 0 && g.kh == g.h && g.kw == g.w;
  }

  // A stack for layer g of a pass over `rows` rows, both sides.
  static int64_t bytes(const Geometry& g, int rows) {
    return Arena::size<T>(capacity(rows) * block(int64_t(g.cout))) + Arena::size<T>(capacity(rows) * block(g.inputs()));
  }

  Stack() = default;
  Stack(const Geometry& g_, int rows, Arena& arena) : g(g_), room(capacity(rows)) {
    coefs = arena.take<T>(room * block(int64_t(g.cout)));
    values = arena.take<T>(room * block(g.inputs()));
  }

  // One block: coefficients [cout][V] and values [pixel][cin][V], or [cin][pixel][V] where cin is 1.
  template <int V>
  void add(const T* coef, const T* value, T* sums) {
    copy<V>(coef, coefs + count * block(int64_t(g.cout)), g.cout);
    const int64_t row = int64_t(g.w) * g.cin;
    for (int y = 0; y < g.h; ++y)
      copy<V>(value + y * row * V * L, values + (int64_t(y) * room + count) * block(row), row);
    if (++count == room) flush(sums);
  }

  void flush(T* sums) {
    if (!count) return;
    const int wide = int(room) * g.w, blocks = int(count);
    const Geometry side_by_side = {g.cin, g.h, wide, g.cout, 1, blocks, g.kh, g.kw, 1, g.kw, 0, 0, 0};
    Outer<T, 2>(side_by_side, {coefs, {0, 1, 0, blocks}, int64_t(g.cout) * 2, 2},
                {values, {0, g.h, 0, wide}, int64_t(g.cin) * 2, 2})
        .add_to(sums);
    count = 0;
  }

 private:
  static constexpr int L = LANES<T>;
  Geometry g = {};
  int64_t room = 0, count = 0;
  T *coefs = nullptr, *values = nullptr;

  static int64_t capacity(int rows) { return rows < 8 ? rows : 8; }
  static int64_t block(int64_t vectors) { return vectors * 2 * L; }

  template <int V>
  static void copy(const T* from, T* to, int64_t n) {
    if constexpr (V == 2) {
      memcpy(to, from, sizeof(T) * n * 2 * L);
    } else {
      for (int64_t i = 0; i < n; ++i) {
        store<T>(to + 2 * i * L, load<T>(from + i * L));
        store<T>(to + (2 * i + 1) * L, Vec<T>{});
      }
    }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
