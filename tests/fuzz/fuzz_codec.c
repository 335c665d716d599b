/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a codec frame: refused, or decoded without touching memory that is not theirs. Each input is
 * tried as it is and with its checksum made right, since no fuzzer guesses one. What was decoded survives
 * being encoded and decoded again.
 */
#include "base/alloc.h"
#include "base/checksum.h"
#include "base/le.h"
#include "codec/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The header's number, so that the check of n lets it through. */
static uint32_t expected_elems(const uint8_t *frame, size_t size) {
  uint32_t n = size >= BL_CODEC_HEADER_BYTES ? bl_le_get32(frame + 4) : 7;
  return n <= 2 * BL_CODEC_ELEMS_MAX ? n : 0;
}

/* Numbers as they come back from their own codec are ones that it can carry again. */
static void check_accepted(const uint8_t *frame, size_t size, uint32_t n, float *y) {
  bl_codec_view v;
  if (bl_codec_open(frame, size, n, &v, NULL) != BL_OK || v.n != n || v.payload + v.payload_bytes != frame + size)
    abort();
  v.codec->decode(&v, y);
  if (v.codec->id != BL_CODEC_FLOAT32 && v.codec->id != BL_CODEC_FLOAT16)
    return;
  bl_codec_spec spec = {.codec = v.codec};
  bl_encode e = {.spec = &spec};
  float *again = bl_calloc(n + 1, sizeof *again);
  uint8_t *copy = bl_malloc(bl_codec_bound_bytes(&spec, n));
  if (again == NULL || copy == NULL)
    abort();
  size_t copy_size = bl_codec_encode(&e, y, NULL, n, BL_CODEC_REPLACE, copy);
  if (bl_codec_apply(copy, copy_size, n, again, NULL) != BL_OK || memcmp(y, again, n * sizeof *y) != 0)
    abort();
  bl_free(copy);
  bl_free(again);
}

static void try_frame(const uint8_t *frame, size_t size) {
  uint32_t n = expected_elems(frame, size);
  float *y = bl_calloc(n > 0 ? n : 1, sizeof *y);
  if (y == NULL)
    abort();
  bl_status applied = bl_codec_apply(frame, size, n, y, NULL);
  if (applied != bl_codec_accumulate(frame, size, n, 0.5f, y, NULL))
    abort();
  if (applied == BL_OK)
    check_accepted(frame, size, n, y);
  bl_free(y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try_frame(data, size);
  if (size < BL_CODEC_HEADER_BYTES)
    return 0;
  uint8_t *sealed = bl_malloc(size);
  if (sealed == NULL)
    abort();
  memcpy(sealed, data, size);
  bl_le_put64(sealed + 8, bl_checksum_seeded(sealed + BL_CODEC_HEADER_BYTES, size - BL_CODEC_HEADER_BYTES,
                                             bl_le_get64(sealed)));
  try_frame(sealed, size);
  bl_free(sealed);
  return 0;
}
