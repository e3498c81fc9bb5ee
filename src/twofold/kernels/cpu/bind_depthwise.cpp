// Depthwise convolution as torch sees it.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

#include "held_memory.h"
#include "plan.h"

namespace twofold {
namespace {

void check(const at::Tensor& maps, const char* name) {
  TORCH_CHECK_VALUE(maps.dim() == 4 && maps.scalar_type() == at::kFloat && maps.is_contiguous(),
      "depthwise2d: expected ", name, " to be contiguous float32 of four axes");
}

struct Sizes {
  Window w;
  int64_t batch, channels, filters;  // filters of each channel
  int64_t maps() const { return batch * channels; }
  int64_t kernel() const { return w.kh * w.kw; }
};

Sizes checked(const at::Tensor& x, const at::Tensor& weight, at::IntArrayRef geometry) {
  check(x, "x");
  check(weight, "weight");
  const Window w = checked_sizes("depthwise2d", x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(x.size(1) >= 1 && weight.size(0) >= 1 && weight.size(0) % x.size(1) == 0 && weight.size(1) == 1 &&
      weight.size(2) == w.kh && weight.size(3) == w.kw, "depthwise2d: weight, x and geometry do not belong together");
  return {w, x.size(0), x.size(1), weight.size(0) / x.size(1)};
}

at::Tensor depthwise2d(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::IntArrayRef geometry) {
  const Sizes s = checked(x, weight, geometry);
  TORCH_CHECK_VALUE(!bias || (bias->dim() == 1 && bias->size(0) == weight.size(0) && bias->scalar_type() == at::kFloat &&
      bias->is_contiguous()), "depthwise2d: expected a contiguous float32 bias of one number for each filter");
  const at::Tensor y = HeldMemory::tensor({s.batch, weight.size(0), s.w.P, s.w.Q}, at::kFloat);
  MapPlan plan(s.w, true);
  const Blocks blocks(s.maps(), s.w.P, plan.row_floats());
  const MapFrame frame = plan.frame(blocks.rows);
  const float *from = x.const_data_ptr<float>(), *kernel = weight.const_data_ptr<float>();
  const float* start = bias ? bias->const_data_ptr<float>() : nullptr;
  float* to = y.mutable_data_ptr<float>();
  blocks.share(work_of(s.w) * s.filters, plan.floats(blocks.rows), [&](int64_t map, Rows rows, float* scratch) {
    const int64_t filter = map % s.channels * s.filters;
    kernels().depthwise.forward(s.w, frame, s.filters, rows, from + map * s.w.H * s.w.W, kernel + filter * s.kernel(),
        start ? start + filter : nullptr, to + map * s.filters * s.w.P * s.w.Q, scratch);
  });
  return y;
}

// Adds up what the threads found, and the kSums parts of each weight.
void finish(const Sizes& s, const std::vector<float>& sums, float* dweight, float* dbias) {
  const int64_t filters = s.channels * s.filters, size = filters * (s.kernel() + 1) * kSums;
  for (int64_t filter = 0; filter < filters; ++filter) {
    for (int64_t t = 0; t <= s.kernel(); ++t) {
      double sum = 0;
      for (int64_t thread = 0; thread < at::get_num_threads(); ++thread) {
        const float* part = sums.data() + thread * size + (filter * (s.kernel() + 1) + t) * kSums;
        for (int64_t l = 0; l < kSums; ++l) sum += part[l];
      }
      (t < s.kernel() ? dweight[filter * s.kernel() + t] : dbias[filter]) = static_cast<float>(sum);
    }
  }
}

// (dx, dweight, dbias); dx and the other two can be left out, and are empty then.
std::tuple<at::Tensor, at::Tensor, at::Tensor> depthwise2d_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
    at::IntArrayRef geometry, bool wants_input, bool wants_weight) {
  const Sizes s = checked(x, weight, geometry);
  const Window& w = s.w;
  check(dy, "dy");
  TORCH_CHECK_VALUE(dy.size(0) == s.batch && dy.size(1) == weight.size(0) && dy.size(2) == w.P && dy.size(3) == w.Q,
      "depthwise2d_backward: dy, x and geometry do not belong together");
  const at::Tensor dx = wants_input ? HeldMemory::tensor(x.sizes(), at::kFloat) : at::empty({0}, x.options());
  const at::Tensor dweight = wants_weight ? at::empty(weight.sizes(), x.options()) : at::empty({0}, x.options());
  const at::Tensor dbias = at::empty({wants_weight ? weight.size(0) : 0}, x.options());
  const float *from = x.const_data_ptr<float>(), *d = dy.const_data_ptr<float>(), *kernel = weight.const_data_ptr<float>();
  float* to = dx.mutable_data_ptr<float>();
  MapPlan map_plan(w, true);
  const WindowPlan window_plan(w);
  const Blocks by_windows(s.maps(), w.P, map_plan.row_floats()), by_pixels(s.maps(), w.H, window_plan.pitch * s.filters);
  const MapFrame seen = map_plan.frame(by_windows.rows);
  const WindowFrame seeing = window_plan.frame();
  const int64_t each = s.filters * (s.kernel() + 1) * kSums;
  std::vector<float> sums(wants_weight ? s.channels * each * at::get_num_threads() : 0);
  const auto weight_gradient = [&](int64_t map, Rows rows, float* scratch) {
    kernels().depthwise.weight_gradient(w, seen, s.filters, rows, from + map * w.H * w.W, d + map * s.filters * w.P * w.Q,
        sums.data() + (at::get_thread_num() * s.channels + map % s.channels) * each, scratch);
  };
  const auto input_gradient = [&](int64_t map, Rows rows, float* scratch) {
    kernels().depthwise.input_gradient(w, seeing, s.filters, rows, d + map * s.filters * w.P * w.Q,
        kernel + map % s.channels * s.filters * s.kernel(), to + map * w.H * w.W, scratch);
  };
  const int64_t work = work_of(w) * s.filters, windows = map_plan.floats(by_windows.rows);
  const int64_t pixels = s.filters * window_plan.floats(by_pixels.rows) + window_plan.lines();
  if (wants_weight && wants_input && by_windows.bands == 1 && by_pixels.bands == 1) {
    by_windows.share(2 * work, std::max(windows, pixels), [&](int64_t map, Rows rows, float* scratch) {  // dy stays in the cache
      weight_gradient(map, rows, scratch);
      input_gradient(map, {0, w.H}, scratch);
    });
  } else {
    if (wants_weight) by_windows.share(work, windows, weight_gradient);
    if (wants_input) by_pixels.share(work, pixels, input_gradient);
  }
  if (wants_weight) finish(s, sums, dweight.mutable_data_ptr<float>(), dbias.mutable_data_ptr<float>());
  return {dx, dweight, dbias};
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("depthwise2d(Tensor x, Tensor weight, Tensor? bias, int[] geometry) -> Tensor");
  m.def("depthwise2d_backward(Tensor dy, Tensor x, Tensor weight, int[] geometry, bool wants_input, bool wants_weight) "
        "-> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("depthwise2d", twofold::depthwise2d);
  m.impl("depthwise2d_backward", twofold::depthwise2d_backward);
}
