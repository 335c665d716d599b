/* SPDX-License-Identifier: Apache-2.0
 *
 * float32: the numbers as they are, little-endian. Payload: n * 4 bytes.
 */
#include "codec/codecs.h"
#include "kernel/kernel.h"

#include <string.h>

static bool fits(size_t size, uint32_t n) { return size == (size_t)n * sizeof(float); }

static size_t bound_bytes(uint32_t n) { return BL_CODEC_HEADER_BYTES + (size_t)n * sizeof(float); }

/* A residual is normally zero here; one left by another codec is delivered, up to the rounding of x + residual. */
static size_t encode(const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  size_t size = (size_t)n * sizeof(float);
  float *values = (float *)(void *)(out + BL_CODEC_HEADER_BYTES); /* kernels take any alignment */
  memcpy(values, x, size);
  if (residual != NULL) {
    bl_kernels_get()->add(values, residual, n);
    memset(residual, 0, size);
  }
  return bl_codec_seal(out, BL_CODEC_FLOAT32, flags, 0, n, size);
}

static bl_status decode(const uint8_t *payload, size_t size, uint32_t n, float *y) {
  if (!fits(size, n))
    return BL_ECORRUPT;
  memcpy(y, payload, size);
  return BL_OK;
}

static bl_status accumulate(const uint8_t *payload, size_t size, uint32_t n, float scale, float *y) {
  if (!fits(size, n))
    return BL_ECORRUPT;
  const float *x = (const float *)(const void *)payload;
  if (scale == 1.0f)
    bl_kernels_get()->add(y, x, n);
  else
    bl_kernels_get()->axpy(y, x, scale, n);
  return BL_OK;
}

const bl_codec bl_codec_float32 = {
    .id = BL_CODEC_FLOAT32,
    .name = "float32",
    .exact = true,
    .fits = fits,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
};
