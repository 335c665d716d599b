/* SPDX-License-Identifier: Apache-2.0
 *
 * qsgd: s levels of a block's largest magnitude on either side of 0, chosen by chance between the two nearest. Blocks
 * of 256; b + 0.125 bits per element, b the bits of a number from -s to s (2 for s = 1, 3 to 3, 4 to 7, ..., 8 to 127).
 *
 * Parameter: s, 1 to 127. Payload: a float32 per block, largest magnitude / s; then b planes of bits per group of 64
 * numbers (kernel/quant.h, PLANES). Example, s = 2, the numbers 2 and -1: 0000803f 02 03 02.
 *
 * Error: less than largest magnitude / s, without bias. Magnitudes above s / 2^(b - 1) of FLT_MAX count as that.
 *
 * Source: Alistarh et al., "QSGD: communication-efficient SGD via gradient quantization and encoding", NeurIPS 2017,
 * section 3.1, with the largest magnitude of a block in place of the tensor's L2 norm, as their own experiments have
 * it: beside the norm of a million elements every one of them is nearly 0. Bits in place of Elias codes: `+zstd`
 * takes what the planes have in common.
 */
#include "codec/quantized.h"

static uint32_t bits_for(uint32_t levels) {
  uint32_t bits = 2;
  while (1u << (bits - 1) <= levels)
    bits++;
  return bits;
}

static bl_quant quant_of(uint32_t parameter) {
  uint32_t bits = bits_for(parameter);
  return (bl_quant){.form = BL_QUANT_PLANES,
                    .step = BL_QUANT_FLOAT32,
                    .levels = parameter,
                    .bits = bits,
                    .step_max = BL_QUANT_STEP_MAX(bits),
                    .stochastic = true};
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  if (v->parameter == 0)
    return bl_fail(err, BL_ECORRUPT, "qsgd frame has parameter 0, which are no levels");
  bl_status status = bl_codec_parameter_at_most(v, BL_QUANT_LEVELS_MAX, err);
  if (status != BL_OK)
    return status;
  bl_quant q = quant_of(v->parameter);
  return bl_quantized_check(&q, v, err);
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  bl_quant q = quant_of(spec->levels);
  return bl_quantized_bound(&q, n);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  bl_quant q = quant_of(e->spec->levels);
  q.key = e->key;
  return bl_quantized_encode(&q, BL_CODEC_QSGD, e->spec->levels, x, residual, n, flags, out);
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

const bl_codec bl_codec_qsgd = {
    .id = BL_CODEC_QSGD,
    .name = "qsgd",
    .unbiased = true,
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
