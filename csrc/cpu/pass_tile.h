// What one pass is given, loaded for a tile of samples of one member: its box, what stands for the layers' activations,
// and its specification.
#pragma once

#include "cpu/ibp.h"
#include "cpu/tile.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class PassTile {
 public:
  PassTile(const PassArgs<T>& args, bool kept_) : a(args), kept(kept_) {}
  ~PassTile() {
    delete tile;
    delete plan_;
    free(layers), free(shapes), free(offsets), free(memory), free(lanes);
  }

  const Plan<T>& plan() {
    if (!plan_) {
      layers = zeroed<Layer<T>>(a.depth);
      shapes = zeroed<Geometry>(a.depth);
      offsets = zeroed<int64_t>(int64_t(a.depth) * Plan<T>::OFFSETS);
      for (int j = 0; j < a.depth; ++j) layers[j] = a.layers[j];
      const PassSpec<T> spec = {a.depth, layers, a.C != nullptr, a.C ? a.rows : 0, true};
      plan_ = new Plan<T>(spec, shapes, offsets, kept);
    }
    return *plan_;
  }

  // Takes all memory, `bytes` of it for whoever walks: they stand in `rest`.
  bool prepare(int64_t bytes) {
    const Plan<T>& plan = this->plan();
    int64_t widest = plan.g[0].inputs();
    for (int j = 0; j < a.depth; ++j) widest = larger(widest, plan.g[j].outputs());
    const int64_t spec = a.C ? int64_t(a.rows) * plan.g[plan.last()].outputs() : 0;
    memory = allocate<char>(Arena::size<char>(Tile<T>::bytes(plan)) + bytes);
    lanes = allocate<T>((4 * widest + spec) * L);
    if (!memory || !lanes) return false;
    spec_lanes = lanes + 4 * widest * L;
    rest = {memory + Arena::size<char>(Tile<T>::bytes(plan))};
    tile = new (std::nothrow) Tile<T>(plan, Arena{memory});
    return tile != nullptr;
  }

  // Whether it was another one before.
  bool load_member(int64_t p) {
    if (p == member) return false;
    member = p;
    for (int j = 0; j < a.depth; ++j) layers[j] = of_member(a.layers[j], p);
    return true;
  }

  void load_samples(int64_t p, int64_t b, int count) {
    const int n = a.layers[0].g.inputs();
    const int64_t at = p * a.box_stride + b * n;
    T *low = lanes, *up = low + int64_t(n) * L;
    load_lanes<T>(a.x_lower + at, a.x_upper + at, n, count, low, up);
    tile->load_box(low, up, n);
    for (int j = 0; j + 1 < a.depth; ++j) load_layer(j, p, b, count, 0);
    if (!a.C) return;
    const int size = a.rows * a.layers[a.depth - 1].g.outputs();
    load_lanes<T>(a.C + b * size, size, count, spec_lanes, size);
  }

  // Whether some layer has lines of its own for every row.
  bool lines_a_row() const {
    for (int j = 0; j + 1 < a.depth; ++j)
      if (a.inner[j].lines && a.inner[j].row) return true;
    return false;
  }

  // Those lines for one row; the other layers keep what they have.
  void load_lines(int64_t p, int64_t b, int count, int64_t row) {
    for (int j = 0; j + 1 < a.depth; ++j)
      if (a.inner[j].lines && a.inner[j].row) load_layer(j, p, b, count, row);
  }

  // The specification from a row on, [rows][outputs][lanes].
  const T* C(int64_t row) const { return spec_lanes + row * a.layers[a.depth - 1].g.outputs() * L; }

  // Bounds of layer j [outputs][lanes], as given.
  void bounds(int j, int64_t p, int64_t b, int count, T* low, T* up) const {
    const int n = a.layers[j].g.outputs();
    const int64_t at = (p * a.samples + b) * n;
    load_lanes<T>(a.inner[j].lower + at, a.inner[j].upper + at, n, count, low, up);
  }

  Tile<T>* tile = nullptr;
  Arena rest{nullptr};
  Layer<T>* layers = nullptr;  // of the loaded member

 private:
  static constexpr int L = LANES<T>;
  const PassArgs<T>& a;
  const bool kept;
  Plan<T>* plan_ = nullptr;
  Geometry* shapes = nullptr;
  int64_t* offsets = nullptr;
  char* memory = nullptr;
  T *lanes = nullptr, *spec_lanes = nullptr;
  int64_t member = -1;

  void load_layer(int j, int64_t p, int64_t b, int count, int64_t row) {
    const Inner<T>& inner = a.inner[j];
    const int n = a.layers[j].g.outputs();
    T *first = lanes, *second = first + int64_t(n) * L;
    if (inner.lines) {
      for (int half = 0; half < 2; ++half)  // sample by sample: they may share lines
        for (int s = 0; s < L; ++s) {
          const T* from = inner.lines + p * inner.member + (b + (s < count ? s : 0)) * inner.sample + row * inner.row;
          for (int64_t i = 0; i < 2 * int64_t(n); ++i) lanes[(half * 2 * n + i) * L + s] = from[half * 2 * n + i];
        }
      tile->load_lines(j, lanes);
    } else {
      if (a.layers[j].g.relu) bounds(j, p, b, count, first, second);
      tile->load_layer(j, first, second, a.rule);
    }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
