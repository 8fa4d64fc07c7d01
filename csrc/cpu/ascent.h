// Sign ascent (glsk/ops/sign_ascent.py): a tile of points, one a lane, takes all its steps while its network lies in cache.
#pragma once

#include "cpu/ascent_layer.h"
#include "cpu/ibp.h"
#include "cpu/subnormals.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class AscentTile {
 public:
  explicit AscentTile(const AscentArgs<T>& args) : a(args) {}

  ~AscentTile() { free(layers), free(memory), free(ins), free(outs); }

  bool prepare() {
    layers = zeroed<AscentLayer<T>>(a.depth);
    ins = zeroed<T*>(a.depth);
    outs = zeroed<T*>(a.depth);
    if (!layers || !ins || !outs) return false;
    int64_t size = 0;
    for (int k = 0; k < a.depth; ++k) {
      new (&layers[k]) AscentLayer<T>(a.layers[k]);
      size += (layers[k].in.size() + layers[k].out.size()) * L + rounded(layers[k].packed_size());
    }
    const Geometry& first = a.layers[0].g;
    const AscentLayer<T>& last = layers[a.depth - 1];
    size += (3 * int64_t(first.inputs()) + last.in.size()) * L;
    memory = allocate<T>(size);
    if (!memory) return false;
    memset(memory, 0, sizeof(T) * size);  // margins stay so
    T* free_ = memory;
    const auto take = [&](int64_t n) {
      T* at = free_;
      free_ += n;
      return at;
    };
    for (int k = 0; k < a.depth; ++k) {
      ins[k] = take(layers[k].in.size() * L);
      outs[k] = take(layers[k].out.size() * L);
      T* packed = take(rounded(layers[k].packed_size()));
      layers[k].packed = packed;
    }
    lower = take(int64_t(first.inputs()) * L);
    upper = take(int64_t(first.inputs()) * L);
    length = take(int64_t(first.inputs()) * L);
    constant = take(last.in.size() * L);
    return true;
  }

  void load_member(int64_t p) {
    if (p == member) return;
    member = p;
    for (int k = 0; k < a.depth; ++k) {
      layers[k].layer = of_member(a.layers[k], p);
      if (!layers[k].matrix)
        pack_by_input<T>(layers[k].layer.g, layers[k].layer.weight, gather_pitch(layers[k].layer.g),
                         const_cast<T*>(layers[k].packed));
    }
  }

  // Points t0 .. t0 + count of the present member, numbered through its samples.
  void run(int64_t t0, int count) {
    load_points(t0, count);
    for (int step = 0; step < a.steps; ++step) {
      const int depth = a.rows ? a.depth - 1 : a.depth;
      for (int k = 0; k < depth; ++k) forward(k);
      if (!a.rows) by_logits(t0, count);
      backward(depth);
    }
    store_points(t0, count);
  }

 private:
  static constexpr int L = LANES<T>;

  const AscentArgs<T>& a;
  AscentLayer<T>* layers = nullptr;
  T* memory = nullptr;
  T** ins = nullptr;   // inputs of each layer
  T** outs = nullptr;  // gradients by its outputs, before the activation; of the last layer by the logits
  T *lower, *upper, *length;
  T* constant;  // of rows: the gradient by the last layer's inputs
  int64_t member = -1;

  static int64_t rounded(int64_t n) { return (n + L - 1) / L * L; }

  static GLSK_INLINE Vec<T> activated(Vec<T> v, T leak) { return v > 0 ? v : leak * v; }

  void forward(int k) {
    const AscentLayer<T>& one = layers[k];
    if (k == a.depth - 1) {
      T* to = outs[k];
      one.forward(ins[k],
                  [&](int c, int y, int x, Vec<T> v) GLSK_LAMBDA_INLINE { store<T>(to + one.out.at(c, y, x) * L, v); });
      return;
    }
    const Image next = layers[k + 1].in;
    T* to = ins[k + 1];
    const bool relu = one.layer.g.relu;
    const T leak = one.layer.leak;
    one.forward(ins[k], [&](int c, int y, int x, Vec<T> v)
                            GLSK_LAMBDA_INLINE { store<T>(to + next.at(c, y, x) * L, relu ? activated(v, leak) : v); });
  }

  // From the gradient by the logits, or by the last layer's inputs, to the points, which take their step.
  void backward(int depth) {
    if (depth < a.depth) {
      if (depth)
        masked(depth, constant);
      else
        moved_by(constant);
    }
    for (int k = depth - 1; k > 0; --k) {
      const Image in = layers[k].in, to = layers[k - 1].out;
      const Layer<T>& before = layers[k - 1].layer;
      const T* after = ins[k];
      T* by = outs[k - 1];
      layers[k].backward(outs[k], [&](int c, int y, int x, Vec<T> d) GLSK_LAMBDA_INLINE {
        store<T>(by + to.at(c, y, x) * L, through(before, load<T>(after + in.at(c, y, x) * L), d));
      });
    }
    if (depth) layers[0].backward(outs[0], [&](int c, int y, int x, Vec<T> d) GLSK_LAMBDA_INLINE { move(c, y, x, d); });
  }

  static GLSK_INLINE Vec<T> through(const Layer<T>& before, Vec<T> after, Vec<T> d) {
    return !before.g.relu || before.leak == 1 ? d : after > 0 ? d : before.leak * d;
  }

  // Gradients by the inputs of layer k to those by the outputs of the layer before.
  void masked(int k, const T* by_in) {
    const Geometry& g = layers[k].layer.g;
    const Image in = layers[k].in, to = layers[k - 1].out;
    for (int c = 0; c < g.cin; ++c)
      for (int y = 0; y < g.h; ++y)
        for (int x = 0; x < g.w; ++x) {
          const int64_t at = in.at(c, y, x) * L;
          store<T>(outs[k - 1] + to.at(c, y, x) * L,
                   through(layers[k - 1].layer, load<T>(ins[k] + at), load<T>(by_in + at)));
        }
  }

  void moved_by(const T* by_in) {
    const Geometry& g = layers[0].layer.g;
    for (int c = 0; c < g.cin; ++c)
      for (int y = 0; y < g.h; ++y)
        for (int x = 0; x < g.w; ++x) move(c, y, x, load<T>(by_in + layers[0].in.at(c, y, x) * L));
  }

  GLSK_INLINE void move(int c, int y, int x, Vec<T> d) {
    const Geometry& g = a.layers[0].g;
    T* at = ins[0] + layers[0].in.at(c, y, x) * L;
    const int64_t unit = ((int64_t(c) * g.h + y) * g.w + x) * L;
    const Vec<T> by = load<T>(length + unit), low = load<T>(lower + unit), high = load<T>(upper + unit);
    const Vec<T> zero = {};
    Vec<T> z = load<T>(at) + (d > 0 ? by : d < 0 ? -by : zero);
    z = z < low ? low : z;
    store<T>(at, z > high ? high : z);
  }

  // The gradient of the cross-entropy, in place of the logits: softmax, minus 1 for the true class, in units of the
  // largest other's softmax, so that none vanishes.
  void by_logits(int64_t t0, int count) {
    const AscentLayer<T>& last = layers[a.depth - 1];
    const Geometry& g = last.layer.g;
    T* logits = outs[a.depth - 1];
    int64_t label[L];
    for (int s = 0; s < L; ++s) label[s] = s < count ? a.labels[(t0 + s) / a.points] : -1;
    const auto each = [&](const auto& body) {
      int64_t k = 0;
      for (int c = 0; c < g.cout; ++c)
        for (int y = 0; y < g.oh; ++y)
          for (int x = 0; x < g.ow; ++x, ++k)
            for (int s = 0; s < L; ++s) body(s, k == label[s], logits[last.out.at(c, y, x) * L + s]);
    };
    T most[L], total[L] = {};
    for (int s = 0; s < L; ++s) most[s] = -T(__builtin_inf());
    each([&](int s, bool own, T& v) { most[s] = !own && !(v <= most[s]) ? v : most[s]; });
    each([&](int s, bool own, T& v) {
      if (!own) total[s] += v = exponential(v - most[s]);
    });
    each([&](int s, bool own, T& v) { v = own ? -total[s] : v; });
  }

  static float exponential(float x) { return __builtin_expf(x); }
  static double exponential(double x) { return __builtin_exp(x); }

  // ---- to lanes and back ----

  // Rows of n numbers, one a lane; lanes beyond `count` repeat the last row.
  static void to_lanes(const T* const (&from)[L], int64_t n, T* to) {
    for (int64_t i0 = 0; i0 < n; i0 += L) {
      const int width = n - i0 < L ? int(n - i0) : L;
      Vec<T> m[L];
      if (width == L) {
#pragma GCC unroll 16
        for (int s = 0; s < L; ++s) m[s] = load<T>(from[s] + i0);
      } else {
        for (int s = 0; s < L; ++s) {
          m[s] = Vec<T>{};
          memcpy(&m[s], from[s] + i0, width * sizeof(T));
        }
      }
      transpose<T>(m);
      for (int i = 0; i < width; ++i) store<T>(to + (i0 + i) * L, m[i]);
    }
  }

  void load_points(int64_t t0, int count) {
    const Geometry& g = a.layers[0].g;
    const int64_t n = g.inputs();
    const T *low[L], *high[L], *from[L];
    for (int s = 0; s < L; ++s) {
      const int64_t t = t0 + (s < count ? s : count - 1), sample = t / a.points;
      low[s] = a.lower + member * a.box_stride + sample * n;
      high[s] = a.upper + member * a.box_stride + sample * n;
      from[s] = a.start + member * a.start_stride + (a.start_points > 1 ? t : sample) * n;
    }
    to_lanes(low, n, lower);
    to_lanes(high, n, upper);
    to_lanes(from, n, length);
    for (int c = 0; c < g.cin; ++c)
      for (int y = 0; y < g.h; ++y)
        for (int x = 0; x < g.w; ++x) {
          const int64_t unit = ((int64_t(c) * g.h + y) * g.w + x) * L;
          store<T>(ins[0] + layers[0].in.at(c, y, x) * L, load<T>(length + unit));
          store<T>(length + unit, a.step * half_width<T>(load<T>(lower + unit), load<T>(upper + unit)));
        }
    if (a.rows) load_rows(t0, count);
  }

  // The rows' gradient by the last layer's inputs.
  void load_rows(int64_t t0, int count) {
    const AscentLayer<T>& last = layers[a.depth - 1];
    const Geometry& g = last.layer.g;
    const int64_t k = g.outputs();
    for (int s = 0; s < L; ++s) {
      const T* from = a.rows + (t0 + (s < count ? s : count - 1)) * k;
      for (int c = 0; c < g.cout; ++c)
        for (int y = 0; y < g.oh; ++y)
          for (int x = 0; x < g.ow; ++x) outs[a.depth - 1][last.out.at(c, y, x) * L + s] = *from++;
    }
    last.backward(outs[a.depth - 1], [&](int c, int y, int x, Vec<T> d)
                                         GLSK_LAMBDA_INLINE { store<T>(constant + last.in.at(c, y, x) * L, d); });
  }

  void store_points(int64_t t0, int count) {
    const Geometry& g = a.layers[0].g;
    for (int c = 0; c < g.cin; ++c)
      for (int y = 0; y < g.h; ++y)
        for (int x = 0; x < g.w; ++x)
          store<T>(length + ((int64_t(c) * g.h + y) * g.w + x) * L, load<T>(ins[0] + layers[0].in.at(c, y, x) * L));
    const int64_t n = g.inputs();
    store_rows<T>(length, int(n), count, a.out + (member * a.samples * a.points + t0) * n);
  }
};

template <class T>
bool run_ascent(const AscentArgs<T>& a) {
  const int64_t points = int64_t(a.samples) * a.points, tiles = (points + LANES<T> - 1) / LANES<T>;
  Crew<AscentTile<T>, AscentArgs<T>> crew(a, tiles * a.members, a.threads);
  if (!crew.ready) return false;
  parallel_ranges(crew.threads, tiles * a.members, [&](int thread, int64_t first, int64_t last) {
    const NoSubnormals flushed;
    AscentTile<T>& tile = crew[thread];
    for (int64_t task = first; task < last; ++task) {
      const int64_t t0 = task % tiles * LANES<T>;
      tile.load_member(task / tiles);
      tile.run(t0, points - t0 < LANES<T> ? int(points - t0) : LANES<T>);
    }
  });
  return true;
}

}  // namespace GLSK_ISA
}  // namespace glsk
