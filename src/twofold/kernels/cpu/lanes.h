// Several neighbouring outputs at once: a value and the number of the tap that won it, per lane.
// Compiled once per instruction set, in the namespace TWOFOLD_SET; no standard header is included here, so that none of its inline
// functions is compiled for a set that the machine may lack.
//
//   first(x, k)          begin with x, won by tap k
//   offer(x, k)          x wins where it is greater, or NaN against a number. So the first of equals stays, and the first NaN.
//   nothing(k, padding)  begin with -infinity, won by tap k, in lane l by tap k + padding - l where that is more: the first on the map,
//                        which keeps the win should there be nothing but -infinity
//   between(p, b, e)     p[l] for the lanes b <= l < e, -infinity elsewhere, where nothing is read
//   join(later, k)       the winner of later taps, whose numbers lack k, wins where it is greater, or NaN against a number
//   store(y, n)          the first n lanes alone; store_tap alike
//   gather(p, at)        p[at[0]], p[at[1]], ...
//   every<S>(p, stride)  p[0], p[stride], ...; S is the stride where it is known (1, 2), else 0. Reads nothing beyond the last lane's.

namespace twofold {
namespace TWOFOLD_SET {

// x wins over value, with its tap, where it is greater, or NaN against a number. By masks: the winner is a coin toss to a
// processor that guesses branches, and a wrong guess costs more than the whole comparison.
inline void take(float x, int32_t k, float& value, int32_t& tap) {
  const int32_t mask = -static_cast<int32_t>(!(x <= value) & (value == value));
  int32_t old_bits, new_bits;
  __builtin_memcpy(&old_bits, &value, 4);
  __builtin_memcpy(&new_bits, &x, 4);
  old_bits = (old_bits & ~mask) | (new_bits & mask);
  __builtin_memcpy(&value, &old_bits, 4);
  tap = (tap & ~mask) | (k & mask);
}

// d, or 0 where it did not win; by a mask for the same reason.
inline float masked(float d, bool won) {
  int32_t bits;
  __builtin_memcpy(&bits, &d, 4);
  bits &= -static_cast<int32_t>(won);
  __builtin_memcpy(&d, &bits, 4);
  return d;
}

// Four lanes in plain C++, for what is narrow and for every other machine.
struct Lanes4 {
  static constexpr int64_t count = 4;
  using Floats = struct { float lane[4]; };
  float value[4];
  int32_t tap[4];

  template <int S>
  static Floats every(const float* p, int64_t stride) {
    const int64_t step = S ? S : stride;
    return {{p[0], p[step], p[2 * step], p[3 * step]}};
  }
  static Floats between(const float* p, int64_t begin, int64_t end) {
    Floats x;
    for (int l = 0; l < 4; ++l) x.lane[l] = l >= begin && l < end ? p[l] : -__builtin_inff();
    return x;
  }
  static Floats gather(const float* p, const int32_t* at) { return {{p[at[0]], p[at[1]], p[at[2]], p[at[3]]}}; }
  void nothing(int32_t k, int32_t padding) {
    for (int l = 0; l < 4; ++l) {
      value[l] = -__builtin_inff();
      tap[l] = k + (padding > l ? padding - l : 0);
    }
  }
  void first(Floats x, int32_t k) {
    for (int l = 0; l < 4; ++l) {
      value[l] = x.lane[l];
      tap[l] = k;
    }
  }
  void offer(Floats x, int32_t k) {
    for (int l = 0; l < 4; ++l) take(x.lane[l], k, value[l], tap[l]);
  }
  void join(const Lanes4& later, int32_t k) {
    for (int l = 0; l < 4; ++l) take(later.value[l], later.tap[l] + k, value[l], tap[l]);
  }
  void store(float* y) const {
    for (int l = 0; l < 4; ++l) y[l] = value[l];
  }
  template <class Tap>
  void store_tap(Tap* winner) const {
    for (int l = 0; l < 4; ++l) winner[l] = static_cast<Tap>(tap[l]);
  }
  void store(float* y, int64_t n) const {
    for (int l = 0; l < n; ++l) y[l] = value[l];
  }
  template <class Tap>
  void store_tap(Tap* winner, int64_t n) const {
    for (int l = 0; l < n; ++l) winner[l] = static_cast<Tap>(tap[l]);
  }
  // dx[2l] gets dy[l] where tap k won, dx[2l + 1] where tap k + 1 did, 0 elsewhere.
  static void spread(const float* dy, const uint8_t* winner, uint8_t k, float* dx) {
    for (int l = 0; l < 4; ++l) {
      dx[2 * l] = masked(dy[l], winner[l] == k);
      dx[2 * l + 1] = masked(dy[l], winner[l] == k + 1);
    }
  }
};

#if TWOFOLD_LANES >= 8
struct Lanes8 {
  static constexpr int64_t count = 8;
  using Floats = __m256;
  __m256 value;
  __m256i tap;

  template <int S>
  static __m256 every(const float* p, int64_t stride) {
    if constexpr (S == 1) return _mm256_loadu_ps(p);
    if constexpr (S == 2) {  // the second load begins one early: p[15] belongs to nobody and may lie outside
      const __m256 mixed = _mm256_shuffle_ps(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 7), _MM_SHUFFLE(3, 1, 2, 0));
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed), _MM_SHUFFLE(3, 1, 2, 0)));
    }
    return _mm256_setr_ps(p[0], p[stride], p[2 * stride], p[3 * stride], p[4 * stride], p[5 * stride], p[6 * stride], p[7 * stride]);
  }
  static __m256 between(const float* p, int64_t begin, int64_t end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i inside = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(within(begin)), lane),
        _mm256_cmpgt_epi32(_mm256_set1_epi32(within(end)), lane));
    return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), _mm256_maskload_ps(p, inside), _mm256_castsi256_ps(inside));
  }
  static int within(int64_t n) { return n < 0 ? 0 : n > 8 ? 8 : static_cast<int>(n); }
  static __m256 gather(const float* p, const int32_t* at) {
    return _mm256_setr_ps(p[at[0]], p[at[1]], p[at[2]], p[at[3]], p[at[4]], p[at[5]], p[at[6]], p[at[7]]);
  }
  void nothing(int32_t k, int32_t padding) {
    const __m256i more = _mm256_sub_epi32(_mm256_set1_epi32(padding), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    value = _mm256_set1_ps(-__builtin_inff());
    tap = _mm256_add_epi32(_mm256_set1_epi32(k), _mm256_max_epi32(more, _mm256_setzero_si256()));
  }
  void first(__m256 x, int32_t k) {
    value = x;
    tap = _mm256_set1_epi32(k);
  }
  void offer(__m256 x, int32_t k) {
    const __m256 wins = _mm256_and_ps(_mm256_cmp_ps(x, value, _CMP_NLE_UQ), _mm256_cmp_ps(value, value, _CMP_ORD_Q));
    value = _mm256_blendv_ps(value, x, wins);
    tap = _mm256_blendv_epi8(tap, _mm256_set1_epi32(k), _mm256_castps_si256(wins));
  }
  void join(const Lanes8& later, int32_t k) {
    const __m256 wins = _mm256_and_ps(_mm256_cmp_ps(later.value, value, _CMP_NLE_UQ), _mm256_cmp_ps(value, value, _CMP_ORD_Q));
    value = _mm256_blendv_ps(value, later.value, wins);
    tap = _mm256_blendv_epi8(tap, _mm256_add_epi32(later.tap, _mm256_set1_epi32(k)), _mm256_castps_si256(wins));
  }
  void store(float* y) const { _mm256_storeu_ps(y, value); }
  void store_tap(int32_t* winner) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(winner), tap); }
  void store_tap(uint8_t* winner) const {
    const __m128i pairs = _mm_packus_epi32(_mm256_castsi256_si128(tap), _mm256_extracti128_si256(tap, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(winner), _mm_packus_epi16(pairs, pairs));
  }
  void store(float* y, int64_t n) const {
    float all[8];
    store(all);
    __builtin_memcpy(y, all, 4 * n);
  }
  template <class Tap>
  void store_tap(Tap* winner, int64_t n) const {
    Tap all[8];
    store_tap(all);
    __builtin_memcpy(winner, all, sizeof(Tap) * n);
  }
  static void spread(const float* dy, const uint8_t* winner, uint8_t k, float* dx) {
    const __m256 d = _mm256_loadu_ps(dy);
    const __m256i won = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(winner)));
    const __m256 even = _mm256_and_ps(d, _mm256_castsi256_ps(_mm256_cmpeq_epi32(won, _mm256_set1_epi32(k))));
    const __m256 odd = _mm256_and_ps(d, _mm256_castsi256_ps(_mm256_cmpeq_epi32(won, _mm256_set1_epi32(k + 1))));
    const __m256 low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
    _mm256_storeu_ps(dx, _mm256_permute2f128_ps(low, high, 0x20));
    _mm256_storeu_ps(dx + 8, _mm256_permute2f128_ps(low, high, 0x31));
  }
};
#endif

#if TWOFOLD_LANES >= 16
struct Lanes16 {
  static constexpr int64_t count = 16;
  using Floats = __m512;
  __m512 value;
  __m512i tap;

  template <int S>
  static __m512 every(const float* p, int64_t stride) {
    if constexpr (S == 1) return _mm512_loadu_ps(p);
    if constexpr (S == 2) {
      const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
      return _mm512_permutex2var_ps(_mm512_loadu_ps(p), even, _mm512_loadu_ps(p + 15));
    }
    float lane[16];
    for (int l = 0; l < 16; ++l) lane[l] = p[l * stride];
    return _mm512_loadu_ps(lane);
  }
  static __m512 between(const float* p, int64_t begin, int64_t end) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-__builtin_inff()), mask(end) & ~mask(begin), p);
  }
  static __mmask16 mask(int64_t n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }
  static __m512 gather(const float* p, const int32_t* at) { return _mm512_i32gather_ps(_mm512_loadu_si512(at), p, 4); }
  void nothing(int32_t k, int32_t padding) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i more = _mm512_sub_epi32(_mm512_set1_epi32(padding), lane);
    value = _mm512_set1_ps(-__builtin_inff());
    tap = _mm512_add_epi32(_mm512_set1_epi32(k), _mm512_max_epi32(more, _mm512_setzero_si512()));
  }
  void first(__m512 x, int32_t k) {
    value = x;
    tap = _mm512_set1_epi32(k);
  }
  void offer(__m512 x, int32_t k) {
    const __mmask16 wins = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(value, value, _CMP_ORD_Q), x, value, _CMP_NLE_UQ);
    value = _mm512_mask_mov_ps(value, wins, x);
    tap = _mm512_mask_set1_epi32(tap, wins, k);
  }
  void join(const Lanes16& later, int32_t k) {
    const __mmask16 wins = _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(value, value, _CMP_ORD_Q), later.value, value, _CMP_NLE_UQ);
    value = _mm512_mask_mov_ps(value, wins, later.value);
    tap = _mm512_mask_add_epi32(tap, wins, later.tap, _mm512_set1_epi32(k));
  }
  void store(float* y) const { _mm512_storeu_ps(y, value); }
  void store_tap(int32_t* winner) const { _mm512_storeu_si512(winner, tap); }
  void store_tap(uint8_t* winner) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(winner), _mm512_cvtepi32_epi8(tap)); }
  void store(float* y, int64_t n) const { _mm512_mask_storeu_ps(y, mask(n), value); }
  void store_tap(int32_t* winner, int64_t n) const { _mm512_mask_storeu_epi32(winner, mask(n), tap); }
  void store_tap(uint8_t* winner, int64_t n) const { _mm_mask_storeu_epi8(winner, mask(n), _mm512_cvtepi32_epi8(tap)); }
  static void spread(const float* dy, const uint8_t* winner, uint8_t k, float* dx) {
    const __m512 d = _mm512_loadu_ps(dy);
    const __m128i won = _mm_loadu_si128(reinterpret_cast<const __m128i*>(winner));
    const __m512 even = _mm512_maskz_mov_ps(_mm_cmpeq_epi8_mask(won, _mm_set1_epi8(static_cast<char>(k))), d);
    const __m512 odd = _mm512_maskz_mov_ps(_mm_cmpeq_epi8_mask(won, _mm_set1_epi8(static_cast<char>(k + 1))), d);
    const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i upper = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    _mm512_storeu_ps(dx, _mm512_permutex2var_ps(even, lower, odd));
    _mm512_storeu_ps(dx + 16, _mm512_permutex2var_ps(even, upper, odd));
  }
};
#endif

}  // namespace TWOFOLD_SET
}  // namespace twofold
