// Convolution with 3x3 taps by 16 multiplications where there were 36: Winograd's F(2x2, 3x3).
//
// A tile is 2x2 windows, which see 4x4 numbers d of a channel. With g the 3x3 taps, dm the gradient of m and so on,
//
//   forward    y = A' [ sum_c (G g G') (B' d B) ] A            the product in brackets number by number: 16 matrix products over c
//   backward   dm = A dy A'        dg = G' [ sum_tiles dm (B' d B) ] G
//
//        1  0 -1  0          1   0   0          1  1  1  0
//   B' = 0  1  1  0     G = 1/2 1/2 1/2    A' = 0  1 -1 -1
//        0 -1  1  0         1/2 -1/2 1/2
//        0  1  0 -1          0   0   1
//
// The tiles of a map are the windows of a 4x4 kernel with stride 2: their frame is built like every other. A block is computed in
// stages, each of which can be shared out among threads: seeing (by channels), products (by number and panel), results (by panels).
// Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.1

namespace twofold {
namespace TWOFOLD_SET {

WinogradSizes winograd_sizes(const Convolution& c, const Frame& frame, bool gradient) {
  const Tiles tiles(c, frame);
  const SeenTiles seen(c, tiles, gradient);
  const int64_t scratch = odd_lines(larger(places_floats(tiles), panel_floats(c, frame)));
  return {seen.rows, tiles.panels, seen.size(), TileProducts(tiles, gradient).size(), scratch};
}

int64_t winograd_packed(const Convolution& c) { return kParts * weight_part(c, parts(c.C, kDeep)) + whole_lanes(c.F); }
int64_t winograd_sums(const Convolution& c) { return kParts * weight_part(c, c.C); }

// G g G' of V lanes of filters: taps lie L apart, numbers of the result `step`
inline void transform_taps(const float* g, float* u, int64_t step) {
  constexpr int64_t L = Vector::lanes;
  const Vector half = Vector::every(0.5f);
  Vector rows[4][3];
  for (int j = 0; j < 3; ++j) {
    const Vector a = Vector::load(g + j * L), b = Vector::load(g + (3 + j) * L), c = Vector::load(g + (6 + j) * L);
    const Vector ends = (a + c) * half, middle = b * half;
    rows[0][j] = a;
    rows[1][j] = ends + middle;
    rows[2][j] = ends - middle;
    rows[3][j] = c;
  }
  for (int i = 0; i < 4; ++i) {
    const Vector ends = (rows[i][0] + rows[i][2]) * half, middle = rows[i][1] * half;
    rows[i][0].store(u + (4 * i) * step);
    (ends + middle).store(u + (4 * i + 1) * step);
    (ends - middle).store(u + (4 * i + 2) * step);
    rows[i][2].store(u + (4 * i + 3) * step);
  }
}

// The taps of L channels from the first on, as far as there are any, and of the filters f, f + 1, ...: to[channel][tap][lane], 0 beyond
inline void gather_taps(const Convolution& c, const float* weight, bool turned, int64_t first, int64_t f, float* to) {
  constexpr int64_t L = Vector::lanes;
  const int64_t channels = smaller(L, c.C - first), filters = smaller(L, c.F - f);
  if (channels < L || filters < L) fill_zero(to, 9 * L * L);
  if (!turned && channels == L && filters == L) {
    for (int64_t n = 0; n < 9 * L; n += L) transpose(weight + (f * c.C + first) * 9 + n, c.C * 9, to + n * L, L);
    return;
  }
  constexpr int64_t kWhole = (9 + L - 1) / L * L;
  for (int64_t channel = 0; channel < channels; ++channel, to += 9 * L) {
    const int64_t begin = (turned ? (first + channel) * c.F + f : f * c.C + first + channel) * 9;
    if (turned && begin + (L - 1) * 9 + kWhole <= 9 * c.C * c.F && filters == L) {
      float square[kWhole * L];
      for (int64_t n = 0; n < 9; n += L) transpose(weight + begin + n, 9, square + n * L, L);
      for (int64_t k = 0; k < 9; ++k) Vector::load(square + (8 - k) * L).store(to + k * L);
      continue;
    }
    for (int64_t l = 0; l < filters; ++l) {
      const float* from = weight + begin + l * (turned ? 9 : 9 * c.C);
      for (int64_t k = 0; k < 9; ++k) to[k * L + l] = from[turned ? 8 - k : k];
    }
  }
}

// Panels [begin, end) of the weights, whose taps are gathered by gather(channel, filter, to).
template <class Gather>
inline void pack_panels(const Convolution& c, const float* bias, int64_t begin, int64_t end, float* packed, Gather gather) {
  constexpr int64_t L = Vector::lanes;
  const int64_t rows = parts(c.C, kDeep), part = weight_part(c, rows), filters = whole_lanes(c.F);
  float taps[9 * L * L];
  for (int64_t f = begin * kPanel; f < smaller(end * kPanel, filters); f += L) {
    const int64_t panel = f / kPanel * kPanel, width = smaller(kPanel, filters - panel);
    float* block = packed + panel * rows + f % kPanel;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t channel = row * kDeep % L;
      if (channel == 0) gather(row * kDeep, f, taps);
#if TWOFOLD_DEEP == 2
      float first[kParts * L], second[kParts * L];
      transform_taps(taps + channel * 9 * L, first, L);
      transform_taps(taps + (channel + 1) * 9 * L, second, L);
      for (int k = 0; k < kParts; ++k) {
        store_pairs(Vector::load(first + k * L), Vector::load(second + k * L), block + row * width + k * part);
      }
#else
      transform_taps(taps + channel * 9 * L, block + row * width, part);
#endif
    }
    for (int64_t l = 0; l < L; ++l) packed[kParts * part + f + l] = bias && f + l < c.F ? bias[f + l] : 0.0f;
  }
}

void winograd_pack(const Convolution& c, const float* weight, const float* bias, bool turned, int64_t begin, int64_t end, float* packed) {
  pack_panels(c, bias, begin, end, packed, [&](int64_t channel, int64_t f, float* to) { gather_taps(c, weight, turned, channel, f, to); });
}

void winograd_see(const Convolution& c, const Frame& frame, bool gradient, const float* x, int64_t x_image, int64_t begin, int64_t end,
    float* seen, float* scratch) {
  const Tiles tiles(c, frame);
  see_tiles(c, frame, tiles, gradient, x, x_image, begin, end, seen, scratch);
}

// A' m A of a tile for a vector of filters, whose numbers lie `part` apart: its windows, reading order
inline void put_tile(const float* m, int64_t part, Vector bias, Vector* windows) {
  Vector upper[4], lower[4];
  TWOFOLD_UNROLL
  for (int j = 0; j < 4; ++j) {
    const Vector b = Vector::load(m + (4 + j) * part), d = Vector::load(m + (8 + j) * part);
    upper[j] = Vector::load(m + j * part) + b + d;
    lower[j] = b - d - Vector::load(m + (12 + j) * part);
  }
  windows[0] = upper[0] + upper[1] + upper[2] + bias;
  windows[1] = upper[1] - upper[2] - upper[3] + bias;
  windows[2] = lower[0] + lower[1] + lower[2] + bias;
  windows[3] = lower[1] - lower[2] - lower[3] + bias;
}

// Every tile for V vectors of filters, the bias added, ReLU where asked for: maps [window][V lanes]
template <int V>
inline void transform_products(const Convolution& c, const Frame& frame, const Tiles& tiles, const float* from, int64_t part, const float* bias,
    bool relu, float* maps) {
  constexpr int64_t width = V * Vector::lanes;
  each_tile(c, frame, tiles, [&](int64_t tile, int64_t window, bool below, bool right) {
    TWOFOLD_UNROLL
    for (int64_t f = 0; f < width; f += Vector::lanes) {
      Vector y[4];
      put_tile(from + tile * width + f, part, Vector::load(bias + f), y);
      const auto put = [&](Vector y, int64_t place) { (relu ? y.positive() : y).store(maps + (window + place) * width + f); };
      put(y[0], 0);
      if (right) put(y[1], 1);
      if (below) put(y[2], c.Q);
      if (below && right) put(y[3], c.Q + 1);
    }
  });
}

// Panels [begin, end) of the block's windows. y is where its first row of windows goes.
void winograd_put(const Convolution& c, const Frame& frame, const float* products, const float* packed, bool relu, float* y,
    int64_t y_image, int64_t y_map, int64_t begin, int64_t end, float* maps) {
  const Tiles tiles(c, frame);
  const int64_t part = TileProducts(tiles, false).part, windows = smaller(2 * frame.rows, c.P - 2 * frame.row) * c.Q;
  const float* bias = packed + kParts * weight_part(c, parts(c.C, kDeep));
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t f = panel * kPanel, width = tiles.width(panel);
    (width == kPanel ? transform_products<2> : transform_products<1>)(
        c, frame, tiles, products + f * tiles.count, part, bias + f, relu, maps);
    for (int64_t g = 0; g < frame.images; ++g) {
      to_maps(maps + g * windows * width, width, windows, smaller(width, c.F - f), y + g * y_image + f * y_map, y_map);
    }
  }
}

// Row i of A dy A' of a tile's windows, reading order
inline void see_row(const Vector* windows, int i, Vector* four) {
  const Vector none = Vector::zero(), *w = windows;
  const Vector a = i == 0 ? w[0] : i == 1 ? w[0] + w[2] : i == 2 ? w[0] - w[2] : none - w[2];
  const Vector b = i == 0 ? w[1] : i == 1 ? w[1] + w[3] : i == 2 ? w[1] - w[3] : none - w[3];
  four[0] = a, four[1] = a + b, four[2] = a - b, four[3] = none - b;
}

// A dy A' of every tile for V vectors of filters: to [cell of tiles][V lanes]
template <int V>
inline void transform_gradients(const Convolution& c, const Frame& frame, const Tiles& tiles, const float* maps, float* to, int64_t part) {
  constexpr int64_t width = V * Vector::lanes;
  [[maybe_unused]] float held[kParts * width];  // of the cell's first tile
  each_tile(c, frame, tiles, [&](int64_t tile, int64_t window, bool below, bool right) {
    const float* from = maps + window * width;
    TWOFOLD_UNROLL
    for (int64_t f = 0; f < width; f += Vector::lanes) {
      const Vector none = Vector::zero();
      const Vector windows[4] = {Vector::load(from + f), right ? Vector::load(from + width + f) : none,
          below ? Vector::load(from + c.Q * width + f) : none, below && right ? Vector::load(from + (c.Q + 1) * width + f) : none};
      TWOFOLD_UNROLL
      for (int i = 0; i < 4; ++i) {
        Vector four[4];
        see_row(windows, i, four);
        TWOFOLD_UNROLL
        for (int j = 0; j < 4; ++j) {
          const int k = 4 * i + j;
#if TWOFOLD_DEEP == 2
          if (tile % 2 == 0) {
            four[j].store(held + k * width + f);
            if (tile + 1 == tiles.count) store_pairs(four[j], none, to + k * part + tile / 2 * width + f);
          } else {
            store_pairs(Vector::load(held + k * width + f), four[j], to + k * part + tile / 2 * width + f);
          }
#else
          four[j].store(to + k * part + tile * width + f);
#endif
        }
      }
    }
  });
}

// Panels [begin, end) of what dy is to the tiles; the gradient of their bias is added to dbias, where there is one. dy is where the
// block's first row of windows begins.
void winograd_see_gradient(const Convolution& c, const Frame& frame, const float* dy, int64_t dy_image, int64_t begin, int64_t end,
    float* products, float* dbias, float* maps) {
  const Tiles tiles(c, frame);
  const TileProducts layout(tiles, true);
  const int64_t windows = smaller(2 * frame.rows, c.P - 2 * frame.row) * c.Q, map = c.P * c.Q;
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t first = panel * kPanel, width = tiles.width(panel), real = smaller(width, c.F - first);
    for (int64_t g = 0; g < frame.images; ++g) {
      const float* from = dy + g * dy_image + first * map;
      for (int64_t f = 0; dbias && f < real; ++f) dbias[first + f] += sum_of(from + f * map, windows);
      from_maps(from, map, windows, real, width, maps + g * windows * width);
    }
    float* to = products + first * layout.tiles;
    (width == kPanel ? transform_gradients<2> : transform_gradients<1>)(c, frame, tiles, maps, to, layout.part);
  }
}

// G' du G of V lanes of filters: numbers of u lie `part` apart, taps L
inline void transform_sums(const float* u, int64_t part, float* taps) {
  constexpr int64_t L = Vector::lanes;
  const Vector half = Vector::every(0.5f);
  Vector rows[3][4];
  TWOFOLD_UNROLL
  for (int j = 0; j < 4; ++j) {
    const Vector b = Vector::load(u + (4 + j) * part), d = Vector::load(u + (8 + j) * part);
    rows[0][j] = Vector::load(u + j * part) + (b + d) * half;
    rows[1][j] = (b - d) * half;
    rows[2][j] = (b + d) * half + Vector::load(u + (12 + j) * part);
  }
  TWOFOLD_UNROLL
  for (int i = 0; i < 3; ++i) {
    const Vector ends = (rows[i][1] + rows[i][2]) * half;
    (rows[i][0] + ends).store(taps + (3 * i) * L);
    ((rows[i][1] - rows[i][2]) * half).store(taps + (3 * i + 1) * L);
    (ends + rows[i][3]).store(taps + (3 * i + 2) * L);
  }
}

// Gives put(f, first, channels, taps) the gradient of the panels [begin, end), taps [channel][tap][lane] of lanes of filters and channels
// at a time.
template <class Put>
inline void each_taps(const Convolution& c, const float* sums, int64_t begin, int64_t end, Put put) {
  constexpr int64_t L = Vector::lanes;
  const int64_t filters = whole_lanes(c.F), part = weight_part(c, c.C);
  float taps[9 * L * L];
  for (int64_t f = begin * kPanel; f < smaller(end * kPanel, filters); f += L) {
    const int64_t panel = f / kPanel * kPanel, width = smaller(kPanel, filters - panel);
    for (int64_t first = 0; first < c.C; first += L) {
      const int64_t channels = smaller(L, c.C - first);
      for (int64_t channel = 0; channel < channels; ++channel) {
        transform_sums(sums + panel * c.C + (first + channel) * width + f % kPanel, part, taps + channel * 9 * L);
      }
      put(f, first, channels, taps);
    }
  }
}

// dweight of the panels [begin, end)
void winograd_finish(const Convolution& c, const float* sums, int64_t begin, int64_t end, float* dweight) {
  constexpr int64_t L = Vector::lanes;
  each_taps(c, sums, begin, end, [&](int64_t f, int64_t first, int64_t channels, const float* taps) {
    float* to = dweight + (f * c.C + first) * 9;
    if (channels == L && f + L <= c.F) {
      for (int64_t n = 0; n < 9 * L; n += L) transpose(taps + n * L, L, to + n, 9 * c.C);
      return;
    }
    for (int64_t l = 0; l < smaller(L, c.F - f); ++l) {
      for (int64_t n = 0; n < 9 * channels; ++n) to[l * 9 * c.C + n] = taps[n * L + l];
    }
  });
}

inline constexpr WinogradKernels winograd_kernels{false, winograd_sizes, winograd_packed, winograd_pack, winograd_see,
    multiply_tiles<SeenTiles>, winograd_put, winograd_sums, winograd_see_gradient, add_tiles<SeenTiles>, winograd_finish};

}  // namespace TWOFOLD_SET
}  // namespace twofold
