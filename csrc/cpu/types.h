// What crosses from Python to the CPU kernels: shapes and raw pointers, nothing of PyTorch.
#pragma once

#include <cstdint>

namespace glsk {

// One affine layer: a 2-D convolution, or a linear layer as a 1x1 convolution of a 1x1 image. The field order is that
// of glsk.geometry.Geometry.
struct Geometry {
  int cin, h, w, cout, oh, ow, kh, kw, sh, sw, ph, pw, relu;

  int inputs() const { return cin * h * w; }
  int outputs() const { return cout * oh * ow; }
  int64_t taps() const { return int64_t(cin) * kh * kw; }
};

// A linear layer that reads an image is the convolution whose kernel is the whole image: then every layer's inputs have
// the pixels and channels of the outputs before it. before: null for the first layer.
inline Geometry as_convolution(const Geometry& g, const Geometry* before) {
  if (before && g.cin == before->outputs() && g.h * g.w == 1 && before->oh * before->ow > 1)
    return {before->cout, before->oh, before->ow, g.cout, 1, 1, before->oh, before->ow, 1, 1, 0, 0, g.relu};
  return g;
}

template <class T>
struct Layer {
  Geometry g;
  T leak;                 // slope below zero of the activation that follows
  const T* weight;        // [members, cout, cin, kh, kw], each member contiguous
  int64_t weight_stride;  // from one member to the next, in elements
  const T* bias;          // [members, cout]; null reads as zeros
  int64_t bias_stride;
};

// Which lines around an activation are made from its bounds: CROWN's, DeepZ's parallel ones, or those of HBox's exact
// part (glsk/lines).
enum Rule { ADAPTIVE, PARALLEL, MASK };

// What a pass is given of a layer before its rows: lines, or bounds from which they are made, or neither where no
// activation follows.
template <class T>
struct Inner {
  const T* lower;  // [members, samples, outputs]
  const T* upper;
  const T* lines;               // [.., 4, outputs]: lower slope and intercept, upper slope and intercept
  int64_t member, sample, row;  // strides of lines; 0 where they are shared
};

// A back-substitution pass: bounds of the outputs of layers[depth - 1], or of C times them.
template <class T>
struct PassArgs {
  int members, samples, depth;
  const Layer<T>* layers;
  const Inner<T>* inner;  // [depth - 1]
  Rule rule;
  const T* x_lower;  // [members or 1, samples, inputs]
  const T* x_upper;
  int64_t box_stride;  // from one member's box to the next; 0 when they share it
  const T* C;          // [samples, rows, outputs], or null: the outputs themselves
  int rows;
  const T* known_lower;  // [members, samples, outputs] or null: rows these prove stable keep them
  const T* known_upper;
  T* lower;  // [members, samples, rows]
  T* upper;  // null: not wanted
  int threads;
};

// One interval step through an affine layer.
template <class T>
struct IbpArgs {
  int members, samples;
  Layer<T> layer;
  const T* in_lower;  // [members or 1, samples, inputs]
  const T* in_upper;
  int64_t in_stride;  // 0 when the members share the box
  bool relu;          // both ends pass an activation of slope in_leak below zero first
  T in_leak;
  T* lower;  // [members, samples, outputs]
  T* upper;
  int threads;
};

// How a chain's hidden layers and its output are bounded; the order of glsk.ops.chain_bounds.METHODS.
enum Method { IBP_METHOD, HBOX_METHOD, CROWN_IBP_METHOD, CROWN_METHOD, DEEPZ_METHOD, METHODS };

// The output of a whole chain, or C times it; the last layer is linear if there is a C.
template <class T>
struct ChainArgs {
  int members, samples, depth;
  const Layer<T>* layers;
  const T* x_lower;  // [samples, inputs], shared by the members
  const T* x_upper;
  const T* C;  // [samples, rows, outputs] or null
  int rows;    // outputs, if C is null
  Method method;
  bool prune;  // CROWN, DeepZ: rows that intervals from the layer before prove stable keep those bounds
  T* lower;    // [members, samples, rows]
  T* upper;    // null: not wanted
  T* hidden;   // [members, samples, 2, units of layers 0..depth-2] or null: their bounds, kept
  int threads;
};

// Where the gradients of one layer go; null: not wanted. All are contiguous; weight and bias hold zeros before.
template <class T>
struct LayerGradient {
  T* weight;  // [members, cout, cin, kh, kw]
  T* bias;    // [members, cout]
  T* lower;   // a pass: [members, samples, outputs] of the bounds that lines are made from
  T* upper;
  T* lines;                         // a pass: [members, samples, rows or 1, 4, outputs]
  bool inner, radius, own, merged;  // what the weights' share may come from: set by the kernel
};

template <class T>
struct PassGradientArgs {
  PassArgs<T> pass;  // its outputs are not touched
  const T* d_lower;  // [members, samples, rows]: the gradient of what is differentiated by the bounds
  const T* d_upper;  // null: none
  const LayerGradient<T>* layers;
  T* x_lower;  // [members or 1, samples, inputs] or null
  T* x_upper;
  T* C;        // [samples, rows, outputs] or null
  int groups;  // partial sums a member; fixed by the caller, since it decides the order of additions
};

template <class T>
struct ChainGradientArgs {
  ChainArgs<T> chain;  // its outputs are not touched; `hidden` may hold the bounds that the forward kept
  const T* d_lower;
  const T* d_upper;
  const T* d_hidden;  // as `hidden`, or null
  const LayerGradient<T>* layers;
  T* x_lower;  // [samples, inputs] or null
  T* x_upper;
  T* C;
  int groups;
};

// One interval step's gradient.
template <class T>
struct IbpGradientArgs {
  IbpArgs<T> step;
  const T* d_lower;
  const T* d_upper;
  LayerGradient<T> layer;
  T* in_lower;  // [members or 1, samples, inputs] or null
  T* in_upper;
  int groups;
};

// A pass whose rows have lower slopes of their own for every unstable unit, found by Adam from CROWN's; the best bound of
// any iteration counts. Only for rows of C.
template <class T>
struct OptimisedArgs {
  PassArgs<T> pass;
  int iterations;
  T rate, decay;  // the rate of iteration i is rate * decay^i
};

// Lower bounds of rows for subproblems of branch and bound: boxes of images, splits of hidden units, and duals (slopes of
// free unstable units, multipliers of split ones) found by Adam; one weight set. A problem is a row of a subproblem.
template <class T>
struct BranchArgs {
  int depth;
  const Layer<T>* layers;
  int64_t subproblems;
  int rows;
  int64_t units;     // of layers 0..depth-2, packed
  int64_t width;     // columns of splits, start, duals and coefficients: units, or as `columns` says
  const T* x_lower;  // [images, inputs]
  const T* x_upper;
  const T* lower;  // [images, units]
  const T* upper;
  const int64_t* index;    // [subproblems] their images, or null: one each
  const int8_t* splits;    // [parents, width] or null
  const T* C;              // [subproblems, rows, outputs]
  const T* start;          // [parents, rows, width] or null: CROWN's slopes
  const T* threshold;      // [subproblems, rows] or null
  const int64_t* parent;   // [subproblems] whose row of splits and start each has, or null: its own
  const int32_t* extra;    // [subproblems] a column more that is split, plus 1 (active) or minus that, from 0; or null
  const int64_t* columns;  // [images, width] the columns' units, ascending, `units` past the last; null: all units
  const T* planes;         // [images, outputs of layer 0, taps + 1] affine upper bounds of activations, or null
  int iterations;
  T rate_alpha, rate_beta, decay;
  T* bounds;        // [subproblems, rows]
  T* duals;         // [subproblems, rows, width] or null
  T* coefficients;  // the same; of free units
  T* corner;        // [subproblems, rows, inputs] or null
  int threads;
  bool beside = false;  // planes that are not given make a part of the rows, too
};

// Planes above units of layer 0, sought for rows of one subproblem each, with their duals (glsk/ops/plane_search.py).
template <class T>
struct PlaneSearchArgs {
  BranchArgs<T> rows;
  const int64_t* listed;  // [subproblems, most] units, ascending; no unit past the last
  int64_t most;
  T* shares;  // [subproblems, most, taps], from which to start, and the best
  T* lost;    // [subproblems, most]
  T rate_shares;
};

// Ascent by the signs of gradients within boxes (glsk/ops/sign_ascent.py).
template <class T>
struct AscentArgs {
  int members, samples, points, depth;  // points: of every sample
  const Layer<T>* layers;
  const T* start;        // [members or 1, samples, start_points, inputs]
  int64_t start_stride;  // from one member to the next; 0 where they share it
  int start_points;      // points, or 1: of every sample they start as one
  const T* lower;        // [members or 1, samples, inputs]
  const T* upper;
  int64_t box_stride;
  const T* rows;          // [samples, points, outputs], or null
  const int64_t* labels;  // [samples], without rows
  T step;
  int steps;
  T* out;  // [members, samples, points, inputs]
  int threads;
};

// The kernels of one instruction set. They return false when they cannot get scratch memory.
template <class T>
struct KernelsOf {
  bool (*pass)(const PassArgs<T>&);
  bool (*pass_backward)(const PassGradientArgs<T>&);
  bool (*ibp)(const IbpArgs<T>&);
  bool (*ibp_backward)(const IbpGradientArgs<T>&);
  bool (*chain)(const ChainArgs<T>&);
  bool (*chain_backward)(const ChainGradientArgs<T>&);
  bool (*optimised)(const OptimisedArgs<T>&);
  bool (*branch)(const BranchArgs<T>&);
  bool (*plane_search)(const PlaneSearchArgs<T>&);
  bool (*ascent)(const AscentArgs<T>&);
};

struct Kernels {
  const char* name;
  KernelsOf<float> f32;
  KernelsOf<double> f64;

  template <class T>
  const KernelsOf<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float))
      return f32;
    else
      return f64;
  }
};

}  // namespace glsk
