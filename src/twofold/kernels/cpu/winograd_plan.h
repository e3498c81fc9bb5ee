// Winograd's algorithm block by block: each thread its own blocks, or for many channels all threads at the same block.
//
// A thread's own block must fit its second cache, and the weights (or the sums of their gradient, of which every thread then has its
// own) are gone through once a block. Where there are so many that this costs more than the products, a block is as large as the
// common cache allows, and its stages are shared out: no thread begins a stage before all have ended the one before.
#pragma once
#include <string>
#include <type_traits>
#include <vector>

#include "convolution_plan.h"

namespace twofold {

constexpr int64_t kTiles = 1 << 17;   // floats of a thread's own block, if that is 56 tiles or more
constexpr int64_t kCommon = 1 << 21;  // floats of a block for all threads: they stay in the third cache
constexpr int64_t kHeld = 1 << 15;    // C F above which all threads are at the same block

// Whether there are products of bfloat16, which this processor or ATEN_CPU_CAPABILITY may rule out.
inline bool winograd_reduces() {
#if TWOFOLD_BF16
  static const bool known = std::string(kernels().instruction_set) == "avx512" && __builtin_cpu_supports("avx512bf16");
  return known;
#else
  return false;
#endif
}

// The table, with `reduced` the one whose products are of bfloat16, or null where there is none.
inline const WinogradTable<float>* winograd_kernels(bool reduced) {
  if (!reduced) return &kernels().winograd;
#if TWOFOLD_BF16
  if (winograd_reduces()) return &avx512bf16_winograd();
#endif
  return nullptr;
}

// The one for maps that lie channels last, of float or Half, or null.
template <class Number>
const WinogradTable<Number>* winograd_last_kernels() {
  if constexpr (std::is_same_v<Number, float>) {
    return &kernels().winograd_last;
  } else {
#if TWOFOLD_BF16
    if (winograd_reduces()) return &avx512bf16_winograd_last();
#endif
    return nullptr;
  }
}

inline Convolution tiles_of(const Convolution& c) {
  return {c.C, c.F, c.H, c.W, (c.P + 1) / 2, (c.Q + 1) / 2, 4, 4, 2, 2, c.top, c.left, 1, 1};
}

// One layer's way: its table, and what all stages need to know.
template <class Number>
struct Winograd {
  const WinogradTable<Number>& table;
  Convolution c;

  WinogradSizes sizes(const Frame& frame, bool gradient) const { return table.sizes(c, frame, gradient); }
  int64_t block_floats(const Frame& frame, bool gradient) const {
    const WinogradSizes size = sizes(frame, gradient);
    return size.seen + size.products + size.scratch;
  }
  // From a row of windows to the next: of one map, or channels last of all.
  int64_t row() const { return table.last ? c.Q * c.F : c.Q; }
  int64_t panels() const { return sizes(Frame(tiles_of(c), 1, 0, 1), false).panels; }
  Cut own_blocks(int64_t batch, int64_t step, bool gradient) const {
    const int64_t budget = std::max<int64_t>(kTiles, 56 * 20 * (c.C + c.F));
    return cut(tiles_of(c), batch, step, budget, at::get_num_threads(), [&](const Frame& frame) { return block_floats(frame, gradient); });
  }
  Cut common_blocks(int64_t batch, bool gradient) const {
    return cut(tiles_of(c), batch, 1, kCommon, 1, [&](const Frame& frame) { return block_floats(frame, gradient); });
  }
  // As many parts as threads are worth waking for a block.
  int64_t parts(const Cut& blocks) const {
    const double tiles = static_cast<double>(blocks.images * blocks.rows * (c.Q + 1) / 2);
    const double work = 16 * tiles * static_cast<double>(c.C) * static_cast<double>(c.F) / static_cast<double>(kWork);
    return static_cast<int64_t>(std::clamp<double>(work, 1, at::get_num_threads()));
  }
};

// A share of the items of every stage.
struct Part {
  int64_t number, of;
  int64_t begin(int64_t items) const { return items * number / of; }
  int64_t end(int64_t items) const { return items * (number + 1) / of; }
};

inline void in_parts(int64_t parts, const std::function<void(const Part&)>& work) {
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) work(Part{number, parts});
  });
}

template <class Number>
Memory pack_winograd(const Winograd<Number>& way, const float* weight, const float* bias, bool turned) {
  Memory packed = memory(way.table.packed_size(way.c));
  at::parallel_for(0, way.panels(), std::max<int64_t>(1, kWork / (32 * 32 * way.c.C)), [&](int64_t begin, int64_t end) {
    way.table.pack(way.c, weight, bias, turned, begin, end, packed.get());
  });
  return packed;
}

// A block by one thread. y is where its first row of windows goes.
template <class Number>
void winograd_block(const Winograd<Number>& way, const Frame& frame, const Number* x, int64_t x_image, const float* packed, bool relu,
    Number* y, int64_t y_image, int64_t y_map, float* scratch) {
  const WinogradSizes sizes = way.sizes(frame, false);
  float *seen = scratch, *products = seen + sizes.seen, *rest = products + sizes.products;
  way.table.see(way.c, frame, false, x, x_image, 0, sizes.cells, seen, rest);
  way.table.multiply(way.c, frame, seen, packed, 0, sizes.parts * sizes.panels, products);
  way.table.put(way.c, frame, products, packed, relu, y, y_image, y_map, 0, sizes.panels, rest);
}

template <class Number>
bool worth_sharing(const Winograd<Number>& way) { return way.c.C * way.c.F > kHeld && at::get_num_threads() <= way.panels(); }

// All threads at the same block, one after the other.
template <class Number>
void winograd_together(const Winograd<Number>& way, int64_t batch, const Number* x, int64_t x_image, const float* packed, bool relu,
    Number* y, int64_t y_image) {
  const Convolution& c = way.c;
  const Cut blocks = way.common_blocks(batch, false);
  const WinogradSizes most = way.sizes(blocks.first, false);
  const int64_t parts = way.parts(blocks);
  const Memory seen = memory(most.seen), products = memory(most.products), scratch = memory(parts * most.scratch);
  for (int64_t block = 0; block < blocks.blocks(); ++block) {
    const Frame frame = blocks.frame(tiles_of(c), block);
    const WinogradSizes sizes = way.sizes(frame, false);
    const Number* from = x + blocks.image(block) * x_image;
    Number* to = y + blocks.image(block) * y_image + frame.row * 2 * way.row();
    in_parts(parts, [&](const Part& part) {
      way.table.see(c, frame, false, from, x_image, part.begin(sizes.cells), part.end(sizes.cells), seen.get(),
          scratch.get() + part.number * most.scratch);
    });
    in_parts(parts, [&](const Part& part) {
      const int64_t items = sizes.parts * sizes.panels;
      way.table.multiply(c, frame, seen.get(), packed, part.begin(items), part.end(items), products.get());
    });
    in_parts(parts, [&](const Part& part) {
      way.table.put(c, frame, products.get(), packed, relu, to, y_image, c.P * c.Q, part.begin(sizes.panels), part.end(sizes.panels),
          scratch.get() + part.number * most.scratch);
    });
  }
}

template <class Number>
void finish_winograd(const Winograd<Number>& way, int64_t parts, const float* sums, float* dweight) {
  const int64_t panels = way.panels();
  in_parts(std::min(parts, panels), [&](const Part& part) {
    way.table.finish(way.c, sums, part.begin(panels), part.end(panels), dweight);
  });
}

// Every thread its own blocks and sums.
template <class Number>
void winograd_gradient_apart(const Winograd<Number>& way, int64_t batch, const Number* x, int64_t x_image, const Number* dy, int64_t dy_image,
    float* dweight, float* dbias) {
  const Convolution& c = way.c;
  const Cut blocks = way.own_blocks(batch, 1, true);
  const int64_t size = way.table.sums_size(c), parts = std::min<int64_t>(at::get_num_threads(), blocks.blocks());
  const Memory sums = memory(parts * size);
  std::vector<float> bias_sums(parts * c.F);
  std::vector<char> begun(parts);
  share(c, blocks, [&](int64_t first, int64_t last, int64_t part) {
    const Memory scratch = memory(way.block_floats(blocks.first, true));
    for (int64_t block = first; block < last; ++block) {
      const Frame frame = blocks.frame(tiles_of(c), block);
      const WinogradSizes sizes = way.sizes(frame, true);
      float *seen = scratch.get(), *products = seen + sizes.seen, *rest = products + sizes.products;
      way.table.see(c, frame, true, x + blocks.image(block) * x_image, x_image, 0, sizes.cells, seen, rest);
      way.table.see_gradient(c, frame, dy + blocks.image(block) * dy_image + frame.row * 2 * way.row(), dy_image, 0, sizes.panels, products,
          dbias ? bias_sums.data() + part * c.F : nullptr, rest);
      way.table.add_products(c, frame, seen, products, 0, sizes.parts * sizes.panels, !begun[part], sums.get() + part * size);
      begun[part] = 1;
    }
  });
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t n = 0; begun[part] && n < size; ++n) sums[n] += sums[part * size + n];
  }
  for (int64_t n = 0; dbias && n < parts * c.F; ++n) dbias[n % c.F] += bias_sums[n];
  finish_winograd(way, parts, sums.get(), dweight);
}

// All threads at the same block and at the same sums.
template <class Number>
void winograd_gradient_together(const Winograd<Number>& way, int64_t batch, const Number* x, int64_t x_image, const Number* dy,
    int64_t dy_image, float* dweight, float* dbias) {
  const Convolution& c = way.c;
  const Cut blocks = way.common_blocks(batch, true);
  const WinogradSizes most = way.sizes(blocks.first, true);
  const int64_t parts = way.parts(blocks);
  const Memory sums = memory(way.table.sums_size(c)), seen = memory(most.seen), products = memory(most.products);
  const Memory scratch = memory(parts * most.scratch);
  for (int64_t block = 0; block < blocks.blocks(); ++block) {
    const Frame frame = blocks.frame(tiles_of(c), block);
    const WinogradSizes sizes = way.sizes(frame, true);
    const Number *from = x + blocks.image(block) * x_image, *d = dy + blocks.image(block) * dy_image + frame.row * 2 * way.row();
    in_parts(parts, [&](const Part& part) {
      float* rest = scratch.get() + part.number * most.scratch;
      way.table.see(c, frame, true, from, x_image, part.begin(sizes.cells), part.end(sizes.cells), seen.get(), rest);
      way.table.see_gradient(
          c, frame, d, dy_image, part.begin(sizes.panels), part.end(sizes.panels), products.get(), dbias, rest);
    });
    in_parts(parts, [&](const Part& part) {
      const int64_t items = sizes.parts * sizes.panels;
      way.table.add_products(c, frame, seen.get(), products.get(), part.begin(items), part.end(items), block == 0, sums.get());
    });
  }
  finish_winograd(way, parts, sums.get(), dweight);
}

template <class Number>
void winograd_gradient(const Winograd<Number>& way, int64_t batch, const Number* x, int64_t x_image, const Number* dy, int64_t dy_image,
    float* dweight, float* dbias) {
  const bool many = way.c.C * way.c.F > kHeld;
  (many ? winograd_gradient_together<Number> : winograd_gradient_apart<Number>)(way, batch, x, x_image, dy, dy_image, dweight, dbias);
}

}  // namespace twofold
