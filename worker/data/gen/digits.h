/* SPDX-License-Identifier: Apache-2.0
 *
 * Pictures of handwritten-looking digits, drawn from strokes and distorted: a pure function of (seed, part,
 * index), with IEEE basic operations and square roots only, so that every machine makes the same bytes.
 */
#ifndef WK_DATA_GEN_DIGITS_H
#define WK_DATA_GEN_DIGITS_H

#include <stdint.h>

#define WK_DIGIT_SIDE 28
#define WK_DIGIT_PIXELS (WK_DIGIT_SIDE * WK_DIGIT_SIDE)

/* Which digit sample `index` of a part (0 training, 1 test) shows. */
uint8_t wk_digit_label(uint64_t seed, uint32_t part, uint64_t index);
/* Draws that sample as the given digit: grey values, 0 background, 255 ink. */
void wk_digit_draw(uint64_t seed, uint32_t part, uint64_t index, uint8_t digit,
                   uint8_t pixels[WK_DIGIT_PIXELS]);

#endif
