// How a call is laid out before the kernels run: its geometry, its frames (pools_table.h), and which thread computes which rows.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "dispatch.h"

namespace twofold {

// geometry: P Q kh kw sh sw top left dh dw. Windows may lie in the padding altogether.
inline Window checked_sizes(const char* who, int64_t H, int64_t W, at::IntArrayRef g) {
  TORCH_CHECK_VALUE(g.size() == 10, who, ": expected 10 numbers of geometry, got ", g.size());
  for (const int64_t value : {H, W, g[0], g[1], g[2], g[3], g[4], g[5], g[8], g[9]}) {
    TORCH_CHECK_VALUE(value >= 1 && value < kLimit, who, ": a size of ", value, " is out of range");
  }
  for (const int64_t value : {g[6], g[7]}) TORCH_CHECK_VALUE(value >= 0 && value < kLimit, who, ": padding of ", value, " is out of range");
  const bool small = H * W < kLimit && g[0] * g[1] < kLimit && g[2] * g[3] < kLimit;
  TORCH_CHECK_VALUE(small, who, ": a map or a kernel of ", kLimit, " numbers or more");
  return {H, W, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
}

// The floats of a frame, in as many planes.
inline int64_t frame_floats(int64_t planes, int64_t rows, int64_t pitch) {
  const double all = static_cast<double>(planes) * static_cast<double>(rows) * static_cast<double>(pitch);
  TORCH_CHECK_VALUE(all < 1e11, "windows that reach over ", rows, " rows and ", pitch, " columns are too large");
  return planes * rows * pitch + kOverrun;
}

// Along an axis, the phases that the taps see, and for every tap which of them and the cell.
struct AxisPhases {
  int64_t reach;
  std::vector<int64_t> phase, plane, cell;

  AxisPhases(int64_t taps, int64_t stride, int64_t dilation) : reach((taps - 1) * dilation / stride) {
    for (int64_t i = 0; i < taps; ++i) {
      const auto known = std::find(phase.begin(), phase.end(), i * dilation % stride);
      plane.push_back(known - phase.begin());
      cell.push_back(i * dilation / stride);
      if (known == phase.end()) phase.push_back(i * dilation % stride);
    }
  }
  int64_t count() const { return static_cast<int64_t>(phase.size()); }
  Phases phases() const { return {phase.data(), count()}; }
};

// The frame of what blocks of so many rows of windows see.
struct MapPlan {
  Window w;
  bool plain;
  AxisPhases vertical, horizontal;
  int64_t pitch;
  std::vector<int64_t> offset;

  // may_be_plain: the kernel can make use of that
  explicit MapPlan(const Window& w, bool may_be_plain = false)
      : w(w), plain(may_be_plain && twice(w.kh, w.kw, w.sh, w.sw, w.dh, w.dw)), vertical(w.kh, plain ? 1 : w.sh, w.dh),
        horizontal(w.kw, plain ? 1 : w.sw, w.dw), pitch((w.Q - 1) * (plain ? w.sw : 1) + 1 + horizontal.reach) {}

  int64_t rows(int64_t windows) const { return (windows - 1) * (plain ? w.sh : 1) + 1 + vertical.reach; }
  int64_t floats(int64_t windows) const { return frame_floats(vertical.count() * horizontal.count(), rows(windows), pitch); }
  int64_t row_floats() const { return floats(2) - floats(1); }

  MapFrame frame(int64_t windows) {
    offset.clear();
    for (int64_t i = 0; i < w.kh; ++i) {
      const int64_t plane = vertical.plane[i] * horizontal.count();
      for (int64_t j = 0; j < w.kw; ++j) {
        offset.push_back(((plane + horizontal.plane[j]) * rows(windows) + vertical.cell[i]) * pitch + horizontal.cell[j]);
      }
    }
    return {vertical.phases(), horizontal.phases(), plain, rows(windows), vertical.reach, pitch, offset.data()};
  }
};

// Along an axis, the taps that see the pixels of each residue.
struct AxisResidues {
  int64_t reach;
  std::vector<int64_t> begin, tap, back;

  AxisResidues(int64_t size, int64_t taps, int64_t stride, int64_t before, int64_t dilation)
      : reach((taps - 1) * dilation / stride), begin(std::min(stride, size) + 1) {
    const auto residue = [=](int64_t i) { return ((i * dilation - before) % stride + stride) % stride; };
    for (int64_t i = 0; i < taps; ++i) {
      if (residue(i) < size) ++begin[residue(i) + 1];
    }
    for (size_t r = 1; r < begin.size(); ++r) begin[r] += begin[r - 1];
    tap.resize(begin.back());
    back.resize(begin.back());
    std::vector<int64_t> next(begin);
    for (int64_t i = taps - 1; i >= 0; --i) {
      if (residue(i) >= size) continue;
      const int64_t at = next[residue(i)]++;
      tap[at] = i;
      back[at] = reach - i * dilation / stride;
    }
  }
  Residues residues() const { return {begin.data(), tap.data(), back.data()}; }
};

// The frame of what blocks of so many rows of pixels are seen by.
struct WindowPlan {
  Window w;
  AxisResidues vertical, horizontal;
  int64_t pitch;

  explicit WindowPlan(const Window& w)
      : w(w), vertical(w.H, w.kh, w.sh, w.top, w.dh), horizontal(w.W, w.kw, w.sw, w.left, w.dw),
        pitch((w.W - 1 + w.left) / w.sw + 1 + horizontal.reach) {
    frame_floats(1, vertical.reach + 1, pitch);  // says so where that is too much
  }

  WindowFrame frame() const { return {vertical.residues(), horizontal.residues(), vertical.reach, horizontal.reach, pitch}; }
  int64_t floats(int64_t pixels) const { return frame_floats(1, (pixels + w.sh - 1) / w.sh + 1 + vertical.reach, pitch); }
  int64_t lines() const { return 12 * ((w.W + w.sw - 1) / w.sw + kOverrun); }  // of four rows: two each of dx, one of x
};

// The maps cut into blocks of rows: as many as stay in the cache, and a block for every thread at least.
struct Blocks {
  int64_t maps, all, rows, bands;

  Blocks(int64_t maps, int64_t all, int64_t row_floats) : maps(maps), all(all) {
    constexpr int64_t kCached = 1 << 15;
    rows = std::clamp<int64_t>(kCached / std::max<int64_t>(row_floats, 1), std::min<int64_t>(8, all), all);
    if (maps < at::get_num_threads()) rows = std::clamp<int64_t>((all * maps + at::get_num_threads() - 1) / at::get_num_threads(), 1, rows);
    bands = (all + rows - 1) / rows;
  }

  // Calls work(map, rows, scratch) for every block. work_per_map: floats touched and, by eights, products.
  template <class Work>
  void share(int64_t work_per_map, int64_t scratch, Work work) const {
    constexpr int64_t kWork = 1 << 17;  // worth waking a thread for: a sleeping one takes 0.1 ms
    const int64_t grain = std::max<int64_t>(1, kWork * bands / std::max<int64_t>(work_per_map, 1));
    at::parallel_for(0, maps * bands, grain, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<float[]> memory(new float[scratch]);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block % bands * rows;
        work(block / bands, Rows{first, std::min(rows, all - first)}, memory.get());
      }
    });
  }
};

inline int64_t work_of(const Window& w) { return w.H * w.W + w.P * w.Q + w.P * w.Q * (w.kh * w.kw / 8 + 1); }

}  // namespace twofold
