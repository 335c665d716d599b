/* SPDX-License-Identifier: Apache-2.0
 *
 * natural: every number becomes one of the two powers of two around it, by chance, so that the mean is the number; 8.03
 * bits per element. Magnitudes cost nothing to decode, and every one keeps its order.
 *
 * Payload: a byte T per block of 256 numbers, 0 to 254: one more than the exponent field (of a float32) of its largest
 * magnitude, 254 at most, 0 where all are below 2^-126. Then n bytes: 0 is the number 0, else the highest bit is the
 * sign and the others, k, mean the exponent field k + max(T - 127, 0). Example, the numbers 1 and -2: 81 7d fe.
 *
 * Rounding: 16 random bits (kernel/quant.h) are added to the upper 16 bits of the mantissa, and a half of their last
 * place; a carry makes the next power. Error: at most the number's magnitude; bias: at most 2^-16 of it. What is not
 * above 2^-126 of the block's largest is 0, and 2^127 is the largest.
 *
 * Source: Horvath et al., "Natural compression for distributed deep learning", MSML 2022 (arXiv 1905.10988), definition
 * 1; a window of 127 exponents per block in place of all makes it a byte.
 */
#include "codec/quantized.h"

#include <inttypes.h>

static size_t tops_of(uint32_t n) { return (n + BL_QUANT_BLOCK - 1) / BL_QUANT_BLOCK; }

static bl_quant_view parts(const bl_codec_view *v) {
  return (bl_quant_view){.steps = v->payload, .codes = v->payload + tops_of(v->n)};
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_status status = bl_codec_no_parameter(v, err);
  if (status == BL_OK)
    status = bl_codec_expect(v, tops_of(v->n) + v->n, err);
  for (size_t i = 0; status == BL_OK && i < tops_of(v->n); i++) {
    if (v->payload[i] > 254)
      return bl_fail(err, BL_ECORRUPT, "natural frame of %" PRIu32 " elements has scale 255 in block %zu, at most 254",
                     v->n, i);
  }
  return status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) { return BL_CODEC_HEADER_BYTES + tops_of(n) + n; }

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  uint8_t *tops = out + BL_CODEC_HEADER_BYTES;
  bl_kernels_get()->quant->natural_encode(e->key, 0, x, residual, n, tops, tops + tops_of(n));
  return bl_codec_seal(out, BL_CODEC_NATURAL, flags, 0, n, tops_of(n) + n);
}

static void decode(const bl_codec_view *v, float *y) {
  bl_kernels_get()->quant->natural_decode(parts(v), BL_QUANT_STORE, 1, y, v->n);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  bl_kernels_get()->quant->natural_decode(parts(v), scale == 1.0f ? BL_QUANT_ADD : BL_QUANT_AXPY, scale, y, v->n);
}

const bl_codec bl_codec_natural = {
    .id = BL_CODEC_NATURAL,
    .name = "natural",
    .unbiased = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
};
