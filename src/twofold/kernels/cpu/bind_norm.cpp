// Batch normalisation with ReLU and max pooling behind it, as torch sees it: checks, and channels shared out among torch's threads.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "held_memory.h"

namespace twofold {
namespace {

constexpr int64_t kPixels = 1 << 15;  // pixels of a channel's maps that are worth a thread

struct Layer {
  int64_t batch, channels, size;
  bool pooled;
  Window pool;
  Channel channel() const { return {batch, size, channels * size}; }
  int64_t outputs() const { return pooled ? pool.P * pool.Q : size; }
  const Window* window() const { return pooled ? &pool : nullptr; }
  int64_t grain() const { return std::max<int64_t>(1, kPixels / std::max<int64_t>(1, batch * size)); }
};

Layer layer_of(const at::Tensor& x, at::IntArrayRef g) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.scalar_type() == at::kFloat && x.is_contiguous(), "norm: expected contiguous float32 maps");
  Layer layer{x.size(0), x.size(1), x.size(2) * x.size(3), !g.empty(), {}};
  if (layer.pooled) {
    TORCH_CHECK_VALUE(g.size() == 10 && g[2] * g[3] <= 255, "norm: expected the 10 numbers of a pool of at most 255 taps");
    check_pool(x.size(2), x.size(3), g);
    layer.pool = {x.size(2), x.size(3), g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
  }
  return layer;
}

void check_values(const at::Tensor& values, int64_t channels) {
  TORCH_CHECK_VALUE(values.scalar_type() == at::kFloat && values.is_contiguous() && values.numel() == channels,
      "norm: expected one float32 a channel");
}

const float* values_of(const std::optional<at::Tensor>& values, int64_t channels) {
  if (!values) return nullptr;
  check_values(*values, channels);
  return values->const_data_ptr<float>();
}

// (y, winner, mean, variance): by the statistics of the batch, or by those given.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm(const at::Tensor& x, const std::optional<at::Tensor>& scale,
    const std::optional<at::Tensor>& shift, const std::optional<at::Tensor>& given_mean, const std::optional<at::Tensor>& given_variance,
    double eps, bool relu, at::IntArrayRef pool, bool with_winners) {
  const Layer layer = layer_of(x, pool);
  const int64_t C = layer.channels, outputs = layer.outputs();
  const float *by = values_of(scale, C), *plus = values_of(shift, C);
  const float *known_mean = values_of(given_mean, C), *known_variance = values_of(given_variance, C);
  const at::Tensor y = layer.pooled ? HeldMemory::tensor({layer.batch, C, layer.pool.P, layer.pool.Q}, at::kFloat)
                                    : HeldMemory::tensor(x.sizes(), at::kFloat);
  const auto bytes = x.options().dtype(at::kByte);
  const at::Tensor winner = with_winners && layer.pooled ? at::empty(y.sizes(), bytes) : at::empty({0}, bytes);
  const at::Tensor mean = at::empty({C}, x.options()), variance = at::empty({C}, x.options());
  const float* from = x.const_data_ptr<float>();
  float *to = y.mutable_data_ptr<float>(), *means = mean.mutable_data_ptr<float>(), *variances = variance.mutable_data_ptr<float>();
  uint8_t* taps = winner.numel() ? winner.mutable_data_ptr<uint8_t>() : nullptr;
  const auto& table = kernels().norm;
  at::parallel_for(0, C, layer.grain(), [&](int64_t begin, int64_t end) {
    std::vector<float> map(layer.pooled ? layer.size + kSlack : 0);
    for (int64_t c = begin; c < end; ++c) {
      double m = known_mean ? known_mean[c] : 0, v = known_variance ? known_variance[c] : 0;
      if (!known_mean) table.moments(layer.channel(), from + c * layer.size, &m, &v);
      means[c] = static_cast<float>(m);
      variances[c] = static_cast<float>(v);
      const double slope = (by ? by[c] : 1.0) / std::sqrt(v + eps);
      table.normalise(layer.channel(), from + c * layer.size, means[c], static_cast<float>(slope), plus ? plus[c] : 0.0f, relu,
          layer.window(), to + c * outputs, C * outputs, taps ? taps + c * outputs : nullptr, map.data());
    }
  });
  return {y, winner, mean, variance};
}

// (dx, dscale, dshift)
std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& y,
    const at::Tensor& winner, const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& shift, const at::Tensor& mean,
    const at::Tensor& variance, bool by_batch, double eps, bool relu, at::IntArrayRef pool) {
  const Layer layer = layer_of(x, pool);
  const int64_t C = layer.channels, outputs = layer.outputs();
  check_values(mean, C);
  check_values(variance, C);
  TORCH_CHECK_VALUE(dy.is_contiguous() && dy.scalar_type() == at::kFloat && dy.numel() == layer.batch * C * outputs, "norm_backward: dy does not fit");
  TORCH_CHECK_VALUE(!layer.pooled || (y.is_contiguous() && y.sizes() == dy.sizes() && winner.is_contiguous() && winner.sizes() == dy.sizes() &&
      winner.scalar_type() == at::kByte), "norm_backward: y and winner do not fit dy");
  std::vector<int64_t> offset;
  for (int64_t i = 0; layer.pooled && i < layer.pool.kh; ++i) {
    for (int64_t j = 0; j < layer.pool.kw; ++j) offset.push_back(i * layer.pool.dh * layer.pool.W + j * layer.pool.dw);
  }
  const float *by = values_of(scale, C), *plus = values_of(shift, C);
  const at::Tensor dx = HeldMemory::tensor(x.sizes(), at::kFloat);
  const at::Tensor dscale = at::empty({C}, x.options()), dshift = at::empty({C}, x.options());
  const float *from = x.const_data_ptr<float>(), *d = dy.const_data_ptr<float>();
  const float *means = mean.const_data_ptr<float>(), *variances = variance.const_data_ptr<float>();
  const float* result = layer.pooled ? y.const_data_ptr<float>() : nullptr;
  const uint8_t* taps = layer.pooled ? winner.const_data_ptr<uint8_t>() : nullptr;
  float *to = dx.mutable_data_ptr<float>(), *dby = dscale.mutable_data_ptr<float>(), *dplus = dshift.mutable_data_ptr<float>();
  const auto& table = kernels().norm;
  at::parallel_for(0, C, layer.grain(), [&](int64_t begin, int64_t end) {
    std::vector<float> row(layer.pooled ? outputs : 0);
    for (int64_t c = begin; c < end; ++c) {
      const double rate = 1.0 / std::sqrt(static_cast<double>(variances[c]) + eps), slope = (by ? by[c] : 1.0) * rate;
      const int64_t first = c * outputs;
      double sums[2];
      table.through_relu(layer.channel(), from + c * layer.size, means[c], static_cast<float>(slope), plus ? plus[c] : 0.0f, relu,
          layer.window(), offset.data(), d + first, result ? result + first : nullptr, taps ? taps + first : nullptr, C * outputs,
          to + c * layer.size, row.data(), sums);
      dplus[c] = static_cast<float>(sums[0]);
      dby[c] = static_cast<float>(sums[1] * rate);
      const double count = by_batch ? layer.channel().count() : 0;
      const double even = by_batch ? sums[0] / count : 0, along = by_batch ? sums[1] * rate * rate / count : 0;
      table.through_norm(layer.channel(), from + c * layer.size, means[c], static_cast<float>(slope), static_cast<float>(even),
          static_cast<float>(along), to + c * layer.size);
    }
  });
  return {dx, dscale, dshift};
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("norm(Tensor x, Tensor? scale, Tensor? shift, Tensor? mean, Tensor? variance, float eps, bool relu, int[] pool, bool with_winners)"
        " -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("norm_backward(Tensor dy, Tensor x, Tensor y, Tensor winner, Tensor? scale, Tensor? shift, Tensor mean, Tensor variance,"
        " bool by_batch, float eps, bool relu, int[] pool) -> (Tensor, Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("norm", twofold::norm);
  m.impl("norm_backward", twofold::norm_backward);
}
