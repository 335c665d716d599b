/* SPDX-License-Identifier: Apache-2.0
 *
 * int4: blocks of 128 numbers with a scale, two numbers in a byte, 4.125 bits per element (shared: 4.06). Rounding is
 * always stochastic: with 15 values to nearest, what is small beside its block would never be sent.
 *
 * Payload, parameter 0: 2 bytes per block, the upper half of a float32, the step (largest magnitude / 7, rounded up);
 * then ceil(n / 2) bytes of codes from -7 to 7, as q + 8, in the order of kernel/quant.h, NIBBLES.
 * Parameter 1 (shared): a byte b per block, 28 to 248, the step is 2^(b - 128); then the codes. As in int8.c.
 * Example, the numbers 6 and -14 shared: 81 1b, 3 and -7 steps of 2.
 *
 * Error: less than a step, without bias.
 *
 * Source: as int8.c; four bits: Alistarh et al., "QSGD", NeurIPS 2017, with the largest magnitude in place of the norm.
 */
#include "codec/quantized.h"

static bl_quant quant_of(uint32_t parameter) {
  return (bl_quant){.form = BL_QUANT_NIBBLES,
                    .step = parameter == 1 ? BL_QUANT_EXPONENT : BL_QUANT_BFLOAT16,
                    .levels = 7,
                    .bits = 4,
                    .step_max = parameter == 1 ? 0x1p120f : 0x1.fep124f, /* of 16 bits, and 8 steps are finite */
                    .stochastic = true};
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
  q.key = e->key;
  q.exponents = e->spec->shared ? e->exponents : NULL;
  return bl_quantized_encode(&q, BL_CODEC_INT4, e->spec->shared, x, residual, n, flags, out);
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

const bl_codec bl_codec_int4 = {
    .id = BL_CODEC_INT4,
    .name = "int4",
    .unbiased = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
