// One recurrent layer with its directions: what forward (bind_recurrence.cpp), backward (recurrence_back.cpp),
// the node of autograd (recurrence_node.cpp) and streams (recurrence_stream.cpp) share.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "row_order.h"
#include "recurrence_table.h"

namespace twofold {

// The weights of one direction by place, undefined where there are none; then what is drawn anew for every call.
enum Part { kInputWeight, kStateWeight, kInputBias, kStateBias, kPeephole, kInputNorm, kStateNorm, kCellNorm, kCellNormBias, kParts };
enum Noise { kMask, kZoneH, kZoneC, kNoises };
// What forward leaves for backward, per direction.
enum Kept { kGates, kCell, kRawCell, kQ, kProduct, kMoments, kCellMoments, kRawInput, kInputMoments, kKept };

struct Layer {
  CellKind kind;
  int64_t T, B, D, U, directions;
  double keep_h, keep_c;
  bool reduced;        // products of bfloat16
  RowOrder rows;
  const int64_t* starts() const { return rows.starts.const_data_ptr<int64_t>(); }
  int64_t all_rows() const { return starts()[T]; }
  int64_t gates() const { return gates_of(kind); }
  bool has_cell() const { return kind == CellKind::lstm || kind == CellKind::coupled; }
};

using Tensors = std::vector<at::Tensor>;

struct Result {
  at::Tensor y;      // (N, directions U)
  Tensors state;     // h (directions, B, U) and perhaps c
  Tensors kept;      // directions * kKept
};

// Raise ValueError for weights that the kernels would read beyond their end.
void check_floats(const at::Tensor& x, at::IntArrayRef size, const char* name);
void check_weights(CellKind kind, int64_t D, int64_t U, const at::Tensor* w);

Result recurrence_forward(const Layer& layer, const at::Tensor& x, const Tensors& state, const Tensors& weights, const Tensors& noise);

struct Gradients {
  at::Tensor x;
  Tensors state, weights;
};

// dy (N, directions U) and dstate are contiguous; with_x, with_weights: what is wanted.
Gradients recurrence_backward(const Layer& layer, const at::Tensor& dy, const Tensors& dstate, const at::Tensor& x, const Tensors& state,
    const at::Tensor& y, const Tensors& weights, const Tensors& noise, const Tensors& kept, bool with_x, bool with_weights);

}  // namespace twofold
