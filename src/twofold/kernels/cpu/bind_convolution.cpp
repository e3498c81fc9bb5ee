// Convolution as torch sees it: checks, blocks of work shared out among torch's threads, memory for each.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "winograd_plan.h"

namespace twofold {
namespace {

constexpr int64_t kBlock = 1 << 16;   // floats of a block's frame and results: they stay in the second cache
constexpr int64_t kMany = 24;         // channels and filters from which on Winograd's algorithm wins

// geometry: P Q kh kw sh sw top left dh dw, as for max_pool2d; the padding may be negative (the map is cropped).
Convolution checked(int64_t C, int64_t F, int64_t H, int64_t W, at::IntArrayRef geometry) {
  TORCH_CHECK_VALUE(geometry.size() == 10, "convolution: expected 10 numbers of geometry, got ", geometry.size());
  const auto& g = geometry;
  for (const int64_t value : {C, F, H, W, g[0], g[1], g[2], g[3], g[4], g[5], g[8], g[9]}) {
    TORCH_CHECK_VALUE(value >= 1 && value < kLimit, "convolution: a size of ", value, " is out of range");
  }
  for (const int64_t value : {g[6], g[7]}) {
    TORCH_CHECK_VALUE(value > -kLimit && value < kLimit, "convolution: padding of ", value, " is out of range");
  }
  return {C, F, H, W, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
}

// The convolution that gives dx from dy; stride 1 only.
Convolution turned(const Convolution& c) {
  TORCH_CHECK_VALUE(c.sh == 1 && c.sw == 1, "convolution_dx: expected stride 1");
  return {c.F, c.C, c.P, c.Q, c.H, c.W, c.kh, c.kw, 1, 1, c.dh * (c.kh - 1) - c.top, c.dw * (c.kw - 1) - c.left, c.dh, c.dw};
}

void check_maps(const at::Tensor& maps, const char* name) {
  TORCH_CHECK_VALUE(maps.dim() == 4 && maps.scalar_type() == at::kFloat && maps.is_contiguous(),
      "convolution: expected ", name, " to be contiguous float32 of four axes");
}

enum Algorithm : int64_t { kChoose = 0, kDirect = 1, kWinograd = 2 };

bool can_winograd(const Convolution& c) { return c.kh == 3 && c.kw == 3 && c.sh == 1 && c.sw == 1 && c.dh == 1 && c.dw == 1; }

// Winograd's algorithm where its transforms, which grow with C + F, are small beside the products that it saves, which grow with C F.
bool by_winograd(const Convolution& c, int64_t algorithm) {
  TORCH_CHECK_VALUE(algorithm >= kChoose && algorithm <= kWinograd, "convolution: no algorithm has the number ", algorithm);
  TORCH_CHECK_VALUE(algorithm != kWinograd || can_winograd(c), "convolution: Winograd's algorithm needs 3x3 taps, stride 1 and dilation 1");
  return algorithm == kWinograd || (algorithm == kChoose && can_winograd(c) && c.C >= kMany && c.F >= kMany && c.P > 1 && c.Q > 1);
}

Winograd<float> winograd_of(const Convolution& c, bool reduced) {
  const WinogradKernels* found = winograd_kernels(reduced);
  TORCH_CHECK_VALUE(
      found, "convolution: products of bfloat16 need a processor with AVX512_BF16; kernels.convolution.reduced_unfit() says so");
  return {*found, c};
}

// One convolution with its weights packed: blocks of rows can be computed one by one, in any order.
class Correlation {
 public:
  Correlation(const Convolution& c, int64_t batch, int64_t algorithm, bool reduced, int64_t step, const float* weight, const float* bias,
      bool turned)
      : c_(c), winograd_(by_winograd(c, algorithm) && (step <= 2 || step >= c.P) ? std::optional(winograd_of(c, reduced)) : std::nullopt),
        blocks(winograd_ ? winograd_->own_blocks(batch, step >= c.P ? c.P : 1, false) : direct_blocks(c, batch, step)) {
    const auto& direct = kernels().convolution;
    if (winograd_) {
      packed_ = pack_winograd(*winograd_, weight, bias, turned);
      return;
    }
    width_ = direct.by_width(c, blocks.first, false);
    packed_ = memory(direct.packed_size(c));
    direct.pack(c, weight, bias, turned, width_, packed_.get());
  }
  Frame frame(int64_t block) const { return blocks.frame(winograd_ ? tiles_of(c_) : c_, block); }
  int64_t unit() const { return winograd_ ? 2 : 1; }  // rows of windows in a row of the frame
  int64_t scratch() const {
    return winograd_ ? winograd_->block_floats(blocks.first, false) : kernels().convolution.scratch(c_, blocks.first);
  }
  void run(const Frame& frame, const float* x, int64_t x_image, bool relu, float* y, int64_t y_image, int64_t y_map, float* scratch) const {
    if (winograd_) return winograd_block(*winograd_, frame, x, x_image, packed_.get(), relu, y, y_image, y_map, scratch);
    kernels().convolution.forward(c_, frame, width_, x, x_image, packed_.get(), relu, y, y_image, y_map, scratch);
  }
  static Cut direct_blocks(const Convolution& c, int64_t batch, int64_t step) {
    return cut(c, batch, step, kBlock, at::get_num_threads(), [&](const Frame& frame) { return kernels().convolution.scratch(c, frame); });
  }

 private:
  Convolution c_;
  std::optional<Winograd<float>> winograd_;

 public:
  Cut blocks;

 private:
  bool width_ = false;
  Memory packed_;
};

void correlate(const Convolution& c, int64_t batch, const float* x, int64_t x_image, const float* weight, const float* bias, bool turned,
    int64_t algorithm, bool reduced, bool relu, float* y, int64_t y_image) {
  if (by_winograd(c, algorithm)) {
    const Winograd<float> way = winograd_of(c, reduced);
    if (worth_sharing(way)) {
      const Memory packed = pack_winograd(way, weight, bias, turned);
      return winograd_together(way, batch, x, x_image, packed.get(), relu, y, y_image);
    }
  }
  const Correlation correlation(c, batch, algorithm, reduced, 1, weight, bias, turned);
  share(c, correlation.blocks, [&](int64_t begin, int64_t end, int64_t) {
    const Memory scratch = memory(correlation.scratch());
    for (int64_t block = begin; block < end; ++block) {
      const int64_t image = correlation.blocks.image(block);
      const Frame frame = correlation.frame(block);
      correlation.run(frame, x + image * x_image, x_image, relu, y + image * y_image + frame.row * correlation.unit() * c.Q, y_image,
          c.P * c.Q, scratch.get());
    }
  });
}

void add_weight_gradient(const Convolution& c, int64_t batch, const float* x, int64_t x_image, const float* dy, int64_t dy_image,
    int64_t algorithm, bool reduced, float* dweight, float* dbias) {
  if (by_winograd(c, algorithm)) return winograd_gradient(winograd_of(c, reduced), batch, x, x_image, dy, dy_image, dweight, dbias);
  const auto& direct = kernels().convolution;
  const Cut blocks = Correlation::direct_blocks(c, batch, 1);
  const bool width = direct.by_width(c, blocks.first, true);
  const int64_t size = direct.sums_size(c, width), parts = std::min<int64_t>(at::get_num_threads(), blocks.blocks());
  const Memory sums = memory(parts * size);
  std::fill_n(sums.get(), parts * size, 0.0f);
  share(c, blocks, [&](int64_t begin, int64_t end, int64_t part) {
    const Memory scratch = memory(direct.scratch(c, blocks.first));
    for (int64_t block = begin; block < end; ++block) {
      const int64_t image = blocks.image(block);
      direct.weight_gradient(c, blocks.frame(c, block), width, x + image * x_image, x_image, dy + image * dy_image, dy_image,
          sums.get() + part * size, scratch.get());
    }
  });
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t n = 0; n < size; ++n) sums[n] += sums[part * size + n];
  }
  direct.finish(c, width, sums.get(), dweight, dbias);
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, at::IntArrayRef geometry,
    int64_t groups, bool relu, int64_t algorithm, bool reduced) {
  check_maps(x, "x");
  check_maps(weight, "weight");
  const Convolution c = checked(x.size(1) / groups, weight.size(0) / groups, x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(weight.size(1) == c.C && weight.size(2) == c.kh && weight.size(3) == c.kw, "convolution: weight and x do not fit");
  const int64_t batch = x.size(0), filters = weight.size(0);
  const at::Tensor y = HeldMemory::tensor({batch, filters, c.P, c.Q}, at::kFloat);
  if (!batch) return y;
  const float *from = x.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
  const float* b = bias ? bias->const_data_ptr<float>() : nullptr;
  float* to = y.mutable_data_ptr<float>();
  for (int64_t g = 0; g < groups; ++g) {
    correlate(c, batch, from + g * c.C * c.H * c.W, x.size(1) * c.H * c.W, w + g * c.F * c.taps(), b ? b + g * c.F : nullptr, false,
        algorithm, reduced, relu, to + g * c.F * c.P * c.Q, filters * c.P * c.Q);
  }
  return y;
}

at::Tensor convolution_dx(const at::Tensor& dy, const at::Tensor& weight, at::IntArrayRef geometry, int64_t groups, int64_t H, int64_t W,
    int64_t algorithm, bool reduced) {
  check_maps(dy, "dy");
  check_maps(weight, "weight");
  const Convolution c = checked(weight.size(1), weight.size(0) / groups, H, W, geometry), t = turned(c);
  const int64_t batch = dy.size(0), channels = c.C * groups;
  const at::Tensor dx = HeldMemory::tensor({batch, channels, H, W}, at::kFloat);
  if (!batch) return dx;
  const float *from = dy.const_data_ptr<float>(), *w = weight.const_data_ptr<float>();
  float* to = dx.mutable_data_ptr<float>();
  for (int64_t g = 0; g < groups; ++g) {
    correlate(t, batch, from + g * c.F * c.P * c.Q, dy.size(1) * c.P * c.Q, w + g * c.F * c.taps(), nullptr, true, algorithm, reduced,
        false, to + g * c.C * H * W, channels * H * W);
  }
  return dx;
}

std::tuple<at::Tensor, at::Tensor> convolution_dweight(
    const at::Tensor& x, const at::Tensor& dy, at::IntArrayRef geometry, int64_t groups, bool with_bias, int64_t algorithm,
    bool reduced) {
  check_maps(x, "x");
  check_maps(dy, "dy");
  const Convolution c = checked(x.size(1) / groups, dy.size(1) / groups, x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(dy.size(0) == x.size(0) && dy.size(2) == c.P && dy.size(3) == c.Q, "convolution_dweight: x and dy do not fit");
  const int64_t batch = x.size(0);
  const at::Tensor dweight = at::zeros({dy.size(1), c.C, c.kh, c.kw}, x.options());
  const at::Tensor dbias = with_bias ? at::zeros({dy.size(1)}, x.options()) : at::empty({0}, x.options());
  if (!batch) return {dweight, dbias};
  const float *from = x.const_data_ptr<float>(), *d = dy.const_data_ptr<float>();
  for (int64_t g = 0; g < groups; ++g) {
    float* to_bias = with_bias ? dbias.mutable_data_ptr<float>() + g * c.F : nullptr;
    add_weight_gradient(c, batch, from + g * c.C * c.H * c.W, x.size(1) * c.H * c.W, d + g * c.F * c.P * c.Q, dy.size(1) * c.P * c.Q,
        algorithm, reduced, dweight.mutable_data_ptr<float>() + g * c.F * c.taps(), to_bias);
  }
  return {dweight, dbias};
}

// The pool of a fused block: P Q kh kw sh sw top left dh dw on the convolution's P Q map.
Window pool_window(const Convolution& c, at::IntArrayRef g) {
  TORCH_CHECK_VALUE(g.size() == 10, "convolution: expected 10 numbers of the pool's geometry, got ", g.size());
  check_pool(c.P, c.Q, g);
  return {c.P, c.Q, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
}

// y = max pool(relu(convolution(x))), a block at a time: the map before the pool never leaves the cache.
std::tuple<at::Tensor, at::Tensor> convolution_max_pool(const at::Tensor& x, const at::Tensor& weight,
    const std::optional<at::Tensor>& bias, at::IntArrayRef geometry, bool relu, at::IntArrayRef pool, bool with_winners,
    int64_t algorithm, bool reduced) {
  check_maps(x, "x");
  check_maps(weight, "weight");
  const Convolution c = checked(x.size(1), weight.size(0), x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(weight.size(1) == c.C && weight.size(2) == c.kh && weight.size(3) == c.kw, "convolution: weight and x do not fit");
  const Window w = pool_window(c, pool);
  TORCH_CHECK_VALUE(w.kh * w.kw <= 255, "convolution_max_pool: expected a pool of at most 255 taps");
  const int64_t batch = x.size(0), maps = batch * c.F, size = w.P * w.Q;
  const at::Tensor y = HeldMemory::tensor({batch, c.F, w.P, w.Q}, at::kFloat);
  const at::Tensor winner = with_winners ? at::empty(y.sizes(), x.options().dtype(at::kByte)) : at::empty({0}, x.options().dtype(at::kByte));
  if (!maps) return {y, winner};
  const bool apart = w.kh == w.sh && w.dh == 1 && w.top == 0 && w.P * w.kh <= c.P;  // bands of rows can be pooled one by one
  const float* b = bias ? bias->const_data_ptr<float>() : nullptr;
  const Correlation correlation(c, batch, algorithm, reduced, apart ? w.kh : c.P, weight.const_data_ptr<float>(), b, false);
  const Cut& blocks = correlation.blocks;
  const int64_t unit = correlation.unit(), channels = c.C * c.H * c.W;
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  uint8_t* taps = with_winners ? winner.mutable_data_ptr<uint8_t>() : nullptr;
  const int tap_bytes = with_winners ? 1 : 0;
  share(c, blocks, [&](int64_t begin, int64_t end, int64_t) {
    const Memory scratch = memory(correlation.scratch()), whole = memory(blocks.images * c.F * blocks.rows * unit * c.Q);
    for (int64_t block = begin; block < end; ++block) {
      const Frame frame = correlation.frame(block);
      const int64_t image = blocks.image(block), row = frame.row * unit, rows = std::min(frame.rows * unit, c.P - row), map = rows * c.Q;
      correlation.run(frame, from + image * channels, channels, relu, whole.get(), c.F * map, map, scratch.get());
      if (blocks.bands == 1) {
        const int64_t first = image * c.F * size;
        kernels().max_pool(w, frame.images * c.F, whole.get(), to + first, taps ? taps + first : nullptr, tap_bytes);
        continue;
      }
      Window band = w;
      band.H = rows;
      band.P = std::min(rows / w.kh, w.P - row / w.kh);
      for (int64_t f = 0; band.P > 0 && f < c.F; ++f) {
        const int64_t first = (image * c.F + f) * size + row / w.kh * w.Q;
        kernels().max_pool(band, 1, whole.get() + f * map, to + first, taps ? taps + first : nullptr, tap_bytes);
      }
    }
  });
  return {y, winner};
}

}  // namespace
}  // namespace twofold

TORCH_LIBRARY_FRAGMENT(twofold, m) {
  m.def("convolution_reduces() -> bool", [] { return twofold::winograd_reduces(); });
  m.def("convolution(Tensor x, Tensor weight, Tensor? bias, int[] geometry, int groups, bool relu, int algorithm, bool reduced) -> Tensor");
  m.def("convolution_dx(Tensor dy, Tensor weight, int[] geometry, int groups, int height, int width, int algorithm, bool reduced) -> Tensor");
  m.def("convolution_max_pool(Tensor x, Tensor weight, Tensor? bias, int[] geometry, bool relu, int[] pool, bool with_winners, int algorithm, bool reduced) -> (Tensor, Tensor)");
  m.def("convolution_dweight(Tensor x, Tensor dy, int[] geometry, int groups, bool bias, int algorithm, bool reduced) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("convolution", twofold::convolution);
  m.impl("convolution_dx", twofold::convolution_dx);
  m.impl("convolution_max_pool", twofold::convolution_max_pool);
  m.impl("convolution_dweight", twofold::convolution_dweight);
}
