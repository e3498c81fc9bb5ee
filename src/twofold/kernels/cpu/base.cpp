// The kernels for every machine.
#include "table.h"

#define TWOFOLD_SET base
#define TWOFOLD_LANES 4
#include "lanes.h"
#include "max_pool.h"

const twofold::Kernels& twofold::base_kernels() {
  static const Kernels table{"base", base::max_pool, base::max_pool_backward};
  return table;
}
