/* SPDX-License-Identifier: Apache-2.0
 *
 * The frame of topk and threshold: which elements are kept, and their values. Inside common/codec only.
 *
 * Header: parameter = kind of values (enum bl_values) | index code << 8 (codec/index.h). Payload:
 *
 *   offset  size
 *   0       w    number k of kept elements; w = 1, 2 or 3 bytes for n below 2^8, below 2^16 and from there on
 *   w       v    their values (codec/values.h), in the order of the elements
 *   w + v   ...  their indices (codec/index.h)
 *
 * Example, topk(10%, ternary) of 20 zeros but x[3] = 1 and x[4] = -3 to be added: k = 2, magnitude 2, signs 10b; gaps
 * 3 and 0 with divisor 3: high zeros 1, third 0 and zeros 0, third 0: 010 10 (code 3):
 *
 *   0a 00 0403 14000000 <checksum> 02 00000040 02 0a
 *
 * Error feedback: sum = x + residual; a kept element leaves sum - sent, any other leaves sum.
 *
 * Momentum correction (Lin, Han, Mao, Wang, Dally, "Deep gradient compression", ICLR 2018, arXiv:1712.01887, section
 * 3.1 and algorithm 4), with a velocity u and the residual as its accumulation v: u = m * u + x; v = v + u; kept are
 * the largest |v|; where an element is kept v = v - sent and u = 0 (momentum factor masking).
 * Law, element by element and but for rounding: the sum over rounds of u (as after its first equation) is the sum of
 * what was sent plus the residual.
 *
 * Numbers: finite ones only. Where x, the sum or u is not finite, nothing is sent and zero is left. What is kept is
 * never 0 before its value is coded.
 *
 * Memory: lists of what was picked are made in `out`, behind where the frame will end; bl_sparse_bound counts them. So
 * a bound is about 8 bytes for each element that may be kept, and frames are much smaller.
 */
#ifndef BL_CODEC_SPARSE_H
#define BL_CODEC_SPARSE_H

#include "codec/codec.h"
#include "kernel/sparse.h"

/* How many elements a frame of topk keeps at most: with a threshold of the whole tensor one chunk may have more than
 * its part. Where even more reach the threshold, these many largest are kept, the first ones of equals. */
uint32_t bl_sparse_max(float density, uint32_t n);

/* `kept_max`: what lists have room for. */
size_t bl_sparse_bound(bl_values kind, uint32_t n, uint32_t kept_max);
bl_sparse_list bl_sparse_lists(bl_values kind, uint32_t n, uint32_t kept_max, uint8_t *out);

/* Settles residual and velocity as far as they do not depend on what is kept, and lists what reaches `least`; list
 * may be NULL, e too where there is no residual. Returns how many reach it, as the kernels. */
uint32_t bl_sparse_gather(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t least,
                          const bl_sparse_list *list);
/* The k largest of a, or all that are not zeros, the first of equals; list->max is at least k. Returns how many. */
uint32_t bl_sparse_gather_exact(const float *a, uint32_t n, uint32_t k, const bl_sparse_list *list);
/* The same out of a list of `count` that reach `picked_from`, in place. */
uint32_t bl_sparse_keep_largest(const bl_sparse_list *list, uint32_t count, uint32_t k, uint32_t picked_from);

/* Writes the frame of the `count` that are listed, leaves the rest of them in the residual and clears their velocity.
 * list: of bl_sparse_lists; it is used up. Returns the frame's size. */
size_t bl_sparse_finish(const bl_encode *e, const bl_sparse_list *list, uint32_t count, float *residual, uint32_t n,
                        uint32_t flags, uint8_t *out);
/* What is listed in part: residual[index] = rest of it, velocity[index] = 0. `sent` replaces the values. */
void bl_sparse_leave(const bl_encode *e, const uint32_t *index, const float *sent, uint32_t count, float *residual);

uint32_t bl_sparse_count_bytes(uint32_t n);

/* The codec's functions that topk and threshold share. */
bl_status bl_sparse_check(const bl_codec_view *v, bl_error *err);
void bl_sparse_decode(const bl_codec_view *v, float *y);
void bl_sparse_accumulate(const bl_codec_view *v, float scale, float *y);
void bl_sparse_sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y);

#endif
