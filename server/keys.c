/* SPDX-License-Identifier: Apache-2.0
 *
 * Key lists and their cache.
 *
 * Source of the idea: Li et al., "Scaling distributed machine learning with the parameter server", OSDI 2014,
 * section 3.2.
 */
#include "server/keys.h"

#include "server/table.h"

#include <string.h>

void srv_key_cache_init(srv_key_cache *c, uint64_t bytes_max) {
  *c = (srv_key_cache){.bytes_max = bytes_max};
}

/* The map's key. Lists whose map keys meet replace each other; a find compares everything. */
static uint64_t map_key(uint32_t rank, uint32_t chunk, const bl_rows_id *id) {
  return id->checksum ^ (((uint64_t)rank << 32 | chunk) * UINT64_C(0x9e3779b97f4a7c15));
}

static void free_list(srv_keys *k) {
  bl_frame *memory = k->memory;
  *k->bytes_live -= k->bytes;
  bl_frame_unref(k->frame);
  bl_frame_unref(memory); /* k stands in it */
}

void srv_keys_unref(srv_keys *k) {
  if (k != NULL && --k->refs == 0)
    free_list(k);
}

static void unlink_list(srv_key_cache *c, srv_keys *k) {
  *(k->older != NULL ? &k->older->newer : &c->oldest) = k->newer;
  *(k->newer != NULL ? &k->newer->older : &c->newest) = k->older;
  k->older = k->newer = NULL;
}

static void link_newest(srv_key_cache *c, srv_keys *k) {
  k->older = c->newest;
  *(c->newest != NULL ? &c->newest->newer : &c->oldest) = k;
  c->newest = k;
}

static void let_go(srv_key_cache *c, srv_keys *k) {
  unlink_list(c, k);
  bl_map_remove(&c->map, map_key(k->rank, k->chunk, &k->id));
  c->bytes -= k->bytes;
  srv_keys_unref(k);
}

void srv_key_cache_fini(srv_key_cache *c) {
  while (c->oldest != NULL)
    let_go(c, c->oldest);
  bl_map_fini(&c->map);
}

static srv_keys *lookup(srv_key_cache *c, uint32_t rank, uint32_t chunk, const bl_rows_id *id) {
  srv_keys *k = bl_map_get(&c->map, map_key(rank, chunk, id));
  bool same = k != NULL && k->rank == rank && k->chunk == chunk && k->id.checksum == id->checksum &&
              k->id.n_rows == id->n_rows && k->id.width == id->width;
  if (!same)
    return NULL;
  unlink_list(c, k);
  link_newest(c, k);
  k->refs++;
  return k;
}

srv_keys *srv_keys_find(srv_key_cache *c, uint32_t rank, uint32_t chunk, const bl_rows_id *id) {
  srv_keys *k = lookup(c, rank, chunk, id);
  *(k != NULL ? &c->n_hits : &c->n_misses) += 1;
  return k;
}

static srv_keys *new_list(srv_key_cache *c, bl_frame_pools *pools, uint32_t rank, uint32_t chunk,
                          const bl_rows_view *view) {
  size_t slots_at = (sizeof(srv_keys) + 15) & ~(size_t)15,
         bytes = slots_at + (size_t)view->id.n_rows * sizeof(uint32_t);
  bl_frame *memory = bl_frame_pools_take(pools, bytes);
  bl_frame *frame = bl_frame_pools_take(pools, BL_ROWS_HEADER_BYTES + view->key_bytes);
  if (memory == NULL || frame == NULL) {
    bl_frame_unref(memory);
    bl_frame_unref(frame);
    return NULL;
  }
  bl_rows_put(frame->data, &view->id, view->keys, view->key_bytes, false);
  srv_keys *k = (srv_keys *)(void *)memory->data;
  *k = (srv_keys){.id = view->id,
                  .rank = rank,
                  .chunk = chunk,
                  .n_unknown = view->id.n_rows,
                  .frame = frame,
                  .keys = frame->data + BL_ROWS_HEADER_BYTES,
                  .slots = (uint32_t *)(void *)(memory->data + slots_at),
                  .memory = memory,
                  .refs = 1,
                  .bytes = bytes + frame->size,
                  .bytes_live = &c->bytes_live};
  memset(k->slots, 0xff, (size_t)view->id.n_rows * sizeof(uint32_t));
  c->bytes_live += k->bytes;
  return k;
}

/* Without memory for the map the list is simply not kept. */
static void keep(srv_key_cache *c, srv_keys *k) {
  if (k->bytes > c->bytes_max)
    return;
  while (c->bytes + k->bytes > c->bytes_max)
    let_go(c, c->oldest);
  srv_keys *met = bl_map_get(&c->map, map_key(k->rank, k->chunk, &k->id));
  if (met != NULL)
    let_go(c, met);
  if (bl_map_put(&c->map, map_key(k->rank, k->chunk, &k->id), k) != BL_OK)
    return;
  k->refs++;
  c->bytes += k->bytes;
  link_newest(c, k);
}

srv_keys *srv_keys_take(srv_key_cache *c, bl_frame_pools *pools, uint32_t rank, uint32_t chunk,
                        const bl_rows_view *view) {
  srv_keys *k = lookup(c, rank, chunk, &view->id);
  if (k != NULL)
    return k;
  k = new_list(c, pools, rank, chunk, view);
  if (k != NULL)
    keep(c, k);
  return k;
}
