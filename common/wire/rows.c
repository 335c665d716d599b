/* SPDX-License-Identifier: Apache-2.0
 *
 * Row frames: written, and judged when received.
 */
#include "wire/rows.h"

#include "base/checksum.h"
#include "base/le.h"

#include <inttypes.h>
#include <string.h>

enum {
  OFF_VERSION = 0,
  OFF_FLAGS = 1,
  OFF_RESERVED = 2,
  OFF_ROWS = 4,
  OFF_WIDTH = 8,
  OFF_KEY_BYTES = 12,
  OFF_CHECKSUM = 16
};

#define FORMAT_VERSION 1
#define FLAGS_KNOWN (BL_ROWS_KEYS | BL_ROWS_NUMBERS)

bl_rows_id bl_rows_id_of(const uint8_t *keys, uint32_t key_bytes, uint32_t n_rows, uint32_t width) {
  return (bl_rows_id){n_rows, width, bl_checksum_seeded(keys, key_bytes, n_rows | (uint64_t)width << 32)};
}

uint8_t *bl_rows_put(uint8_t *out, const bl_rows_id *id, const uint8_t *keys, uint32_t key_bytes,
                     bool numbers) {
  out[OFF_VERSION] = FORMAT_VERSION;
  out[OFF_FLAGS] = (uint8_t)((keys != NULL ? BL_ROWS_KEYS : 0) | (numbers ? BL_ROWS_NUMBERS : 0));
  bl_le_put16(out + OFF_RESERVED, 0);
  bl_le_put32(out + OFF_ROWS, id->n_rows);
  bl_le_put32(out + OFF_WIDTH, id->width);
  bl_le_put32(out + OFF_KEY_BYTES, keys != NULL ? key_bytes : 0);
  bl_le_put64(out + OFF_CHECKSUM, id->checksum);
  out += BL_ROWS_HEADER_BYTES;
  if (keys == NULL)
    return out;
  memcpy(out, keys, key_bytes);
  return out + key_bytes;
}

static bl_status check_header(const uint8_t *frame, size_t size, uint32_t width, uint32_t rows_max,
                              bl_error *err) {
  if (size < BL_ROWS_HEADER_BYTES)
    return bl_fail(err, BL_ECORRUPT, "row frame of %zu bytes is shorter than its header of %d", size,
                   BL_ROWS_HEADER_BYTES);
  if (frame[OFF_VERSION] != FORMAT_VERSION)
    return bl_fail(err, BL_EUNSUPPORTED, "row frame of version %u, this build knows %d", frame[OFF_VERSION],
                   FORMAT_VERSION);
  if ((frame[OFF_FLAGS] & ~(unsigned)FLAGS_KNOWN) != 0 || bl_le_get16(frame + OFF_RESERVED) != 0)
    return bl_fail(err, BL_ECORRUPT, "row frame has unknown flags 0x%02x or reserved bytes 0x%04x",
                   frame[OFF_FLAGS], bl_le_get16(frame + OFF_RESERVED));
  uint32_t n_rows = bl_le_get32(frame + OFF_ROWS);
  if (n_rows == 0 || n_rows > rows_max)
    return bl_fail(err, BL_ELIMIT, "row frame of %" PRIu32 " rows; allowed: 1 to %" PRIu32, n_rows, rows_max);
  if (bl_le_get32(frame + OFF_WIDTH) != width)
    return bl_fail(err, BL_EMISMATCH, "row frame with %" PRIu32 " numbers per row, the table has %" PRIu32,
                   bl_le_get32(frame + OFF_WIDTH), width);
  return BL_OK;
}

/* One number of at most BL_ROWS_KEY_BYTES_MAX bytes, in its shortest form. */
static bool get_number(const uint8_t **at, const uint8_t *end, uint64_t *ret_v) {
  uint64_t v = 0;
  for (unsigned i = 0; i < BL_ROWS_KEY_BYTES_MAX && *at < end; i++) {
    uint8_t byte = *(*at)++;
    v |= (uint64_t)(byte & 0x7f) << (7 * i);
    if (byte >= 0x80)
      continue;
    *ret_v = v;
    return byte != 0 || i == 0;
  }
  return false;
}

static bl_status check_keys(const bl_rows_view *v, uint64_t n_runs, bl_error *err) {
  const uint8_t *at = v->keys, *end = v->keys + v->key_bytes;
  uint64_t next = 0; /* the least that the next key can be; below 2^40 * 2^17 */
  for (uint32_t i = 0; i < v->id.n_rows; i++) {
    uint64_t gap;
    if (!get_number(&at, end, &gap))
      return bl_fail(err, BL_ECORRUPT,
                     "key %" PRIu32 " of %" PRIu32 " in a row frame is cut off or not in its shortest form", i,
                     v->id.n_rows);
    next += gap + 1;
    if (next > n_runs)
      return bl_fail(err, BL_ECORRUPT,
                     "key %" PRIu32 " in a row frame is %" PRIu64 "; the bucket has keys below %" PRIu64, i,
                     next - 1, n_runs);
  }
  if (at != end)
    return bl_fail(err, BL_ECORRUPT, "row frame: %zu bytes behind the last of %" PRIu32 " keys",
                   (size_t)(end - at), v->id.n_rows);
  uint64_t computed = bl_rows_id_of(v->keys, v->key_bytes, v->id.n_rows, v->id.width).checksum;
  if (computed != v->id.checksum)
    return bl_fail(err, BL_ECORRUPT,
                   "keys of a row frame have checksum %016" PRIx64 ", their bytes give %016" PRIx64,
                   v->id.checksum, computed);
  return BL_OK;
}

bl_status bl_rows_open(const uint8_t *frame, size_t size, uint32_t width, uint32_t rows_max, uint64_t n_runs,
                       bl_rows_view *ret_view, bl_error *err) {
  bl_status st = check_header(frame, size, width, rows_max, err);
  if (st != BL_OK)
    return st;
  bool has_keys = (frame[OFF_FLAGS] & BL_ROWS_KEYS) != 0,
       has_numbers = (frame[OFF_FLAGS] & BL_ROWS_NUMBERS) != 0;
  bl_rows_view v = {.id = {bl_le_get32(frame + OFF_ROWS), width, bl_le_get64(frame + OFF_CHECKSUM)},
                    .key_bytes = bl_le_get32(frame + OFF_KEY_BYTES)};
  size_t rest = size - BL_ROWS_HEADER_BYTES;
  if (v.key_bytes > rest || (v.key_bytes != 0) != has_keys || (rest != v.key_bytes) != has_numbers)
    return bl_fail(err, BL_ECORRUPT,
                   "row frame of %zu bytes with %" PRIu32 " bytes of keys does not fit its flags 0x%02x", size,
                   v.key_bytes, frame[OFF_FLAGS]);
  if (has_keys)
    v.keys = frame + BL_ROWS_HEADER_BYTES;
  if (has_numbers) {
    v.numbers = frame + BL_ROWS_HEADER_BYTES + v.key_bytes;
    v.numbers_bytes = rest - v.key_bytes;
  }
  st = has_keys ? check_keys(&v, n_runs, err) : BL_OK;
  if (st == BL_OK)
    *ret_view = v;
  return st;
}

size_t bl_rows_numbers_offset(const uint8_t *frame) {
  return BL_ROWS_HEADER_BYTES + bl_le_get32(frame + OFF_KEY_BYTES);
}
