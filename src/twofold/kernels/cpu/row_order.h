// Rows of unequal length, without padding: the rows of a batch in the order of their lengths, the longest first; behind each other the
// rows that step 0 has, those of step 1, ...
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace twofold {

struct RowOrder {
  at::Tensor starts;  // (steps + 1) int64: where the rows of each step begin
  at::Tensor order;   // (B) int64: the row of the batch that is n-th longest; undefined where all rows have all steps
  at::Tensor places;  // (N) int64: t B + row of each

  RowOrder(int64_t T, int64_t B) : starts(at::arange(T + 1, at::kLong).mul_(B)) {}
  // lengths from 0 to T
  RowOrder(const at::Tensor& lengths, int64_t B) : order(at::arange(B, at::kLong)) {
    const int64_t* length = lengths.const_data_ptr<int64_t>();
    int64_t* row = order.mutable_data_ptr<int64_t>();
    std::stable_sort(row, row + B, [&](int64_t a, int64_t b) { return length[a] > length[b]; });
    const int64_t steps = B ? length[row[0]] : 0, N = std::accumulate(length, length + B, int64_t{0});
    starts = at::empty({steps + 1}, at::kLong);
    places = at::empty({N}, at::kLong);
    int64_t *start = starts.mutable_data_ptr<int64_t>(), *place = places.mutable_data_ptr<int64_t>();
    *start = 0;
    for (int64_t t = 0, count = B; t < steps; ++t) {
      while (length[row[count - 1]] <= t) --count;
      for (int64_t n = 0; n < count; ++n) *place++ = t * B + row[n];
      start[t + 1] = start[t] + count;
    }
  }
  bool all() const { return !order.defined(); }
};

// y[n] = x[at[n]] for rows of x's last axis, in each of `blocks` of x; or, back, y[at[n]] = x[n], the others being 0.
inline at::Tensor moved_rows(const at::Tensor& x, const at::Tensor& at, int64_t blocks, bool back, int64_t rows_after) {
  const int64_t count = at.numel(), width = x.size(-1), from_rows = back ? count : x.numel() / std::max<int64_t>(1, width * blocks);
  at::Tensor y = back && count < rows_after ? at::zeros({blocks * rows_after, width}, x.options()) : at::empty({blocks * rows_after, width}, x.options());
  const float* from = x.const_data_ptr<float>();
  const int64_t* place = at.const_data_ptr<int64_t>();
  float* to = y.mutable_data_ptr<float>();
  for (int64_t block = 0; block < blocks; ++block, from += from_rows * width, to += rows_after * width) {
    at::parallel_for(0, count, std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, width)), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const float* source = from + (back ? n : place[n]) * width;
        std::copy(source, source + width, to + (back ? place[n] : n) * width);
      }
    });
  }
  return y;
}

}  // namespace twofold
