/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as a codec frame: refused, or decoded without touching memory that is not theirs. Each input is
 * tried as it is and with its checksum made right, since no fuzzer guesses one. What was decoded is the same a second
 * time and in sums.
 */
#include "base/alloc.h"
#include "base/checksum.h"
#include "base/le.h"
#include "codec/codec.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The header's number, so that the check of n lets it through. */
static uint32_t expected_elems(const uint8_t *frame, size_t size) {
  uint32_t n = size >= BL_CODEC_HEADER_BYTES ? bl_le_get32(frame + 4) : 7;
  return n <= 2 * BL_CODEC_ELEMS_MAX ? n : 0;
}

static float *new_floats(uint32_t n) {
  float *y = bl_calloc(n > 0 ? n : 1, sizeof *y);
  if (y == NULL)
    abort();
  return y;
}

/* Numbers as they come back from these codecs are ones that they can carry again. */
static void check_again(const bl_codec_view *v, const float *y, float *again) {
  bl_codec_spec spec = {.codec = v->codec};
  bl_encode e = {.spec = &spec};
  uint8_t *copy = bl_malloc(bl_codec_bound_bytes(&spec, v->n));
  if (copy == NULL)
    abort();
  size_t size = bl_codec_encode(&e, y, NULL, v->n, BL_CODEC_REPLACE, copy);
  if (bl_codec_apply(copy, size, v->n, again, NULL) != BL_OK || memcmp(y, again, v->n * sizeof *y) != 0)
    abort();
  bl_free(copy);
}

static bool same_or_nan(const float *a, const float *b, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i])))
      return false;
  }
  return true;
}

/* A frame that was accepted means the same every time, alone and in a sum of three. */
static void check_accepted(const uint8_t *frame, size_t size, uint32_t n, float *y) {
  bl_codec_view v;
  if (bl_codec_open(frame, size, n, &v, NULL) != BL_OK || v.n != n || v.payload + v.payload_bytes != frame + size)
    abort();
  float *again = new_floats(n);
  v.codec->decode(&v, y);
  v.codec->decode(&v, again);
  if (memcmp(y, again, n * sizeof *y) != 0)
    abort();
  if (v.codec->id == BL_CODEC_FLOAT32 || v.codec->id == BL_CODEC_FLOAT16)
    check_again(&v, y, again);
  v.codec->accumulate(&v, 1, y);
  v.codec->accumulate(&v, 1, y);
  bl_codec_sum((bl_codec_view[]){v, v, v}, 3, true, again);
  if (!same_or_nan(y, again, n))
    abort();
  bl_free(again);
}

static void try_frame(const uint8_t *frame, size_t size) {
  uint32_t n = expected_elems(frame, size);
  float *y = new_floats(n);
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
