/* SPDX-License-Identifier: Apache-2.0
 *
 * sign: one bit per number and the mean magnitude of a block of 1024 numbers; 1.03 bits per element. Needs error
 * feedback to converge, and a smaller learning rate.
 *
 * Payload: a float32 per block, the mean of its magnitudes; then ceil(n / 8) bytes of bits, from the lowest up, 1 for
 * negative (-0 too), 0 behind the last. The number is the mean with that sign; a 0 becomes the mean as well.
 * Example, the numbers 1 and -3: 00000040 02.
 *
 * Error: at most the larger of the number's magnitude and the mean; biased. Blocks with a mean below 2^-100 are zeros.
 *
 * Source: Karimireddy et al., "Error feedback fixes SignSGD and other gradient compression schemes", ICML 2019,
 * algorithm 1 (the scale is the L1 norm / d), with blocks in place of layers.
 */
#include "codec/quantized.h"

#include <inttypes.h>

static size_t scales_of(uint32_t n) { return (n + BL_QUANT_SIGN_BLOCK - 1) / BL_QUANT_SIGN_BLOCK; }
static size_t payload_size(uint32_t n) { return scales_of(n) * 4 + (n + 7) / 8; }

static bl_quant_view parts(const bl_codec_view *v) {
  return (bl_quant_view){.steps = v->payload, .codes = v->payload + scales_of(v->n) * 4};
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  bl_status status = bl_codec_no_parameter(v, err);
  if (status == BL_OK)
    status = bl_codec_expect(v, payload_size(v->n), err);
  if (status == BL_OK)
    status = bl_codec_check_scales(v, scales_of(v->n), FLT_MAX, err);
  if (status == BL_OK && v->n % 8 != 0 && v->payload[v->payload_bytes - 1] >> v->n % 8 != 0)
    return bl_fail(err, BL_ECORRUPT, "sign frame of %" PRIu32 " elements has bits behind its last element", v->n);
  return status;
}

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) { return BL_CODEC_HEADER_BYTES + payload_size(n); }

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  uint8_t *scales = out + BL_CODEC_HEADER_BYTES;
  bl_kernels_get()->quant->sign_encode(x, residual, n, scales, scales + scales_of(n) * 4);
  return bl_codec_seal(out, BL_CODEC_SIGN, flags, 0, n, payload_size(n));
}

static void decode(const bl_codec_view *v, float *y) {
  bl_kernels_get()->quant->sign_decode(parts(v), BL_QUANT_STORE, 1, y, v->n);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  bl_kernels_get()->quant->sign_decode(parts(v), scale == 1.0f ? BL_QUANT_ADD : BL_QUANT_AXPY, scale, y, v->n);
}

static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  bl_quant_view group[BL_QUANT_SUM_MAX];
  for (uint32_t i = 0, n; i < n_views; i += n, store = false) {
    for (n = 0; n < BL_QUANT_SUM_MAX && i + n < n_views; n++)
      group[n] = parts(&views[i + n]);
    bl_kernels_get()->quant->sign_sum(group, n, store, y, views[i].n);
  }
}

const bl_codec bl_codec_sign = {
    .id = BL_CODEC_SIGN,
    .name = "sign",
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
