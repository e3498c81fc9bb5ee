// Maps turned around: from filter by filter to window by window and back, so that lanes can run over the filters.

namespace twofold {
namespace TWOFOLD_SET {

// A tile of registers: so many vectors of filters by so many windows, or taps where their gradient is summed.
constexpr int64_t kFilterVectors = 2, kTileWindows = Vector::registers == 32 ? 14 : 6, kTileTaps = Vector::registers == 32 ? 12 : 5;

// [window][filters] -> [filter][windows], maps y_step apart
inline void to_maps(const float* from, int64_t filters, int64_t windows, int64_t real_filters, float* y, int64_t y_step) {
  constexpr int64_t L = Vector::lanes;
  float square[L * L];
  for (int64_t f = 0; f < real_filters; f += L) {
    for (int64_t n = 0; n < windows; n += L) {
      if (f + L <= real_filters && n + L <= windows) {
        transpose(from + n * filters + f, filters, y + f * y_step + n, y_step);
        continue;
      }
      transpose(from + n * filters + f, filters, square, L);  // there is room beyond the last window
      for (int64_t i = 0; i < smaller(L, real_filters - f); ++i) {
        Vector::load(square + i * L).store(y + (f + i) * y_step + n, smaller(L, windows - n));
      }
    }
  }
}

// [filter][windows], maps dy_step apart -> [window][filters], 0 in the filters that are none
inline void from_maps(const float* dy, int64_t dy_step, int64_t windows, int64_t real_filters, int64_t filters, float* to) {
  constexpr int64_t L = Vector::lanes;
  float square[L * L];
  for (int64_t f = 0; f < filters; f += L) {
    for (int64_t n = 0; n < windows; n += L) {
      if (f + L <= real_filters && n + L <= windows) {
        transpose(dy + f * dy_step + n, dy_step, to + n * filters + f, filters);
        continue;
      }
      fill_zero(square, L * L);
      for (int64_t i = 0; i < smaller(L, real_filters - f); ++i) {
        Vector::load(dy + (f + i) * dy_step + n, smaller(L, windows - n)).store(square + i * L);
      }
      transpose(square, L, to + n * filters + f, filters);  // there is room beyond the last window
    }
  }
}

inline float sum_of(const float* from, int64_t count) {
  Vector sum = Vector::zero();
  for (int64_t n = 0; n < count; n += Vector::lanes) sum = sum + Vector::load(from + n, count - n);
  return sum.sum();
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
