// What the operators share that torch sees: the instruction set chosen for this processor, and how much work wakes a thread.
#pragma once
#include <c10/util/ArrayRef.h>
#include <ATen/core/ATen_fwd.h>

#include "table.h"

namespace twofold {

constexpr int64_t kLimit = int64_t{1} << 31;  // below it no product of two sizes overflows

const Kernels& kernels();

// Raises ValueError unless every window of the pool with this geometry (P Q kh kw sh sw top left dh dw) holds a pixel of the H W map.
void check_pool(int64_t H, int64_t W, at::IntArrayRef geometry);

}  // namespace twofold
