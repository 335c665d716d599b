/* SPDX-License-Identifier: Apache-2.0
 *
 * Frame pools by size class.
 */
#include "wire/pools.h"

#include <string.h>

bl_status bl_frame_pools_init(bl_frame_pools *p, size_t largest_bytes, size_t keep_max) {
  memset(p, 0, sizeof *p);
  size_t capacity = 512;
  while (p->n < BL_FRAME_POOLS_MAX) {
    bool last = capacity >= largest_bytes || p->n + 1 == BL_FRAME_POOLS_MAX;
    if (last)
      capacity = largest_bytes;
    p->at[p->n] = bl_frame_pool_new(capacity, keep_max);
    if (p->at[p->n] == NULL) {
      bl_frame_pools_fini(p);
      return BL_ENOMEM;
    }
    p->capacity[p->n++] = capacity;
    if (last)
      break;
    capacity *= 4;
  }
  return BL_OK;
}

void bl_frame_pools_fini(bl_frame_pools *p) {
  for (size_t i = 0; i < p->n; i++)
    bl_frame_pool_free(p->at[i]);
  memset(p, 0, sizeof *p);
}

bl_frame *bl_frame_pools_take(bl_frame_pools *p, size_t size) {
  for (size_t i = 0; i < p->n; i++) {
    if (size > p->capacity[i])
      continue;
    bl_frame *f = bl_frame_pool_take(p->at[i]);
    if (f != NULL)
      f->size = size;
    return f;
  }
  return NULL;
}
