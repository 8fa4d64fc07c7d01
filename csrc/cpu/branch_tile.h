// A tile of subproblems of branch and bound, V vectors of them, a lane a row of a subproblem: its box, its hidden units,
// its rows.
#pragma once

#include "cpu/branch_layer.h"
#include "cpu/packed.h"

namespace glsk {
namespace GLSK_ISA {

template <class T, int V>
class BranchTile {
 public:
  static constexpr int L = LANES<T>, VL = V * L;

  explicit BranchTile(const BranchArgs<T>& args) : a(args) {}
  ~BranchTile() { free(layers), free(numbers), free(values), free(roles), free(alive), free(marks), free(kinds); }

  bool prepare() {
    layers = zeroed<BranchLayer<T>>(a.depth);
    int64_t ints = 0, reals = 0, duals = 0, widest = 0, units = 0;
    for (int j = 0; j < a.depth; ++j) {
      const Geometry& g = a.layers[j].g;
      const int64_t n = g.outputs(), pixels = int64_t(g.oh) * g.ow;
      ints += 2 * pixels + 1 + 3 * (n + 8);
      reals += n * VL + larger(g.taps() * g.cout, 1);
      widest = larger(widest, n);
      if (j + 1 < a.depth) duals += n, units += n;
    }
    const Geometry& g0 = a.layers[0].g;
    const int64_t inputs = g0.inputs();
    reals += duals * FIELDS * VL + 3 * widest * VL + 3 * inputs * VL;
    numbers = allocate<int>(ints);
    values = allocate<T>(reals);
    roles = allocate<Roles>(duals * V);
    marks = allocate<Roles>(widest * V);
    kinds = allocate<Kind>(widest);
    alive = allocate<uint64_t>(int64_t(g0.oh) * g0.ow * words_of(g0.cout));
    if (!layers || !numbers || !values || !roles || !marks || !kinds || !alive) return false;
    int* n = numbers;
    T* x = values;
    Roles* r = roles;
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
      if (!layer.last) {
        layer.record = take(x, outputs * FIELDS * VL);
        layer.roles = take(r, outputs * V);
        layer.first = units;
        units += outputs;
      }
    }
    low = take(x, widest * VL);
    up = take(x, widest * VL);
    started = take(x, widest * VL);
    ends = take(x, 2 * inputs * VL);
    corner = take(x, inputs * VL);
    for (int j = 0; j < a.depth; ++j) {
      layers[j].weight = take(x, a.layers[j].g.taps() * a.layers[j].g.cout);
      pack_by_input<T>(layers[j].g, a.layers[j].weight, layers[j].g.cin, layers[j].weight);
    }
    return true;
  }

  // Problems q0 .. q0 + count; the lanes past them repeat the first.
  void load_problems(int64_t q0, int count) {
    for (int s = 0; s < VL; ++s) {
      problem[s] = q0 + (s < count ? s : 0);
      subproblem[s] = problem[s] / a.rows;
      image[s] = a.index ? a.index[subproblem[s]] : subproblem[s];
    }
    load_rows_of_C();
    if (a.depth == 1) mark_alive(layers[0]);
    for (int j = a.depth - 1; j > 0; --j) {
      layers[j - 1].window = with_splits(layers[j - 1], inputs_of(layers[j].g, layers[j].window));
      load_layer(j - 1);
    }
    input = inputs_of(layers[0].g, layers[0].window);
    load_box();
  }

  const BranchArgs<T>& a;
  BranchLayer<T>* layers = nullptr;
  int64_t problem[VL], subproblem[VL], image[VL];
  Window input;
  T *ends, *corner;   // [inputs][V][2][LANES]; [inputs][V][LANES]
  uint64_t* alive = nullptr;  // of layer 0, as Step has it
  T* low;             // [widest][V][LANES], room for what is loaded or stored

 private:
  int* numbers = nullptr;
  T *values = nullptr, *up, *started;  // as low
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
    if (!a.splits || !g.relu || w.pixels() == g.oh * g.ow) return w;
    for (int s = 0; s < VL; ++s) {
      const int8_t* split = a.splits + subproblem[s] * a.units + layer.first;
      for (int c = 0; c < g.cout; ++c)
        for (int y = 0; y < g.oh; ++y)
          for (int x = 0; x < g.ow; ++x)
            if (*split++) w = covering(w, y, x);
    }
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
    for (int64_t unit = 0; unit < outputs; ++unit) kinds[unit] = some(unit) ? PLAIN : DEAD;
    fill_layer<T, V>(layer, kinds,
                     [&](int64_t unit, T* coef, int64_t) { memcpy(coef, low + unit * VL, sizeof(T) * VL); });
  }

  void load_layer(int j) {
    BranchLayer<T>& layer = layers[j];
    const Geometry& g = layer.g;
    const Window& w = layer.window;
    const int64_t pixels = int64_t(g.oh) * g.ow, n = g.outputs();
    if (!g.relu) {
      memset(kinds, PLAIN, n);
      fill_layer<T, V>(layer, kinds, [](int64_t, T*, int64_t) {});
    } else {
      // Contiguous pieces: all of it, or rows of the window.
      const bool whole = w.pixels() == pixels;
      const int64_t pieces = whole ? 1 : int64_t(g.cout) * (w.y1 - w.y0), length = whole ? n : w.width();
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t from =
            whole ? 0 : (i / (w.y1 - w.y0) * g.oh + w.y0 + i % (w.y1 - w.y0)) * g.ow + w.x0;
        load_piece(layer, from, length);
      }
      fill_layer<T, V>(layer, kinds, [&](int64_t unit, T*, int64_t dual) {
        make_record<T, V>(low + unit * VL, up + unit * VL, marks + unit * V, a.start ? started + unit * VL : nullptr,
                          1 - layer.rest, layer.record + dual * FIELDS * VL, layer.roles + dual * V);
      });
    }
    if (j == 0) mark_alive(layer);
  }

  void load_piece(const BranchLayer<T>& layer, int64_t from, int64_t length) {
    const int64_t units = a.units, at = layer.first + from;
    load_some([&](int s) { return a.lower + image[s] * units; }, at, length, low + from * VL, VL);
    load_some([&](int s) { return a.upper + image[s] * units; }, at, length, up + from * VL, VL);
    if (a.start)
      load_some([&](int s) { return a.start + problem[s] * units; }, at, length, started + from * VL, VL);
    Roles* to = marks + from * V;
    for (int64_t i = 0; i < length * V; ++i) to[i] = {0, 0, 0};
    for (int s = 0; a.splits && s < VL; ++s)
      mark_splits<V>(a.splits + subproblem[s] * units + at, length, uint32_t(1) << s % L, to + s / L);
    for (int64_t i = from; i < from + length; ++i)
      kinds[i] = kind_of<T, V>(low + i * VL, up + i * VL, marks + i * V, layer.rest != 1);
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
