// The kernels for every machine.
#include "table.h"

#define TWOFOLD_SET base
#define TWOFOLD_LANES 4
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

const twofold::Kernels& twofold::base_kernels() {
  static const Kernels table{"base", base::max_pool, base::max_pool_backward, base::convolution_kernels,
      base::winograd_kernels, base::last::table, base::last::pointwise,
      base::norm_kernels, base::norm_join_kernels<float>, base::norm_join_kernels<Half>,
      base::pool_kernels, base::depthwise_kernels, base::dense_kernels,
      base::recurrence_kernels};
  return table;
}
