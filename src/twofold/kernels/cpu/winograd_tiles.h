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
inline Convolution tiles_of(const Convolution& c) { return {c.C, c.F, c.H, c.W, parts(c.P, 2), parts(c.Q, 2), 4, 4, 2, 2, c.top, c.left, 1, 1}; }

// Whole cache lines, an odd number of them: streams that lie so far apart never fall into the same set of the cache.
inline int64_t odd_lines(int64_t floats) { return (parts(floats, 16) | 1) * 16; }

// The tiles of a block.
struct Tiles {
  bool together;  // rows are so short that lanes run on over them, and are moved together
  int64_t columns, count, filters, panels;
  Tiles(const Convolution& c, const Frame& frame)
      : columns(parts(c.Q, 2)), count(frame.images * frame.rows * columns), filters(whole_lanes(c.F)), panels(parts(filters, kPanel)) {
    together = Vector::lanes == 16 && frame.pitch <= 32 && 4 * whole_lanes(columns) > 5 * frame.pitch;
  }
  int64_t width(int64_t panel) const { return smaller(kPanel, filters - panel * kPanel); }
};

// Cells of x: [part][row][column]. Forward: channels by tiles. For the gradient of the weights: tiles along the rows.
struct SeenTiles {
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
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
      17, 1, 16, 0);
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

// Calls put(window, bits, tile) for the vectors of neighbouring windows of a channel's frame: those whose bit is set are tiles, of
// which `tile` is the first. Without Together all bits count as set: what lies beyond a row, the next overwrites.
template <bool Together, class Put>
inline void each_vector(const Frame& frame, const Tiles& tiles, Put put) {
  int64_t tile = 0;
  if (!Together) {
    for (int64_t g = 0; g < frame.images; ++g) {
      for (int64_t p = 0; p < frame.rows; ++p, tile += tiles.columns) {
        for (int64_t q = 0; q < tiles.columns; q += Vector::lanes) put(g * frame.image + p * frame.pitch + q, ~0u, tile + q);
      }
    }
    return;
  }
  uint32_t real[32] = {};  // which of the neighbours of window n, n % pitch = phase, are tiles
  for (int64_t phase = 0; phase < frame.pitch; ++phase) {
    for (int64_t l = 0; l < Vector::lanes; ++l) real[phase] |= uint32_t{(phase + l) % frame.pitch < tiles.columns} << l;
  }
  for (int64_t g = 0; g < frame.images; ++g) {
    int64_t phase = 0;
    for (int64_t n = 0; n < frame.windows; n += Vector::lanes) {
      const uint32_t bits = real[phase] & (frame.windows - n >= Vector::lanes ? ~0u : (1u << (frame.windows - n)) - 1);
      put(g * frame.image + n, bits, tile);
      tile += __builtin_popcount(bits);
      for (phase += Vector::lanes; phase >= frame.pitch;) phase -= frame.pitch;
    }
  }
}

// A channel's frame is built in `framed`, which stays in the first cache.
inline int64_t channel_floats(const Convolution& c, const Frame& frame) { return tiles_of(c).sh * 2 * frame.plane + kSlack; }

inline void frame_channel(const Convolution& c, const Frame& frame, const float* x, int64_t x_image, int64_t channel, float* framed) {
  Convolution one = tiles_of(c);
  one.C = 1;
  fill_frame(one, frame, x + channel * c.H * c.W, x_image, framed);
}

struct TileOffsets {
  int64_t at[16];
  TileOffsets(const Convolution& c, const Frame& frame) {
    Convolution one = tiles_of(c);
    one.C = 1;
    fill_offsets(one, frame, at);
  }
};

// The tiles of rows [begin, end) of cells of channels, for the products forward.
template <bool Together>
inline void see_channels(const Convolution& c, const Frame& frame, const Tiles& tiles, const float* x, int64_t x_image, int64_t begin,
    int64_t end, float* seen, float* framed) {
  const SeenTiles layout(c, tiles, false);
  const TileOffsets offsets(c, frame);
  for (int64_t row = begin; row < end; ++row) {
    float* to = seen + row * layout.step;
    frame_channel(c, frame, x, x_image, row * kDeep, framed);
#if TWOFOLD_DEEP == 2
    float* second = framed + channel_floats(c, frame);
    const bool alone = row * 2 + 1 == c.C;
    if (alone) {
      fill_zero(second, channel_floats(c, frame));
    } else {
      frame_channel(c, frame, x, x_image, row * 2 + 1, second);
    }
    each_vector<Together>(frame, tiles, [&](int64_t window, uint32_t bits, int64_t tile) {
      Vector a[kParts], b[kParts];
      transform_tile(framed + window, offsets.at, a);
      transform_tile(second + window, offsets.at, b);
      TWOFOLD_UNROLL
      for (int k = 0; k < kParts; ++k) {
        store_pairs(Together ? a[k].together(bits) : a[k], Together ? b[k].together(bits) : b[k], to + k * layout.part + tile);
      }
    });
#else
    each_vector<Together>(frame, tiles, [&](int64_t window, uint32_t bits, int64_t tile) {
      Vector numbers[kParts];
      transform_tile(framed + window, offsets.at, numbers);
      TWOFOLD_UNROLL
      for (int k = 0; k < kParts; ++k) (Together ? numbers[k].together(bits) : numbers[k]).store(to + k * layout.part + tile);
    });
#endif
  }
}

// The tiles of the channels [begin, end), for the gradient of the weights: neighbouring tiles share a cell.
template <bool Together>
inline void see_neighbours(const Convolution& c, const Frame& frame, const Tiles& tiles, const float* x, int64_t x_image, int64_t begin,
    int64_t end, float* seen, float* framed) {
  const SeenTiles layout(c, tiles, true);
  const TileOffsets offsets(c, frame);
  for (int64_t channel = begin; channel < end; ++channel) {
    float* to = seen + channel * layout.step;
    frame_channel(c, frame, x, x_image, channel, framed);
    each_vector<Together>(frame, tiles, [&](int64_t window, uint32_t bits, int64_t tile) {
      Vector numbers[kParts];
      transform_tile(framed + window, offsets.at, numbers);
      TWOFOLD_UNROLL
      for (int k = 0; k < kParts; ++k) store_numbers(Together ? numbers[k].together(bits) : numbers[k], to + k * layout.part, tile);
    });
    for (int k = 0; k < kParts && tiles.count % kDeep; ++k) store_numbers(Vector::zero(), to + k * layout.part, tiles.count);
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
