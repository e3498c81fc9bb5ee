// Layers as nodes of autograd.
//
//   convolve    y = pool(relu(W * x + b)), ReLU and pool where they are asked for; depthwise alone
//   normalise   y = pool(relu((x - m) scale / sqrt(v + eps) + shift)), likewise
//   dense       y = relu(x W' + b), likewise
//   pool        y = max pool of x, in either layout
//
// The kernels compute, this file differentiates: a node in C++ costs a few microseconds where a Python function between autograd and
// the kernels costs a hundred, which is more than small maps take. The backward pass may itself be differentiated: then the layer is
// computed anew by PyTorch's own operators with autograd watching, so that no term of a second derivative is lost.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/div.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scatter_add.h>
#include <ATen/ops/square.h>
#include <ATen/ops/threshold_backward.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

namespace twofold {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Numbers = std::vector<int64_t>;
using Maybe = std::optional<Tensor>;

constexpr int64_t kHeld = 1 << 15;  // C F, above which the direct kernel's sums of a weight gradient leave the second cache
constexpr int64_t kMany = 24;       // channels and filters from which on Winograd's algorithm serves (bind_convolution.cpp)

// The operator of this name, found once. It is called beneath autograd.
template <class Signature>
auto operation(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

bool wants(const Tensor& x) { return x.defined() && x.requires_grad(); }
bool wants(const Maybe& x) { return x && wants(*x); }

template <class... Tensors>
bool watched(const Tensors&... given) {
  return at::GradMode::is_enabled() && (wants(given) || ...);
}

Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : Maybe(); }

// The gradients of y with respect to those of `inputs` that want one, in a graph of their own; undefined for the others.
variable_list anew(const Tensor& y, const variable_list& inputs, const Tensor& dy) {
  variable_list asked;
  for (const Tensor& x : inputs) {
    if (wants(x)) asked.push_back(x);
  }
  const variable_list found = torch::autograd::grad({y}, asked, {dy}, true, true, true);
  variable_list all(inputs.size());
  for (size_t n = 0, at = 0; n < inputs.size(); ++n) {
    if (wants(inputs[n])) all[n] = found[at++];
  }
  return all;
}

// What of an axis of the map lies behind the last window is cut off, what windows see beyond it is padding: PyTorch's operators then
// have the same windows whatever the rounding was. {left, right, top, bottom} for geometry P Q kh kw sh sw top left dh dw.
Numbers sides(at::IntArrayRef g, int64_t H, int64_t W) {
  const auto after = [](int64_t windows, int64_t taps, int64_t stride, int64_t before, int64_t dilation, int64_t size) {
    return (windows - 1) * stride + (taps - 1) * dilation + 1 - before - size;
  };
  return {g[7], after(g[1], g[3], g[5], g[7], g[9], W), g[6], after(g[0], g[2], g[4], g[6], g[8], H)};
}

// The map in its frame. It is cut off behind after it was padded: windows may see padding alone.
Tensor framed(const Tensor& x, const Numbers& frame, double value = 0) {
  Numbers added = frame;
  for (int64_t& side : added) side = std::max<int64_t>(side, 0);
  const Tensor whole = at::constant_pad_nd(x, added, value);
  return whole.slice(3, 0, whole.size(3) + std::min<int64_t>(frame[1], 0)).slice(2, 0, whole.size(2) + std::min<int64_t>(frame[3], 0));
}

// The map (H W) out of its frame, 0 where it was cut off.
Tensor unframed(const Tensor& x, const Numbers& frame, int64_t H, int64_t W) {
  const Numbers added{0, std::max<int64_t>(-frame[1], 0), 0, std::max<int64_t>(-frame[3], 0)};
  return at::constant_pad_nd(x, added).narrow(2, frame[2], H).narrow(3, frame[0], W).contiguous();
}

// Whether the same padding on both sides gives as many windows.
bool even(at::IntArrayRef g, int64_t H, int64_t W) {
  const auto windows = [](int64_t size, int64_t before, int64_t taps, int64_t stride, int64_t dilation) {
    const int64_t room = size + 2 * before - dilation * (taps - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
  };
  return windows(H, g[6], g[2], g[4], g[8]) == g[0] && windows(W, g[7], g[3], g[5], g[9]) == g[1];
}

Tensor pooled_again(const Tensor& y, const Numbers& pool) {
  if (pool.empty()) return y;
  const Tensor whole = framed(y, sides(pool, y.size(2), y.size(3)), -std::numeric_limits<double>::infinity());
  return at::max_pool2d(whole, {pool[2], pool[3]}, {pool[4], pool[5]}, 0, {pool[8], pool[9]});
}

// dy through the pool and the ReLU, for which y > 0 (or NaN) says where it was open.
Tensor deactivated(const Tensor& dy, const Tensor& y, const Tensor& winner, bool relu, const Numbers& pool, int64_t P, int64_t Q) {
  static const auto spread = operation<Tensor(const Tensor&, const Tensor&, at::IntArrayRef, int64_t, int64_t)>("twofold::max_pool2d_backward");
  Tensor da = relu ? at::threshold_backward(dy, y, 0) : dy;
  return pool.empty() ? da.contiguous() : spread.call(da.contiguous(), winner, pool, P, Q);
}

// Whether every filter sees one channel of many: that has kernels of its own.
bool depthwise(const Tensor& x, const Tensor& weight, int64_t groups) { return groups > 1 && groups == x.size(1) && weight.size(1) == 1; }

// (dx, dweight, dbias), undefined where not wanted. PyTorch's own operator computes what the kernels do not: dx with a stride, and the
// gradient of weights that are too many to be held per thread.
std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, at::IntArrayRef g,
    int64_t groups, bool bias, bool with_dx, bool with_dweight, int64_t algorithm, bool reduced) {
  using Dx = Tensor(const Tensor&, const Tensor&, at::IntArrayRef, int64_t, int64_t, int64_t, int64_t, bool);
  using Dweight = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, at::IntArrayRef, int64_t, bool, int64_t, bool);
  static const auto dx_of = operation<Dx>("twofold::convolution_dx");
  static const auto dweight_of = operation<Dweight>("twofold::convolution_dweight");
  if (algorithm == 0 && depthwise(x, weight, groups)) {
    using Depthwise = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, at::IntArrayRef, bool, bool);
    static const auto depthwise_back = operation<Depthwise>("twofold::depthwise2d_backward");
    auto [dx, dweight, dbias] = depthwise_back.call(dy, x, weight, g, with_dx, with_dweight);
    return {with_dx ? dx : Tensor(), with_dweight ? dweight : Tensor(), with_dweight && bias ? dbias : Tensor()};
  }
  const bool dx_here = g[4] == 1 && g[5] == 1;
  const bool tiled = g[2] == 3 && g[3] == 3 && dx_here && g[8] == 1 && g[9] == 1 && g[0] > 1 && g[1] > 1;
  const int64_t channels = weight.size(1), filters_each = weight.size(0) / groups;
  const bool chosen = algorithm == 2 || (algorithm == 0 && std::min(channels, filters_each) >= kMany);
  const bool dweight_here = channels * filters_each <= kHeld || (tiled && chosen);
  const bool dx_there = with_dx && !dx_here, dweight_there = with_dweight && !dweight_here;
  Tensor dx, dweight, dbias;
  if (dx_there || dweight_there) {
    const int64_t filters[] = {weight.size(0)};
    const auto back = [&](const Tensor& map, at::IntArrayRef padding) {
      return at::convolution_backward(dy, map, weight, bias ? at::OptionalIntArrayRef(filters) : std::nullopt, g.slice(4, 2), padding,
          g.slice(8, 2), false, {0, 0}, groups, {dx_there, dweight_there, dweight_there && bias});
    };
    if (even(g, x.size(2), x.size(3))) {
      std::tie(dx, dweight, dbias) = back(x, g.slice(6, 2));
    } else {
      const Numbers frame = sides(g, x.size(2), x.size(3));
      std::tie(dx, dweight, dbias) = back(framed(x, frame), at::IntArrayRef{0, 0});
      if (dx_there) dx = unframed(dx, frame, x.size(2), x.size(3));
    }
  }
  if (with_dx && dx_here) dx = dx_of.call(dy, weight, g, groups, x.size(2), x.size(3), algorithm, reduced);
  if (with_dweight && dweight_here) std::tie(dweight, dbias) = dweight_of.call(x, dy, g, groups, bias, algorithm, reduced);
  return {dx, dweight, bias ? dbias : Tensor()};
}

std::tuple<Tensor, Tensor> convolved(const Tensor& x, const Tensor& weight, const Maybe& bias, const Numbers& geometry, int64_t groups,
    bool relu, const Numbers& pool, bool reduced, bool with_winners) {
  using Whole = Tensor(const Tensor&, const Tensor&, const Maybe&, at::IntArrayRef, int64_t, bool, int64_t, bool);
  using Pooled = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Maybe&, at::IntArrayRef, bool, at::IntArrayRef, bool, int64_t, bool);
  static const auto whole = operation<Whole>("twofold::convolution");
  static const auto pooled = operation<Pooled>("twofold::convolution_max_pool");
  const at::AutoDispatchBelowADInplaceOrView beneath;
  if (depthwise(x, weight, groups) && !relu && pool.empty()) {
    static const auto alone = operation<Tensor(const Tensor&, const Tensor&, const Maybe&, at::IntArrayRef)>("twofold::depthwise2d");
    return {alone.call(x, weight, bias, geometry), Tensor()};
  }
  if (pool.empty()) return {whole.call(x, weight, bias, geometry, groups, relu, 0, reduced), Tensor()};
  return pooled.call(x, weight, bias, geometry, relu, pool, with_winners, 0, reduced);
}

struct Convolve : Function<Convolve> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const Maybe& bias, Numbers geometry, int64_t groups,
      bool relu, Numbers pool, bool reduced) {
    auto [y, winner] = convolved(x, weight, bias, geometry, groups, relu, pool, reduced, true);
    ctx->save_for_backward({x, weight, bias.value_or(Tensor()), relu || !pool.empty() ? y : Tensor(), winner});
    ctx->saved_data["numbers"] = c10::IValue(std::make_tuple(std::move(geometry), groups, relu, std::move(pool), reduced));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &dy = came[0], &x = saved[0], &weight = saved[1], &bias = saved[2];
    const auto [g, groups, relu, pool, reduced] = ctx->saved_data["numbers"].to<std::tuple<Numbers, int64_t, bool, Numbers, bool>>();
    variable_list found(8);
    if (at::GradMode::is_enabled()) {
      const Tensor whole = framed(x, sides(g, x.size(2), x.size(3)));
      const Tensor a = at::conv2d(whole, weight, maybe(bias), {g[4], g[5]}, at::IntArrayRef{0, 0}, {g[8], g[9]}, groups);
      const variable_list again = anew(pooled_again(relu ? at::relu(a) : a, pool), {x, weight, bias}, dy);
      std::copy(again.begin(), again.end(), found.begin());
      return found;
    }
    const Tensor da = deactivated(dy, saved[3], saved[4], relu, pool, g[0], g[1]);
    const bool with_dweight = ctx->needs_input_grad(1) || (bias.defined() && ctx->needs_input_grad(2));
    std::tie(found[0], found[1], found[2]) = convolution_backward(da, x, weight, g, groups, bias.defined(), ctx->needs_input_grad(0), with_dweight, 0, reduced);
    return found;
  }
};

Tensor convolve(const Tensor& x, const Tensor& weight, const Maybe& bias, at::IntArrayRef geometry, int64_t groups, bool relu,
    at::IntArrayRef pool, bool reduced) {
  TORCH_CHECK_VALUE(pool.empty() || (pool.size() == 10 && groups == 1 && pool[2] * pool[3] <= 255), "convolve: expected a pool of at most 255 taps, one group");
  if (watched(x, weight, bias)) return Convolve::apply(x, weight, bias, geometry.vec(), groups, relu, pool.vec(), reduced);
  return std::get<0>(convolved(x, weight, bias, geometry.vec(), groups, relu, pool.vec(), reduced, false));
}

using Normalised = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // y, winner, mean, variance

Normalised normalised(const Tensor& x, const Maybe& scale, const Maybe& shift, const Maybe& mean, const Maybe& variance, double eps, bool relu,
    const Numbers& pool, bool with_winners) {
  using Norm = Normalised(const Tensor&, const Maybe&, const Maybe&, const Maybe&, const Maybe&, double, bool, at::IntArrayRef, bool);
  static const auto norm = operation<Norm>("twofold::norm");
  const at::AutoDispatchBelowADInplaceOrView beneath;
  return norm.call(x, scale, shift, mean, variance, eps, relu, pool, with_winners);
}

struct Normalise : Function<Normalise> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Maybe& scale, const Maybe& shift, const Maybe& mean,
      const Maybe& variance, double eps, bool relu, Numbers pool) {
    auto [y, winner, used_mean, used_variance] = normalised(x, scale, shift, mean, variance, eps, relu, pool, true);
    ctx->save_for_backward({x, scale.value_or(Tensor()), shift.value_or(Tensor()), pool.empty() ? Tensor() : y, winner, used_mean, used_variance});
    ctx->saved_data["numbers"] = c10::IValue(std::make_tuple(mean.has_value(), eps, relu, std::move(pool)));
    ctx->mark_non_differentiable({used_mean, used_variance});
    return {y, used_mean, used_variance};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    using Back = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Maybe&, const Maybe&,
        const Tensor&, const Tensor&, bool, double, bool, at::IntArrayRef);
    static const auto back = operation<Back>("twofold::norm_backward");
    const auto saved = ctx->get_saved_variables();
    const Tensor &dy = came[0], &x = saved[0], &scale = saved[1], &shift = saved[2], &mean = saved[5], &variance = saved[6];
    const auto [given, eps, relu, pool] = ctx->saved_data["numbers"].to<std::tuple<bool, double, bool, Numbers>>();
    variable_list found(8);
    if (at::GradMode::is_enabled()) {
      const auto each = [](const Tensor& values) { return values.view({1, -1, 1, 1}); };
      const Tensor away = x - (given ? each(mean) : x.mean({0, 2, 3}, true));
      Tensor a = away * ((given ? each(variance) : away.square().mean({0, 2, 3}, true)) + eps).rsqrt();
      if (scale.defined()) a = a * each(scale);
      if (shift.defined()) a = a + each(shift);
      const variable_list again = anew(pooled_again(relu ? at::relu(a) : a, pool), {x, scale, shift}, dy);
      std::copy(again.begin(), again.end(), found.begin());
      return found;
    }
    std::tie(found[0], found[1], found[2]) = back.call(dy.contiguous(), x, saved[3].defined() ? saved[3] : dy, saved[4], maybe(scale), maybe(shift),
        mean, variance, !given, eps, relu, pool);
    if (!scale.defined()) found[1] = Tensor();
    if (!shift.defined()) found[2] = Tensor();
    return found;
  }
};

std::tuple<Tensor, Tensor, Tensor> normalise(const Tensor& x, const Maybe& scale, const Maybe& shift, const Maybe& mean, const Maybe& variance,
    double eps, bool relu, at::IntArrayRef pool) {
  if (!watched(x, scale, shift)) {
    auto [y, winner, used_mean, used_variance] = normalised(x, scale, shift, mean, variance, eps, relu, pool.vec(), false);
    return {y, used_mean, used_variance};
  }
  const variable_list came = Normalise::apply(x, scale, shift, mean, variance, eps, relu, pool.vec());
  return {came[0], came[1], came[2]};
}

Tensor dense_beneath(const Tensor& x, const Tensor& weight, const Maybe& bias, bool relu) {
  static const auto linear = operation<Tensor(const Tensor&, const Tensor&, const Maybe&, bool)>("twofold::linear");
  const at::AutoDispatchBelowADInplaceOrView beneath;
  return linear.call(x, weight, bias, relu);
}

struct Dense : Function<Dense> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const Maybe& bias, bool relu) {
    const Tensor y = dense_beneath(x, weight, bias, relu);
    ctx->save_for_backward({x, weight, bias.value_or(Tensor()), relu ? y : Tensor()});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    using Back = std::tuple<Tensor, Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, bool, bool, bool);
    static const auto back = operation<Back>("twofold::linear_backward");
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2], &y = saved[3];
    variable_list found(4);
    if (at::GradMode::is_enabled()) {
      const Tensor a = at::linear(x, weight, maybe(bias));
      const variable_list again = anew(y.defined() ? at::relu(a) : a, {x, weight, bias}, came[0]);
      std::copy(again.begin(), again.end(), found.begin());
      return found;
    }
    const Tensor dy = (y.defined() ? at::threshold_backward(came[0], y, 0) : came[0]).contiguous();
    const bool wants_input = ctx->needs_input_grad(0), wants_weight = ctx->needs_input_grad(1), wants_bias = bias.defined() && ctx->needs_input_grad(2);
    auto [dx, dweight, dbias] = back.call(dy, x, weight, wants_input, wants_weight, wants_bias);
    if (wants_input) found[0] = dx;
    if (wants_weight) found[1] = dweight;
    if (wants_bias) found[2] = dbias;
    return found;
  }
};

Tensor dense(const Tensor& x, const Tensor& weight, const Maybe& bias, bool relu) {
  return watched(x, weight, bias) ? Dense::apply(x, weight, bias, relu) : dense_beneath(x, weight, bias, relu);
}

using Max = std::tuple<Tensor, Tensor>(const Tensor&, at::IntArrayRef, int64_t);

std::tuple<Tensor, Tensor> largest(const Tensor& x, at::IntArrayRef geometry, bool with_winners) {
  static const auto first = operation<Max>("twofold::max_pool2d"), last = operation<Max>("twofold::max_pool2d_last");
  const at::AutoDispatchBelowADInplaceOrView beneath;
  const int64_t tap_bytes = !with_winners ? 0 : geometry[2] * geometry[3] <= 255 ? 1 : 4;
  return (x.is_contiguous() ? first : last).call(x, geometry, tap_bytes);
}

// dx by an operator that autograd knows: every dy goes to the pixel that won.
Tensor spread_again(const Tensor& dy, const Tensor& winner, const Numbers& g, int64_t H, int64_t W) {
  const auto whole = dy.options().dtype(at::kLong);
  const Tensor tap = winner.to(at::kLong), row = at::div(tap, g[3], "floor");
  const Tensor down = at::arange(g[0], whole).mul(g[4]).sub(g[6]).unsqueeze(1), across = at::arange(g[1], whole).mul(g[5]).sub(g[7]);
  const Tensor place = (down + row * g[8]) * W + across + (tap - row * g[3]) * g[9];
  return at::scatter_add(at::zeros({dy.size(0), dy.size(1), H * W}, dy.options()), 2, place.flatten(2), dy.flatten(2)).view({dy.size(0), dy.size(1), H, W});
}

struct Pool : Function<Pool> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, Numbers geometry) {
    auto [y, winner] = largest(x, geometry, true);
    ctx->save_for_backward({winner});
    ctx->saved_data["numbers"] = c10::IValue(std::make_tuple(x.size(2), x.size(3), std::move(geometry)));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    using Back = Tensor(const Tensor&, const Tensor&, at::IntArrayRef, int64_t, int64_t);
    static const auto first = operation<Back>("twofold::max_pool2d_backward"), last = operation<Back>("twofold::max_pool2d_last_backward");
    const Tensor winner = ctx->get_saved_variables()[0];
    const auto [H, W, g] = ctx->saved_data["numbers"].to<std::tuple<int64_t, int64_t, Numbers>>();
    if (at::GradMode::is_enabled()) return {spread_again(came[0], winner, g, H, W), Tensor()};
    if (winner.is_contiguous()) return {first.call(came[0].contiguous(), winner, g, H, W), Tensor()};
    return {last.call(came[0].contiguous(at::MemoryFormat::ChannelsLast), winner, g, H, W), Tensor()};
  }
};

Tensor pool(const Tensor& x, at::IntArrayRef geometry) {
  TORCH_CHECK_VALUE(geometry.size() == 10, "pool: expected 10 numbers of geometry, got ", geometry.size());
  return watched(x) ? Pool::apply(x, geometry.vec()) : std::get<0>(largest(x, geometry, false));
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("convolution_backward(Tensor dy, Tensor x, Tensor weight, int[] geometry, int groups, bool bias, bool with_dx, bool with_dweight,"
        " int algorithm, bool reduced) -> (Tensor, Tensor, Tensor)", twofold::convolution_backward);
  m.def("convolve(Tensor x, Tensor weight, Tensor? bias, int[] geometry, int groups, bool relu, int[] pool, bool reduced) -> Tensor",
      twofold::convolve);
  m.def("normalise(Tensor x, Tensor? scale, Tensor? shift, Tensor? mean, Tensor? variance, float eps, bool relu, int[] pool)"
        " -> (Tensor, Tensor, Tensor)", twofold::normalise);
  m.def("dense(Tensor x, Tensor weight, Tensor? bias, bool relu) -> Tensor", twofold::dense);
  m.def("pool(Tensor x, int[] geometry) -> Tensor", twofold::pool);
}
