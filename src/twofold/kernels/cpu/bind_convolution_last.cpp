// Convolution of maps that lie channels last, of float32 or bfloat16, as torch sees it.
//
//   3x3 taps, stride 1   Winograd's algorithm (winograd_last.h), forward and both gradients
//   1x1 taps             matrix products (pointwise.h), for the maps are matrices already, pixels by channels: forward and dx, for bfloat16
//                        of an even number of channels; dW is PyTorch's
//
// Weights are of float32, or for maps of bfloat16 of that; the gradient of 3x3 weights is summed in float32 and never rounded.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "pointwise_plan.h"

namespace twofold {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;
using Numbers = std::vector<int64_t>;

constexpr auto kLast = at::MemoryFormat::ChannelsLast;

void check_map(const Tensor& map, const char* name) {
  const bool known = map.scalar_type() == at::kFloat || map.scalar_type() == at::kBFloat16;
  TORCH_CHECK_VALUE(map.dim() == 4 && known && map.is_contiguous(kLast),
      "convolution_last: expected ", name, " to be float32 or bfloat16 of four axes, channels last");
}

// The map's numbers, if they are of this kind.
template <class Number>
const Number* read(const Tensor& map) {
  constexpr auto wanted = std::is_same_v<Number, float> ? at::kFloat : at::kBFloat16;
  TORCH_CHECK_VALUE(map.scalar_type() == wanted, "convolution_last: expected maps of ", wanted, ", got one of ", map.scalar_type());
  return static_cast<const Number*>(map.const_data_ptr());
}
template <class Number>
Number* write(const Tensor& map) { return static_cast<Number*>(map.mutable_data_ptr()); }

// work(a number of the map's kind)
template <class Work>
auto by_kind(const Tensor& map, Work work) { return map.scalar_type() == at::kFloat ? work(float{}) : work(Half{}); }

// Weights (and what lies like them) in float32, channels last.
Tensor laid_out(const Tensor& weight) { return weight.to(at::kFloat).contiguous(kLast); }

Tensor empty_map(const Tensor& like, int64_t batch, int64_t channels, int64_t height, int64_t width) {
  return HeldMemory::tensor({batch, channels, height, width}, like.scalar_type(), kLast);
}

// geometry: P Q kh kw sh sw top left dh dw
Convolution checked(int64_t C, int64_t F, int64_t H, int64_t W, at::IntArrayRef g) {
  TORCH_CHECK_VALUE(g.size() == 10, "convolution_last: expected 10 numbers of geometry, got ", g.size());
  for (const int64_t size : {C, F, H, W, g[0], g[1]}) {
    TORCH_CHECK_VALUE(size >= 1 && size < kLimit, "convolution_last: a size of ", size, " is out of range");
  }
  for (const int64_t padding : {g[6], g[7]}) {
    TORCH_CHECK_VALUE(padding > -kLimit && padding < kLimit, "convolution_last: padding of ", padding, " is out of range");
  }
  TORCH_CHECK_VALUE(g[2] == 3 && g[3] == 3 && g[4] == 1 && g[5] == 1 && g[8] == 1 && g[9] == 1,
      "convolution_last: expected 3x3 taps, stride 1 and dilation 1");
  return {C, F, H, W, g[0], g[1], 3, 3, 1, 1, g[6], g[7], 1, 1};
}

template <class Number>
Winograd<Number> way_of(const Convolution& c) {
  const WinogradTable<Number>* found = winograd_last_kernels<Number>();
  TORCH_CHECK_VALUE(found, "convolution_last: needs a processor with AVX512_BF16");
  return {*found, c};
}

template <class Number>
void correlate(const Winograd<Number>& way, int64_t batch, const Number* x, const float* packed, bool relu, Number* y) {
  const Convolution& c = way.c;
  const int64_t x_image = c.H * c.W * c.C, y_image = c.P * c.Q * c.F;
  if (worth_sharing(way)) return winograd_together(way, batch, x, x_image, packed, relu, y, y_image);
  const Cut blocks = way.own_blocks(batch, 1, false);
  share(c, blocks, [&](int64_t begin, int64_t end, int64_t) {
    const Memory scratch = memory(way.block_floats(blocks.first, false));
    for (int64_t block = begin; block < end; ++block) {
      const Frame frame = blocks.frame(tiles_of(c), block);
      Number* to = y + blocks.image(block) * y_image + frame.row * 2 * way.row();
      winograd_block(way, frame, x + blocks.image(block) * x_image, x_image, packed, relu, to, y_image, 0, scratch.get());
    }
  });
}

// By Winograd's algorithm, of weights that are packed already.
template <class Number>
Tensor convolved_packed(const Winograd<Number>& way, const Tensor& x, const float* packed, bool relu) {
  const Tensor y = empty_map(x, x.size(0), way.c.F, way.c.P, way.c.Q);
  if (x.size(0)) correlate(way, x.size(0), read<Number>(x), packed, relu, write<Number>(y));
  return y;
}

Tensor convolution(const Tensor& x, const Tensor& weight, const Maybe& bias, at::IntArrayRef geometry, bool relu) {
  check_map(x, "x");
  const Convolution c = checked(x.size(1), weight.size(0), x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(weight.size(1) == c.C && weight.size(2) == 3 && weight.size(3) == 3, "convolution_last: weight and x do not fit");
  const Tensor w = laid_out(weight), b = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  return by_kind(x, [&](auto kind) {
    const auto way = way_of<decltype(kind)>(c);
    const Memory packed = pack_winograd(way, w.const_data_ptr<float>(), bias ? b.const_data_ptr<float>() : nullptr, false);
    return convolved_packed(way, x, packed.get(), relu);
  });
}

Tensor dx_of(const Tensor& dy, const Tensor& weight, at::IntArrayRef geometry, int64_t H, int64_t W) {
  check_map(dy, "dy");
  const Convolution c = checked(weight.size(1), weight.size(0), H, W, geometry);
  TORCH_CHECK_VALUE(dy.size(1) == c.F && dy.size(2) == c.P && dy.size(3) == c.Q, "convolution_last: dy and weight do not fit");
  const Tensor w = laid_out(weight);
  return by_kind(dy, [&](auto kind) {
    const auto way = way_of<decltype(kind)>({c.F, c.C, c.P, c.Q, H, W, 3, 3, 1, 1, 2 - c.top, 2 - c.left, 1, 1});
    return convolved_packed(way, dy, pack_winograd(way, w.const_data_ptr<float>(), nullptr, true).get(), false);
  });
}

std::tuple<Tensor, Tensor> dweight_of(const Tensor& x, const Tensor& dy, at::IntArrayRef geometry, bool with_bias) {
  check_map(x, "x");
  check_map(dy, "dy");
  const Convolution c = checked(x.size(1), dy.size(1), x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(dy.size(0) == x.size(0) && dy.size(2) == c.P && dy.size(3) == c.Q, "convolution_last: x and dy do not fit");
  const auto options = x.options().dtype(at::kFloat);
  const Tensor dweight = at::empty({c.F, c.C, 3, 3}, options.memory_format(kLast));
  const Tensor dbias = with_bias ? at::zeros({c.F}, options) : Tensor();
  if (!x.size(0)) return {dweight.zero_(), dbias};
  by_kind(x, [&](auto kind) {
    using Number = decltype(kind);
    winograd_gradient(way_of<Number>(c), x.size(0), read<Number>(x), c.H * c.W * c.C, read<Number>(dy), c.P * c.Q * c.F,
        dweight.mutable_data_ptr<float>(), with_bias ? dbias.mutable_data_ptr<float>() : nullptr);
  });
  return {dweight, dbias};
}

// The pixels that 1x1 taps with a stride see, as a matrix: pixels by channels.
Tensor pixels(const Tensor& x, int64_t down = 1, int64_t right = 1) {
  const Tensor seen = down == 1 && right == 1 ? x : x.slice(2, 0, x.size(2), down).slice(3, 0, x.size(3), right);
  return seen.permute({0, 2, 3, 1}).reshape({-1, x.size(1)});
}

Tensor maps(const Tensor& matrix, int64_t batch, int64_t P, int64_t Q) {
  return matrix.view({batch, P, Q, matrix.size(1)}).permute({0, 3, 1, 2});
}

// Whether the products of 1x1 taps are ours: bfloat16 comes in pairs.
bool ours(const Tensor& x, int64_t summed) { return x.scalar_type() == at::kFloat || summed % 2 == 0; }

template <class Number>
Pointwise<Number> pointwise_of(int64_t C, int64_t F) {
  const PointwiseTable<Number>* found = pointwise_kernels<Number>();
  TORCH_CHECK_VALUE(found, "convolution_last: needs a processor with AVX512_BF16");
  TORCH_CHECK_VALUE((std::is_same_v<Number, float> || C % 2 == 0), "convolution_last: expected an even number of channels of bfloat16, got ", C);
  return {*found, C, F};
}

// Products of matrices: pixels by channels, with weights that are packed already; plus another map and through ReLU, where asked for.
template <class Number>
Tensor multiplied_packed(const Pointwise<Number>& way, const Tensor& pixels, const float* packed, const Maybe& other, bool relu) {
  const Tensor seen = pixels.contiguous(), y = HeldMemory::tensor({seen.size(0), way.F}, seen.scalar_type());
  if (seen.size(0)) way.forward(seen.size(0), read<Number>(seen), packed, other ? read<Number>(*other) : nullptr, relu, write<Number>(y));
  return y;
}

// The same of weights as they come: filters by channels, or turned, channels by filters.
Tensor multiplied(const Tensor& pixels, const Tensor& weight, bool turned, const Maybe& bias) {
  const Tensor w = weight.to(at::kFloat).contiguous(), b = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  return by_kind(pixels, [&](auto kind) {
    const auto way = pointwise_of<decltype(kind)>(pixels.size(1), w.size(turned ? 1 : 0));
    const Memory packed = way.pack(w.const_data_ptr<float>(), turned, bias ? b.const_data_ptr<float>() : nullptr);
    return multiplied_packed(way, pixels, packed.get(), {}, false);
  });
}

// For use: the weights as `convolution_packed` wants them for maps of float32, or half: of bfloat16.
Tensor pack(const Tensor& weight, const Maybe& bias, bool half) {
  TORCH_CHECK_VALUE(weight.dim() == 4 && weight.size(2) == weight.size(3) && (weight.size(2) == 3 || weight.size(2) == 1),
      "convolution_last_pack: expected 3x3 or 1x1 taps");
  const bool whole = weight.size(2) == 3;
  const Convolution c{weight.size(1), weight.size(0), 4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1, 1};
  const Tensor w = laid_out(weight), b = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  const auto kept = [&](int64_t size, const Memory& packed) {
    const Tensor copy = at::empty({size}, w.options().memory_format(at::MemoryFormat::Contiguous));
    std::copy_n(packed.get(), size, copy.mutable_data_ptr<float>());
    return copy;
  };
  const auto packed = [&](auto kind) {
    const float *from = w.const_data_ptr<float>(), *plus = bias ? b.const_data_ptr<float>() : nullptr;
    if (whole) {
      const auto way = way_of<decltype(kind)>(c);
      return kept(way.table.packed_size(c), pack_winograd(way, from, plus, false));
    }
    const auto way = pointwise_of<decltype(kind)>(c.C, c.F);
    return kept(way.table.packed_size(c.C, c.F), way.pack(from, false, plus));
  };
  return half ? packed(Half{}) : packed(float{});
}

// other: a map like y that is added, before the ReLU.
Tensor convolution_packed(const Tensor& x, const Tensor& packed, int64_t filters, at::IntArrayRef geometry, const Maybe& other, bool relu) {
  check_map(x, "x");
  TORCH_CHECK_VALUE(geometry.size() == 10, "convolution_last_packed: expected 10 numbers of geometry, got ", geometry.size());
  const auto expect = [&](int64_t size) {
    TORCH_CHECK_VALUE(packed.scalar_type() == at::kFloat && packed.is_contiguous() && packed.numel() == size,
        "convolution_last_packed: expected the weights of ", filters, " filters of ", x.size(1), " channels, packed for ", x.scalar_type());
    return packed.const_data_ptr<float>();
  };
  if (other) {
    check_map(*other, "the other map");
    const std::vector<int64_t> size{x.size(0), filters, geometry[0], geometry[1]};
    TORCH_CHECK_VALUE(other->sizes() == size && other->scalar_type() == x.scalar_type(), "convolution_last_packed: the other map and y differ");
  }
  if (geometry[2] == 1) {
    const int64_t P = geometry[0], Q = geometry[1], down = geometry[4], right = geometry[5];
    TORCH_CHECK_VALUE(geometry[3] == 1 && down >= 1 && right >= 1 && !geometry[6] && !geometry[7] && P == (x.size(2) - 1) / down + 1 &&
        Q == (x.size(3) - 1) / right + 1, "convolution_last_packed: expected 1x1 taps without padding, and one output for each step");
    return by_kind(x, [&](auto kind) {
      const auto way = pointwise_of<decltype(kind)>(x.size(1), filters);
      const float* weights = expect(way.table.packed_size(x.size(1), filters));
      const Maybe beside = other ? Maybe(pixels(*other).contiguous()) : Maybe();
      return maps(multiplied_packed(way, pixels(x, down, right), weights, beside, relu), x.size(0), P, Q);
    });
  }
  const Convolution c = checked(x.size(1), filters, x.size(2), x.size(3), geometry);
  return by_kind(x, [&](auto kind) {
    const auto way = way_of<decltype(kind)>(c);
    const Tensor y = convolved_packed(way, x, expect(way.table.packed_size(c)), relu && !other);
    if (other) y.add_(*other);
    return relu && other ? y.relu_() : y;
  });
}

Tensor matrix_of(const Tensor& weight, const Tensor& like) { return weight.flatten(1).to(like.scalar_type()); }

Tensor convolved(const Tensor& x, const Tensor& weight, const Maybe& bias, const Numbers& g) {
  if (g[2] == 3) {
    static const auto compute = c10::Dispatcher::singleton().findSchemaOrThrow("twofold::convolution_last", "").typed<decltype(convolution)>();
    return compute.call(x, weight, bias, g, false);
  }
  const Tensor seen = pixels(x, g[4], g[5]);
  const auto product = [&] {
    if (ours(x, x.size(1))) return multiplied(seen, weight.flatten(1), false, bias);
    const Tensor w = matrix_of(weight, x).t();
    return bias ? at::addmm(bias->to(x.scalar_type()), seen, w) : at::mm(seen, w);
  };
  return maps(product(), x.size(0), g[0], g[1]);
}

struct ConvolveLast : torch::autograd::Function<ConvolveLast> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, const Maybe& bias, Numbers geometry) {
    const at::AutoDispatchBelowADInplaceOrView beneath;
    ctx->save_for_backward({x, weight, bias.value_or(Tensor())});
    const Tensor y = convolved(x, weight, bias, geometry);
    ctx->saved_data["geometry"] = c10::IValue(std::move(geometry));
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const Numbers g = ctx->saved_data["geometry"].toIntVector();
    variable_list found(4);
    if (!came[0].defined()) return found;
    if (at::GradMode::is_enabled()) return again(came[0], saved, g);
    const Tensor dy = came[0].to(x.scalar_type()).contiguous(kLast);
    const bool with_bias = bias.defined() && ctx->needs_input_grad(2);
    if (g[2] == 3) {
      if (ctx->needs_input_grad(0)) found[0] = dx_of(dy, weight, g, x.size(2), x.size(3));
      if (ctx->needs_input_grad(1)) std::tie(found[1], found[2]) = dweight_of(x, dy, g, with_bias);
    } else {
      const Tensor d = pixels(dy);
      if (ctx->needs_input_grad(0)) {
        const Tensor dx = ours(d, d.size(1)) ? multiplied(d, weight.flatten(1), true, {}) : at::mm(d, matrix_of(weight, x));
        found[0] = spread(dx, x, g);
      }
      if (ctx->needs_input_grad(1)) found[1] = pointwise_dweight(x, dy, d, weight, g);
    }
    if (with_bias && !found[2].defined()) found[2] = dy.sum({0, 2, 3}, false, at::kFloat);
    if (found[1].defined()) found[1] = found[1].to(weight.scalar_type());
    if (found[2].defined()) found[2] = found[2].to(bias.scalar_type());
    return found;
  }
  // PyTorch's: for float by oneDNN, whose products are the fastest on every processor; those of bfloat16 need no other layout.
  static Tensor pointwise_dweight(const Tensor& x, const Tensor& dy, const Tensor& d, const Tensor& weight, const Numbers& g) {
    if (x.scalar_type() != at::kFloat) return at::mm(d.t(), pixels(x, g[4], g[5])).view(weight.sizes());
    const int64_t none[] = {0, 0}, once[] = {1, 1}, step[] = {g[4], g[5]};
    return std::get<1>(at::convolution_backward(dy, x, weight, {}, step, none, once, false, none, 1, {false, true, false}));
  }
  // dx of 1x1 taps: 0 at pixels that a stride leaves out.
  static Tensor spread(const Tensor& matrix, const Tensor& x, const Numbers& g) {
    const Tensor seen = maps(matrix, x.size(0), g[0], g[1]);
    if (g[4] == 1 && g[5] == 1) return seen;
    const Tensor dx = empty_map(x, x.size(0), x.size(1), x.size(2), x.size(3)).zero_();
    dx.slice(2, 0, x.size(2), g[4]).slice(3, 0, x.size(3), g[5]).copy_(seen);
    return dx;
  }
  // The same by PyTorch's operator, whose derivatives autograd knows.
  static variable_list again(const Tensor& dy, const variable_list& saved, const Numbers& g) {
    const Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const Maybe plus = bias.defined() ? Maybe(bias.to(x.scalar_type())) : Maybe();
    const Tensor y = at::conv2d(x, weight.to(x.scalar_type()), plus, {g[4], g[5]}, {g[6], g[7]});
    variable_list asked, found(4);
    std::vector<int> places;
    for (const int n : {0, 1, 2}) {
      if (saved[n].defined() && saved[n].requires_grad()) asked.push_back(saved[n]), places.push_back(n);
    }
    const variable_list gradients = torch::autograd::grad({y}, asked, {dy}, true, true, true);
    for (size_t n = 0; n < places.size(); ++n) found[places[n]] = gradients[n];
    return found;
  }
};

Tensor convolve(const Tensor& x, const Tensor& weight, const Maybe& bias, at::IntArrayRef geometry) {
  TORCH_CHECK_VALUE(geometry.size() == 10, "convolve_last: expected 10 numbers of geometry, got ", geometry.size());
  check_map(x, "x");
  const bool watched = at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad() || (bias && bias->requires_grad()));
  if (watched) return ConvolveLast::apply(x, weight, bias, geometry.vec());
  const at::AutoDispatchBelowADInplaceOrView beneath;
  return convolved(x, weight, bias, geometry.vec());
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("convolution_last(Tensor x, Tensor weight, Tensor? bias, int[] geometry, bool relu) -> Tensor");
  m.def("convolution_last_dx(Tensor dy, Tensor weight, int[] geometry, int height, int width) -> Tensor");
  m.def("convolution_last_dweight(Tensor x, Tensor dy, int[] geometry, bool bias) -> (Tensor, Tensor)");
  m.def("convolution_last_pack(Tensor weight, Tensor? bias, bool half) -> Tensor");
  m.def("convolution_last_packed(Tensor x, Tensor packed, int filters, int[] geometry, Tensor? other, bool relu) -> Tensor");
  m.def("convolve_last(Tensor x, Tensor weight, Tensor? bias, int[] geometry) -> Tensor", twofold::convolve);
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("convolution_last", twofold::convolution);
  m.impl("convolution_last_dx", twofold::dx_of);
  m.impl("convolution_last_dweight", twofold::dweight_of);
  m.impl("convolution_last_pack", twofold::pack);
  m.impl("convolution_last_packed", twofold::convolution_packed);
}
