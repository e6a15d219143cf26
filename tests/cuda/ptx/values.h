// What PTX instructions compute, one function each: `add.s64` is op_add<s64>, `cvt.rn.f32.f64` is
// op_cvt_rn<f32, f64>. The translator knows an instruction if its function stands here.
//
// Approximate instructions differ from the exact result by up to the error that NVIDIA's manual of
// PTX gives for them. The difference depends on the operands alone, as on a GPU.
#pragma once
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef int8_t s8; typedef int16_t s16; typedef int32_t s32; typedef int64_t s64;
typedef u8 b8; typedef u16 b16; typedef u32 b32; typedef u64 b64;
typedef float f32; typedef double f64; typedef bool pred;

#define OP template <class T> inline
template <class T> using Unsigned = std::make_unsigned_t<T>;
template <class T> struct Twice;
template <> struct Twice<s16> { typedef s32 type; }; template <> struct Twice<u16> { typedef u32 type; };
template <> struct Twice<s32> { typedef s64 type; }; template <> struct Twice<u32> { typedef u64 type; };
template <> struct Twice<s64> { typedef __int128 type; };
template <> struct Twice<u64> { typedef unsigned __int128 type; };
template <class T> using Wide = typename Twice<T>::type;

// The same bits as another type; a register of another width does not compile.
template <class To, class From> inline To as(From value) {
  static_assert(sizeof(To) == sizeof(From), "a register of another width");
  static_assert(std::is_same<To, bool>::value == std::is_same<From, bool>::value, "a predicate");
  To found;
  memcpy(&found, &value, sizeof found);
  return found;
}
template <class To, class From> inline void put(To& into, From value) { into = as<To>(value); }
// Into a register that may be wider than the instruction's type, or from one.
template <class To, class From> inline void extend(To& into, From value) {
  if constexpr (sizeof(To) == sizeof(From)) put(into, value);
  else {
    static_assert(sizeof(To) > sizeof(From), "a narrower register");
    into = (To)(std::make_signed_t<To>)value;
  }
}
template <class To, class From> inline To low(From value) {
  if constexpr (sizeof(To) == sizeof(From)) return as<To>(value);
  else { static_assert(sizeof(To) < sizeof(From), "a narrower register"); return (To)value; }
}

// Integers wrap around, so they are computed without sign.
template <class T, class F> inline T whole(T a, T b, F f) {
  return (T)f((Unsigned<T>)a, (Unsigned<T>)b);
}
#define BOTH(name, sign) \
  OP T name(T a, T b) { \
    if constexpr (std::is_floating_point<T>::value) return a sign b; \
    else return whole(a, b, [](auto x, auto y) { return x sign y; }); }
BOTH(op_add, +) BOTH(op_sub, -)
OP T op_mul(T a, T b) { return a * b; }
OP T op_mul_lo(T a, T b) { return whole(a, b, [](auto x, auto y) { return x * y; }); }
OP T op_mul_hi(T a, T b) { return (T)((Wide<T>)a * b >> sizeof(T) * 8); }
OP Wide<T> op_mul_wide(T a, T b) { return (Wide<T>)a * b; }
OP T op_mad_lo(T a, T b, T c) { return op_add<T>(op_mul_lo<T>(a, b), c); }
OP Wide<T> op_mad_wide(T a, T b, Wide<T> c) { return op_add<Wide<T>>((Wide<T>)a * b, c); }
template <class T> inline bool minus_one(T b) { return std::is_signed<T>::value && b == (T)-1; }
OP T op_div(T a, T b) { return b == 0 ? (T)-1 : minus_one(b) ? (T)(0 - (Unsigned<T>)a) : a / b; }
OP T op_rem(T a, T b) { return b == 0 ? a : minus_one(b) ? 0 : a % b; }
OP T op_and(T a, T b) { return a & b; }
OP T op_or(T a, T b) { return a | b; }
OP T op_xor(T a, T b) { return a ^ b; }
OP T op_not(T a) {
  if constexpr (std::is_same<T, bool>::value) return !a;
  else return ~a;
}
OP T op_shl(T a, u32 n) { return n >= sizeof(T) * 8 ? 0 : (T)((Unsigned<T>)a << n); }
OP T op_shr(T a, u32 n) {
  const u32 most = sizeof(T) * 8 - 1;
  return n <= most ? a >> n : std::is_signed<T>::value ? a >> most : 0;
}
OP T op_bfi(T a, T b, u32 place, u32 count) {
  const u32 bits = sizeof(T) * 8;
  for (u32 i = 0; i < (count & 255) && (place & 255) + i < bits; i++) {
    const T one = (T)1 << ((place & 255) + i);
    b = a >> i & 1 ? b | one : b & ~one;
  }
  return b;
}
OP u32 op_popc(T a) { return sizeof(T) == 8 ? __builtin_popcountll(a) : __builtin_popcount(a); }
OP u32 op_clz(T a) { return !a ? sizeof(T) * 8 : sizeof(T) == 8 ? __builtin_clzll(a) : __builtin_clz(a); }
OP T op_selp(T a, T b, bool c) { return c ? a : b; }

template <class T> inline bool is_nan(T a) { return a != a; }
OP T op_neg(T a) {
  if constexpr (std::is_floating_point<T>::value) return -a;
  else return (T)(0 - (Unsigned<T>)a);
}
OP T op_abs(T a) {
  if constexpr (std::is_floating_point<T>::value) return std::fabs(a);
  else return a < 0 ? op_neg<T>(a) : a;
}
OP T op_copysign(T sign, T value) { return std::copysign(value, sign); }
template <class T> inline T extreme(T a, T b, bool greater) {
  if (is_nan(a)) return b;
  if (is_nan(b)) return a;
  if constexpr (std::is_floating_point<T>::value)
    if (a == b) return std::signbit(a) == greater ? b : a;
  return (a > b) == greater ? a : b;
}
OP T op_max(T a, T b) { return extreme(a, b, true); }
OP T op_min(T a, T b) { return extreme(a, b, false); }
#define COMPARE(name, sign) \
  OP bool op_setp_##name(T a, T b) { return !is_nan(a) && !is_nan(b) && a sign b; } \
  OP bool op_setp_##name##u(T a, T b) { return is_nan(a) || is_nan(b) || a sign b; }
COMPARE(eq, ==) COMPARE(ne, !=) COMPARE(lt, <) COMPARE(le, <=) COMPARE(gt, >) COMPARE(ge, >=)
OP bool op_setp_lo(T a, T b) { return a < b; }
OP bool op_setp_ls(T a, T b) { return a <= b; }
OP bool op_setp_hi(T a, T b) { return a > b; }
OP bool op_setp_hs(T a, T b) { return a >= b; }
OP bool op_setp_num(T a, T b) { return !is_nan(a) && !is_nan(b); }
OP bool op_setp_nan(T a, T b) { return is_nan(a) || is_nan(b); }

// Arithmetic in a given direction of rounding: `volatile`, so that nothing moves across.
template <class T, class F> __attribute__((noinline)) T rounded(int direction, F f) {
  const int before = fegetround();
  fesetround(direction);
  volatile T found = f();
  fesetround(before);
  return found;
}
#define DIRECTED(suffix, direction) \
  OP T op_add_##suffix(T a, T b) { \
    volatile T x = a, y = b; \
    return rounded<T>(direction, [&] { return x + y; }); } \
  OP T op_mul_##suffix(T a, T b) { \
    volatile T x = a, y = b; \
    return rounded<T>(direction, [&] { return x * y; }); } \
  OP T op_fma_##suffix(T a, T b, T c) { \
    volatile T x = a, y = b, z = c; \
    return rounded<T>(direction, [&] { return std::fma((T)x, (T)y, (T)z); }); }
DIRECTED(rz, FE_TOWARDZERO) DIRECTED(rm, FE_DOWNWARD) DIRECTED(rp, FE_UPWARD)
OP T op_add_rn(T a, T b) { return a + b; }
OP T op_sub_rn(T a, T b) { return a - b; }
OP T op_mul_rn(T a, T b) { return a * b; }
OP T op_div_rn(T a, T b) { return a / b; }
OP T op_rcp_rn(T a) { return (T)1 / a; }
OP T op_sqrt_rn(T a) { return std::sqrt(a); }
OP T op_fma_rn(T a, T b, T c) { return std::fma(a, b, c); }

// Approximations. From -1 to 1, by the bits of the operands:
inline double drawn(u64 a, u64 b = 0) {
  a = (a ^ b * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
  a = (a ^ a >> 29) * 0x94d049bb133111ebull;
  return (double)(s64)(a ^ a >> 32) / 9223372036854775808.0;
}
inline f32 flushed(f32 x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
// The exact value, moved by a relative error; zeros, infinities and NaN stay what they are.
inline f32 near(double exact, double error, double draw) { return (f32)(exact * (1 + error * draw)); }
inline f32 by_ulps(double exact, double ulps, double draw) {
  const f32 y = (f32)exact;
  if (!std::isfinite(y) || y == 0) return y;
  int exponent;
  std::frexp(exact, &exponent);
  return (f32)(exact + std::ldexp(ulps * draw, std::max(exponent, -125) - 24));
}
inline u64 bits(f32 x) { return as<u32>(x); }
OP T op_ex2_approx(T x) {  // exact for integers: NVIDIA's own tanh in float64 relies on it
  return near(std::exp2((double)x), x == std::nearbyint(x) ? 0 : 0x1p-22, drawn(bits(x), 1));
}
OP T op_lg2_approx(T x) {  // absolute within (0.5, 2), else relative
  const double exact = std::log2((double)x), draw = drawn(bits(x), 2);
  return x > 0.5f && x < 2 && x != 1 ? (f32)(exact + 0x1p-22 * draw) : near(exact, 0x1p-22, draw);
}
OP T op_rcp_approx(T x) { return near(1 / (double)x, 0x1p-23, drawn(bits(x), 3)); }
OP T op_sqrt_approx(T x) { return near(std::sqrt((double)x), 0x1p-23, drawn(bits(x), 4)); }
OP T op_rsqrt_approx(T x) { return near(1 / std::sqrt((double)x), 0x1p-22, drawn(bits(x), 5)); }
OP T op_tanh_approx(T x) { return near(std::tanh((double)x), 0x1p-11, drawn(bits(x), 6)); }
OP T op_div_full(T a, T b) { return by_ulps((double)a / b, 2, drawn(bits(a), bits(b))); }
OP T op_div_approx(T a, T b) {  // no result for a divisor above 2^126
  if (std::fabs(b) > 0x1p126f && !std::isinf(b))
    return std::isinf(a) ? NAN : std::copysign(0.0f, a * std::copysign(1.0f, b));
  return op_div_full<T>(a, b);
}
#define FLUSHING(name) OP T name##_ftz(T x) { return flushed(name<T>(flushed(x))); }
FLUSHING(op_ex2_approx) FLUSHING(op_lg2_approx) FLUSHING(op_sqrt_approx)
OP T op_div_full_ftz(T a, T b) { return flushed(op_div_full<T>(flushed(a), flushed(b))); }
OP T op_div_approx_ftz(T a, T b) { return flushed(op_div_approx<T>(flushed(a), flushed(b))); }
// In float64 these are starting points of some 20 bits: the lower half of the result is zero.
template <class F> inline f64 coarse(f64 x, F f) {
  if (std::fpclassify(x) == FP_SUBNORMAL) x = std::copysign(0.0, x);
  const double y = f(as<f64>(as<u64>(x) & 0xffffffff00000000ull));
  if (!std::isfinite(y) || y == 0) return y;
  if (std::fpclassify(y) == FP_SUBNORMAL) return std::copysign(0.0, y);
  return as<f64>(as<u64>(y * (1 + 0x1p-20 * drawn(as<u64>(x), 7))) & 0xffffffff00000000ull);
}
OP T op_rcp_approx_ftz(T x) {
  if constexpr (sizeof(T) == 8) return coarse(x, [](double a) { return 1 / a; });
  else return flushed(op_rcp_approx<T>(flushed(x)));
}
OP T op_rsqrt_approx_ftz(T x) {
  if constexpr (sizeof(T) == 8) return coarse(x, [](double a) { return 1 / std::sqrt(a); });
  else return flushed(op_rsqrt_approx<T>(flushed(x)));
}

// Conversions: <to, from>.
#define CVT template <class D, class S> inline D
CVT op_cvt(S x) { return (D)x; }
CVT op_cvt_rn(S x) { return (D)x; }
template <class D> inline D limited(double x) {
  if (is_nan(x)) return 0;
  const D least = std::numeric_limits<D>::min(), most = std::numeric_limits<D>::max();
  return x <= (double)least ? least : x >= (double)most ? most : (D)x;
}
template <class D> inline D integral(double x) {
  if constexpr (std::is_floating_point<D>::value) return (D)x;
  else return limited<D>(x);
}
CVT op_cvt_rni(S x) { return integral<D>(std::nearbyint((double)x)); }
CVT op_cvt_rzi(S x) { return integral<D>(std::trunc((double)x)); }
CVT op_cvt_rmi(S x) { return integral<D>(std::floor((double)x)); }
CVT op_cvt_rpi(S x) { return integral<D>(std::ceil((double)x)); }
CVT op_cvt_sat(S x) { return is_nan(x) || x <= 0 ? 0 : x >= 1 ? 1 : (D)x; }
