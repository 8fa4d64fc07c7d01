// A tile of subproblems of branch and bound, V vectors of them, a lane a row of a subproblem: its box, its hidden units,
// its rows.
#pragma once

#include "cpu/branch_problems.h"
#include "cpu/packed.h"

namespace glsk {
namespace GLSK_ISA {

template <class T, int V>
class BranchTile : public BranchProblems<T, V> {
  using Problems = BranchProblems<T, V>;

 public:
  using Problems::L, Problems::VL, Problems::a, Problems::problem, Problems::image, Problems::alike;
  using Problems::span, Problems::split_of, Problems::start_of, Problems::mark_lanes;

  explicit BranchTile(const BranchArgs<T>& args) : Problems(args) {}
  ~BranchTile() { free(layers), free(numbers), free(values), free(roles), free(alive), free(marks), free(kinds); }

  bool prepare() {
    if (!Problems::prepare()) return false;
    layers = zeroed<BranchLayer<T>>(a.depth);
    int64_t ints = 0, reals = 0, duals = 0, widest = 0, units = 0, kinds_ = 0;
    for (int j = 0; j < a.depth; ++j) {
      const Geometry& g = a.layers[j].g;
      const int64_t n = g.outputs(), pixels = int64_t(g.oh) * g.ow;
      ints += 2 * pixels + 1 + 3 * (n + 8);
      reals += n * VL + larger(g.taps() * g.cout, 1);
      widest = larger(widest, n);
      kinds_ += n;
      if (j + 1 < a.depth) duals += n, units += n;
    }
    const Geometry& g0 = a.layers[0].g;
    const int64_t inputs = g0.inputs();
    reals += duals * FIELDS * VL + (3 * widest + 1) * VL + (a.planes || a.beside ? 4 : 3) * inputs * VL;
    numbers = allocate<int>(ints);
    values = allocate<T>(reals);
    roles = allocate<Roles>(duals * V);
    marks = allocate<Roles>((widest + 1) * V);
    kinds = allocate<Kind>(kinds_ + widest);
    alive = allocate<uint64_t>(int64_t(g0.oh) * g0.ow * words_of(g0.cout));
    if (!layers || !numbers || !values || !roles || !marks || !kinds || !alive) return false;
    int* n = numbers;
    T* x = values;
    Roles* r = roles;
    Kind* kind = kinds + widest;
    units = 0;
    const auto take = [](auto*& from, int64_t count) {
      auto* at = from;
      from += count;
      return at;
    };
    for (int j = 0; j < a.depth; ++j) {
      BranchLayer<T>& layer = layers[j];
      const Geometry& g = layer.g = a.layers[j].g;
      const int64_t outputs = g.outputs(), pixels = int64_t(g.oh) * g.ow;
      layer.last = j + 1 == a.depth;
      layer.rest = 1 - a.layers[j].leak;
      layer.bias = a.layers[j].bias;
      layer.begin = take(n, pixels + 1);
      layer.plain = take(n, pixels);
      layer.channel = take(n, outputs + 8);
      layer.at = take(n, outputs + 8);
      layer.row = take(n, outputs + 8);
      layer.coef = take(x, outputs * VL);
      layer.kinds = take(kind, outputs);
      if (!layer.last) {
        layer.record = take(x, outputs * FIELDS * VL);
        layer.roles = take(r, outputs * V);
        layer.first = units;
        units += outputs;
      }
    }
    low = take(x, widest * VL);
    up = take(x, widest * VL);
    started = take(x, (widest + 1) * VL);
    ends = take(x, 2 * inputs * VL);
    corner = take(x, inputs * VL);
    beside = a.planes || a.beside ? take(x, inputs * VL) : nullptr;
    for (int j = 0; j < a.depth; ++j) {
      layers[j].weight = take(x, a.layers[j].g.taps() * a.layers[j].g.cout);
      pack_by_input<T>(layers[j].g, a.layers[j].weight, layers[j].g.cin, layers[j].weight);
    }
    return true;
  }

  // Problems q0 .. q0 + count; the lanes past them repeat the first.
  void load_problems(int64_t q0, int count) {
    Problems::number(q0, count);
    load_rows_of_C();
    if (a.depth == 1) mark_alive(layers[0]);
    for (int j = a.depth - 1; j > 0; --j) {
      layers[j - 1].window = with_splits(layers[j - 1], inputs_of(layers[j].g, layers[j].window));
      load_layer(j - 1);
    }
    input = inputs_of(layers[0].g, layers[0].window);
    load_box();
  }

  BranchLayer<T>* layers = nullptr;
  Window input;
  T *ends, *corner;           // [inputs][V][2][LANES]; [inputs][V][LANES]
  T* beside;                  // as corner: what planes make of the rows; null without planes
  uint64_t* alive = nullptr;  // of layer 0, as Step has it
  T* low;                     // [widest][V][LANES], room for what is loaded or stored

 private:
  int* numbers = nullptr;
  T *values = nullptr, *up, *started;  // as low, and one more
  Roles *roles = nullptr, *marks = nullptr;
  Kind* kinds = nullptr;

  // Rows [n] that start `offset` after each lane's, to [n][V][LANES].
  template <class Row>
  void load_some(const Row& row_of, int64_t offset, int64_t n, T* to, int64_t pitch) const {
    for (int v = 0; v < V; ++v) {
      const T* rows[L];
      for (int s = 0; s < L; ++s) rows[s] = row_of(v * L + s) + offset;
      load_rows<T>(rows, n, to + v * (pitch / V), pitch);
    }
  }

  // A split counts, with its multiplier, even where no row depends on its unit.
  Window with_splits(const BranchLayer<T>& layer, Window w) const {
    const Geometry& g = layer.g;
    if (!(a.splits || a.extra) || !g.relu || w.pixels() == g.oh * g.ow) return w;
    const auto cover = [&](int64_t unit) { w = covering(w, int(unit / g.ow % g.oh), int(unit % g.ow)); };
    Problems::each_extra(layer, [&](int, int64_t unit, bool) { cover(unit); });
    if (a.columns) {
      Problems::each_column(layer, [&](int s, int64_t column, int64_t unit) {
        if (split_of(s, column)) cover(unit);
      });
      return w;
    }
    for (int s = 0; s < VL; ++s)
      for (int64_t unit = 0; unit < g.outputs(); ++unit)
        if (split_of(s, layer.first + unit)) cover(unit);
    return w;
  }

  static Window covering(const Window& w, int y, int x) {
    if (!w.pixels()) return {y, y + 1, x, x + 1};
    return {y < w.y0 ? y : w.y0, y < w.y1 ? w.y1 : y + 1, x < w.x0 ? x : w.x0, x < w.x1 ? w.x1 : x + 1};
  }

  // The window of a layer's outputs on which any row stands, and which of them do.
  void load_rows_of_C() {
    BranchLayer<T>& layer = layers[a.depth - 1];
    const Geometry& g = layer.g;
    const int64_t outputs = g.outputs(), pixels = int64_t(g.oh) * g.ow;
    load_some([&](int s) { return a.C + problem[s] * outputs; }, 0, outputs, low, VL);
    Window w = {};
    const auto some = [&](int64_t unit) {
      Mask<T> found = {};
      for (int v = 0; v < V; ++v) found |= load<T>(low + (unit * V + v) * L) != 0;
      return any<T>(found);
    };
    for (int c = 0; c < g.cout; ++c)
      for (int y = 0; y < g.oh; ++y)
        for (int x = 0; x < g.ow; ++x)
          if (some(c * pixels + int64_t(y) * g.ow + x)) w = covering(w, y, x);
    layer.window = w.pixels() ? w : Window{0, 1, 0, 1};
    for (int64_t unit = 0; unit < outputs; ++unit) layer.kinds[unit] = some(unit) ? PLAIN : DEAD;
    fill_layer<T, V>(layer, [&](int64_t unit, T* coef) { memcpy(coef, low + unit * VL, sizeof(T) * VL); });
  }

  void load_layer(int j) {
    BranchLayer<T>& layer = layers[j];
    const Geometry& g = layer.g;
    const Window& w = layer.window;
    const int64_t n = g.outputs();
    const bool whole = w.pixels() == int64_t(g.oh) * g.ow;
    if (g.relu) {
      memset(marks, 0, sizeof(Roles) * n * V);
      // Contiguous pieces: all of it, or rows of the window.
      const int64_t pieces = whole ? 1 : int64_t(g.cout) * (w.y1 - w.y0), length = whole ? n : w.width();
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t from = whole ? 0 : (i / (w.y1 - w.y0) * g.oh + w.y0 + i % (w.y1 - w.y0)) * g.ow + w.x0;
        load_piece(layer, from, length);
      }
      if (a.columns) alike ? load_span(layer) : load_columns(layer);
      load_extra(layer);
    } else {
      memset(kinds, PLAIN, n);
    }
    // Tiles of one image have the same lists, mostly.
    if (!(whole && layer.known && !memcmp(layer.kinds, kinds, sizeof(Kind) * n))) {
      memcpy(layer.kinds, kinds, sizeof(Kind) * n);
      layer.known = whole;
      fill_layer<T, V>(layer, [](int64_t, T*) {});
      if (j == 0) mark_alive(layer);
    }
    const Span at = span(layer);
    each_record<T, V>(layer, [&](T* record, Roles* of, int64_t unit) {
      const int64_t slot = at.of(unit), packed = image[0] * a.units + layer.first + unit;
      const Roles* splits = marks + slot * V;
      const T *start = a.start ? started + slot * VL : nullptr, leak = 1 - layer.rest;
      const bool plane = !j && a.planes && Problems::has_plane(layer.g, unit);
      if (alike) {
        T l[L], u[L];
        store<T>(l, broadcast<T>(a.lower[packed]));
        store<T>(u, broadcast<T>(a.upper[packed]));
        make_record<T, V>(l, u, 0, splits, start, leak, plane, record, of);
      } else {
        make_record<T, V>(low + unit * VL, up + unit * VL, L, splits, start, leak, plane, record, of);
      }
    });
  }

  // Some units' bounds and kinds; and their duals and splits, where every unit has a column.
  void load_piece(const BranchLayer<T>& layer, int64_t from, int64_t length) {
    const int64_t units = a.units, at = layer.first + from;
    const bool leaky = layer.rest != 1;
    if (!a.columns) {
      if (a.start) load_some([&](int s) { return start_of(s); }, at, length, started + from * VL, VL);
      mark_lanes(at, length, marks + from * V);
    }
    if (alike) {
      const T *l = a.lower + image[0] * units + at, *u = a.upper + image[0] * units + at;
      for (int64_t i = 0; i < length; ++i) kinds[from + i] = kind_of<T>(l[i], u[i], leaky);
      if (a.columns || !a.splits) return;
      for (int64_t i = from; i < from + length; ++i)
        for (int v = 0; v < V; ++v)
          if (marks[i * V + v].active | marks[i * V + v].inactive) kinds[i] = DUALS;
      return;
    }
    load_some([&](int s) { return a.lower + image[s] * units; }, at, length, low + from * VL, VL);
    load_some([&](int s) { return a.upper + image[s] * units; }, at, length, up + from * VL, VL);
    for (int64_t i = from; i < from + length; ++i)
      kinds[i] = kind_of<T, V>(low + i * VL, up + i * VL, marks + i * V, leaky);
  }

  // The duals and splits of columns that all lanes have, by column. A unit without one starts from 0.
  void load_span(const BranchLayer<T>& layer) {
    const Span at = span(layer);
    memset(started + at.count * VL, 0, sizeof(T) * VL);
    if (a.start) load_some([&](int s) { return start_of(s); }, at.begin, at.count, started, VL);
    mark_lanes(at.begin, at.count, marks);
    const int64_t* columns = a.columns + image[0] * a.width + at.begin;
    for (int64_t k = 0; k < at.count; ++k)
      for (int v = 0; v < V; ++v)
        if (marks[k * V + v].active | marks[k * V + v].inactive) kinds[columns[k] - layer.first] = DUALS;
  }

  // The splits that subproblems have beside their parents'.
  void load_extra(const BranchLayer<T>& layer) {
    const Span at = span(layer);
    Problems::each_extra(layer, [&](int s, int64_t unit, bool active) {
      const int64_t slot = at.of(unit);
      Roles& to = marks[slot * V + s / L];
      const uint32_t bit = uint32_t(1) << s % L;
      to.active = active ? to.active | bit : to.active & ~bit;
      to.inactive = active ? to.inactive & ~bit : to.inactive | bit;
      started[slot * VL + s] = 0;
      kinds[unit] = DUALS;
    });
  }

  // The duals and splits of columns, by unit. A unit without one starts from 0.
  void load_columns(const BranchLayer<T>& layer) {
    if (a.start) memset(started, 0, sizeof(T) * layer.g.outputs() * VL);
    Problems::each_column(layer, [&](int s, int64_t column, int64_t unit) {
      if (a.start) started[unit * VL + s] = start_of(s)[column];
      const int8_t split = split_of(s, column);
      if (!split) return;
      Roles& to = marks[unit * V + s / L];
      (split > 0 ? to.active : to.inactive) |= uint32_t(1) << s % L;
      kinds[unit] = DUALS;
    });
  }

  void mark_alive(const BranchLayer<T>& layer) {
    const Geometry& g = layer.g;
    const Window& w = layer.window;
    const int words = words_of(g.cout);
    memset(alive, 0, sizeof(uint64_t) * g.oh * g.ow * words);
    for (int pixel = 0; pixel < w.pixels(); ++pixel) {
      uint64_t* to = alive + (int64_t(w.y0 + pixel / w.width()) * g.ow + w.x0 + pixel % w.width()) * words;
      for (int i = layer.begin[pixel]; i < layer.begin[pixel + 1]; ++i)
        to[layer.channel[i] / 64] |= uint64_t(1) << layer.channel[i] % 64;
    }
  }

  void load_box() {
    const Geometry& g = layers[0].g;
    const int64_t n = g.inputs();
    const bool whole = input.pixels() == g.h * g.w;
    const int height = input.y1 - input.y0;
    const int64_t pieces = whole ? 1 : int64_t(g.cin) * height, length = whole ? n : input.width();
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t from = whole ? 0 : (i / height * g.h + input.y0 + i % height) * g.w + input.x0;
      load_some([&](int s) { return a.x_lower + image[s] * n; }, from, length, ends + from * 2 * VL, 2 * VL);
      load_some([&](int s) { return a.x_upper + image[s] * n; }, from, length, ends + from * 2 * VL + L, 2 * VL);
    }
  }
};

}  // namespace GLSK_ISA
}  // namespace glsk
