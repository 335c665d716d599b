/* SPDX-License-Identifier: Apache-2.0
 *
 * The values of kept elements as bytes. Inside common/codec only.
 *
 *   float32   4 bytes each
 *   float16   2 bytes each, nearest even, +-65504 where larger
 *   int8      for each block of 256 values a float32 scale, its largest magnitude / 127; then a byte each, -127 to 127,
 *             to nearest even; value = byte * scale
 *   2bit      two float32 magnitudes, the mean of the magnitudes below the mean of all and of the others; then k signs,
 *             one bit each from the least significant on (1: negative), padded with zeros to a byte; then k bits that
 *             choose the second magnitude, padded too
 *   ternary   one float32 magnitude, the mean of all; then k signs as above
 *
 * All numbers are finite, scales and magnitudes are not negative, and no decoded value is infinite.
 */
#ifndef BL_CODEC_VALUES_H
#define BL_CODEC_VALUES_H

#include "codec/codec.h"

#define BL_VALUES_BLOCK 256

size_t bl_values_bytes(bl_values kind, uint32_t k);

/* value: [k], finite -> out: [bl_values_bytes], and `value` becomes what a decoder will read. */
void bl_values_put(bl_values kind, float *value, uint32_t k, uint8_t *out);

/* bytes: [bl_values_bytes]. BL_ECORRUPT. */
BL_MUST_CHECK bl_status bl_values_check(bl_values kind, uint32_t k, const uint8_t *bytes, bl_error *err);
/* Values first to first + count of k; first: a multiple of BL_VALUES_BLOCK; count: at most that. */
void bl_values_get(bl_values kind, uint32_t k, const uint8_t *bytes, uint32_t first, uint32_t count, float *ret_value);

#endif
