// Bounds of subproblems of branch and bound with slopes and multipliers found by Adam (alpha-CROWN: Xu et al., 2021;
// beta-CROWN: Wang et al., 2021), on tiles of problems.
#pragma once

#include "cpu/branch_store.h"
#include "cpu/branch_walk.h"

namespace glsk {
namespace GLSK_ISA {

template <class T, int V>
class BranchWorker {
 public:
  explicit BranchWorker(const BranchArgs<T>& args) : a(args), tile(args), planes(tile) {}
  ~BranchWorker() { delete walk; }

  bool prepare() {
    if (!tile.prepare()) return false;
    walk = new (std::nothrow) Walk(tile, planes);
    return walk && walk->prepare();
  }

  void run(int64_t q0, int count) {
    tile.load_problems(q0, count);
    Vec<T> best[V] = {}, threshold[V] = {};
    for (int v = 0; v < V; ++v)
      for (int s = 0; s < L; ++s) {
        best[v][s] = -T(__builtin_inf());
        threshold[v][s] = a.threshold ? a.threshold[tile.problem[v * L + s]] : T(0);
      }
    Mask<T> going[V], better[V];
    for (int v = 0; v < V; ++v) going[v] = ~Mask<T>{};
    T decayed = 1, power1 = 1, power2 = 1;
    for (int i = 1;; ++i) {
      Vec<T> found[V];
      walk->down(found);
      bool some = false;
      for (int v = 0; v < V; ++v) {
        // A NaN stays: it says that something overflowed, as +inf does.
        const Vec<T> nan = broadcast<T>(T(__builtin_nan("")));
        const Vec<T> value = found[v] == T(__builtin_inf()) ? nan : found[v];
        better[v] = going[v] & ((value > best[v]) | (value != value));
        best[v] = better[v] ? value : best[v];
        if (a.threshold) going[v] &= ~(Mask<T>)(best[v] > threshold[v]);
        some |= any<T>(going[v]);
      }
      if (i == a.iterations || !some) break;
      power1 *= T(0.9);
      power2 *= T(0.999);
      const T rate = decayed / (1 - power1);
      walk->up({a.rate_alpha * rate, a.rate_beta * rate, 1 / (1 - power2)}, better);
      decayed *= a.decay;
    }
    for (int s = 0; s < count; ++s) a.bounds[q0 + s] = best[s / L][s % L];
    if (a.duals || a.coefficients || a.corner) store_outputs(q0, count, better);
  }

 private:
  static constexpr int L = LANES<T>, VL = V * L;
  const BranchArgs<T>& a;
  using Walk = BranchWalk<T, V, GivenPlanes<T, V>>;
  BranchTile<T, V> tile;
  GivenPlanes<T, V> planes;
  Walk* walk = nullptr;

  // Of the best iterate; `better`: where that is the present one.
  void store_outputs(int64_t q0, int count, const Mask<T> (&better)[V]) {
    walk->keep(better);
    if ((a.coefficients || a.corner) && a.iterations > 1) {
      Vec<T> again[V];
      walk->recall();
      walk->down(again);
    }
    if (a.duals)
      store_records(tile, q0, count, BEST, a.duals, [](const Roles& r) { return r.free | r.active | r.inactive; });
    if (a.coefficients)
      store_records(tile, q0, count, COEFFICIENT, a.coefficients, [](const Roles& role) { return role.free; });
    const int64_t n = tile.layers[0].g.inputs();
    if (a.corner)
      for (int s = 0; s < count; ++s) store_corner(s, a.corner + (q0 + s) * n);
  }

  // Where no row depends on an input, the lower end.
  void store_corner(int s, T* to) const {
    const Geometry& g = tile.layers[0].g;
    const Window& w = tile.input;
    const T* low = a.x_lower + tile.image[s] * g.inputs();
    for (int64_t i = 0; i < g.inputs(); ++i) {
      const int y = int(i / g.w % g.h), x = int(i % g.w);
      const bool met = y >= w.y0 && y < w.y1 && x >= w.x0 && x < w.x1;
      to[i] = met ? tile.corner[i * VL + s] : low[i];
    }
  }
};

template <class T>
int64_t image_of(const BranchArgs<T>& a, int64_t problem) {
  const int64_t subproblem = problem / a.rows;
  return a.index ? a.index[subproblem] : subproblem;
}

template <class T, int V>
bool run_branch_tiles(const BranchArgs<T>& a) {
  constexpr int64_t VL = V * LANES<T>;
  const int64_t problems = a.subproblems * a.rows, tiles = (problems + VL - 1) / VL;
  Crew<BranchWorker<T, V>, BranchArgs<T>> crew(a, tiles, a.threads);
  if (!crew.ready) return false;
  parallel_ranges(crew.threads, tiles, [&](int thread, int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t q0 = tile * VL, left = problems - q0, stop = q0 + (left < VL ? left : VL);
      for (int64_t q = q0, next; q < stop; q = next) {  // planes are of one image
        for (next = a.planes ? q + 1 : stop; next < stop && image_of(a, next) == image_of(a, q);) ++next;
        crew[thread].run(q, int(next - q));
      }
    }
  });
  return true;
}

// Two vectors share each weight that is read, if there are problems enough.
template <class T>
bool run_branch(const BranchArgs<T>& a) {
  const bool many = a.subproblems * a.rows >= 4 * LANES<T>;
  return many ? run_branch_tiles<T, 2>(a) : run_branch_tiles<T, 1>(a);
}

}  // namespace GLSK_ISA
}  // namespace glsk
