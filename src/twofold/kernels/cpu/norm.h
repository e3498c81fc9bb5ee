// Batch normalisation of one channel at a time, with ReLU and max pooling behind it where they follow (space/fused.py says the law).
//
//   y = rate scale (x - mean) + shift        d = dy where the ReLU let y through
//   dx = rate scale (d - sum d / M - (x - mean) rate^2 sum d (x - mean) / M)
//
// A channel's maps lie `apart` from image to image. Sums of a map are taken in float32 lanes, sums over maps in double.

namespace twofold {
namespace TWOFOLD_SET {

// A sum over maps, in lanes for so many terms as float32 bears, in double beyond: maps may be as small as a vector.
struct Sum {
  static constexpr int64_t bearable = 4096;  // the error of a float32 sum grows with its length
  Vector part[4] = {Vector::zero(), Vector::zero(), Vector::zero(), Vector::zero()};
  double settled = 0;
  int64_t terms = 0;

  void settle() {
    settled += static_cast<double>(((part[0] + part[1]) + (part[2] + part[3])).sum());
    for (Vector& p : part) p = Vector::zero();
    terms = 0;
  }
  template <class Term>
  void add(int64_t size, Term term) {
    for (int64_t begin = 0; begin < size; begin += bearable) {
      const int64_t end = smaller(size, begin + bearable);
      if (terms + end - begin > bearable) settle();
      terms += end - begin;
      int64_t n = begin;
      for (; n + 4 * Vector::lanes <= end; n += 4 * Vector::lanes) {
        TWOFOLD_UNROLL
        for (int v = 0; v < 4; ++v) part[v] = part[v] + term(n + v * Vector::lanes, int64_t{Vector::lanes});
      }
      for (; n < end; n += Vector::lanes) part[0] = part[0] + term(n, end - n);
    }
  }
  double total() {
    settle();
    return settled;
  }
};

template <class T>
void moments(const Channel& channel, const T* x, double* mean, double* variance) {
  Sum values, squares;
  for (int64_t g = 0; g < channel.images; ++g) {
    const T* map = x + g * channel.apart;
    values.add(channel.size, [&](int64_t n, int64_t left) { return fetch(map + n, left); });
  }
  const double centre = values.total() / channel.count();
  const Vector minus = Vector::every(static_cast<float>(-centre));
  for (int64_t g = 0; g < channel.images; ++g) {
    const T* map = x + g * channel.apart;
    squares.add(channel.size, [&](int64_t n, int64_t left) {
      const Vector away = (fetch(map + n, left) + minus).first(left);
      return away * away;
    });
  }
  const double rest = centre - static_cast<double>(static_cast<float>(centre));  // what float32 rounds off the mean
  *mean = centre;
  *variance = squares.total() / channel.count() - rest * rest;
}

// to = slope (x - mean) + shift, and ReLU
inline void normalise_map(const float* x, int64_t size, float mean, float slope, float shift, bool relu, float* to) {
  const Vector minus = Vector::every(-mean), rate = Vector::every(slope), base = Vector::every(shift);
  for (int64_t n = 0; n < size; n += Vector::lanes) {
    Vector y = base;
    y.add_product(Vector::load(x + n, size - n) + minus, rate);
    (relu ? y.positive() : y).store(to + n, size - n);
  }
}

// The channel's maps normalised; through `pool` where there is one (`map` holds one map then).
void normalise(const Channel& channel, const float* x, float mean, float slope, float shift, bool relu, const Window* pool, float* y,
    int64_t y_apart, uint8_t* winner, float* map) {
  for (int64_t g = 0; g < channel.images; ++g) {
    if (!pool) {
      normalise_map(x + g * channel.apart, channel.size, mean, slope, shift, relu, y + g * y_apart);
      continue;
    }
    normalise_map(x + g * channel.apart, channel.size, mean, slope, shift, relu, map);
    max_pool(*pool, 1, map, y + g * y_apart, winner ? winner + g * y_apart : nullptr, winner ? 1 : 0);
  }
}

// d of every map, written to dx; sums[0] = sum d, sums[1] = sum d (x - mean). `row` holds one pooled map.
void through_relu(const Channel& channel, const float* x, float mean, float slope, float shift, bool relu, const Window* pool,
    const int64_t* offset, const float* dy, const float* y, const uint8_t* winner, int64_t y_apart, float* dx, float* row, double* sums) {
  const Vector minus = Vector::every(-mean), rate = Vector::every(slope), base = Vector::every(shift);
  Sum even, along;
  for (int64_t g = 0; g < channel.images; ++g) {
    const float *map = x + g * channel.apart, *d = dy + g * y_apart;
    float* to = dx + g * channel.apart;
    if (pool) {
      const int64_t outputs = pool->P * pool->Q;
      if (relu) {  // the winner's value is y: what the ReLU stopped, y = 0, passes nothing back
        where_positive(y + g * y_apart, d, row, outputs);
        d = row;
      }
      max_pool_backward(*pool, 1, d, winner + g * y_apart, 1, offset, to);
    } else {
      for (int64_t n = 0; n < channel.size; n += Vector::lanes) {
        const int64_t left = channel.size - n;
        Vector value = base;
        value.add_product(Vector::load(map + n, left) + minus, rate);
        const Vector grad = Vector::load(d + n, left);
        (relu ? grad.where_positive(value) : grad).store(to + n, left);
      }
    }
    even.add(channel.size, [&](int64_t n, int64_t left) { return Vector::load(to + n, left); });
    along.add(channel.size, [&](int64_t n, int64_t left) { return Vector::load(to + n, left) * (Vector::load(map + n, left) + minus); });
  }
  sums[0] = even.total();
  sums[1] = along.total();
}

// dx holds d and becomes slope (d - even - along (x - mean))
void through_norm(const Channel& channel, const float* x, float mean, float slope, float even, float along, float* dx) {
  const Vector minus = Vector::every(-mean), rate = Vector::every(slope), minus_even = Vector::every(-even), back = Vector::every(-along);
  for (int64_t g = 0; g < channel.images; ++g) {
    const float* map = x + g * channel.apart;
    float* to = dx + g * channel.apart;
    for (int64_t n = 0; n < channel.size; n += Vector::lanes) {
      const int64_t left = channel.size - n;
      Vector d = Vector::load(to + n, left) + minus_even;
      d.add_product(Vector::load(map + n, left) + minus, back);
      (d * rate).store(to + n, left);
    }
  }
}

inline constexpr NormKernels norm_kernels{moments<float>, normalise, through_relu, through_norm};

}  // namespace TWOFOLD_SET
}  // namespace twofold
