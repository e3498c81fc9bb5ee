// Convolution with the lanes along the width: for few filters. A tile is FB filters by V vectors of neighbouring windows.

namespace twofold {
namespace TWOFOLD_SET {

constexpr int64_t kWidthFilters = 6, kWidthVectors = Vector::registers == 32 ? 4 : 2;
constexpr int64_t kSumFilters = Vector::registers == 32 ? 6 : 3, kSumTaps = Vector::registers == 32 ? 4 : 3;

struct WidthTile {
  const float* x;         // window n of the frame
  const int64_t* offset;  // of every tap
  Taps taps;
  const float* weight;  // [tap][FB]
  const float* bias;    // [FB]
  bool relu;
  float* y;
  int64_t y_step;
};

template <int FB, int V>
inline void width_tile(const WidthTile& tile) {
  Vector sum[FB][V];
  TWOFOLD_UNROLL
  for (int f = 0; f < FB; ++f) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) sum[f][v] = Vector::every(tile.bias[f]);
  }
  for (int64_t channel = tile.taps.begin; channel < tile.taps.all; channel += tile.taps.step) {
    const float* weight = tile.weight + channel * FB;
    for (int64_t t = channel; t < channel + tile.taps.run; ++t, weight += FB) {
      const float* x = tile.x + tile.offset[t];
      Vector seen[V];
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) seen[v] = Vector::load(x + v * Vector::lanes);
      TWOFOLD_UNROLL
      for (int f = 0; f < FB; ++f) {
        const Vector w = Vector::every(weight[f]);
        TWOFOLD_UNROLL
        for (int v = 0; v < V; ++v) sum[f][v].add_product(seen[v], w);
      }
    }
  }
  TWOFOLD_UNROLL
  for (int f = 0; f < FB; ++f) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      (tile.relu ? sum[f][v].positive() : sum[f][v]).store(tile.y + f * tile.y_step + v * Vector::lanes);
    }
  }
}

// `count` neighbouring windows for FB filters; y gets whole vectors.
template <int FB>
inline void width_run(WidthTile tile, int64_t count) {
  constexpr int most = static_cast<int>(kWidthVectors);
  for (int64_t left = parts(count, Vector::lanes); left > 0;) {
    int64_t vectors = 1;
    if (left >= most) {
      width_tile<FB, most>(tile);
      vectors = most;
    } else if (left >= 2) {
      width_tile<FB, 2>(tile);
      vectors = 2;
    } else {
      width_tile<FB, 1>(tile);
    }
    left -= vectors;
    tile.x += vectors * Vector::lanes;
    tile.y += vectors * Vector::lanes;
  }
}

// All windows of the frame, row by row (taps that see nothing but padding are left out) or, where that takes fewer vectors, all rows
// as one run.
template <int FB>
inline void width_block(const Convolution& c, const Frame& frame, WidthTile tile) {
  const bool by_row = row_by_row(c, frame);
  const float* x = tile.x;
  float* y = tile.y;
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t p = 0; p < (by_row ? frame.rows : 1); ++p) {
      if (by_row) tile.taps = Taps(c, frame.row + p, frame.row + p);
      tile.x = x + g * frame.image + p * frame.pitch;
      tile.y = y + g * frame.image + p * frame.pitch;
      width_run<FB>(tile, by_row ? c.Q : frame.windows);
    }
  }
}

inline void correlate_by_width(
    const Convolution& c, const Frame& frame, const float* x, const int64_t* offset, const float* packed, bool relu, float* y, int64_t y_step) {
  const float* bias = packed + c.F * c.taps();
  for (int64_t f = 0; f < c.F;) {
    const int64_t count = block_of(f, c.F, kWidthFilters);
    const WidthTile tile{x, offset, Taps(c), packed + f * c.taps(), bias + f, relu, y + f * y_step, y_step};
    switch (count) {
      case 1: width_block<1>(c, frame, tile); break;
      case 2: width_block<2>(c, frame, tile); break;
      case 3: width_block<3>(c, frame, tile); break;
      case 4: width_block<4>(c, frame, tile); break;
      case 5: width_block<5>(c, frame, tile); break;
      default: width_block<6>(c, frame, tile); break;
    }
    f += count;
  }
}

// The gradient of FB filters by TB taps: sums over the windows, lane by lane, added to what is there.
template <int FB, int TB>
inline void width_sums(const float* x, const int64_t* offset, const float* dy, int64_t dy_step, const Frame& frame, float* sums, int64_t taps) {
  Vector sum[FB][TB];
  TWOFOLD_UNROLL
  for (int f = 0; f < FB; ++f) {
    TWOFOLD_UNROLL
    for (int t = 0; t < TB; ++t) sum[f][t] = Vector::load(sums + (f * taps + t) * Vector::lanes);
  }
  const float* seen[TB];
  TWOFOLD_UNROLL
  for (int t = 0; t < TB; ++t) seen[t] = x + offset[t];
  for (int64_t g = 0; g < frame.images; ++g) {
    const int64_t first = g * frame.image;
    for (int64_t n = first; n < first + frame.windows; n += Vector::lanes) {
      Vector d[FB];
      TWOFOLD_UNROLL
      for (int f = 0; f < FB; ++f) d[f] = Vector::load(dy + f * dy_step + n);
      TWOFOLD_UNROLL
      for (int t = 0; t < TB; ++t) {
        const Vector value = Vector::load(seen[t] + n);
        TWOFOLD_UNROLL
        for (int f = 0; f < FB; ++f) sum[f][t].add_product(value, d[f]);
      }
    }
  }
  TWOFOLD_UNROLL
  for (int f = 0; f < FB; ++f) {
    TWOFOLD_UNROLL
    for (int t = 0; t < TB; ++t) sum[f][t].store(sums + (f * taps + t) * Vector::lanes);
  }
}

template <int FB>
inline void width_sums_of(
    const float* x, const int64_t* offset, const float* dy, int64_t dy_step, const Frame& frame, float* sums, int64_t taps) {
  for (int64_t t = 0; t < taps;) {
    const int64_t count = block_of(t, taps, kSumTaps);
    float* here = sums + t * Vector::lanes;
    switch (count) {
      case 1: width_sums<FB, 1>(x, offset + t, dy, dy_step, frame, here, taps); break;
      case 2: width_sums<FB, 2>(x, offset + t, dy, dy_step, frame, here, taps); break;
      case 3: width_sums<FB, 3>(x, offset + t, dy, dy_step, frame, here, taps); break;
      default: width_sums<FB, static_cast<int>(kSumTaps)>(x, offset + t, dy, dy_step, frame, here, taps); break;
    }
    t += count;
  }
}

// dy [filter][window of the frame], 0 where no window stands
inline void weight_sums_by_width(
    const Convolution& c, const Frame& frame, const float* x, const int64_t* offset, const float* dy, int64_t dy_step, float* sums) {
  const int64_t taps = c.taps();
  for (int64_t f = 0; f < c.F;) {
    const int64_t count = block_of(f, c.F, kSumFilters);
    const float* d = dy + f * dy_step;
    float* here = sums + f * taps * Vector::lanes;
    switch (count) {
      case 1: width_sums_of<1>(x, offset, d, dy_step, frame, here, taps); break;
      case 2: width_sums_of<2>(x, offset, d, dy_step, frame, here, taps); break;
      case 3: width_sums_of<3>(x, offset, d, dy_step, frame, here, taps); break;
#if TWOFOLD_LANES == 16
      case 4: width_sums_of<4>(x, offset, d, dy_step, frame, here, taps); break;
      case 5: width_sums_of<5>(x, offset, d, dy_step, frame, here, taps); break;
      default: width_sums_of<6>(x, offset, d, dy_step, frame, here, taps); break;
#endif
    }
    f += count;
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
