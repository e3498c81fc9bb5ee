// The kernels for processors with AVX512. Standard headers come before the target is raised: see lanes.h.
#include "table.h"
#if TWOFOLD_X86
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define TWOFOLD_SET avx512
#define TWOFOLD_LANES 16
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

const twofold::Kernels& twofold::avx512_kernels() {
  static const Kernels table{"avx512", avx512::max_pool, avx512::max_pool_backward, avx512::convolution_kernels,
      avx512::winograd_kernels, avx512::last::table, avx512::last::pointwise,
      avx512::norm_kernels, avx512::norm_join_kernels<float>, avx512::norm_join_kernels<Half>,
      avx512::pool_kernels, avx512::depthwise_kernels, avx512::dense_kernels,
      avx512::recurrence_kernels};
  return table;
}
#endif
