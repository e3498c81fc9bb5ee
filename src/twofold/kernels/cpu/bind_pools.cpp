// Pooling as torch sees it: weighted means, Lp, and maxima whose maps lie channels last.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>

#include "held_memory.h"
#include "plan.h"

namespace twofold {
namespace {

void check(const at::Tensor& maps, const char* who, const char* name) {
  TORCH_CHECK_VALUE(maps.dim() == 4 && maps.scalar_type() == at::kFloat &&
      (maps.is_contiguous() || maps.is_contiguous(at::MemoryFormat::ChannelsLast)),
      who, ": expected ", name, " to be float32 of four axes (B, C, H, W) without gaps in memory");
}

// As checked_sizes, but every window holds a pixel.
Window checked_pixels(const char* who, int64_t H, int64_t W, at::IntArrayRef geometry) {
  const Window w = checked_sizes(who, H, W, geometry);
  check_pool(H, W, geometry);
  return w;
}

// Whether maps lie channels last; where both layouts are one, they do not.
bool last(const at::Tensor& maps) { return !maps.is_contiguous(); }

at::Tensor like(const at::Tensor& maps, int64_t height, int64_t width) {
  const auto format = last(maps) ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  return HeldMemory::tensor({maps.size(0), maps.size(1), height, width}, maps.scalar_type(), format);
}

void check_windows(const at::Tensor& windows, const at::Tensor& maps, const Window& w, bool channels_last, const char* who) {
  TORCH_CHECK_VALUE(windows.size(0) == maps.size(0) && windows.size(1) == maps.size(1) && windows.size(2) == w.P &&
      windows.size(3) == w.Q && (channels_last ? windows.is_contiguous(at::MemoryFormat::ChannelsLast) : windows.is_contiguous()),
      who, ": the tensors and the geometry do not belong together");
}

// The divisors of the windows along an axis, what of the padding counts being `before` and `after`.
std::vector<float> counted(at::ArrayRef<double> weights, int64_t size, int64_t windows, int64_t stride, int64_t padding, int64_t dilation,
    int64_t before, int64_t after) {
  std::vector<float> sums(windows + kOverrun, 1.0f);
  for (int64_t p = 0; p < windows; ++p) {
    double sum = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(weights.size()); ++i) {
      const int64_t h = p * stride - padding + i * dilation;
      if (h >= -before && h < size + after) sum += weights[i];
    }
    sums[p] = static_cast<float>(sum);
  }
  return sums;
}

// What a weighted mean is made of, in floats.
struct Weights {
  std::vector<float> gh, gw, nh, nw, products;

  // counts: how much of the padding (top, bottom, left, right) counts; divisor: instead of the counts, if not 0
  Weights(const Window& w, at::ArrayRef<double> vertical, at::ArrayRef<double> horizontal, at::IntArrayRef counts, double divisor) {
    const auto rows = static_cast<int64_t>(vertical.size()), columns = static_cast<int64_t>(horizontal.size());
    TORCH_CHECK_VALUE(rows == w.kh && columns == w.kw && counts.size() == 4,
        "mean_pool2d: expected ", w.kh, " and ", w.kw, " weights and 4 sides, got ", rows, ", ", columns, " and ", counts.size());
    gh.assign(vertical.begin(), vertical.end());
    gw.assign(horizontal.begin(), horizontal.end());
    if (!large(w)) {
      for (const float g : gh) {
        for (const float h : gw) products.push_back(g * h);
      }
    }
    if (divisor != 0) {
      nh.assign(w.P, static_cast<float>(divisor));
      nw.assign(w.Q + kOverrun, 1.0f);
    } else {
      nh = counted(vertical, w.H, w.P, w.sh, w.top, w.dh, counts[0], counts[1]);
      nw = counted(horizontal, w.W, w.Q, w.sw, w.left, w.dw, counts[2], counts[3]);
    }
  }
  Mean mean() const { return {gh.data(), gw.data(), nh.data(), nw.data()}; }
  // Whether the axes are better taken one after the other.
  static bool large(const Window& w) { return w.kh * w.kw > 25; }
};

// A single row of windows over a single row of pixels: a frame of its columns alone.
Window one_row(const Window& w) { return {1, w.W, 1, w.Q, 1, w.kw, 1, w.sw, 0, w.left, 1, w.dw}; }

at::Tensor mean_pool2d(const at::Tensor& x, at::IntArrayRef geometry, at::ArrayRef<double> vertical, at::ArrayRef<double> horizontal,
    at::IntArrayRef counts, double divisor) {
  check(x, "mean_pool2d", "x");
  const Window w = checked_sizes("mean_pool2d", x.size(2), x.size(3), geometry);
  const Weights weights(w, vertical, horizontal, counts, divisor);
  const Mean mean = weights.mean();
  const at::Tensor y = like(x, w.P, w.Q);
  const int64_t channels = x.size(1), maps = x.size(0) * channels;
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  if (last(x)) {
    Blocks(x.size(0), w.P, w.sh * w.W * channels).share(work_of(w) * channels, 0, [&](int64_t image, Rows rows, float*) {
      kernels().pools.mean_last(w, mean, channels, rows, from + image * channels * w.H * w.W, to + image * channels * w.P * w.Q);
    });
    return y;
  }
  if (Weights::large(w)) {
    MapPlan row(one_row(w));
    const MapFrame frame = row.frame(1);
    Blocks(maps, w.P, w.sh * w.W).share(work_of(w), row.floats(1) + w.W + kOverrun, [&](int64_t map, Rows rows, float* scratch) {
      kernels().pools.separable_mean(w, frame, mean, rows, from + map * w.H * w.W, to + map * w.P * w.Q, scratch);
    });
    return y;
  }
  MapPlan plan(w, true);
  const Blocks blocks(maps, w.P, plan.row_floats());
  const MapFrame frame = plan.frame(blocks.rows);
  blocks.share(work_of(w), plan.floats(blocks.rows), [&](int64_t map, Rows rows, float* scratch) {
    kernels().pools.mean(w, frame, mean, weights.products.data(), rows, from + map * w.H * w.W, to + map * w.P * w.Q, scratch);
  });
  return y;
}

at::Tensor mean_pool2d_backward(const at::Tensor& dy, at::IntArrayRef geometry, at::ArrayRef<double> vertical,
    at::ArrayRef<double> horizontal, at::IntArrayRef counts, double divisor, int64_t H, int64_t W) {
  check(dy, "mean_pool2d_backward", "dy");
  const Window w = checked_sizes("mean_pool2d_backward", H, W, geometry);
  check_windows(dy, dy, w, last(dy), "mean_pool2d_backward");
  const Weights weights(w, vertical, horizontal, counts, divisor);
  const Mean mean = weights.mean();
  const at::Tensor dx = like(dy, H, W);
  const int64_t channels = dy.size(1), maps = dy.size(0) * channels;
  const float* from = dy.const_data_ptr<float>();
  float* to = dx.mutable_data_ptr<float>();
  const WindowPlan plan(w);
  const WindowFrame frame = plan.frame();
  if (last(dy)) {
    Blocks(dy.size(0), H, W * channels).share(work_of(w) * channels, kSeen * w.kh * w.kw, [&](int64_t image, Rows rows, float* scratch) {
      kernels().pools.mean_last_backward(
          w, frame, mean, channels, rows, from + image * channels * w.P * w.Q, to + image * channels * H * W, scratch);
    });
    return dx;
  }
  if (Weights::large(w)) {
    const int64_t size = (frame.up + 1) * (W + kOverrun) + frame.pitch + w.Q + 3 * kOverrun + plan.lines();
    Blocks(maps, H, W).share(work_of(w), size, [&](int64_t map, Rows rows, float* scratch) {
      kernels().pools.separable_mean_backward(w, frame, mean, rows, from + map * w.P * w.Q, to + map * H * W, scratch);
    });
    return dx;
  }
  const Blocks blocks(maps, H, plan.pitch);
  const int64_t size = w.P * w.Q + kOverrun + plan.floats(blocks.rows) + plan.lines();
  blocks.share(work_of(w), size, [&](int64_t map, Rows rows, float* scratch) {
    kernels().pools.mean_backward(
        w, frame, mean, weights.products.data(), rows, from + map * w.P * w.Q, to + map * H * W, scratch);
  });
  return dx;
}

Window checked_power(const at::Tensor& x, at::IntArrayRef geometry, double exponent, const char* who) {
  const bool maps = x.dim() == 4 && x.scalar_type() == at::kFloat && x.is_contiguous();
  TORCH_CHECK_VALUE(maps, who, ": expected contiguous float32 maps (B, C, H, W)");
  TORCH_CHECK_VALUE(exponent >= 1 && std::isfinite(exponent), who, ": expected an exponent of at least 1, got ", exponent);
  return checked_sizes(who, x.size(2), x.size(3), geometry);
}

at::Tensor power_pool2d(const at::Tensor& x, at::IntArrayRef geometry, double exponent) {
  const Window w = checked_power(x, geometry, exponent, "power_pool2d");
  const at::Tensor y = like(x, w.P, w.Q);
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  MapPlan plan(w);
  const Blocks blocks(x.size(0) * x.size(1), w.P, 3 * plan.row_floats());
  const MapFrame frame = plan.frame(blocks.rows);
  blocks.share(work_of(w), 3 * plan.floats(blocks.rows), [&](int64_t map, Rows rows, float* scratch) {
    kernels().pools.power(w, frame, static_cast<float>(exponent), rows, from + map * w.H * w.W, to + map * w.P * w.Q, scratch);
  });
  return y;
}

at::Tensor power_pool2d_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& y, at::IntArrayRef geometry, double exponent) {
  const Window w = checked_power(x, geometry, exponent, "power_pool2d_backward");
  check(dy, "power_pool2d_backward", "dy");
  check(y, "power_pool2d_backward", "y");
  check_windows(dy, x, w, false, "power_pool2d_backward");
  check_windows(y, x, w, false, "power_pool2d_backward");
  const at::Tensor dx = like(x, w.H, w.W);
  const float *d = dy.const_data_ptr<float>(), *from = x.const_data_ptr<float>(), *pooled = y.const_data_ptr<float>();
  float* to = dx.mutable_data_ptr<float>();
  const WindowPlan plan(w);
  const WindowFrame frame = plan.frame();
  const Blocks blocks(x.size(0) * x.size(1), w.H, 3 * plan.pitch);
  const int64_t scratch = 3 * plan.floats(blocks.rows) + plan.lines();
  blocks.share(work_of(w), scratch, [&](int64_t map, Rows rows, float* memory) {
    const int64_t pixels = map * w.H * w.W, windows = map * w.P * w.Q;
    kernels().pools.power_backward(w, frame, static_cast<float>(exponent), rows, d + windows, from + pixels, pooled + windows, to + pixels,
        memory);
  });
  return dx;
}

// tap_bytes: 1 or 4 as the taps need, 0 where the winners are not wanted.
std::tuple<at::Tensor, at::Tensor> max_pool2d_last(const at::Tensor& x, at::IntArrayRef geometry, int64_t tap_bytes) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.scalar_type() == at::kFloat && x.is_contiguous(at::MemoryFormat::ChannelsLast),
      "max_pool2d_last: expected float32 maps that lie channels last");
  const Window w = checked_pixels("max_pool2d_last", x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(tap_bytes == 0 || tap_bytes == 4 || (tap_bytes == 1 && w.kh * w.kw <= 255), "max_pool2d_last: taps need 4 bytes");
  const int64_t channels = x.size(1), outputs = channels * w.P * w.Q;
  const auto options = x.options().memory_format(at::MemoryFormat::ChannelsLast);
  const at::Tensor y = HeldMemory::tensor({x.size(0), channels, w.P, w.Q}, at::kFloat, at::MemoryFormat::ChannelsLast);
  const auto tap_type = tap_bytes == 4 ? at::kInt : at::kByte;
  const at::Tensor winner = tap_bytes ? at::empty(y.sizes(), options.dtype(tap_type)) : at::empty({0}, x.options().dtype(tap_type));
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  char* taps = static_cast<char*>(winner.mutable_data_ptr());
  Blocks(x.size(0), w.P, w.sh * w.W * channels).share(work_of(w) * channels, 0, [&](int64_t image, Rows rows, float*) {
    kernels().pools.max_last(w, channels, rows, from + image * channels * w.H * w.W, to + image * outputs,
        taps + image * outputs * tap_bytes, static_cast<int>(tap_bytes));
  });
  return {y, winner};
}

at::Tensor max_pool2d_last_backward(const at::Tensor& dy, const at::Tensor& winner, at::IntArrayRef geometry, int64_t H, int64_t W) {
  check(dy, "max_pool2d_last_backward", "dy");
  const Window w = checked_pixels("max_pool2d_last_backward", H, W, geometry);
  check_windows(dy, dy, w, true, "max_pool2d_last_backward");
  const bool bytes = winner.scalar_type() == at::kByte;
  TORCH_CHECK_VALUE((bytes || winner.scalar_type() == at::kInt) && winner.sizes() == dy.sizes() &&
      winner.is_contiguous(at::MemoryFormat::ChannelsLast), "max_pool2d_last_backward: dy and winner do not belong together");
  const int64_t channels = dy.size(1), outputs = channels * w.P * w.Q;
  const at::Tensor dx = HeldMemory::tensor({dy.size(0), channels, H, W}, dy.scalar_type(), at::MemoryFormat::ChannelsLast);
  const float* from = dy.const_data_ptr<float>();
  const char* taps = static_cast<const char*>(winner.const_data_ptr());
  float* to = dx.mutable_data_ptr<float>();
  const int tap_bytes = bytes ? 1 : 4;
  const WindowPlan plan(w);
  const WindowFrame frame = plan.frame();
  Blocks(dy.size(0), H, W * channels).share(work_of(w) * channels, kSeen * w.kh * w.kw, [&](int64_t image, Rows rows, float* scratch) {
    kernels().pools.max_last_backward(w, frame, channels, rows, from + image * outputs, taps + image * outputs * tap_bytes, tap_bytes,
        to + image * channels * H * W, scratch);
  });
  return dx;
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("mean_pool2d(Tensor x, int[] geometry, float[] vertical, float[] horizontal, int[] counts, float divisor) -> Tensor");
  m.def("mean_pool2d_backward(Tensor dy, int[] geometry, float[] vertical, float[] horizontal, int[] counts, float divisor, int height, "
        "int width) -> Tensor");
  m.def("power_pool2d(Tensor x, int[] geometry, float exponent) -> Tensor");
  m.def("power_pool2d_backward(Tensor dy, Tensor x, Tensor y, int[] geometry, float exponent) -> Tensor");
  m.def("max_pool2d_last(Tensor x, int[] geometry, int tap_bytes) -> (Tensor, Tensor)");
  m.def("max_pool2d_last_backward(Tensor dy, Tensor winner, int[] geometry, int height, int width) -> Tensor");
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("mean_pool2d", twofold::mean_pool2d);
  m.impl("mean_pool2d_backward", twofold::mean_pool2d_backward);
  m.impl("power_pool2d", twofold::power_pool2d);
  m.impl("power_pool2d_backward", twofold::power_pool2d_backward);
  m.impl("max_pool2d_last", twofold::max_pool2d_last);
  m.impl("max_pool2d_last_backward", twofold::max_pool2d_last_backward);
}
