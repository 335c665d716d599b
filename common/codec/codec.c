/* SPDX-License-Identifier: Apache-2.0
 *
 * Registry of codecs and the frame header: the one place where a received frame is judged.
 */
#include "codec/codec.h"

#include "base/checksum.h"
#include "base/le.h"
#include "base/rng.h"
#include "codec/codecs.h"
#include "codec/zstd.h"
#include "kernel/quant.h"

#include <inttypes.h>
#include <string.h>

enum { OFF_ID = 0, OFF_FLAGS = 1, OFF_PARAMETER = 2, OFF_N = 4, OFF_CHECKSUM = 8 };

#define FLAGS_KNOWN BL_CODEC_REPLACE

static const bl_codec *const codecs[] = {
    &bl_codec_float32, &bl_codec_float16,
    &bl_codec_bfloat16, &bl_codec_int8, &bl_codec_int4, &bl_codec_sign, &bl_codec_ternary, &bl_codec_qsgd, &bl_codec_natural,
    &bl_codec_topk, &bl_codec_threshold, &bl_codec_randomk,
    &bl_codec_zstd, &bl_codec_lowrank,
};

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

const bl_codec_spec bl_codec_spec_exact = {.codec = &bl_codec_float32};

uint64_t bl_codec_key(uint64_t seed, uint32_t rank, uint64_t clock, uint32_t chunk) {
  return bl_rng_u64(bl_rng_key(seed, BL_RNG_ROUNDING), clock, (uint64_t)rank << 32 | chunk);
}

size_t bl_codec_bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  size_t bound = spec->codec->bound_bytes(spec, n);
  return spec->zstd ? bl_zstd_bound(bound) : bound;
}

size_t bl_codec_encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  size_t size = e->spec->codec->encode(e, x, residual, n, flags, out);
  return e->spec->zstd ? bl_zstd_stage(out, size) : size;
}

size_t bl_codec_encode_exact(const float *x, uint32_t n, uint32_t flags, uint8_t *out) {
  bl_encode e = {.spec = &bl_codec_spec_exact};
  return bl_codec_encode(&e, x, NULL, n, flags, out);
}

bl_status bl_codec_expect(const bl_codec_view *v, size_t payload_bytes, bl_error *err) {
  if (v->payload_bytes == payload_bytes)
    return BL_OK;
  return bl_fail(err, BL_ECORRUPT, "%s frame of %" PRIu32 " elements has a payload of %zu bytes, which does not fit",
                 v->codec->name, v->n, v->payload_bytes);
}

bl_status bl_codec_no_parameter(const bl_codec_view *v, bl_error *err) {
  if (v->parameter == 0)
    return BL_OK;
  return bl_fail(err, BL_ECORRUPT, "%s frame has parameter %u, which must be 0", v->codec->name, v->parameter);
}

bl_status bl_codec_parameter_at_most(const bl_codec_view *v, uint32_t max, bl_error *err) {
  if (v->parameter <= max)
    return BL_OK;
  return bl_fail(err, BL_ECORRUPT, "%s frame has parameter %u, at most %" PRIu32 " is allowed", v->codec->name,
                 v->parameter, max);
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

bl_codec_view bl_codec_trusted(const uint8_t *frame, size_t size) {
  return (bl_codec_view){.codec = bl_codec_by_id((bl_codec_id)frame[OFF_ID]),
                         .flags = frame[OFF_FLAGS],
                         .parameter = bl_le_get16(frame + OFF_PARAMETER),
                         .n = bl_le_get32(frame + OFF_N),
                         .payload = frame + BL_CODEC_HEADER_BYTES,
                         .payload_bytes = size - BL_CODEC_HEADER_BYTES};
}

bl_status bl_codec_open(const uint8_t *frame, size_t size, uint32_t n_expected, bl_codec_view *ret_view,
                        bl_error *err) {
  if (size < BL_CODEC_HEADER_BYTES)
    return bl_fail(err, BL_ECORRUPT, "codec frame of %zu bytes is shorter than its header of %d", size,
                   BL_CODEC_HEADER_BYTES);
  bl_codec_view v = bl_codec_trusted(frame, size);
  if (v.codec == NULL)
    return bl_fail(err, BL_EUNSUPPORTED, "codec frame names codec %u, which this build does not know", frame[OFF_ID]);
  if ((v.flags & ~(uint32_t)FLAGS_KNOWN) != 0)
    return bl_fail(err, BL_ECORRUPT, "%s frame has unknown flags 0x%02x", v.codec->name, v.flags);
  if (v.n > BL_CODEC_ELEMS_MAX)
    return bl_fail(err, BL_ELIMIT, "%s frame holds %" PRIu32 " elements, at most %u are allowed", v.codec->name, v.n,
                   BL_CODEC_ELEMS_MAX);
  if (v.n != n_expected)
    return bl_fail(err, BL_EMISMATCH, "%s frame holds %" PRIu32 " elements, %" PRIu32 " are expected", v.codec->name,
                   v.n, n_expected);
  uint64_t stated = bl_le_get64(frame + OFF_CHECKSUM), computed = frame_checksum(frame, v.payload_bytes);
  if (stated != computed)
    return bl_fail(err, BL_ECORRUPT,
                   "%s frame of %" PRIu32 " elements has checksum %016" PRIx64 ", its bytes give %016" PRIx64,
                   v.codec->name, v.n, stated, computed);
  bl_status status = v.codec->check(&v, err);
  if (status == BL_OK)
    *ret_view = v;
  return status;
}

void bl_codec_sum_arrays(bl_codec_sum_fn sum, const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  const uint8_t *group[BL_QUANT_SUM_MAX];
  for (uint32_t i = 0, n; i < n_views; i += n, store = false) {
    for (n = 0; n < BL_QUANT_SUM_MAX && i + n < n_views; n++)
      group[n] = views[i + n].payload;
    sum(group, n, store, y, views[i].n);
  }
}

void bl_codec_sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  for (uint32_t i = 0, n_same; i < n_views; i += n_same, store = false) {
    for (n_same = 1; i + n_same < n_views && views[i + n_same].codec == views[i].codec;)
      n_same++;
    if (n_same > 1 && views[i].codec->sum != NULL) {
      views[i].codec->sum(views + i, n_same, store, y);
      continue;
    }
    n_same = 1;
    if (store)
      views[i].codec->decode(&views[i], y);
    else
      views[i].codec->accumulate(&views[i], 1.0f, y);
  }
}

bl_status bl_codec_apply(const uint8_t *frame, size_t size, uint32_t n, float *y, bl_error *err) {
  bl_codec_view v;
  bl_status status = bl_codec_open(frame, size, n, &v, err);
  if (status != BL_OK)
    return status;
  if ((v.flags & BL_CODEC_REPLACE) != 0)
    v.codec->decode(&v, y);
  else
    v.codec->accumulate(&v, 1.0f, y);
  return BL_OK;
}

bl_status bl_codec_accumulate(const uint8_t *frame, size_t size, uint32_t n, float scale, float *y, bl_error *err) {
  bl_codec_view v;
  bl_status status = bl_codec_open(frame, size, n, &v, err);
  if (status == BL_OK)
    v.codec->accumulate(&v, scale, y);
  return status;
}
