// 1x1 taps on maps that lie channels last (pointwise.h), shared out among torch's threads.
//
// Each thread takes its own pixels, few enough that what it reads of the map stays in its second cache while the panels of weights go
// by; where there are few pixels, its own panels, too.
#pragma once
#include "winograd_plan.h"

namespace twofold {

constexpr int64_t kPixelFloats = 1 << 17;  // of the map, that a thread reads again and again

// The kernels for maps of float or Half, or null where this processor has none.
template <class Number>
const PointwiseTable<Number>* pointwise_kernels() {
  if constexpr (std::is_same_v<Number, float>) {
    return &kernels().pointwise;
  } else {
#if TWOFOLD_BF16
    if (winograd_reduces()) return &avx512bf16_pointwise();
#endif
    return nullptr;
  }
}

template <class Number>
struct Pointwise {
  const PointwiseTable<Number>& table;
  int64_t C, F;

  int64_t panels() const { return (F + table.panel - 1) / table.panel; }
  // As many of the parts of a product over so many pixels as are worth waking a thread for.
  int64_t grain(int64_t pixels, int64_t parts) const {
    const double work = static_cast<double>(C) * static_cast<double>(F) * static_cast<double>(pixels) / static_cast<double>(parts);
    return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(kWork) / work));
  }

  Memory pack(const float* weight, bool turned, const float* bias) const {
    Memory packed = memory(table.packed_size(C, F));
    at::parallel_for(0, panels(), std::max<int64_t>(1, kWork / (32 * 32 * C)), [&](int64_t begin, int64_t end) {
      table.pack(C, F, weight, turned, bias, begin, end, packed.get());
    });
    return packed;
  }

  void forward(int64_t pixels, const Number* x, const float* packed, const Number* other, bool relu, Number* y) const {
    constexpr int64_t numbers = kPixelFloats * static_cast<int64_t>(sizeof(float) / sizeof(Number));
    const int64_t threads = at::get_num_threads(), most = std::clamp<int64_t>(numbers / C, 48, 2048);
    int64_t blocks = (pixels + most - 1) / most;
    if (blocks > 1) blocks = (blocks + threads - 1) / threads * threads;  // all threads alike
    const int64_t block = (pixels + blocks - 1) / blocks;
    const int64_t groups = blocks >= threads ? 1 : std::min(panels(), 2 * threads);
    at::parallel_for(0, blocks * groups, grain(block, groups), [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item / groups * block;
        const Part part{item % groups, groups};
        table.forward(C, F, std::min(block, pixels - first), x + first * C, packed, part.begin(panels()), part.end(panels()),
            other ? other + first * F : nullptr, relu, y + first * F);
      }
    });
  }
};

}  // namespace twofold
