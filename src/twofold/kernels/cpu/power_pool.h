// Lp pooling for real p >= 1.
//
//   forward    y = m (sum_k (|x_k| / m)^p)^(1/p), m = max_k |x_k|; 0 where m is          padding counts as 0
//   backward   dx_k = dy sign(x_k) (|x_k| / y)^(p - 1), added over the windows that see it; 0 where y is
//
// Nothing overflows or vanishes on the way: for p of 1, 2 and 3 the numbers of a window are scaled by a power of two, which is exact;
// for every other p the power is 2^(p (log2 |x_k| - log2 m)), and every logarithm is taken once.

namespace twofold {
namespace TWOFOLD_SET {
namespace power_pool {

// 2^-e and 2^e, v being about 2^e; 0 and infinity get the nearest e that serves.
struct Scale {
  Floats down, up;
  explicit Scale(Floats v) {
    Ints exponent = (Ints)v & 0x7f800000;
    exponent = exponent < (1 << 23) ? (1 << 23) + Ints{} : exponent > (253 << 23) ? (253 << 23) + Ints{} : exponent;
    up = (Floats)exponent;
    down = (Floats)((254 << 23) - exponent);
  }
};

// (x / m)^p from logarithms.
inline Floats to_power(const Logarithm& x, const Logarithm& m, float p) { return exp2_of(p * ((x.whole - m.whole) + (x.rest - m.rest))); }

// The p-th root of a sum; 0 of 0, infinity of infinity.
inline Floats root_of(Floats sum, float p) {
  const Logarithm log = log2_of(sum);
  const Floats y = exp2_of((log.whole + log.rest) / p);
  return sum < __builtin_inff() ? y : sum;
}

// Frames of |x|, and where the exponent is none of 1, 2, 3 of the two parts of its logarithm.
struct Magnitudes {
  const float *x, *whole, *rest;
};

inline Floats largest_of(const float* x, const int64_t* offset, int64_t taps) {
  Floats largest{};
  for (int64_t t = 0; t < taps; ++t) {
    const Floats a = load(x + offset[t]);
    largest = a > largest ? a : largest;  // NaN comes back in the sum
  }
  return largest;
}

// P: the exponent where it is 1, 2 or 3, else 0. at: where the window's first tap lies.
template <int P>
inline Floats pooled(const Magnitudes& from, int64_t at, const int64_t* offset, int64_t taps, float exponent) {
  const float* x = from.x + at;
  Floats sum{};
  if constexpr (P == 1) {
    for (int64_t t = 0; t < taps; ++t) sum += load(x + offset[t]);
    return sum;
  }
  const Floats largest = largest_of(x, offset, taps);
  if constexpr (P == 0) {
    const Logarithm m = log2_of(largest);
    for (int64_t t = 0; t < taps; ++t) {
      sum += to_power({load(from.whole + at + offset[t]), load(from.rest + at + offset[t])}, m, exponent);
    }
    return root_of(sum, exponent) * largest;
  }
  const Scale scale(largest);
  for (int64_t t = 0; t < taps; ++t) {
    const Floats a = load(x + offset[t]) * scale.down;
    sum += P == 2 ? a * a : a * a * a;
  }
  return (P == 2 ? root(sum) : root_of(sum, 3.0f)) * scale.up;
}

template <int P>
inline void forward_rows(const Window& w, const MapFrame& frame, float exponent, Rows rows, const float* x, float* y, float* scratch) {
  const int64_t size = frame.vertical.count * frame.horizontal.count * frame.rows * frame.pitch + kOverrun;
  float *whole = scratch + size, *rest = whole + size;
  fill_map_frame(w, frame, rows, x, scratch);
  for (int64_t n = 0; n < size - kOverrun; n += kLanes) {
    const Floats a = magnitude(load(scratch + n));
    store(scratch + n, a);
    if constexpr (P == 0) {
      const Logarithm log = log2_of(a);
      store(whole + n, log.whole);
      store(rest + n, log.rest);
    }
  }
  const Magnitudes from{scratch, whole, rest};
  const float* end = y + (rows.first + rows.count) * w.Q;
  for (int64_t p = 0; p < rows.count; ++p) {
    for (int64_t q = 0; q < w.Q; q += kLanes) {
      put(y + (rows.first + p) * w.Q + q, pooled<P>(from, p * frame.pitch + q, frame.offset, w.kh * w.kw, exponent), end);
    }
  }
}

void forward(const Window& w, const MapFrame& frame, float exponent, Rows rows, const float* x, float* y, float* scratch) {
  if (exponent == 1.0f) return forward_rows<1>(w, frame, exponent, rows, x, y, scratch);
  if (exponent == 2.0f) return forward_rows<2>(w, frame, exponent, rows, x, y, scratch);
  if (exponent == 3.0f) return forward_rows<3>(w, frame, exponent, rows, x, y, scratch);
  forward_rows<0>(w, frame, exponent, rows, x, y, scratch);
}

// What a pixel's share of a window depends on. P = 2, 3: 1 / y, and -0 where y is 0 or there is no window: its sign tells, whatever x may
// be, that nothing comes from there. P = 0: the two parts of log2 y, the whole being 2e9 there, and infinity for an infinite y.
template <int P>
inline void prepare(float* y, float* rest, int64_t size) {
  for (int64_t n = 0; n < size; n += kLanes) {
    const Floats v = load(y + n);
    if constexpr (P == 0) {
      const Logarithm log = log2_of(v);
      store(y + n, v == 0.0f ? every(2e9f) : v < __builtin_inff() ? log.whole : v);
      store(rest + n, log.rest);
    } else {
      const Floats inverse = magnitude(1.0f / (v < 0x1p-126f ? every(0x1p-126f) : v));
      store(y + n, v == 0.0f ? every(-0.0f) : inverse);
    }
  }
}

// What pixels receive, for gather. y: as `prepare` leaves it.
template <int P>
struct PixelTerm {
  const Window& w;
  const float *x, *dy, *y, *rest;
  float exponent;
  float* lines;
  int64_t count;
  const float* line[kTogether];

  template <int R>
  void begin(const Pixels& pixels) {
    count = pixels.count;
    for (int o = 0; o < R; ++o) {
      line[o] = x + (pixels.row + o * pixels.row_step) * w.W;
      if (w.sw == 1) continue;
      float* dealt = lines + o * (count + kOverrun);
      deal(line[o], Line(w.W, pixels.column, pixels.column_step, count), dealt);
      line[o] = dealt;
    }
  }
  template <int R>
  void add(const PixelTaps& taps, int64_t cell, int64_t pitch, int64_t k, Floats* d) const {
    Floats pixel[R];
    Logarithm log[R];
    for (int o = 0; o < R; ++o) {
      pixel[o] = load_most(line[o] + k, count - k);
      if constexpr (P == 0) {
        const Floats a = magnitude(pixel[o]);
        log[o] = log2_of(a);
        log[o].whole = a < __builtin_inff() ? log[o].whole : a;
      }
    }
    taps.each([&](int64_t offset, int64_t) {
      for (int o = 0; o < R; ++o) {
        const int64_t at = cell + offset + o * pitch;
        const Floats g = load(dy + at);
        if constexpr (P == 1) {
          d[o] += g;
          continue;
        }
        const Floats window = load(y + at);
        if constexpr (P == 0) {
          const Floats share = to_power(log[o], {window, load(rest + at)}, exponent - 1.0f);
          d[o] += (window == 2e9f ? Floats{} : share) * g;
        } else {
          const Floats share = (Ints)window < 0 ? Floats{} : pixel[o] * window;
          d[o] += (P == 2 ? share : share * magnitude(share)) * g;
        }
      }
    });
    for (int o = 0; o < R; ++o) {
      if constexpr (P == 1) d[o] = pixel[o] > 0.0f ? d[o] : pixel[o] < 0.0f ? -d[o] : Floats{};
      if constexpr (P == 0) d[o] = (Floats)((Ints)d[o] ^ ((Ints)pixel[o] & ~0x7fffffff));
    }
  }
};

template <int P>
inline void backward_rows(const Window& w, const WindowFrame& frame, float exponent, Rows rows, const float* dy, const float* x,
    const float* y, float* dx, float* scratch) {
  const int64_t size = fill_window_frame(w, frame, rows, dy, scratch) - scratch, room = size + kOverrun;
  float *window = scratch + room, *rest = window + room, *lines = rest + room;
  if constexpr (P != 1) {
    fill_window_frame(w, frame, rows, y, window);
    prepare<P>(window, rest, size);
  }
  float* dealt = lines + 2 * kTogether * ((w.W + w.sw - 1) / w.sw + kOverrun);
  gather(w, frame, rows, PixelTerm<P>{w, x, scratch, window, rest, exponent, dealt, 0, {}}, dx, lines);
}

void backward(const Window& w, const WindowFrame& frame, float exponent, Rows rows, const float* dy, const float* x, const float* y,
    float* dx, float* scratch) {
  if (exponent == 1.0f) return backward_rows<1>(w, frame, exponent, rows, dy, x, y, dx, scratch);
  if (exponent == 2.0f) return backward_rows<2>(w, frame, exponent, rows, dy, x, y, dx, scratch);
  if (exponent == 3.0f) return backward_rows<3>(w, frame, exponent, rows, dy, x, y, dx, scratch);
  backward_rows<0>(w, frame, exponent, rows, dy, x, y, dx, scratch);
}

}  // namespace power_pool
}  // namespace TWOFOLD_SET
}  // namespace twofold
