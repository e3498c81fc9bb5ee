// Convolution with 1x1 taps on maps that lie channels last, of float, or with TWOFOLD_DEEP 2 of bfloat16: products of matrices.
//
//   forward    y[p,f] = sum_c x[p,c] W[f,c] + bias[f]          p: pixels
//   backward   dx[p,c] = sum_f dy[p,f] W[f,c]                  the same of turned weights
//
// Sums are over cells (winograd_tiles.h): a channel, or a pair of neighbours, which lie so in the map already. What is summed is rounded
// and stored where it belongs. dW = dy' x is left to PyTorch: with pairs of pixels put together for it, ours was no faster.

namespace twofold {
namespace TWOFOLD_SET {
namespace last {

inline int64_t panel_width(int64_t F, int64_t panel) { return smaller(kPanel, whole_lanes(F) - panel * kPanel); }

// Cells of channels by filters [panel][cell][width], then the bias
int64_t pointwise_packed(int64_t C, int64_t F) { return parts(C, kDeep) * whole_lanes(F) + whole_lanes(F); }

// Numbers of a matrix from (row, column) on, as rows of lanes: 0 beyond its end
inline void square_of(const float* matrix, int64_t rows, int64_t columns, int64_t row, int64_t column, float* to) {
  constexpr int64_t L = Vector::lanes;
  for (int64_t n = 0; n < L; ++n) {
    (row + n < rows ? Vector::load(matrix + (row + n) * columns + column, columns - column) : Vector::zero()).store(to + n * L);
  }
}

// Panels [begin, end) of the weights, [filter][channel] or turned [channel][filter].
void pointwise_pack(int64_t C, int64_t F, const float* weight, bool turned, const float* bias, int64_t begin, int64_t end, float* packed) {
  constexpr int64_t L = Vector::lanes;
  const int64_t cells = parts(C, kDeep), filters = whole_lanes(F), first = begin * kPanel, last = smaller(end * kPanel, filters);
  float square[L * L], rows[L * L];
  const auto pack = [&](int64_t f, int64_t c) {
    const int64_t panel = f / kPanel, width = panel_width(F, panel);
    float* to = packed + panel * kPanel * cells + f % kPanel;
    square_of(weight, turned ? C : F, turned ? F : C, turned ? c : f, turned ? f : c, turned ? rows : square);
    if (!turned) transpose(square, L, rows, L);
    for (int64_t n = 0; n < smaller(L, C - c); n += kDeep) {
      float* cell = to + (c + n) / kDeep * width;
#if TWOFOLD_DEEP == 2
      store_pairs(Vector::load(rows + n * L), Vector::load(rows + (n + 1) * L), cell);
#else
      Vector::load(rows + n * L).store(cell);
#endif
    }
  };
  // Along the rows of the matrix, as they lie
  for (int64_t c = 0; turned && c < C; c += L) {
    for (int64_t f = first; f < last; f += L) pack(f, c);
  }
  for (int64_t f = first; f < last; f += L) {
    for (int64_t c = 0; !turned && c < C; c += L) pack(f, c);
    (bias ? Vector::load(bias + f, F - f) : Vector::zero()).store(packed + cells * filters + f);
  }
}

// T pixels by V vectors of filters; pixels of y, and of other, lie y_step apart.
template <int T, int V>
void pointwise_tile(const float* x, int64_t step, const float* weight, int64_t cells, const float* bias, int64_t filters,
    const Number* other, bool relu, Number* y, int64_t y_step) {
  Vector sum[T][V];
  TWOFOLD_UNROLL
  for (int t = 0; t < T; ++t) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) sum[t][v] = Vector::load(bias + v * Vector::lanes);
  }
  add_rows<T, V>(x, step, weight, cells, sum);
  TWOFOLD_UNROLL
  for (int t = 0; t < T; ++t) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      if (other) sum[t][v] = sum[t][v] + fetch(other + t * y_step + v * Vector::lanes, filters - v * Vector::lanes);
      if (relu) sum[t][v] = sum[t][v].positive();
    }
    store_windows(sum[t], V, filters, y + t * y_step);
  }
}

using PointwiseTile = void (*)(const float*, int64_t, const float*, int64_t, const float*, int64_t, const Number*, bool, Number*, int64_t);

template <int V>
inline PointwiseTile pointwise_tile_of(int64_t pixels) {
  switch (pixels) {
    case 1: return pointwise_tile<1, V>;
    case 2: return pointwise_tile<2, V>;
    case 3: return pointwise_tile<3, V>;
    case 4: return pointwise_tile<4, V>;
    case 5: return pointwise_tile<5, V>;
#if TWOFOLD_LANES == 16
    case 6: return pointwise_tile<6, V>;
    case 7: return pointwise_tile<7, V>;
    case 8: return pointwise_tile<8, V>;
    case 9: return pointwise_tile<9, V>;
    case 10: return pointwise_tile<10, V>;
    case 11: return pointwise_tile<11, V>;
    default: return pointwise_tile<12, V>;
#else
    default: return nullptr;
#endif
  }
}

// Panels [begin, end) of the filters of so many pixels; other (or null) is a map like y that is added, before the ReLU.
void pointwise_forward(int64_t C, int64_t F, int64_t pixels, const Number* x, const float* packed, int64_t begin, int64_t end,
    const Number* other, bool relu, Number* y) {
  const int64_t cells = C / kDeep;
  const float *seen = reinterpret_cast<const float*>(x), *bias = packed + cells * whole_lanes(F);
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t f = panel * kPanel, width = panel_width(F, panel);
    for (int64_t pixel = 0; pixel < pixels;) {
      const int64_t count = block_of(pixel, pixels, kTileTaps);
      const PointwiseTile tile = width == kPanel ? pointwise_tile_of<2>(count) : pointwise_tile_of<1>(count);
      const int64_t at = pixel * F + f;
      tile(seen + pixel * cells, cells, packed + f * cells, cells, bias + f, F - f, other ? other + at : nullptr, relu, y + at, F);
      pixel += count;
    }
  }
}

inline constexpr PointwiseTable<Number> pointwise{kPanel, pointwise_packed, pointwise_pack, pointwise_forward};

}  // namespace last
}  // namespace TWOFOLD_SET
}  // namespace twofold
