/* SPDX-License-Identifier: Apache-2.0
 *
 * float16: IEEE 754 binary16, little-endian, round to nearest even, +-65504 where a finite number is larger.
 * Payload: n * 2 bytes.
 *
 * Error feedback works block by block so that the sum and what came back of it stay in the first-level
 * cache and on the stack.
 */
#include "codec/codecs.h"
#include "kernel/kernel.h"

#include <math.h>
#include <string.h>

#define BLOCK_ELEMS 1024u

static bool fits(size_t size, uint32_t n) { return size == (size_t)n * sizeof(uint16_t); }

static size_t bound_bytes(uint32_t n) { return BL_CODEC_HEADER_BYTES + (size_t)n * sizeof(uint16_t); }

/* Where the sum is infinite or NaN the frame says so and nothing is kept back: a residual is always finite. */
static void encode_block(const bl_kernels *k, const float *x, float *residual, uint32_t n, uint16_t *out) {
  float sum[BLOCK_ELEMS], sent[BLOCK_ELEMS];
  memcpy(sum, x, n * sizeof sum[0]);
  k->add(sum, residual, n);
  k->f32_to_f16(out, sum, n);
  k->f16_to_f32(sent, out, n);
  k->sub(residual, sum, sent, n);
  if (k->all_finite(sum, n))
    return;
  for (uint32_t i = 0; i < n; i++) {
    if (!isfinite(sum[i]))
      residual[i] = 0;
  }
}

static size_t encode(const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  const bl_kernels *k = bl_kernels_get();
  uint16_t *values = (uint16_t *)(void *)(out + BL_CODEC_HEADER_BYTES); /* kernels take any alignment */
  if (residual == NULL)
    k->f32_to_f16(values, x, n);
  else {
    for (uint32_t i = 0; i < n; i += BLOCK_ELEMS)
      encode_block(k, x + i, residual + i, n - i < BLOCK_ELEMS ? n - i : BLOCK_ELEMS, values + i);
  }
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
