// The frame of a block (convolution_table.h): maps with their padding written out, dealt into phases by the stride.

namespace twofold {
namespace TWOFOLD_SET {

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
inline int64_t whole_lanes(int64_t n) { return parts(n, Vector::lanes) * Vector::lanes; }

// How many filters the block that begins at f holds: all blocks alike, or one less.
inline int64_t block_of(int64_t f, int64_t filters, int64_t most) {
  const int64_t blocks = parts(filters, most), left = filters - f;
  const int64_t size = parts(filters, blocks);
  return smaller(left, size);
}

inline void fill_zero(float* begin, int64_t count) { __builtin_memset(begin, 0, static_cast<uint64_t>(count) * sizeof(float)); }

// A row of numbers that begins at `start`, outside or inside a row of the map of `width`, and takes every step-th.
struct Seen {
  int64_t start, step, width, count;
};

// to[q] = map[start + q step] where that is inside, else 0; whole vectors, so beyond `count` too
inline void fill_row(const float* map, const Seen& row, float* to) {
  if (row.step > 2) {
    for (int64_t q = 0; q < row.count; ++q) {
      const int64_t w = row.start + q * row.step;
      to[q] = w >= 0 && w < row.width ? map[w] : 0.0f;
    }
    return;
  }
  for (int64_t q = 0; q < row.count; q += Vector::lanes) {
    const int64_t first = row.start + q * row.step, begin = -first, end = row.width - first;
    (row.step == 1 ? Vector::load(map + first, begin, end) : Vector::second(map + first, begin, end)).store(to + q);
  }
}

inline void fill_zero_row(float* to, int64_t count) {
  for (int64_t q = 0; q < count; q += Vector::lanes) Vector::zero().store(to + q);
}

// to = from, count numbers and no more
inline void copy(const float* from, float* to, int64_t count) {
  int64_t n = 0;
  for (; n + Vector::lanes <= count; n += Vector::lanes) Vector::load(from + n).store(to + n);
  if (n < count) Vector::load(from + n, count - n).store(to + n, count - n);
}

inline bool used(int64_t phase, int64_t taps, int64_t dilation, int64_t stride) {
  for (int64_t i = 0; i < taps; ++i) {
    if (i * dilation % stride == phase) return true;
  }
  return false;
}

inline void fill_frame(const Convolution& c, const Frame& frame, const float* x, int64_t x_image, float* to) {
  for (int64_t channel = 0; channel < c.C; ++channel) {
    for (int64_t a = 0; a < c.sh; ++a) {
      for (int64_t b = 0; b < c.sw; ++b) {
        const Seen columns{b - c.left, c.sw, c.W, frame.pitch};
        const bool seen = used(a, c.kh, c.dh, c.sh) && used(b, c.kw, c.dw, c.sw);
        for (int64_t g = 0; g < frame.images; ++g) {
          const float* map = x + g * x_image + channel * c.H * c.W;
          for (int64_t r = 0; r < frame.image_rows; ++r, to += frame.pitch) {
            const int64_t h = (frame.row + r) * c.sh + a - c.top;
            if (seen && h >= 0 && h < c.H) {
              fill_row(map + h * c.W, columns, to);
            } else {
              fill_zero_row(to, frame.pitch);
            }
          }
          fill_zero(to, kApart);
          to += kApart;
        }
      }
    }
  }
  fill_zero(to, kSlack);
}

// Where tap t = (channel, i, j) lies, from the window's number.
inline void fill_offsets(const Convolution& c, const Frame& frame, int64_t* offset) {
  for (int64_t channel = 0; channel < c.C; ++channel) {
    for (int64_t i = 0; i < c.kh; ++i) {
      for (int64_t j = 0; j < c.kw; ++j) {
        const int64_t h = i * c.dh, w = j * c.dw, phase = h % c.sh * c.sw + w % c.sw;
        *offset++ = channel * frame.channel + phase * frame.plane + h / c.sh * frame.pitch + w / c.sw;
      }
    }
  }
}

// The taps, numbered (channel, i, j), that see more than padding from the rows of windows first..last: in every channel a run of them.
struct Taps {
  int64_t begin, run, step, all;
  explicit Taps(const Convolution& c) : begin(0), run(c.taps()), step(c.taps()), all(c.taps()) {}
  Taps(const Convolution& c, int64_t first, int64_t last) : step(c.kh * c.kw), all(c.taps()) {
    const int64_t above = c.top - last * c.sh, below = c.H - 1 + c.top - first * c.sh;
    const int64_t from = above > 0 ? smaller(c.kh, (above + c.dh - 1) / c.dh) : 0;
    const int64_t to = below < 0 ? from : larger(from, smaller(c.kh, below / c.dh + 1));
    begin = from * c.kw;
    run = (to - from) * c.kw;
    if (run == step) *this = Taps(c);
  }
};

// Whether lanes along the width had better begin anew with every row: the products are fewer, counted in vectors a filter.
inline bool row_by_row(const Convolution& c, const Frame& frame) {
  int64_t products = 0;
  for (int64_t p = 0; p < frame.rows; ++p) {
    const Taps taps(c, frame.row + p, frame.row + p);
    products += parts(c.Q, Vector::lanes) * (taps.step == taps.all ? c.kh * c.kw : taps.run);
  }
  return products <= parts(frame.windows, Vector::lanes) * c.kh * c.kw;
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
