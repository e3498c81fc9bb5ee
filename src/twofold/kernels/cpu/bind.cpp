// The operators that torch sees: they check sizes, choose the instruction set once and share the maps out among torch's own threads.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "held_memory.h"

namespace twofold {
namespace {

constexpr int64_t kGrain = 1 << 17;           // taps that are worth waking a thread for: a sleeping one takes 0.1 ms

// What torch found out about the processor, so that ATEN_CPU_CAPABILITY lowers our kernels as it lowers torch's; never raised above
// what the processor has.
const Kernels& choose() {
#if TWOFOLD_X86
  const std::string capability = at::get_cpu_capability();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (capability == "AVX512" && avx512) return avx512_kernels();
  if ((capability == "AVX512" || capability == "AVX2") && avx2) return avx2_kernels();
#endif
  return base_kernels();
}

std::string instruction_set() { return kernels().instruction_set; }

std::string built_for() { return TWOFOLD_TORCH; }
int64_t release_memory() { return static_cast<int64_t>(HeldMemory::release()); }

// Along one axis: every window must hold a pixel, for the kernels read one without asking.
void check_axis(int64_t size, int64_t windows, int64_t taps, int64_t stride, int64_t before, int64_t dilation) {
  for (const int64_t value : {size, windows, taps, stride, dilation}) {
    TORCH_CHECK_VALUE(value >= 1 && value < kLimit, "max_pool2d: a size of ", value, " is out of range");
  }
  TORCH_CHECK_VALUE(before >= 0 && before < kLimit, "max_pool2d: padding of ", before, " is out of range");
  bool held = (windows - 1) * stride - before < size && (taps - 1) * dilation >= before;
  for (int64_t p = 0; held && dilation > size && p < windows && p * stride < before; ++p) {
    const int64_t start = p * stride - before, first = (-start + dilation - 1) / dilation;
    held = first < taps && start + first * dilation < size;
  }
  TORCH_CHECK_VALUE(held, "max_pool2d: a window of ", taps, " taps holds no pixel of ", size);
}

// geometry: P Q kh kw sh sw top left dh dw
Window checked(int64_t H, int64_t W, at::IntArrayRef geometry) {
  TORCH_CHECK_VALUE(geometry.size() == 10, "max_pool2d: expected 10 numbers of geometry, got ", geometry.size());
  const auto& g = geometry;
  check_pool(H, W, g);
  return {H, W, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
}

void check_maps(const at::Tensor& maps) {
  TORCH_CHECK_VALUE(maps.dim() == 4 && maps.scalar_type() == at::kFloat && maps.is_contiguous(),
      "max_pool2d: expected contiguous float32 maps (B, C, H, W)");
}

int64_t grain(const Window& w) { return std::max<int64_t>(1, kGrain / std::max(w.P * w.Q * w.kh * w.kw, w.H * w.W)); }

// tap_bytes: 1 or 4 as the taps need, 0 where the winners are not wanted.
std::tuple<at::Tensor, at::Tensor> max_pool2d(const at::Tensor& x, at::IntArrayRef geometry, int64_t tap_bytes) {
  check_maps(x);
  const Window w = checked(x.size(2), x.size(3), geometry);
  TORCH_CHECK_VALUE(tap_bytes == 0 || tap_bytes == 4 || (tap_bytes == 1 && w.kh * w.kw <= 255), "max_pool2d: taps need 4 bytes");
  const int64_t maps = x.size(0) * x.size(1), outputs = w.P * w.Q;
  const at::Tensor y = at::empty({x.size(0), x.size(1), w.P, w.Q}, x.options());
  const auto tap_type = x.options().dtype(tap_bytes == 4 ? at::kInt : at::kByte);
  const at::Tensor winner = tap_bytes ? at::empty(y.sizes(), tap_type) : at::empty({0}, tap_type);
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  char* taps = static_cast<char*>(winner.mutable_data_ptr());
  at::parallel_for(0, maps, grain(w), [&](int64_t begin, int64_t end) {
    kernels().max_pool(w, end - begin, from + begin * w.H * w.W, to + begin * outputs, taps + begin * outputs * tap_bytes,
        static_cast<int>(tap_bytes));
  });
  return {y, winner};
}

at::Tensor max_pool2d_backward(const at::Tensor& dy, const at::Tensor& winner, at::IntArrayRef geometry, int64_t H, int64_t W) {
  check_maps(dy);
  const Window w = checked(H, W, geometry);
  const bool bytes = winner.scalar_type() == at::kByte;
  TORCH_CHECK_VALUE((bytes || winner.scalar_type() == at::kInt) && winner.is_contiguous() && winner.sizes() == dy.sizes() &&
      dy.size(2) == w.P && dy.size(3) == w.Q, "max_pool2d_backward: dy, winner and geometry do not belong together");
  std::vector<int64_t> offset;
  for (int64_t i = 0; i < w.kh; ++i) {
    for (int64_t j = 0; j < w.kw; ++j) offset.push_back(i * w.dh * w.W + j * w.dw);
  }
  const int64_t maps = dy.size(0) * dy.size(1), outputs = w.P * w.Q;
  const at::Tensor dx = at::empty({dy.size(0), dy.size(1), H, W}, dy.options());
  const float* from = dy.const_data_ptr<float>();
  const char* taps = static_cast<const char*>(winner.const_data_ptr());
  float* to = dx.mutable_data_ptr<float>();
  const int tap_bytes = bytes ? 1 : 4;
  at::parallel_for(0, maps, grain(w), [&](int64_t begin, int64_t end) {
    kernels().max_pool_backward(w, end - begin, from + begin * outputs, taps + begin * outputs * tap_bytes, tap_bytes,
        offset.data(), to + begin * H * W);
  });
  return dx;
}

}  // namespace

void check_pool(int64_t H, int64_t W, at::IntArrayRef g) {
  check_axis(H, g[0], g[2], g[4], g[6], g[8]);
  check_axis(W, g[1], g[3], g[5], g[7], g[9]);
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace twofold

TORCH_LIBRARY(twofold, m) {
  m.def("instruction_set() -> str", twofold::instruction_set);
  m.def("built_for() -> str", twofold::built_for);
  m.def("release_memory() -> int", twofold::release_memory);
  m.def("max_pool2d(Tensor x, int[] geometry, int tap_bytes) -> (Tensor, Tensor)");
  m.def("max_pool2d_backward(Tensor dy, Tensor winner, int[] geometry, int height, int width) -> Tensor");
}

TORCH_LIBRARY_IMPL(twofold, CPU, m) {
  m.impl("max_pool2d", twofold::max_pool2d);
  m.impl("max_pool2d_backward", twofold::max_pool2d_backward);
}
