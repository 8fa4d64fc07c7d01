// Which layers of a chain a method bounds by back-substitution, and the plans of those passes.
#pragma once

#include "cpu/ibp.h"
#include "cpu/tile.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainPlans {
 public:
  explicit ChainPlans(const ChainArgs<T>& args) : a(args) {}

  ~ChainPlans() {
    for (int k = 0; plans && k < a.depth; ++k) delete plans[k];
    delete tile;
    free(plans), free(layers), free(shapes), free(offsets), free(memory);
  }

  // kept: for gradients. pass_bytes(plan): what a pass takes of the memory that `take` hands out afterwards.
  template <class Bytes>
  bool prepare(bool kept, const Bytes& pass_bytes) {
    const int depth = a.depth;
    plans = zeroed<Plan<T>*>(depth);
    layers = zeroed<Layer<T>>(depth);
    shapes = zeroed<Geometry>(int64_t(depth) * depth);
    offsets = zeroed<int64_t>(int64_t(depth) * depth * Plan<T>::OFFSETS);
    if (!plans || !layers || !shapes || !offsets) return false;
    for (int j = 0; j < depth; ++j) layers[j] = a.layers[j];
    int64_t bytes = 0;
    for (int k = 0; k < depth; ++k) {
      if (!passed(k)) continue;
      const bool specified = k == depth - 1 && a.C;
      const PassSpec<T> spec = {k + 1, layers, specified, specified ? a.rows : 0, a.method != HBOX_METHOD};
      plans[k] = new (std::nothrow)
          Plan<T>(spec, shapes + int64_t(k) * depth, offsets + int64_t(k) * depth * Plan<T>::OFFSETS, kept);
      if (!plans[k]) return false;
      bytes += Arena::size<char>(pass_bytes(*plans[k]));
    }
    const Plan<T>* whole = plans[depth - 1];
    if (!whole) return true;
    bytes += Arena::size<char>(Tile<T>::bytes(*whole));
    memory = free_memory = allocate<char>(bytes);
    if (!memory) return false;
    tile = new (std::nothrow) Tile<T>(*whole, take(Tile<T>::bytes(*whole)));
    return tile != nullptr;
  }

  Arena take(int64_t bytes) {
    const Arena arena{free_memory};
    free_memory += Arena::size<char>(bytes);
    return arena;
  }

  // Whether layer k (the last: the output) is bounded by back-substitution; through one layer intervals do the same.
  bool passed(int k) const {
    if (a.method == IBP_METHOD || k == 0) return false;
    return k == a.depth - 1 || (a.method != CROWN_IBP_METHOD && a.layers[k].g.relu);
  }

  // Whether intervals go through layer k: the first one's do in every method.
  bool interval(int k) const {
    return k == 0 || a.method == IBP_METHOD || a.method == CROWN_IBP_METHOD || a.method == HBOX_METHOD;
  }

  Rule rule() const { return a.method == HBOX_METHOD ? MASK : a.method == DEEPZ_METHOD ? PARALLEL : ADAPTIVE; }

  void load_member(int64_t p) {
    for (int j = 0; j < a.depth; ++j) layers[j] = of_member(a.layers[j], p);
  }

  // The most units that a layer or the specification has.
  int64_t widest() const {
    int64_t most = a.rows;
    for (int j = 0; j < a.depth; ++j) most = larger(most, larger(a.layers[j].g.inputs(), a.layers[j].g.outputs()));
    return most;
  }

  // Units of the hidden layers, and of those before layer j.
  int64_t hidden_units(int j) const {
    int64_t units = 0;
    for (int i = 0; i < j; ++i) units += a.layers[i].g.outputs();
    return units;
  }

  // Samples b..b+count of C, [rows * outputs][lanes].
  void load_specification(int64_t b, int count, T* to) const {
    const int n = a.rows * layers[a.depth - 1].g.outputs();
    load_lanes<T>(a.C + b * n, n, count, to, n);
  }

  static constexpr int L = LANES<T>;
  const ChainArgs<T>& a;
  Layer<T>* layers = nullptr;  // of the loaded member
  Plan<T>** plans = nullptr;   // null where there is no pass
  Tile<T>* tile = nullptr;

 private:
  Geometry* shapes = nullptr;
  int64_t* offsets = nullptr;
  char *memory = nullptr, *free_memory = nullptr;
};

}  // namespace GLSK_ISA
}  // namespace glsk
