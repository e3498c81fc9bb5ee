// What the kernels of normalisation with a shortcut share with those that call them (norm_join.h).
#pragma once
#include <cstdint>

#include "half.h"
#include "norm_table.h"

namespace twofold {

// How a channel is normalised: y = slope (x - mean) + shift.
struct Affine {
  float mean, slope, shift;
};

// The same for all channels, one number each.
struct Affines {
  const float *mean, *slope, *shift;
};

// Maps of T, float or Half, computed with in float. `shortcut` may be absent, and y where there is no ReLU.
template <class T>
struct NormJoinKernels {
  // one channel of maps that lie channels first
  void (*moments)(const Channel&, const T* x, double* mean, double* variance);
  void (*forward)(const Channel&, const T* x, const T* shortcut, const Affine&, bool relu, T* y);
  // d = dy where y is positive, or NaN; sums[0] = sum d, sums[1] = sum d (x - mean)
  void (*gate)(const Channel&, const T* x, const T* y, const T* dy, float mean, T* d, double* sums);
  // dx = slope (d - even - along (x - mean))
  void (*backward)(const Channel&, const T* x, const T* d, const Affine&, float even, float along, T* dx);
  // rows of channels: maps that lie channels last. square: sum (x - mean)^2
  void (*row_moments)(int64_t rows, int64_t channels, const T* x, float* mean, float* square);
  void (*row_forward)(int64_t rows, int64_t channels, const T* x, const T* shortcut, const Affines&, bool relu, T* y);
  void (*row_gate)(int64_t rows, int64_t channels, const T* x, const T* y, const T* dy, const float* mean, T* d, float* even, float* along);
  void (*row_backward)(int64_t rows, int64_t channels, const T* x, const T* d, const Affines&, const float* even, const float* along, T* dx);
};

}  // namespace twofold
