// What the kernels of a linear layer share with those that call them (dense.h).
#pragma once
#include <cstdint>

namespace twofold {

struct DenseKernels {
  void (*forward)(int64_t rows, int64_t D, int64_t units, const float* x, const float* weight, const float* bias, bool relu, float* y);
  void (*backward)(int64_t rows, int64_t D, int64_t units, const float* dy, const float* x, const float* weight, float* dx, float* dweight,
      float* dbias);
};

}  // namespace twofold
