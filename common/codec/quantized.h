/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside common/codec only: what the codecs whose payload is steps and integer codes share (int8, int4, ternary, qsgd).
 * Payload: the steps of all blocks, then the codes; kernel/quant.h has both. A codec brings its bl_quant, which follows
 * from the header's parameter as far as decoding needs it.
 */
#ifndef BL_CODEC_QUANTIZED_H
#define BL_CODEC_QUANTIZED_H

#include "codec/codecs.h"
#include "kernel/quant.h"

#include <float.h>

/* The largest step of which 2^(bits - 1) are finite. */
#define BL_QUANT_STEP_MAX(bits) (FLT_MAX / (float)(1u << ((bits)-1)))

typedef bl_quant (*bl_quant_of_fn)(uint32_t parameter);

size_t bl_quantized_bound(const bl_quant *q, uint32_t n);
size_t bl_quantized_encode(const bl_quant *q, bl_codec_id id, uint16_t parameter, const float *x, float *residual,
                           uint32_t n, uint32_t flags, uint8_t *out);
/* Size, steps that are not negative, finite and within their range, and zeros where no number stands. */
bl_status bl_quantized_check(const bl_quant *q, const bl_codec_view *v, bl_error *err);
void bl_quantized_decode(const bl_quant *q, const bl_codec_view *v, float *y);
void bl_quantized_accumulate(const bl_quant *q, const bl_codec_view *v, float scale, float *y);
/* Frames with equal parameters side by side go together. */
void bl_quantized_sum(bl_quant_of_fn of, const bl_codec_view *views, uint32_t n_views, bool store, float *y);

/* Float32 scales at the head of a payload: the first that is negative, NaN, infinite or above max is an error. */
bl_status bl_codec_check_scales(const bl_codec_view *v, size_t n_scales, float max, bl_error *err);

#endif
