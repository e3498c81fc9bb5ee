// The gradient of weights: C[m, n] += sum_k A[k, m] B[k, n] over many rows k.
//
// B is packed for panels of columns, A for tiles of a few of its columns, K rows at a time, so that both stay in the caches while k runs.
// With TWOFOLD_DEEP 2 a cell is a pair of rows, rounded. Compiled once per instruction set, in the namespace TWOFOLD_SET.

namespace twofold {
namespace TWOFOLD_SET {

constexpr int64_t kOuterRows = 256;  // rows at a time

inline Panels outer_panels(int64_t rows, int64_t columns) { return panels_of(1, rows, 1, columns); }

// The scratch of `outer` in floats.
int64_t outer_scratch(int64_t columns) {
  const Panels p = outer_panels(kOuterRows, columns);
  return packed_size(p) + kHigh * p.cells;
}

// Rows [0, rows) of `from` as panels of cells.
inline void pack_rows(const Panels& p, const float* from, int64_t step, float* packed) {
  for (int64_t panel = 0; panel < p.count; ++panel) {
    const int64_t first = p.first(panel) * Vector::lanes, width = p.first(panel + 1) * Vector::lanes - first;
    for (int64_t cell = 0; cell < p.cells; ++cell, packed += width) {
      const float* row = from + cell * kInCell * step + first;
      for (int64_t v = 0; v < width; v += kLanes) {
        const int64_t left = p.units - first - v;
#if TWOFOLD_DEEP == 2
        const Floats second = 2 * cell + 1 < p.inner ? load_most(row + step + v, left) : Floats{};
        store_pairs(Vector{load_most(row + v, left)}, Vector{second}, packed + v);
#else
        store(packed + v, load_most(row + v, left));
#endif
      }
    }
  }
}

// Columns [m, m + count) of A as [cell][kHigh].
inline void pack_columns(int64_t rows, const float* a, int64_t step, int64_t count, float* packed) {
  for (int64_t k = 0; k < rows; k += kInCell, a += kInCell * step, packed += kHigh) {
    for (int64_t m = 0; m < count; ++m) {
#if TWOFOLD_DEEP == 2
      const uint16_t pair[2] = {rounded(a[m]), k + 1 < rows ? rounded(a[step + m]) : uint16_t{0}};
      __builtin_memcpy(packed + m, pair, 4);
#else
      packed[m] = a[m];
#endif
    }
  }
}

template <int R, int V>
void outer_block(int64_t cells, const float* a, const float* b, float* c, int64_t c_step, int64_t left, bool fresh) {
  Vector sum[R][V];
  TWOFOLD_UNROLL
  for (int r = 0; r < R; ++r) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      const float* from = c + r * c_step + v * Vector::lanes;
      sum[r][v] = fresh ? Vector::zero() : v == V - 1 ? Vector::load(from, left) : Vector::load(from);
    }
  }
  for (int64_t k = 0; k < cells; ++k, a += kHigh, b += V * Vector::lanes) {
    Vector w[V];
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) w[v] = Vector::load(b + v * Vector::lanes);
    TWOFOLD_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vector spread = Vector::every(a[r]);
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) add_product_of_cells(sum[r][v], spread, w[v]);
    }
  }
  TWOFOLD_UNROLL
  for (int r = 0; r < R; ++r) {
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      float* to = c + r * c_step + v * Vector::lanes;
      if (v == V - 1 && left < Vector::lanes) sum[r][v].store(to, left);
      else sum[r][v].store(to);
    }
  }
}

using OuterBlock = void (*)(int64_t, const float*, const float*, float*, int64_t, int64_t, bool);

template <int V>
inline OuterBlock outer_block_of(int64_t rows) {
  switch (rows) {
    case 1: return outer_block<1, V>;
    case 2: return outer_block<2, V>;
    case 3: return outer_block<3, V>;
#if TWOFOLD_LANES == 16
    case 4: return outer_block<4, V>;
    case 5: return outer_block<5, V>;
    default: return outer_block<6, V>;
#else
    default: return outer_block<4, V>;
#endif
  }
}

// C[m, n] for m in [begin, end); `fresh`: C holds nothing yet.
void outer(int64_t rows, const float* a, int64_t a_step, int64_t begin, int64_t end, const float* b, int64_t b_step, int64_t columns, float* c,
    bool fresh, float* scratch) {
  for (int64_t from = 0; from < rows; from += kOuterRows, fresh = false) {
    const int64_t count = smaller(kOuterRows, rows - from);
    const Panels p = outer_panels(count, columns);
    float* tile = scratch + packed_size(p);
    pack_rows(p, b + from * b_step, b_step, scratch);
    for (int64_t m = begin; m < end; m += kHigh) {
      const int64_t high = smaller(kHigh, end - m);
      pack_columns(count, a + from * a_step + m, a_step, high, tile);
      const float* panel_at = scratch;
      for (int64_t panel = 0; panel < p.count; ++panel) {
        const int64_t first = p.first(panel), vectors = p.first(panel + 1) - first;
        const int64_t left = smaller(columns - (first + vectors - 1) * Vector::lanes, Vector::lanes);
        OuterBlock block;
        switch (vectors) {
          case 1: block = outer_block_of<1>(high); break;
          case 2: block = outer_block_of<2>(high); break;
#if TWOFOLD_LANES == 16
          case 3: block = outer_block_of<3>(high); break;
          default: block = outer_block_of<4>(high); break;
#else
          default: __builtin_unreachable();
#endif
        }
        block(p.cells, tile, panel_at, c + m * columns + first * Vector::lanes, columns, left, fresh);
        panel_at += p.cells * vectors * Vector::lanes;
      }
    }
  }
}

// to[m] += sum_k a[k, m] for m in [begin, end)
void add_up(int64_t rows, const float* a, int64_t a_step, int64_t begin, int64_t end, float* to) {
  for (int64_t m = begin; m < end; m += kLanes) {
    Floats sum = load_most(to + m, end - m);
    for (int64_t k = 0; k < rows; ++k) sum = sum + load_most(a + k * a_step + m, end - m);
    if (end - m >= kLanes) store(to + m, sum);
    else store_first(to + m, sum, end - m);
  }
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
