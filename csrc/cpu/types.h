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
};

template <class T>
struct Layer {
  Geometry g;
  const T* weight;         // [members, cout, cin, kh, kw], each member contiguous
  int64_t weight_stride;   // from one member to the next, in elements
  const T* bias;           // [members, cout]; null reads as zeros
  int64_t bias_stride;
  const T* lower;          // [members, samples, outputs] bounds of its outputs; null where no ReLU reads them
  const T* upper;
};

// A back-substitution pass: bounds of the outputs of layers[depth - 1], or of C times them.
template <class T>
struct PassArgs {
  int members, samples, depth;
  const Layer<T>* layers;
  const T* x_lower;        // [members or 1, samples, inputs]
  const T* x_upper;
  int64_t box_stride;      // from one member's box to the next; 0 when they share it
  const T* C;              // [samples, rows, outputs], or null: the outputs themselves
  int rows;
  const T* known_lower;    // [members, samples, outputs] or null: rows these prove stable keep them
  const T* known_upper;
  T* lower;                // [members, samples, rows]; for an HBox pass, the radius
  T* upper;                // null: not wanted
  bool hbox;               // through stable-active ReLUs only; the result is |J| r
  int threads;
};

// One interval step through an affine layer.
template <class T>
struct IbpArgs {
  int members, samples;
  Geometry g;
  const T* weight;
  int64_t weight_stride;
  const T* bias;
  int64_t bias_stride;
  const T* in_lower;       // [members or 1, samples, inputs]
  const T* in_upper;
  int64_t in_stride;       // 0 when the members share the box
  bool relu;               // clamp both ends at zero first
  T* lower;                // [members, samples, outputs]
  T* upper;
  int threads;
};

// How a chain's hidden layers and its output are bounded.
enum Method { IBP_METHOD, HBOX_METHOD, CROWN_IBP_METHOD, CROWN_METHOD };

// The output of a whole chain, or C times it; the last layer is linear if there is a C.
template <class T>
struct ChainArgs {
  int members, samples, depth;
  const Layer<T>* layers;  // without bounds
  const T* x_lower;        // [samples, inputs], shared by the members
  const T* x_upper;
  const T* C;              // [samples, rows, outputs] or null
  int rows;                // outputs, if C is null
  Method method;
  bool prune;              // CROWN: rows that intervals from the layer before prove stable keep the intervals' bounds
  T* lower;                // [members, samples, rows]
  T* upper;                // null: not wanted
  int threads;
};

// The kernels of one instruction set. Those that need scratch memory return false when they cannot get it.
struct Kernels {
  const char* name;
  bool (*pass_f32)(const PassArgs<float>&);
  bool (*pass_f64)(const PassArgs<double>&);
  bool (*ibp_f32)(const IbpArgs<float>&);
  bool (*ibp_f64)(const IbpArgs<double>&);
  bool (*chain_f32)(const ChainArgs<float>&);
  bool (*chain_f64)(const ChainArgs<double>&);
};

}  // namespace glsk
