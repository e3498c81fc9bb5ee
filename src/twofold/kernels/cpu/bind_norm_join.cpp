// Batch normalisation with a shortcut and ReLU behind it, as torch sees it: checks, channels or pieces of rows shared out among torch's
// threads, and the node of autograd. The sums over pieces are taken in their order, so that no number depends on the threads.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/square.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "dispatch.h"
#include "held_memory.h"

namespace twofold {
namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kPixels = 1 << 15;  // numbers that are worth a thread
constexpr int64_t kPiece = 1 << 15;   // numbers of a piece of rows: it stays in the second cache

struct Maps {
  int64_t batch, channels, size;
  bool last;
  at::MemoryFormat format() const { return last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous; }
  Channel channel() const { return {batch, size, channels * size}; }
  int64_t rows() const { return batch * size; }
  int64_t rows_each() const { return std::clamp<int64_t>(kPiece / std::max<int64_t>(1, channels), 16, 256); }
  int64_t pieces() const { return (rows() + rows_each() - 1) / rows_each(); }
  int64_t grain() const { return std::max<int64_t>(1, kPixels / std::max<int64_t>(1, batch * size)); }
};

Maps maps_of(const Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 4 && x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
      "norm_join: expected maps of float32 or bfloat16");
  const bool first = x.is_contiguous();
  TORCH_CHECK_VALUE(first || x.is_contiguous(at::MemoryFormat::ChannelsLast), "norm_join: expected contiguous maps, channels first or last");
  return {x.size(0), x.size(1), x.size(2) * x.size(3), !first};
}

Tensor empty_map(const Tensor& like, const Maps& maps) { return HeldMemory::tensor(like.sizes(), like.scalar_type(), maps.format()); }

void check_alike(const Tensor& other, const Tensor& x, const Maps& maps) {
  TORCH_CHECK_VALUE(other.sizes() == x.sizes() && other.scalar_type() == x.scalar_type() && other.is_cpu() && other.is_contiguous(maps.format()),
      "norm_join: expected maps of the size, precision and layout of x");
}

const float* values_of(const Maybe& values, int64_t channels) {
  if (!values || !values->defined()) return nullptr;
  TORCH_CHECK_VALUE(values->is_cpu() && values->scalar_type() == at::kFloat && values->is_contiguous() && values->numel() == channels,
      "norm_join: expected one float32 a channel");
  return values->const_data_ptr<float>();
}

template <class T>
const T* read(const Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <class T>
T* write(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}
template <class T>
const NormJoinKernels<T>& table() {
  if constexpr (std::is_same_v<T, float>) return kernels().norm_join;
  else return kernels().norm_join_half;
}

// work(piece, first row, rows) for every piece, in parallel
template <class Work>
void each_piece(const Maps& maps, Work work) {
  const int64_t each = maps.rows_each(), rows = maps.rows();
  at::parallel_for(0, maps.pieces(), std::max<int64_t>(1, kPixels / (each * std::max<int64_t>(1, maps.channels))), [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) work(piece, piece * each, std::min(each, rows - piece * each));
  });
}

// The batch's own mean and variance of every channel.
template <class T>
void moments(const Maps& maps, const T* x, float* mean, float* variance) {
  const int64_t C = maps.channels;
  if (!maps.last) {
    at::parallel_for(0, C, maps.grain(), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        double m, v;
        table<T>().moments(maps.channel(), x + c * maps.size, &m, &v);
        mean[c] = static_cast<float>(m);
        variance[c] = static_cast<float>(v);
      }
    });
    return;
  }
  std::vector<float> means(maps.pieces() * C), squares(maps.pieces() * C);
  each_piece(maps, [&](int64_t piece, int64_t row, int64_t rows) {
    table<T>().row_moments(rows, C, x + row * C, means.data() + piece * C, squares.data() + piece * C);
  });
  const int64_t each = maps.rows_each(), all = maps.rows();
  std::vector<double> centre(C), spread(C);
  for (int64_t piece = 0; piece < maps.pieces(); ++piece) {
    const double share = static_cast<double>(std::min(each, all - piece * each)) / static_cast<double>(all);
    for (int64_t c = 0; c < C; ++c) centre[c] += share * means[piece * C + c];
  }
  for (int64_t piece = 0; piece < maps.pieces(); ++piece) {
    const double rows = static_cast<double>(std::min(each, all - piece * each));
    for (int64_t c = 0; c < C; ++c) {
      const double away = means[piece * C + c] - centre[c];
      spread[c] += squares[piece * C + c] + rows * away * away;
    }
  }
  for (int64_t c = 0; c < C; ++c) {
    mean[c] = static_cast<float>(centre[c]);
    variance[c] = static_cast<float>(spread[c] / static_cast<double>(all));
  }
}

template <class T>
void forward(const Maps& maps, const Tensor& x, const Tensor& shortcut, const float* scale, const float* shift, const float* mean,
    const float* variance, double eps, bool relu, const Tensor& y) {
  const int64_t C = maps.channels;
  std::vector<float> slope(C), base(C);
  for (int64_t c = 0; c < C; ++c) {
    slope[c] = static_cast<float>((scale ? scale[c] : 1.0) / std::sqrt(static_cast<double>(variance[c]) + eps));
    base[c] = shift ? shift[c] : 0.0f;
  }
  const T *from = read<T>(x), *beside = read<T>(shortcut);
  T* to = write<T>(y);
  if (maps.last) {
    const Affines affines{mean, slope.data(), base.data()};
    each_piece(maps, [&](int64_t, int64_t row, int64_t rows) {
      table<T>().row_forward(rows, C, from + row * C, beside ? beside + row * C : nullptr, affines, relu, to + row * C);
    });
    return;
  }
  at::parallel_for(0, C, maps.grain(), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t at = c * maps.size;
      table<T>().forward(maps.channel(), from + at, beside ? beside + at : nullptr, {mean[c], slope[c], base[c]}, relu, to + at);
    }
  });
}

// (y, mean, variance): by the statistics of the batch, or by those given.
std::tuple<Tensor, Tensor, Tensor> norm_join(const Tensor& x, const Maybe& shortcut, const Maybe& scale, const Maybe& shift,
    const Maybe& given_mean, const Maybe& given_variance, double eps, bool relu) {
  const Maps maps = maps_of(x);
  if (shortcut) check_alike(*shortcut, x, maps);
  const float *by = values_of(scale, maps.channels), *plus = values_of(shift, maps.channels);
  const float *known_mean = values_of(given_mean, maps.channels), *known_variance = values_of(given_variance, maps.channels);
  TORCH_CHECK_VALUE(!known_mean == !known_variance, "norm_join: expected mean and variance, or neither");
  TORCH_CHECK_VALUE(known_mean || maps.rows() > 0, "norm_join: an empty batch has no statistics");
  const Tensor y = empty_map(x, maps);
  Tensor mean, variance;
  if (known_mean) {
    mean = *given_mean, variance = *given_variance;
  } else {
    mean = at::empty({maps.channels}, x.options().dtype(at::kFloat)), variance = at::empty({maps.channels}, mean.options());
  }
  const auto compute = [&](auto kind) {
    using T = decltype(kind);
    if (!known_mean) moments<T>(maps, read<T>(x), write<float>(mean), write<float>(variance));
    forward<T>(maps, x, shortcut ? *shortcut : Tensor(), by, plus, read<float>(mean), read<float>(variance), eps, relu, y);
  };
  x.scalar_type() == at::kFloat ? compute(float{}) : compute(Half{});
  return {y, mean, variance};
}

struct Back {
  const float *mean, *variance, *scale;
  bool by_batch;
  double eps;
  float *dscale, *dshift;
  double rate(int64_t c) const { return 1.0 / std::sqrt(static_cast<double>(variance[c]) + eps); }
  float slope(int64_t c) const { return static_cast<float>((scale ? scale[c] : 1.0) * rate(c)); }
  // Keeps the parameters' gradients; {even, along}: what is taken off d because the statistics move with x.
  std::pair<float, float> keep(int64_t c, double even, double along, double count) const {
    dshift[c] = static_cast<float>(even);
    dscale[c] = static_cast<float>(along * rate(c));
    if (!by_batch) return {0.0f, 0.0f};
    return {static_cast<float>(even / count), static_cast<float>(along * rate(c) * rate(c) / count)};
  }
};

// y: null without a ReLU; d: where the gated gradient goes, or dy itself.
template <class T>
void backward(const Maps& maps, const Back& back, const T* x, const T* y, const T* dy, T* d, T* dx) {
  const int64_t C = maps.channels;
  const T* gated = y ? d : dy;
  if (!maps.last) {
    at::parallel_for(0, C, maps.grain(), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        const int64_t at = c * maps.size;
        double sums[2];
        table<T>().gate(maps.channel(), x + at, y ? y + at : nullptr, dy + at, back.mean[c], d + at, sums);
        const auto [even, along] = back.keep(c, sums[0], sums[1], maps.channel().count());
        table<T>().backward(maps.channel(), x + at, gated + at, {back.mean[c], back.slope(c), 0.0f}, even, along, dx + at);
      }
    });
    return;
  }
  std::vector<float> evens(maps.pieces() * C), alongs(maps.pieces() * C), slope(C), even(C), along(C);
  each_piece(maps, [&](int64_t piece, int64_t row, int64_t rows) {
    const int64_t at = row * C;
    table<T>().row_gate(rows, C, x + at, y ? y + at : nullptr, dy + at, back.mean, d + at, evens.data() + piece * C, alongs.data() + piece * C);
  });
  std::vector<double> all_even(C), all_along(C);
  for (int64_t piece = 0; piece < maps.pieces(); ++piece) {
    for (int64_t c = 0; c < C; ++c) {
      all_even[c] += evens[piece * C + c];
      all_along[c] += alongs[piece * C + c];
    }
  }
  for (int64_t c = 0; c < C; ++c) {
    std::tie(even[c], along[c]) = back.keep(c, all_even[c], all_along[c], static_cast<double>(maps.rows()));
    slope[c] = back.slope(c);
  }
  const Affines affines{back.mean, slope.data(), nullptr};
  each_piece(maps, [&](int64_t, int64_t row, int64_t rows) {
    table<T>().row_backward(rows, C, x + row * C, gated + row * C, affines, even.data(), along.data(), dx + row * C);
  });
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // (dx, dshortcut, dscale, dshift)

// y: none where there was no ReLU, and dshortcut, which is dy itself then, is undefined. spend: dy may be written over: it becomes
// dshortcut, or without one dx.
Gradients gradients(const Tensor& dy, const Tensor& x, const Maybe& y, const Maybe& scale, const Tensor& mean, const Tensor& variance,
    bool by_batch, double eps, bool with_shortcut, bool spend) {
  const Maps maps = maps_of(x);
  check_alike(dy, x, maps);
  if (y) check_alike(*y, x, maps);
  const bool gated = with_shortcut && y;
  const auto map = [&](bool over) { return over ? dy : empty_map(x, maps); };
  const Tensor dx = map(spend && !with_shortcut), dshortcut = gated ? map(spend) : Tensor();
  const Tensor dscale = at::empty({maps.channels}, x.options().dtype(at::kFloat)), dshift = at::empty({maps.channels}, dscale.options());
  const float *means = values_of(mean, maps.channels), *variances = values_of(variance, maps.channels);
  const Back back{means, variances, values_of(scale, maps.channels), by_batch, eps, write<float>(dscale), write<float>(dshift)};
  const auto compute = [&](auto kind) {
    using T = decltype(kind);
    T* d = dshortcut.defined() ? write<T>(dshortcut) : write<T>(dx);
    backward<T>(maps, back, read<T>(x), y ? read<T>(*y) : nullptr, read<T>(dy), d, write<T>(dx));
  };
  x.scalar_type() == at::kFloat ? compute(float{}) : compute(Half{});
  return {dx, dshortcut, dscale, dshift};
}

Gradients norm_join_backward(const Tensor& dy, const Tensor& x, const Maybe& y, const Maybe& scale, const Tensor& mean,
    const Tensor& variance, bool by_batch, double eps, bool with_shortcut) {
  return gradients(dy, x, y, scale, mean, variance, by_batch, eps, with_shortcut, false);
}

// Whether nobody else holds this gradient, or what it lies in: a map of its size then need not be fetched from the system, which takes
// longer than what fills it. `held`: how many of the references are our own.
bool spendable(const Tensor& dy, size_t held) { return dy.use_count() == held && dy.storage().use_count() == 1 && !dy.requires_grad(); }

template <class Signature>
auto operation(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

std::tuple<Tensor, Tensor, Tensor> beneath(const Tensor& x, const Maybe& shortcut, const Maybe& scale, const Maybe& shift, const Maybe& mean,
    const Maybe& variance, double eps, bool relu) {
  static const auto compute = operation<decltype(norm_join)>("twofold::norm_join");
  const at::AutoDispatchBelowADInplaceOrView below;
  return compute.call(x, shortcut, scale, shift, mean, variance, eps, relu);
}

Maybe maybe(const Tensor& x) { return x.defined() ? Maybe(x) : Maybe(); }

struct Join : torch::autograd::Function<Join> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const Maybe& shortcut, const Maybe& scale, const Maybe& shift,
      const Maybe& mean, const Maybe& variance, double eps, bool relu) {
    auto [y, used_mean, used_variance] = beneath(x, shortcut, scale, shift, mean, variance, eps, relu);
    if (mean) used_mean = used_mean.detach(), used_variance = used_variance.detach();  // what comes out may not be what went in
    ctx->save_for_backward({x, scale.value_or(Tensor()), shift.value_or(Tensor()), relu ? y : Tensor(), used_mean, used_variance});
    ctx->saved_data["numbers"] = c10::IValue(std::make_tuple(mean.has_value(), shortcut.has_value(), eps));
    ctx->mark_non_differentiable({used_mean, used_variance});
    return {y, used_mean, used_variance};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& came) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &scale = saved[1], &shift = saved[2], &y = saved[3], &mean = saved[4], &variance = saved[5];
    const auto [given, joined, eps] = ctx->saved_data["numbers"].to<std::tuple<bool, bool, double>>();
    variable_list found(8);
    if (!came[0].defined()) return found;
    if (at::GradMode::is_enabled()) return again(came[0], saved, given, joined, eps);
    const Tensor dy = came[0].to(x.scalar_type()).contiguous(x.is_contiguous() ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast);
    const bool spend = spendable(dy, dy.is_same(came[0]) ? 2 : 1);
    std::tie(found[0], found[1], found[2], found[3]) =
        gradients(dy, x, maybe(y), maybe(scale), mean, variance, !given, eps, joined && ctx->needs_input_grad(1), spend);
    if (joined && !y.defined()) found[1] = dy;
    if (!scale.defined()) found[2] = Tensor();
    if (!shift.defined()) found[3] = Tensor();
    return found;
  }
  // The same by PyTorch's operators, whose derivatives autograd knows. Where the ReLU is open does not move.
  static variable_list again(const Tensor& dy, const variable_list& saved, bool given, bool joined, double eps) {
    const Tensor &x = saved[0], &scale = saved[1], &shift = saved[2], &y = saved[3];
    const auto each = [](const Tensor& values) { return values.view({1, -1, 1, 1}); };
    const Tensor wide = x.to(at::kFloat), away = wide - (given ? each(saved[4]) : wide.mean({0, 2, 3}, true));
    Tensor a = away * ((given ? each(saved[5]) : away.square().mean({0, 2, 3}, true)) + eps).rsqrt();
    if (scale.defined()) a = a * each(scale);
    if (shift.defined()) a = a + each(shift);
    const Tensor d = y.defined() ? at::threshold_backward(dy, y, 0) : dy;
    variable_list asked, found(8);
    std::vector<int> places;
    for (const int n : {0, 1, 2}) {
      if (saved[n].defined() && saved[n].requires_grad()) asked.push_back(saved[n]), places.push_back(n == 0 ? 0 : n + 1);
    }
    if (!asked.empty()) {
      const variable_list gradients = torch::autograd::grad({a.to(x.scalar_type())}, asked, {d}, true, true, true);
      for (size_t n = 0; n < places.size(); ++n) found[places[n]] = gradients[n];
    }
    if (joined) found[1] = d;
    return found;
  }
};

std::tuple<Tensor, Tensor, Tensor> join(const Tensor& x, const Maybe& shortcut, const Maybe& scale, const Maybe& shift, const Maybe& mean,
    const Maybe& variance, double eps, bool relu) {
  const auto wants = [](const Maybe& given) { return given && given->requires_grad(); };
  if (!at::GradMode::is_enabled() || !(x.requires_grad() || wants(shortcut) || wants(scale) || wants(shift))) {
    return beneath(x, shortcut, scale, shift, mean, variance, eps, relu);
  }
  const variable_list came = Join::apply(x, shortcut, scale, shift, mean, variance, eps, relu);
  return {came[0], came[1], came[2]};
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("norm_join(Tensor x, Tensor? shortcut, Tensor? scale, Tensor? shift, Tensor? mean, Tensor? variance, float eps, bool relu)"
        " -> (Tensor, Tensor, Tensor)");
  m.def("norm_join_backward(Tensor dy, Tensor x, Tensor? y, Tensor? scale, Tensor mean, Tensor variance, bool by_batch, float eps,"
        " bool with_shortcut) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("join(Tensor x, Tensor? shortcut, Tensor? scale, Tensor? shift, Tensor? mean, Tensor? variance, float eps, bool relu)"
        " -> (Tensor, Tensor, Tensor)", twofold::join);
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("norm_join", twofold::norm_join);
  m.impl("norm_join_backward", twofold::norm_join_backward);
}
