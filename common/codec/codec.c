/* SPDX-License-Identifier: Apache-2.0
 *
 * Registry of codecs and the frame header: the one place where a received frame is judged.
 */
#include "codec/codec.h"

#include "base/checksum.h"
#include "base/le.h"
#include "codec/codecs.h"

#include <inttypes.h>
#include <string.h>

enum { OFF_ID = 0, OFF_FLAGS = 1, OFF_PARAMETER = 2, OFF_N = 4, OFF_CHECKSUM = 8 };

#define FLAGS_KNOWN BL_CODEC_REPLACE

static const bl_codec *const codecs[] = {&bl_codec_float32, &bl_codec_float16};

const bl_codec *bl_codec_at(size_t i) { return i < BL_COUNT_OF(codecs) ? codecs[i] : NULL; }

const bl_codec *bl_codec_by_id(bl_codec_id id) {
  for (size_t i = 0; i < BL_COUNT_OF(codecs); i++) {
    if (codecs[i]->id == id)
      return codecs[i];
  }
  return NULL;
}

const bl_codec *bl_codec_by_name(const char *name) {
  if (strcmp(name, "none") == 0)
    return &bl_codec_float32;
  for (size_t i = 0; i < BL_COUNT_OF(codecs); i++) {
    if (strcmp(codecs[i]->name, name) == 0)
      return codecs[i];
  }
  return NULL;
}

/* The seed covers id, flags, parameter and n, so that damage to them is found as well. */
static uint64_t frame_checksum(const uint8_t *frame, size_t payload_bytes) {
  return bl_checksum_seeded(frame + BL_CODEC_HEADER_BYTES, payload_bytes, bl_le_get64(frame));
}

size_t bl_codec_seal(uint8_t *frame, bl_codec_id id, uint32_t flags, uint16_t parameter, uint32_t n,
                     size_t payload_bytes) {
  BL_ASSERT((flags & ~(uint32_t)FLAGS_KNOWN) == 0 && n <= BL_CODEC_ELEMS_MAX);
  frame[OFF_ID] = (uint8_t)id;
  frame[OFF_FLAGS] = (uint8_t)flags;
  bl_le_put16(frame + OFF_PARAMETER, parameter);
  bl_le_put32(frame + OFF_N, n);
  bl_le_put64(frame + OFF_CHECKSUM, frame_checksum(frame, payload_bytes));
  return BL_CODEC_HEADER_BYTES + payload_bytes;
}

bl_status bl_codec_open(const uint8_t *frame, size_t size, uint32_t n_expected, bl_codec_view *ret_view,
                        bl_error *err) {
  if (size < BL_CODEC_HEADER_BYTES)
    return bl_fail(err, BL_ECORRUPT, "codec frame of %zu bytes is shorter than its header of %d", size,
                   BL_CODEC_HEADER_BYTES);
  const bl_codec *codec = bl_codec_by_id((bl_codec_id)frame[OFF_ID]);
  if (codec == NULL)
    return bl_fail(err, BL_EUNSUPPORTED, "codec frame names codec %u, which this build does not know", frame[OFF_ID]);
  uint32_t flags = frame[OFF_FLAGS], parameter = bl_le_get16(frame + OFF_PARAMETER), n = bl_le_get32(frame + OFF_N);
  if ((flags & ~(uint32_t)FLAGS_KNOWN) != 0)
    return bl_fail(err, BL_ECORRUPT, "%s frame has unknown flags 0x%02x", codec->name, flags);
  if (parameter != 0) /* no codec has one yet */
    return bl_fail(err, BL_ECORRUPT, "%s frame has parameter %u, which must be 0", codec->name, parameter);
  if (n > BL_CODEC_ELEMS_MAX)
    return bl_fail(err, BL_ELIMIT, "%s frame holds %" PRIu32 " elements, at most %u are allowed", codec->name, n,
                   BL_CODEC_ELEMS_MAX);
  if (n != n_expected)
    return bl_fail(err, BL_EMISMATCH, "%s frame holds %" PRIu32 " elements, %" PRIu32 " are expected", codec->name, n,
                   n_expected);
  size_t payload_bytes = size - BL_CODEC_HEADER_BYTES;
  if (!codec->fits(payload_bytes, n))
    return bl_fail(err, BL_ECORRUPT, "%s frame of %" PRIu32 " elements has a payload of %zu bytes, which does not fit",
                   codec->name, n, payload_bytes);
  uint64_t stated = bl_le_get64(frame + OFF_CHECKSUM), computed = frame_checksum(frame, payload_bytes);
  if (stated != computed)
    return bl_fail(err, BL_ECORRUPT,
                   "%s frame of %" PRIu32 " elements has checksum %016" PRIx64 ", its bytes give %016" PRIx64,
                   codec->name, n, stated, computed);
  *ret_view = (bl_codec_view){codec, flags, n, frame + BL_CODEC_HEADER_BYTES, payload_bytes};
  return BL_OK;
}

static bl_status undecodable(const bl_codec_view *v, bl_status status, bl_error *err) {
  if (status != BL_OK)
    return bl_fail(err, status, "%s payload of %zu bytes does not decode to %" PRIu32 " elements", v->codec->name,
                   v->payload_bytes, v->n);
  return BL_OK;
}

bl_status bl_codec_apply(const uint8_t *frame, size_t size, uint32_t n, float *y, bl_error *err) {
  bl_codec_view v;
  bl_status status = bl_codec_open(frame, size, n, &v, err);
  if (status != BL_OK)
    return status;
  if ((v.flags & BL_CODEC_REPLACE) != 0)
    status = v.codec->decode(v.payload, v.payload_bytes, n, y);
  else
    status = v.codec->accumulate(v.payload, v.payload_bytes, n, 1.0f, y);
  return undecodable(&v, status, err);
}

bl_status bl_codec_accumulate(const uint8_t *frame, size_t size, uint32_t n, float scale, float *y, bl_error *err) {
  bl_codec_view v;
  bl_status status = bl_codec_open(frame, size, n, &v, err);
  if (status != BL_OK)
    return status;
  return undecodable(&v, v.codec->accumulate(v.payload, v.payload_bytes, n, scale, y), err);
}
