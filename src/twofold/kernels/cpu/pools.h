// The tables of pooling and of depthwise convolution, for one instruction set.
#include "floats.h"
#include "cells.h"
#include "depthwise.h"
#include "weighted_mean.h"
#include "separable_mean.h"
#include "power_pool.h"
#include "channels_last.h"

namespace twofold {
namespace TWOFOLD_SET {

inline constexpr PoolKernels pool_kernels{weighted_mean::forward, weighted_mean::backward, separable_mean::forward,
    separable_mean::backward, power_pool::forward, power_pool::backward, channels_last::max_forward, channels_last::max_backward,
    channels_last::mean_forward, channels_last::mean_backward};
inline constexpr DepthwiseKernels depthwise_kernels{depthwise::forward, depthwise::input_gradient, depthwise::weight_gradient};

}  // namespace TWOFOLD_SET
}  // namespace twofold
