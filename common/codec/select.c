/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/select.h"

#include "base/num.h"
#include "base/rng.h"
#include "base/status.h"
#include "kernel/kernel.h"
#include "kernel/sparse.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define BLOCK 1024
#define COUNTER_LOW 0x73616d706cu /* apart from the counters of rounding */
#define FEW 4096
#define ABOVE_SHIFT 12 /* 2^23 patterns are an octave */
#define ABOVE_FEW 1024
#define SORTED 32
#define GUESS_RUN 64 /* of one chunk: fewer pages are touched */
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

static uint32_t kth_by_sorting(uint32_t *size, size_t n, size_t k) {
  for (size_t i = 1; i < n; i++) {
    uint32_t v = size[i];
    size_t at = i;
    for (; at > 0 && size[at - 1] < v; at--)
      size[at] = size[at - 1];
    size[at] = v;
  }
  return size[k - 1];
}

/* The rest of the digits, out of the magnitudes that begin with `prefix`. */
static uint32_t finish_kth(uint32_t *size, size_t n, size_t step, uint32_t prefix, size_t k) {
  uint32_t bins[BINS];
  if (n <= SORTED)
    return BL_MAX(kth_by_sorting(size, n, k), 1u);
  for (; step < BL_COUNT_OF(digits); step++) {
    memset(bins, 0, sizeof bins[0] << digits[step].bits);
    count_digits(size, n, step, prefix, bins);
    prefix = prefix << digits[step].bits | pick_digit(bins, 1u << digits[step].bits, &k);
  }
  return BL_MAX(prefix, 1u);
}

static size_t copy_those_with(const uint32_t *size, size_t n, uint32_t prefix, uint32_t *out) {
  size_t count = 0;
  for (size_t i = 0; i < n; i++) {
    out[count] = size[i];
    count += size[i] >> digits[0].shift == prefix;
  }
  return count;
}

/* One pass for each digit; but when few share the digits so far these are copied, and the rest is done with them. */
uint32_t bl_select_kth(const bl_select_source *s, size_t k) {
  uint32_t prefix = 0, bins[BINS], size[BLOCK], few[FEW + BLOCK];
  size_t n_few = SIZE_MAX;
  for (size_t step = 0; step < BL_COUNT_OF(digits); step++) {
    const bool narrow = n_few <= FEW;
    size_t copied = 0;
    memset(bins, 0, sizeof bins);
    for (size_t at = 0, count; at < s->n; at += count) {
      count = BL_MIN(s->n - at, (size_t)BLOCK);
      load(s, at, count, size);
      if (narrow)
        copied += copy_those_with(size, count, prefix, few + copied);
      else
        count_digits(size, count, step, prefix, bins);
    }
    if (narrow)
      return finish_kth(few, copied, step, prefix, k);
    uint32_t digit = pick_digit(bins, 1u << digits[step].bits, &k);
    n_few = step == 0 ? bins[digit] : SIZE_MAX;
    prefix = prefix << digits[step].bits | digit;
  }
  return BL_MAX(prefix, 1u);
}

static uint32_t above_bin(uint32_t size, uint32_t least) { return BL_MIN((size - least) >> ABOVE_SHIFT, BINS - 1); }

/* Bins over one octave from `least` on: what was picked by a threshold lies densely there, and would go into few of the
 * bins for all magnitudes, where each count waits for the one before. The last bin has the rest. */
uint32_t bl_select_kth_above(const float *x, size_t n, size_t k, uint32_t least) {
  const bl_select_source source = {.x = x, .n = n};
  uint32_t bins[BINS] = {0}, size[BLOCK], few[ABOVE_FEW + 1];
  size_t rank = k, copied = 0;
  for (size_t at = 0, count; at < n; at += count) {
    count = BL_MIN(n - at, (size_t)BLOCK);
    load(&source, at, count, size);
    for (size_t i = 0; i < count; i++)
      bins[above_bin(size[i], least)]++;
  }
  const uint32_t bin = pick_digit(bins, BINS, &rank);
  if (bin == BINS - 1 || bins[bin] > ABOVE_FEW)
    return bl_select_kth(&source, k);
  for (size_t at = 0, count; at < n; at += count) {
    count = BL_MIN(n - at, (size_t)BLOCK);
    load(&source, at, count, size);
    for (size_t i = 0; i < count; i++) {
      few[copied] = size[i];
      copied += above_bin(size[i], least) == bin;
    }
  }
  return finish_kth(few, copied, 0, 0, rank);
}

/* The kth largest of a list of magnitudes, which read as numbers have themselves as magnitudes. */
static uint32_t kth_of(const uint32_t *size, size_t n, size_t k) {
  return bl_select_kth(&(bl_select_source){.x = (const float *)(const void *)size, .n = n}, k);
}

/* One run in each of equal strata. n is larger than what is sampled. */
static void sample(const bl_select_source *s, uint64_t key, size_t n_samples, size_t run_elems, uint32_t *out) {
  const size_t n_runs = n_samples / run_elems, n_lines = s->n / run_elems;
  bl_rng_block words = {{0}};
  for (size_t run = 0; run < n_runs; run++) {
    size_t first = run * n_lines / n_runs, end = (run + 1) * n_lines / n_runs;
    if (run % 4 == 0)
      words = bl_rng_philox(key, run / 4, COUNTER_LOW);
    size_t line = first + (size_t)((uint64_t)words.v[run % 4] * (end - first) >> 32);
    load(s, line * run_elems, run_elems, out + run * run_elems);
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
  sample(s, key, BL_SELECT_SAMPLES, BL_SELECT_RUN, size);
  return float_of(kth_of(size, BL_SELECT_SAMPLES, bl_select_wanted(density, BL_SELECT_SAMPLES)));
}

/* Some standard deviations more than expected: a guess that is too high costs another search, one that is too low only
 * a longer list. */
uint32_t bl_select_low_guess(const bl_select_source *s, size_t k, uint64_t key) {
  uint32_t size[BL_SELECT_SAMPLES / 4];
  const size_t n_samples = BL_COUNT_OF(size);
  if (s->n <= n_samples)
    return bl_select_kth(s, k);
  sample(s, key, n_samples, GUESS_RUN, size);
  double expected = (double)k / (double)s->n * (double)n_samples;
  return kth_of(size, n_samples, BL_MIN((size_t)(expected + 2.5 * sqrt(expected)) + 2, n_samples));
}
