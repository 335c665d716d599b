/* SPDX-License-Identifier: Apache-2.0
 *
 * ternary: -1, 0 or 1 times the largest magnitude of a block of 256, by chance, so that the mean is the number; 2.125
 * bits per element.
 *
 * Payload: a float32 per block, its largest magnitude; then two planes of bits per group of 64 numbers (kernel/quant.h,
 * PLANES): not 0, and negative. Example, the numbers 1 and -1: 0000803f 03 02.
 *
 * Error: less than the block's largest magnitude, without bias. Magnitudes above half of FLT_MAX count as that.
 *
 * Source: Wen et al., "TernGrad: ternary gradients to reduce communication in distributed deep learning", NeurIPS 2017,
 * equations 2 to 4, with blocks in place of layers (so that there is no need to clip what is rare).
 */
#include "codec/quantized.h"

static bl_quant quant_of(uint32_t parameter) {
  return (bl_quant){.form = BL_QUANT_PLANES,
                    .step = BL_QUANT_FLOAT32,
                    .levels = 1,
                    .bits = 2,
                    .step_max = BL_QUANT_STEP_MAX(2),
                    .stochastic = true};
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_quant q = quant_of(0);
  bl_status status = bl_codec_no_parameter(v, err);
  return status == BL_OK ? bl_quantized_check(&q, v, err) : status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  bl_quant q = quant_of(0);
  return bl_quantized_bound(&q, n);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  bl_quant q = quant_of(0);
  q.key = e->key;
  return bl_quantized_encode(&q, BL_CODEC_TERNARY, 0, x, residual, n, flags, out);
}

static void decode(const bl_codec_view *v, float *y) {
  bl_quant q = quant_of(0);
  bl_quantized_decode(&q, v, y);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  bl_quant q = quant_of(0);
  bl_quantized_accumulate(&q, v, scale, y);
}

static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_quantized_sum(quant_of, views, n_views, store, y);
}

const bl_codec bl_codec_ternary = {
    .id = BL_CODEC_TERNARY,
    .name = "ternary",
    .unbiased = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
