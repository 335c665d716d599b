/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a row frame: refused, or read without touching memory that is not theirs; its keys rise, are
 * below the bound, and written again give the same bytes. Each input is tried as it is and with its checksum
 * made right, since no fuzzer guesses one.
 */
#include "base/alloc.h"
#include "base/le.h"
#include "wire/rows.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 4096
#define RUNS (UINT64_C(1) << 40)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_keys(const bl_rows_view *v) {
  uint8_t *again = bl_malloc((size_t)v->id.n_rows * BL_ROWS_KEY_BYTES_MAX), *p = again;
  if (again == NULL)
    abort();
  bl_rows_reader r = bl_rows_read(v->keys);
  uint64_t prev = UINT64_MAX;
  for (uint32_t i = 0; i < v->id.n_rows; i++) {
    uint64_t key = bl_rows_next(&r);
    if (key >= RUNS || (i > 0 && key <= prev))
      abort();
    p = bl_rows_put_key(p, prev, key);
    prev = key;
  }
  if (r.at != v->keys + v->key_bytes || p != again + v->key_bytes || memcmp(again, v->keys, v->key_bytes) != 0)
    abort();
  bl_free(again);
}

static void try_frame(const uint8_t *frame, size_t size) {
  bl_rows_view v;
  bl_error err = BL_ERROR_INIT;
  uint32_t width = size >= BL_ROWS_HEADER_BYTES ? bl_le_get32(frame + 8) : 1;
  bl_status st = bl_rows_open(frame, size, width, ROWS_MAX, RUNS, &v, &err);
  if (st != BL_OK && err.text[0] == '\0')
    abort();
  if (st != BL_OK)
    return;
  if (v.id.n_rows == 0 || v.id.n_rows > ROWS_MAX ||
      v.key_bytes + v.numbers_bytes + BL_ROWS_HEADER_BYTES != size)
    abort();
  if (v.keys != NULL)
    check_keys(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try_frame(data, size);
  if (size < BL_ROWS_HEADER_BYTES)
    return 0;
  uint8_t *sealed = bl_malloc(size);
  if (sealed == NULL)
    abort();
  memcpy(sealed, data, size);
  uint32_t key_bytes = bl_le_get32(data + 12);
  if (key_bytes <= size - BL_ROWS_HEADER_BYTES) {
    bl_rows_id id =
        bl_rows_id_of(data + BL_ROWS_HEADER_BYTES, key_bytes, bl_le_get32(data + 4), bl_le_get32(data + 8));
    bl_le_put64(sealed + 16, id.checksum);
  }
  try_frame(sealed, size);
  bl_free(sealed);
  return 0;
}
