// The gradient of a back-substitution pass over a tile of samples. A row's bound is the value of the row's own linear
// network at the corner of the box that the row picks: the walk down is repeated with its coefficients kept, a way up
// gives the values, and their outer products are the weights' gradients.
#pragma once

#include "cpu/rows_up.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class PassGradient : public RowsUp<T> {
 public:
  static int64_t bytes(const Plan<T>& plan) { return RowsUp<T>::bytes(plan) + Queue<T>::bytes(pairs(plan)); }

  PassGradient(const Plan<T>& plan_, Tile<T>& tile_, Arena arena) : RowsUp<T>(plan_, tile_, arena) {
    queue = Queue<T>(arena, pairs(plan));
  }

  // Rows of the last layer, from the gradients by their bounds [outputs][lanes] (by_upper may be null).
  void layer(const T* by_lower, const T* by_upper, int count, LayerSums<T>* sums, const BoxSums<T>& box) {
    const Geometry& g = plan.g[plan.last()];
    for (int oy = 0; oy < g.oh; ++oy)
      for (int ox = 0; ox < g.ow; ++ox) {
        const int64_t unit = int64_t(oy) * g.ow + ox, pitch = int64_t(g.oh) * g.ow;
        const auto scale_of = [&](int c, int s, bool upper) {
          const int64_t at = (unit + c * pitch) * L + s;
          return upper ? (by_upper ? -by_upper[at] : T(0)) : by_lower[at];
        };
        queue.length = 0;
        for (int s = 0; s < count; ++s)
          for (int c = 0; c < g.cout; ++c) {
            const int64_t at = (unit + c * pitch) * L + s;
            queue.put(s, c, false, by_lower[at] != 0);
            if (by_upper) queue.put(s, c, true, by_upper[at] != 0);
          }
        queue.overhang(2 * L);
        for (int at = 0; at < queue.length; at += 2 * L) {
          const int n = queue.length - at;
          n > L ? layer_block<2>({oy, ox, 0}, at, n, scale_of, sums, box)
                : layer_block<1>({oy, ox, 0}, at, n, scale_of, sums, box);
        }
      }
    this->finish_products(sums);
  }

  // Rows of a specification, C [rows][outputs][lanes], from the gradients by their bounds [rows][lanes]. by_C: as C, or
  // null.
  void specification(const T* C, int rows, const T* by_lower, const T* by_upper, LayerSums<T>* sums,
                     const BoxSums<T>& box, T* by_C) {
    queue.length = 0;
    for (int side = 0; side < (by_upper ? 2 : 1); ++side)
      for (int row = 0; row < rows; ++row) {
        const T* by = side ? by_upper : by_lower;
        bool some = false;
        for (int s = 0; s < L; ++s) some |= by[int64_t(row) * L + s] != 0;
        queue.put(0, row, side, some);
      }
    queue.overhang(2);
    for (int at = 0; at < queue.length; at += 2)
      queue.length - at > 1 ? specification_block<2>(C, at, by_lower, by_upper, sums, box, by_C)
                            : specification_block<1>(C, at, by_lower, by_upper, sums, box, by_C);
    this->finish_products(sums);
  }

  // The bound of one row of a specification [outputs][lanes] (of its negation, for an upper bound); its gradient by lines
  // is added to the sums.
  Vec<T> evaluate(const T* C, bool is_upper, LayerSums<T>* sums) {
    const int k = plan.last();
    Block<T, 1> block = {};
    block.sign[0] = Mask<T>{} + (Int<T>(is_upper) << SIGN_BIT<T>);
    const Vec<T> scale[1] = {broadcast<T>(1)};
    Constants<T, 1> constants = {};
    constexpr int S = TILE | KEPT;
    this->template specification_rows<1, S>(C, block, constants);
    this->template down<1, S>(k, whole_output(), block, scale, false, true);
    const Window window = inputs_of(plan.g[k], whole_output());
    this->template up<1, S>(k - 1, window, block, scale, sums, {});
    Vec<T> value[SUMS] = {constants.sum[0][0]};
    const T* at = coef(k - 1);
    const int64_t n = int64_t(window.pixels()) * plan.g[k - 1].cout;
    for (int64_t i = 0; i < n; ++i) value[i % SUMS] += load<T>(at + i * L) * load<T>(at + plan.coef_size + i * L);
    return (value[0] + value[1]) + (value[2] + value[3]);
  }

 private:
  using RowsUp<T>::coef, RowsUp<T>::L, RowsUp<T>::plan, RowsUp<T>::whole_output;

  Queue<T> queue;

  static int64_t pairs(const Plan<T>& plan) {
    return larger(2 * int64_t(L) * plan.g[plan.last()].cout, 2 * int64_t(plan.spec.rows)) + 2 * L;
  }

  template <int V, class Scale>
  void layer_block(Place place, int at, int n, const Scale& scale_of, LayerSums<T>* sums, const BoxSums<T>& box) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    const Window window = inputs_of(g, {place.oy, place.oy + 1, place.ox, place.ox + 1});
    const Block<T, V> block(queue, at);
    Vec<T> scale[V] = {};
    for (int i = 0; i < V * L && i < n; ++i)
      scale[i / L][i % L] = scale_of(int(queue.row[at + i]), int(queue.sample[at + i]), queue.sign[at + i] != 0);
    Constants<T, V> none = {};
    constexpr int S = MIXED | KEPT;
    if (plan.pitch == L)
      this->template layer_rows<V, S, false>(place, window, block, none);
    else
      this->template layer_rows<V, S, true>(place, window, block, none);
    this->template down<V, S>(k - 1, window, block, scale, box.by_input != nullptr, false);
    const Image<T> values = this->template up<V, S>(k - 1, window, block, scale, sums, box);
    if (sums[k].own_weight) add_rows<V>(place, window, values, block, sums[k]);
    if (sums[k].own_bias && plan.spec.biased)
      for (int i = 0; i < V * L && i < n; ++i) {
        const T value = scale[i / L][i % L];
        sums[k].own_bias[queue.row[at + i]] += queue.sign[at + i] ? -value : value;
      }
  }

  // A row's own weights multiply the values on its window.
  template <int V>
  void add_rows(Place place, Window window, Image<T> values, const Block<T, V>& block, const LayerSums<T>& sums) {
    const Geometry& g = plan.g[plan.last()];
    for (int y = window.y0; y < window.y1; ++y) {
      const int ky = y + g.ph - place.oy * g.sh, kx = window.x0 + g.pw - place.ox * g.sw;
      const T* from = values.at + int64_t(y - window.y0) * window.width() * values.pixel * L;
      add_by_key<T, V>(from, int64_t(window.width()) * g.cin, block.row, block.sign,
                       sums.own_weight + (int64_t(ky) * g.kw + kx) * g.cin, g.taps());
    }
  }

  template <int V>
  void specification_block(const T* C, int at, const T* by_lower, const T* by_upper, LayerSums<T>* sums,
                           const BoxSums<T>& box, T* by_C) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    Block<T, V> block;
    Vec<T> scale[V];
    for (int v = 0; v < V; ++v) {
      block.row[v] = Mask<T>{} + queue.row[at + v];
      block.sign[v] = Mask<T>{} + queue.sign[at + v];
      block.sample[v] = Mask<T>{};
      const int64_t from = int64_t(queue.row[at + v]) * L;
      scale[v] = queue.sign[at + v] ? -load<T>(by_upper + from) : load<T>(by_lower + from);
    }
    Constants<T, V> none = {};
    constexpr int S = TILE | KEPT;
    const Window out = whole_output();
    this->template specification_rows<V, S>(C, block, none);
    this->template down<V, S>(k, out, block, scale, box.by_input != nullptr, true);
    const Window window = inputs_of(g, out);
    const Image<T> values = this->template up<V, S>(k - 1, window, block, scale, sums, box);
    const Image<T> rows = {coef(k), out, int64_t(g.cout) * V, V};
    if (sums[k].weight) this->template add_product<V>(k, rows, values, sums[k].weight);
    if (sums[k].bias && plan.spec.biased)
      for (int64_t i = 0; i < int64_t(out.pixels()) * g.cout; ++i)
        for (int v = 0; v < V; ++v) {
          T* to = sums[k].bias + i % g.cout * L;
          store<T>(to, load<T>(to) + load<T>(coef(k) + (i * V + v) * L) * scale[v]);
        }
    if (by_C) add_outputs<V>(values, block, scale, by_C);
  }

  // The values on the last layer's outputs, which are the gradient by C.
  template <int V>
  void add_outputs(Image<T> values, const Block<T, V>& block, const Vec<T> (&scale)[V], T* by_C) {
    const int k = plan.last();
    const Geometry& g = plan.g[k];
    const T* weight = plan.spec.layers[k].weight;
    const int64_t outputs = g.outputs();
    for (int o = 0; o < g.cout; ++o)
      for (int oy = 0; oy < g.oh; ++oy)
        for (int ox = 0; ox < g.ow; ++ox) {
          Vec<T> y[V];
          for (int v = 0; v < V; ++v) y[v] = scale[v] * this->bias(k, o);
          for (int c = 0; c < g.cin; ++c)
            for (int ky = 0; ky < g.kh; ++ky)
              for (int kx = 0; kx < g.kw; ++kx) {
                const int iy = oy * g.sh - g.ph + ky, ix = ox * g.sw - g.pw + kx;
                if (iy < 0 || iy >= g.h || ix < 0 || ix >= g.w) continue;
                const T w = weight[((int64_t(o) * g.cin + c) * g.kh + ky) * g.kw + kx];
                const int64_t pixel = int64_t(iy - values.window.y0) * values.window.width() + ix - values.window.x0;
                for (int v = 0; v < V; ++v)
                  y[v] += w * load<T>(values.at + (pixel * values.pixel + c * values.channel + v) * L);
              }
          for (int v = 0; v < V; ++v) {
            T* to = by_C + (block.row[v][0] * outputs + (int64_t(o) * g.oh + oy) * g.ow + ox) * L;
            store<T>(to, load<T>(to) + (block.sign[v][0] ? -y[v] : y[v]));
          }
        }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
