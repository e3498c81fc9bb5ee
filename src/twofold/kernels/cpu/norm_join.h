// Batch normalisation, a shortcut added to it, and ReLU (layers/joined_norm.py says the law).
//
//   y = relu(slope (x - mean) + shift + shortcut)         d = dy where the ReLU let y through, which is the shortcut's gradient
//   dx = slope (d - sum d / M - (x - mean) rate^2 sum d (x - mean) / M)
//
// Channels first: one channel at a time, whose maps stay in the second cache from the first pass to the last. Channels last: pieces of so
// many rows as stay there; the sums of a piece are float32, those over pieces double (bind_norm_join.cpp).

namespace twofold {
namespace TWOFOLD_SET {
namespace norm_join {

template <class T>
inline void forward_map(int64_t size, const T* x, const T* shortcut, const Affine& affine, bool relu, T* y) {
  const Vector minus = Vector::every(-affine.mean), slope = Vector::every(affine.slope), shift = Vector::every(affine.shift);
  each_vector(size, [&](int64_t n, int64_t left) {
    Vector value = shift;
    value.add_product(fetch(x + n, left) + minus, slope);
    if (shortcut) value = value + fetch(shortcut + n, left);
    put(relu ? value.positive() : value, y + n, left);
  });
}

template <class T>
void forward(const Channel& channel, const T* x, const T* shortcut, const Affine& affine, bool relu, T* y) {
  for (int64_t g = 0; g < channel.images; ++g) {
    const int64_t at = g * channel.apart;
    forward_map(channel.size, x + at, shortcut ? shortcut + at : nullptr, affine, relu, y + at);
  }
}

template <class T>
void gate(const Channel& channel, const T* x, const T* y, const T* dy, float mean, T* d, double* sums) {
  const Vector minus = Vector::every(-mean);
  double even = 0;
  Sum along;
  for (int64_t g = 0; g < channel.images; ++g) {
    const int64_t at = g * channel.apart;
    Vector part = Vector::zero();
    along.add(channel.size, [&](int64_t n, int64_t left) {
      Vector grad = fetch(dy + at + n, left);
      if (y) {
        grad = grad.where_positive(fetch(y + at + n, left));
        put(grad, d + at + n, left);
      }
      part = part + grad;
      return grad * (fetch(x + at + n, left) + minus).first(left);
    });
    even += static_cast<double>(part.sum());
  }
  sums[0] = even;
  sums[1] = along.total();
}

template <class T>
void backward(const Channel& channel, const T* x, const T* d, const Affine& affine, float even, float along, T* dx) {
  const Vector minus = Vector::every(-affine.mean), slope = Vector::every(affine.slope);
  const Vector less = Vector::every(-affine.slope * even), back = Vector::every(-affine.slope * along);
  for (int64_t g = 0; g < channel.images; ++g) {
    const int64_t at = g * channel.apart;
    each_vector(channel.size, [&](int64_t n, int64_t left) {
      Vector value = less;
      value.add_product(fetch(d + at + n, left), slope);
      value.add_product(fetch(x + at + n, left) + minus, back);
      put(value, dx + at + n, left);
    });
  }
}

template <class T>
void row_moments(int64_t rows, int64_t channels, const T* x, float* mean, float* square) {
  const Vector share = Vector::every(1.0f / static_cast<float>(rows));
  each_vector(channels, [&](int64_t c, int64_t left) {
    put(Vector::zero(), mean + c, left);
    put(Vector::zero(), square + c, left);
  });
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T* row = x + r * channels;
    each_vector(channels, [&](int64_t c, int64_t left) {
      const Vector upper = fetch(row + c, left) + fetch(row + channels + c, left);
      const Vector lower = fetch(row + 2 * channels + c, left) + fetch(row + 3 * channels + c, left);
      put(fetch(mean + c, left) + (upper + lower), mean + c, left);
    });
  }
  for (; r < rows; ++r) {
    each_vector(channels, [&](int64_t c, int64_t left) { put(fetch(mean + c, left) + fetch(x + r * channels + c, left), mean + c, left); });
  }
  each_vector(channels, [&](int64_t c, int64_t left) { put(fetch(mean + c, left) * share, mean + c, left); });
  const auto away = [&](int64_t row, int64_t c, int64_t left, Vector sum) {
    const Vector distance = fetch(x + row * channels + c, left) - fetch(mean + c, left);
    sum.add_product(distance, distance);
    return sum;
  };
  for (r = 0; r + 2 <= rows; r += 2) {
    each_vector(channels, [&](int64_t c, int64_t left) {
      put(away(r + 1, c, left, away(r, c, left, fetch(square + c, left))), square + c, left);
    });
  }
  if (r < rows) each_vector(channels, [&](int64_t c, int64_t left) { put(away(r, c, left, fetch(square + c, left)), square + c, left); });
}

template <class T>
void row_forward(int64_t rows, int64_t channels, const T* x, const T* shortcut, const Affines& affine, bool relu, T* y) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    each_vector(channels, [&](int64_t c, int64_t left) {
      Vector value = fetch(affine.shift + c, left);
      value.add_product(fetch(x + at + c, left) - fetch(affine.mean + c, left), fetch(affine.slope + c, left));
      if (shortcut) value = value + fetch(shortcut + at + c, left);
      put(relu ? value.positive() : value, y + at + c, left);
    });
  }
}

template <class T>
void row_gate(int64_t rows, int64_t channels, const T* x, const T* y, const T* dy, const float* mean, T* d, float* even, float* along) {
  each_vector(channels, [&](int64_t c, int64_t left) {
    put(Vector::zero(), even + c, left);
    put(Vector::zero(), along + c, left);
  });
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    each_vector(channels, [&](int64_t c, int64_t left) {
      Vector grad = fetch(dy + at + c, left);
      if (y) {
        grad = grad.where_positive(fetch(y + at + c, left));
        put(grad, d + at + c, left);
      }
      put(fetch(even + c, left) + grad, even + c, left);
      Vector sum = fetch(along + c, left);
      sum.add_product(grad, fetch(x + at + c, left) - fetch(mean + c, left));
      put(sum, along + c, left);
    });
  }
}

template <class T>
void row_backward(int64_t rows, int64_t channels, const T* x, const T* d, const Affines& affine, const float* even, const float* along, T* dx) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * channels;
    each_vector(channels, [&](int64_t c, int64_t left) {
      const Vector away = fetch(x + at + c, left) - fetch(affine.mean + c, left);
      const Vector rest = fetch(d + at + c, left) - fetch(even + c, left) - away * fetch(along + c, left);
      put(rest * fetch(affine.slope + c, left), dx + at + c, left);
    });
  }
}

}  // namespace norm_join

template <class T>
inline constexpr NormJoinKernels<T> norm_join_kernels{moments<T>, norm_join::forward<T>, norm_join::gate<T>, norm_join::backward<T>,
    norm_join::row_moments<T>, norm_join::row_forward<T>, norm_join::row_gate<T>, norm_join::row_backward<T>};

}  // namespace TWOFOLD_SET
}  // namespace twofold
