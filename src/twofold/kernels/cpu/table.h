// What the kernels share: the geometry of a sliding window and, per instruction set, a table of compiled functions.
#pragma once
#include <cstdint>

#include "convolution_table.h"
#include "dense_table.h"
#include "depthwise_table.h"
#include "norm_join_table.h"
#include "norm_table.h"
#include "pools_table.h"
#include "recurrence_table.h"

namespace twofold {

// H W map, P Q output, kh kw taps, sh sw stride, top left padding, dh dw dilation. A tap's number is i * kw + j.
struct Window {
  int64_t H, W, P, Q, kh, kw, sh, sw, top, left, dh, dw;
};

// Maps lie behind each other, row by row. `winner` holds the tap that won, in tap_bytes (1 or 4) each; 0: winners are not wanted.
struct Kernels {
  const char* instruction_set;
  void (*max_pool)(const Window&, int64_t maps, const float* x, float* y, void* winner, int tap_bytes);
  // offset[k] is where tap k lies relative to the window's first tap, in elements of the map.
  void (*max_pool_backward)(
      const Window&, int64_t maps, const float* dy, const void* winner, int tap_bytes, const int64_t* offset, float* dx);
  ConvolutionKernels convolution;
  WinogradKernels winograd, winograd_last;
  PointwiseTable<float> pointwise;
  NormKernels norm;
  NormJoinKernels<float> norm_join;
  NormJoinKernels<Half> norm_join_half;
  PoolKernels pools;
  DepthwiseKernels depthwise;
  DenseKernels dense;
  RecurrenceKernels recurrence;
};

const Kernels& base_kernels();
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define TWOFOLD_X86 1
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

}  // namespace twofold
