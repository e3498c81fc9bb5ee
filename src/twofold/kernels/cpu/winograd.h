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
// The tiles of a map are the windows of a 4x4 kernel with stride 2: their frame is built like every other, and the 16 products are
// convolutions of one tap over what came out of it. Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016,
// section 4.1

namespace twofold {
namespace TWOFOLD_SET {

constexpr int64_t kParts = 16;

// The 4x4 tiles of the layer as windows.
inline Convolution tiles_of(const Convolution& c) { return {c.C, c.F, c.H, c.W, parts(c.P, 2), parts(c.Q, 2), 4, 4, 2, 2, c.top, c.left, 1, 1}; }

// What lies where in the memory of a block. Narrow maps have their tiles moved together, so that the products do not begin anew with
// every short row.
struct WinogradSizes {
  bool narrow;
  int64_t filters, columns, tiles, seen_channel, seen_part, product_part, frame, seen, products, maps, offsets;
  WinogradSizes(const Convolution& c, const Frame& of_tiles)
      : narrow(Vector::lanes == 16 && parts(c.Q, 2) <= 4), filters(whole_lanes(c.F)), columns(parts(c.Q, 2)),
        tiles(of_tiles.images * of_tiles.rows * columns), seen_channel(narrow ? tiles + Vector::lanes : of_tiles.plane),
        seen_part(c.C * seen_channel + kSlack), product_part((tiles + Vector::lanes) * filters), frame(frame_size(tiles_of(c), of_tiles)),
        seen(kParts * seen_part), products(kParts * product_part),
        maps((of_tiles.images * 2 * of_tiles.rows * c.Q + kSlack) * filters), offsets(2 * c.C) {}
  int64_t all() const { return offsets + frame + seen + products + maps; }
  // One of the 16 products as a convolution of one tap, and its frame.
  Convolution product(const Convolution& c) const {
    const int64_t P = narrow ? 1 : parts(c.P, 2), Q = narrow ? tiles : columns;
    return {c.C, c.F, P, Q, P, Q, 1, 1, 1, 1, 0, 0, 1, 1};
  }
  Frame product_frame(const Convolution& c, const Frame& of_tiles) const { return narrow ? Frame(product(c), 1, 0, 1) : of_tiles; }
};

inline int64_t packed_part(const Convolution& c) { return whole_lanes(c.F) * (c.C + 1); }

int64_t winograd_scratch(const Convolution& c, const Frame& frame) { return WinogradSizes(c, frame).all(); }

int64_t winograd_packed(const Convolution& c) { return kParts * packed_part(c) + whole_lanes(c.F); }

// G g G' of V lanes of filters: g[k] and u[part] lie `step` apart
inline void transform_taps(const float* g, int64_t g_step, float* u, int64_t u_step) {
  const Vector half = Vector::every(0.5f);
  Vector rows[4][3];
  for (int j = 0; j < 3; ++j) {
    const Vector a = Vector::load(g + j * g_step), b = Vector::load(g + (3 + j) * g_step), c = Vector::load(g + (6 + j) * g_step);
    const Vector ends = (a + c) * half, middle = b * half;
    rows[0][j] = a;
    rows[1][j] = ends + middle;
    rows[2][j] = ends - middle;
    rows[3][j] = c;
  }
  for (int i = 0; i < 4; ++i) {
    const Vector ends = (rows[i][0] + rows[i][2]) * half, middle = rows[i][1] * half;
    rows[i][0].store(u + (4 * i) * u_step);
    (ends + middle).store(u + (4 * i + 1) * u_step);
    (ends - middle).store(u + (4 * i + 2) * u_step);
    rows[i][2].store(u + (4 * i + 3) * u_step);
  }
}

// Filters [begin, end) of the packed weights, as far as there are any; both are whole numbers of blocks (2 vectors).
void winograd_pack(const Convolution& c, const float* weight, bool turned, int64_t begin, int64_t end, float* packed, float* taps) {
  constexpr int64_t L = Vector::lanes;
  const int64_t part = packed_part(c), filters = whole_lanes(c.F);
  for (int64_t f = begin; f < smaller(end, filters); f += kFilterVectors * L) {
    const int64_t lanes = smaller(kFilterVectors * L, filters - f);
    float* block = packed + f * c.C;
    for (int64_t channel = 0; channel < c.C; ++channel) {
      fill_zero(taps, 9 * lanes);
      for (int64_t l = 0; l < smaller(lanes, c.F - f); ++l) {
        const float* from = weight + (turned ? channel * c.F + f + l : (f + l) * c.C + channel) * 9;
        if (turned) {
          for (int64_t k = 0; k < 9; ++k) taps[(8 - k) * lanes + l] = from[k];
        } else {
          for (int64_t k = 0; k < 9; ++k) taps[k * lanes + l] = from[k];
        }
      }
      for (int64_t v = 0; v < lanes; v += L) transform_taps(taps + v, lanes, block + channel * lanes + v, part);
    }
  }
}

void winograd_bias(const Convolution& c, const float* bias, float* packed) {
  const int64_t filters = whole_lanes(c.F), part = packed_part(c);
  for (int64_t k = 0; k < kParts; ++k) fill_zero(packed + k * part + filters * c.C, filters);
  float* to = packed + kParts * part;
  for (int64_t f = 0; f < filters; ++f) to[f] = bias && f < c.F ? bias[f] : 0.0f;
}

// B' d B of neighbouring tiles
inline void transform_tile(const float* from, const int64_t* at, Vector* numbers) {
  Vector rows[4][4];
  TWOFOLD_UNROLL
  for (int j = 0; j < 4; ++j) {
    const Vector a = Vector::load(from + at[j]), b = Vector::load(from + at[4 + j]);
    const Vector c = Vector::load(from + at[8 + j]), d = Vector::load(from + at[12 + j]);
    rows[0][j] = a - c;
    rows[1][j] = b + c;
    rows[2][j] = c - b;
    rows[3][j] = b - d;
  }
  TWOFOLD_UNROLL
  for (int i = 0; i < 4; ++i) {
    numbers[4 * i] = rows[i][0] - rows[i][2];
    numbers[4 * i + 1] = rows[i][1] + rows[i][2];
    numbers[4 * i + 2] = rows[i][2] - rows[i][1];
    numbers[4 * i + 3] = rows[i][1] - rows[i][3];
  }
}

// The same of every tile: seen[part][channel][tile]
inline void see_tiles(const Convolution& c, const Frame& frame, const WinogradSizes& sizes, const float* x, int64_t x_image, int64_t* offset,
    float* framed, float* seen) {
  Convolution tiles = tiles_of(c);
  fill_frame(tiles, frame, x, x_image, framed);
  int64_t at[16];
  tiles.C = 1;
  fill_offsets(tiles, frame, at);
  const int64_t part = sizes.seen_part;
  uint32_t real[8] = {};  // which of the neighbours of number n, n % pitch = phase, are tiles
  for (int64_t phase = 0; sizes.narrow && phase < frame.pitch; ++phase) {
    for (int64_t l = 0; l < Vector::lanes; ++l) real[phase] |= uint32_t{(phase + l) % frame.pitch < sizes.columns} << l;
  }
  for (int64_t channel = 0; channel < c.C; ++channel) {
    offset[channel] = channel * sizes.seen_channel;
    for (int64_t g = 0; g < frame.images; ++g) {
      const float* from = framed + channel * frame.channel + g * frame.image;
      float* to = seen + channel * sizes.seen_channel + g * (sizes.narrow ? frame.rows * sizes.columns : frame.image);
      for (int64_t n = 0; n < frame.windows; n += Vector::lanes, from += Vector::lanes) {
        Vector numbers[16];
        transform_tile(from, at, numbers);
        if (!sizes.narrow) {
          TWOFOLD_UNROLL
          for (int k = 0; k < 16; ++k) numbers[k].store(to + k * part);
          to += Vector::lanes;
          continue;
        }
        const uint32_t left = frame.windows - n >= Vector::lanes ? ~0u : (1u << (frame.windows - n)) - 1, bits = real[n % frame.pitch] & left;
        TWOFOLD_UNROLL
        for (int k = 0; k < 16; ++k) numbers[k].together(bits).store(to + k * part);
        to += __builtin_popcount(bits);
      }
    }
  }
}

// A' m A of every tile for all filters, the bias added, ReLU where asked for: maps [image][row][column][filter]
inline void transform_products(const Convolution& c, const Frame& frame, const WinogradSizes& sizes, const float* products, const float* bias,
    bool relu, float* maps) {
  const int64_t Q = sizes.columns, rows = smaller(2 * frame.rows, c.P - 2 * frame.row);
  const float* from = products;
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t p = 0; p < frame.rows; ++p) {
      for (int64_t q = 0; q < Q; ++q, from += sizes.filters) {
        float* to = maps + ((g * rows + 2 * p) * c.Q + 2 * q) * sizes.filters;
        const bool below = 2 * p + 1 < rows, right = 2 * q + 1 < c.Q;
        for (int64_t f = 0; f < sizes.filters; f += Vector::lanes) {
          Vector upper[4], lower[4];
          TWOFOLD_UNROLL
          for (int j = 0; j < 4; ++j) {
            const float* m = from + f + j * sizes.product_part;
            const Vector b = Vector::load(m + 4 * sizes.product_part), d = Vector::load(m + 8 * sizes.product_part);
            upper[j] = Vector::load(m) + b + d;
            lower[j] = b - d - Vector::load(m + 12 * sizes.product_part);
          }
          const Vector plus = Vector::load(bias + f);
          const auto put = [&](Vector y, int64_t place) { (relu ? y.positive() : y).store(to + place * sizes.filters + f); };
          put(upper[0] + upper[1] + upper[2] + plus, 0);
          if (right) put(upper[1] - upper[2] - upper[3] + plus, 1);
          if (below) put(lower[0] + lower[1] + lower[2] + plus, c.Q);
          if (below && right) put(lower[1] - lower[2] - lower[3] + plus, c.Q + 1);
        }
      }
    }
  }
}

// frame: of the tiles (a block of rows of tiles). y is where the first row of windows of the block goes.
void winograd(const Convolution& c, const Frame& frame, const float* x, int64_t x_image, const float* packed, bool relu, float* y,
    int64_t y_image, int64_t y_map, float* scratch) {
  const WinogradSizes sizes(c, frame);
  int64_t* offset = reinterpret_cast<int64_t*>(scratch);
  float *framed = scratch + sizes.offsets, *seen = framed + sizes.frame, *products = seen + sizes.seen, *maps = products + sizes.products;
  see_tiles(c, frame, sizes, x, x_image, offset, framed, seen);
  const Convolution product = sizes.product(c);
  const Frame product_frame = sizes.product_frame(c, frame);
  const int64_t part = packed_part(c);
  for (int64_t k = 0; k < kParts; ++k) {
    correlate_by_filters(product, product_frame, seen + k * sizes.seen_part, offset, packed + k * part, false, products + k * sizes.product_part);
  }
  transform_products(c, frame, sizes, products, packed + kParts * part, relu, maps);
  const int64_t windows = smaller(2 * frame.rows, c.P - 2 * frame.row) * c.Q;
  for (int64_t g = 0; g < frame.images; ++g) to_maps(maps + g * windows * sizes.filters, sizes.filters, windows, c.F, y + g * y_image, y_map);
}

int64_t winograd_sums(const Convolution& c) { return kParts * c.C * whole_lanes(c.F) + c.F; }

// A dy A' of every tile: products[part][tile][filter]
inline void transform_gradients(const Convolution& c, const Frame& frame, const WinogradSizes& sizes, const float* maps, float* products) {
  const int64_t Q = sizes.columns, rows = smaller(2 * frame.rows, c.P - 2 * frame.row);
  float* to = products;
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t p = 0; p < frame.rows; ++p) {
      for (int64_t q = 0; q < Q; ++q, to += sizes.filters) {
        const float* from = maps + ((g * rows + 2 * p) * c.Q + 2 * q) * sizes.filters;
        const bool below = 2 * p + 1 < rows, right = 2 * q + 1 < c.Q;
        for (int64_t f = 0; f < sizes.filters; f += Vector::lanes) {
          const Vector a = Vector::load(from + f), b = right ? Vector::load(from + sizes.filters + f) : Vector::zero();
          const Vector d = below ? Vector::load(from + c.Q * sizes.filters + f) : Vector::zero();
          const Vector e = below && right ? Vector::load(from + (c.Q + 1) * sizes.filters + f) : Vector::zero();
          const Vector rows_of[4][2] = {{a, b}, {a + d, b + e}, {a - d, b - e}, {Vector::zero() - d, Vector::zero() - e}};
          TWOFOLD_UNROLL
          for (int i = 0; i < 4; ++i) {
            float* m = to + f + 4 * i * sizes.product_part;
            rows_of[i][0].store(m);
            (rows_of[i][0] + rows_of[i][1]).store(m + sizes.product_part);
            (rows_of[i][0] - rows_of[i][1]).store(m + 2 * sizes.product_part);
            (Vector::zero() - rows_of[i][1]).store(m + 3 * sizes.product_part);
          }
        }
      }
    }
  }
}

// dy is where the first row of windows of the block begins.
void winograd_gradient(const Convolution& c, const Frame& frame, const float* x, int64_t x_image, const float* dy, int64_t dy_image,
    float* sums, float* scratch) {
  const WinogradSizes sizes(c, frame);
  int64_t* offset = reinterpret_cast<int64_t*>(scratch);
  float *framed = scratch + sizes.offsets, *seen = framed + sizes.frame, *products = seen + sizes.seen, *maps = products + sizes.products;
  const int64_t windows = smaller(2 * frame.rows, c.P - 2 * frame.row) * c.Q, part = c.C * sizes.filters;
  float* bias_sums = sums + kParts * part;
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t f = 0; f < c.F; ++f) bias_sums[f] += sum_of(dy + g * dy_image + f * c.P * c.Q, windows);
    from_maps(dy + g * dy_image, c.P * c.Q, windows, c.F, sizes.filters, maps + g * windows * sizes.filters);
  }
  see_tiles(c, frame, sizes, x, x_image, offset, framed, seen);
  transform_gradients(c, frame, sizes, maps, products);
  const Convolution product = sizes.product(c);
  const Frame product_frame = sizes.product_frame(c, frame);
  for (int64_t k = 0; k < kParts; ++k) {
    weight_sums_by_filters(product, product_frame, seen + k * sizes.seen_part, offset, products + k * sizes.product_part, sums + k * part);
  }
}

// dg = G' du G
void winograd_finish(const Convolution& c, const float* sums, float* dweight, float* dbias) {
  constexpr int64_t L = Vector::lanes;
  const int64_t filters = whole_lanes(c.F), part = c.C * filters;
  const Vector half = Vector::every(0.5f);
  float taps[9 * L];
  for (int64_t channel = 0; channel < c.C; ++channel) {
    for (int64_t f = 0; f < filters; f += L) {
      const float* u = sums + channel * filters + f;
      Vector rows[3][4];
      TWOFOLD_UNROLL
      for (int j = 0; j < 4; ++j) {
        const Vector b = Vector::load(u + (4 + j) * part), d = Vector::load(u + (8 + j) * part);
        rows[0][j] = Vector::load(u + j * part) + (b + d) * half;
        rows[1][j] = (b - d) * half;
        rows[2][j] = (b + d) * half + Vector::load(u + (12 + j) * part);
      }
      for (int i = 0; i < 3; ++i) {
        const Vector ends = (rows[i][1] + rows[i][2]) * half;
        (rows[i][0] + ends).store(taps + (3 * i) * L);
        ((rows[i][1] - rows[i][2]) * half).store(taps + (3 * i + 1) * L);
        (ends + rows[i][3]).store(taps + (3 * i + 2) * L);
      }
      for (int64_t l = 0; l < smaller(L, c.F - f); ++l) {
        for (int k = 0; k < 9; ++k) dweight[((f + l) * c.C + channel) * 9 + k] = taps[k * L + l];
      }
    }
  }
  for (int64_t f = 0; dbias && f < c.F; ++f) dbias[f] = sums[kParts * part + f];
}

inline constexpr WinogradKernels winograd_kernels{
    winograd_packed, winograd_pack, winograd_bias, winograd_scratch, winograd, winograd_sums, winograd_gradient, winograd_finish};

}  // namespace TWOFOLD_SET
}  // namespace twofold
