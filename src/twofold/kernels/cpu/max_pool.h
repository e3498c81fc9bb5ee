// Max pooling of float maps, the law of space/max_pooling.py:
//
//   forward    y[p,q] = max_k x[window(p,q,k)]      the first of equals wins, the first NaN beats every number, padding never wins
//   backward   dx[h,w] = sum of dy[p,q] over the windows that (h,w) won, in reading order
//
// A row of outputs has three parts: windows that reach over the left edge, those that do not, those that reach over the right edge.
// The middle runs in lanes; its last block is moved left to end where the middle ends (outputs computed twice are the same). Where the
// windows are neighbours (stride and dilation 1), the whole row does: lanes over an edge see -infinity there.
// Every window holds at least one pixel: bind.cpp sees to that.
// Compiled once per instruction set, in the namespace TWOFOLD_SET (see lanes.h).

namespace twofold {
namespace TWOFOLD_SET {

struct Range {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The taps i of a window that begins at `start` for which 0 <= start + i * dilation < size.
inline Range inside(int64_t start, int64_t taps, int64_t dilation, int64_t size) {
  return {start < 0 ? (-start + dilation - 1) / dilation : 0, least((size - 1 - start) / dilation + 1, taps)};
}

// The columns q whose windows lie inside the map.
inline Range middle(const Window& w) {
  const int64_t begin = least((w.left + w.sw - 1) / w.sw, w.Q);
  const int64_t room = w.W - 1 - (w.kw - 1) * w.dw + w.left;
  const int64_t end = room < 0 ? 0 : least(room / w.sw + 1, w.Q);
  return {begin, end < begin ? begin : end};
}

#if TWOFOLD_LANES >= 16
using Widest = Lanes16;
#elif TWOFOLD_LANES >= 8
using Widest = Lanes8;
#else
using Widest = Lanes4;
#endif

// Where the winners are written; Tap is void where nobody wants them.
template <class Tap>
struct Winners {
  Tap* at;
  Winners from(int64_t first) const { return {at + first}; }
  void put(int64_t q, int64_t tap) const { at[q] = static_cast<Tap>(tap); }
  template <class Lanes>
  void put_lanes(int64_t q, const Lanes& lanes) const { lanes.store_tap(at + q); }
  template <class Lanes>
  void put_first(int64_t q, const Lanes& lanes, int64_t n) const { lanes.store_tap(at + q, n); }
};
template <>
struct Winners<void> {
  void* at;
  Winners from(int64_t) const { return {nullptr}; }
  void put(int64_t, int64_t) const {}
  template <class Lanes>
  void put_lanes(int64_t, const Lanes&) const {}
  template <class Lanes>
  void put_first(int64_t, const Lanes&, int64_t) const {}
};

// A row of windows: x is the map, h where they begin, `rows` the rows of taps that lie inside.
template <class Tap>
struct Row {
  const float* x;
  int64_t h;
  Range rows;
  float* y;
  Winners<Tap> winners;
};

// Outputs one by one, over the edges if need be.
template <class Tap>
inline void pool_singly(const Window& w, const Row<Tap>& row, Range outputs) {
  for (int64_t q = outputs.begin; q < outputs.end; ++q) {
    const int64_t v = q * w.sw - w.left;
    const Range columns = inside(v, w.kw, w.dw, w.W);
    int32_t tap = static_cast<int32_t>(row.rows.begin * w.kw + columns.begin);
    float value = row.x[(row.h + row.rows.begin * w.dh) * w.W + v + columns.begin * w.dw];
    for (int64_t i = row.rows.begin; i < row.rows.end; ++i) {
      const float* line = row.x + (row.h + i * w.dh) * w.W + v;
      for (int64_t j = columns.begin; j < columns.end; ++j) {
        take(line[j * w.dw], static_cast<int32_t>(i * w.kw + j), value, tap);
      }
    }
    row.y[q] = value;
    row.winners.put(q, tap);
  }
}

// Outputs of the middle in lanes. KH KW S: taps and column stride where known when compiling, else 0.
template <class Lanes, int KH, int KW, int S, class Tap>
inline void pool_lanes(const Window& w, const Row<Tap>& row, Range outputs) {
  const int64_t kw = KW ? KW : w.kw, begin = KH ? 0 : row.rows.begin, end = KH ? KH : row.rows.end;
  for (int64_t at = outputs.begin; at < outputs.end; at += Lanes::count) {
    const int64_t q = least(at, outputs.end - Lanes::count);
    const float* corner = row.x + row.h * w.W + q * w.sw - w.left;
    Lanes lanes;
    lanes.first(Lanes::template every<S>(corner + begin * w.dh * w.W, w.sw), static_cast<int32_t>(begin * kw));
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = i == begin; j < kw; ++j) {
        lanes.offer(Lanes::template every<S>(corner + i * w.dh * w.W + j * w.dw, w.sw), static_cast<int32_t>(i * kw + j));
      }
    }
    lanes.store(row.y + q);
    row.winners.put_lanes(q, lanes);
  }
}

// A row of neighbouring windows in lanes, edges and all.
template <class Lanes, int KH, int KW, class Tap>
inline void pool_whole(const Window& w, const Row<Tap>& row) {
  const int64_t kw = KW ? KW : w.kw, begin = KH ? 0 : row.rows.begin, end = KH ? KH : row.rows.end;
  for (int64_t at = 0; at < w.Q; at += Lanes::count) {
    const int64_t q = w.Q < Lanes::count ? 0 : least(at, w.Q - Lanes::count), v = q - w.left;
    const float* corner = row.x + row.h * w.W + v;
    Lanes lanes;
    lanes.nothing(static_cast<int32_t>(begin * kw), static_cast<int32_t>(-v));
    const bool inner = v >= 0 && v + Lanes::count + kw - 1 <= w.W;
    for (int64_t i = begin; i < end; ++i) {
      const float* from = corner + i * w.dh * w.W;
      for (int64_t j = 0; j < kw; ++j) {
        const auto tap = static_cast<int32_t>(i * kw + j);
        if (inner) lanes.offer(Lanes::template every<1>(from + j, 1), tap);
        else lanes.offer(Lanes::between(from + j, -v - j, w.W - v - j), tap);
      }
    }
    if (w.Q < Lanes::count) {
      lanes.store(row.y, w.Q);
      row.winners.put_first(0, lanes, w.Q);
    } else {
      lanes.store(row.y + q);
      row.winners.put_lanes(q, lanes);
    }
  }
}

template <int KH, int KW, int S, class Tap>
inline void pool_row(const Window& w, const Row<Tap>& row, Range inner) {
  if (S == 1 && w.dw == 1) return pool_whole<Widest, KH, KW>(w, row);
  pool_singly(w, row, {0, inner.begin});
#if TWOFOLD_LANES >= 16
  if (inner.count() >= 16) {
    pool_lanes<Lanes16, KH, KW, S>(w, row, inner);
  } else
#endif
#if TWOFOLD_LANES >= 8
  if (inner.count() >= 8) {
    pool_lanes<Lanes8, KH, KW, S>(w, row, inner);
  } else
#endif
  if (inner.count() >= 4) {
    pool_lanes<Lanes4, KH, KW, S>(w, row, inner);
  } else {
    pool_singly(w, row, inner);
  }
  pool_singly(w, row, {inner.end, w.Q});
}

// A map under 3x3 neighbouring windows, column of lanes by column. The winner of a row of taps is found once, for the three rows of
// windows that see it: four comparisons an output instead of eight.
template <class Lanes, class Tap>
inline void pool_nine(const Window& w, const float* x, float* y, Winners<Tap> winners) {
  for (int64_t at = 0; at < w.Q; at += Lanes::count) {
    const int64_t q = w.Q < Lanes::count ? 0 : least(at, w.Q - Lanes::count), v = q - w.left;
    const bool inner = v >= 0 && v + Lanes::count + 2 <= w.W;
    const auto taps_of = [&](int64_t h) {
      Lanes lanes;
      lanes.nothing(0, static_cast<int32_t>(-v));
      if (h < 0 || h >= w.H) return lanes;
      const float* from = x + h * w.W + v;
      if (inner) {
        lanes.first(Lanes::template every<1>(from, 1), 0);
        lanes.offer(Lanes::template every<1>(from + 1, 1), 1);
        lanes.offer(Lanes::template every<1>(from + 2, 1), 2);
      } else {
        for (int32_t j = 0; j < 3; ++j) lanes.offer(Lanes::between(from + j, -v - j, w.W - v - j), j);
      }
      return lanes;
    };
    Lanes above = taps_of(-w.top), middle = taps_of(1 - w.top);
    for (int64_t p = 0; p < w.P; ++p) {
      const Lanes below = taps_of(p + 2 - w.top);
      const Range rows = inside(p - w.top, 3, 1, w.H);
      Lanes best = above;
      if (rows.begin > 0) best.nothing(static_cast<int32_t>(3 * rows.begin), static_cast<int32_t>(-v));
      if (rows.begin <= 1 && rows.end > 1) best.join(middle, 3);
      if (rows.end > 2) best.join(below, 6);
      if (w.Q < Lanes::count) {
        best.store(y + p * w.Q, w.Q);
        winners.put_first(p * w.Q, best, w.Q);
      } else {
        best.store(y + p * w.Q + q);
        winners.put_lanes(p * w.Q + q, best);
      }
      above = middle;
      middle = below;
    }
  }
}

template <int KH, int KW, int S, class Tap>
void pool_maps(const Window& w, int64_t maps, const float* x, float* y, Tap* winner) {
  const Winners<Tap> winners{winner};
  const Range inner = middle(w);
  for (int64_t map = 0; map < maps; ++map, x += w.H * w.W) {
    for (int64_t p = 0; p < w.P; ++p) {
      const int64_t h = p * w.sh - w.top, first = (map * w.P + p) * w.Q;
      const Row<Tap> row{x, h, inside(h, w.kh, w.dh, w.H), y + first, winners.from(first)};
      if (KH && row.rows.count() < KH) {
        pool_row<0, 0, S>(w, row, inner);
      } else {
        pool_row<KH, KW, S>(w, row, inner);
      }
    }
  }
}

// Narrow even maps under 2x2 windows side by side: a row is shorter than the lanes, so the lanes run on into the next rows and maps.
// Output n sees x[4n - 2 (n mod Q)] and its three neighbours; the lanes hold whole rows, so the offsets are the same in every block.
template <class Lanes, class Tap>
void pool_narrow(const Window& w, int64_t outputs, const float* x, float* y, Winners<Tap> winners) {
  int32_t at[Lanes::count];
  for (int32_t l = 0; l < Lanes::count; ++l) at[l] = static_cast<int32_t>(4 * l - 2 * (l % w.Q));
  for (int64_t begin = 0; begin < outputs; begin += Lanes::count) {
    const int64_t n = least(begin, outputs - Lanes::count);
    const float *upper = x + 4 * n, *lower = upper + w.W;
    Lanes lanes;
    lanes.first(Lanes::gather(upper, at), 0);
    lanes.offer(Lanes::gather(upper + 1, at), 1);
    lanes.offer(Lanes::gather(lower, at), 2);
    lanes.offer(Lanes::gather(lower + 1, at), 3);
    lanes.store(y + n);
    winners.put_lanes(n, lanes);
  }
}

template <class Tap>
bool pool_if_narrow(const Window& w, int64_t maps, const float* x, float* y, Tap* winner) {
  const bool side_by_side = w.kh == 2 && w.kw == 2 && w.sh == 2 && w.sw == 2 && w.dh == 1 && w.dw == 1 && !w.top && !w.left;
  const int64_t outputs = maps * w.P * w.Q;
  const bool narrow = w.Q < Widest::count && Widest::count % w.Q == 0 && outputs >= Widest::count;
  if (!side_by_side || !narrow || w.W != 2 * w.Q || w.H != 2 * w.P) return false;
  pool_narrow<Widest>(w, outputs, x, y, Winners<Tap>{winner});
  return true;
}

template <class Tap>
void pool_by_stride(const Window& w, int64_t maps, const float* x, float* y, Tap* winner) {
  if (w.sw == 1) return pool_maps<0, 0, 1>(w, maps, x, y, winner);
  if (w.sw == 2) return pool_maps<0, 0, 2>(w, maps, x, y, winner);
  pool_maps<0, 0, 0>(w, maps, x, y, winner);
}

template <class Tap>
void pool_by_kernel(const Window& w, int64_t maps, const float* x, float* y, Tap* winner) {
  if (pool_if_narrow(w, maps, x, y, winner)) return;
  if (w.kh == 2 && w.kw == 2 && w.sw == 2) return pool_maps<2, 2, 2>(w, maps, x, y, winner);
  if (w.kh == 3 && w.kw == 3 && w.sw == 2) return pool_maps<3, 3, 2>(w, maps, x, y, winner);
  if (w.kh == 3 && w.kw == 3 && w.sh == 1 && w.sw == 1 && w.dh == 1 && w.dw == 1) {
    for (int64_t map = 0; map < maps; ++map) {
      pool_nine<Widest>(w, x + map * w.H * w.W, y + map * w.P * w.Q, Winners<Tap>{winner}.from(map * w.P * w.Q));
    }
    return;
  }
  pool_by_stride(w, maps, x, y, winner);
}

void max_pool(const Window& w, int64_t maps, const float* x, float* y, void* winner, int tap_bytes) {
  if (tap_bytes == 4) return pool_by_stride(w, maps, x, y, static_cast<int32_t*>(winner));
  if (tap_bytes == 1) return pool_by_kernel(w, maps, x, y, static_cast<uint8_t*>(winner));
  pool_by_kernel(w, maps, x, y, static_cast<void*>(nullptr));
}

// A row of 2x2 windows side by side fills two rows of dx completely: no zeros beforehand, nothing to add up.
template <class Lanes>
inline void spread_lanes(const float* dy, const uint8_t* winner, int64_t Q, float* upper, float* lower) {
  for (int64_t at = 0; at < Q; at += Lanes::count) {
    const int64_t q = least(at, Q - Lanes::count);
    Lanes::spread(dy + q, winner + q, 0, upper + 2 * q);
    Lanes::spread(dy + q, winner + q, 2, lower + 2 * q);
  }
}

inline void spread_row(const float* dy, const uint8_t* winner, int64_t Q, float* upper, float* lower) {
#if TWOFOLD_LANES >= 16
  if (Q >= 16) return spread_lanes<Lanes16>(dy, winner, Q, upper, lower);
#endif
#if TWOFOLD_LANES >= 8
  if (Q >= 8) return spread_lanes<Lanes8>(dy, winner, Q, upper, lower);
#endif
  if (Q >= 4) return spread_lanes<Lanes4>(dy, winner, Q, upper, lower);
  for (int64_t q = 0; q < Q; ++q) {
    upper[2 * q] = masked(dy[q], winner[q] == 0);
    upper[2 * q + 1] = masked(dy[q], winner[q] == 1);
    lower[2 * q] = masked(dy[q], winner[q] == 2);
    lower[2 * q + 1] = masked(dy[q], winner[q] == 3);
  }
}

inline void clear(float* begin, float* end) {
  for (; begin < end; ++begin) *begin = 0.0f;
}

inline void spread_maps(const Window& w, int64_t maps, const float* dy, const uint8_t* winner, float* dx) {
  for (int64_t map = 0; map < maps; ++map, dx += w.H * w.W) {
    for (int64_t p = 0; p < w.P; ++p, dy += w.Q, winner += w.Q) {
      float *upper = dx + 2 * p * w.W, *lower = upper + w.W;
      spread_row(dy, winner, w.Q, upper, lower);
      clear(upper + 2 * w.Q, lower);
      clear(lower + 2 * w.Q, lower + w.W);
    }
    clear(dx + 2 * w.P * w.W, dx + w.H * w.W);
  }
}

// Any windows: each output adds its gradient to the pixel that won. A number that names no tap or no pixel adds nothing.
template <class Tap>
void scatter_maps(const Window& w, int64_t maps, const float* dy, const Tap* winner, const int64_t* offset, float* dx) {
  const uint64_t taps = static_cast<uint64_t>(w.kh * w.kw), pixels = static_cast<uint64_t>(w.H * w.W);
  for (int64_t map = 0; map < maps; ++map, dx += pixels) {
    clear(dx, dx + pixels);
    for (int64_t p = 0; p < w.P; ++p, dy += w.Q, winner += w.Q) {
      int64_t corner = (p * w.sh - w.top) * w.W - w.left;
      for (int64_t q = 0; q < w.Q; ++q, corner += w.sw) {
        const uint64_t tap = static_cast<uint64_t>(winner[q]);
        const uint64_t pixel = static_cast<uint64_t>(corner + (tap < taps ? offset[tap] : 0));
        if (tap < taps && pixel < pixels) dx[pixel] += dy[q];
      }
    }
  }
}

void max_pool_backward(
    const Window& w, int64_t maps, const float* dy, const void* winner, int tap_bytes, const int64_t* offset, float* dx) {
  if (tap_bytes == 4) return scatter_maps(w, maps, dy, static_cast<const int32_t*>(winner), offset, dx);
  const auto* bytes = static_cast<const uint8_t*>(winner);
  const bool side_by_side = w.kh == 2 && w.kw == 2 && w.sh == 2 && w.sw == 2 && w.dh == 1 && w.dw == 1;
  if (side_by_side && !w.top && !w.left && 2 * w.P <= w.H && 2 * w.Q <= w.W) return spread_maps(w, maps, dy, bytes, dx);
  scatter_maps(w, maps, dy, bytes, offset, dx);
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
