/* SPDX-License-Identifier: Apache-2.0
 *
 * A click log with a known truth: rows of 39 categorical fields whose values are as skewed as those of real
 * logs, and a label drawn from a logistic model over the hashed fields. So the best log loss that anybody can
 * reach is known.
 *
 * The values 0 to 2^J - 2 of a field lie in J octaves, octave j holding [2^j - 1, 2^(j+1) - 2]; octave j has a
 * share in proportion to ratio^j, within an octave all values are alike: a power law in steps, which needs no
 * table, no pow and gives the same bits everywhere. Batches of 256, 1024 and 4096 rows hold 29, 20.5 and 15 %
 * distinct slots.
 *
 * A row is a function of (seed, part, row). Threads: read-only after wk_clicks_new.
 */
#ifndef WK_DATA_GEN_CLICKS_H
#define WK_DATA_GEN_CLICKS_H

#include "base/status.h"

#include <stdint.h>

#define WK_CLICKS_FIELDS 39
#define WK_CLICKS_BITS_MAX 28 /* of slots: the truth has a weight for each */
#define WK_CLICKS_TEXT_BYTES 9

typedef struct wk_clicks wk_clicks;

/* bits: of slots, 1 to WK_CLICKS_BITS_MAX. */
BL_MUST_CHECK bl_status wk_clicks_new(uint64_t seed, unsigned bits, wk_clicks **ret_clicks, bl_error *err);
void wk_clicks_free(wk_clicks *c);

typedef struct wk_click {
  uint32_t values[WK_CLICKS_FIELDS]; /* the category of each field, from 0 */
  uint32_t slots[WK_CLICKS_FIELDS];  /* wk_hash_slot of its text, with seed 0 and the column's name */
  double z;                          /* the true log odds */
  uint8_t label;
} wk_click;

/* part: 0 training, 1 test. row: below 2^48. */
void wk_clicks_row(const wk_clicks *c, uint32_t part, uint64_t row, wk_click *ret_row);

const char *wk_clicks_column(unsigned field); /* "c01" to "c39" */
void wk_clicks_text(uint32_t value,
                    char out[WK_CLICKS_TEXT_BYTES]); /* of a category: eight hexadecimal digits */

/* What the truth itself scores on rows: sums. */
typedef struct wk_click_truth {
  uint64_t n, positives, correct;
  double entropy;  /* expected log loss of the true probabilities */
  double log_loss; /* of the true probabilities on the labels that were drawn */
} wk_click_truth;

void wk_click_truth_add(wk_click_truth *t, const wk_click *row);

#endif
