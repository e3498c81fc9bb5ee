// What the kernels of pooling and of depthwise convolution share with those that call them: how maps and windows are framed, so that
// lanes run over neighbouring windows whatever the stride, and the tables of functions.
//
// Along an axis with stride s, pixel h is cell u of phase a: h = u s + a - before. Tap i of window p sees cell p + i d / s of phase
// i d % s. Within a phase neighbouring windows see neighbouring cells.
#pragma once
#include <cstdint>

namespace twofold {

struct Window;

constexpr int64_t kOverrun = 64;  // floats beyond the last one wanted that whole lanes may touch in a frame

constexpr int64_t kSeen = 4;

// The rows that a call is to compute.
struct Rows {
  int64_t first, count;
};

// The phases that taps see along an axis, each once.
struct Phases {
  const int64_t* phase;
  int64_t count;
};

// What a block of windows sees: for every phase a plane of `rows` rows, `pitch` apart, padding written out as zeros; `beyond` of the
// rows come after those where a window's first tap may lie. Tap t of window (p,q) lies at offset[t] + p pitch + q, p counted from the
// block's first row. Where `plain`, there is one plane, the map with its padding as it is: the tap lies at offset[t] + p sh pitch + q sw.
struct MapFrame {
  Phases vertical, horizontal;
  bool plain;
  int64_t rows, beyond, pitch;
  const int64_t* offset;
};

// The windows that have kernels for plain frames: 2x2, 3x3 or 5x5 neighbours, stride 2. To move two numbers apart while loading costs
// less then than to deal them out beforehand.
inline bool twice(int64_t kh, int64_t kw, int64_t sh, int64_t sw, int64_t dh, int64_t dw) {
  return sh == 2 && sw == 2 && dh == 1 && dw == 1 && kh == kw && (kh == 2 || kh == 3 || kh == 5);
}

// Along an axis, the taps that see the pixels h of residue r = h % s, the last first (so windows come in reading order):
// tap[begin[r]] .. tap[begin[r + 1] - 1], and back[n]: where in a WindowFrame their window lies, counted from that of the first cell.
struct Residues {
  const int64_t *begin, *tap, *back;
};

// What a block of pixels is seen by: the windows in rows `pitch` apart, `up` more rows and `aside` more columns before the first, and
// nothing where there are no windows. Pixel (h,w) of cell (u,v) is seen by the windows at (u + back_i) pitch + v + back_j, u counted
// from the block's first.
struct WindowFrame {
  Residues vertical, horizontal;
  int64_t up, aside, pitch;
};

// A weighted mean: window (p,q) is sum_i,j gh[i] gw[j] x / (nh[p] nw[q]).
struct Mean {
  const float *gh, *gw, *nh, *nw;
};

// One map (channels last: one image) per call, and of it the rows of y that forward shall write, or those of dx that backward shall.
struct PoolKernels {
  // weight: gh[i] gw[j], row by row
  void (*mean)(
      const Window&, const MapFrame&, const Mean&, const float* weight, Rows, const float* x, float* y, float* scratch);
  void (*mean_backward)(
      const Window&, const WindowFrame&, const Mean&, const float* weight, Rows, const float* dy, float* dx, float* scratch);
  // For large windows. The frame is that of a single row of windows.
  void (*separable_mean)(const Window&, const MapFrame&, const Mean&, Rows, const float* x, float* y, float* scratch);
  void (*separable_mean_backward)(const Window&, const WindowFrame&, const Mean&, Rows, const float* dy, float* dx, float* scratch);
  void (*power)(const Window&, const MapFrame&, float exponent, Rows, const float* x, float* y, float* scratch);
  void (*power_backward)(const Window&, const WindowFrame&, float exponent, Rows, const float* dy, const float* x, const float* y,
      float* dx, float* scratch);
  // Channels last. The scratch of the backward passes: kSeen floats for every tap.
  void (*max_last)(const Window&, int64_t channels, Rows, const float* x, float* y, void* winner, int tap_bytes);
  void (*max_last_backward)(const Window&, const WindowFrame&, int64_t channels, Rows, const float* dy, const void* winner, int tap_bytes,
      float* dx, void* scratch);
  void (*mean_last)(const Window&, const Mean&, int64_t channels, Rows, const float* x, float* y);
  void (*mean_last_backward)(
      const Window&, const WindowFrame&, const Mean&, int64_t channels, Rows, const float* dy, float* dx, void* scratch);
};

}  // namespace twofold
