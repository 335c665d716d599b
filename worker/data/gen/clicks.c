/* SPDX-License-Identifier: Apache-2.0
 *
 * Two random words per field, one for the octave and one for the value in it, from blocks of four; one more
 * block draws the label. Everything that decides a byte of the files is made of integer arithmetic and of float
 * operations that are rounded alike everywhere.
 */
#include "data/gen/clicks.h"

#include "data/hash.h"
#include "nn/math.h"

#include "base/alloc.h"
#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>

#define OCTAVES_MAX 20
#define WEIGHT_DEVIATION 0.2f
#define INTERCEPT (-1.0)
#define WEIGHT_STREAM (UINT64_C(1) << 56) /* apart from the rows of any part */
#define BLOCKS ((2 * WK_CLICKS_FIELDS + 3) / 4)

static const struct {
  unsigned n_fields, octaves;
  double ratio;
} groups[] = {{20, 4, 0.7}, {10, 12, 0.85}, {9, OCTAVES_MAX, 0.92}};

static const char columns[WK_CLICKS_FIELDS][4] = {
    "c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09", "c10", "c11", "c12", "c13",
    "c14", "c15", "c16", "c17", "c18", "c19", "c20", "c21", "c22", "c23", "c24", "c25", "c26",
    "c27", "c28", "c29", "c30", "c31", "c32", "c33", "c34", "c35", "c36", "c37", "c38", "c39"};

typedef struct field {
  unsigned octaves;
  uint32_t below[OCTAVES_MAX]; /* the octave is the first one whose bound is above the random word; the last has
                                  none */
  uint64_t column_seed;
} field;

struct wk_clicks {
  uint64_t key;
  unsigned bits;
  field fields[WK_CLICKS_FIELDS];
  float *weights; /* [2^bits], owned */
};

static void field_init(field *f, unsigned octaves, double ratio, const char *column) {
  double total = 0, share = 1, sum = 0;
  for (unsigned j = 0; j < octaves; j++, share *= ratio)
    total += share;
  share = 1;
  for (unsigned j = 0; j < octaves; j++, share *= ratio) {
    sum += share;
    f->below[j] = (uint32_t)BL_MIN(sum / total * 0x1p32, 4294967295.0);
  }
  f->octaves = octaves;
  f->column_seed = wk_hash_column(0, column);
}

bl_status wk_clicks_new(uint64_t seed, unsigned bits, wk_clicks **ret_clicks, bl_error *err) {
  if (bits < 1 || bits > WK_CLICKS_BITS_MAX)
    return bl_fail(err, BL_EINVAL, "%u bits of slots, 1 to %d are allowed", bits, WK_CLICKS_BITS_MAX);
  uint64_t n = UINT64_C(1) << bits;
  wk_clicks *c = bl_calloc(1, sizeof *c);
  float *weights = bl_malloc(n * sizeof *weights);
  if (c == NULL || weights == NULL) {
    bl_free(c);
    bl_free(weights);
    return bl_fail(err, BL_ENOMEM, "no memory for the %llu weights of the truth", (unsigned long long)n);
  }
  *c = (wk_clicks){.key = bl_rng_key(seed, BL_RNG_DATA), .bits = bits, .weights = weights};
  unsigned f = 0;
  for (size_t g = 0; g < BL_COUNT_OF(groups); g++)
    for (unsigned i = 0; i < groups[g].n_fields; i++, f++)
      field_init(&c->fields[f], groups[g].octaves, groups[g].ratio, columns[f]);
  BL_ASSERT(f == WK_CLICKS_FIELDS);
  for (uint64_t slot = 0; slot < n; slot++)
    weights[slot] = bl_rng_normal(c->key, WEIGHT_STREAM, slot) * WEIGHT_DEVIATION;
  *ret_clicks = c;
  return BL_OK;
}

void wk_clicks_free(wk_clicks *c) {
  if (c == NULL)
    return;
  bl_free(c->weights);
  bl_free(c);
}

const char *wk_clicks_column(unsigned f) {
  return columns[f];
}

void wk_clicks_text(uint32_t value, char out[WK_CLICKS_TEXT_BYTES]) {
  for (int i = 7; i >= 0; i--, value >>= 4)
    out[i] = "0123456789abcdef"[value & 15];
  out[8] = '\0';
}

static uint32_t draw_value(const field *f, uint32_t octave_word, uint32_t value_word) {
  unsigned j = 0;
  while (j + 1 < f->octaves && octave_word >= f->below[j])
    j++;
  uint32_t size = UINT32_C(1) << j;
  return size - 1 + (value_word & (size - 1));
}

void wk_clicks_row(const wk_clicks *c, uint32_t part, uint64_t row, wk_click *ret_row) {
  uint64_t hi = (uint64_t)part << 48 | row;
  uint32_t words[4 * BLOCKS];
  char text[WK_CLICKS_TEXT_BYTES];
  for (unsigned b = 0; b < BLOCKS; b++) {
    bl_rng_block block = bl_rng_philox(c->key, hi, b);
    for (unsigned k = 0; k < 4; k++)
      words[4 * b + k] = block.v[k];
  }
  double z = INTERCEPT;
  for (unsigned f = 0; f < WK_CLICKS_FIELDS; f++) {
    uint32_t value = draw_value(&c->fields[f], words[2 * f], words[2 * f + 1]);
    wk_clicks_text(value, text);
    uint32_t slot = (uint32_t)wk_hash_slot(c->fields[f].column_seed, text, WK_CLICKS_TEXT_BYTES - 1, c->bits);
    ret_row->values[f] = value;
    ret_row->slots[f] = slot;
    z += (double)c->weights[slot];
  }
  ret_row->z = z;
  ret_row->label = bl_rng_unit(c->key, hi, BLOCKS) < wk_sigmoidf((float)z);
}

void wk_click_truth_add(wk_click_truth *t, const wk_click *row) {
  double z = row->z, p = 1 / (1 + exp(-z));
  double log_p = z > 0 ? -log1p(exp(-z)) : z - log1p(exp(z)), log_q = log_p - z;
  t->n++;
  t->positives += row->label;
  t->correct += (z >= 0) == (row->label == 1);
  t->entropy -= p * log_p + (1 - p) * log_q;
  t->log_loss -= row->label == 1 ? log_p : log_q;
}
