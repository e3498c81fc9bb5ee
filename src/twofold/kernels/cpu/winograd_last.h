// Winograd's algorithm (winograd.h) on maps of bfloat16 that lie channels last, for processors with AVX512_BF16. Weights lie channels last,
// too: [filter][tap][channel].
//
// Lanes run over the channels, so that a tile's numbers need no turning around, and two neighbouring channels, or the same channel of two
// neighbouring tiles, are a cell as they come. What is seen lies tile by tile, cells of channels side by side (winograd_products.h).

namespace twofold {
namespace TWOFOLD_SET {
namespace last {

// Cells of x: forward [part][tile][pair of channels], for the gradient of the weights [part][pair of tiles][channel].
struct SeenTiles {
  static constexpr bool kTileByTile = true;
  int64_t rows, step, part;
  SeenTiles(const Convolution& c, const Tiles& tiles, bool gradient)
      : rows(gradient ? parts(tiles.count, 2) : tiles.count), step(odd_lines(gradient ? c.C : parts(c.C, 2))), part(odd_lines(rows * step)) {}
  int64_t size() const { return kParts * part; }
};

WinogradSizes sizes(const Convolution& c, const Frame& frame, bool gradient) {
  const Tiles tiles(c, frame);
  const SeenTiles seen(c, tiles, gradient);
  return {seen.rows, tiles.panels, seen.size(), TileProducts(tiles, gradient).size(), 0};
}

inline Vector even(__m512i pairs) { return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))}; }
inline Vector odd(__m512i pairs) { return {_mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))))}; }
inline __mmask32 mask_of(int64_t n) { return n >= 32 ? ~__mmask32{0} : n <= 0 ? 0 : (__mmask32{1} << n) - 1; }
inline Vector widened(const Half* p, __mmask16 mask) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16))};
}

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
  const Half* first;
  int64_t down, right;
  uint32_t inside;
  Spot(const Convolution& c, const Frame& frame, const Walk& at, const Half* x, int64_t x_image)
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
  const Half* pixel(int i, int j) const { return first + i * down + j * right; }
};

// B' d B along an axis
inline void differences(Vector a, Vector b, Vector c, Vector d, Vector* four) { four[0] = a - c, four[1] = b + c, four[2] = c - b, four[3] = b - d; }

// B' d B of 32 channels from `at` on: cells of pairs of them
template <bool All>
inline void see_pairs(const Spot& spot, int64_t at, __mmask32 mask, float* to, int64_t part) {
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

// B' d B of 16 channels from `at` on
template <bool All>
inline void see_channels(const Spot& spot, int64_t at, __mmask16 mask, Vector* numbers) {
  Vector down[4][4];
  TWOFOLD_UNROLL
  for (int j = 0; j < 4; ++j) {
    Vector p[4];
    TWOFOLD_UNROLL
    for (int i = 0; i < 4; ++i) p[i] = spot.sees<All>(i, j) ? widened(spot.pixel(i, j) + at, mask) : Vector::zero();
    differences(p[0], p[1], p[2], p[3], down[j]);
  }
  TWOFOLD_UNROLL
  for (int i = 0; i < 4; ++i) differences(down[0][i], down[1][i], down[2][i], down[3][i], numbers + 4 * i);
}

// Tiles [begin, end), or for the gradient pairs of them.
void see(const Convolution& c, const Frame& frame, bool gradient, const Half* x, int64_t x_image, int64_t begin, int64_t end, float* seen,
    float*) {
  const Tiles tiles(c, frame);
  const SeenTiles layout(c, tiles, gradient);
  Walk walk(frame, tiles, gradient ? 2 * begin : begin);
  for (int64_t row = begin; row < end; ++row) {
    float* to = seen + row * layout.step;
    const Spot spot(c, frame, walk, x, x_image);
    walk.step();
    if (!gradient) {
      for (int64_t at = 0; at < c.C; at += 32) {
        (spot.all() ? see_pairs<true> : see_pairs<false>)(spot, at, mask_of(c.C - at), to + at / 2, layout.part);
      }
      continue;
    }
    const bool alone = 2 * row + 1 == tiles.count;
    const Spot next(c, frame, walk, x, x_image);
    walk.step();
    for (int64_t at = 0; at < c.C; at += 16) {
      const __mmask16 mask = Vector::mask(c.C - at);
      Vector first[kParts], second[kParts];
      (spot.all() ? see_channels<true> : see_channels<false>)(spot, at, mask, first);
      if (!alone) (next.all() ? see_channels<true> : see_channels<false>)(next, at, mask, second);
      TWOFOLD_UNROLL
      for (int k = 0; k < kParts; ++k) store_pairs(first[k], alone ? Vector::zero() : second[k], to + k * layout.part + at);
    }
  }
}

// One or two vectors, rounded
inline void store_rounded(const Vector* v, int64_t vectors, __mmask32 mask, Half* to) {
  if (vectors == 2) return _mm512_mask_storeu_epi16(to, mask, (__m512i)_mm512_cvtne2ps_pbh(v[1].value, v[0].value));
  _mm256_mask_storeu_epi16(to, static_cast<__mmask16>(mask), (__m256i)_mm512_cvtneps_pbh(v[0].value));
}

// Panels [begin, end) of the block's windows. y is where its first row of windows goes.
void put(const Convolution& c, const Frame& frame, const float* products, const float* packed, bool relu, Half* y, int64_t y_image, int64_t,
    int64_t begin, int64_t end, float*) {
  const Tiles tiles(c, frame);
  const int64_t part = TileProducts(tiles, false).part, lines = smaller(2 * frame.rows, c.P - 2 * frame.row);
  const float* bias = packed + kParts * weight_part(c, parts(c.C, 2));
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t f = panel * kPanel, width = tiles.width(panel), vectors = width / Vector::lanes;
    const __mmask32 mask = mask_of(c.F - f);
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
      Half* to = y + walk.image * y_image + (2 * walk.row * c.Q + 2 * walk.column) * c.F + f;
      const bool below = 2 * walk.row + 1 < lines, right = 2 * walk.column + 1 < c.Q;
      store_rounded(windows[0], vectors, mask, to);
      if (right) store_rounded(windows[1], vectors, mask, to + c.F);
      if (below) store_rounded(windows[2], vectors, mask, to + c.Q * c.F);
      if (below && right) store_rounded(windows[3], vectors, mask, to + (c.Q + 1) * c.F);
    }
  }
}

// The windows of a tile in dy for a vector of filters, 0 where there are none
inline void read_windows(const Half* from, int64_t down, int64_t right, bool below, bool beside, __mmask16 mask, Vector* windows) {
  windows[0] = widened(from, mask);
  windows[1] = beside ? widened(from + right, mask) : Vector::zero();
  windows[2] = below ? widened(from + down, mask) : Vector::zero();
  windows[3] = below && beside ? widened(from + down + right, mask) : Vector::zero();
}

// Panels [begin, end) of what dy is to the tiles; the gradient of their bias is added to dbias, where there is one.
void see_gradient(const Convolution& c, const Frame& frame, const Half* dy, int64_t dy_image, int64_t begin, int64_t end, float* products,
    float* dbias, float*) {
  const Tiles tiles(c, frame);
  const TileProducts layout(tiles, true);
  const int64_t lines = smaller(2 * frame.rows, c.P - 2 * frame.row);
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel, width = tiles.width(panel);
    for (int64_t f = first; f < first + width; f += Vector::lanes) {
      const __mmask16 mask = Vector::mask(c.F - f);
      Vector sum = Vector::zero();
      Walk walk(frame, tiles, 0);
      for (int64_t tile = 0; tile < tiles.count; tile += 2) {
        Vector windows[2][4];
        for (int64_t n = 0; n < 2; ++n, walk.step()) {
          if (tile + n == tiles.count) {
            for (int w = 0; w < 4; ++w) windows[n][w] = Vector::zero();
            break;
          }
          const Half* from = dy + walk.image * dy_image + (2 * walk.row * c.Q + 2 * walk.column) * c.F + f;
          read_windows(from, c.Q * c.F, c.F, 2 * walk.row + 1 < lines, 2 * walk.column + 1 < c.Q, mask, windows[n]);
          sum = sum + windows[n][0] + windows[n][1] + windows[n][2] + windows[n][3];
        }
        float* to = products + first * layout.tiles + tile / 2 * width + f - first;
        TWOFOLD_UNROLL
        for (int i = 0; i < 4; ++i) {
          Vector one[4], other[4];
          see_row(windows[0], i, one);
          see_row(windows[1], i, other);
          TWOFOLD_UNROLL
          for (int j = 0; j < 4; ++j) store_pairs(one[j], other[j], to + (4 * i + j) * layout.part);
        }
      }
      if (dbias && f < c.F) (Vector::load(dbias + f, c.F - f) + sum).store(dbias + f, c.F - f);
    }
  }
}

// The taps of 16 channels from `first` on and of the filters f, f + 1, ...: to[channel][tap][lane], 0 beyond
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

inline constexpr WinogradTable<Half> table{sizes, winograd_packed, pack, see, multiply_tiles<SeenTiles>, put, winograd_sums, see_gradient,
    add_tiles<SeenTiles>, finish};

}  // namespace last
}  // namespace TWOFOLD_SET
}  // namespace twofold
