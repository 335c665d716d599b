/* SPDX-License-Identifier: Apache-2.0
 *
 * float16: IEEE 754 binary16, little-endian, round to nearest even, +-65504 where a finite number is larger.
 * Payload: n * 2 bytes.
 */
#include "codec/codecs.h"
#include "kernel/quant.h"

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_status status = bl_codec_no_parameter(v, err);
  return status == BL_OK ? bl_codec_expect(v, (size_t)v->n * sizeof(uint16_t), err) : status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  (void)spec;
  return BL_CODEC_HEADER_BYTES + (size_t)n * sizeof(uint16_t);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  (void)e;
  const bl_kernels *k = bl_kernels_get();
  uint16_t *values = (uint16_t *)(void *)(out + BL_CODEC_HEADER_BYTES); /* kernels take any alignment */
  if (residual == NULL)
    k->f32_to_f16(values, x, n);
  else
    k->f16_feedback(values, x, residual, n);
  return bl_codec_seal(out, BL_CODEC_FLOAT16, flags, 0, n, (size_t)n * sizeof(uint16_t));
}

static void decode(const bl_codec_view *v, float *y) {
  bl_kernels_get()->f16_to_f32(y, (const uint16_t *)(const void *)v->payload, v->n);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  const uint16_t *x = (const uint16_t *)(const void *)v->payload;
  if (scale == 1.0f)
    bl_kernels_get()->f16_add(y, x, v->n);
  else
    bl_kernels_get()->f16_axpy(y, x, scale, v->n);
}

static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_codec_sum_arrays(bl_kernels_get()->quant->f16_sum, views, n_views, store, y);
}

const bl_codec bl_codec_float16 = {
    .id = BL_CODEC_FLOAT16,
    .name = "float16",
    .exact = false,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
