// Numbers in memory as vectors of float: float as it is, bfloat16 widened and, when it is put back, rounded to the nearest (to even).
// No more than the first n are touched.

namespace twofold {
namespace TWOFOLD_SET {

inline Vector fetch(const float* p, int64_t n) { return n >= Vector::lanes ? Vector::load(p) : Vector::load(p, n); }
inline void put(Vector v, float* p, int64_t n) { n >= Vector::lanes ? v.store(p) : v.store(p, n); }

#if TWOFOLD_LANES == 16
inline Vector fetch(const Half* p, int64_t n) {
  const __m256i bits = n >= 16 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)) : _mm256_maskz_loadu_epi16(Vector::mask(n), p);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
inline void put(Vector v, Half* p, int64_t n) {
  const __m512i bits = _mm512_castps_si512(v.value), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(v.value, v.value, _CMP_UNORD_Q);
  const __m512i right = _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
  const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(right, 16));
  if (n >= 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  } else {
    _mm256_mask_storeu_epi16(p, Vector::mask(n), half);
  }
}
#else
inline float widened(Half h) {
  const uint32_t bits = static_cast<uint32_t>(h.bits) << 16;
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
inline Half rounded(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  const uint32_t right = x != x ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
  return {static_cast<uint16_t>(right >> 16)};
}
inline Vector fetch(const Half* p, int64_t n) {
  float wide[TWOFOLD_LANES] = {};
  for (int64_t l = 0; l < TWOFOLD_LANES; ++l) {
    if (l < n) wide[l] = widened(p[l]);
  }
  return Vector::load(wide);
}
inline void put(Vector v, Half* p, int64_t n) {
  float wide[TWOFOLD_LANES];
  v.store(wide);
  for (int64_t l = 0; l < TWOFOLD_LANES; ++l) {
    if (l < n) p[l] = rounded(wide[l]);
  }
}
#endif

// work(n, left) for every vector of a row of numbers; `left` is a constant in all but the last.
template <class Work>
inline void each_vector(int64_t size, Work work) {
  int64_t n = 0;
  for (; n + Vector::lanes <= size; n += Vector::lanes) work(n, int64_t{Vector::lanes});
  if (n < size) work(n, size - n);
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
