// Down the layers, for the bounds of a tile's problems, and up again, for the gradient by their duals, each of which takes
// its step of Adam on the way. A problem's bound is the value of its own linear network at the corner that it picks.
#pragma once

#include "cpu/branch_tile.h"
#include "cpu/scatter.h"

namespace glsk {
namespace GLSK_ISA {

// Units accumulated at a time.
constexpr int BRANCH_BLOCK = GLSK_VECTOR_REGISTERS == 32 ? 8 : 4;

// Adam's step from one iteration to the next.
template <class T>
struct AdamStep {
  T alpha, beta;  // rates over 1 - 0.9^t
  T correction;   // 1 / (1 - 0.999^t)
};

// sums [N][V][LANES] = sum over the list's entries of weight[entry + inner[i]] coef[entry].
template <class T, int V, int N>
__attribute__((noinline)) void branch_sums(const AliveList& list, const T* coef, const T* weight, const int* inner_,
                                           T* sums) {
  constexpr int L = LANES<T>, K = N * V < 8 ? 2 : 1;  // few sums are kept in two parts, which need not wait
  int64_t inner[N];
  for (int i = 0; i < N; ++i) inner[i] = inner_[i];
  Vec<T> acc[K][N][V] = {};
  const auto add = [&](int e, Vec<T>(&to)[N][V]) GLSK_LAMBDA_INLINE {
    const T *from = coef + list.coef[e], *w = weight + list.weight[e];
    Vec<T> a[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) a[v] = load<T>(from + v * L);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) to[i][v] += w[inner[i]] * a[v];
  };
  int e = 0;
  for (; e + K <= list.count; e += K) {
#pragma GCC unroll 2
    for (int k = 0; k < K; ++k) add(e + k, acc[k]);
  }
  if (K == 2 && e < list.count) add(e, acc[0]);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store<T>(sums + (i * V + v) * L, K == 2 ? acc[0][i][v] + acc[K - 1][i][v] : acc[0][i][v]);
}

template <class T, int V>
GLSK_INLINE void branch_sums(int width, const AliveList& list, const T* coef, const T* weight, const int* inner,
                             T* sums) {
  switch (width) {
    case 1: return branch_sums<T, V, 1>(list, coef, weight, inner, sums);
    case 2: return branch_sums<T, V, 2>(list, coef, weight, inner, sums);
    case 3: return branch_sums<T, V, 3>(list, coef, weight, inner, sums);
    case 4: return branch_sums<T, V, 4>(list, coef, weight, inner, sums);
  }
  if constexpr (BRANCH_BLOCK == 8) switch (width) {
      case 5: return branch_sums<T, V, 5>(list, coef, weight, inner, sums);
      case 6: return branch_sums<T, V, 6>(list, coef, weight, inner, sums);
      case 7: return branch_sums<T, V, 7>(list, coef, weight, inner, sums);
      case 8: return branch_sums<T, V, 8>(list, coef, weight, inner, sums);
    }
}

template <class T, int V>
class BranchWalk {
 public:
  using Tile = BranchTile<T, V>;
  static constexpr int L = LANES<T>, VL = V * L;

  explicit BranchWalk(Tile& tile_) : tile(tile_), layers(tile_.layers), depth(tile_.a.depth) {}
  ~BranchWalk() { free(ints), free(reach), free(room); }

  bool prepare() {
    int64_t longest = 0, places = 0;
    for (int j = 0; j < depth; ++j) {
      longest = larger(longest, AliveList::capacity(layers[j].g));
      places += layers[j].g.h + layers[j].g.w;
    }
    const Geometry& g = layers[0].g;
    scatter = scatter_for<T, V, OWN>(g);
    const int64_t packed = scatter ? 0 : int64_t(g.kh) * g.kw * g.cout * gather_pitch(g);
    ints = allocate<int>(2 * longest);
    reach = allocate<Reach>(places);
    room = allocate<T>(BRANCH_BLOCK * VL + (int64_t(g.ow - 1) * g.sw + g.kw) * g.cin * VL + packed);
    if (!ints || !reach || !room) return false;
    list = {ints, ints + longest, 0};
    row = room + BRANCH_BLOCK * VL;
    first = tile.a.layers[0].weight;
    if (!scatter) {
      T* to = row + (int64_t(g.ow - 1) * g.sw + g.kw) * g.cin * VL;
      pack_by_input<T>(g, first, gather_pitch(g), to);
      first = to;
    }
    Reach* to = reach;
    for (int j = 0; j < depth; ++j) {
      const Geometry& at = layers[j].g;
      for (int y = 0; y < at.h; ++y) *to++ = {(y + at.ph) % at.sh, (y + at.ph) / at.sh};
      for (int x = 0; x < at.w; ++x) *to++ = {(x + at.pw) % at.sw, (x + at.pw) / at.sw};
    }
    return true;
  }

  // The bounds.
  void down(Vec<T> (&bounds)[V]) {
    Constants<T, V> constants = {};
    meet_C(constants.sum[0]);
    const Reach* of = reach;
    for (int j = 0; j < depth - 1; ++j) of += layers[j].g.h + layers[j].g.w;
    for (int j = depth - 1; j > 0; --j) {
      down_to(layers[j], layers[j - 1], of, constants.sum[j % SUMS]);
      of -= layers[j - 1].g.h + layers[j - 1].g.w;
    }
    to_the_box(constants);
    for (int v = 0; v < V; ++v)
      bounds[v] = (constants.sum[0][v] + constants.sum[1][v]) + (constants.sum[2][v] + constants.sum[3][v]);
  }

  // All duals take a step; those of the lanes in `better` are kept first.
  void up(const AdamStep<T>& step, const Mask<T> (&better)[V]) {
    for (int j = 0; j + 1 < depth; ++j) {
      BranchLayer<T>& layer = layers[j];
      const Geometry& g = layer.g;
      T* record = layer.record;
      const Roles* roles = layer.roles;
      int pixel = 0;
      for (int y = layer.window.y0; y < layer.window.y1; ++y)
        for (int x = layer.window.x0; x < layer.window.x1; ++x, ++pixel) {
          const int end = layer.begin[pixel + 1], plain = layer.begin[pixel] + layer.plain[pixel];
          if (layer.begin[pixel] == end) continue;
          j ? list_inputs(layer, layers[j - 1], y, x) : list_corner(g, y, x);
          for (int i = layer.begin[pixel]; i < end; i += BRANCH_BLOCK) {
            const int stop = end < i + BRANCH_BLOCK ? end : i + BRANCH_BLOCK;
            branch_sums<T, V>(stop - i, list, j ? layers[j - 1].coef : tile.corner, layer.weight, layer.row + i, room);
            const T* y_ = room;
            T* to = layer.coef + int64_t(pixel) * g.cout * VL;
            int k = i;
            for (; k < stop && k < plain; ++k, y_ += VL)
              for (int v = 0; v < V; ++v) store<T>(to + layer.at[k] + v * L, load<T>(y_ + v * L) + bias(layer, k));
            for (; k < stop; ++k, y_ += VL, record += FIELDS * VL, roles += V)
              ascend(layer.rest, y_, bias(layer, k), record, roles, step, better, to + layer.at[k]);
          }
        }
    }
  }

  // The duals of the lanes in `better` are the best.
  void keep(const Mask<T> (&better)[V]) {
    each_record([&](T* record, const Roles*, int, int64_t) {
      for (int v = 0; v < V; ++v) keep_best(record + v * L, better[v]);
    });
  }

  // The best duals are the present ones.
  void recall() {
    each_record([](T* record, const Roles*, int, int64_t) {
      memcpy(record + DUAL * VL, record + BEST * VL, sizeof(T) * VL);
    });
  }

  // body(record, roles, layer, unit)
  template <class Body>
  void each_record(const Body& body) {
    for (int j = 0; j + 1 < depth; ++j) {
      const BranchLayer<T>& layer = layers[j];
      const Geometry& g = layer.g;
      const Window& w = layer.window;
      T* record = layer.record;
      const Roles* roles = layer.roles;
      for (int pixel = 0; pixel < w.pixels(); ++pixel) {
        const int64_t place = int64_t(w.y0 + pixel / w.width()) * g.ow + w.x0 + pixel % w.width();
        for (int k = layer.begin[pixel] + layer.plain[pixel]; k < layer.begin[pixel + 1];
             ++k, record += FIELDS * VL, roles += V)
          body(record, roles, j, layer.channel[k] * int64_t(g.oh) * g.ow + place);
      }
    }
  }

 private:
  Tile& tile;
  BranchLayer<T>* const layers;
  const int depth;
  AliveList list;
  int* ints = nullptr;
  Reach* reach = nullptr;
  T *room = nullptr, *row;
  const T* first;
  Scatter<T, V> scatter;

  static T bias(const BranchLayer<T>& layer, int unit) { return layer.bias ? layer.bias[layer.channel[unit]] : T(0); }

  // The coefficients on the last layer's outputs are C itself, and stay.
  void meet_C(Vec<T> (&sum)[V]) {
    const BranchLayer<T>& layer = layers[depth - 1];
    for (int pixel = 0; pixel < layer.window.pixels(); ++pixel)
      for (int i = layer.begin[pixel]; i < layer.begin[pixel + 1]; ++i)
        for (int v = 0; v < V; ++v)
          sum[v] += load<T>(layer.coef + int64_t(pixel) * layer.g.cout * VL + layer.at[i] + v * L) * bias(layer, i);
  }

  // From the outputs of a layer to those of the layer below.
  void down_to(const BranchLayer<T>& layer, BranchLayer<T>& below, const Reach* of, Vec<T> (&sum_)[V]) {
    const Geometry& g = layer.g;
    T* record = below.record;
    const Roles* roles = below.roles;
    Vec<T> sum[V];
    for (int v = 0; v < V; ++v) sum[v] = sum_[v];
    int pixel = 0;
    for (int y = below.window.y0; y < below.window.y1; ++y)
      for (int x = below.window.x0; x < below.window.x1; ++x, ++pixel) {
        const int end = below.begin[pixel + 1], plain = below.begin[pixel] + below.plain[pixel];
        if (below.begin[pixel] == end) continue;
        list_outputs(layer, of[y], of[g.h + x]);
        for (int i = below.begin[pixel]; i < end; i += BRANCH_BLOCK) {
          const int stop = end < i + BRANCH_BLOCK ? end : i + BRANCH_BLOCK;
          branch_sums<T, V>(stop - i, list, layer.coef, layer.weight, below.channel + i, room);
          const T* a = room;
          T* to = below.coef + int64_t(pixel) * below.g.cout * VL;
          int k = i;
          for (; k < stop && k < plain; ++k, a += VL)
            for (int v = 0; v < V; ++v) {
              const Vec<T> value = load<T>(a + v * L);
              sum[v] += value * bias(below, k);
              store<T>(to + below.at[k] + v * L, value);
            }
          for (; k < stop; ++k, a += VL, record += FIELDS * VL, roles += V)
            descend(below.rest, a, bias(below, k), record, roles, to + below.at[k], sum);
        }
      }
    for (int v = 0; v < V; ++v) sum_[v] = sum[v];
  }

  // The outputs, in the layer's window, that read one pixel of its inputs.
  void list_outputs(const BranchLayer<T>& layer, Reach y, Reach x) {
    const Geometry& g = layer.g;
    const Window& w = layer.window;
    list.count = 0;
    for (int ky = y.k, oy = y.o; ky < g.kh && oy >= w.y0; ky += g.sh, --oy) {
      if (oy >= w.y1) continue;
      for (int kx = x.k, ox = x.o; kx < g.kw && ox >= w.x0; kx += g.sw, --ox) {
        if (ox >= w.x1) continue;
        const int pixel = (oy - w.y0) * w.width() + ox - w.x0;
        enlist(layer, pixel, (ky * g.kw + kx) * g.cout * g.cin, layer.row);
      }
    }
  }

  // What one pixel of a layer's outputs reads, in the window of the layer below.
  void list_inputs(const BranchLayer<T>& layer, const BranchLayer<T>& below, int oy, int ox) {
    const Geometry& g = layer.g;
    const Window& w = below.window;
    list.count = 0;
    for (int ky = 0; ky < g.kh; ++ky) {
      const int y = oy * g.sh - g.ph + ky;
      if (y < w.y0 || y >= w.y1) continue;
      for (int kx = 0; kx < g.kw; ++kx) {
        const int x = ox * g.sw - g.pw + kx;
        if (x < w.x0 || x >= w.x1) continue;
        const int pixel = (y - w.y0) * w.width() + x - w.x0;
        enlist(below, pixel, (ky * g.kw + kx) * g.cout * g.cin, below.channel);
      }
    }
  }

  // The units of one pixel; offsets: of each in the weights.
  GLSK_INLINE void enlist(const BranchLayer<T>& layer, int pixel, int weight0, const int* offsets) {
    typedef int Eight __attribute__((vector_size(32)));
    const int begin = layer.begin[pixel], end = layer.begin[pixel + 1], coef0 = pixel * layer.g.cout * VL;
    for (int i = begin; i < end; i += 8) {  // reads and writes 8, keeps those that are there
      Eight at, offset;
      memcpy(&at, layer.at + i, sizeof at);
      memcpy(&offset, offsets + i, sizeof offset);
      at += coef0;
      offset += weight0;
      memcpy(list.coef + list.count + i - begin, &at, sizeof at);
      memcpy(list.weight + list.count + i - begin, &offset, sizeof offset);
    }
    list.count += end - begin;
  }

  void list_corner(const Geometry& g, int oy, int ox) {
    list.count = 0;
    for (int ky = 0; ky < g.kh; ++ky) {
      const int y = oy * g.sh - g.ph + ky;
      if (y < 0 || y >= g.h) continue;
      for (int kx = 0; kx < g.kw; ++kx) {
        const int x = ox * g.sw - g.pw + kx;
        if (x < 0 || x >= g.w) continue;
        for (int c = 0; c < g.cin; ++c)
          list.add_pixel(((c * g.h + y) * g.w + x) * VL, (ky * g.kw + kx) * g.cout * g.cin + c);
      }
    }
  }

  void to_the_box(Constants<T, V>& constants) {
    const BranchLayer<T>& layer = layers[0];
    Step<T> step = {};
    step.g = layer.g;
    step.rows = reach;
    step.cols = reach + layer.g.h;
    step.weight = first;
    step.words = words_of(layer.g.cout);
    step.alive = tile.alive;
    step.ends = tile.ends;
    step.corner = tile.corner;
    if (scatter)
      scatter(step, layer.window, layer.coef, tile.input, row, list, constants);
    else
      gather<T, V, OWN, true>(step, layer.window, layer.coef, tile.input, nullptr, list, constants);
  }

  // Coefficients of one unit through its lines.
  GLSK_INLINE static void descend(T rest, const T* in, T bias, T* record, const Roles* roles, T* out, Vec<T> (&sum)[V]) {
    const Vec<T> zero = {};
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v, record += L) {
      const Vec<T> a = load<T>(in + v * L), q = load<T>(record + DUAL * VL), s = load<T>(record + SLOPE * VL);
      const Vec<T> negative = a < 0 ? a : zero;
      Vec<T> through = a * (a < 0 ? s : lower_slope(rest, roles[v], q, s));
      sum[v] += negative * load<T>(record + INTERCEPT * VL);
      if (roles[v].active | roles[v].inactive) {
        through -= lanes_of<T>(roles[v].active) ? q : zero;
        through += lanes_of<T>(roles[v].inactive) ? q : zero;
      }
      sum[v] += through * bias;
      store<T>(record + COEFFICIENT * VL, a);
      store<T>(out + v * L, through);
    }
  }

  GLSK_INLINE static Vec<T> lower_slope(T rest, const Roles& role, Vec<T> q, Vec<T> s) {
    return lanes_of<T>(role.free) ? (1 - rest) + rest * q : s;
  }

  GLSK_INLINE static void keep_best(T* record, Mask<T> better) {
    store<T>(record + BEST * VL, better ? load<T>(record + DUAL * VL) : load<T>(record + BEST * VL));
  }

  // A unit's value from that of its input, and its duals' step.
  GLSK_INLINE static void ascend(T rest, const T* in, T bias, T* record, const Roles* roles, const AdamStep<T>& step,
                                 const Mask<T> (&better)[V], T* out) {
    const Vec<T> zero = {}, one = broadcast<T>(1);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v, record += L) {
      const Vec<T> a = load<T>(record + COEFFICIENT * VL), q = load<T>(record + DUAL * VL);
      const Vec<T> s = load<T>(record + SLOPE * VL), y = load<T>(in + v * L) + bias;
      const Mask<T> free = lanes_of<T>(roles[v].free);
      const Vec<T> above = y * lower_slope(rest, roles[v], q, s), below = y * s + load<T>(record + INTERCEPT * VL);
      store<T>(out + v * L, a < 0 ? below : above);
      Vec<T> by = (free & (a > 0)) ? a * y * rest : zero, rate = broadcast<T>(step.alpha);
      const bool split = roles[v].active | roles[v].inactive;
      if (split) {
        const Mask<T> active = lanes_of<T>(roles[v].active), inactive = lanes_of<T>(roles[v].inactive);
        by = active ? -y : inactive ? y : by;
        rate = free ? rate : broadcast<T>(step.beta);
      }
      const Vec<T> mean = load<T>(record + MEAN * VL) * T(0.9) + by * T(0.1);
      const Vec<T> square = load<T>(record + SQUARE * VL) * T(0.999) + by * by * T(0.001);
      keep_best(record, better[v]);
      store<T>(record + MEAN * VL, mean);
      store<T>(record + SQUARE * VL, square);
      Vec<T> next = q + rate * mean / (square_root<T>(square * step.correction) + T(1e-8));
      next = next < 0 ? zero : next;
      next = (next > one) & free ? one : next;
      store<T>(record + DUAL * VL, next);
    }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
