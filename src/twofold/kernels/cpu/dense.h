// Few rows through a linear layer: R rows, D features in, U out. General matrix products spend more time on preparing such small work
// than on doing it.
//
//   forward    y[r,u] = sum_d x[r,d] W[u,d] + bias[u], perhaps through ReLU
//   backward   dx[r,d] = sum_u dy[r,u] W[u,d]        dW[u,d] = sum_r dy[r,u] x[r,d]        dbias[u] = sum_r dy[r,u]
//
// Forward holds a square of sums, lanes over D. Both gradients are C = A B, lanes along the rows of B and C, numbers of A spread.
// Compiled once per instruction set, in the namespace TWOFOLD_SET.

namespace twofold {
namespace TWOFOLD_SET {

constexpr int kSide = Vector::registers == 32 ? 4 : 2;  // a square of so many rows and outputs is summed at once

template <int R, int U>
inline void dots(int64_t D, const float* x, const float* weight, int64_t units, const float* bias, bool relu, float* y) {
  Vector sum[R][U];
  for (int r = 0; r < R; ++r) {
    for (int u = 0; u < U; ++u) sum[r][u] = Vector::zero();
  }
  const auto add = [&](int64_t d, int64_t left) {
    Vector w[U];
    TWOFOLD_UNROLL
    for (int u = 0; u < U; ++u) w[u] = left < Vector::lanes ? Vector::load(weight + u * D + d, left) : Vector::load(weight + u * D + d);
    TWOFOLD_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vector v = left < Vector::lanes ? Vector::load(x + r * D + d, left) : Vector::load(x + r * D + d);
      TWOFOLD_UNROLL
      for (int u = 0; u < U; ++u) sum[r][u].add_product(v, w[u]);
    }
  };
  int64_t d = 0;
  for (; d + Vector::lanes <= D; d += Vector::lanes) add(d, Vector::lanes);
  if (d < D) add(d, D - d);
  for (int r = 0; r < R; ++r) {
    for (int u = 0; u < U; ++u) {
      const float a = sum[r][u].sum() + (bias ? bias[u] : 0.0f);
      y[r * units + u] = relu && a <= 0.0f ? 0.0f : a;  // NaN stays
    }
  }
}

template <int U>
inline void outputs(int64_t rows, int64_t D, int64_t units, const float* x, const float* weight, const float* bias, bool relu, float* y) {
  int64_t r = 0;
  for (; r + kSide <= rows; r += kSide) dots<kSide, U>(D, x + r * D, weight, units, bias, relu, y + r * units);
  for (; r < rows; ++r) dots<1, U>(D, x + r * D, weight, units, bias, relu, y + r * units);
}

void dense(int64_t rows, int64_t D, int64_t units, const float* x, const float* weight, const float* bias, bool relu, float* y) {
  int64_t u = 0;
  for (; u + kSide <= units; u += kSide) outputs<kSide>(rows, D, units, x, weight + u * D, bias ? bias + u : nullptr, relu, y + u);
  for (; u < units; ++u) outputs<1>(rows, D, units, x, weight + u * D, bias ? bias + u : nullptr, relu, y + u);
}

// A[m,k] lies at a[m a_row + k a_step].
struct Spread {
  const float* at;
  int64_t row, step;
};

// M rows of C, whole vectors but the last, which holds `left` numbers where it is not whole.
template <int M, int V>
inline void product_block(int64_t K, Spread a, const float* b, int64_t width, int64_t left, float* c) {
  Vector sum[M][V];
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < V; ++v) sum[m][v] = Vector::zero();
  }
  for (int64_t k = 0; k < K; ++k) {
    Vector row[V];
    TWOFOLD_UNROLL
    for (int v = 0; v < V; ++v) {
      const float* from = b + k * width + v * Vector::lanes;
      row[v] = v == V - 1 && left < Vector::lanes ? Vector::load(from, left) : Vector::load(from);
    }
    TWOFOLD_UNROLL
    for (int m = 0; m < M; ++m) {
      const Vector spread = Vector::every(a.at[m * a.row + k * a.step]);
      TWOFOLD_UNROLL
      for (int v = 0; v < V; ++v) sum[m][v].add_product(spread, row[v]);
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < V; ++v) {
      float* to = c + m * width + v * Vector::lanes;
      if (v == V - 1 && left < Vector::lanes) sum[m][v].store(to, left);
      else sum[m][v].store(to);
    }
  }
}

template <int V>
inline void product_columns(int64_t M, int64_t N, int64_t K, Spread a, const float* b, int64_t left, float* c) {
  constexpr int tall = Vector::registers == 32 ? 8 : 4;
  int64_t m = 0;
  for (; m + tall <= M; m += tall) product_block<tall, V>(K, {a.at + m * a.row, a.row, a.step}, b, N, left, c + m * N);
  for (; m < M; ++m) product_block<1, V>(K, {a.at + m * a.row, a.row, a.step}, b, N, left, c + m * N);
}

// C[m,n] = sum_k A[m,k] B[k,n]
inline void product(int64_t M, int64_t N, int64_t K, Spread a, const float* b, float* c) {
  int64_t n = 0;
  for (; n + 2 * Vector::lanes <= N; n += 2 * Vector::lanes) product_columns<2>(M, N, K, a, b + n, Vector::lanes, c + n);
  for (; n < N; n += Vector::lanes) product_columns<1>(M, N, K, a, b + n, smaller(Vector::lanes, N - n), c + n);
}

// Each of dx, dweight, dbias may be null: it is not wanted then.
void dense_backward(int64_t rows, int64_t D, int64_t units, const float* dy, const float* x, const float* weight, float* dx, float* dweight,
    float* dbias) {
  if (dx) product(rows, D, units, {dy, units, 1}, weight, dx);
  if (dweight) product(units, D, rows, {dy, 1, units}, x, dweight);
  for (int64_t u = 0; dbias && u < units; ++u) {
    float sum = 0.0f;
    for (int64_t r = 0; r < rows; ++r) sum += dy[r * units + u];
    dbias[u] = sum;
  }
}

const DenseKernels dense_kernels{dense, dense_backward};

}  // namespace TWOFOLD_SET
}  // namespace twofold
