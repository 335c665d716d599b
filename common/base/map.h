/* SPDX-License-Identifier: Apache-2.0
 *
 * Hash map from a 64-bit key to a pointer: open addressing, linear probing, backward-shift deletion.
 * Values are borrowed. Iteration order depends only on the history of calls, never on addresses, so
 * that runs can be repeated. One thread at a time.
 */
#ifndef BL_BASE_MAP_H
#define BL_BASE_MAP_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct bl_map_slot {
  uint64_t key;
  void *value; /* NULL: free */
} bl_map_slot;

typedef struct bl_map {
  bl_map_slot *slots; /* owned */
  size_t capacity;    /* 0 or a power of two */
  size_t count;
} bl_map;

#define BL_MAP_INIT {NULL, 0, 0}

void bl_map_fini(bl_map *m);
void *bl_map_get(const bl_map *m, uint64_t key);
/* value != NULL. Replaces. BL_ENOMEM leaves the map as it was. */
BL_MUST_CHECK bl_status bl_map_put(bl_map *m, uint64_t key, void *value);
/* Returns the removed value or NULL. */
void *bl_map_remove(bl_map *m, uint64_t key);
/* for (size_t i = 0; bl_map_next(m, &i, &key, &value);) — no change of the map inside the loop. */
bool bl_map_next(const bl_map *m, size_t *i, uint64_t *ret_key, void **ret_value);

#endif
