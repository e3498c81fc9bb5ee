// The kernels for processors with AVX2. Standard headers come before the target is raised: see lanes.h.
#include "table.h"
#if TWOFOLD_X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define TWOFOLD_SET avx2
#define TWOFOLD_LANES 8
#include "lanes.h"
#include "max_pool.h"
#include "vectors.h"
#include "frame.h"
#include "turned.h"
#include "by_width.h"
#include "by_filters.h"
#include "convolution.h"
#include "winograd_tiles.h"
#include "winograd_products.h"
#include "winograd.h"
#include "halves.h"
#include "winograd_last.h"
#include "pointwise.h"
#include "norm.h"
#include "norm_join.h"
#include "pools.h"
#include "dense.h"
#include "gates.h"
#include "recurrent_product.h"
#include "recurrent_outer.h"
#include "recurrence.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const twofold::Kernels& twofold::avx2_kernels() {
  static const Kernels table{"avx2", avx2::max_pool, avx2::max_pool_backward, avx2::convolution_kernels,
      avx2::winograd_kernels, avx2::last::table, avx2::last::pointwise,
      avx2::norm_kernels, avx2::norm_join_kernels<float>, avx2::norm_join_kernels<Half>,
      avx2::pool_kernels, avx2::depthwise_kernels, avx2::dense_kernels,
      avx2::recurrence_kernels};
  return table;
}
#endif
