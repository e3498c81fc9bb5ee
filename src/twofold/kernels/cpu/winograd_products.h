// The 16 matrix products of Winograd's algorithm, tile by tile of registers; see winograd_tiles.h for what lies where.

namespace twofold {
namespace TWOFOLD_SET {

// A tile of sums [item][V lanes] as memory has it, or 0 where that is fresh: then it holds nothing yet.
template <int N, int V>
__attribute__((always_inline)) inline void begin_sums(const float* from, bool fresh, Vector (&sum)[N][V]) {
  TWOFOLD_UNROLL
  for (int n = 0; n < N; ++n) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) sum[n][v] = fresh ? Vector::zero() : Vector::load(from + (n * V + v) * Vector::lanes);
  }
}

template <int N, int V>
__attribute__((always_inline)) inline void store_sums(const Vector (&sum)[N][V], float* to) {
  TWOFOLD_UNROLL
  for (int n = 0; n < N; ++n) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) sum[n][v].store(to + (n * V + v) * Vector::lanes);
  }
}

// Forward: T tiles by V vectors of filters, summed over the cells of channels, and added to `to` [tile][V lanes] unless that is fresh.
template <int T, int V>
void product_tile(const float* seen, int64_t step, const float* weight, int64_t rows, bool fresh, float* to) {
  Vector sum[T][V];
  begin_sums<T, V>(to, fresh, sum);
  for (int64_t row = 0; row < rows; ++row, seen += step, weight += V * Vector::lanes) {
    Vector w[V];
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Vector::load(weight + v * Vector::lanes);
    TWOFOLD_UNROLL
    for (int t = 0; t < T; ++t) {
      const Vector cell = Vector::every(seen[t]);
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) add_cells(sum[t][v], cell, w[v]);
    }
  }
  store_sums<T, V>(sum, to);
}

using ProductTile = void (*)(const float*, int64_t, const float*, int64_t, bool, float*);

template <int V>
inline ProductTile product_tile_of(int64_t tiles) {
  switch (tiles) {
    case 1: return product_tile<1, V>;
    case 2: return product_tile<2, V>;
    case 3: return product_tile<3, V>;
    case 4: return product_tile<4, V>;
    case 5: return product_tile<5, V>;
    case 6: return product_tile<6, V>;
#if TWOFOLD_LANES == 16
    case 7: return product_tile<7, V>;
    case 8: return product_tile<8, V>;
    case 9: return product_tile<9, V>;
    case 10: return product_tile<10, V>;
    case 11: return product_tile<11, V>;
    case 12: return product_tile<12, V>;
    case 13: return product_tile<13, V>;
    default: return product_tile<14, V>;
#else
    default: return nullptr;
#endif
  }
}

// CB rows of cells, `step` apart, by V vectors of filters: added to the sums.
template <int CB, int V>
__attribute__((always_inline)) inline void add_rows(const float* seen, int64_t step, const float* d, int64_t cells, Vector (&sum)[CB][V]) {
  constexpr int kThirds = (CB + 2) / 3;
  const float* third[kThirds];  // every third row: one register each, and one for the step, serve them all
  TWOFOLD_UNROLL
  for (int t = 0; t < kThirds; ++t) third[t] = seen + 3 * t * step;
  for (int64_t cell = 0; cell < cells; ++cell, d += V * Vector::lanes) {
    Vector w[V];
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Vector::load(d + v * Vector::lanes);
    __builtin_prefetch(seen + CB * (step + cell));  // of the rows to come, which lie behind these
    TWOFOLD_UNROLL
    for (int n = 0; n < CB; ++n) {
      const Vector x = Vector::every(third[n / 3][n % 3 * step]);
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) add_cells(sum[n][v], x, w[v]);
    }
    TWOFOLD_UNROLL
    for (int t = 0; t < kThirds; ++t) ++third[t];
  }
}

// The gradient: CB channels by V vectors of filters, summed over the cells of tiles and added to sums [channel][V lanes], unless they
// are fresh.
template <int CB, int V>
void sum_tile(const float* seen, int64_t step, const float* d, int64_t cells, bool fresh, float* sums) {
  Vector sum[CB][V];
  begin_sums<CB, V>(sums, fresh, sum);
  add_rows<CB, V>(seen, step, d, cells, sum);
  store_sums<CB, V>(sum, sums);
}

template <int V>
inline ProductTile sum_tile_of(int64_t channels) {
  switch (channels) {
    case 1: return sum_tile<1, V>;
    case 2: return sum_tile<2, V>;
    case 3: return sum_tile<3, V>;
    case 4: return sum_tile<4, V>;
    case 5: return sum_tile<5, V>;
#if TWOFOLD_LANES == 16
    case 6: return sum_tile<6, V>;
    case 7: return sum_tile<7, V>;
    case 8: return sum_tile<8, V>;
    case 9: return sum_tile<9, V>;
    case 10: return sum_tile<10, V>;
    case 11: return sum_tile<11, V>;
    default: return sum_tile<12, V>;
#else
    default: return nullptr;
#endif
  }
}

// Products of `items` rows of cells with a panel, summed over the cells, and added to `to` [item][width] unless that is fresh. Along: an
// item's cells lie side by side and items `step` apart; otherwise items lie side by side.
template <bool Along>
inline void multiply_panel(const float* seen, int64_t step, int64_t items, const float* panel, int64_t cells, int64_t width, bool fresh,
    float* to) {
  for (int64_t item = 0; item < items;) {
    const int64_t count = block_of(item, items, Along ? kTileTaps : kTileWindows);
    ProductTile tile;
    if constexpr (Along) {
      tile = width == kPanel ? sum_tile_of<2>(count) : sum_tile_of<1>(count);
    } else {
      tile = width == kPanel ? product_tile_of<2>(count) : product_tile_of<1>(count);
    }
    tile(seen + item * (Along ? step : 1), step, panel, cells, fresh, to + item * width);
    item += count;
  }
}

// TileProducts [begin, end), numbered (part, panel): tiles by filters, summed over the cells of channels.
template <class Seen>
void multiply_tiles(const Convolution& c, const Frame& frame, const float* seen, const float* packed, int64_t begin, int64_t end,
    float* products) {
  const Tiles tiles(c, frame);
  const Seen layout(c, tiles, false);
  const TileProducts to(tiles, false);
  const int64_t cells = parts(c.C, kDeep);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t k = item / tiles.panels, panel = item % tiles.panels;
    multiply_panel<Seen::kTileByTile>(seen + k * layout.part, layout.step, tiles.count,
        packed + k * weight_part(c, cells) + panel * kPanel * cells, cells, tiles.width(panel), true,
        products + k * to.part + panel * kPanel * tiles.count);
  }
}

// The same of the gradient of the weights, channels by filters, summed over the cells of tiles: sums += seen products, or sums = where
// they are fresh.
template <class Seen>
void add_tiles(const Convolution& c, const Frame& frame, const float* seen, const float* products, int64_t begin, int64_t end, bool fresh,
    float* sums) {
  const Tiles tiles(c, frame);
  const Seen layout(c, tiles, true);
  const TileProducts from(tiles, true);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t k = item / tiles.panels, panel = item % tiles.panels;
    multiply_panel<!Seen::kTileByTile>(seen + k * layout.part, layout.step, c.C, products + k * from.part + panel * kPanel * from.tiles,
        from.tiles, tiles.width(panel), fresh, sums + k * weight_part(c, c.C) + panel * kPanel * c.C);
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
