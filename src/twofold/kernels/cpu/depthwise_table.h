// Depthwise convolution: one map, its filters (neighbours in memory) and the rows that are wanted, per call. Frames: see pools_table.h.
#pragma once
#include <cstdint>

#include "pools_table.h"

namespace twofold {

constexpr int64_t kSums = 16;  // the gradient of a weight is summed in so many parts

struct DepthwiseKernels {
  // weight: (filters, kh, kw); bias: one per filter, or none; y: (filters, P, Q)
  void (*forward)(const Window&, const MapFrame&, int64_t filters, Rows, const float* x, const float* weight, const float* bias, float* y,
      float* frame);
  void (*input_gradient)(const Window&, const WindowFrame&, int64_t filters, Rows, const float* dy, const float* weight, float* dx,
      float* frame);
  // Adds to sums, kSums parts for each of a filter's taps and then for its bias.
  void (*weight_gradient)(
      const Window&, const MapFrame&, int64_t filters, Rows, const float* x, const float* dy, float* sums, float* frame);
};

}  // namespace twofold
