// Down the layers, for the bounds of a tile's problems, and up again, for the gradient by their duals, each of which takes
// its step of Adam on the way. A problem's bound is the value of its own linear network at the corner that it picks.
#pragma once

#include "cpu/branch_planes.h"
#include "cpu/branch_sums.h"
#include "cpu/branch_unit.h"
#include "cpu/scatter.h"

namespace glsk {
namespace GLSK_ISA {

// Planes: what stands above units of layer 0 beside, or (ALONE) in place of, their upper lines.
template <class T, int V, class Planes>
class BranchWalk {
 public:
  using Tile = BranchTile<T, V>;
  static constexpr int L = LANES<T>, VL = V * L;

  BranchWalk(Tile& tile_, Planes& planes_) : tile(tile_), planes(planes_), layers(tile_.layers), depth(tile_.a.depth) {}
  ~BranchWalk() { free(ints), free(reach), free(room); }

  bool prepare() {
    int64_t longest = 0, places = 0;
    for (int j = 0; j < depth; ++j) {
      longest = larger(longest, AliveList::capacity(layers[j].g));
      places += layers[j].g.h + layers[j].g.w;
    }
    const Geometry& g = layers[0].g;
    add = scatter_for<T, V>(g);
    const int64_t packed = add ? 0 : int64_t(g.kh) * g.kw * g.cout * gather_pitch(g);
    ints = allocate<int>(2 * longest);
    reach = allocate<Reach>(places);
    room = allocate<T>(BRANCH_BLOCK * VL + (int64_t(g.ow - 1) * g.sw + g.kw) * g.cin * VL + packed);
    if (!ints || !reach || !room) return false;
    list = {ints, ints + longest, 0};
    row = room + BRANCH_BLOCK * VL;
    first = tile.a.layers[0].weight;
    if (!add) {
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
          j ? list_inputs<T, V>(list, layer, layers[j - 1], y, x) : list_corner<T, V>(list, g, y, x);
          for (int i = layer.begin[pixel]; i < end; i += BRANCH_BLOCK) {
            const int stop = end < i + BRANCH_BLOCK ? end : i + BRANCH_BLOCK;
            branch_sums<T, V>(stop - i, list, j ? layers[j - 1].coef : tile.corner, layer.weight, layer.row + i, room);
            const T* y_ = room;
            T* to = layer.coef + int64_t(pixel) * g.cout * VL;
            int k = i;
            for (; k < stop && k < plain; ++k, y_ += VL)
              for (int v = 0; v < V; ++v) store<T>(to + layer.at[k] + v * L, load<T>(y_ + v * L) + bias(layer, k));
            for (; k < stop; ++k, y_ += VL, record += FIELDS * VL, roles += V)
              ascend<T, V, Planes::ALONE>(layer.rest, y_, bias(layer, k),
                                          j ? nullptr : above(layer, k, y, x, y_, record, roles, better), record, roles,
                                          step, better, to + layer.at[k]);
          }
        }
    }
  }

  // The duals of the lanes in `better` are the best.
  void keep(const Mask<T> (&better)[V]) {
    for (int j = 0; j + 1 < depth; ++j)
      each_record<T, V>(layers[j], [&](T* record, const Roles*, int64_t) {
        for (int v = 0; v < V; ++v) keep_best<T, V>(record + v * L, better[v]);
      });
  }

  // The best duals are the present ones.
  void recall() {
    for (int j = 0; j + 1 < depth; ++j)
      each_record<T, V>(layers[j], [](T* record, const Roles*, int64_t) {
        memcpy(record + DUAL * VL, record + BEST * VL, sizeof(T) * VL);
      });
  }

 private:
  Tile& tile;
  Planes& planes;
  BranchLayer<T>* const layers;
  const int depth;
  AliveList list;
  int* ints = nullptr;
  Reach* reach = nullptr;
  T *room = nullptr, *row;
  const T* first;
  AddRow<T, V> add;  // null: the first layer is gathered

  static T bias(const BranchLayer<T>& layer, int unit) { return layer.bias ? layer.bias[layer.channel[unit]] : T(0); }

  // The value of the plane above a unit of layer 0, at the corner; null where there is none.
  const T* above(const BranchLayer<T>& layer, int k, int oy, int ox, const T* in, const T* record, const Roles* roles,
                 const Mask<T> (&better)[V]) {
    if (!planes.any() || !some_above<V>(roles)) return nullptr;
    const int64_t unit = (int64_t(layer.channel[k]) * layer.g.oh + oy) * layer.g.ow + ox;
    return planes.at(unit, in, bias(layer, k), record, roles, better);
  }

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
        list_outputs<T, V>(list, layer, of[y], of[g.h + x]);
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
            descend<T, V, Planes::ALONE>(below.rest, a, bias(below, k), record, roles, to + below.at[k], sum);
        }
      }
    for (int v = 0; v < V; ++v) sum_[v] = sum[v];
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
    step.beside = planes.any() ? tile.beside : nullptr;
    if (step.beside) planes.spread(constants.sum[0]);
    if (add)
      scatter<T, V, OWN>(add, step, layer.window, layer.coef, tile.input, row, list, constants);
    else
      gather<T, V, OWN, true>(step, layer.window, layer.coef, tile.input, nullptr, list, constants);
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
