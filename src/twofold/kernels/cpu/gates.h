// The functions of gates, lane by lane, and their derivatives by their values:
//
//   sigmoid a = 1 / (1 + e^-a)          sigmoid' = s (1 - s)
//   tanh a = (e^2a - 1) / (e^2a + 1)    tanh' = 1 - t^2
//
// e^a = 2^n (1 + q) with n the whole number next to a / ln 2 and q = e^r - 1 for the rest r, |r| <= ln 2 / 2: q = r + r^2 (a polynomial
// of degree 4, fitted for the least relative error of q, which is 1.4e-8). e^a - 1 = 2^n q + (2^n - 1) loses nothing near 0, so tanh is
// exact to a few units in the last place everywhere. NaN stays NaN.
// Compiled once per instruction set, in the namespace TWOFOLD_SET.

namespace twofold {
namespace TWOFOLD_SET {

// e^a as 2^n and q, for |a| <= 88.
struct Exponential {
  Floats power, rest;
  explicit Exponential(Floats a) {
    const Floats shifted = a * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the last bits are n
    const Floats n = shifted - 12582912.0f;
    const Floats r = (a - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts: the first has few bits, its products are exact
    Floats series = r * 0.00139412f + 0.00836683f;
    series = series * r + 0.04166635f;
    series = series * r + 0.16666541f;
    series = series * r + 0.5f;
    rest = series * (r * r) + r;
    power = (Floats)(((Ints)shifted << 23) + 0x3f800000);
  }
};

inline Floats between(Floats a, float low, float high) {
  a = a < low ? every(low) : a;
  return a > high ? every(high) : a;
}

inline Floats sigmoid(Floats a) {
  const Exponential e(between(-a, -87.0f, 87.0f));
  return 1.0f / (1.0f + e.power + e.power * e.rest);
}

inline Floats tangent(Floats a) {  // hyperbolic
  const Exponential e(between(a + a, -30.0f, 30.0f));
  const Floats less = e.power * e.rest + (e.power - 1.0f);
  return less / (less + 2.0f);
}

}  // namespace TWOFOLD_SET
}  // namespace twofold
