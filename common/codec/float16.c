/* SPDX-License-Identifier: Apache-2.0
 *
 * float16: IEEE 754 binary16, little-endian, round to nearest even, +-65504 where a finite number is larger.
 * Payload: n * 2 bytes.
 */
#include "codec/codecs.h"
#include "kernel/kernel.h"

static bool fits(size_t size, uint32_t n) { return size == (size_t)n * sizeof(uint16_t); }

static size_t bound_bytes(uint32_t n) { return BL_CODEC_HEADER_BYTES + (size_t)n * sizeof(uint16_t); }

static size_t encode(const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  const bl_kernels *k = bl_kernels_get();
  uint16_t *values = (uint16_t *)(void *)(out + BL_CODEC_HEADER_BYTES); /* kernels take any alignment */
  if (residual == NULL)
    k->f32_to_f16(values, x, n);
  else
    k->f16_feedback(values, x, residual, n);
  return bl_codec_seal(out, BL_CODEC_FLOAT16, flags, 0, n, (size_t)n * sizeof(uint16_t));
}

static bl_status decode(const uint8_t *payload, size_t size, uint32_t n, float *y) {
  if (!fits(size, n))
    return BL_ECORRUPT;
  bl_kernels_get()->f16_to_f32(y, (const uint16_t *)(const void *)payload, n);
  return BL_OK;
}

static bl_status accumulate(const uint8_t *payload, size_t size, uint32_t n, float scale, float *y) {
  if (!fits(size, n))
    return BL_ECORRUPT;
  const uint16_t *x = (const uint16_t *)(const void *)payload;
  if (scale == 1.0f)
    bl_kernels_get()->f16_add(y, x, n);
  else
    bl_kernels_get()->f16_axpy(y, x, scale, n);
  return BL_OK;
}

const bl_codec bl_codec_float16 = {
    .id = BL_CODEC_FLOAT16,
    .name = "float16",
    .exact = false,
    .fits = fits,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
};
