/* SPDX-License-Identifier: Apache-2.0
 *
 * Row store of a bucket.
 *
 * While cells move from the old index to the new one, a run stands in one of them or in both with the same
 * slot: nothing is ever taken out, so a search that looks into both finds it.
 */
#include "server/table.h"

#include "base/alloc.h"
#include "base/num.h"

#include <stdlib.h>

#define FIRST_BLOCK_BYTES 4096
#define INDEX_BITS_MIN 6
#define CELLS_MOVED_PER_ADD 8 /* 2 would do: the index fills up by a third while its old half moves */

void srv_table_init(srv_table *t, uint32_t width, uint32_t n_slots) {
  *t = (srv_table){.width = width, .n_slots = n_slots, .stride = 1 + width * (1 + n_slots)};
  while ((size_t)t->stride * sizeof(float) << (t->base_bits + 1) <= FIRST_BLOCK_BYTES)
    t->base_bits++;
}

void srv_table_fini(srv_table *t) {
  for (uint32_t i = 0; i < t->n_blocks; i++)
    bl_free_aligned(t->blocks[i]);
  bl_free_aligned(t->index.cells);
  bl_free_aligned(t->old.cells);
  *t = (srv_table){0};
}

/* ---- index ---- */

static uint64_t place_of(const srv_table_index *x, uint64_t run) {
  uint64_t h = (run ^ x->salt) * UINT64_C(0xd6e8feb86659fd93);
  return ((h ^ (h >> 32) ^ x->salt) * UINT64_C(0xd6e8feb86659fd93)) >> (64 - x->bits);
}

/* Where the run stands, or the free cell where it would. */
static uint64_t *probe(const srv_table_index *x, uint64_t run) {
  uint64_t mask = (UINT64_C(1) << x->bits) - 1, at = place_of(x, run);
  while (x->cells[at] != 0 && srv_table_run_of(x->cells[at]) != run)
    at = (at + 1) & mask;
  return &x->cells[at];
}

uint32_t srv_table_find(const srv_table *t, uint64_t run) {
  if (t->index.cells == NULL)
    return SRV_NO_ROW;
  uint64_t cell = *probe(&t->index, run);
  if (cell == 0 && t->old.cells != NULL)
    cell = *probe(&t->old, run);
  return cell != 0 ? srv_table_slot_of(cell) : SRV_NO_ROW;
}

void srv_table_expect(const srv_table *t, uint64_t run) {
  if (t->index.cells != NULL)
    __builtin_prefetch(&t->index.cells[place_of(&t->index, run)]);
}

static void move_cells(srv_table *t, uint64_t n) {
  if (t->old.cells == NULL)
    return;
  uint64_t end = UINT64_C(1) << t->old.bits;
  for (; n > 0 && t->n_moved < end; n--, t->n_moved++) {
    uint64_t cell = t->old.cells[t->n_moved];
    if (cell != 0)
      *probe(&t->index, srv_table_run_of(cell)) = cell;
  }
  if (t->n_moved < end)
    return;
  t->bytes -= sizeof(uint64_t) << t->old.bits;
  bl_free_aligned(t->old.cells);
  t->old = (srv_table_index){0};
}

/* Two thirds full at most. */
static uint32_t bits_for(const srv_table *t, uint64_t n_rows) {
  uint32_t bits = BL_MAX(t->index.bits, INDEX_BITS_MIN);
  while (n_rows * 3 > UINT64_C(2) << bits)
    bits++;
  return bits;
}

static bl_status reserve_index(srv_table *t, uint64_t n_rows) {
  uint32_t bits = bits_for(t, n_rows);
  if (t->index.cells != NULL && bits == t->index.bits)
    return BL_OK;
  uint64_t *cells = bl_calloc_aligned(UINT64_C(1) << bits, sizeof *cells);
  if (cells == NULL)
    return BL_ENOMEM;
  move_cells(t, UINT64_MAX); /* nothing left, unless very much is reserved at once */
  t->old = t->index;
  t->n_moved = 0;
  /* The system places memory at random. Where cells stand never shows in a result: rows are told in their
   * order. */
  t->index = (srv_table_index){cells, bits, (uint64_t)(uintptr_t)cells * UINT64_C(0x9e3779b97f4a7c15)};
  t->bytes += sizeof *cells << bits;
  return BL_OK;
}

/* ---- records ---- */

static uint64_t block_rows(const srv_table *t, uint32_t block) {
  return (UINT64_C(1) << t->base_bits) << (block == 0 ? 0 : block - 1);
}

static bl_status reserve_blocks(srv_table *t, uint64_t n_rows) {
  while (t->n_room < n_rows) {
    BL_ASSERT(t->n_blocks < SRV_TABLE_BLOCKS_MAX);
    uint64_t rows = block_rows(t, t->n_blocks);
    float *block = bl_calloc_aligned(rows * t->stride, sizeof(float));
    if (block == NULL)
      return BL_ENOMEM;
    t->blocks[t->n_blocks++] = block;
    t->n_room += rows;
    t->bytes += rows * t->stride * sizeof(float);
  }
  return BL_OK;
}

uint64_t srv_table_bytes_for(const srv_table *t, uint64_t n_rows) {
  uint64_t bytes = t->bytes, room = t->n_room;
  uint32_t bits = bits_for(t, n_rows);
  if (t->index.cells == NULL || bits != t->index.bits)
    bytes += sizeof(uint64_t) << bits;
  for (uint32_t block = t->n_blocks; room < n_rows && block < SRV_TABLE_BLOCKS_MAX; block++) {
    room += block_rows(t, block);
    bytes += block_rows(t, block) * t->stride * sizeof(float);
  }
  return bytes;
}

bl_status srv_table_reserve(srv_table *t, uint64_t n_rows) {
  if (n_rows > SRV_TABLE_ROWS_MAX)
    return BL_ELIMIT;
  bl_status st = reserve_blocks(t, n_rows);
  return st == BL_OK ? reserve_index(t, n_rows) : st;
}

uint32_t srv_table_add(srv_table *t, uint64_t run) {
  uint64_t *cell = probe(&t->index, run);
  BL_ASSERT(*cell == 0 && t->n_rows < t->n_room);
  *cell = run << 24 | (t->n_rows + 1);
  move_cells(t, CELLS_MOVED_PER_ADD);
  return t->n_rows++;
}

/* ---- order ---- */

static int compare_cells(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static uint64_t take_cells(const srv_table_index *x, uint64_t first, uint64_t *out) {
  uint64_t n = 0;
  for (uint64_t i = first; x->cells != NULL && i < UINT64_C(1) << x->bits; i++)
    if (x->cells[i] != 0)
      out[n++] = x->cells[i];
  return n;
}

uint64_t *srv_table_sorted(const srv_table *t) {
  uint64_t *out = t->n_rows > 0 ? bl_malloc(t->n_rows * sizeof *out) : NULL;
  if (out == NULL)
    return NULL;
  uint64_t n = take_cells(&t->index, 0, out);
  n += take_cells(&t->old, t->n_moved, out + n); /* those before n_moved stand in the new one */
  BL_ASSERT(n == t->n_rows);
  qsort(out, n, sizeof *out, compare_cells);
  return out;
}
