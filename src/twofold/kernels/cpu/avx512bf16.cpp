// Products of bfloat16, Winograd's and those of recurrence, for processors with AVX512_BF16. Standard headers come before the target is raised: see lanes.h.
#include "table.h"
#if TWOFOLD_BF16
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

#define TWOFOLD_SET avx512bf16
#define TWOFOLD_LANES 16
#define TWOFOLD_DEEP 2
#include "vectors.h"
#include "frame.h"
#include "turned.h"
#include "winograd_tiles.h"
#include "winograd_products.h"
#include "winograd.h"
#include "halves.h"
#include "winograd_last.h"
#include "pointwise.h"
#include "floats.h"
#include "gates.h"
#include "recurrent_product.h"
#include "recurrent_outer.h"
#include "recurrence.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const twofold::WinogradKernels& twofold::avx512bf16_winograd() {
  static const WinogradKernels table = avx512bf16::winograd_kernels;
  return table;
}

const twofold::WinogradTable<twofold::Half>& twofold::avx512bf16_winograd_last() {
  static const WinogradTable<Half> table = avx512bf16::last::table;
  return table;
}

const twofold::PointwiseTable<twofold::Half>& twofold::avx512bf16_pointwise() {
  static const PointwiseTable<Half> table = avx512bf16::last::pointwise;
  return table;
}

const twofold::RecurrenceKernels& twofold::avx512bf16_recurrence() {
  static const RecurrenceKernels table = avx512bf16::recurrence_kernels;
  return table;
}
#endif
