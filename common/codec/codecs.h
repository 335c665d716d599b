/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside common/codec only: the rows of the registry, and the frame header that every encoder ends with.
 */
#ifndef BL_CODEC_CODECS_H
#define BL_CODEC_CODECS_H

#include "codec/codec.h"

extern const bl_codec bl_codec_float32;
extern const bl_codec bl_codec_float16;
extern const bl_codec bl_codec_bfloat16;
extern const bl_codec bl_codec_int8;
extern const bl_codec bl_codec_int4;
extern const bl_codec bl_codec_sign;
extern const bl_codec bl_codec_ternary;
extern const bl_codec bl_codec_qsgd;
extern const bl_codec bl_codec_natural;
extern const bl_codec bl_codec_topk;
extern const bl_codec bl_codec_threshold;
extern const bl_codec bl_codec_randomk;
extern const bl_codec bl_codec_zstd;
extern const bl_codec bl_codec_lowrank;

/* Writes the header in front of a payload that already stands at frame + BL_CODEC_HEADER_BYTES.
 * Returns the size of the whole frame. */
size_t bl_codec_seal(uint8_t *frame, bl_codec_id id, uint32_t flags, uint16_t parameter, uint32_t n,
                     size_t payload_bytes);

/* For codecs whose payload has a fixed size and no parameter. */
bl_status bl_codec_expect(const bl_codec_view *v, size_t payload_bytes, bl_error *err);
bl_status bl_codec_no_parameter(const bl_codec_view *v, bl_error *err);
bl_status bl_codec_parameter_at_most(const bl_codec_view *v, uint32_t max, bl_error *err);

/* For codecs whose payload is an array: sums through a kernel of kernel/quant.h that takes a few of them at once. */
typedef void (*bl_codec_sum_fn)(const uint8_t *const *x, uint32_t n_views, bool store, float *y, size_t n);
void bl_codec_sum_arrays(bl_codec_sum_fn sum, const bl_codec_view *views, uint32_t n_views, bool store, float *y);

#endif
