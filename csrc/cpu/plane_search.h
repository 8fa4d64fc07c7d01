// Planes above the units of layer 0 sought for each row, with its slopes and multipliers (glsk/ops/plane_search.py).
#pragma once

#include "cpu/branch_store.h"
#include "cpu/branch_walk.h"

namespace glsk {
namespace GLSK_ISA {

// Of every lane's listed units: shares of the weights, which sum, times what each input moves the unit by, to its upper
// bound.
template <class T, int V>
class SoughtPlanes {
 public:
  static constexpr bool ALONE = true;
  static constexpr int L = LANES<T>, VL = V * L, NEWTON = 3;

  SoughtPlanes(const PlaneSearchArgs<T>& args, BranchTile<T, V>& tile_) : a(args), tile(tile_) {}
  ~SoughtPlanes() { free(slots), free(places), free(values); }

  bool prepare() {
    const Geometry& g = a.rows.layers[0].g;
    units = g.outputs(), taps = g.taps();
    const int64_t listed = VL * a.most, most = listed < units ? listed : units;
    stride = (FIELDS_ * taps + 2) * VL;
    slots = allocate<int>(units + 1);
    places = allocate<int64_t>(most * VL + 1);
    values = allocate<T>(most * stride + 1);
    return slots && places && values;
  }

  bool any() const { return count; }

  // The lists of the tile's problems, once these are loaded.
  void load_lists(int problems) {
    const BranchLayer<T>& layer = tile.layers[0];
    for (int64_t unit = 0; unit < units; ++unit) slots[unit] = -1;
    count = 0;
    for (int s = 0; s < problems; ++s)
      for (int64_t k = 0; k < a.most; ++k) {
        const int64_t unit = a.listed[tile.problem[s] * a.most + k];
        if (unit < 0 || unit >= units) continue;
        if (slots[unit] < 0) {
          slots[unit] = count++;
          memset(of(unit), 0, sizeof(T) * stride);
          for (int v = 0; v < VL; ++v) places[int64_t(slots[unit]) * VL + v] = -1;
        }
        places[int64_t(slots[unit]) * VL + s] = tile.problem[s] * a.most + k;
        T* to = of(unit);
        const T* from = a.shares + (tile.problem[s] * a.most + k) * taps;
        for (int64_t t = 0; t < taps; ++t)
          to[(t * FIELDS_ + SHARE) * VL + s] = to[(t * FIELDS_ + KEPT) * VL + s] = from[t];
        to[FIELDS_ * taps * VL + s] = a.rows.upper[tile.image[s] * a.rows.units + unit];
      }
    each_record<T, V>(layer, [&](const T*, Roles* roles, int64_t unit) {
      for (int v = 0; v < V; ++v) {
        uint32_t bits = 0;
        for (int s = 0; slots[unit] >= 0 && s < L; ++s)
          bits |= uint32_t(places[int64_t(slots[unit]) * VL + v * L + s] >= 0) << s;
        roles[v].above = roles[v].free & bits;
      }
    });
  }

  // The rows' part that goes by the planes, beside what goes through the units.
  void spread(Vec<T> (&sum)[V]) {
    const BranchLayer<T>& layer = tile.layers[0];
    const Geometry& g = layer.g;
    memset(tile.beside, 0, sizeof(T) * g.inputs() * VL);
    each_record<T, V>(layer, [&](const T* record, const Roles* roles, int64_t unit) {
      if (!some_above<V>(roles)) return;
      Vec<T> part[V], reached[V] = {};
      if (!negative(record, roles, part)) return;
      const T *own = weights_of(unit), *shares = of(unit);
      each_tap(g, int(unit / g.ow % g.oh), int(unit % g.ow), [&](int64_t tap, int64_t input) GLSK_LAMBDA_INLINE {
        T* to = tile.beside + input * VL;
        for (int v = 0; v < V; ++v) {
          const Vec<T> share = load<T>(shares + (tap * FIELDS_ + SHARE) * VL + v * L) * own[tap];
          reached[v] += share * load<T>(tile.ends + ((input * V + v) * 2 + (own[tap] < 0)) * L);
          store<T>(to + v * L, load<T>(to + v * L) + share * part[v]);
        }
      });
      for (int v = 0; v < V; ++v) sum[v] -= part[v] * reached[v];
    });
  }

  // The value of a unit's plane at the corner; its shares take a step, those of lanes in `better` are kept first.
  const T* at(int64_t unit, const T* in, T bias, const T* record, const Roles* roles, const Mask<T> (&better)[V]) {
    const Geometry& g = tile.layers[0].g;
    const T* own = weights_of(unit);
    T* const shares = of(unit);
    const int oy = int(unit / g.ow % g.oh), ox = int(unit % g.ow);
    const Vec<T> zero = {}, one = broadcast<T>(1);
    Vec<T> part[V], sum[V] = {};
    negative(record, roles, part);
    each_tap(g, oy, ox, [&](int64_t tap, int64_t input) GLSK_LAMBDA_INLINE {
      T* to = shares + tap * FIELDS_ * VL;
      for (int v = 0; v < V; ++v, to += L) {
        const T* ends = tile.ends + (input * V + v) * 2 * L;
        const Vec<T> reach =
            own[tap] * (load<T>(tile.corner + (input * V + v) * L) - load<T>(ends + (own[tap] < 0) * L));
        const Vec<T> share = load<T>(to + SHARE * VL), by = part[v] * reach;
        const Vec<T> mean = load<T>(to + MEAN_ * VL) * T(0.9) + by * T(0.1);
        const Vec<T> square = load<T>(to + SQUARE_ * VL) * T(0.999) + by * by * T(0.001);
        sum[v] += share * reach;
        store<T>(to + KEPT * VL, better[v] ? share : load<T>(to + KEPT * VL));
        store<T>(to + MEAN_ * VL, mean);
        store<T>(to + SQUARE_ * VL, square);
        store<T>(to + SHARE * VL, share + rate * over_root<T>(mean, square * correction));
      }
    });
    T *wanted = shares + FIELDS_ * taps * VL, *lost = wanted + VL;
    for (int v = 0; v < V; ++v) {
      const Vec<T> y = load<T>(in + v * L) + bias;
      store<T>(lost + v * L, load<T>(lost + v * L) + weight * (sum[v] - (y < 0 ? zero : y)));
      store<T>(value + v * L, sum[v]);
    }
    Vec<T> shift[V] = {};
    for (int i = 0; i < NEWTON; ++i) {
      Vec<T> has[V] = {}, slope[V] = {};
      each_tap(g, oy, ox, [&](int64_t tap, int64_t input) GLSK_LAMBDA_INLINE {
        for (int v = 0; v < V; ++v) {
          const T* ends = tile.ends + (input * V + v) * 2 * L;
          const Vec<T> moves = (own[tap] < 0 ? -own[tap] : own[tap]) * (load<T>(ends + L) - load<T>(ends));
          const Vec<T> moved = load<T>(shares + (tap * FIELDS_ + SHARE) * VL + v * L) + shift[v];
          const Vec<T> cut = clamped(moved, one);
          has[v] += moves * cut;
          slope[v] += moved == cut ? moves : zero;
        }
      });
      for (int v = 0; v < V; ++v) {
        const Vec<T> least = broadcast<T>(T(1e-6)), by = slope[v] < least ? least : slope[v];
        Vec<T> move = (load<T>(wanted + v * L) - has[v]) / by;
        move = move < -one ? -one : move;
        shift[v] += move > one ? one : move;
      }
    }
    each_tap(g, oy, ox, [&](int64_t tap, int64_t) GLSK_LAMBDA_INLINE {
      T* to = shares + (tap * FIELDS_ + SHARE) * VL;
      for (int v = 0; v < V; ++v) store<T>(to + v * L, clamped(load<T>(to + v * L) + shift[v], one));
    });
    return value;
  }

  // The shares of lanes in `better` are the best, and the best ones the present.
  void recall(const Mask<T> (&better)[V]) {
    for (int64_t slot = 0; slot < count; ++slot)
      for (int64_t tap = 0; tap < taps; ++tap)
        for (int v = 0; v < V; ++v) {
          T* to = values + slot * stride + tap * FIELDS_ * VL + v * L;
          store<T>(to + SHARE * VL, better[v] ? load<T>(to + SHARE * VL) : load<T>(to + KEPT * VL));
        }
  }

  // To the lists.
  void store_lists() const {
    for (int64_t slot = 0; slot < count; ++slot)
      for (int s = 0; s < VL; ++s) {
        const int64_t place = places[slot * VL + s];
        if (place < 0) continue;
        const T* from = values + slot * stride;
        for (int64_t t = 0; t < taps; ++t) a.shares[place * taps + t] = from[(t * FIELDS_ + SHARE) * VL + s];
        a.lost[place] = from[(FIELDS_ * taps + 1) * VL + s];
      }
  }

  T rate = 0, correction = 1;  // of the step: over 1 - 0.9^t; 1 / (1 - 0.999^t)
  T weight = 0;                // with which what planes lose is counted

 private:
  enum { SHARE, MEAN_, SQUARE_, KEPT, FIELDS_ };
  const PlaneSearchArgs<T>& a;
  BranchTile<T, V>& tile;
  int64_t units = 0, taps = 0, stride = 0, count = 0;
  int* slots = nullptr;       // [units]; -1: no lane lists it
  int64_t* places = nullptr;  // [slots][lanes] in the lists; -1: the lane does not list it
  T* values = nullptr;        // [slots][taps][FIELDS_][lanes], the wanted sums, and what is lost
  T value[VL];

  T* of(int64_t unit) const { return values + slots[unit] * stride; }
  const T* weights_of(int64_t unit) const {
    const Geometry& g = tile.layers[0].g;
    return a.rows.layers[0].weight + unit / (int64_t(g.oh) * g.ow) * taps;
  }

  static GLSK_INLINE Vec<T> clamped(Vec<T> x, Vec<T> one) {
    x = x < 0 ? Vec<T>{} : x;
    return x > one ? one : x;
  }

  // The coefficients of lanes whose rows read the plane.
  static bool negative(const T* record, const Roles* roles, Vec<T> (&part)[V]) {
    Mask<T> some = {};
    for (int v = 0; v < V; ++v) {
      const Vec<T> c = load<T>(record + (COEFFICIENT * V + v) * L);
      const Mask<T> has = lanes_of<T>(roles[v].above) & (Mask<T>)(c < 0);
      part[v] = has ? c : Vec<T>{};
      some |= has;
    }
    return GLSK_ISA::any<T>(some);
  }
};

template <class T, int V>
class PlaneSearchWorker {
 public:
  explicit PlaneSearchWorker(const PlaneSearchArgs<T>& args) : a(args), tile(args.rows), planes(args, tile) {}
  ~PlaneSearchWorker() { delete walk; }

  bool prepare() {
    if (!tile.prepare() || !planes.prepare()) return false;
    walk = new (std::nothrow) Walk(tile, planes);
    return walk && walk->prepare();
  }

  void run(int64_t q0, int count) {
    tile.load_problems(q0, count);
    planes.load_lists(count);
    Vec<T> best[V], found[V];
    Mask<T> better[V];
    for (int v = 0; v < V; ++v) best[v] = broadcast<T>(-T(__builtin_inf()));
    const int iterations = a.rows.iterations;
    T power1 = 1, power2 = 1, decayed = 1;
    for (int i = 1;; ++i, decayed *= a.rows.decay) {
      walk->down(found);
      for (int v = 0; v < V; ++v) {
        better[v] = found[v] > best[v];
        best[v] = better[v] ? found[v] : best[v];
      }
      if (i == iterations) break;
      power1 *= T(0.9);
      power2 *= T(0.999);
      const T over = decayed / (1 - power1);
      planes.rate = a.rate_shares * over;
      planes.correction = 1 / (1 - power2);
      planes.weight = 2 * i >= iterations ? T(1) / (iterations - (iterations + 1) / 2) : T(0);
      walk->up({a.rows.rate_alpha * over, a.rows.rate_beta * over, planes.correction}, better);
    }
    walk->keep(better);
    walk->recall();
    planes.recall(better);
    walk->down(found);
    // A unit whose plane the row reads has no upper line.
    each_record<T, V>(tile.layers[0], [](T* record, const Roles* roles, int64_t) {
      for (int v = 0; v < V; ++v, record += L) {
        const Mask<T> read = lanes_of<T>(roles[v].above) & (Mask<T>)(load<T>(record + COEFFICIENT * VL) < 0);
        store<T>(record + BEST * VL, read ? Vec<T>{} : load<T>(record + BEST * VL));
      }
    });
    store_records(tile, q0, count, BEST, a.rows.duals, [](const Roles& r) { return r.free | r.active | r.inactive; });
    planes.store_lists();
    for (int s = 0; s < count; ++s) a.rows.bounds[q0 + s] = best[s / L][s % L];
  }

 private:
  static constexpr int L = LANES<T>, VL = V * L;
  using Walk = BranchWalk<T, V, SoughtPlanes<T, V>>;
  const PlaneSearchArgs<T>& a;
  BranchTile<T, V> tile;
  SoughtPlanes<T, V> planes;
  Walk* walk = nullptr;
};

template <class T>
bool run_plane_search(const PlaneSearchArgs<T>& a) {
  constexpr int64_t VL = LANES<T>;
  const int64_t problems = a.rows.subproblems, tiles = (problems + VL - 1) / VL;
  Crew<PlaneSearchWorker<T, 1>, PlaneSearchArgs<T>> crew(a, tiles, a.rows.threads);
  if (!crew.ready) return false;
  parallel_ranges(crew.threads, tiles, [&](int thread, int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t left = problems - tile * VL;
      crew[thread].run(tile * VL, int(left < VL ? left : VL));
    }
  });
  return true;
}

}  // namespace GLSK_ISA
}  // namespace glsk
