// Convolution with the lanes over the filters: for many filters. A tile is R rows by T columns of windows by V vectors of filters.

namespace twofold {
namespace TWOFOLD_SET {

struct FilterTile {
  const float* x;         // the first window of the tile in the frame
  const int64_t* offset;  // of every tap
  Taps taps;
  int64_t pitch;
  const float* weight;  // [tap][V lanes]
  const float* bias;    // [V lanes]
  bool relu;
  float* y;  // [window][filters]
  int64_t filters, row_windows;
};

template <int R, int T, int V>
inline void filter_tile(const FilterTile& tile) {
  Vector sum[R * T][V];
  TWOFOLD_UNROLL
  for (int v = 0; v < V; ++v) {
    const Vector first = Vector::load(tile.bias + v * Vector::lanes);
    TWOFOLD_UNROLL
    for (int n = 0; n < R * T; ++n) sum[n][v] = first;
  }
  for (int64_t channel = tile.taps.begin; channel < tile.taps.all; channel += tile.taps.step) {
    const float* weight = tile.weight + channel * V * Vector::lanes;
    for (int64_t t = channel; t < channel + tile.taps.run; ++t, weight += V * Vector::lanes) {
      const float* x = tile.x + tile.offset[t];
      Vector w[V];
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) w[v] = Vector::load(weight + v * Vector::lanes);
      TWOFOLD_UNROLL
      for (int r = 0; r < R; ++r) {
        TWOFOLD_UNROLL
        for (int q = 0; q < T; ++q) {
          const Vector seen = Vector::every(x[r * tile.pitch + q]);
          TWOFOLD_UNROLL
          for (int v = 0; v < V; ++v) sum[r * T + q][v].add_product(seen, w[v]);
        }
      }
    }
  }
  TWOFOLD_UNROLL
  for (int r = 0; r < R; ++r) {
    TWOFOLD_UNROLL
    for (int q = 0; q < T; ++q) {
      float* y = tile.y + (r * tile.row_windows + q) * tile.filters;
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) {
        const Vector s = sum[r * T + q][v];
        (tile.relu ? s.positive() : s).store(y + v * Vector::lanes);
      }
    }
  }
}

using FilterTileFunction = void (*)(const FilterTile&);

template <int R, int V>
inline FilterTileFunction filter_tile_of(int64_t columns) {
  switch (columns) {
    case 1: return filter_tile<R, 1, V>;
    case 2: return filter_tile<R, 2, V>;
    case 3: return filter_tile<R, 3, V>;
#if TWOFOLD_LANES == 16
    case 4: return filter_tile<R, 4, V>;
    case 5: return filter_tile<R, 5, V>;
    case 6: return filter_tile<R, 6, V>;
    default: return filter_tile<R, 7, V>;
#else
    default: return nullptr;
#endif
  }
}

template <int V>
inline FilterTileFunction wide_tile_of(int64_t columns) {
  switch (columns) {
    case 1: return filter_tile<1, 1, V>;
    case 2: return filter_tile<1, 2, V>;
    case 3: return filter_tile<1, 3, V>;
    case 4: return filter_tile<1, 4, V>;
    case 5: return filter_tile<1, 5, V>;
    case 6: return filter_tile<1, 6, V>;
#if TWOFOLD_LANES == 16
    case 7: return filter_tile<1, 7, V>;
    case 8: return filter_tile<1, 8, V>;
    case 9: return filter_tile<1, 9, V>;
    case 10: return filter_tile<1, 10, V>;
    case 11: return filter_tile<1, 11, V>;
    case 12: return filter_tile<1, 12, V>;
    case 13: return filter_tile<1, 13, V>;
    default: return filter_tile<1, 14, V>;
#else
    default: return nullptr;
#endif
  }
}

template <int V>
inline void filter_block(const Convolution& c, const Frame& frame, FilterTile tile) {
  const float* x = tile.x;
  float* y = tile.y;
  const int64_t columns = parts(c.Q, parts(c.Q, kTileWindows)), together = 2 * columns <= kTileWindows ? 2 : 1;
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t p = 0; p < frame.rows;) {
      const int64_t rows = smaller(together, frame.rows - p);
      tile.taps = Taps(c, frame.row + p, frame.row + p + rows - 1);
      for (int64_t q = 0; q < c.Q; q += columns) {
        const int64_t count = smaller(columns, c.Q - q);
        tile.x = x + g * frame.image + p * frame.pitch + q;
        tile.y = y + ((g * frame.rows + p) * c.Q + q) * tile.filters;
        (rows == 2 ? filter_tile_of<2, V>(count) : wide_tile_of<V>(count))(tile);
      }
      p += rows;
    }
  }
}

// y [image][row][column][filters in whole vectors]
inline void correlate_by_filters(
    const Convolution& c, const Frame& frame, const float* x, const int64_t* offset, const float* packed, bool relu, float* y) {
  const int64_t filters = whole_lanes(c.F);
  const float* bias = packed + filters * c.taps();
  for (int64_t f = 0; f < filters;) {
    const int64_t vectors = smaller(kFilterVectors, (filters - f) / Vector::lanes);
    const FilterTile tile{x, offset, Taps(c), frame.pitch, packed + f * c.taps(), bias + f, relu, y + f, filters, c.Q};
    if (vectors == 2) {
      filter_block<2>(c, frame, tile);
    } else {
      filter_block<1>(c, frame, tile);
    }
    f += vectors * Vector::lanes;
  }
}

// The gradient of V vectors of filters by TB taps, added to sums [tap][filters].
template <int TB, int V>
void filter_sums(const Convolution& c, const Frame& frame, const float* x, const int64_t* offset, const float* dy, int64_t filters, float* sums) {
  Vector sum[TB][V];
  const float* seen[TB];
  TWOFOLD_UNROLL
  for (int t = 0; t < TB; ++t) {
    seen[t] = x + offset[t];
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) sum[t][v] = Vector::load(sums + t * filters + v * Vector::lanes);
  }
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t p = 0; p < frame.rows; ++p) {
      const int64_t n = g * frame.image + p * frame.pitch;
      for (int64_t q = 0; q < c.Q; ++q, dy += filters) {
        Vector d[V];
        TWOFOLD_UNROLL
        for (int v = 0; v < V; ++v) d[v] = Vector::load(dy + v * Vector::lanes);
        TWOFOLD_UNROLL
        for (int t = 0; t < TB; ++t) {
          const Vector value = Vector::every(seen[t][n + q]);
          TWOFOLD_UNROLL
          for (int v = 0; v < V; ++v) sum[t][v].add_product(value, d[v]);
        }
      }
    }
  }
  TWOFOLD_UNROLL
  for (int t = 0; t < TB; ++t) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) sum[t][v].store(sums + t * filters + v * Vector::lanes);
  }
}

using FilterSums = void (*)(const Convolution&, const Frame&, const float*, const int64_t*, const float*, int64_t, float*);

template <int V>
inline FilterSums filter_sums_of(int64_t taps) {
  switch (taps) {
    case 1: return filter_sums<1, V>;
    case 2: return filter_sums<2, V>;
    case 3: return filter_sums<3, V>;
    case 4: return filter_sums<4, V>;
    case 5: return filter_sums<5, V>;
#if TWOFOLD_LANES == 16
    case 6: return filter_sums<6, V>;
    case 7: return filter_sums<7, V>;
    case 8: return filter_sums<8, V>;
    case 9: return filter_sums<9, V>;
    case 10: return filter_sums<10, V>;
    case 11: return filter_sums<11, V>;
    default: return filter_sums<12, V>;
#else
    default: return nullptr;
#endif
  }
}

// dy [image][row][column][filters in whole vectors], 0 in the filters that are none
inline void weight_sums_by_filters(
    const Convolution& c, const Frame& frame, const float* x, const int64_t* offset, const float* dy, float* sums) {
  const int64_t filters = whole_lanes(c.F), taps = c.taps();
  for (int64_t f = 0; f < filters;) {
    const int64_t vectors = smaller(kFilterVectors, (filters - f) / Vector::lanes);
    for (int64_t t = 0; t < taps;) {
      const int64_t count = block_of(t, taps, kTileTaps);
      const FilterSums add = vectors == 2 ? filter_sums_of<2>(count) : filter_sums_of<1>(count);
      add(c, frame, x, offset + t, dy + f, filters, sums + t * filters + f);
      t += count;
    }
    f += vectors * Vector::lanes;
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
