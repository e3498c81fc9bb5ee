// How a batch of maps is cut into blocks of work, and shared out among torch's threads.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>

#include "dispatch.h"
#include "held_memory.h"

namespace twofold {

constexpr int64_t kWork = 3'000'000;  // multiply-adds that are worth waking a thread for: a sleeping one takes 0.1 ms

// How a batch is cut: so many images at once, or so many rows of one image.
struct Cut {
  int64_t batch, images, rows, bands;
  Frame first;
  int64_t blocks() const { return (batch + images - 1) / images * bands; }
  Frame frame(const Convolution& c, int64_t block) const {
    const int64_t row = block % bands * rows;
    return Frame(c, std::min(images, batch - image(block)), row, std::min(rows, c.P - row));
  }
  int64_t image(int64_t block) const { return block / bands * images; }
};

// `rows` are rows of windows, or with Winograd's algorithm rows of tiles; a block has a whole number of `step` of them.
inline Cut cut(const Convolution& c, int64_t batch, int64_t step, int64_t budget, int64_t threads,
    const std::function<int64_t(const Frame&)>& size) {
  int64_t images = 1, rows = c.P;
  const int64_t one = size(Frame(c, 1, 0, c.P));
  if (one <= budget) {
    const int64_t most = (batch + threads - 1) / threads;
    while (images < most && size(Frame(c, images + 1, 0, c.P)) <= budget) ++images;
    const int64_t blocks = (batch + images - 1) / images, even = (blocks + threads - 1) / threads * threads;
    images = (batch + even - 1) / even;  // all threads alike
  } else {
    while (rows > step && size(Frame(c, 1, 0, rows)) > budget) rows = std::max(step, (rows + 1) / 2 / step * step);
  }
  return {batch, images, rows, (c.P + rows - 1) / rows, Frame(c, images, 0, rows)};
}

// Runs work(begin, end, part) over the blocks; as many parts as threads are worth waking.
inline void share(const Convolution& c, const Cut& cut, const std::function<void(int64_t, int64_t, int64_t)>& work) {
  const int64_t blocks = cut.blocks();
  const double each = static_cast<double>(c.taps()) * static_cast<double>(c.F * cut.rows * c.Q * cut.images);
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(kWork) / each));
  at::parallel_for(0, blocks, grain, [&](int64_t begin, int64_t end) { work(begin, end, at::get_thread_num()); });
}

using Memory = HeldMemory::Floats;

inline Memory memory(int64_t floats) { return HeldMemory::floats(floats); }

}  // namespace twofold
