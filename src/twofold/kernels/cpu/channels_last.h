// Max and mean pooling of maps that lie channels last (h, w, channel): lanes run over the channels, and no pixel has to be moved. The
// laws are those of max_pool.h (bit for bit) and weighted_mean.h. Where channels are left over, the last block is moved left to end with
// them (numbers computed twice are the same).

namespace twofold {
namespace TWOFOLD_SET {
namespace channels_last {

// Calls work(where) for blocks of N channels.
template <int N, class Work>
inline void each_block(int64_t channels, Work work) {
  for (int64_t at = 0; at < channels; at += N) work(least(at, channels - N));
}

// Four channels: as Lanes4, but in a vector.
struct Quad {
  static constexpr int count = 4;
  using Values = Pack<4>::Floats;
  Values value;
  Pack<4>::Ints tap;

  template <int S>
  static Values every(const float* p, int64_t) { return load<4>(p); }
  void first(Values x, int32_t k) {
    value = x;
    tap = k + Pack<4>::Ints{};
  }
  void offer(Values x, int32_t k) {
    const Pack<4>::Ints wins = ~(x <= value) & (value == value);
    value = wins ? x : value;
    tap = wins ? k + Pack<4>::Ints{} : tap;
  }
  void store(float* y) const { __builtin_memcpy(y, &value, sizeof value); }
  void store_tap(int32_t* winner) const { __builtin_memcpy(winner, &tap, sizeof tap); }
  void store_tap(uint8_t* winner) const {
    const Pack<4>::Bytes bytes = __builtin_convertvector(tap, Pack<4>::Bytes);
    __builtin_memcpy(winner, &bytes, sizeof bytes);
  }
};

// A single channel: for fewer than four of them.
struct Lanes1 {
  static constexpr int count = 1;
  float value;
  int32_t tap;

  template <int S>
  static float every(const float* p, int64_t) { return *p; }
  void first(float x, int32_t k) {
    value = x;
    tap = k;
  }
  void offer(float x, int32_t k) { take(x, k, value, tap); }
  void store(float* y) const { *y = value; }
  template <class Tap>
  void store_tap(Tap* winner) const { *winner = static_cast<Tap>(tap); }
};

template <class Lanes, class Tap>
inline void max_rows(const Window& w, int64_t C, Rows rows, const float* x, float* y, Winners<Tap> winners) {
  for (int64_t p = rows.first; p < rows.first + rows.count; ++p) {
    const int64_t h = p * w.sh - w.top;
    const Range vertical = inside(h, w.kh, w.dh, w.H);
    for (int64_t q = 0; q < w.Q; ++q) {
      const int64_t v = q * w.sw - w.left, to = (p * w.Q + q) * C;
      const Range horizontal = inside(v, w.kw, w.dw, w.W);
      each_block<Lanes::count>(C, [&](int64_t c) {
        const auto pixel = [&](int64_t i, int64_t j) {
          return Lanes::template every<1>(x + ((h + i * w.dh) * w.W + v + j * w.dw) * C + c, 1);
        };
        Lanes lanes;
        int64_t i = vertical.begin, j = horizontal.begin;
        lanes.first(pixel(i, j), static_cast<int32_t>(i * w.kw + j));
        for (++j; i < vertical.end; ++i, j = horizontal.begin) {
          for (; j < horizontal.end; ++j) lanes.offer(pixel(i, j), static_cast<int32_t>(i * w.kw + j));
        }
        lanes.store(y + to + c);
        winners.put_lanes(to + c, lanes);
      });
    }
  }
}

template <class Tap>
inline void max_by_channels(const Window& w, int64_t C, Rows rows, const float* x, float* y, Tap* winner) {
  const Winners<Tap> winners{winner};
#if TWOFOLD_LANES >= 16
  if (C >= 16) return max_rows<Lanes16>(w, C, rows, x, y, winners);
#endif
#if TWOFOLD_LANES >= 8
  if (C >= 8) return max_rows<Lanes8>(w, C, rows, x, y, winners);
#endif
  if (C >= 4) return max_rows<Quad>(w, C, rows, x, y, winners);
  max_rows<Lanes1>(w, C, rows, x, y, winners);
}

void max_forward(const Window& w, int64_t C, Rows rows, const float* x, float* y, void* winner, int tap_bytes) {
  if (tap_bytes == 4) return max_by_channels(w, C, rows, x, y, static_cast<int32_t*>(winner));
  if (tap_bytes == 1) return max_by_channels(w, C, rows, x, y, static_cast<uint8_t*>(winner));
  max_by_channels(w, C, rows, x, y, static_cast<void*>(nullptr));
}

template <int N>
inline typename Pack<N>::Ints load_taps(const uint8_t* p) {
  typename Pack<N>::Bytes bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, typename Pack<N>::Ints);
}

template <int N>
inline typename Pack<N>::Ints load_taps(const int32_t* p) {
  typename Pack<N>::Ints taps;
  __builtin_memcpy(&taps, p, sizeof taps);
  return taps;
}

// A window that sees a pixel: where it is; the number of the tap that sees it, or what the tap weighs.
struct Seen {
  int64_t place;
  int32_t tap;
  float weight;
};

// For every pixel, pixel(where it is, how many windows see it); they are put into `seen` in reading order, made by see(the window's row
// and column, the tap's row and column).
template <class See, class Pixel>
inline void each_pixel(const Window& w, const WindowFrame& frame, Rows rows, Seen* seen, See see, Pixel pixel) {
  const Residues &vertical = frame.vertical, &horizontal = frame.horizontal;
  for (int64_t h = rows.first; h < rows.first + rows.count; ++h) {
    const int64_t u = (h + w.top) / w.sh - frame.up, r = h % w.sh;
    int64_t v = w.left / w.sw - frame.aside, phase = w.left % w.sw, c = 0;
    for (int64_t at = 0; at < w.W; ++at) {
      int64_t windows = 0;
      for (int64_t i = vertical.begin[r]; i < vertical.begin[r + 1]; ++i) {
        const int64_t p = u + vertical.back[i];
        if (p < 0 || p >= w.P) continue;
        for (int64_t j = horizontal.begin[c]; j < horizontal.begin[c + 1]; ++j) {
          const int64_t q = v + horizontal.back[j];
          if (q >= 0 && q < w.Q) seen[windows++] = see(p, q, vertical.tap[i], horizontal.tap[j]);
        }
      }
      pixel(h * w.W + at, windows);
      if (++phase == w.sw) {
        phase = 0;
        ++v;
      }
      if (++c == w.sw) c = 0;
    }
  }
}

template <int N, class Tap>
inline void max_gather(
    const Window& w, const WindowFrame& frame, int64_t C, Rows rows, const float* dy, const Tap* winner, float* dx, Seen* seen) {
  const auto see = [&](int64_t p, int64_t q, int64_t i, int64_t j) {
    return Seen{(p * w.Q + q) * C, static_cast<int32_t>(i * w.kw + j), 0.0f};
  };
  each_pixel(w, frame, rows, seen, see, [&](int64_t to, int64_t windows) {
    each_block<N>(C, [&](int64_t c) {
      typename Pack<N>::Floats sum{};
      for (int64_t n = 0; n < windows; ++n) {
        const auto with = sum + load<N>(dy + seen[n].place + c);
        sum = load_taps<N>(winner + seen[n].place + c) == seen[n].tap ? with : sum;
      }
      store(dx + to * C + c, sum);
    });
  });
}

template <class Tap>
inline void max_gather_by_channels(
    const Window& w, const WindowFrame& frame, int64_t C, Rows rows, const float* dy, const Tap* winner, float* dx, Seen* seen) {
#if TWOFOLD_LANES >= 16
  if (C >= 16) return max_gather<16>(w, frame, C, rows, dy, winner, dx, seen);
#endif
#if TWOFOLD_LANES >= 8
  if (C >= 8) return max_gather<8>(w, frame, C, rows, dy, winner, dx, seen);
#endif
  if (C >= 4) return max_gather<4>(w, frame, C, rows, dy, winner, dx, seen);
  max_gather<1>(w, frame, C, rows, dy, winner, dx, seen);
}

void max_backward(const Window& w, const WindowFrame& frame, int64_t C, Rows rows, const float* dy, const void* winner, int tap_bytes,
    float* dx, void* memory) {
  auto* seen = static_cast<Seen*>(memory);
  if (tap_bytes == 4) return max_gather_by_channels(w, frame, C, rows, dy, static_cast<const int32_t*>(winner), dx, seen);
  max_gather_by_channels(w, frame, C, rows, dy, static_cast<const uint8_t*>(winner), dx, seen);
}

template <int N>
inline void mean_rows(const Window& w, const Mean& mean, int64_t C, Rows rows, const float* x, float* y) {
  for (int64_t p = rows.first; p < rows.first + rows.count; ++p) {
    const int64_t h = p * w.sh - w.top;
    const Range vertical = inside(h, w.kh, w.dh, w.H);
    for (int64_t q = 0; q < w.Q; ++q) {
      const int64_t v = q * w.sw - w.left;
      const Range horizontal = inside(v, w.kw, w.dw, w.W);
      const float n = mean.nh[p] * mean.nw[q];
      each_block<N>(C, [&](int64_t c) {
        typename Pack<N>::Floats sum{};
        for (int64_t i = vertical.begin; i < vertical.end; ++i) {
          const float* from = x + ((h + i * w.dh) * w.W + v) * C + c;
          for (int64_t j = horizontal.begin; j < horizontal.end; ++j) sum += mean.gh[i] * mean.gw[j] * load<N>(from + j * w.dw * C);
        }
        store(y + (p * w.Q + q) * C + c, sum / n);
      });
    }
  }
}

void mean_forward(const Window& w, const Mean& mean, int64_t C, Rows rows, const float* x, float* y) {
#if TWOFOLD_LANES >= 16
  if (C >= 16) return mean_rows<16>(w, mean, C, rows, x, y);
#endif
#if TWOFOLD_LANES >= 8
  if (C >= 8) return mean_rows<8>(w, mean, C, rows, x, y);
#endif
  if (C >= 4) return mean_rows<4>(w, mean, C, rows, x, y);
  mean_rows<1>(w, mean, C, rows, x, y);
}

template <int N>
inline void mean_gather(
    const Window& w, const WindowFrame& frame, const Mean& mean, int64_t C, Rows rows, const float* dy, float* dx, Seen* seen) {
  const auto see = [&](int64_t p, int64_t q, int64_t i, int64_t j) {
    return Seen{(p * w.Q + q) * C, 0, mean.gh[i] * mean.gw[j] / (mean.nh[p] * mean.nw[q])};
  };
  each_pixel(w, frame, rows, seen, see, [&](int64_t to, int64_t windows) {
    each_block<N>(C, [&](int64_t c) {
      typename Pack<N>::Floats sum{};
      for (int64_t n = 0; n < windows; ++n) sum += seen[n].weight * load<N>(dy + seen[n].place + c);
      store(dx + to * C + c, sum);
    });
  });
}

void mean_backward(
    const Window& w, const WindowFrame& frame, const Mean& mean, int64_t C, Rows rows, const float* dy, float* dx, void* memory) {
  auto* seen = static_cast<Seen*>(memory);
#if TWOFOLD_LANES >= 16
  if (C >= 16) return mean_gather<16>(w, frame, mean, C, rows, dy, dx, seen);
#endif
#if TWOFOLD_LANES >= 8
  if (C >= 8) return mean_gather<8>(w, frame, mean, C, rows, dy, dx, seen);
#endif
  if (C >= 4) return mean_gather<4>(w, frame, mean, C, rows, dy, dx, seen);
  mean_gather<1>(w, frame, mean, C, rows, dy, dx, seen);
}

}  // namespace channels_last
}  // namespace TWOFOLD_SET
}  // namespace twofold
