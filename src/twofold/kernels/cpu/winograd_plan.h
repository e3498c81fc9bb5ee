// Winograd's algorithm block by block: each thread its own blocks, or for many channels all threads at the same block.
//
// A thread's own block must fit its second cache, and the weights (or the sums of their gradient, of which every thread then has its
// own) are gone through once a block. Where there are so many that this costs more than the products, a block is as large as the
// common cache allows, and its stages are shared out: no thread begins a stage before all have ended the one before.
#pragma once
#include <string>
#include <vector>

#include "convolution_plan.h"

namespace twofold {

inline Convolution tiles_of(const Convolution& c) {
  return {c.C, c.F, c.H, c.W, (c.P + 1) / 2, (c.Q + 1) / 2, 4, 4, 2, 2, c.top, c.left, 1, 1};
}

// The table, with `reduced` the one whose products are of bfloat16, or null where this processor or ATEN_CPU_CAPABILITY rules it out.
inline const WinogradKernels* winograd_kernels(bool reduced) {
  if (!reduced) return &kernels().winograd;
#if TWOFOLD_BF16
  static const bool known = std::string(kernels().instruction_set) == "avx512" && __builtin_cpu_supports("avx512bf16");
  if (known) return &avx512bf16_winograd();
#endif
  return nullptr;
}

inline int64_t winograd_floats(const WinogradKernels& winograd, const Convolution& c, const Frame& frame, bool gradient) {
  const WinogradSizes sizes = winograd.sizes(c, frame, gradient);
  return sizes.seen + sizes.products + sizes.scratch;
}

inline int64_t env(const char* n, int64_t d) { const char* s = std::getenv(n); return s ? std::atoll(s) : d; }

inline Cut cut_tiles(const WinogradKernels& winograd, const Convolution& c, int64_t batch, int64_t step, bool gradient, bool together) {
  static const int64_t kTiles = env("W_TILES", 1 << 17), kEach = env("W_EACH", 56 * 20), kShared = env("W_SHARED", 1 << 22);
  const int64_t budget = together ? kShared : std::max<int64_t>(kTiles, kEach * (c.C + c.F));
  return cut(tiles_of(c), batch, step, budget, together ? 1 : at::get_num_threads(), [&](const Frame& frame) { return winograd_floats(winograd, c, frame, gradient); });
}

// Runs work(begin, end, part) over the items, in as many parts as there are.
inline void in_parts(int64_t parts, int64_t items, const std::function<void(int64_t, int64_t, int64_t)>& work) {
  at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part) work(items * part / parts, items * (part + 1) / parts, part);
  });
}

inline Memory pack_winograd(const WinogradKernels& winograd, const Convolution& c, const float* weight, const float* bias, bool turned) {
  Memory packed = memory(winograd.packed_size(c));
  const int64_t panels = winograd.sizes(c, Frame(tiles_of(c), 1, 0, 1), false).panels;
  at::parallel_for(0, panels, std::max<int64_t>(1, kWork / (32 * c.C * 32)), [&](int64_t begin, int64_t end) {
    winograd.pack(c, weight, bias, turned, begin, end, packed.get());
  });
  return packed;
}

// A block by one thread. y is where its first row of windows goes.
inline void winograd_block(const WinogradKernels& winograd, const Convolution& c, const Frame& frame, const float* x, int64_t x_image, const float* packed, bool relu, float* y,
    int64_t y_image, int64_t y_map, float* scratch) {
  const WinogradSizes sizes = winograd.sizes(c, frame, false);
  float *seen = scratch, *products = seen + sizes.seen, *rest = products + sizes.products;
  winograd.see(c, frame, false, x, x_image, 0, sizes.cells, seen, rest);
  winograd.multiply(c, frame, seen, packed, 0, sizes.parts * sizes.panels, products);
  winograd.put(c, frame, products, packed, relu, y, y_image, y_map, 0, sizes.panels, rest);
}

// All threads at the same block, one after the other.
inline void winograd_together(const WinogradKernels& winograd, const Convolution& c, int64_t batch, const float* x, int64_t x_image, const float* weight, const float* bias,
    bool turned, bool relu, float* y, int64_t y_image) {
  const Memory packed = pack_winograd(winograd, c, weight, bias, turned);
  const Cut blocks = cut_tiles(winograd, c, batch, 1, false, true);
  const WinogradSizes most = winograd.sizes(c, blocks.first, false);
  const int64_t parts = at::get_num_threads();
  const Memory seen = memory(most.seen), products = memory(most.products), scratch = memory(parts * most.scratch);
  for (int64_t block = 0; block < blocks.blocks(); ++block) {
    const Frame frame = blocks.frame(tiles_of(c), block);
    const WinogradSizes sizes = winograd.sizes(c, frame, false);
    const int64_t image = blocks.image(block);
    in_parts(parts, sizes.cells, [&](int64_t begin, int64_t end, int64_t part) {
      winograd.see(c, frame, false, x + image * x_image, x_image, begin, end, seen.get(), scratch.get() + part * most.scratch);
    });
    in_parts(parts, sizes.parts * sizes.panels, [&](int64_t begin, int64_t end, int64_t) {
      winograd.multiply(c, frame, seen.get(), packed.get(), begin, end, products.get());
    });
    in_parts(parts, sizes.panels, [&](int64_t begin, int64_t end, int64_t part) {
      winograd.put(c, frame, products.get(), packed.get(), relu, y + image * y_image + frame.row * 2 * c.Q, y_image, c.P * c.Q, begin, end,
          scratch.get() + part * most.scratch);
    });
  }
}

inline void finish_winograd(const WinogradKernels& winograd, const Convolution& c, int64_t parts, int64_t panels, const float* sums, float* dweight) {
  in_parts(std::min(parts, panels), panels, [&](int64_t begin, int64_t end, int64_t) {
    winograd.finish(c, sums, begin, end, dweight);
  });
}

// Every thread its own blocks and sums.
inline void winograd_gradient_apart(const WinogradKernels& winograd, const Convolution& c, int64_t batch, const float* x, int64_t x_image, const float* dy, int64_t dy_image,
    float* dweight, float* dbias) {
  const Cut blocks = cut_tiles(winograd, c, batch, 1, true, false);
  const WinogradSizes most = winograd.sizes(c, blocks.first, true);
  const int64_t size = winograd.sums_size(c), parts = std::min<int64_t>(at::get_num_threads(), blocks.blocks());
  const Memory sums = memory(parts * size);
  std::vector<float> bias_sums(parts * c.F);
  std::vector<char> begun(parts);
  share(c, blocks, [&](int64_t first, int64_t last, int64_t part) {
    const Memory seen = memory(most.seen), products = memory(most.products), scratch = memory(most.scratch);
    for (int64_t block = first; block < last; ++block) {
      const int64_t image = blocks.image(block);
      const Frame frame = blocks.frame(tiles_of(c), block);
      const WinogradSizes sizes = winograd.sizes(c, frame, true);
      winograd.see(c, frame, true, x + image * x_image, x_image, 0, sizes.cells, seen.get(), scratch.get());
      winograd.see_gradient(c, frame, dy + image * dy_image + frame.row * 2 * c.Q, dy_image, 0, sizes.panels, products.get(),
          dbias ? bias_sums.data() + part * c.F : nullptr, scratch.get());
      winograd.add_products(
          c, frame, seen.get(), products.get(), 0, sizes.parts * sizes.panels, !begun[part], sums.get() + part * size);
      begun[part] = 1;
    }
  });
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t n = 0; begun[part] && n < size; ++n) sums[n] += sums[part * size + n];
  }
  for (int64_t n = 0; dbias && n < parts * c.F; ++n) dbias[n % c.F] += bias_sums[n];
  finish_winograd(winograd, c, parts, most.panels, sums.get(), dweight);
}

// All threads at the same block, and at the same sums.
inline void winograd_gradient_together(const WinogradKernels& winograd, const Convolution& c, int64_t batch, const float* x, int64_t x_image, const float* dy,
    int64_t dy_image, float* dweight, float* dbias) {
  const Cut blocks = cut_tiles(winograd, c, batch, 1, true, true);
  const WinogradSizes most = winograd.sizes(c, blocks.first, true);
  const int64_t parts = at::get_num_threads();
  const Memory sums = memory(winograd.sums_size(c)), seen = memory(most.seen), products = memory(most.products);
  const Memory scratch = memory(parts * most.scratch);
  for (int64_t block = 0; block < blocks.blocks(); ++block) {
    const int64_t image = blocks.image(block);
    const Frame frame = blocks.frame(tiles_of(c), block);
    const WinogradSizes sizes = winograd.sizes(c, frame, true);
    in_parts(parts, sizes.cells, [&](int64_t begin, int64_t end, int64_t part) {
      winograd.see(c, frame, true, x + image * x_image, x_image, begin, end, seen.get(), scratch.get() + part * most.scratch);
    });
    in_parts(parts, sizes.panels, [&](int64_t begin, int64_t end, int64_t part) {
      winograd.see_gradient(c, frame, dy + image * dy_image + frame.row * 2 * c.Q, dy_image, begin, end, products.get(), dbias,
          scratch.get() + part * most.scratch);
    });
    in_parts(parts, sizes.parts * sizes.panels, [&](int64_t begin, int64_t end, int64_t) {
      winograd.add_products(c, frame, seen.get(), products.get(), begin, end, block == 0, sums.get());
    });
  }
  finish_winograd(winograd, c, parts, most.panels, sums.get(), dweight);
}

inline void winograd_gradient(const WinogradKernels& winograd, const Convolution& c, int64_t batch, const float* x, int64_t x_image, const float* dy, int64_t dy_image,
    float* dweight, float* dbias) {
  static const int64_t kHeld = env("W_HELD", 1 << 15);
  (c.C * c.F > kHeld ? winograd_gradient_together : winograd_gradient_apart)(winograd, c, batch, x, x_image, dy, dy_image, dweight, dbias);
}

}  // namespace twofold
