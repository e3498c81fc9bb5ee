// Convolution of a block of maps, forward and backward (space/convolution.py says the law): frame, products, and back to maps.

namespace twofold {
namespace TWOFOLD_SET {

// Images lie apart by `image`; vectors may run on beyond the last window, by less than a tile.
inline int64_t room_for_windows(const Frame& frame) { return (frame.images - 1) * frame.image + whole_lanes(frame.windows) + kSlack; }
inline int64_t outputs(const Convolution& c, const Frame& frame) { return frame.images * frame.rows * c.Q; }
inline int64_t frame_size(const Convolution& c, const Frame& frame) { return c.C * frame.channel + kSlack; }

// The share of lanes that do work. Lanes along the width load more often the fewer the filters are; lanes over the filters
// have to turn the maps around, which costs the more the fewer the taps are.
bool by_width(const Convolution& c, const Frame& frame, bool gradient) {
  const double filters = static_cast<double>(c.F) / static_cast<double>(whole_lanes(c.F));
  const double columns = static_cast<double>(frame.rows * c.Q) / static_cast<double>(whole_lanes(frame.windows));
  const double loads = c.F >= 4 ? 0.95 : c.F == 3 ? 0.85 : c.F == 2 ? 0.75 : 0.6;
  const double taps = static_cast<double>(c.taps()), turning = taps / (taps + (gradient ? 24 : 4));
  return columns * loads > filters * turning;
}

int64_t packed_size(const Convolution& c) { return whole_lanes(c.F) * (c.taps() + 1); }

void pack(const Convolution& c, const float* weight, const float* bias, bool turned, bool along_width, float* packed) {
  const int64_t filters = along_width ? c.F : whole_lanes(c.F), K = c.kh * c.kw;
  const int64_t most = along_width ? kWidthFilters : kFilterVectors * Vector::lanes;
  for (int64_t f = 0; f < filters;) {
    const int64_t count = along_width ? block_of(f, filters, most) : smaller(most, filters - f), real = smaller(count, c.F - f);
    float* block = packed + f * c.taps();
    if (real < count) fill_zero(block, count * c.taps());
    for (int64_t l = 0; l < real; ++l) {
      for (int64_t channel = 0; channel < c.C; ++channel) {
        float* to = block + channel * K * count + l;
        if (turned) {
          const float* from = weight + (channel * c.F + f + l) * K;
          for (int64_t k = 0; k < K; ++k) to[(K - 1 - k) * count] = from[k];
        } else {
          const float* from = weight + ((f + l) * c.C + channel) * K;
          for (int64_t k = 0; k < K; ++k) to[k * count] = from[k];
        }
      }
    }
    f += count;
  }
  for (int64_t f = 0; f < filters; ++f) packed[filters * c.taps() + f] = bias && f < c.F ? bias[f] : 0.0f;
}

int64_t scratch_size(const Convolution& c, const Frame& frame) {
  const int64_t width = c.F * room_for_windows(frame), filters = whole_lanes(c.F) * (outputs(c, frame) + kSlack);
  return frame_size(c, frame) + larger(width, filters) + 2 * c.taps();
}

void forward(const Convolution& c, const Frame& frame, bool along_width, const float* x, int64_t x_image, const float* packed,
    bool relu, float* y, int64_t y_image, int64_t y_map, float* scratch) {
  int64_t* offset = reinterpret_cast<int64_t*>(scratch);
  float* framed = scratch + 2 * c.taps();
  float* computed = framed + frame_size(c, frame);
  fill_offsets(c, frame, offset);
  fill_frame(c, frame, x, x_image, framed);
  if (along_width) {
    const int64_t step = room_for_windows(frame);
    correlate_by_width(c, frame, framed, offset, packed, relu, computed, step);
    for (int64_t g = 0; g < frame.images; ++g) {
      for (int64_t f = 0; f < c.F; ++f) {
        const float* from = computed + f * step + g * frame.image;
        float* to = y + g * y_image + f * y_map;
        for (int64_t p = 0; p < frame.rows; ++p, from += frame.pitch, to += c.Q) copy(from, to, c.Q);
      }
    }
    return;
  }
  correlate_by_filters(c, frame, framed, offset, packed, relu, computed);
  const int64_t filters = whole_lanes(c.F), windows = frame.rows * c.Q;
  for (int64_t g = 0; g < frame.images; ++g) {
    to_maps(computed + g * windows * filters, filters, windows, c.F, y + g * y_image, y_map);
  }
}

// Per filter and tap (with lanes along the width: per lane), then per filter the bias.
inline int64_t weight_sums(const Convolution& c, bool along_width) {
  return c.taps() * (along_width ? c.F * Vector::lanes : whole_lanes(c.F));
}

int64_t sums_size(const Convolution& c, bool along_width) { return weight_sums(c, along_width) + c.F; }

void weight_gradient(const Convolution& c, const Frame& frame, bool along_width, const float* x, int64_t x_image, const float* dy,
    int64_t dy_image, float* sums, float* scratch) {
  int64_t* offset = reinterpret_cast<int64_t*>(scratch);
  float* framed = scratch + 2 * c.taps();
  float* arranged = framed + frame_size(c, frame);
  fill_offsets(c, frame, offset);
  fill_frame(c, frame, x, x_image, framed);
  const int64_t windows = frame.rows * c.Q, filters = whole_lanes(c.F);
  float* bias_sums = sums + weight_sums(c, along_width);
  for (int64_t g = 0; g < frame.images; ++g) {
    for (int64_t f = 0; f < c.F; ++f) bias_sums[f] += sum_of(dy + g * dy_image + (f * c.P + frame.row) * c.Q, windows);
  }
  if (along_width) {
    const int64_t step = room_for_windows(frame);
    for (int64_t f = 0; f < c.F; ++f) {
      for (int64_t g = 0; g < frame.images; ++g) {
        const float* from = dy + g * dy_image + (f * c.P + frame.row) * c.Q;
        float* to = arranged + f * step + g * frame.image;
        for (int64_t p = 0; p < frame.rows; ++p, from += c.Q, to += frame.pitch) fill_row(from, Seen{0, 1, c.Q, frame.pitch}, to);
        fill_zero(to - frame.pitch + c.Q, Vector::lanes);  // where vectors run on
      }
    }
    weight_sums_by_width(c, frame, framed, offset, arranged, step, sums);
    return;
  }
  for (int64_t g = 0; g < frame.images; ++g) {
    from_maps(dy + g * dy_image + frame.row * c.Q, c.P * c.Q, windows, c.F, filters, arranged + g * windows * filters);
  }
  weight_sums_by_filters(c, frame, framed, offset, arranged, sums);
}

void finish(const Convolution& c, bool along_width, const float* sums, float* dweight, float* dbias) {
  const int64_t taps = c.taps(), filters = whole_lanes(c.F);
  const float* bias_sums = sums + weight_sums(c, along_width);
  for (int64_t f = 0; f < c.F; ++f) {
    for (int64_t t = 0; t < taps; ++t) {
      dweight[f * taps + t] = along_width ? Vector::load(sums + (f * taps + t) * Vector::lanes).sum() : sums[t * filters + f];
    }
    if (dbias) dbias[f] = bias_sums[f];
  }
}

void where_positive(const float* y, const float* d, float* to, int64_t count) {
  for (int64_t n = 0; n < count; n += Vector::lanes) {
    Vector::load(d + n, count - n).where_positive(Vector::load(y + n, count - n)).store(to + n, count - n);
  }
}

inline constexpr ConvolutionKernels convolution_kernels{by_width, packed_size, pack, scratch_size, forward, sums_size,
    weight_gradient, finish, where_positive};

}  // namespace TWOFOLD_SET
}  // namespace twofold
