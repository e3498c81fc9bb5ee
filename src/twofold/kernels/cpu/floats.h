// LANES floats at once, in the compilers' vector types: + - * / < ?: work lane by lane. Below: what those lack.
// Compiled once per instruction set, in the namespace TWOFOLD_SET; no standard header is included here (see lanes.h).

namespace twofold {
namespace TWOFOLD_SET {

template <int N>
struct Pack {
  typedef float Floats __attribute__((vector_size(4 * N)));
  typedef int32_t Ints __attribute__((vector_size(4 * N)));
  typedef uint8_t Bytes __attribute__((vector_size(N)));
};

constexpr int kLanes = TWOFOLD_LANES;
using Floats = Pack<kLanes>::Floats;
using Ints = Pack<kLanes>::Ints;

template <int N = kLanes>
inline typename Pack<N>::Floats load(const float* p) {
  typename Pack<N>::Floats v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
inline void store(float* p, V v) { __builtin_memcpy(p, &v, sizeof v); }

template <int N = kLanes>
inline typename Pack<N>::Floats every(float x) { return x - typename Pack<N>::Floats{}; }

// load_first, store_first: the first n lanes alone; beyond them nothing is read (0 is there) nor written. keep_first: 0 beyond.
// load_every_other: p[0], p[2], ..., n of them, 0 beyond. split: p[0] p[2] ... and p[1] p[3] ... merge: a[0] b[0] a[1] b[1] ...
#if TWOFOLD_LANES == 16
inline __mmask16 first_lanes(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }
inline Floats load_first(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
inline Floats keep_first(Floats v, int64_t n) { return _mm512_maskz_mov_ps(first_lanes(n), v); }
inline void store_first(float* p, Floats v, int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
inline Floats root(Floats v) { return _mm512_sqrt_ps(v); }
inline Floats load_every_other(const float* p, int64_t n) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return _mm512_permutex2var_ps(load_first(p, 2 * n - 1), even, load_first(p + 16, 2 * n - 17));
}
inline void split(const float* p, Floats& even, Floats& odd) {
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
  even = _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
  odd = _mm512_permutex2var_ps(a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}
inline void merge(Floats a, Floats b, Floats& low, Floats& high) {
  low = _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
  high = _mm512_permutex2var_ps(a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
#elif TWOFOLD_LANES == 8
inline __m256i first_lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : n < 0 ? 0 : static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Floats load_first(const float* p, int64_t n) { return _mm256_maskload_ps(p, first_lanes(n)); }
inline Floats keep_first(Floats v, int64_t n) { return _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(n))); }
inline void store_first(float* p, Floats v, int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), v); }
inline Floats root(Floats v) { return _mm256_sqrt_ps(v); }
inline Floats load_every_other(const float* p, int64_t n) {
  const __m256 mixed = _mm256_shuffle_ps(load_first(p, 2 * n - 1), load_first(p + 8, 2 * n - 9), _MM_SHUFFLE(2, 0, 2, 0));
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), _MM_SHUFFLE(3, 1, 2, 0)));
}
inline void split(const float* p, Floats& even, Floats& odd) {
  const __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8);
  const __m256d mixed_even = _mm256_castps_pd(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
  const __m256d mixed_odd = _mm256_castps_pd(_mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
  even = _mm256_castpd_ps(_mm256_permute4x64_pd(mixed_even, _MM_SHUFFLE(3, 1, 2, 0)));
  odd = _mm256_castpd_ps(_mm256_permute4x64_pd(mixed_odd, _MM_SHUFFLE(3, 1, 2, 0)));
}
inline void merge(Floats a, Floats b, Floats& low, Floats& high) {
  const __m256 lower = _mm256_unpacklo_ps(a, b), upper = _mm256_unpackhi_ps(a, b);
  low = _mm256_permute2f128_ps(lower, upper, 0x20);
  high = _mm256_permute2f128_ps(lower, upper, 0x31);
}
#else
inline Floats load_first(const float* p, int64_t n) {
  Floats v{};
  for (int64_t l = 0; l < kLanes && l < n; ++l) v[l] = p[l];
  return v;
}
inline Floats keep_first(Floats v, int64_t n) {
  for (int64_t l = n; l < kLanes; ++l) v[l] = 0.0f;
  return v;
}
inline void store_first(float* p, Floats v, int64_t n) {
  for (int64_t l = 0; l < kLanes && l < n; ++l) p[l] = v[l];
}
inline Floats root(Floats v) {
  for (int l = 0; l < kLanes; ++l) v[l] = __builtin_sqrtf(v[l]);
  return v;
}
inline Floats load_every_other(const float* p, int64_t n) {
  Floats v{};
  for (int64_t l = 0; l < kLanes && l < n; ++l) v[l] = p[2 * l];
  return v;
}
inline void split(const float* p, Floats& even, Floats& odd) {
  even = Floats{p[0], p[2], p[4], p[6]};
  odd = Floats{p[1], p[3], p[5], p[7]};
}
inline void merge(Floats a, Floats b, Floats& low, Floats& high) {
  low = Floats{a[0], b[0], a[1], b[1]};
  high = Floats{a[2], b[2], a[3], b[3]};
}
#endif

// GCC would read memory anew for every use of what was loaded once; unaligned loads are the dearer part.
inline void hold(Floats& v) {
#if TWOFOLD_LANES == 16
  asm("" : "+v"(v));
#elif TWOFOLD_X86
  asm("" : "+x"(v));
#endif
}

inline Floats load_most(const float* p, int64_t n) { return n >= kLanes ? load(p) : load_first(p, n); }

// Whole lanes up to `end`, and nothing beyond it. Before it, what a row's last lanes spill is overwritten by the next row.
inline void put(float* to, Floats v, const float* end) {
  if (to + kLanes <= end) return store(to, v);
  store_first(to, v, end - to);
}

inline Floats magnitude(Floats v) { return (Floats)((Ints)v & 0x7fffffff); }

// log2 of numbers >= 0 in two parts, a whole number and one of at most 1/2, so that differences of logarithms lose nothing. Of 0 the
// whole is -1e9, of infinity 1e6; of NaN the rest is NaN.
// v = 2^e f with f in [sqrt 1/2, sqrt 2);  log2 f = 2/ln 2 (s + s^3/3 + s^5/5 + ...), s = (f - 1)/(f + 1), |s| < 0.172.
struct Logarithm {
  Floats whole, rest;
};

inline Logarithm log2_of(Floats v) {
  const Floats grown = v < 0x1p-126f ? v * 0x1p24f : v;  // numbers below 2^-126 have fewer bits and another form
  const Ints bits = (Ints)grown, exponent = (bits - 0x3f3504f3) >> 23;
  const Floats f = (Floats)(bits - (exponent << 23));
  const Floats s = (f - 1.0f) / (f + 1.0f), z = s * s;
  Floats series = z * 0.32059889f + 0.41219858f;  // 2/(9 ln 2), 2/(7 ln 2), ...
  series = series * z + 0.57707802f;
  series = series * z + 0.96179669f;
  series = series * z + 2.88539008f;
  const Floats e = __builtin_convertvector(exponent, Floats);
  const Floats whole = v < 0x1p-126f ? e - 24.0f : e;
  const Floats known = v == 0.0f ? every(-1e9f) : v == __builtin_inff() ? every(1e6f) : whole;
  return {known, v == v ? s * series : v};
}

// 2^t for t < 127.5; 0 below -126; NaN of NaN, infinity of infinity.   2^t = 2^n e^(r ln 2), n the whole number next to t, |r| <= 1/2.
inline Floats exp2_of(Floats t) {
  const Floats shifted = t + 12582912.0f;  // 1.5 * 2^23: the last bits are n
  const Floats r = (t - (shifted - 12582912.0f)) * 0.69314718f;
  Floats power = r * 1.98412698e-4f + 1.38888889e-3f;  // 1/7!, 1/6!, ...
  power = power * r + 8.33333333e-3f;
  power = power * r + 4.16666667e-2f;
  power = power * r + 1.66666667e-1f;
  power = power * r + 0.5f;
  power = power * r + 1.0f;
  power = power * r + 1.0f;
  const Floats scaled = (Floats)((Ints)power + ((Ints)shifted << 23));
  return t < -126.0f ? Floats{} : t < 128.0f ? scaled : t;
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
