// LANES floats at once, for arithmetic: load, store, broadcast, multiply-add; the first n lanes alone where fewer are left.
// Compiled once per instruction set, in the namespace TWOFOLD_SET, like lanes.h.

#if defined(__clang__)
#define TWOFOLD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TWOFOLD_UNROLL _Pragma("GCC unroll 32")
#endif

namespace twofold {
namespace TWOFOLD_SET {

#if TWOFOLD_LANES == 16
struct Vector {
  static constexpr int lanes = 16, registers = 32;
  __m512 value;
  static Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vector every(float x) { return {_mm512_set1_ps(x)}; }
  // p[0], p[2], ... p[30]; 0 for what is not in begin..end
  static Vector second(const float* p, int64_t begin, int64_t end) {
    const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
    return {_mm512_permutex2var_ps(load(p, begin, end).value, at, load(p + 15, begin - 15, end - 15).value)};
  }
  static Vector zero() { return {_mm512_setzero_ps()}; }
  void store(float* p) const { _mm512_storeu_ps(p, value); }
  void store(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, mask(n), value); }
  static Vector load(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  static Vector load(const float* p, int64_t begin, int64_t end) { return {_mm512_maskz_loadu_ps(mask(end) & ~mask(begin), p)}; }
  static Vector load_where(const float* p, uint32_t bits) { return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(bits), p)}; }
  static __mmask16 mask(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }
  void add_product(Vector a, Vector b) { value = _mm512_fmadd_ps(a.value, b.value, value); }
  Vector operator+(Vector other) const { return {_mm512_add_ps(value, other.value)}; }
  Vector operator-(Vector other) const { return {_mm512_sub_ps(value, other.value)}; }
  Vector operator*(Vector other) const { return {_mm512_mul_ps(value, other.value)}; }
  Vector positive() const { return {_mm512_max_ps(_mm512_setzero_ps(), value)}; }  // the second operand, where one is NaN
  Vector where_positive(Vector y) const { return {_mm512_maskz_mov_ps(~_mm512_cmp_ps_mask(y.value, _mm512_setzero_ps(), _CMP_LE_OS), value)}; }
  Vector first(int64_t n) const { return {_mm512_maskz_mov_ps(mask(n), value)}; }  // 0 beyond the first n
  float sum() const { return _mm512_reduce_add_ps(value); }
};

// A square of numbers, its rows for its columns.
inline void transpose(const float* from, int64_t from_step, float* to, int64_t to_step) {
  __m512 r[16], s[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * from_step);
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int h = 0; h < 2; ++h) {
      r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(s[i + h]), _mm512_castps_pd(s[i + 2 + h])));
      r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(s[i + h]), _mm512_castps_pd(s[i + 2 + h])));
    }
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    _mm512_storeu_ps(to + i * to_step, _mm512_shuffle_f32x4(a, c, 0x88));
    _mm512_storeu_ps(to + (i + 4) * to_step, _mm512_shuffle_f32x4(b, d, 0x88));
    _mm512_storeu_ps(to + (i + 8) * to_step, _mm512_shuffle_f32x4(a, c, 0xdd));
    _mm512_storeu_ps(to + (i + 12) * to_step, _mm512_shuffle_f32x4(b, d, 0xdd));
  }
}

// Every other number of the first 2 n of a, then of b.
struct Alternate {
  static constexpr bool any = true;  // n may be less than half the lanes
  __m512i first, second;
  explicit Alternate(int64_t n) {
    int32_t at[16];
    for (int32_t l = 0; l < 16; ++l) at[l] = l < n ? 2 * l : 16 | (2 * (l - static_cast<int32_t>(n)) & 15);
    first = _mm512_loadu_si512(at);
    second = _mm512_add_epi32(first, _mm512_set1_epi32(1));
  }
  Vector even(Vector a, Vector b) const { return {_mm512_permutex2var_ps(a.value, first, b.value)}; }
  Vector odd(Vector a, Vector b) const { return {_mm512_permutex2var_ps(a.value, second, b.value)}; }
};
#elif TWOFOLD_LANES == 8
struct Vector {
  static constexpr int lanes = 8, registers = 16;
  __m256 value;
  static Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vector every(float x) { return {_mm256_set1_ps(x)}; }
  // p[0], p[2], ... p[14]; 0 for what is not in begin..end
  static Vector second(const float* p, int64_t begin, int64_t end) {
    const __m256 mixed = _mm256_shuffle_ps(load(p, begin, end).value, load(p + 7, begin - 7, end - 7).value, 0xd8);
    return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8))};
  }
  static Vector zero() { return {_mm256_setzero_ps()}; }
  void store(float* p) const { _mm256_storeu_ps(p, value); }
  void store(float* p, int64_t n) const { _mm256_maskstore_ps(p, mask(n), value); }
  static Vector load(const float* p, int64_t n) { return {_mm256_maskload_ps(p, mask(n))}; }
  static Vector load(const float* p, int64_t begin, int64_t end) {
    return {_mm256_maskload_ps(p, _mm256_andnot_si256(mask(begin), mask(end)))};
  }
  static Vector load_where(const float* p, uint32_t bits) {
    const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), all = _mm256_set1_epi32(static_cast<int>(bits));
    return {_mm256_maskload_ps(p, _mm256_cmpeq_epi32(_mm256_and_si256(all, lane), lane))};
  }
  static __m256i mask(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : n < 0 ? 0 : static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  void add_product(Vector a, Vector b) { value = _mm256_fmadd_ps(a.value, b.value, value); }
  Vector operator+(Vector other) const { return {_mm256_add_ps(value, other.value)}; }
  Vector operator-(Vector other) const { return {_mm256_sub_ps(value, other.value)}; }
  Vector operator*(Vector other) const { return {_mm256_mul_ps(value, other.value)}; }
  Vector positive() const { return {_mm256_max_ps(_mm256_setzero_ps(), value)}; }
  Vector where_positive(Vector y) const { return {_mm256_andnot_ps(_mm256_cmp_ps(y.value, _mm256_setzero_ps(), _CMP_LE_OS), value)}; }
  Vector first(int64_t n) const { return {_mm256_and_ps(value, _mm256_castsi256_ps(mask(n)))}; }
  float sum() const {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
  }
};

struct Alternate {
  static constexpr bool any = false;
  explicit Alternate(int64_t) {}
  static __m256 ordered(__m256 v) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8)); }
  Vector even(Vector a, Vector b) const { return {ordered(_mm256_shuffle_ps(a.value, b.value, 0x88))}; }
  Vector odd(Vector a, Vector b) const { return {ordered(_mm256_shuffle_ps(a.value, b.value, 0xdd))}; }
};
#else
struct Vector {
  static constexpr int lanes = 4, registers = 16;
  float value[4];
  static Vector load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static Vector every(float x) { return {{x, x, x, x}}; }
  static Vector second(const float* p, int64_t begin, int64_t end) {
    Vector v = zero();
    for (int64_t l = 0; l < 4; ++l) {
      if (2 * l >= begin && 2 * l < end) v.value[l] = p[2 * l];
    }
    return v;
  }
  static Vector zero() { return every(0.0f); }
  void store(float* p) const { store(p, 4); }
  void store(float* p, int64_t n) const {
    for (int l = 0; l < 4; ++l) {
      if (l < n) p[l] = value[l];
    }
  }
  static Vector load(const float* p, int64_t n) { return {{n > 0 ? p[0] : 0, n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, n > 3 ? p[3] : 0}}; }
  static Vector load(const float* p, int64_t begin, int64_t end) {
    Vector v = zero();
    for (int64_t l = 0; l < 4; ++l) {
      if (l >= begin && l < end) v.value[l] = p[l];
    }
    return v;
  }
  static Vector load_where(const float* p, uint32_t bits) {
    Vector v = zero();
    for (int l = 0; l < 4; ++l) {
      if (bits >> l & 1) v.value[l] = p[l];
    }
    return v;
  }
  void add_product(Vector a, Vector b) {
    for (int l = 0; l < 4; ++l) value[l] += a.value[l] * b.value[l];
  }
  Vector operator+(Vector other) const {
    return {{value[0] + other.value[0], value[1] + other.value[1], value[2] + other.value[2], value[3] + other.value[3]}};
  }
  Vector operator-(Vector other) const {
    return {{value[0] - other.value[0], value[1] - other.value[1], value[2] - other.value[2], value[3] - other.value[3]}};
  }
  Vector operator*(Vector other) const {
    return {{value[0] * other.value[0], value[1] * other.value[1], value[2] * other.value[2], value[3] * other.value[3]}};
  }
  Vector positive() const {
    Vector y = *this;
    for (int l = 0; l < 4; ++l) y.value[l] = y.value[l] <= 0.0f ? 0.0f : y.value[l];
    return y;
  }
  Vector where_positive(Vector y) const {
    Vector d = *this;
    for (int l = 0; l < 4; ++l) d.value[l] = y.value[l] <= 0.0f ? 0.0f : d.value[l];
    return d;
  }
  Vector first(int64_t n) const { return load(value, 0, n); }
  float sum() const { return (value[0] + value[2]) + (value[1] + value[3]); }
};

struct Alternate {
  static constexpr bool any = false;
  explicit Alternate(int64_t) {}
  Vector even(Vector a, Vector b) const { return {{a.value[0], a.value[2], b.value[0], b.value[2]}}; }
  Vector odd(Vector a, Vector b) const { return {{a.value[1], a.value[3], b.value[1], b.value[3]}}; }
};
#endif

#if TWOFOLD_LANES < 16
inline void transpose(const float* from, int64_t from_step, float* to, int64_t to_step) {
  for (int i = 0; i < TWOFOLD_LANES; ++i) {
    for (int l = 0; l < TWOFOLD_LANES; ++l) to[l * to_step + i] = from[i * from_step + l];
  }
}
#endif

}  // namespace TWOFOLD_SET
}  // namespace twofold
