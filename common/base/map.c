/* SPDX-License-Identifier: Apache-2.0
 *
 * Open-addressing map; the load stays at or under one half.
 */
#include "base/map.h"

#include "base/alloc.h"

static uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= UINT64_C(0xff51afd7ed558ccd);
  x ^= x >> 33;
  x *= UINT64_C(0xc4ceb9fe1a85ec53);
  return x ^ (x >> 33);
}

void bl_map_fini(bl_map *m) {
  bl_free(m->slots);
  *m = (bl_map)BL_MAP_INIT;
}

/* Slot of the key, or the free slot where it would go. */
static size_t find(const bl_map *m, uint64_t key) {
  size_t mask = m->capacity - 1;
  size_t i = (size_t)mix(key) & mask;
  while (m->slots[i].value != NULL && m->slots[i].key != key)
    i = (i + 1) & mask;
  return i;
}

void *bl_map_get(const bl_map *m, uint64_t key) { return m->capacity == 0 ? NULL : m->slots[find(m, key)].value; }

static bl_status grow(bl_map *m) {
  bl_map bigger = {.capacity = m->capacity > 0 ? m->capacity * 2 : 16, .count = m->count};
  bigger.slots = bl_calloc(bigger.capacity, sizeof *bigger.slots);
  if (bigger.slots == NULL)
    return BL_ENOMEM;
  for (size_t i = 0; i < m->capacity; i++) {
    if (m->slots[i].value != NULL)
      bigger.slots[find(&bigger, m->slots[i].key)] = m->slots[i];
  }
  bl_free(m->slots);
  *m = bigger;
  return BL_OK;
}

bl_status bl_map_put(bl_map *m, uint64_t key, void *value) {
  BL_ASSERT(value != NULL);
  if ((m->count + 1) * 2 > m->capacity) {
    bl_status status = grow(m);
    if (status != BL_OK)
      return status;
  }
  size_t i = find(m, key);
  if (m->slots[i].value == NULL)
    m->count++;
  m->slots[i] = (bl_map_slot){key, value};
  return BL_OK;
}

void *bl_map_remove(bl_map *m, uint64_t key) {
  if (m->capacity == 0)
    return NULL;
  size_t mask = m->capacity - 1;
  size_t hole = find(m, key);
  void *value = m->slots[hole].value;
  if (value == NULL)
    return NULL;
  for (size_t i = (hole + 1) & mask; m->slots[i].value != NULL; i = (i + 1) & mask) {
    size_t home = (size_t)mix(m->slots[i].key) & mask;
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      m->slots[hole] = m->slots[i];
      hole = i;
    }
  }
  m->slots[hole].value = NULL;
  m->count--;
  return value;
}

bool bl_map_next(const bl_map *m, size_t *i, uint64_t *ret_key, void **ret_value) {
  while (*i < m->capacity) {
    const bl_map_slot *s = &m->slots[(*i)++];
    if (s->value != NULL) {
      *ret_key = s->key;
      *ret_value = s->value;
      return true;
    }
  }
  return false;
}
