/* SPDX-License-Identifier: Apache-2.0
 *
 * What callers of the low-rank codec need to know besides codec.h.
 */
#ifndef BL_CODEC_LOWRANK_H
#define BL_CODEC_LOWRANK_H

#include <stdint.h>

#define BL_LOWRANK_RANK_MAX 32

/* The columns that a chunk of n elements is cut into when the caller names none (`bl_encode.columns` 0) or names at least
 * n, so that there would be one row: about the root of n. Where a warm start is kept with columns 0, it has
 * bl_lowrank_columns(n) * rank floats; at least n columns are never fewer than these. */
uint32_t bl_lowrank_columns(uint32_t n);

#endif
