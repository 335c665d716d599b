/* SPDX-License-Identifier: Apache-2.0
 *
 * int8: blocks of 256 numbers with a scale, a signed byte per number, 8.125 bits per element (shared: 8.03).
 *
 * Payload, parameter 0: a float32 per block, the step (largest magnitude / 127); then n bytes q, the number is q * step.
 * Parameter 1 (shared): a byte b per block, 28 to 248, the step is 2^(b - 128); then n bytes. Steps that are powers of
 * two make sums of frames with equal steps sums of integers, exact and in any order.
 * Example, the numbers 1 and -2: 0402813c 3f 81 (63 and -127 steps of 0x1.020408p-6); shared: 7b 20 c0, steps of
 * 2^-5, as 127 of 2^-6 do not reach 2.
 *
 * Error: half a step to nearest, a step with `stochastic`, which is without bias; kernel/quant.h has how numbers round,
 * and what happens to very small and very large ones. Exponents that the caller prescribes clip what does not fit.
 *
 * Source: block-wise linear quantization as in Dettmers et al., "8-bit optimizers via block-wise quantization", ICLR
 * 2022, and Seide et al. 2014 for the error feedback; stochastic rounding: Gupta et al., ICML 2015.
 */
#include "codec/quantized.h"

static bl_quant quant_of(uint32_t parameter) {
  return (bl_quant){.form = BL_QUANT_BYTES,
                    .step = parameter == 1 ? BL_QUANT_EXPONENT : BL_QUANT_FLOAT32,
                    .levels = 127,
                    .bits = 8,
                    .step_max = parameter == 1 ? 0x1p120f : BL_QUANT_STEP_MAX(8)};
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_quant q = quant_of(v->parameter);
  bl_status status = bl_codec_parameter_at_most(v, 1, err);
  return status == BL_OK ? bl_quantized_check(&q, v, err) : status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  bl_quant q = quant_of(spec->shared);
  return bl_quantized_bound(&q, n);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  bl_quant q = quant_of(e->spec->shared);
  q.stochastic = e->spec->stochastic;
  q.key = e->key;
  q.exponents = e->spec->shared ? e->exponents : NULL;
  return bl_quantized_encode(&q, BL_CODEC_INT8, e->spec->shared, x, residual, n, flags, out);
}

static void decode(const bl_codec_view *v, float *y) {
  bl_quant q = quant_of(v->parameter);
  bl_quantized_decode(&q, v, y);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  bl_quant q = quant_of(v->parameter);
  bl_quantized_accumulate(&q, v, scale, y);
}

static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_quantized_sum(quant_of, views, n_views, store, y);
}

const bl_codec bl_codec_int8 = {
    .id = BL_CODEC_INT8,
    .name = "int8",
    .unbiased = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
