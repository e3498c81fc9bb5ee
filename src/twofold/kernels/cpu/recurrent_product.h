// Few rows times a matrix that is packed for many uses: y[r, column] = sum_k x[r, k] W[k, column].
//
// A tile of up to 6 rows by a panel of up to 4 vectors of columns stays in registers while k runs. With TWOFOLD_DEEP 2, k runs over pairs
// of bfloat16 and sums in float32. Compiled once per instruction set, in the namespace TWOFOLD_SET.

#ifndef TWOFOLD_DEEP
#define TWOFOLD_DEEP 1
#endif

namespace twofold {
namespace TWOFOLD_SET {

constexpr int kWide = Vector::registers == 32 ? 4 : 2, kHigh = Vector::registers == 32 ? 6 : 4;
constexpr int64_t kInCell = TWOFOLD_DEEP;

Panels panels_of(int64_t inner_blocks, int64_t inner, int64_t blocks, int64_t units) {
  const int64_t vectors = (units + Vector::lanes - 1) / Vector::lanes, least = (vectors + kWide - 1) / kWide;
  const int64_t count = least > 2 && vectors > least ? least + least % 2 : least;  // even, so that two threads share them evenly
  return {inner_blocks, inner, blocks, units, inner_blocks * ((inner + kInCell - 1) / kInCell), vectors, count};
}

int64_t packed_size(const Panels& p) { return p.cells * p.blocks * p.vectors * Vector::lanes; }

#if TWOFOLD_DEEP == 2
inline uint16_t rounded(float x) {  // to the nearest bfloat16, to the even one of two; NaN stays
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return static_cast<uint16_t>(x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : bits >> 16 | 0x40);
}
#endif

// One vector of columns: n of them, from `weight` on.
inline void pack_vector(const Panels& p, const float* weight, int64_t by_row, int64_t by_column, int64_t n, int64_t width, float* to) {
#if TWOFOLD_DEEP == 2
  const int64_t half = (p.inner + 1) / 2;
  for (int64_t cell = 0; cell < p.cells; ++cell) {
    uint16_t* pair = reinterpret_cast<uint16_t*>(to + cell * width);
    const int64_t k = 2 * (cell % half);
    const float* row = weight + (cell / half * p.inner + k) * by_row;
    for (int64_t l = 0; l < Vector::lanes; ++l) {
      pair[2 * l] = l < n ? rounded(row[l * by_column]) : 0;
      pair[2 * l + 1] = l < n && k + 1 < p.inner ? rounded(row[by_row + l * by_column]) : 0;
    }
  }
#else
  int64_t k = 0;
  if (by_row == 1 && n == Vector::lanes) {
    for (; k + Vector::lanes <= p.cells; k += Vector::lanes) transpose(weight + k, by_column, to + k * width, width);
  }
  for (; k < p.cells; ++k) {
    for (int64_t l = 0; l < Vector::lanes; ++l) to[k * width + l] = l < n ? weight[k * by_row + l * by_column] : 0.0f;
  }
#endif
}

void pack_panels(const Panels& p, const float* weight, int64_t by_row, int64_t by_column, float* packed, int64_t from, int64_t to) {
  packed += p.first(from) * Vector::lanes * p.blocks * p.cells;
  for (int64_t panel = from; panel < to; ++panel) {
    const int64_t first = p.first(panel), width = (p.first(panel + 1) - first) * Vector::lanes;
    for (int64_t block = 0; block < p.blocks; ++block) {
      for (int64_t v = 0; v < width; v += Vector::lanes) {
        const int64_t u = first * Vector::lanes + v;
        pack_vector(p, weight + (block * p.units + u) * by_column, by_row, by_column, smaller(Vector::lanes, p.units - u), width, packed + v);
      }
      packed += p.cells * width;
    }
  }
}

inline void add_product_of_cells(Vector& sum, Vector a, Vector b) {
#if TWOFOLD_DEEP == 2
  sum.value = _mm512_dpbf16_ps(sum.value, (__m512bh)a.value, (__m512bh)b.value);
#else
  sum.add_product(a, b);
#endif
}

// left: the columns of the last vector
template <int R, int V>
void product_block(int64_t cells, const float* x, int64_t x_step, const float* b, float* y, int64_t y_step, int64_t left, bool fresh) {
  Vector sum[R][V];
  TWOFOLD_UNROLL
  for (int r = 0; r < R; ++r) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      const float* from = y + r * y_step + v * Vector::lanes;
      sum[r][v] = fresh ? Vector::zero() : v == V - 1 ? Vector::load(from, left) : Vector::load(from);
    }
  }
  for (int64_t k = 0; k < cells; ++k, b += V * Vector::lanes) {
    Vector w[V];
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Vector::load(b + v * Vector::lanes);
    TWOFOLD_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vector spread = Vector::every(x[r * x_step + k]);
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) add_product_of_cells(sum[r][v], spread, w[v]);
    }
  }
  TWOFOLD_UNROLL
  for (int r = 0; r < R; ++r) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      float* to = y + r * y_step + v * Vector::lanes;
      if (v == V - 1 && left < Vector::lanes) sum[r][v].store(to, left);
      else sum[r][v].store(to);
    }
  }
}

using ProductBlock = void (*)(int64_t, const float*, int64_t, const float*, float*, int64_t, int64_t, bool);

template <int V>
inline ProductBlock product_block_of(int64_t rows) {
  switch (rows) {
    case 1: return product_block<1, V>;
    case 2: return product_block<2, V>;
    case 3: return product_block<3, V>;
#if TWOFOLD_LANES == 16
    case 4: return product_block<4, V>;
    case 5: return product_block<5, V>;
    default: return product_block<6, V>;
#else
    default: return product_block<4, V>;
#endif
  }
}

// One block of columns of one panel, for all rows; y points at column 0 of the block.
inline void panel_product(const Panels& p, int64_t panel, int64_t block, const float* packed, int64_t rows, const float* x, int64_t x_step,
    float* y, int64_t y_step, bool fresh) {
  const int64_t first = p.first(panel), vectors = p.first(panel + 1) - first, left = p.units - (first + vectors - 1) * Vector::lanes;
  const float* b = packed + (first * p.blocks + vectors * block) * Vector::lanes * p.cells;
  const int64_t blocks = (rows + kHigh - 1) / kHigh;
  y += first * Vector::lanes;
  for (int64_t n = 0; n < blocks; ++n) {
    const int64_t row = n * rows / blocks, count = (n + 1) * rows / blocks - row;
    ProductBlock product;
    switch (vectors) {
      case 1: product = product_block_of<1>(count); break;
      case 2: product = product_block_of<2>(count); break;
#if TWOFOLD_LANES == 16
      case 3: product = product_block_of<3>(count); break;
      default: product = product_block_of<4>(count); break;
#else
      default: __builtin_unreachable();
#endif
    }
    product(p.cells, x + row * x_step, x_step, b, y + row * y_step, y_step, smaller(left, Vector::lanes), fresh);
  }
}

void packed_product(const Panels& p, const float* packed, int64_t rows, const float* x, int64_t x_step, float* y, int64_t y_step, bool fresh) {
  for (int64_t panel = 0; panel < p.count; ++panel) {
    for (int64_t block = 0; block < p.blocks; ++block) {
      panel_product(p, panel, block, packed, rows, x, x_step, y + block * p.units, y_step, fresh);
    }
  }
}

// y[r, column] += sum_k x[r, k] weight[column, k] for columns [first, last): weights as they lie, read once.
inline void direct_product(const float* weight, int64_t inner, int64_t first, int64_t last, int64_t rows, const float* x, int64_t x_step, float* y,
    int64_t y_step) {
  constexpr int kStreams = 4;
  for (int64_t column = first; column < last; column += kStreams) {
    const int64_t streams = smaller(kStreams, last - column);
    for (int64_t r = 0; r < rows; ++r) {
      const float *from = x + r * x_step, *w[kStreams];
      for (int64_t s = 0; s < kStreams; ++s) w[s] = weight + (column + (s < streams ? s : 0)) * inner;
      Vector sum[kStreams][2];
      TWOFOLD_UNROLL
      for (int s = 0; s < kStreams; ++s) sum[s][0] = sum[s][1] = Vector::zero();
      int64_t k = 0;
      for (; k + 2 * Vector::lanes <= inner; k += 2 * Vector::lanes) {
        const Vector a = Vector::load(from + k), b = Vector::load(from + k + Vector::lanes);
        TWOFOLD_UNROLL
        for (int s = 0; s < kStreams; ++s) {
          sum[s][0].add_product(a, Vector::load(w[s] + k));
          sum[s][1].add_product(b, Vector::load(w[s] + k + Vector::lanes));
        }
      }
      for (; k < inner; k += Vector::lanes) {
        const Vector a = Vector::load(from + k, inner - k);
        TWOFOLD_UNROLL
        for (int s = 0; s < kStreams; ++s) sum[s][0].add_product(a, Vector::load(w[s] + k, inner - k));
      }
      for (int64_t s = 0; s < streams; ++s) y[r * y_step + column + s] += (sum[s][0] + sum[s][1]).sum();
    }
  }
}

// n of the numbers of v as cells, from number u of a row on; u is a multiple of the lanes.
inline void store_cells(Floats v, float* row, int64_t u, int64_t n) {
#if TWOFOLD_DEEP == 2
  uint16_t* to = reinterpret_cast<uint16_t*>(row) + u;
  _mm256_mask_storeu_epi16(to, first_lanes(n), (__m256i)_mm512_cvtneps_pbh(v));  // what follows belongs to others
#else
  if (n >= kLanes) store(row + u, v);
  else store_first(row + u, v, n);
#endif
}

void as_cells(int64_t rows, int64_t width, const float* x, int64_t x_step, const float* factor, float* cells, int64_t cells_step) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t u = 0; u < width; u += kLanes) {
      const Floats v = load_most(x + r * x_step + u, width - u);
      store_cells(factor ? v * load_most(factor + r * width + u, width - u) : v, cells + r * cells_step, u, width - u);
    }
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
