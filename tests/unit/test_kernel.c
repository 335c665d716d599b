/* SPDX-License-Identifier: Apache-2.0
 *
 * Every table that this CPU can run is compared bit for bit with the scalar one; the scalar one is compared
 * with straightforward definitions written here. Conversions keep NaN payloads; arithmetic only promises
 * that a NaN comes out where the definition has one.
 */
#include "base/rng.h"
#include "kernel/kernel.h"
#include "tests/support/support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N_SHORT 71     /* lengths 0 to 70: around every vector width and its multiples */
#define N_LONG 100003
#define N_ARRAYS 5
#define SLACK 64       /* guard bytes behind, and room for misalignment before */

static uint32_t bits_of(float x) {
  uint32_t b;
  memcpy(&b, &x, sizeof b);
  return b;
}

static float float_of(uint32_t b) {
  float x;
  memcpy(&x, &b, sizeof x);
  return x;
}

static const uint32_t extremes[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, /* zeros to max */
    0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 0x7f800001, 0xffbfffff,                         /* Inf, NaN */
    0x3f800000, 0xbf800000, 0x477fe000, 0x477fefff, 0x477ff000, 0xc77ff000, 0x47800000,             /* around 65504 */
    0x33000000, 0x33000001, 0x33800000, 0x33c00000, 0x387fc000, 0x387fe000, 0x387fffff, 0x38800000, /* half subnormals */
    0x3f801000, 0x3f803000, 0x3f800fff, 0x3f801001, 0x2b000000, 0x5d000000, 0xdd000000,             /* ties, tiny, huge */
};

typedef enum fill { FILL_ORDINARY, FILL_EXTREME, FILL_ANY_BITS, FILL_COUNT } fill;

static float value_of(fill kind, uint64_t stream, size_t i) {
  uint64_t r = bl_rng_u64(17, stream, i);
  if (kind == FILL_EXTREME && r % 3 != 0)
    return float_of(extremes[(r >> 8) % BL_COUNT_OF(extremes)]);
  if (kind == FILL_ANY_BITS)
    return float_of((uint32_t)r);
  return bl_rng_normal(17, stream, i);
}

/* Arrays of one call, at a misalignment of `shift` bytes; the halves share their numbers. */
typedef struct fixture {
  uint8_t *memory[N_ARRAYS], *half_memory;
  float *x[N_ARRAYS];
  uint16_t *half;
  size_t n;
} fixture;

static void fixture_init(fixture *f, fill kind, size_t n, size_t shift) {
  f->n = n;
  for (size_t k = 0; k < N_ARRAYS; k++) {
    f->memory[k] = malloc(n * 4 + 2 * SLACK);
    memset(f->memory[k], 0xa5, n * 4 + 2 * SLACK);
    f->x[k] = (float *)(void *)(f->memory[k] + (shift + 4 * k) % SLACK);
    for (size_t i = 0; i < n; i++) {
      float v = value_of(kind, k + 1, i);
      memcpy((uint8_t *)f->x[k] + 4 * i, &v, 4);
    }
  }
  f->half_memory = malloc(n * 2 + 2 * SLACK);
  memset(f->half_memory, 0xa5, n * 2 + 2 * SLACK);
  f->half = (uint16_t *)(void *)(f->half_memory + shift);
  for (size_t i = 0; i < n; i++) {
    uint16_t h = (uint16_t)bl_rng_u64(18, 1, i);
    if (kind == FILL_ORDINARY)
      h &= 0xbbff; /* finite */
    memcpy((uint8_t *)f->half + 2 * i, &h, 2);
  }
}

static void fixture_fini(fixture *f) {
  for (size_t k = 0; k < N_ARRAYS; k++)
    free(f->memory[k]);
  free(f->half_memory);
}

static const bl_adam_args adam_plain = {0.01f, 0.9f, 0.999f, 1e-8f, 1.25f, 3.5f, 0};
static const bl_adam_args adam_decay = {0.01f, 0.9f, 0.999f, 1e-8f, 10.0f, 1000.0f, 0.1f};

/* Each writes what it changes into f and may return a number. */
static double run_add(const bl_kernels *k, fixture *f) { return k->add(f->x[0], f->x[1], f->n), 0; }
static double run_axpy(const bl_kernels *k, fixture *f) { return k->axpy(f->x[0], f->x[1], 0.3f, f->n), 0; }
static double run_sub(const bl_kernels *k, fixture *f) { return k->sub(f->x[2], f->x[0], f->x[1], f->n), 0; }
static double run_sub_in_place(const bl_kernels *k, fixture *f) { return k->sub(f->x[0], f->x[0], f->x[1], f->n), 0; }
static double run_scale(const bl_kernels *k, fixture *f) { return k->scale(f->x[0], 0.7f, f->n), 0; }
static double run_clip(const bl_kernels *k, fixture *f) { return k->clip(f->x[0], 0.5f, f->n), 0; }
static double run_clip_zero(const bl_kernels *k, fixture *f) { return k->clip(f->x[0], 0, f->n), 0; }
static double run_to_half(const bl_kernels *k, fixture *f) { return k->f32_to_f16(f->half, f->x[0], f->n), 0; }
static double run_from_half(const bl_kernels *k, fixture *f) { return k->f16_to_f32(f->x[0], f->half, f->n), 0; }
static double run_half_add(const bl_kernels *k, fixture *f) { return k->f16_add(f->x[0], f->half, f->n), 0; }
static double run_half_axpy(const bl_kernels *k, fixture *f) { return k->f16_axpy(f->x[0], f->half, 0.3f, f->n), 0; }
static double run_feedback(const bl_kernels *k, fixture *f) {
  return k->f16_feedback(f->half, f->x[0], f->x[1], f->n), 0;
}
static double run_finite(const bl_kernels *k, fixture *f) { return k->all_finite(f->x[0], f->n); }
static double run_squares(const bl_kernels *k, fixture *f) { return k->sum_squares(f->x[0], f->n); }
static double run_sgd(const bl_kernels *k, fixture *f) { return k->sgd(f->x[0], f->x[1], 0.1f, 0, f->n), 0; }
static double run_sgd_decay(const bl_kernels *k, fixture *f) { return k->sgd(f->x[0], f->x[1], 0.1f, 0.01f, f->n), 0; }
static double run_momentum(const bl_kernels *k, fixture *f) {
  return k->momentum(f->x[0], f->x[1], f->x[2], 0.1f, 0.9f, 0, f->n), 0;
}
static double run_momentum_decay(const bl_kernels *k, fixture *f) {
  return k->momentum(f->x[0], f->x[1], f->x[2], 0.1f, 0.9f, 0.01f, f->n), 0;
}
static double run_adam(const bl_kernels *k, fixture *f) {
  return k->adam(f->x[0], f->x[1], f->x[2], f->x[3], &adam_plain, f->n), 0;
}
static double run_adam_decay(const bl_kernels *k, fixture *f) {
  return k->adam(f->x[0], f->x[1], f->x[2], f->x[3], &adam_decay, f->n), 0;
}

static double run_nesterov(const bl_kernels *k, fixture *f) {
  return k->nesterov(f->x[0], f->x[1], f->x[2], 0.1f, 0.9f, 0, f->n), 0;
}
static double run_nesterov_decay(const bl_kernels *k, fixture *f) {
  return k->nesterov(f->x[0], f->x[1], f->x[2], 0.1f, 0.9f, 0.01f, f->n), 0;
}
static double run_adagrad(const bl_kernels *k, fixture *f) {
  return k->adagrad(f->x[0], f->x[1], f->x[2], 0.1f, 0, 1e-10f, 0, f->n), 0;
}
static double run_adagrad_decay(const bl_kernels *k, fixture *f) {
  return k->adagrad(f->x[0], f->x[1], f->x[2], 0.1f, 0.5f, 1e-10f, 0.01f, f->n), 0;
}
static double run_rmsprop(const bl_kernels *k, fixture *f) {
  return k->rmsprop(f->x[0], f->x[1], f->x[2], 0.1f, 0.9f, 1e-8f, 0, f->n), 0;
}
static double run_rmsprop_decay(const bl_kernels *k, fixture *f) {
  return k->rmsprop(f->x[0], f->x[1], f->x[2], 0.1f, 0.9f, 1e-8f, 0.01f, f->n), 0;
}
static double run_adamw(const bl_kernels *k, fixture *f) {
  return k->adamw(f->x[0], f->x[1], f->x[2], f->x[3], &adam_plain, f->n), 0;
}
static double run_adamw_decay(const bl_kernels *k, fixture *f) {
  return k->adamw(f->x[0], f->x[1], f->x[2], f->x[3], &adam_decay, f->n), 0;
}
static double run_amsgrad(const bl_kernels *k, fixture *f) {
  return k->amsgrad(f->x[0], f->x[1], f->x[2], f->x[3], f->x[4], &adam_plain, f->n), 0;
}
static double run_amsgrad_decay(const bl_kernels *k, fixture *f) {
  return k->amsgrad(f->x[0], f->x[1], f->x[2], f->x[3], f->x[4], &adam_decay, f->n), 0;
}
static double run_yogi(const bl_kernels *k, fixture *f) {
  return k->yogi(f->x[0], f->x[1], f->x[2], f->x[3], &adam_plain, f->n), 0;
}
static double run_yogi_decay(const bl_kernels *k, fixture *f) {
  return k->yogi(f->x[0], f->x[1], f->x[2], f->x[3], &adam_decay, f->n), 0;
}
static double run_ftrl(const bl_kernels *k, fixture *f) {
  static const bl_ftrl_args args = {.lr = 0.1f, .beta = 1};
  return k->ftrl(f->x[0], f->x[1], f->x[2], f->x[3], &args, f->n), 0;
}
static double run_ftrl_sparse(const bl_kernels *k, fixture *f) {
  static const bl_ftrl_args args = {.lr = 0.1f, .beta = 1, .l1 = 0.5f, .l2 = 0.25f};
  return k->ftrl(f->x[0], f->x[1], f->x[2], f->x[3], &args, f->n), 0;
}
static double run_moments(const bl_kernels *k, fixture *f) {
  return k->adam_moments(f->x[0], f->x[1], f->x[2], &adam_decay, f->n), 0;
}
static double run_direction(const bl_kernels *k, fixture *f) {
  return k->adam_direction(f->x[0], f->x[1], f->x[2], f->x[3], &adam_plain, f->n), 0;
}
static double run_direction_decay(const bl_kernels *k, fixture *f) {
  return k->adam_direction(f->x[0], f->x[1], f->x[2], f->x[3], &adam_decay, f->n), 0;
}
static double run_average(const bl_kernels *k, fixture *f) { return k->average(f->x[0], f->x[1], 0.001f, f->n), 0; }

static const struct {
  const char *name;
  double (*run)(const bl_kernels *k, fixture *f);
  bool payload_kept; /* NaN payloads are promised too */
} calls[] = {
    {"add", run_add, false},
    {"axpy", run_axpy, false},
    {"sub", run_sub, false},
    {"sub in place", run_sub_in_place, false},
    {"scale", run_scale, false},
    {"clip", run_clip, true},
    {"clip at 0", run_clip_zero, true},
    {"f32_to_f16", run_to_half, true},
    {"f16_to_f32", run_from_half, true},
    {"f16_add", run_half_add, false},
    {"f16_axpy", run_half_axpy, false},
    {"f16_feedback", run_feedback, false},
    {"all_finite", run_finite, true},
    {"sum_squares", run_squares, false},
    {"sgd", run_sgd, false},
    {"sgd with decay", run_sgd_decay, false},
    {"momentum", run_momentum, false},
    {"momentum with decay", run_momentum_decay, false},
    {"adam", run_adam, false},
    {"adam with decay", run_adam_decay, false},
    {"nesterov", run_nesterov, false},
    {"nesterov with decay", run_nesterov_decay, false},
    {"adagrad", run_adagrad, false},
    {"adagrad with decay", run_adagrad_decay, false},
    {"rmsprop", run_rmsprop, false},
    {"rmsprop with decay", run_rmsprop_decay, false},
    {"adamw", run_adamw, false},
    {"adamw with decay", run_adamw_decay, false},
    {"amsgrad", run_amsgrad, false},
    {"amsgrad with decay", run_amsgrad_decay, false},
    {"yogi", run_yogi, false},
    {"yogi with decay", run_yogi_decay, false},
    {"ftrl", run_ftrl, false},
    {"ftrl with l1 and l2", run_ftrl_sparse, false},
    {"adam_moments", run_moments, false},
    {"adam_direction", run_direction, false},
    {"adam_direction with decay", run_direction_decay, false},
    {"average", run_average, false},
};

static bool same_double(double a, double b) { return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); }

static void compare(const bl_kernels *k, size_t call, fill kind, size_t n, size_t shift) {
  fixture want, got;
  fixture_init(&want, kind, n, shift);
  fixture_init(&got, kind, n, shift);
  double rw = calls[call].run(bl_kernels_at(0), &want), rg = calls[call].run(k, &got);
  ck_assert_msg(same_double(rw, rg), "%s %s fill %d n %zu: %a, scalar %a", k->name, calls[call].name, kind, n, rg, rw);
  for (size_t a = 0; a < N_ARRAYS; a++) {
    if (memcmp(want.memory[a], got.memory[a], n * 4 + 2 * SLACK) == 0)
      continue;
    for (size_t i = 0; i < n; i++) {
      float w, g;
      memcpy(&w, (uint8_t *)want.x[a] + 4 * i, 4);
      memcpy(&g, (uint8_t *)got.x[a] + 4 * i, 4);
      bool same = bits_of(w) == bits_of(g) || (!calls[call].payload_kept && isnan(w) && isnan(g));
      ck_assert_msg(same, "%s %s fill %d n %zu shift %zu: array %zu[%zu] is %08x, scalar %08x", k->name,
                    calls[call].name, kind, n, shift, a, i, bits_of(g), bits_of(w));
      memcpy((uint8_t *)want.x[a] + 4 * i, &g, 4);
    }
    ck_assert_msg(memcmp(want.memory[a], got.memory[a], n * 4 + 2 * SLACK) == 0, "%s %s n %zu writes outside", k->name,
                  calls[call].name, n);
  }
  for (size_t i = 0; i < n; i++) {
    uint16_t w, g;
    memcpy(&w, (uint8_t *)want.half + 2 * i, 2);
    memcpy(&g, (uint8_t *)got.half + 2 * i, 2);
    bool both_nan = (w & 0x7fff) > 0x7c00 && (g & 0x7fff) > 0x7c00;
    ck_assert_msg(w == g || (both_nan && !calls[call].payload_kept), "%s %s fill %d n %zu: half %zu is %04x, scalar %04x",
                  k->name, calls[call].name, kind, n, i, g, w);
    memcpy((uint8_t *)want.half + 2 * i, &g, 2);
  }
  ck_assert_msg(memcmp(want.half_memory, got.half_memory, n * 2 + 2 * SLACK) == 0, "%s %s n %zu writes outside", k->name,
                calls[call].name, n);
  fixture_fini(&want);
  fixture_fini(&got);
}

START_TEST(every_table_gives_the_bits_of_the_scalar_one) {
  for (size_t t = 1; bl_kernels_at(t) != NULL; t++) {
    for (int kind = 0; kind < FILL_COUNT; kind++) {
      for (size_t n = 0; n < N_SHORT; n++)
        compare(bl_kernels_at(t), (size_t)_i, (fill)kind, n, n * 7 % 33);
      compare(bl_kernels_at(t), (size_t)_i, (fill)kind, N_LONG, 3);
    }
  }
}
END_TEST

/* Independent of the kernels: works on the value, with exact double arithmetic and the rounding of the C
 * library's nearbyint (to nearest, ties to even). */
static uint16_t reference_half(float x) {
  uint16_t sign = signbit(x) ? 0x8000 : 0;
  if (isnan(x))
    return (uint16_t)(sign | 0x7e00 | (bits_of(x) >> 13 & 0x3ff));
  double a = fabs((double)x);
  if (isinf(a))
    return sign | 0x7c00;
  int e = a > 0 ? ilogb(a) : -14;
  if (e < -14)
    e = -14;
  double units = nearbyint(ldexp(a, 10 - e)); /* in units of the last place, 0 to 2048 */
  if (ldexp(units, e - 10) > 65504)
    return sign | 0x7bff;
  if (units == 2048) {
    units = 1024;
    e++;
  }
  if (units < 1024)
    return (uint16_t)(sign | (int)units); /* subnormal: e is -14 */
  return (uint16_t)(sign | ((e + 15) << 10 | ((int)units - 1024)));
}

static float reference_float(uint16_t h) {
  int e = h >> 10 & 31, m = h & 0x3ff;
  double a = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
  if (e == 31)
    return float_of((uint32_t)(h & 0x8000) << 16 | 0x7f800000u | (m != 0 ? (uint32_t)(m | 0x200) << 13 : 0));
  return (float)((h & 0x8000) != 0 ? -a : a);
}

START_TEST(all_halves_become_the_float_of_the_same_value) {
  const bl_kernels *k = bl_kernels_at((size_t)_i);
  if (k == NULL)
    return;
  for (uint32_t h = 0; h < 0x10000; h += 64) {
    uint16_t in[64];
    float out[64];
    for (uint32_t i = 0; i < 64; i++)
      in[i] = (uint16_t)(h + i);
    k->f16_to_f32(out, in, 64);
    for (uint32_t i = 0; i < 64; i++)
      ck_assert_msg(bits_of(out[i]) == bits_of(reference_float(in[i])), "%s: half %04x is %08x, must be %08x", k->name,
                    in[i], bits_of(out[i]), bits_of(reference_float(in[i])));
  }
}
END_TEST

static void check_halves(const bl_kernels *k, const uint32_t *bits, size_t n) {
  uint16_t out[64];
  k->f32_to_f16(out, (const float *)(const void *)bits, n);
  for (size_t i = 0; i < n; i++) {
    uint16_t want = reference_half(float_of(bits[i]));
    if (out[i] != want)
      ck_abort_msg("%s: float %08x became half %04x, must be %04x", k->name, bits[i], out[i], want);
  }
}

START_TEST(floats_beside_every_rounding_boundary_become_the_nearest_half) {
  const bl_kernels *k = bl_kernels_at((size_t)_i);
  if (k == NULL)
    return;
  for (uint32_t h = 0; h < 0x7c00; h++) { /* each half, and its midpoint to the next, with their neighbours */
    float low = reference_float((uint16_t)h), high = h == 0x7bff ? 65536.0f : reference_float((uint16_t)(h + 1));
    uint32_t middle = bits_of((float)(((double)low + (double)high) / 2)), at = bits_of(low);
    uint32_t bits[16];
    size_t n = 0;
    for (int d = -2; d <= 2; d++) {
      bits[n++] = middle + (uint32_t)d;
      bits[n++] = (middle + (uint32_t)d) | 0x80000000u;
      if (at >= 2)
        bits[n++] = at + (uint32_t)d;
    }
    while (n < 16)
      bits[n++] = at;
    check_halves(k, bits, n);
  }
}
END_TEST

START_TEST(floats_from_all_over_become_the_nearest_half) {
  const bl_kernels *k = bl_kernels_at((size_t)_i);
  if (k == NULL)
    return;
  const uint32_t stride = 1009; /* prime: meets every exponent in every phase of the mantissa */
  uint32_t bits[64];
  uint64_t b = 0;
  while (b <= UINT32_MAX) {
    size_t n = 0;
    for (; n < 64 && b <= UINT32_MAX; n++, b += stride)
      bits[n] = (uint32_t)b;
    check_halves(k, bits, n);
  }
}
END_TEST

/* Numbers far apart, so that another order rounds otherwise; by chance it may not, hence many sets. */
START_TEST(sums_of_squares_follow_the_written_order) {
  enum { LENGTH = 1003 };
  float x[LENGTH];
  for (uint64_t set = 0; set < 50; set++) {
    double p[16] = {0}, a[8], b[4];
    for (size_t i = 0; i < LENGTH; i++) {
      x[i] = ldexpf(bl_rng_normal(3, set, i), (int)(i * 7 % 23));
      p[i % 16] += (double)x[i] * (double)x[i];
    }
    for (size_t i = 0; i < 8; i++)
      a[i] = p[i] + p[i + 8];
    for (size_t i = 0; i < 4; i++)
      b[i] = a[i] + a[i + 4];
    double want = (b[0] + b[2]) + (b[1] + b[3]);
    for (size_t t = 0; bl_kernels_at(t) != NULL; t++)
      ck_assert_double_eq(bl_kernels_at(t)->sum_squares(x, LENGTH), want);
  }
}
END_TEST

START_TEST(axpy_rounds_the_product_before_the_sum) {
  /* (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: the last term is lost in the product and a fused one would keep it. */
  float a = 1 + 0x1p-12f;
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    float x[33], y[33];
    for (size_t i = 0; i < 33; i++) {
      x[i] = a;
      y[i] = -(1 + 0x1p-11f);
    }
    bl_kernels_at(t)->axpy(y, x, a, 33);
    for (size_t i = 0; i < 33; i++)
      ck_assert_msg(y[i] == 0, "%s is fused at %zu", bl_kernels_at(t)->name, i);
  }
}
END_TEST

START_TEST(one_bad_number_anywhere_is_found) {
  float x[70];
  static const uint32_t bad[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffffffff};
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    for (size_t i = 0; i < 70; i++)
      x[i] = 3.402823466e38f;
    ck_assert(bl_kernels_at(t)->all_finite(x, 70));
    for (size_t i = 0; i < 70; i++) {
      x[i] = float_of(bad[i % BL_COUNT_OF(bad)]);
      ck_assert_msg(!bl_kernels_at(t)->all_finite(x, 70), "%s overlooks %zu", bl_kernels_at(t)->name, i);
      ck_assert(bl_kernels_at(t)->all_finite(x, i));
      x[i] = 0;
    }
  }
}
END_TEST

START_TEST(clip_keeps_nan_and_the_sign_of_zero) {
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    float y[20] = {NAN, -0.0f, 5, -5, INFINITY, -INFINITY, 1, -1};
    for (size_t i = 8; i < 20; i++)
      y[i] = y[i % 8];
    bl_kernels_at(t)->clip(y, 2, 20);
    ck_assert(isnan(y[0]) && isnan(y[16]));
    ck_assert(signbit(y[1]) && signbit(y[17]));
    static const float want[] = {2, -2, 2, -2, 1, -1};
    for (size_t i = 0; i < 6; i++)
      ck_assert_float_eq(y[2 + i], want[i]);
  }
}
END_TEST

START_TEST(tables_are_chosen_by_name) {
  bl_error err = BL_ERROR_INIT;
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++) {
    ck_assert_ok_err(bl_kernels_force(bl_kernels_at(t)->name, &err), err);
    ck_assert_ptr_eq(bl_kernels_get(), bl_kernels_at(t));
  }
  ck_assert_status(bl_kernels_force("avx1024", &err), BL_ENOENT);
  ck_assert_ptr_nonnull(strstr(err.text, "avx1024"));
  ck_assert_ok(bl_kernels_force("auto", NULL));
  ck_assert_ptr_nonnull(bl_kernels_get());
}
END_TEST

START_TEST(environment_names_the_table_and_a_wrong_name_is_ignored) {
  setenv("BALLAST_KERNELS", _i == 0 ? "scalar" : "abacus", 1);
  const bl_kernels *k = bl_kernels_get();
  if (_i == 0)
    ck_assert_str_eq(k->name, "scalar");
  const bl_kernels *first = k;
  ck_assert_ok(bl_kernels_force("auto", NULL));
  if (_i == 1)
    ck_assert_ptr_eq(bl_kernels_get(), first);
}
END_TEST

int main(void) {
  Suite *s = suite_create("kernel");
  TCase *t = tcase_create("kernel");
  tcase_set_timeout(t, 60);
  tcase_add_loop_test(t, every_table_gives_the_bits_of_the_scalar_one, 0, (int)BL_COUNT_OF(calls));
  tcase_add_loop_test(t, all_halves_become_the_float_of_the_same_value, 0, 3);
  tcase_add_loop_test(t, floats_beside_every_rounding_boundary_become_the_nearest_half, 0, 3);
  tcase_add_loop_test(t, floats_from_all_over_become_the_nearest_half, 0, 3);
  tcase_add_test(t, sums_of_squares_follow_the_written_order);
  tcase_add_test(t, axpy_rounds_the_product_before_the_sum);
  tcase_add_test(t, one_bad_number_anywhere_is_found);
  tcase_add_test(t, clip_keeps_nan_and_the_sign_of_zero);
  tcase_add_test(t, tables_are_chosen_by_name);
  tcase_add_loop_test(t, environment_names_the_table_and_a_wrong_name_is_ignored, 0, 2);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
