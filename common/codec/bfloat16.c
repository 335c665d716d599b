/* SPDX-License-Identifier: Apache-2.0
 *
 * bfloat16: the upper half of a float32, little-endian, rounded to nearest even. A finite number that would round to
 * infinity becomes the largest there is (0x7f7f), NaN and Inf are kept. Payload: n * 2 bytes. Example, 1 and -2:
 * 803f 00c0. Error: at most 2^-8 of the number (denormal ones: 2^-134).
 */
#include "codec/codecs.h"
#include "kernel/quant.h"

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_status status = bl_codec_no_parameter(v, err);
  return status == BL_OK ? bl_codec_expect(v, (size_t)v->n * sizeof(uint16_t), err) : status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  return BL_CODEC_HEADER_BYTES + (size_t)n * sizeof(uint16_t);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  uint16_t *values = (uint16_t *)(void *)(out + BL_CODEC_HEADER_BYTES); /* kernels take any alignment */
  if (residual == NULL)
    bl_kernels_get()->quant->f32_to_bf16(values, x, n);
  else
    bl_kernels_get()->quant->bf16_feedback(values, x, residual, n);
  return bl_codec_seal(out, BL_CODEC_BFLOAT16, flags, 0, n, (size_t)n * sizeof(uint16_t));
}

static void into(const bl_codec_view *v, bl_quant_into how, float a, float *y) {
  bl_kernels_get()->quant->bf16_decode((const uint16_t *)(const void *)v->payload, how, a, y, v->n);
}

static void decode(const bl_codec_view *v, float *y) { into(v, BL_QUANT_STORE, 1, y); }

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  into(v, scale == 1.0f ? BL_QUANT_ADD : BL_QUANT_AXPY, scale, y);
}

static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_codec_sum_arrays(bl_kernels_get()->quant->bf16_sum, views, n_views, store, y);
}

const bl_codec bl_codec_bfloat16 = {
    .id = BL_CODEC_BFLOAT16,
    .name = "bfloat16",
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
