/* SPDX-License-Identifier: Apache-2.0
 *
 * Frame pools of several capacities behind one call, so that a small tensor does not hold a megabyte and
 * a large one does not allocate. Capacities are 512 bytes times powers of four, then the largest asked for.
 * Threads: as bl_frame_pool.
 */
#ifndef BL_WIRE_POOLS_H
#define BL_WIRE_POOLS_H

#include "wire/frame.h"

#include <stdbool.h>

#define BL_FRAME_POOLS_MAX 8

typedef struct bl_frame_pools {
  bl_frame_pool *at[BL_FRAME_POOLS_MAX]; /* owned */
  size_t capacity[BL_FRAME_POOLS_MAX];
  size_t n;
} bl_frame_pools;

/* largest_bytes: capacity of the last pool; keep_max: idle frames kept per pool. On failure *p is empty. */
BL_MUST_CHECK bl_status bl_frame_pools_init(bl_frame_pools *p, size_t largest_bytes, size_t keep_max);
/* Accepts an empty (zeroed) one. Frames still out stay valid. */
void bl_frame_pools_fini(bl_frame_pools *p);
/* A frame with refs = 1 and this size; NULL: no memory, or larger than the largest. */
bl_frame *bl_frame_pools_take(bl_frame_pools *p, size_t size) BL_MUST_CHECK;

#endif
