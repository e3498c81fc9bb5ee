// What the convolution kernels share with those that call them: the sizes of a block of work, and how much memory it takes.
#pragma once
#include <cstdint>

#include "half.h"

namespace twofold {

// C channels, F filters, H W map, P Q output, kh kw taps, sh sw stride, top left padding (negative: the map is cropped), dh dw dilation.
struct Convolution {
  int64_t C, F, H, W, P, Q, kh, kw, sh, sw, top, left, dh, dw;
  int64_t taps() const { return C * kh * kw; }
};

constexpr int64_t kSlack = 128;  // floats that may be read or written beyond the last window
constexpr int64_t kApart = 16;   // zeros between images, where the last vector of an image may reach

// A block: whole images [0, images) or, of one image, the rows [row, row + rows).
//
// Its frame holds what its windows see, with the padding written out, so that no tap asks whether it is inside. With a stride the
// rows and columns are dealt out by their remainder (phase), so that neighbouring windows see neighbouring numbers whatever the
// stride. Window (p,q) of an image is number n = p pitch + q; tap t of window n lies at n + offset[t]. Numbers at which no window
// stands (q beyond the last) are computed and thrown away. Images lie `image` apart, phases `plane`, channels `channel`.
struct Frame {
  int64_t images, row, rows, image_rows, pitch, image, plane, channel, windows;
  Frame(const Convolution& c, int64_t images, int64_t row, int64_t rows)
      : images(images), row(row), rows(rows), image_rows(rows + c.dh * (c.kh - 1) / c.sh), pitch(c.Q + c.dw * (c.kw - 1) / c.sw),
        image(image_rows * pitch + kApart), plane(images * image), channel(plane * c.sh * c.sw), windows((rows - 1) * pitch + c.Q) {}
};

struct ConvolutionKernels {
  // Whether lanes run along the maps' width rather than over the filters.
  bool (*by_width)(const Convolution&, const Frame&, bool gradient);
  // Weights (F, C, kh, kw) and the bias (or none) as forward wants them. turned: the weights are those of the layer whose dx this
  // is, (C, F, kh, kw), and forward wants them with maps and filters exchanged and the taps in reverse order.
  int64_t (*packed_size)(const Convolution&);
  void (*pack)(const Convolution&, const float* weight, const float* bias, bool turned, bool by_width, float* packed);
  // Writes the block's rows of every map: y is where the first goes; images lie y_image apart, maps y_map. Those of x
  // [image][channel][H][W] lie x_image apart.
  int64_t (*scratch)(const Convolution&, const Frame&);
  void (*forward)(const Convolution&, const Frame&, bool by_width, const float* x, int64_t x_image, const float* packed,
      bool relu, float* y, int64_t y_image, int64_t y_map, float* scratch);
  // Adds the block's gradients of weight and bias to sums (sums_size floats, zero at first); finish turns sums into the gradients.
  int64_t (*sums_size)(const Convolution&, bool by_width);
  void (*weight_gradient)(const Convolution&, const Frame&, bool by_width, const float* x, int64_t x_image, const float* dy,
      int64_t dy_image, float* sums, float* scratch);
  void (*finish)(const Convolution&, bool by_width, const float* sums, float* dweight, float* dbias);
  // d *= 1 where y > 0 (or NaN), 0 elsewhere
  void (*where_positive)(const float* y, const float* d, float* to, int64_t count);
};

// What a block takes, in floats; and how many items its stages can be split into: cells of what is seen, panels of filters.
struct WinogradSizes {
  int64_t cells, panels, seen, products, scratch;
  static constexpr int64_t parts = 16;
};

// The same by Winograd's algorithm (winograd.h): 3x3 taps, stride 1, dilation 1. Frames are frames of tiles of 2x2 windows. The stages
// of a block take their items [begin, end), in any order: seeing the cells, the products (16 times as many as panels), then the panels.
// Maps are of float and lie channels first, or channels last, of float or Half, as do the weights then.
template <class Number>
struct WinogradTable {
  bool last;
  WinogradSizes (*sizes)(const Convolution&, const Frame&, bool gradient);
  int64_t (*packed_size)(const Convolution&);
  void (*pack)(const Convolution&, const float* weight, const float* bias, bool turned, int64_t begin, int64_t end, float* packed);
  void (*see)(const Convolution&, const Frame&, bool gradient, const Number* x, int64_t x_image, int64_t begin, int64_t end, float* seen,
      float* scratch);
  void (*multiply)(const Convolution&, const Frame&, const float* seen, const float* packed, int64_t begin, int64_t end, float* products);
  void (*put)(const Convolution&, const Frame&, const float* products, const float* packed, bool relu, Number* y, int64_t y_image,
      int64_t y_map, int64_t begin, int64_t end, float* scratch);
  // The gradient of the weights: dy is seen, too (and its sums added to dbias, unless that is null); the products are added to the
  // sums, or begin them where those are fresh.
  int64_t (*sums_size)(const Convolution&);
  void (*see_gradient)(const Convolution&, const Frame&, const Number* dy, int64_t dy_image, int64_t begin, int64_t end, float* products,
      float* dbias, float* scratch);
  void (*add_products)(const Convolution&, const Frame&, const float* seen, const float* products, int64_t begin, int64_t end, bool fresh,
      float* sums);
  void (*finish)(const Convolution&, const float* sums, int64_t begin, int64_t end, float* dweight);
};
using WinogradKernels = WinogradTable<float>;

// 1x1 taps on maps of float or Half that lie channels last (pointwise.h), C channels (of Half an even number), and F filters, which come
// in panels.
template <class Number>
struct PointwiseTable {
  int64_t panel;
  int64_t (*packed_size)(int64_t C, int64_t F);
  void (*pack)(int64_t C, int64_t F, const float* weight, bool turned, const float* bias, int64_t begin, int64_t end, float* packed);
  // other, or null: a map like y that is added, before the ReLU
  void (*forward)(int64_t C, int64_t F, int64_t pixels, const Number* x, const float* packed, int64_t begin, int64_t end,
      const Number* other, bool relu, Number* y);
};

// Products of numbers rounded to bfloat16, summed in float32: where the compiler knows the instruction. Whether the
// processor does, the caller asks.
#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 11) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define TWOFOLD_BF16 1
const WinogradTable<float>& avx512bf16_winograd();
const WinogradTable<Half>& avx512bf16_winograd_last();
const PointwiseTable<Half>& avx512bf16_pointwise();
#endif

}  // namespace twofold
