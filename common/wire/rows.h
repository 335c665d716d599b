/* SPDX-License-Identifier: Apache-2.0
 *
 * Row frames: which rows of a table's bucket a message is about, and their numbers.
 *
 *   offset  size
 *   0       1     version of this format, 1
 *   1       1     flags: bit 0 keys follow, bit 1 numbers follow
 *   2       2     reserved, 0
 *   4       4     number of rows, at least 1
 *   8       4     numbers per row
 *   12      4     bytes of the keys, 0 when they do not follow
 *   16      8     XXH3-64 of the keys' bytes, seeded with bytes 4..11 read as one little-endian word
 *   24      ...   keys
 *   ...     ...   numbers: a codec frame (codec/codec.h) of rows x numbers per row
 *
 * A row is known within its bucket by its run (job/tensors.h). Keys are the runs in rising order: the first as
 * it is, every further one less the one before less 1; each in LEB128, seven bits a byte, lowest first, no
 * longer than needed. So one list has one form, its checksum stands for it, and what can be read always rises.
 * Who has the list already is told the checksum only.
 *
 * Example, runs 3, 5 and 305 of a table of width 1, without numbers:
 *
 *   01 01 0000 03000000 01000000 04000000 03ad9c3add1b3d36 03 01 ab02
 *
 * Pure functions on the caller's memory; any thread.
 */
#ifndef BL_WIRE_ROWS_H
#define BL_WIRE_ROWS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BL_ROWS_HEADER_BYTES 24
#define BL_ROWS_KEY_BYTES_MAX 6 /* runs are below 2^40 */

typedef enum bl_rows_flags {
  BL_ROWS_KEYS = 1,
  BL_ROWS_NUMBERS = 2,
} bl_rows_flags;

/* What stands for a list of keys. */
typedef struct bl_rows_id {
  uint32_t n_rows, width;
  uint64_t checksum;
} bl_rows_id;

typedef struct bl_rows_view {
  bl_rows_id id;
  const uint8_t *keys; /* NULL: not there */
  uint32_t key_bytes;
  const uint8_t *numbers; /* a codec frame, not looked at here; NULL: not there */
  size_t numbers_bytes;
} bl_rows_view;

/* Appends a key behind the one before it (first: prev = UINT64_MAX); at most BL_ROWS_KEY_BYTES_MAX bytes. */
static inline uint8_t *bl_rows_put_key(uint8_t *p, uint64_t prev, uint64_t key) {
  uint64_t v = key - (prev + 1);
  for (; v >= 0x80; v >>= 7)
    *p++ = (uint8_t)(v | 0x80);
  *p++ = (uint8_t)v;
  return p;
}

bl_rows_id bl_rows_id_of(const uint8_t *keys, uint32_t key_bytes, uint32_t n_rows, uint32_t width);
/* Writes the header, and the keys when there are any; returns where the numbers go. numbers: they will follow.
 */
uint8_t *bl_rows_put(uint8_t *out, const bl_rows_id *id, const uint8_t *keys, uint32_t key_bytes, bool numbers);

/* Checks a received frame but for the codec frame in it: header, sizes, width, at most rows_max rows, and,
 * where the keys are there, their form, checksum and that all are below n_runs. BL_ECORRUPT, BL_EMISMATCH
 * (width), BL_ELIMIT (rows), BL_EUNSUPPORTED (version). The view points into the frame. */
BL_MUST_CHECK bl_status bl_rows_open(const uint8_t *frame, size_t size, uint32_t width, uint32_t rows_max,
                                     uint64_t n_runs, bl_rows_view *ret_view, bl_error *err);

/* Where the numbers begin in a frame that has been checked: bytes from its start. */
size_t bl_rows_numbers_offset(const uint8_t *frame);

/* One row's numbers; to and from do not overlap. Rows are narrow more often than not: a call of memcpy costs more than it
 * copies. */
static inline void bl_rows_copy_row(float *restrict to, const float *restrict from, size_t width) {
  if (width == 1)
    *to = *from;
  else
    memcpy(to, from, width * sizeof *to);
}

/* Reads keys that have been checked, one after the other. */
typedef struct bl_rows_reader {
  const uint8_t *at;
  uint64_t prev;
} bl_rows_reader;

static inline bl_rows_reader bl_rows_read(const uint8_t *keys) {
  return (bl_rows_reader){keys, UINT64_MAX};
}
static inline uint64_t bl_rows_next(bl_rows_reader *r) {
  uint64_t v = *r->at & 0x7f;
  for (unsigned shift = 7; *r->at++ >= 0x80; shift += 7)
    v |= (uint64_t)(*r->at & 0x7f) << shift;
  return r->prev += v + 1;
}

#endif
