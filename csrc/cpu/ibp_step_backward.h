// The gradient of one interval step for every (member, sample).
#pragma once

#include "cpu/ibp_backward.h"

namespace glsk {
namespace GLSK_ISA {

template <class T>
class IbpGradientWorker {
 public:
  explicit IbpGradientWorker(const IbpGradientArgs<T>& args) : d(args), a(args.step) {}
  ~IbpGradientWorker() { free(lanes); }

  bool prepare() {
    const Geometry& g = a.layer.g;
    const int64_t n = g.inputs() * int64_t(L), m = g.outputs() * int64_t(L);
    packed_size = int64_t(g.kh) * g.kw * g.cout * gather_pitch(g);
    lanes = allocate<T>(8 * n + 2 * m + packed_size);
    T* at = lanes;
    T** const some[] = {&lower, &upper, &center, &radius, &in_center, &in_radius, &sum_lower, &sum_upper};
    for (T** to : some) {
      *to = at;
      at += n;
    }
    T** const more[] = {&by_center, &by_radius};
    for (T** to : more) {
      *to = at;
      at += m;
    }
    packed = at;
    return lanes;
  }

  template <class SumsOf>
  void run(int64_t p0, int64_t p1, int64_t t0, int64_t t1, const SumsOf& sums_of) {
    const Geometry& g = a.layer.g;
    const int64_t n = g.inputs(), m = g.outputs();
    const bool boxed = d.in_lower || d.in_upper;
    for (int64_t t = t0; t < t1; ++t) {
      const int64_t b = t * L;
      const int count = a.samples - b < L ? int(a.samples - b) : L;
      for (int64_t p = p0; p < p1; ++p) {
        LayerSums<T> sums = {};
        sums_of(p, &sums);
        const Layer<T> layer = of_member(a.layer, p);
        const int64_t in = p * a.in_stride + b * n, out = (p * a.samples + b) * m;
        load_lanes<T>(a.in_lower + in, a.in_upper + in, int(n), count, lower, upper);
        a.relu ? to_box<T, BOX_AFTER_ACTIVATION>(lower, upper, n, a.in_leak, center, radius)
               : to_box<T, BOX>(lower, upper, n, T(1), center, radius);
        load_lanes<T>(d.d_lower + out, d.d_upper + out, int(m), count, by_center, by_radius);
        by_bounds_to_box<T>(by_center, by_radius, m, by_center, by_radius);
        ibp_layer_weights<T>(g, by_center, by_radius, center, radius, sums);
        if (!boxed) continue;
        pack_by_input<T>(g, layer.weight, gather_pitch(g), packed);
        ibp_layer_inputs<T>(g, packed, by_center, by_radius, in_center, in_radius);
        if (p == p0 || a.in_stride) {
          memset(sum_lower, 0, sizeof(T) * n * L);
          memset(sum_upper, 0, sizeof(T) * n * L);
        }
        activation_backward<T>(lower, upper, a.relu ? a.in_leak : T(1), n, in_center, in_radius, sum_lower, sum_upper);
        if (p + 1 < p1 && !a.in_stride) continue;
        if (d.in_lower) store_rows<T>(sum_lower, int(n), count, d.in_lower + in);
        if (d.in_upper) store_rows<T>(sum_upper, int(n), count, d.in_upper + in);
      }
    }
  }

 private:
  static constexpr int L = LANES<T>;
  const IbpGradientArgs<T>& d;
  const IbpArgs<T>& a;
  int64_t packed_size = 0;
  T *lanes = nullptr, *lower, *upper, *center, *radius, *in_center, *in_radius, *sum_lower, *sum_upper, *by_center,
    *by_radius, *packed;
};

template <class T>
bool run_ibp_backward(const IbpGradientArgs<T>& d) {
  const IbpArgs<T>& a = d.step;
  const bool together = (d.in_lower || d.in_upper) && !a.in_stride;
  Crew<IbpGradientWorker<T>, IbpGradientArgs<T>> crew(d, a.threads, a.threads);
  if (!crew.ready) return false;
  LayerGradient<T> wanted = d.layer;
  wanted.inner = wanted.radius = true;
  return run_groups<T>(a.members, a.samples, d.groups, together, a.threads, &a.layer, &wanted, 1,
                       [&](int thread, int64_t p0, int64_t p1, int64_t t0, int64_t t1, const auto& sums_of) {
                         crew[thread].run(p0, p1, t0, t1, sums_of);
                       });
}

}  // namespace GLSK_ISA
}  // namespace glsk
