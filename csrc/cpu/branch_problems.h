// Which problems the lanes of a tile are, and what their columns of splits and duals stand for.
#pragma once

#include "cpu/branch_layer.h"

namespace glsk {
namespace GLSK_ISA {

// The columns of a layer, and which of them is a unit's (`count`: none), where all lanes have the same.
struct Span {
  int64_t begin, count;
  const int* place;  // [units of the layer]; null: every unit has a column
  int64_t of(int64_t unit) const {
    if (!place) return unit;
    return place[unit] < 0 ? count : place[unit] - begin;
  }
};

template <class T, int V>
class BranchProblems {
 public:
  static constexpr int L = LANES<T>, VL = V * L;

  explicit BranchProblems(const BranchArgs<T>& args) : a(args) {}
  ~BranchProblems() { free(place); }

  bool prepare() {
    place = allocate<int>(a.columns && a.units ? a.units : 1);
    return place;
  }

  // Problems q0 .. q0 + count; the lanes past them repeat the first.
  void number(int64_t q0, int count) {
    alike = true;
    for (int s = 0; s < VL; ++s) {
      problem[s] = q0 + (s < count ? s : 0);
      subproblem[s] = problem[s] / a.rows;
      image[s] = a.index ? a.index[subproblem[s]] : subproblem[s];
      parent[s] = a.parent ? a.parent[subproblem[s]] : subproblem[s];
      alike &= image[s] == image[0];
    }
    if (!a.columns || !alike || placed == image[0]) return;
    placed = image[0];
    const int64_t* columns = a.columns + placed * a.width;
    for (int64_t unit = 0; unit < a.units; ++unit) place[unit] = -1;
    for (int64_t k = 0; k < a.width && columns[k] < a.units; ++k) place[columns[k]] = int(k);
  }

  // Whether all lanes have the same columns.
  bool aligned() const { return !a.columns || alike; }

  // Those of a layer; by unit where lanes differ.
  Span span(const BranchLayer<T>& layer) const {
    const int64_t n = layer.g.outputs();
    if (!a.columns) return {layer.first, n, nullptr};
    if (!alike) return {0, n, nullptr};
    const int64_t* columns = a.columns + image[0] * a.width;
    const int64_t begin = first_column(columns, layer.first), end = first_column(columns, layer.first + n);
    return {begin, end - begin, place + layer.first};
  }

  // The first of an image's columns whose unit is no less. (The library's search would be shared by instruction sets.)
  int64_t first_column(const int64_t* columns, int64_t unit) const {
    int64_t k = 0;
    for (int64_t left = a.width; left;) {
      const int64_t half = left / 2;
      const bool less = columns[k + half] < unit;
      k += less ? half + 1 : 0;
      left = less ? left - half - 1 : half;
    }
    return k;
  }

  // body(lane, column, unit of the layer) of every column that is a unit of the layer.
  template <class Body>
  void each_column(const BranchLayer<T>& layer, const Body& body) const {
    const int64_t first = layer.first, end = first + layer.g.outputs();
    for (int s = 0; s < VL; ++s) {
      const int64_t* columns = a.columns + image[s] * a.width;
      for (int64_t k = first_column(columns, first); k < a.width && columns[k] < end; ++k)
        body(s, k, columns[k] - first);
    }
  }

  // Of `length` columns from `at` who is split; lanes of one parent that follow each other together.
  void mark_lanes(int64_t at, int64_t length, Roles* to) const {
    for (int s = 0, next; a.splits && s < VL; s = next) {
      uint32_t bits = 0;
      for (next = s; next < VL && next / L == s / L && parent[next] == parent[s]; ++next)
        bits |= uint32_t(1) << next % L;
      mark_splits<V>(a.splits + parent[s] * a.width + at, length, bits, to + s / L);
    }
  }

  // body(lane, unit of the layer, whether it is active) of the splits beside the parents'.
  template <class Body>
  void each_extra(const BranchLayer<T>& layer, const Body& body) const {
    for (int s = 0; a.extra && s < VL; ++s) {
      const int32_t extra = a.extra[subproblem[s]];
      if (!extra) continue;
      const int64_t column = (extra > 0 ? extra : -int64_t(extra)) - 1;
      const int64_t unit = (a.columns ? a.columns[image[s] * a.width + column] : column) - layer.first;
      if (unit >= 0 && unit < layer.g.outputs()) body(s, unit, extra > 0);
    }
  }

  // The plane above a unit of layer 0, its constant last. Tiles with planes are of one image.
  const T* plane_of(const Geometry& g, int64_t unit) const {
    return a.planes + (image[0] * g.outputs() + unit) * (g.taps() + 1);
  }
  bool has_plane(const Geometry& g, int64_t unit) const {
    const T constant = plane_of(g, unit)[g.taps()], most = T(__builtin_inf());
    return (constant < most) & (constant > -most);
  }

  const T* start_of(int s) const { return a.start + (parent[s] * a.rows + problem[s] % a.rows) * a.width; }
  int8_t split_of(int s, int64_t column) const { return a.splits ? a.splits[parent[s] * a.width + column] : int8_t(0); }

  const BranchArgs<T>& a;
  int64_t problem[VL], subproblem[VL], image[VL], parent[VL];
  bool alike = false;  // all lanes are of one image

 private:
  int* place = nullptr;  // [units] the columns of the image `placed`; -1: none
  int64_t placed = -1;
};

}  // namespace GLSK_ISA
}  // namespace glsk
