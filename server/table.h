/* SPDX-License-Identifier: Apache-2.0
 *
 * The rows of one bucket of a table: from a run (job/tensors.h) to a row's weights and optimizer slots. Rows
 * are added and never taken away; a row's slot is its number in the order of adding, and its record never
 * moves.
 *
 * Memory: records stand in blocks, each twice as large as all before it, so that growing copies nothing. The
 * index is open addressing over cells of (run, slot); when it grows, cells move over a few with every row
 * added.
 *
 * A record is `mark` (a number for the caller, 0 at the start), width weights, then width numbers per slot of
 * the optimizer, zero at the start. The weights of a new row are the caller's to fill.
 *
 * Threads: the shard's.
 */
#ifndef SRV_TABLE_H
#define SRV_TABLE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define SRV_TABLE_ROWS_MAX ((1u << 24) - 1) /* of one bucket */
#define SRV_TABLE_BLOCKS_MAX 25
#define SRV_NO_ROW UINT32_MAX

typedef struct srv_table_index {
  uint64_t *cells; /* owned; run << 24 | slot + 1; 0: free */
  uint32_t bits;   /* log2 of their number */
  uint64_t salt;   /* of the hash: nobody outside can choose rows that meet in it */
} srv_table_index;

typedef struct srv_table {
  uint32_t width, n_slots;
  uint32_t stride;    /* of a record, in float32 */
  uint32_t base_bits; /* log2 of the rows of the first block */
  uint32_t n_rows;
  uint64_t n_room; /* rows that the blocks have room for */
  uint32_t n_blocks;
  float *blocks[SRV_TABLE_BLOCKS_MAX]; /* owned */
  srv_table_index index, old;          /* old: being moved into index */
  uint64_t n_moved;                    /* cells of old */
  uint64_t bytes;                      /* of blocks and index */
} srv_table;

void srv_table_init(srv_table *t, uint32_t width, uint32_t n_slots);
void srv_table_fini(srv_table *t);

/* Room for n_rows in all, so that adding up to there cannot fail. BL_ENOMEM; BL_ELIMIT above
 * SRV_TABLE_ROWS_MAX. */
BL_MUST_CHECK bl_status srv_table_reserve(srv_table *t, uint64_t n_rows);
/* What the table would take then. */
uint64_t srv_table_bytes_for(const srv_table *t, uint64_t n_rows);

uint32_t srv_table_find(const srv_table *t, uint64_t run); /* SRV_NO_ROW */
/* A row will be looked for, or its record read, some rows from now: a miss of the cache takes longer than all
 * the rest. */
void srv_table_expect(const srv_table *t, uint64_t run);
/* A run that is not there yet; room was reserved. */
uint32_t srv_table_add(srv_table *t, uint64_t run);

static inline float *srv_table_record(const srv_table *t, uint32_t slot) {
  uint32_t s = slot >> t->base_bits;
  uint32_t block = s == 0 ? 0 : 32 - (uint32_t)__builtin_clz(s);
  uint32_t first = s == 0 ? 0 : (UINT32_C(1) << (block - 1)) << t->base_bits;
  return t->blocks[block] + (size_t)(slot - first) * t->stride;
}
static inline void srv_table_expect_record(const srv_table *t, uint32_t slot) {
  if (slot < t->n_rows)
    __builtin_prefetch(srv_table_record(t, slot));
}
static inline float *srv_table_weights(const srv_table *t, uint32_t slot) {
  return srv_table_record(t, slot) + 1;
}
static inline uint32_t srv_table_mark(const float *record) {
  uint32_t mark;
  memcpy(&mark, record, sizeof mark);
  return mark;
}
static inline void srv_table_set_mark(float *record, uint32_t mark) {
  memcpy(record, &mark, sizeof mark);
}

/* All rows by rising run: run << 24 | slot + 1; [n_rows], the caller frees it with bl_free. NULL: no memory (or
 * no row). */
uint64_t *srv_table_sorted(const srv_table *t);
static inline uint64_t srv_table_run_of(uint64_t cell) {
  return cell >> 24;
}
static inline uint32_t srv_table_slot_of(uint64_t cell) {
  return (uint32_t)(cell & SRV_TABLE_ROWS_MAX) - 1;
}

#endif
