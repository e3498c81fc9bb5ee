// What the normalisation kernels share with those that call them: functions of one channel (norm.h).
#pragma once
#include <cstdint>

namespace twofold {

struct Window;

// A channel's maps: `images` of them, `size` pixels each, `apart` from one image to the next.
struct Channel {
  int64_t images, size, apart;
  double count() const { return static_cast<double>(images) * static_cast<double>(size); }
};

struct NormKernels {
  void (*moments)(const Channel&, const float* x, double* mean, double* variance);
  void (*normalise)(const Channel&, const float* x, float mean, float slope, float shift, bool relu, const Window* pool, float* y,
      int64_t y_apart, uint8_t* winner, float* map);
  void (*through_relu)(const Channel&, const float* x, float mean, float slope, float shift, bool relu, const Window* pool,
      const int64_t* offset, const float* dy, const float* y, const uint8_t* winner, int64_t y_apart, float* dx, float* row, double* sums);
  void (*through_norm)(const Channel&, const float* x, float mean, float slope, float even, float along, float* dx);
};

}  // namespace twofold
