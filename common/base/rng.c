/* SPDX-License-Identifier: Apache-2.0
 *
 * Philox4x32-10 and what is derived from it. The normal variate uses only IEEE basic operations and
 * square root, which are exact to the last bit everywhere.
 */
#include "base/rng.h"

#include <math.h>
#include <string.h>

bl_rng_block bl_rng_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  uint32_t c0 = (uint32_t)counter_lo, c1 = (uint32_t)(counter_lo >> 32);
  uint32_t c2 = (uint32_t)counter_hi, c3 = (uint32_t)(counter_hi >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0;
    uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (bl_rng_block){{c0, c1, c2, c3}};
}

uint64_t bl_rng_key(uint64_t seed, bl_rng_stream stream) {
  bl_rng_block b = bl_rng_philox(seed, (uint64_t)stream, UINT64_C(0x62616c6c61737400));
  return (uint64_t)b.v[1] << 32 | b.v[0];
}

uint64_t bl_rng_u64(uint64_t key, uint64_t hi, uint64_t lo) {
  bl_rng_block b = bl_rng_philox(key, hi, lo);
  return (uint64_t)b.v[1] << 32 | b.v[0];
}

float bl_rng_unit(uint64_t key, uint64_t hi, uint64_t lo) {
  return (float)(bl_rng_philox(key, hi, lo).v[0] >> 8) * 0x1p-24f;
}

/* ln x for 0 < x <= 1 in double: exponent split, then 2 atanh((m-1)/(m+1)); error under 1e-12. */
static double own_log(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int e = (int)(bits >> 52 & 0x7ff) - 1023;
  bits = (bits & UINT64_C(0x000fffffffffffff)) | UINT64_C(0x3ff0000000000000);
  double m;
  memcpy(&m, &bits, sizeof m);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e++;
  }
  double t = (m - 1.0) / (m + 1.0), t2 = t * t, sum = 0.0;
  for (int k = 19; k >= 1; k -= 2)
    sum = sum * t2 + 1.0 / k;
  return 2.0 * t * sum + e * 0.69314718055994530942;
}

/* cos(2 pi u) for u in [0, 1): octant folding, then a Taylor polynomial; error under 1e-12. */
static double own_cos_turn(double u) {
  double sign = 1.0;
  if (u >= 0.5)
    u = 1.0 - u; /* even about a half turn: u in [0, 0.5] */
  if (u > 0.25) {
    u = 0.5 - u;
    sign = -1.0;
  }
  double x = 6.28318530717958647693 * u, x2 = x * x, term = 1.0, sum = 1.0;
  for (int k = 1; k <= 10; k++) {
    term *= -x2 / ((2.0 * k - 1.0) * (2.0 * k));
    sum += term;
  }
  return sign * sum;
}

float bl_rng_normal(uint64_t key, uint64_t hi, uint64_t lo) {
  bl_rng_block b = bl_rng_philox(key, hi, lo);
  double u1 = ((double)b.v[0] + 1.0) * 0x1p-32; /* (0, 1] */
  double u2 = (double)b.v[1] * 0x1p-32;
  return (float)(sqrt(-2.0 * own_log(u1)) * own_cos_turn(u2));
}

uint64_t bl_rng_below(uint64_t key, uint64_t hi, uint64_t lo, uint64_t n) {
  return (uint64_t)(((unsigned __int128)bl_rng_u64(key, hi, lo) * n) >> 64);
}
