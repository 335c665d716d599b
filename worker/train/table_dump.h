/* SPDX-License-Identifier: Apache-2.0
 *
 * Collects the rows of a table as shards hand them over, bucket by bucket, and puts them in order. Threads:
 * one.
 */
#ifndef WK_TRAIN_TABLE_DUMP_H
#define WK_TRAIN_TABLE_DUMP_H

#include "ckpt/safetensors.h"

typedef struct wk_table_dump {
  uint32_t width;
  uint64_t n, capacity;
  uint64_t *rows; /* [capacity]; owned, as values */
  float *values;  /* [capacity, width] */
  bool failed;    /* no memory for what came */
} wk_table_dump;

void wk_table_dump_init(wk_table_dump *d, uint32_t width);
void wk_table_dump_fini(wk_table_dump *d);
/* A bl_on_rows_fn; arg: the dump. */
void wk_table_dump_on_rows(const uint64_t *rows, uint32_t n, const float *values, void *arg);
/* Hands over what came, by ascending row; each row must have come once. *d is empty then, ready for use.
 * BL_ENOMEM. */
BL_MUST_CHECK bl_status wk_table_dump_finish(wk_table_dump *d, bl_saved_rows *ret_rows);

#endif
