/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/select.h"

#include "base/num.h"
#include "base/rng.h"
#include "base/status.h"
#include "kernel/kernel.h"
#include "kernel/sparse.h"

#include <math.h>
#include <string.h>

#define BLOCK 1024
#define DIGIT_BITS 11
#define BINS (1u << DIGIT_BITS)

/* A magnitude has 31 bits: digits of 11, 10 and 10, from the top. */
static const struct {
  unsigned shift, bits;
} digits[] = {{20, 11}, {10, 10}, {0, 10}};

size_t bl_select_wanted(float density, size_t n) {
  double wanted = ceil((double)density * (double)n);
  return wanted < 1 ? BL_MIN(n, (size_t)1) : BL_MIN((size_t)wanted, n);
}

static void load(const bl_select_source *s, size_t at, size_t count, uint32_t *out) {
  bl_kernels_get()->sparse->magnitudes(out, s->x + at, s->residual == NULL ? NULL : s->residual + at,
                                       s->velocity == NULL ? NULL : s->velocity + at, s->momentum, count);
}

/* Of the magnitudes that begin with `prefix` (above shift + bits), how many have which digit next. */
static void count_digits(const uint32_t *size, size_t n, size_t step, uint32_t prefix, uint32_t *bins) {
  const unsigned shift = digits[step].shift, bits = digits[step].bits;
  const uint32_t mask = (1u << bits) - 1;
  if (step == 0) {
    for (size_t i = 0; i < n; i++)
      bins[size[i] >> shift]++;
    return;
  }
  for (size_t i = 0; i < n; i++) {
    if (size[i] >> (shift + bits) == prefix)
      bins[size[i] >> shift & mask]++;
  }
}

/* The digit of the kth largest; *k becomes its rank among those with this digit. */
static uint32_t pick_digit(const uint32_t *bins, uint32_t n_bins, size_t *k) {
  uint32_t digit = n_bins - 1;
  while (digit > 0 && bins[digit] < *k)
    *k -= bins[digit--];
  return digit;
}

static uint32_t kth_of(const uint32_t *size, size_t n, size_t k) {
  uint32_t prefix = 0, bins[BINS];
  for (size_t step = 0; step < BL_COUNT_OF(digits); step++) {
    memset(bins, 0, sizeof bins);
    count_digits(size, n, step, prefix, bins);
    prefix = prefix << digits[step].bits | pick_digit(bins, 1u << digits[step].bits, &k);
  }
  return BL_MAX(prefix, 1u);
}

uint32_t bl_select_kth(const bl_select_source *s, size_t k) {
  uint32_t prefix = 0, bins[BINS], size[BLOCK];
  for (size_t step = 0; step < BL_COUNT_OF(digits); step++) {
    memset(bins, 0, sizeof bins);
    for (size_t at = 0, count; at < s->n; at += count) {
      count = BL_MIN(s->n - at, (size_t)BLOCK);
      load(s, at, count, size);
      count_digits(size, count, step, prefix, bins);
    }
    prefix = prefix << digits[step].bits | pick_digit(bins, 1u << digits[step].bits, &k);
  }
  return BL_MAX(prefix, 1u);
}

/* One run in each of equal strata. n is larger than what is sampled. */
static void sample(const bl_select_source *s, uint64_t key, size_t n_samples, uint32_t *out) {
  const size_t n_runs = n_samples / BL_SELECT_RUN, n_lines = s->n / BL_SELECT_RUN;
  for (size_t run = 0; run < n_runs; run++) {
    size_t first = run * n_lines / n_runs, end = (run + 1) * n_lines / n_runs;
    uint32_t r = bl_rng_philox(key, run / 4, 0x73616d706cu).v[run % 4];
    size_t line = first + (size_t)((uint64_t)r * (end - first) >> 32);
    load(s, line * BL_SELECT_RUN, BL_SELECT_RUN, out + run * BL_SELECT_RUN);
  }
}

static float float_of(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

float bl_select_exact(const bl_select_source *s, float density) {
  return s->n == 0 ? float_of(1) : float_of(bl_select_kth(s, bl_select_wanted(density, s->n)));
}

float bl_select_sampled(const bl_select_source *s, float density, uint64_t key) {
  uint32_t size[BL_SELECT_SAMPLES];
  if (s->n <= BL_SELECT_SAMPLES)
    return bl_select_exact(s, density);
  sample(s, key, BL_SELECT_SAMPLES, size);
  return float_of(kth_of(size, BL_SELECT_SAMPLES, bl_select_wanted(density, BL_SELECT_SAMPLES)));
}

/* Three standard deviations more than expected. */
uint32_t bl_select_low_guess(const bl_select_source *s, size_t k, uint64_t key) {
  uint32_t size[BL_SELECT_SAMPLES / 4];
  const size_t n_samples = BL_COUNT_OF(size);
  if (s->n <= n_samples)
    return bl_select_kth(s, k);
  sample(s, key, n_samples, size);
  double expected = (double)k / (double)s->n * (double)n_samples;
  return kth_of(size, n_samples, BL_MIN((size_t)(expected + 3 * sqrt(expected)) + 2, n_samples));
}
