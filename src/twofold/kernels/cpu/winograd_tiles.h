// What lies where while Winograd's algorithm runs (winograd.h), and its transforms of tiles.
//
// The products are sums over cells of 32 bits: a cell is one float32, or with TWOFOLD_DEEP 2 a pair of bfloat16 that are neighbours
// along what is summed over (channels forward, tiles for the gradient of the weights). A tile's numbers are computed in float32 and
// rounded once, when they are stored. Filters come in panels of kFilterVectors vectors, the last perhaps narrower. Tiles are numbered
// without gaps: (image, row, column).

#ifndef TWOFOLD_DEEP
#define TWOFOLD_DEEP 1
#endif

namespace twofold {
namespace TWOFOLD_SET {

constexpr int64_t kParts = 16, kDeep = TWOFOLD_DEEP, kPanel = kFilterVectors * Vector::lanes;

// The 4x4 tiles of the layer as windows.
// Whole cache lines, an odd number of them: streams that lie so far apart never fall into the same set of the cache.
inline int64_t odd_lines(int64_t floats) { return (parts(floats, 16) | 1) * 16; }

// The tiles of a block. A vector of neighbouring tiles sees two runs of `lanes` columns: one behind the other in a row of tiles, or where
// rows are short, one in each of two rows of tiles.
struct Tiles {
  int64_t columns, rows, count, filters, panels;
  bool short_rows;
  Tiles(const Convolution& c, const Frame& frame)
      : columns(parts(c.Q, 2)), rows(frame.images * frame.rows), count(rows * columns), filters(whole_lanes(c.F)),
        panels(parts(filters, kPanel)), short_rows(Alternate::any && 2 * columns <= Vector::lanes) {}
  int64_t width(int64_t panel) const { return smaller(kPanel, filters - panel * kPanel); }
  int64_t vectors() const { return short_rows ? parts(rows, 2) : rows * parts(columns, Vector::lanes); }
};

// Cells of x: [part][row][column]. Forward: channels by tiles. For the gradient of the weights: tiles along the rows.
struct SeenTiles {
  static constexpr bool kTileByTile = false;
  int64_t rows, columns, step, part;
  SeenTiles(const Convolution& c, const Tiles& tiles, bool gradient)
      : rows(gradient ? c.C : parts(c.C, kDeep)), columns(gradient ? parts(tiles.count, kDeep) : tiles.count),
        step(odd_lines(columns + Vector::lanes)), part(odd_lines(rows * step + Vector::lanes)) {}
  int64_t size() const { return kParts * part; }
};

// What stands against them, tiles by filters: [part][panel][tile][width]; with `gradient`, tiles are deep.
struct TileProducts {
  int64_t tiles, part;
  TileProducts(const Tiles& of, bool gradient) : tiles(gradient ? parts(of.count, kDeep) : of.count), part(odd_lines(tiles * of.filters)) {}
  int64_t size() const { return kParts * part; }
};

// [part][panel][row][width]: the weights, where rows are cells of channels, and the sums of their gradient, where rows are channels.
inline int64_t weight_part(const Convolution& c, int64_t rows) { return odd_lines(rows * whole_lanes(c.F)); }

#if TWOFOLD_DEEP == 2
inline void add_cells(Vector& sum, Vector a, Vector b) { sum.value = _mm512_dpbf16_ps(sum.value, (__m512bh)a.value, (__m512bh)b.value); }

// Cells of (first, second)
inline void store_pairs(Vector first, Vector second, float* to) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second.value, first.value);
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
      18, 2, 17, 1, 16, 0);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, both));
}

// Halves of neighbouring cells; `at` counts numbers.
inline void store_numbers(Vector v, float* to, int64_t at) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(reinterpret_cast<uint16_t*>(to) + at), (__m256i)_mm512_cvtneps_pbh(v.value));
}
#else
inline void add_cells(Vector& sum, Vector a, Vector b) { sum.add_product(a, b); }
inline void store_numbers(Vector v, float* to, int64_t at) { v.store(to + at); }
#endif

// Where a vector of neighbouring tiles, the first of which is `tile`, sees a channel.
struct Place {
  int64_t run[2];            // where the runs begin, from the channel's first number
  int64_t tile;
  uint16_t inside[2][4][2];  // of run, row, and columns from 0 or 2 on: which lanes are inside the map
  bool all;
  void see(const Convolution& c, const Frame& frame, int64_t x_image, int64_t half, int64_t tile_row, int64_t w) {
    const int64_t h = 2 * (frame.row + tile_row % frame.rows) - c.top;
    run[half] = tile_row / frame.rows * x_image + h * c.W + w;
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < 2; ++j) {
        uint32_t bits = 0;
        for (int64_t l = 0; l < Vector::lanes; ++l) bits |= uint32_t{w + 2 * j + l >= 0 && w + 2 * j + l < c.W} << l;
        inside[half][i][j] = static_cast<uint16_t>(tile_row < frame.images * frame.rows && h + i >= 0 && h + i < c.H ? bits : 0);
        all = all && inside[half][i][j] == (1u << Vector::lanes) - 1;
      }
    }
  }
};

inline int64_t places_floats(const Tiles& tiles) { return parts(tiles.vectors() * sizeof(Place), sizeof(float)); }

inline void fill_places(const Convolution& c, const Frame& frame, const Tiles& tiles, int64_t x_image, Place* to) {
  for (int64_t row = 0; row < tiles.rows; row += tiles.short_rows ? 2 : 1) {
    for (int64_t q = 0; q < tiles.columns; q += Vector::lanes, ++to) {
      to->tile = row * tiles.columns + q;
      to->all = true;
      const int64_t w = 2 * q - c.left;
      to->see(c, frame, x_image, 0, row, w);
      to->see(c, frame, x_image, 1, row + tiles.short_rows, tiles.short_rows ? w : w + Vector::lanes);
    }
  }
}

// B' d B of neighbouring tiles: first down the columns, then along the rows.
template <bool All>
inline void transform_tiles(const float* x, int64_t width, const Place& place, const Alternate& alternate, Vector* numbers) {
  Vector down[2][2][4];  // run, columns from 0 or 2 on, row
  TWOFOLD_UNROLL
  for (int half = 0; half < 2; ++half) {
    TWOFOLD_UNROLL
    for (int j = 0; j < 2; ++j) {
      Vector row[4];
      TWOFOLD_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float* from = x + place.run[half] + i * width + 2 * j;
        row[i] = All ? Vector::load(from) : Vector::load_where(from, place.inside[half][i][j]);
      }
      down[half][j][0] = row[0] - row[2];
      down[half][j][1] = row[1] + row[2];
      down[half][j][2] = row[2] - row[1];
      down[half][j][3] = row[1] - row[3];
    }
  }
  TWOFOLD_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Vector a = alternate.even(down[0][0][i], down[1][0][i]), b = alternate.odd(down[0][0][i], down[1][0][i]);
    const Vector c = alternate.even(down[0][1][i], down[1][1][i]), d = alternate.odd(down[0][1][i], down[1][1][i]);
    numbers[4 * i] = a - c;
    numbers[4 * i + 1] = b + c;
    numbers[4 * i + 2] = c - b;
    numbers[4 * i + 3] = b - d;
  }
}

inline void transform_tiles(const float* x, int64_t width, const Place& place, const Alternate& alternate, Vector* numbers) {
  (place.all ? transform_tiles<true> : transform_tiles<false>)(x, width, place, alternate, numbers);
}

// The tiles of rows [begin, end) of `seen`. What a vector writes beyond its tiles, the next overwrites.
inline void see_tiles(const Convolution& c, const Frame& frame, const Tiles& tiles, bool gradient, const float* x, int64_t x_image,
    int64_t begin, int64_t end, float* seen, float* scratch) {
  const SeenTiles layout(c, tiles, gradient);
  const Alternate alternate(tiles.short_rows ? tiles.columns : Vector::lanes / 2);
  Place* places = reinterpret_cast<Place*>(scratch);
  fill_places(c, frame, tiles, x_image, places);
  const Place* last = places + tiles.vectors();
  const int64_t map = c.H * c.W, part = layout.part;
  for (int64_t row = begin; row < end; ++row) {
    float* to = seen + row * layout.step;
    Vector numbers[kParts];
#if TWOFOLD_DEEP == 2
    if (!gradient) {
      const float *first = x + row * 2 * map, *second = first + map;
      const bool alone = row * 2 + 1 == c.C;
      for (const Place* place = places; place < last; ++place) {
        Vector others[kParts];
        transform_tiles(first, c.W, *place, alternate, numbers);
        if (!alone) transform_tiles(second, c.W, *place, alternate, others);
        TWOFOLD_UNROLL
        for (int k = 0; k < kParts; ++k) store_pairs(numbers[k], alone ? Vector::zero() : others[k], to + k * part + place->tile);
      }
      continue;
    }
#endif
    for (const Place* place = places; place < last; ++place) {
      transform_tiles(x + row * map, c.W, *place, alternate, numbers);
      TWOFOLD_UNROLL
      for (int k = 0; k < kParts; ++k) store_numbers(numbers[k], to + k * part, place->tile);
    }
    for (int k = 0; k < kParts && gradient && tiles.count % kDeep; ++k) store_numbers(Vector::zero(), to + k * part, tiles.count);
  }
}

// Maps of a panel's filters, [window][width], while they are turned around.
inline int64_t panel_floats(const Convolution& c, const Frame& frame) {
  return (frame.images * 2 * frame.rows * c.Q + Vector::lanes) * kPanel;
}

// Of the block's tile (image, row, column): where its windows lie in a panel's maps, and which of them there are.
template <class Put>
inline void each_tile(const Convolution& c, const Frame& frame, const Tiles& tiles, Put put) {
  const int64_t rows = smaller(2 * frame.rows, c.P - 2 * frame.row);
  int64_t tile = 0;
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t p = 0; p < frame.rows; ++p) {
      for (int64_t q = 0; q < tiles.columns; ++q) put(tile++, (g * rows + 2 * p) * c.Q + 2 * q, 2 * p + 1 < rows, 2 * q + 1 < c.Q);
    }
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
