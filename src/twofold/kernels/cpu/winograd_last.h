// Winograd's algorithm (winograd.h) on maps that lie channels last: of float, or with TWOFOLD_DEEP 2 of bfloat16. Weights lie channels
// last, too: [filter][tap][channel].
//
// Lanes run over the channels, so that a tile's numbers need no turning around; with TWOFOLD_DEEP 2 two neighbouring channels, or the
// same channel of two neighbouring tiles, are a cell as they come. What is seen lies tile by tile, cells of channels side by side
// (winograd_products.h).

namespace twofold {
namespace TWOFOLD_SET {
namespace last {

// Cells of x: forward [part][tile][cell of channels], for the gradient of the weights [part][cell of tiles][channel].
struct SeenTiles {
  static constexpr bool kTileByTile = true;
  int64_t rows, step, part;
  SeenTiles(const Convolution& c, const Tiles& tiles, bool gradient)
      : rows(gradient ? parts(tiles.count, kDeep) : tiles.count), step(odd_lines(gradient ? c.C : parts(c.C, kDeep))),
        part(odd_lines(rows * step)) {}
  int64_t size() const { return kParts * part; }
};

WinogradSizes sizes(const Convolution& c, const Frame& frame, bool gradient) {
  const Tiles tiles(c, frame);
  const SeenTiles seen(c, tiles, gradient);
  return {seen.rows, tiles.panels, seen.size(), TileProducts(tiles, gradient).size(), 0};
}

#if TWOFOLD_DEEP == 2
using Number = Half;

inline Vector even(__m512i pairs) { return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))}; }
inline Vector odd(__m512i pairs) { return {_mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))))}; }
inline __mmask32 mask_of(int64_t n) { return n >= 32 ? ~__mmask32{0} : n <= 0 ? 0 : (__mmask32{1} << n) - 1; }

// The first n numbers of one or two vectors, rounded
inline void store_windows(const Vector* v, int64_t vectors, int64_t n, Half* to) {
  if (vectors == 2) return _mm512_mask_storeu_epi16(to, mask_of(n), (__m512i)_mm512_cvtne2ps_pbh(v[1].value, v[0].value));
  _mm256_mask_storeu_epi16(to, Vector::mask(n), (__m256i)_mm512_cvtneps_pbh(v[0].value));
}
#else
using Number = float;

inline void store_windows(const Vector* v, int64_t vectors, int64_t n, float* to) {
  for (int64_t k = 0; k < vectors; ++k) TWOFOLD_SET::put(v[k], to + k * Vector::lanes, n - k * Vector::lanes);
}
#endif

// The block's tiles one after the other: image, row, column.
struct Walk {
  int64_t rows, columns, image, row, column;
  Walk(const Frame& frame, const Tiles& tiles, int64_t tile)
      : rows(frame.rows), columns(tiles.columns), image(tile / columns / rows), row(tile / columns % rows), column(tile % columns) {}
  void step() {
    if (++column < columns) return;
    column = 0;
    if (++row == rows) row = 0, ++image;
  }
};

// What a tile sees: 4x4 pixels, of which bit 4 i + j of `inside` says whether they are on the map.
struct Spot {
  const Number* first;
  int64_t down, right;
  uint32_t inside;
  Spot(const Convolution& c, const Frame& frame, const Walk& at, const Number* x, int64_t x_image)
      : down(c.W * c.C), right(c.C), inside(0) {
    const int64_t h = 2 * (frame.row + at.row) - c.top, w = 2 * at.column - c.left;
    first = x + at.image * x_image + h * down + w * right;
    for (int64_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < 4; ++j) inside |= uint32_t{h + i >= 0 && h + i < c.H && w + j >= 0 && w + j < c.W} << (4 * i + j);
    }
  }
  bool all() const { return inside == 0xffff; }
  template <bool All>
  bool sees(int i, int j) const { return All || (inside >> (4 * i + j) & 1); }
  const Number* pixel(int i, int j) const { return first + i * down + j * right; }
};

// B' d B along an axis
inline void differences(Vector a, Vector b, Vector c, Vector d, Vector* four) { four[0] = a - c, four[1] = b + c, four[2] = c - b, four[3] = b - d; }

// B' d B of a vector of channels from `at` on
template <bool All>
inline void see_channels(const Spot& spot, int64_t at, int64_t channels, Vector* numbers) {
  Vector down[4][4];
  TWOFOLD_UNROLL
  for (int j = 0; j < 4; ++j) {
    Vector p[4];
    TWOFOLD_UNROLL
    for (int i = 0; i < 4; ++i) p[i] = spot.sees<All>(i, j) ? fetch(spot.pixel(i, j) + at, channels - at) : Vector::zero();
    differences(p[0], p[1], p[2], p[3], down[j]);
  }
  TWOFOLD_UNROLL
  for (int i = 0; i < 4; ++i) differences(down[0][i], down[1][i], down[2][i], down[3][i], numbers + 4 * i);
}

#if TWOFOLD_DEEP == 2
// The same of two vectors, as cells of neighbours
template <bool All>
inline void see_pairs(const Spot& spot, int64_t at, int64_t channels, float* to, int64_t part) {
  const __mmask32 mask = mask_of(channels - at);
  Vector evens[4][4], odds[4][4];  // [column][row]
  TWOFOLD_UNROLL
  for (int j = 0; j < 4; ++j) {
    __m512i p[4];
    TWOFOLD_UNROLL
    for (int i = 0; i < 4; ++i) p[i] = spot.sees<All>(i, j) ? _mm512_maskz_loadu_epi16(mask, spot.pixel(i, j) + at) : _mm512_setzero_si512();
    differences(even(p[0]), even(p[1]), even(p[2]), even(p[3]), evens[j]);
    differences(odd(p[0]), odd(p[1]), odd(p[2]), odd(p[3]), odds[j]);
  }
  TWOFOLD_UNROLL
  for (int i = 0; i < 4; ++i) {
    Vector first[4], second[4];
    differences(evens[0][i], evens[1][i], evens[2][i], evens[3][i], first);
    differences(odds[0][i], odds[1][i], odds[2][i], odds[3][i], second);
    TWOFOLD_UNROLL
    for (int j = 0; j < 4; ++j) store_pairs(first[j], second[j], to + (4 * i + j) * part);
  }
}

inline void see_tile(const Convolution& c, const Spot& spot, float* to, int64_t part) {
  for (int64_t at = 0; at < c.C; at += 2 * Vector::lanes) (spot.all() ? see_pairs<true> : see_pairs<false>)(spot, at, c.C, to + at / 2, part);
}

// The tile and, unless that is `alone`, the next: cells of both
inline void see_two(const Convolution& c, const Spot& spot, const Spot& next, bool alone, float* to, int64_t part) {
  for (int64_t at = 0; at < c.C; at += Vector::lanes) {
    Vector first[kParts], second[kParts];
    (spot.all() ? see_channels<true> : see_channels<false>)(spot, at, c.C, first);
    if (!alone) (next.all() ? see_channels<true> : see_channels<false>)(next, at, c.C, second);
    TWOFOLD_UNROLL
    for (int k = 0; k < kParts; ++k) store_pairs(first[k], alone ? Vector::zero() : second[k], to + k * part + at);
  }
}
#else
inline void see_tile(const Convolution& c, const Spot& spot, float* to, int64_t part) {
  for (int64_t at = 0; at < c.C; at += Vector::lanes) {
    Vector numbers[kParts];
    (spot.all() ? see_channels<true> : see_channels<false>)(spot, at, c.C, numbers);
    TWOFOLD_UNROLL
    for (int k = 0; k < kParts; ++k) numbers[k].store(to + k * part + at);
  }
}
#endif

// Cells of tiles [begin, end).
void see(const Convolution& c, const Frame& frame, bool gradient, const Number* x, int64_t x_image, int64_t begin, int64_t end, float* seen,
    float*) {
  const Tiles tiles(c, frame);
  const SeenTiles layout(c, tiles, gradient);
  Walk walk(frame, tiles, gradient ? kDeep * begin : begin);
  for (int64_t row = begin; row < end; ++row) {
    float* to = seen + row * layout.step;
    const Spot spot(c, frame, walk, x, x_image);
    walk.step();
#if TWOFOLD_DEEP == 2
    if (gradient) {
      const Spot next(c, frame, walk, x, x_image);
      walk.step();
      see_two(c, spot, next, 2 * row + 1 == tiles.count, to, layout.part);
      continue;
    }
#endif
    see_tile(c, spot, to, layout.part);
  }
}

// Panels [begin, end) of the block's windows. y is where its first row of windows goes.
void put(const Convolution& c, const Frame& frame, const float* products, const float* packed, bool relu, Number* y, int64_t y_image, int64_t,
    int64_t begin, int64_t end, float*) {
  const Tiles tiles(c, frame);
  const int64_t part = TileProducts(tiles, false).part, lines = smaller(2 * frame.rows, c.P - 2 * frame.row);
  const float* bias = packed + kParts * weight_part(c, parts(c.C, kDeep));
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t f = panel * kPanel, width = tiles.width(panel), vectors = width / Vector::lanes;
    Walk walk(frame, tiles, 0);
    for (int64_t tile = 0; tile < tiles.count; ++tile, walk.step()) {
      const float* m = products + f * tiles.count + tile * width;
      Vector windows[4][2];
      for (int64_t v = 0; v < vectors; ++v) {
        Vector four[4];
        put_tile(m + v * Vector::lanes, part, Vector::load(bias + f + v * Vector::lanes), four);
        TWOFOLD_UNROLL
        for (int n = 0; n < 4; ++n) windows[n][v] = relu ? four[n].positive() : four[n];
      }
      Number* to = y + walk.image * y_image + (2 * walk.row * c.Q + 2 * walk.column) * c.F + f;
      const bool below = 2 * walk.row + 1 < lines, right = 2 * walk.column + 1 < c.Q;
      store_windows(windows[0], vectors, c.F - f, to);
      if (right) store_windows(windows[1], vectors, c.F - f, to + c.F);
      if (below) store_windows(windows[2], vectors, c.F - f, to + c.Q * c.F);
      if (below && right) store_windows(windows[3], vectors, c.F - f, to + (c.Q + 1) * c.F);
    }
  }
}

// The windows of a tile in dy for a vector of filters, 0 where there are none
inline void read_windows(const Number* from, int64_t down, int64_t right, bool below, bool beside, int64_t filters, Vector* windows) {
  windows[0] = fetch(from, filters);
  windows[1] = beside ? fetch(from + right, filters) : Vector::zero();
  windows[2] = below ? fetch(from + down, filters) : Vector::zero();
  windows[3] = below && beside ? fetch(from + down + right, filters) : Vector::zero();
}

// Panels [begin, end) of what dy is to the tiles; the gradient of their bias is added to dbias, where there is one.
void see_gradient(const Convolution& c, const Frame& frame, const Number* dy, int64_t dy_image, int64_t begin, int64_t end, float* products,
    float* dbias, float*) {
  const Tiles tiles(c, frame);
  const TileProducts layout(tiles, true);
  const int64_t lines = smaller(2 * frame.rows, c.P - 2 * frame.row);
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel, width = tiles.width(panel);
    for (int64_t f = first; f < first + width; f += Vector::lanes) {
      Vector sum = Vector::zero();
      Walk walk(frame, tiles, 0);
      for (int64_t tile = 0; tile < tiles.count; tile += kDeep) {
        Vector windows[kDeep][4];
        for (int64_t n = 0; n < kDeep; ++n, walk.step()) {
          if (tile + n == tiles.count) {
            for (int w = 0; w < 4; ++w) windows[n][w] = Vector::zero();
            break;
          }
          const Number* from = dy + walk.image * dy_image + (2 * walk.row * c.Q + 2 * walk.column) * c.F + f;
          read_windows(from, c.Q * c.F, c.F, 2 * walk.row + 1 < lines, 2 * walk.column + 1 < c.Q, c.F - f, windows[n]);
          sum = sum + windows[n][0] + windows[n][1] + windows[n][2] + windows[n][3];
        }
        float* to = products + first * layout.tiles + tile / kDeep * width + f - first;
        TWOFOLD_UNROLL
        for (int i = 0; i < 4; ++i) {
          Vector four[kDeep][4];
          for (int64_t n = 0; n < kDeep; ++n) see_row(windows[n], i, four[n]);
          TWOFOLD_UNROLL
          for (int j = 0; j < 4; ++j) {
#if TWOFOLD_DEEP == 2
            store_pairs(four[0][j], four[1][j], to + (4 * i + j) * layout.part);
#else
            four[0][j].store(to + (4 * i + j) * layout.part);
#endif
          }
        }
      }
      if (dbias && f < c.F) (Vector::load(dbias + f, c.F - f) + sum).store(dbias + f, c.F - f);
    }
  }
}

// The taps of a vector of channels from `first` on and of the filters f, f + 1, ...: to[channel][tap][lane], 0 beyond
inline void gather(const Convolution& c, const float* weight, bool turned, int64_t first, int64_t f, float* to) {
  constexpr int64_t L = Vector::lanes;
  const int64_t channels = smaller(L, c.C - first), filters = smaller(L, c.F - f);
  if (channels < L || filters < L) fill_zero(to, 9 * L * L);
  for (int64_t k = 0; k < 9; ++k) {
    if (turned) {
      for (int64_t n = 0; n < channels; ++n) Vector::load(weight + ((first + n) * 9 + 8 - k) * c.F + f, filters).store(to + (n * 9 + k) * L);
    } else if (channels == L && filters == L) {
      transpose(weight + (f * 9 + k) * c.C + first, 9 * c.C, to + k * L, 9 * L);
    } else {
      for (int64_t l = 0; l < filters; ++l) {
        for (int64_t n = 0; n < channels; ++n) to[(n * 9 + k) * L + l] = weight[((f + l) * 9 + k) * c.C + first + n];
      }
    }
  }
}

void pack(const Convolution& c, const float* weight, const float* bias, bool turned, int64_t begin, int64_t end, float* packed) {
  pack_panels(c, bias, begin, end, packed, [&](int64_t channel, int64_t f, float* to) { gather(c, weight, turned, channel, f, to); });
}

void finish(const Convolution& c, const float* sums, int64_t begin, int64_t end, float* dweight) {
  constexpr int64_t L = Vector::lanes;
  each_taps(c, sums, begin, end, [&](int64_t f, int64_t first, int64_t channels, const float* taps) {
    for (int64_t k = 0; k < 9; ++k) {
      float* to = dweight + (f * 9 + k) * c.C + first;
      if (channels == L && f + L <= c.F) {
        transpose(taps + k * L, 9 * L, to, 9 * c.C);
        continue;
      }
      for (int64_t l = 0; l < smaller(L, c.F - f); ++l) {
        for (int64_t n = 0; n < channels; ++n) to[l * 9 * c.C + n] = taps[(n * 9 + k) * L + l];
      }
    }
  });
}

inline constexpr WinogradTable<Number> table{true, sizes, winograd_packed, pack, see, multiply_tiles<SeenTiles>, put, winograd_sums, see_gradient,
    add_tiles<SeenTiles>, finish};

}  // namespace last
}  // namespace TWOFOLD_SET
}  // namespace twofold
