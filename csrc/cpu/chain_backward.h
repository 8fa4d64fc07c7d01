// The gradient of a whole relaxation of a whole network, a tile of samples at a time, from the hidden bounds that the
// forward kept. Layers are gone through from the last to the first: the lines of a layer are complete once every later
// pass has been differentiated, and only rows whose bounds have a gradient are walked again.
#pragma once

#include "cpu/chain_plans.h"
#include "cpu/ibp_backward.h"
#include "cpu/tile_pass_backward.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class ChainGradient {
 public:
  explicit ChainGradient(const ChainGradientArgs<T>& args) : d(args), a(args.chain), chain(args.chain) {}

  ~ChainGradient() {
    for (int k = 0; passes && k < a.depth; ++k) delete passes[k];
    free(passes), free(sums), free(places), free(lanes);
  }

  bool prepare() {
    passes = zeroed<PassGradient<T>*>(a.depth);
    sums = zeroed<LayerSums<T>>(a.depth);
    places = zeroed<Held>(a.depth);
    if (!passes || !sums || !places) return false;
    if (!chain.prepare(true, [](const Plan<T>& plan) { return PassGradient<T>::bytes(plan); })) return false;
    for (int k = 0; k < a.depth; ++k) {
      if (!chain.plans[k]) continue;
      const Plan<T>& plan = *chain.plans[k];
      passes[k] = new (std::nothrow) PassGradient<T>(plan, *chain.tile, chain.take(PassGradient<T>::bytes(plan)));
      if (!passes[k]) return false;
    }
    return prepare_lanes();
  }

  // Tiles t0..t1 of members p0..p1; sums_of(p, sums) says where a member's sums are.
  template <class SumsOf>
  void run(int64_t p0, int64_t p1, int64_t t0, int64_t t1, const SumsOf& sums_of) {
    for (int64_t t = t0; t < t1; ++t) {
      const int64_t b = t * L;
      const int count = a.samples - b < L ? int(a.samples - b) : L;
      load_samples(b, count);
      for (int64_t p = p0; p < p1; ++p) {
        sums_of(p, sums);
        load_member(p);
        load_bounds(p, b, count);
        output(count);
        for (int j = a.depth - 2; j >= 0; --j) hidden(j, count);
      }
      store_shared(b, count);
    }
  }

 private:
  static constexpr int L = LANES<T>, ROWS = 3;
  // Of one layer, [units][lanes]: its bounds and their gradients; centre and radius of the box of its inputs, as its
  // method propagates it; and its weights packed by input.
  struct Held {
    T *lower, *upper, *by_lower, *by_upper, *center, *radius, *packed;
  };

  const ChainGradientArgs<T>& d;
  const ChainArgs<T>& a;
  ChainPlans<T> chain;
  PassGradient<T>** passes = nullptr;
  LayerSums<T>* sums = nullptr;
  Held* places = nullptr;
  T* lanes = nullptr;
  T *spec_lanes, *by_C, *out_lower, *out_upper;  // the specification and the output's gradients
  T *by_center, *by_radius;    // by the box that reaches the layer after the present one
  T *mid_center, *mid_radius;  // by centre and radius of the present layer's outputs
  T *in_center, *in_radius;    // by those of the input
  T *rows_lanes, *by_rows;     // ROWS rows of C, and of the gradient by C times the last layer
  BoxSums<T> box_sums = {};
  int64_t member = -1;

  // ---- memory ----

  bool boxed() const { return d.x_lower || d.x_upper; }

  template <class Take>
  void lay_out(const Take& take) {
    const int depth = a.depth, last = depth - 1;
    const int64_t widest = chain.widest(), inputs = a.layers[0].g.inputs();
    for (int j = 0; j < depth; ++j) {
      const Geometry& g = a.layers[j].g;
      T** const some[] = {&places[j].lower, &places[j].upper, &places[j].by_lower, &places[j].by_upper};
      for (T** to : some)
        take(to, j < last ? int64_t(g.outputs()) * L : 0);
      T** const more[] = {&places[j].center, &places[j].radius};
      for (T** to : more) take(to, chain.interval(j) ? int64_t(g.inputs()) * L : 0);
      const bool passed_back = j ? chain.interval(j) : boxed();
      take(&places[j].packed, passed_back ? int64_t(g.kh) * g.kw * g.cout * gather_pitch(g) : 0);
      const bool lined = chain.plans[last] && j < last && g.relu && chain.rule() != MASK;
      sums[j].both = chain.rule() == PARALLEL;
      take(&sums[j].by_unit, lined ? int64_t(g.outputs()) * sums[j].quantities() * L : 0);
      take(&sums[j].by_sample, lined ? int64_t(g.outputs()) * sums[j].quantities() * L : 0);
    }
    const Geometry& g = a.layers[last].g;
    const int64_t spec = a.C ? int64_t(a.rows) * g.outputs() * L : 0;
    take(&spec_lanes, spec);
    take(&by_C, d.C ? spec : 0);
    T** const others[] = {&out_lower, &out_upper, &by_center, &by_radius, &mid_center, &mid_radius};
    for (T** to : others) take(to, widest * L);
    take(&rows_lanes, a.C ? ROWS * int64_t(g.outputs()) * L : 0);
    take(&by_rows, a.C ? ROWS * int64_t(g.inputs()) * L : 0);
    take(&box_sums.by_input, boxed() ? 2 * inputs * L : 0);
    take(&box_sums.by_sample, boxed() ? 2 * inputs * L : 0);
    T** const rest[] = {&in_center, &in_radius};
    for (T** to : rest) take(to, boxed() ? inputs * L : 0);
  }

  bool prepare_lanes() {
    int64_t total = 0;
    const auto rounded = [](int64_t n) { return (n + L - 1) / L * L; };
    lay_out([&](T**, int64_t n) { total += rounded(n); });
    lanes = allocate<T>(total);
    if (!lanes) return false;
    T* at = lanes;
    lay_out([&](T** to, int64_t n) {
      *to = n ? at : nullptr;
      at += rounded(n);
    });
    return true;
  }

  // ---- what a tile is given ----

  void load_member(int64_t p) {
    if (p == member) return;
    member = p;
    chain.load_member(p);
    for (int k = 0; k < a.depth; ++k) {
      if (passes[k]) passes[k]->load_member();
      const Geometry& g = a.layers[k].g;
      if (places[k].packed) pack_by_input<T>(g, chain.layers[k].weight, gather_pitch(g), places[k].packed);
    }
  }

  void load_samples(int64_t b, int count) {
    const int64_t n = a.layers[0].g.inputs();
    T *center = places[0].center, *radius = places[0].radius;
    load_lanes<T>(a.x_lower + b * n, a.x_upper + b * n, int(n), count, center, radius);
    if (chain.tile && a.method != HBOX_METHOD) chain.tile->load_box(center, radius, n);
    to_box<T, BOX>(center, radius, n, T(1), center, radius);
    if (chain.tile && a.method == HBOX_METHOD) {
      for (int64_t i = 0; i < n * L; i += L) store<T>(by_center + i, -load<T>(radius + i));
      chain.tile->load_box(by_center, radius, n);
    }
    if (a.C) chain.load_specification(b, count, spec_lanes);
    if (by_C) clear(by_C, int64_t(a.rows) * a.layers[a.depth - 1].g.outputs());
    if (boxed()) {
      clear(box_sums.by_input, 2 * n);
      clear(box_sums.by_sample, 2 * n);
      clear(in_center, n);
      clear(in_radius, n);
    }
  }

  static void clear(T* at, int64_t units) { memset(at, 0, sizeof(T) * units * L); }

  // The hidden bounds, the gradients that they and the output come with, and what follows from them.
  void load_bounds(int64_t p, int64_t b, int count) {
    const int last = a.depth - 1;
    const int64_t units = chain.hidden_units(last), row = (p * a.samples + b) * 2 * units;
    for (int j = 0; j < last; ++j) {
      const int n = a.layers[j].g.outputs();
      const Held& at = places[j];
      const int64_t from = row + chain.hidden_units(j);
      load_lanes<T>(a.hidden + from, a.hidden + from + units, n, count, at.lower, at.upper, 2 * units);
      if (d.d_hidden && a.layers[j].g.relu) {
        load_lanes<T>(d.d_hidden + from, d.d_hidden + from + units, n, count, at.by_lower, at.by_upper, 2 * units);
      } else {
        clear(at.by_lower, n);
        clear(at.by_upper, n);
      }
      if (chain.tile) chain.tile->load_layer(j, at.lower, at.upper, chain.rule());
      if (sums[j].by_unit) {
        clear(sums[j].by_unit, int64_t(n) * sums[j].quantities());
        clear(sums[j].by_sample, int64_t(n) * sums[j].quantities());
      }
      if (chain.interval(j + 1)) propagate(j);
    }
    const int64_t out = (p * a.samples + b) * a.rows;
    load_lanes<T>(d.d_lower + out, d.d_upper ? d.d_upper + out : d.d_lower + out, a.rows, count, out_lower, out_upper);
    if (!d.d_upper) clear(out_upper, a.rows);
  }

  // The box of layer j + 1's inputs, as the forward had it.
  void propagate(int j) {
    const Layer<T>& layer = chain.layers[j];
    const Held &at = places[j], &next = places[j + 1];
    const int64_t n = layer.g.outputs();
    if (a.method == HBOX_METHOD) {
      ibp_layer<T, BOX>(layer, at.center, at.radius, next.center, next.radius);
      if (j == 0) clear(next.radius, n);  // the input's radius is all exact
      if (!layer.g.relu) return;
      for (int64_t i = 0; i < n * L; i += L) {
        const Vec<T> l = load<T>(at.lower + i), u = load<T>(at.upper + i), low = l * layer.leak;
        const Vec<T> c = load<T>(next.center + i), r = load<T>(next.radius + i);
        store<T>(next.center + i, l >= 0 ? c : u <= 0 ? c * layer.leak : middle<T>(low, u));
        store<T>(next.radius + i, l >= 0 ? r : u <= 0 ? r * layer.leak : half_width<T>(low, u));
      }
    } else if (layer.g.relu) {
      to_box<T, BOX_AFTER_ACTIVATION>(at.lower, at.upper, n, layer.leak, next.center, next.radius);
    } else {
      ibp_layer<T, BOX>(layer, at.center, at.radius, next.center, next.radius);
    }
  }

  // ---- the output ----

  void output(int count) {
    const int last = a.depth - 1;
    const bool hbox = a.method == HBOX_METHOD;
    clear(by_center, a.layers[last].g.inputs());
    clear(by_radius, a.layers[last].g.inputs());
    if (!passes[last] || hbox) interval_output();
    if (!passes[last]) return;
    if (hbox)  // lower - radius, upper + radius, and the radius is minus the pass's lower bound
      for (int64_t i = 0; i < int64_t(a.rows) * L; i += L)
        store<T>(out_lower + i, load<T>(out_lower + i) - load<T>(out_upper + i));
    const T* by_upper = hbox || !d.d_upper ? nullptr : out_upper;
    if (a.C)
      passes[last]->specification(spec_lanes, a.rows, out_lower, by_upper, sums, box_sums, by_C);
    else
      passes[last]->layer(out_lower, by_upper, count, sums, box_sums);
  }

  void interval_output() {
    const int last = a.depth - 1;
    if (!a.C) {
      by_bounds_to_box<T>(out_lower, out_upper, a.layers[last].g.outputs(), mid_center, mid_radius);
      through_layer(last);
      return;
    }
    for (int row = 0; row < a.rows; row += ROWS) interval_rows(row);
    if (last == 0) add_input();
  }

  // ROWS rows of C W from `first` on, over the box of the last (linear) layer's inputs.
  void interval_rows(int first) {
    const int last = a.depth - 1;
    const Layer<T>& layer = chain.layers[last];
    const Geometry& g = layer.g;
    const int64_t inputs = g.inputs();
    const int outputs = g.outputs();
    for (int v = 0; v < ROWS; ++v) {
      const int64_t row = first + v;
      const bool there = row < a.rows;
      const Vec<T> zero = {}, low = there ? load<T>(out_lower + row * L) : zero, up = there ? load<T>(out_upper + row * L) : zero;
      for (int k = 0; k < outputs; ++k)
        store<T>(rows_lanes + (k * ROWS + v) * L, there ? load<T>(spec_lanes + (row * outputs + k) * L) : zero);
      for (int64_t i = 0; i < inputs; ++i) interval_input(layer.weight + i, inputs, outputs, i, v, low + up, up - low);
      if (sums[last].bias)
        for (int k = 0; k < outputs; ++k) {
          T* to = sums[last].bias + k * L;
          store<T>(to, load<T>(to) + load<T>(rows_lanes + (k * ROWS + v) * L) * (low + up));
        }
      if (by_C && there) add_interval_C(layer, row, v, low + up);
    }
    const Window out = {0, 1, 0, 1}, in = {0, g.h, 0, g.w};
    const int64_t pixels = int64_t(g.h) * g.w;
    if (sums[last].weight)
      Outer<T, ROWS>(g, {rows_lanes, out, g.cout * ROWS, ROWS}, {by_rows, in, ROWS, pixels * ROWS}).add_to(sums[last].weight);
  }

  // Input i of row v: its merged coefficient m, and what follows by m, by the input's centre and by its radius.
  GLSK_INLINE void interval_input(const T* w, int64_t pitch, int outputs, int64_t i, int v, Vec<T> by_middle,
                                  Vec<T> by_spread) {
    const Held& at = places[a.depth - 1];
    Vec<T> m = {}, zero = {};
    for (int k = 0; k < outputs; ++k) m += w[k * pitch] * load<T>(rows_lanes + (k * ROWS + v) * L);
    const Vec<T> c = load<T>(at.center + i * L), r = load<T>(at.radius + i * L);
    store<T>(by_rows + (i * ROWS + v) * L, by_middle * c + by_spread * (m < 0 ? -r : m > 0 ? r : zero));
    store<T>(by_center + i * L, load<T>(by_center + i * L) + by_middle * m);
    store<T>(by_radius + i * L, load<T>(by_radius + i * L) + by_spread * absolute<T>(m));
  }

  void add_interval_C(const Layer<T>& layer, int64_t row, int v, Vec<T> by_middle) {
    const int64_t inputs = layer.g.inputs(), outputs = layer.g.outputs();
    for (int64_t k = 0; k < outputs; ++k) {
      Vec<T> sum = by_middle * (layer.bias ? layer.bias[k] : T(0));
      for (int64_t i = 0; i < inputs; ++i) sum += layer.weight[k * inputs + i] * load<T>(by_rows + (i * ROWS + v) * L);
      T* to = by_C + (row * outputs + k) * L;
      store<T>(to, load<T>(to) + sum);
    }
  }

  // ---- a hidden layer ----

  void hidden(int j, int count) {
    const Layer<T>& layer = chain.layers[j];
    const Held& at = places[j];
    if (layer.g.relu && sums[j].by_unit) add_lines(j);
    if (a.method == HBOX_METHOD) {
      hbox_layer(j, count);
    } else if (chain.interval(1)) {  // as the method does in every layer
      if (layer.g.relu)
        activation_backward<T>(at.lower, at.upper, layer.leak, layer.g.outputs(), by_center, by_radius, at.by_lower,
                               at.by_upper);
      interval_layer(j);
    } else if (layer.g.relu && j) {
      passes[j]->layer(at.by_lower, at.by_upper, count, sums, box_sums);
    } else if (layer.g.relu) {
      interval_layer(0);
    }
  }

  // The gradients by layer j's lines, which every pass after it has added to, become gradients by its bounds.
  void add_lines(int j) {
    const Geometry& g = a.layers[j].g;
    const Held& at = places[j];
    const int64_t pixels = int64_t(g.oh) * g.ow, q = sums[j].quantities(), pitch = g.outputs() * q;
    const Vec<T> zero = {};
    for (int64_t pixel = 0; pixel < pixels; ++pixel)
      for (int c = 0; c < g.cout; ++c) {
        const int64_t from = (pixel * g.cout + c) * q, unit = (c * pixels + pixel) * L;
        Vec<T> by[4];
        for (int i = 0; i < q; ++i) {
          by[i] = load<T>(sums[j].by_unit + (from + i) * L);
          for (int s = 0; s < L; ++s) by[i][s] += sums[j].by_sample[s * pitch + from + i];
        }
        Vec<T> by_l, by_u;
        relax_gradient<T>(load<T>(at.lower + unit), load<T>(at.upper + unit), a.layers[j].leak, chain.rule(),
                          q == 4 ? by[0] : zero, by[q - 2], by[q - 1], by_l, by_u);
        store<T>(at.by_lower + unit, load<T>(at.by_lower + unit) + by_l);
        store<T>(at.by_upper + unit, load<T>(at.by_upper + unit) + by_u);
      }
  }

  // From the bounds, or where no activation follows from the box that reaches the next layer, through layer j.
  void interval_layer(int j) {
    const Held& at = places[j];
    const int64_t n = a.layers[j].g.outputs();
    if (a.layers[j].g.relu) {
      by_bounds_to_box<T>(at.by_lower, at.by_upper, n, mid_center, mid_radius);
    } else {
      memcpy(mid_center, by_center, sizeof(T) * n * L);
      memcpy(mid_radius, by_radius, sizeof(T) * n * L);
    }
    through_layer(j);
  }

  // Layer j of a hybrid zonotope: its bounds are centre -/+ (uncorrelated radius + radius of the exact part).
  void hbox_layer(int j, int count) {
    const Layer<T>& layer = chain.layers[j];
    const Held& at = places[j];
    const int64_t n = layer.g.outputs();
    for (int64_t i = 0; i < n * L; i += L) {
      Vec<T> c = load<T>(by_center + i), r = load<T>(by_radius + i), exact = {};
      if (layer.g.relu) {
        const Vec<T> l = load<T>(at.lower + i), u = load<T>(at.upper + i), zero = {}, one = broadcast<T>(1);
        const Mask<T> unstable = (l < 0) & (u > 0);
        const Vec<T> by_l = load<T>(at.by_lower + i) + (unstable ? (c - r) * (layer.leak / 2) : zero);
        const Vec<T> by_u = load<T>(at.by_upper + i) + (unstable ? (c + r) * T(0.5) : zero);
        const Vec<T> slope = unstable ? zero : l >= 0 ? one : broadcast<T>(layer.leak);
        exact = by_u - by_l;
        c = c * slope + by_l + by_u;
        r = r * slope + exact;
      }
      store<T>(mid_center + i, c);
      store<T>(mid_radius + i, j ? r : exact);
      store<T>(at.by_lower + i, -exact);
    }
    if (j && layer.g.relu) passes[j]->layer(at.by_lower, nullptr, count, sums, box_sums);
    through_layer(j);
  }

  // ---- an interval step ----

  // From mid_center and mid_radius by layer j's weights and, in by_center and by_radius, by the box of its inputs.
  void through_layer(int j) {
    const Held& at = places[j];
    const Geometry& g = a.layers[j].g;
    ibp_layer_weights<T>(g, mid_center, mid_radius, at.center, at.radius, sums[j]);
    if (at.packed) ibp_layer_inputs<T>(g, at.packed, mid_center, mid_radius, by_center, by_radius);
    if (j == 0) add_input();
  }

  void add_input() {
    if (!boxed()) return;
    for (int64_t i = 0; i < int64_t(a.layers[0].g.inputs()) * L; i += L) {
      store<T>(in_center + i, load<T>(in_center + i) + load<T>(by_center + i));
      store<T>(in_radius + i, load<T>(in_radius + i) + load<T>(by_radius + i));
    }
  }

  // ---- what all members add to ----

  void store_shared(int64_t b, int count) {
    if (boxed()) store_box(b, count);
    if (!by_C) return;
    const int n = a.rows * a.layers[a.depth - 1].g.outputs();
    store_rows<T>(by_C, n, count, d.C + b * n);
  }

  void store_box(int64_t b, int count) {
    const int64_t n = a.layers[0].g.inputs();
    T *to_lower = places[0].center, *to_upper = places[0].radius;  // the tile is done with them
    for (int64_t i = 0; i < n; ++i) {
      Vec<T> low = load<T>(box_sums.by_input + 2 * i * L), up = load<T>(box_sums.by_input + (2 * i + 1) * L);
      for (int s = 0; s < L; ++s) {
        low[s] += box_sums.by_sample[s * 2 * n + 2 * i];
        up[s] += box_sums.by_sample[s * 2 * n + 2 * i + 1];
      }
      Vec<T> c = load<T>(in_center + i * L), r = load<T>(in_radius + i * L);
      if (a.method == HBOX_METHOD) {  // its passes go over [-radius, radius]
        r += up - low;
        low = up = Vec<T>{};
      }
      store<T>(to_lower + i * L, low + (c - r) * T(0.5));
      store<T>(to_upper + i * L, up + (c + r) * T(0.5));
    }
    if (d.x_lower) store_rows<T>(to_lower, int(n), count, d.x_lower + b * n);
    if (d.x_upper) store_rows<T>(to_upper, int(n), count, d.x_upper + b * n);
  }
};

template <class T>
bool run_chain_backward(const ChainGradientArgs<T>& d) {
  const ChainArgs<T>& a = d.chain;
  const bool together = d.x_lower || d.x_upper || d.C;
  Crew<ChainGradient<T>, ChainGradientArgs<T>> crew(d, a.threads, a.threads);
  LayerGradient<T>* wanted = zeroed<LayerGradient<T>>(a.depth);
  if (!crew.ready || !wanted) {
    free(wanted);
    return false;
  }
  const ChainPlans<T> plans(a);
  for (int j = 0; j < a.depth; ++j) {
    wanted[j] = d.layers[j];
    wanted[j].inner = true;
    wanted[j].radius = plans.interval(j) && !(j == a.depth - 1 && a.method == CROWN_IBP_METHOD);
    wanted[j].own = plans.passed(j) && !(j == a.depth - 1 && a.C);
  }
  const bool done =
      run_groups<T>(a.members, a.samples, d.groups, together, a.threads, a.layers, wanted, a.depth,
                       [&](int thread, int64_t p0, int64_t p1, int64_t t0, int64_t t1, const auto& sums_of) {
                         crew[thread].run(p0, p1, t0, t1, sums_of);
                       });
  free(wanted);
  return done;
}

}  // namespace GLSK_ISA
}  // namespace glsk
