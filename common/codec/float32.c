/* SPDX-License-Identifier: Apache-2.0
 *
 * float32: the numbers as they are, little-endian. Payload: n * 4 bytes.
 */
#include "codec/codecs.h"
#include "kernel/quant.h"

#include <string.h>

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_status status = bl_codec_no_parameter(v, err);
  return status == BL_OK ? bl_codec_expect(v, (size_t)v->n * sizeof(float), err) : status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  (void)spec;
  return BL_CODEC_HEADER_BYTES + (size_t)n * sizeof(float);
}

/* A residual is normally zero here; one left by another codec is delivered, up to the rounding of x + residual. */
static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  (void)e;
  size_t size = (size_t)n * sizeof(float);
  float *values = (float *)(void *)(out + BL_CODEC_HEADER_BYTES); /* kernels take any alignment */
  memcpy(values, x, size);
  if (residual != NULL) {
    bl_kernels_get()->add(values, residual, n);
    memset(residual, 0, size);
  }
  return bl_codec_seal(out, BL_CODEC_FLOAT32, flags, 0, n, size);
}

static void decode(const bl_codec_view *v, float *y) {
  memcpy(y, v->payload, v->payload_bytes);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  const float *x = (const float *)(const void *)v->payload;
  if (scale == 1.0f)
    bl_kernels_get()->add(y, x, v->n);
  else
    bl_kernels_get()->axpy(y, x, scale, v->n);
}

static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_codec_sum_arrays(bl_kernels_get()->quant->f32_sum, views, n_views, store, y);
}

const bl_codec bl_codec_float32 = {
    .id = BL_CODEC_FLOAT32,
    .name = "float32",
    .exact = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
