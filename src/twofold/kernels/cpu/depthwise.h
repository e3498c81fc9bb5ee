// Depthwise convolution: every filter sees one map.
//
//   forward    y[f,p,q] = sum_ij W[f,i,j] x[p sh - top + i dh, q sw - left + j dw] + bias[f]
//   backward   dx[h,w] = sum_fij W[f,i,j] dy[f,p,q] over the windows (p,q) whose tap (i,j) lies on (h,w)
//              dW[f,i,j] = sum_pq dy[f,p,q] x[p sh - top + i dh, q sw - left + j dw]         dbias[f] = sum_pq dy[f,p,q]
//
// The map is copied into a frame that holds its padding (cells.h) and stays in the first cache. Lanes run along rows; several rows are
// computed together, so that what is loaded serves more than one. With stride 1, dx is a forward pass over the frame of dy with the
// kernel turned round.

namespace twofold {
namespace TWOFOLD_SET {
namespace depthwise {

// KH x KW neighbouring taps over R rows of a frame: a row of the frame is loaded once for all rows that see it.
template <int KH, int KW>
struct Dense {
  static constexpr int step = 1;  // between windows
  Floats weight[KH * KW];

  Dense(const float* w, bool turned) {
    for (int t = 0; t < KH * KW; ++t) weight[t] = every(w[turned ? KH * KW - 1 - t : t]);
  }
  template <int R>
  void add(const float* from, int64_t pitch, Floats* sum) const {
    TWOFOLD_UNROLL
    for (int r = 0; r < R + KH - 1; ++r, from += pitch) {
      TWOFOLD_UNROLL
      for (int j = 0; j < KW; ++j) {
        Floats x = load(from + j);
        hold(x);
        TWOFOLD_UNROLL
        for (int o = 0; o < R; ++o) {
          if (r - o >= 0 && r - o < KH) sum[o] += weight[(r - o) * KW + j] * x;
        }
      }
    }
  }
};

// K x K neighbouring taps with stride 2 over a plain frame.
template <int K>
struct Twice {
  static constexpr int step = 2;
  Floats weight[K * K];

  explicit Twice(const float* w) {
    for (int t = 0; t < K * K; ++t) weight[t] = every(w[t]);
  }
  template <int R>
  void add(const float* from, int64_t pitch, Floats* sum) const {
    TWOFOLD_UNROLL
    for (int r = 0; r < 2 * R + K - 2; ++r, from += pitch) {
      TWOFOLD_UNROLL
      for (int j = 0; j < K; j += 2) {
        Floats even, odd;
        split(from + j, even, odd);
        TWOFOLD_UNROLL
        for (int o = 0; o < R; ++o) {
          const int i = r - 2 * o;
          if (i < 0 || i >= K) continue;
          sum[o] += weight[i * K + j] * even;
          if (j + 1 < K) sum[o] += weight[i * K + j + 1] * odd;
        }
      }
    }
  }
};

// Any taps.
struct Listed {
  static constexpr int step = 1;
  const int64_t* offset;
  const float* weight;
  int64_t taps;

  template <int R>
  void add(const float* from, int64_t pitch, Floats* sum) const {
    for (int64_t t = 0; t < taps; ++t) {
      const float* x = from + offset[t];
      for (int o = 0; o < R; ++o) sum[o] += weight[t] * load(x + o * pitch);
    }
  }
};

// The taps, of several filters, that see a pixel.
struct Seeing {
  static constexpr int step = 1;
  PixelTaps taps;
  const float* weight;
  int64_t filters, kernel, plane;

  template <int R>
  void add(const float* from, int64_t pitch, Floats* sum) const {
    for (int64_t f = 0; f < filters; ++f) {
      taps.each([&](int64_t offset, int64_t tap) {
        const float* dy = from + f * plane + offset;
        for (int o = 0; o < R; ++o) sum[o] += weight[f * kernel + tap] * load(dy + o * pitch);
      });
    }
  }
};

// Nothing to be done with what has been summed; other laws divide here.
struct AsItIs {
  Floats operator()(Floats sum, int64_t, int64_t) const { return sum; }
};

template <int R, class Kernel, class Finish>
inline void correlate_rows(const Kernel& kernel, const Finish& finish, const float* from, int64_t pitch, float start, int64_t row,
    int64_t columns, float* to, const float* end) {
  for (int64_t q = (columns - 1) / kLanes * kLanes; q >= 0; q -= kLanes) {  // from the right: see put
    Floats sum[R];
    for (int o = 0; o < R; ++o) sum[o] = every(start);
    kernel.template add<R>(from + (row * pitch + q) * Kernel::step, pitch, sum);
    for (int o = 0; o < R; ++o) put(to + (row + o) * columns + q, finish(sum[o], row + o, q), end);
  }
}

// to[r][q] = finish(start + the kernel over from[r pitch + q])
template <class Kernel, class Finish = AsItIs>
inline void correlate(const Kernel& kernel, const float* from, int64_t pitch, float start, int64_t rows, int64_t columns, float* to,
    const Finish& finish = Finish()) {
  const float* end = to + rows * columns;
  if (rows < kTogether) {
    for (int64_t r = 0; r < rows; ++r) correlate_rows<1>(kernel, finish, from, pitch, start, r, columns, to, end);
    return;
  }
  for (int64_t at = 0; at < rows; at += kTogether) {  // the last rows are moved up; those computed twice are the same
    correlate_rows<kTogether>(kernel, finish, from, pitch, start, least(at, rows - kTogether), columns, to, end);
  }
}

inline bool dense(const Window& w, int64_t side) { return w.kh == side && w.kw == side && w.sh * w.sw * w.dh * w.dw == 1; }

// The windows of the given rows over the frame of a map; y is where these rows begin.
template <class Finish = AsItIs>
inline void correlate_map(const Window& w, const MapFrame& frame, Rows rows, const float* from, const float* weight, float start, float* y,
    const Finish& finish = Finish()) {
  if (frame.plain && w.kh == 2) {
    correlate(Twice<2>(weight), from, frame.pitch, start, rows.count, w.Q, y, finish);
  } else if (frame.plain && w.kh == 3) {
    correlate(Twice<3>(weight), from, frame.pitch, start, rows.count, w.Q, y, finish);
  } else if (frame.plain) {
    correlate(Twice<5>(weight), from, frame.pitch, start, rows.count, w.Q, y, finish);
  } else if (dense(w, 3)) {
    correlate(Dense<3, 3>(weight, false), from, frame.pitch, start, rows.count, w.Q, y, finish);
  } else if (dense(w, 5)) {
    correlate(Dense<5, 5>(weight, false), from, frame.pitch, start, rows.count, w.Q, y, finish);
  } else {
    correlate(Listed{frame.offset, weight, w.kh * w.kw}, from, frame.pitch, start, rows.count, w.Q, y, finish);
  }
}

void forward(const Window& w, const MapFrame& frame, int64_t filters, Rows rows, const float* x, const float* weight, const float* bias,
    float* y, float* from) {
  fill_map_frame(w, frame, rows, x, from);
  for (int64_t f = 0; f < filters; ++f) {
    correlate_map(w, frame, rows, from, weight + f * w.kh * w.kw, bias ? bias[f] : 0.0f, y + (f * w.P + rows.first) * w.Q);
  }
}

// What pixels receive, for gather.
struct PixelTerm {
  const float* from;
  const float* weight;
  int64_t filters, kernel, plane;

  template <int R>
  void begin(const Pixels&) {}
  template <int R>
  void add(const PixelTaps& taps, int64_t cell, int64_t pitch, int64_t, Floats* d) const {
    Seeing{taps, weight, filters, kernel, plane}.template add<R>(from + cell, pitch, d);
  }
};

// The same for K x K neighbouring taps with stride 2, where a pixel's place says which of them see it.
template <int K>
struct TwiceTerm {
  const Window& w;
  const float *from, *weight;

  template <int R>
  void begin(const Pixels&) {}
  template <int R>
  void add(const PixelTaps& taps, int64_t cell, int64_t pitch, int64_t, Floats* d) const {
    const bool odd_row = (taps.row + w.top) & 1, odd_column = (taps.column + w.left) & 1;
    if (odd_row) return odd_column ? add<R, 1, 1>(cell, pitch, d) : add<R, 1, 0>(cell, pitch, d);
    return odd_column ? add<R, 0, 1>(cell, pitch, d) : add<R, 0, 0>(cell, pitch, d);
  }
  template <int R, int A, int B>
  void add(int64_t cell, int64_t pitch, Floats* d) const {
    TWOFOLD_UNROLL
    for (int i = A; i < K; i += 2) {
      TWOFOLD_UNROLL
      for (int j = B; j < K; j += 2) {
        const float* dy = from + cell + ((K - 1) / 2 - i / 2) * pitch + (K - 1) / 2 - j / 2;
        TWOFOLD_UNROLL
        for (int o = 0; o < R; ++o) d[o] += weight[i * K + j] * load(dy + o * pitch);
      }
    }
  }
};

void input_gradient(const Window& w, const WindowFrame& frame, int64_t filters, Rows rows, const float* dy, const float* weight, float* dx,
    float* from) {
  float* end = from;
  for (int64_t f = 0; f < filters; ++f) end = fill_window_frame(w, frame, rows, dy + f * w.P * w.Q, end);
  const int64_t kernel = w.kh * w.kw, plane = (end - from) / filters;
  if (filters == 1 && twice(w.kh, w.kw, w.sh, w.sw, w.dh, w.dw)) {
    if (w.kh == 2) return gather(w, frame, rows, TwiceTerm<2>{w, from, weight}, dx, end + kOverrun);
    if (w.kh == 3) return gather(w, frame, rows, TwiceTerm<3>{w, from, weight}, dx, end + kOverrun);
    return gather(w, frame, rows, TwiceTerm<5>{w, from, weight}, dx, end + kOverrun);
  }
  if (w.sh != 1 || w.sw != 1) {
    return gather(w, frame, rows, PixelTerm{from, weight, filters, kernel, plane}, dx, end + kOverrun);
  }
  float* to = dx + rows.first * w.W;
  if (filters == 1 && dense(w, 3)) return correlate(Dense<3, 3>(weight, true), from + w.left, frame.pitch, 0, rows.count, w.W, to);
  if (filters == 1 && dense(w, 5)) return correlate(Dense<5, 5>(weight, true), from + w.left, frame.pitch, 0, rows.count, w.W, to);
  const PixelTaps taps{frame.vertical, frame.horizontal, 0, 0, frame.pitch, w.kw};
  correlate(Seeing{taps, weight, filters, kernel, plane}, from + w.left, frame.pitch, 0, rows.count, w.W, to);
}

inline void add_to(float* sums, Floats v) { store(sums, load(sums) + v); }

// The first n lanes of x, and 0 beyond: 0 times what lies there might be NaN.
template <bool WHOLE>
inline Floats some(const float* x, int64_t n) {
  if constexpr (WHOLE) return load(x);
  return keep_first(load(x), n);
}

// dW of KH x KW neighbouring taps, from a column of lanes. Rows of x that all rows of taps see come first: the last KH rows of dy stay in
// registers, and so do the sums.
template <int KH, int KW, bool WHOLE>
inline void dense_column(const float* x, int64_t pitch, const float* dy, int64_t rows, int64_t columns, int64_t n, float* sums) {
  const auto gradient = [=](int64_t p) { return WHOLE ? load(dy + p * columns) : load_first(dy + p * columns, n); };
  if (rows >= KH) {
    Floats sum[KH * KW], d[KH];
    for (int t = 0; t < KH * KW; ++t) sum[t] = load(sums + t * kSums);
    for (int i = 1; i < KH; ++i) d[i - 1] = gradient(KH - 1 - i);
    for (int64_t r = KH - 1; r < rows; ++r) {
      for (int i = KH - 1; i > 0; --i) d[i] = d[i - 1];
      d[0] = gradient(r);
      for (int j = 0; j < KW; ++j) {
        Floats v = some<WHOLE>(x + r * pitch + j, n);
        hold(v);
        for (int i = 0; i < KH; ++i) sum[i * KW + j] += d[i] * v;
      }
    }
    for (int t = 0; t < KH * KW; ++t) store(sums + t * kSums, sum[t]);
  }
  const auto alone = [&](int64_t p, int64_t i) {
    for (int j = 0; j < KW; ++j) add_to(sums + (i * KW + j) * kSums, gradient(p) * some<WHOLE>(x + (p + i) * pitch + j, n));
  };
  for (int64_t i = 0; i < KH; ++i) {
    const int64_t above = least(rows, KH - 1 - i);
    for (int64_t p = 0; p < above; ++p) alone(p, i);
    for (int64_t p = most(above, rows - i); p < rows; ++p) alone(p, i);
  }
}

template <int KH, int KW>
inline void dense_gradient(const float* x, int64_t pitch, const float* dy, int64_t rows, int64_t columns, float* sums) {
  int64_t q = 0;
  for (; q + kLanes <= columns; q += kLanes) dense_column<KH, KW, true>(x + q, pitch, dy + q, rows, columns, kLanes, sums);
  if (q < columns) dense_column<KH, KW, false>(x + q, pitch, dy + q, rows, columns, columns - q, sums);
}

// dW of K x K neighbouring taps with stride 2, from a plain frame: I0 to I1 of the rows of taps.
template <int K, int I0, int I1>
inline void twice_gradient(const float* x, int64_t pitch, const float* dy, int64_t rows, int64_t columns, float* sums) {
  Floats sum[(I1 - I0) * K] = {};
  for (int64_t p = 0; p < rows; ++p, x += 2 * pitch, dy += columns) {
    for (int64_t q = 0; q < columns; q += kLanes) {
      const int64_t n = columns - q;
      const Floats d = load_most(dy + q, n);
      for (int i = I0; i < I1; ++i) {
        for (int j = 0; j < K; j += 2) {
          Floats even, odd;
          split(x + i * pitch + 2 * q + j, even, odd);
          sum[(i - I0) * K + j] += d * keep_first(even, n);
          if (j + 1 < K) sum[(i - I0) * K + j + 1] += d * keep_first(odd, n);
        }
      }
    }
  }
  for (int t = 0; t < (I1 - I0) * K; ++t) add_to(sums + (I0 * K + t) * kSums, sum[t]);
}

// dW of T taps, wherever they are.
template <int T>
inline void listed_gradient(
    const int64_t* offset, const float* x, int64_t pitch, const float* dy, int64_t rows, int64_t columns, float* sums) {
  Floats sum[T] = {};
  for (int64_t p = 0; p < rows; ++p, x += pitch, dy += columns) {
    int64_t q = 0;
    for (; q + kLanes <= columns; q += kLanes) {
      const Floats d = load(dy + q);
      for (int t = 0; t < T; ++t) sum[t] += d * load(x + offset[t] + q);
    }
    if (q < columns) {
      const Floats d = load_first(dy + q, columns - q);
      for (int t = 0; t < T; ++t) sum[t] += d * some<false>(x + offset[t] + q, columns - q);
    }
  }
  for (int t = 0; t < T; ++t) add_to(sums + t * kSums, sum[t]);
}

template <int T>
inline void listed_gradient(
    int64_t taps, const int64_t* offset, const float* x, int64_t pitch, const float* dy, int64_t rows, int64_t columns, float* sums) {
  if (taps == T) return listed_gradient<T>(offset, x, pitch, dy, rows, columns, sums);
  if constexpr (T > 1) listed_gradient<T - 1>(taps, offset, x, pitch, dy, rows, columns, sums);
}

inline void bias_gradient(const float* dy, int64_t count, float* sums) {
  Floats sum[4] = {};  // an addition takes several cycles: four at a time
  int64_t n = 0;
  for (; n + 4 * kLanes <= count; n += 4 * kLanes) {
    for (int part = 0; part < 4; ++part) sum[part] += load(dy + n + part * kLanes);
  }
  for (; n < count; n += kLanes) sum[0] += load_most(dy + n, count - n);
  add_to(sums, (sum[0] + sum[1]) + (sum[2] + sum[3]));
}

void weight_gradient(const Window& w, const MapFrame& frame, int64_t filters, Rows rows, const float* x, const float* dy, float* sums,
    float* from) {
  constexpr int64_t kMost = 9;
  const int64_t kernel = w.kh * w.kw;
  fill_map_frame(w, frame, rows, x, from);
  for (int64_t f = 0; f < filters; ++f, sums += (kernel + 1) * kSums) {
    const float* d = dy + (f * w.P + rows.first) * w.Q;
    if (frame.plain && w.kh == 2) {
      twice_gradient<2, 0, 2>(from, frame.pitch, d, rows.count, w.Q, sums);
    } else if (frame.plain && w.kh == 3) {
      twice_gradient<3, 0, 3>(from, frame.pitch, d, rows.count, w.Q, sums);
    } else if (frame.plain) {  // 25 sums are too many for the registers
      twice_gradient<5, 0, 2>(from, frame.pitch, d, rows.count, w.Q, sums);
      twice_gradient<5, 2, 4>(from, frame.pitch, d, rows.count, w.Q, sums);
      twice_gradient<5, 4, 5>(from, frame.pitch, d, rows.count, w.Q, sums);
    } else if (dense(w, 3)) {
      dense_gradient<3, 3>(from, frame.pitch, d, rows.count, w.Q, sums);
    } else if (dense(w, 5) && kLanes == 16) {  // 25 sums: too many for the registers of the other sets
      dense_gradient<5, 5>(from, frame.pitch, d, rows.count, w.Q, sums);
    } else {
      for (int64_t t = 0, chunks = (kernel + kMost - 1) / kMost; t < kernel; --chunks) {
        const int64_t taps = (kernel - t + chunks - 1) / chunks;
        listed_gradient<kMost>(taps, frame.offset + t, from, frame.pitch, d, rows.count, w.Q, sums + t * kSums);
        t += taps;
      }
    }
    bias_gradient(d, rows.count * w.Q, sums + kernel * kSums);
  }
}

}  // namespace depthwise

}  // namespace TWOFOLD_SET
}  // namespace twofold
