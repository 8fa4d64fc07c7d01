// The way down with its coefficients kept, and the way up, of the rows whose gradient is taken: what every pass backwards
// walks.
#pragma once

#include "cpu/climb.h"
#include "cpu/stacked.h"
#include "cpu/sums.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class RowsUp : public Rows<T> {
 public:
  static int64_t bytes(const Plan<T>& plan) {
    int64_t size = Packed<T>::bytes(plan) + 2 * Arena::size<T>(corner_size(plan)) +
                   Arena::size<T>(products_size(plan)) + Arena::size<T>(upward_size(plan)) +
                   Arena::size<int64_t>(plan.spec.depth) + Arena::size<Stack<T>>(plan.spec.depth);
    for (int j = 0; j < plan.spec.depth; ++j)
      if (stacked(plan, j)) size += Stack<T>::bytes(plan.g[j], blocks(plan));
    return size;
  }

  RowsUp(const Plan<T>& plan_, Tile<T>& tile_, Arena& arena) : Rows<T>(plan_, tile_, arena) {
    corner = arena.take<T>(corner_size(plan));
    first = arena.take<T>(corner_size(plan));
    products = arena.take<T>(products_size(plan));
    upward = arena.take<T>(upward_size(plan));
    upward_at = arena.take<int64_t>(plan.spec.depth);
    stacks = arena.take<Stack<T>>(plan.spec.depth);
    int64_t at = 0;
    for (int j = 0; j < plan.spec.depth; ++j) {
      upward_at[j] = at;
      at += plan.g[j].taps() * climb_pitch(plan.g[j]);
      new (stacks + j) Stack<T>();
      if (stacked(plan, j)) stacks[j] = Stack<T>(plan.g[j], blocks(plan), arena);
    }
  }

  void load_member() {
    Rows<T>::load_member();
    for (int j = 0; j < plan.spec.depth; ++j)
      if (climbed(plan, j))
        pack_by_output<T>(plan.g[j], plan.spec.layers[j].weight, climb_pitch(plan.g[j]), upward + upward_at[j]);
  }

 protected:
  using Rows<T>::coef, Rows<T>::L, Rows<T>::list, Rows<T>::plan, Rows<T>::tile;

  // Coefficients on layer j's outputs times the values on its inputs.
  template <int V>
  void add_product(int j, Image<T> rows, Image<T> values, T* sums) {
    if (stacked(plan, j))
      stacks[j].template add<V>(rows.at, values.at, sums);
    else
      Outer<T, V>(plan.g[j], rows, values).add_to(sums);
  }

  // After the last block of rows.
  void finish_products(const LayerSums<T>* sums) {
    for (int j = 0; j < plan.spec.depth; ++j) stacks[j].flush(sums[j].weight);
  }

  // From coefficients on the outputs of layer j to the corner of the box.
  template <int V, int S>
  void down(int j, Window out, const Block<T, V>& block, const Vec<T> (&scale)[V], bool by_box, bool all) {
    Constants<T, V> none = {};
    this->template substitute<V, S>(j, out, none, [&](int i) {
      Step<T> step = tile.met(i, all && i == j);
      step.sample = block.sample;
      step.corner = corner;
      step.first = by_box ? first : nullptr;
      step.scale = scale;
      return step;
    });
  }

  // From the corner to the values on layer j's outputs (after its activation) in the window `out`; adds the layers'
  // gradients on the way. j = -1: the corner itself.
  template <int V, int S>
  Image<T> up(int j, Window out, const Block<T, V>& block, const Vec<T> (&scale)[V], LayerSums<T>* sums,
              const BoxSums<T>& box) {
    if (j < 0) {
      const Geometry& g = plan.g[0];
      if (box.by_input) add_box<V, S>(out, block, scale, box);
      const Window image = {0, g.h, 0, g.w};
      return {corner, image, V, g.cin == 1 ? V : int64_t(g.h) * g.w * V};
    }
    const Geometry& g = plan.g[j];
    const Image<T> in = up<V, S>(j - 1, inputs_of(g, out), block, scale, sums, box);
    const Image<T> found = {coef(j), out, int64_t(g.cout) * V, V};
    if (sums[j].weight) add_product<V>(j, found, in, sums[j].weight);
    Climb<T> climbing = {};
    climbing.g = g;
    climbing.weight = upward + upward_at[j];
    climbing.pitch = climb_pitch(g);
    climbing.bias = plan.spec.biased ? plan.spec.layers[j].bias : nullptr;
    if (j) {
      climbing.before_alive = tile.alive_of(j - 1);
      climbing.before_words = words_of(g.cin);
      climbing.before_dense = tile.mostly_alive(j - 1);
    }
    climbing.lines = tile.lines_of(j);
    climbing.raw = plan.coef_size;
    climbing.both = sums[j].both;
    climbing.by_unit = S & MIXED ? nullptr : sums[j].by_unit;
    climbing.products = (S & MIXED) && sums[j].by_sample ? products : nullptr;
    climbing.by_bias = plan.spec.biased ? sums[j].bias : nullptr;
    const int quantities = sums[j].quantities();
    const Mask<T> unchanged[V] = {};
    climb<T, V, S>(climbing, in, out, coef(j), list, block, scale, [&](int oy) {
      if (!climbing.products) return;
      const int64_t units = int64_t(g.oh) * g.ow * g.cout, at = (int64_t(oy) * g.ow + out.x0) * g.cout;
      add_by_key<T, V>(products, int64_t(out.width()) * g.cout * quantities, block.sample, unchanged,
                       sums[j].by_sample + at * quantities, units * quantities);
    });
    return found;
  }

  // By the ends of the box: a coefficient counts for the end that it picked.
  template <int V, int S>
  void add_box(Window in, const Block<T, V>& block, const Vec<T> (&scale)[V], const BoxSums<T>& box) {
    const Geometry& g = plan.g[0];
    const Mask<T> unchanged[V] = {};
    for (int c = 0; c < g.cin; ++c)
      for (int y = in.y0; y < in.y1; ++y) {
        const int64_t input = (int64_t(c) * g.h + y) * g.w + in.x0;
        for (int i = 0; i < in.width(); ++i)
          for (int v = 0; v < V; ++v) {
            const Vec<T> a = load<T>(first + ((input + i) * V + v) * L), value = a * scale[v], zero = {};
            const Vec<T> low = a < 0 ? zero : value, up = a < 0 ? value : zero;
            if constexpr (S & MIXED) {
              store<T>(products + (2 * i * V + v) * L, low);
              store<T>(products + ((2 * i + 1) * V + v) * L, up);
            } else {
              T* to = box.by_input + 2 * (input + i) * L;
              store<T>(to, load<T>(to) + low);
              store<T>(to + L, load<T>(to + L) + up);
            }
          }
        if constexpr (S & MIXED)
          add_by_key<T, V>(products, 2 * in.width(), block.sample, unchanged, box.by_sample + 2 * input,
                           2 * int64_t(g.inputs()));
      }
  }

 private:
  T *corner, *first, *products, *upward;
  int64_t* upward_at;
  Stack<T>* stacks;

  static int64_t corner_size(const Plan<T>& plan) { return int64_t(plan.g[0].inputs()) * MAX_VECTORS * L; }
  static int64_t products_size(const Plan<T>& plan) {
    int64_t most = 2 * int64_t(plan.g[0].w) * MAX_VECTORS * L;
    for (int j = 0; j < plan.spec.depth; ++j)
      most = larger(most, int64_t(plan.g[j].ow) * plan.g[j].cout * 4 * MAX_VECTORS * L);
    return most;
  }
  static bool climbed(const Plan<T>& plan, int j) { return j < plan.last() || plan.spec.specified; }
  static int64_t upward_size(const Plan<T>& plan) {
    int64_t size = 0;
    for (int j = 0; j < plan.spec.depth; ++j) size += plan.g[j].taps() * climb_pitch(plan.g[j]);
    return size;
  }

  // Whether layer j's values stand one after the other: the input's channels are whole images.
  static bool stacked(const Plan<T>& plan, int j) {
    const Geometry& g = plan.g[j];
    return climbed(plan, j) && Stack<T>::serves(g) && (j > 0 || g.cin == 1 || g.h * g.w == 1);
  }
  static int blocks(const Plan<T>& plan) { return plan.spec.specified ? plan.spec.rows : 8; }
};

}  // namespace GLSK_ISA
}  // namespace glsk
