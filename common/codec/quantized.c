/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames of steps and integer codes. The sizes of both parts follow from n, so nothing in a payload is an offset.
 */
#include "codec/quantized.h"

#include "base/le.h"
#include "base/num.h"

#include <inttypes.h>

static bl_quant_view parts(const bl_quant *q, const bl_codec_view *v) {
  return (bl_quant_view){.steps = v->payload, .codes = v->payload + bl_quant_steps_size(q, v->n)};
}

static size_t payload_size(const bl_quant *q, uint32_t n) { return bl_quant_steps_size(q, n) + bl_quant_codes_size(q, n); }

size_t bl_quantized_bound(const bl_quant *q, uint32_t n) { return BL_CODEC_HEADER_BYTES + payload_size(q, n); }

size_t bl_quantized_encode(const bl_quant *q, bl_codec_id id, uint16_t parameter, const float *x, float *residual,
                           uint32_t n, uint32_t flags, uint8_t *out) {
  uint8_t *steps = out + BL_CODEC_HEADER_BYTES;
  bl_kernels_get()->quant->encode(q, x, residual, n, steps, steps + bl_quant_steps_size(q, n));
  return bl_codec_seal(out, id, flags, parameter, n, payload_size(q, n));
}

static float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static bl_status bad_step(const bl_codec_view *v, size_t block, float step, bl_error *err) {
  return bl_fail(err, BL_ECORRUPT, "%s frame of %" PRIu32 " elements has scale %g in block %zu, which is out of range",
                 v->codec->name, v->n, (double)step, block);
}

/* Compared as integers: a sign bit, infinity and NaN are all above the bits of a finite maximum. */
bl_status bl_codec_check_scales(const bl_codec_view *v, size_t n_scales, float max, bl_error *err) {
  const uint32_t limit = bits_of(max);
  for (size_t i = 0; i < n_scales; i++) {
    uint32_t bits = bl_le_get32(v->payload + 4 * i);
    if (bits > limit)
      return bad_step(v, i, float_of(bits), err);
  }
  return BL_OK;
}

static bl_status check_halves(const bl_codec_view *v, size_t n_steps, float max, bl_error *err) {
  const uint32_t limit = bits_of(max) >> 16;
  for (size_t i = 0; i < n_steps; i++) {
    uint32_t bits = bl_le_get16(v->payload + 2 * i);
    if (bits > limit)
      return bad_step(v, i, float_of(bits << 16), err);
  }
  return BL_OK;
}

static bl_status check_exponents(const bl_codec_view *v, size_t n_steps, bl_error *err) {
  for (size_t i = 0; i < n_steps; i++) {
    if (v->payload[i] < BL_QUANT_EXPONENT_MIN || v->payload[i] > BL_QUANT_EXPONENT_MAX)
      return bl_fail(err, BL_ECORRUPT,
                     "%s frame of %" PRIu32 " elements has exponent byte %u as scale of block %zu, allowed: %d to %d",
                     v->codec->name, v->n, v->payload[i], i, BL_QUANT_EXPONENT_MIN, BL_QUANT_EXPONENT_MAX);
  }
  return BL_OK;
}

static bl_status check_steps(const bl_quant *q, const bl_codec_view *v, bl_error *err) {
  size_t n_steps = bl_quant_steps_size(q, v->n) / bl_quant_step_bytes(q->step);
  if (q->step == BL_QUANT_EXPONENT)
    return check_exponents(v, n_steps, err);
  return q->step == BL_QUANT_FLOAT32 ? bl_codec_check_scales(v, n_steps, q->step_max, err)
                                     : check_halves(v, n_steps, q->step_max, err);
}

/* Bits that no number owns are in the last byte: of nibbles the high half, of planes the end of each. */
static bool has_clean_end(const bl_quant *q, const uint8_t *codes, uint32_t n) {
  size_t size = bl_quant_codes_size(q, n);
  if (q->form == BL_QUANT_NIBBLES)
    return n % 2 == 0 || codes[size - 1] >> 4 == 0;
  if (q->form == BL_QUANT_BYTES || n % 8 == 0)
    return true;
  size_t stride = (n % BL_QUANT_GROUP + 7) / 8;
  for (uint32_t b = 0; b < q->bits; b++) {
    if (codes[size - 1 - b * stride] >> n % 8 != 0)
      return false;
  }
  return true;
}

bl_status bl_quantized_check(const bl_quant *q, const bl_codec_view *v, bl_error *err) {
  bl_status status = bl_codec_expect(v, payload_size(q, v->n), err);
  if (status == BL_OK)
    status = check_steps(q, v, err);
  if (status == BL_OK && !has_clean_end(q, parts(q, v).codes, v->n))
    return bl_fail(err, BL_ECORRUPT, "%s frame of %" PRIu32 " elements has bits behind its last element",
                   v->codec->name, v->n);
  return status;
}

void bl_quantized_decode(const bl_quant *q, const bl_codec_view *v, float *y) {
  bl_kernels_get()->quant->decode(q, parts(q, v), BL_QUANT_STORE, 1, y, v->n);
}

void bl_quantized_accumulate(const bl_quant *q, const bl_codec_view *v, float scale, float *y) {
  bl_kernels_get()->quant->decode(q, parts(q, v), scale == 1.0f ? BL_QUANT_ADD : BL_QUANT_AXPY, scale, y, v->n);
}

void bl_quantized_sum(bl_quant_of_fn of, const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_quant_view group[BL_QUANT_SUM_MAX];
  for (uint32_t i = 0, n; i < n_views; i += n, store = false) {
    bl_quant q = of(views[i].parameter);
    for (n = 0; n < BL_QUANT_SUM_MAX && i + n < n_views && views[i + n].parameter == views[i].parameter; n++)
      group[n] = parts(&q, &views[i + n]);
    bl_kernels_get()->quant->sum(&q, group, n, store, y, views[i].n);
  }
}
