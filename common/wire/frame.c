/* SPDX-License-Identifier: Apache-2.0
 *
 * Counted frames: single heap blocks, and pools of equal ones.
 *
 * A pool's list is guarded by a mutex, not by an atomic stack: frames come back from ZeroMQ's I/O thread
 * while the loop's thread takes, and a lock-free stack of re-used nodes needs tagged pointers against the
 * ABA problem. The lock is held for a few instructions per frame of up to 1 MiB.
 */
#include "wire/frame.h"

#include "base/alloc.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

/* Keeps the bytes as aligned as the allocator's block, up to a cache line. */
#define FRAME_HEADER_BYTES ((sizeof(bl_frame) + 63) & ~(size_t)63)

static void free_block(bl_frame *f) { bl_free(f); }

bl_frame *bl_frame_new(size_t size) {
  if (size > SIZE_MAX - FRAME_HEADER_BYTES)
    return NULL;
  bl_frame *f = bl_malloc(FRAME_HEADER_BYTES + size);
  if (f == NULL)
    return NULL;
  *f = (bl_frame){
      .data = (uint8_t *)f + FRAME_HEADER_BYTES, .size = size, .capacity = size, .free_fn = free_block, .refs = 1};
  return f;
}

bl_frame *bl_frame_copy(const void *data, size_t size) {
  bl_frame *f = bl_frame_new(size);
  if (f != NULL && size > 0)
    memcpy(f->data, data, size);
  return f;
}

bl_frame *bl_frame_ref(bl_frame *f) {
  uint32_t before = atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
  BL_ASSERT(before > 0 && before < UINT32_MAX);
  return f;
}

void bl_frame_unref(bl_frame *f) {
  if (f == NULL)
    return;
  /* Release: our reads of the bytes happen before the memory is used again; acquire: on the last one. */
  uint32_t before = atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel);
  BL_ASSERT(before > 0);
  if (before == 1)
    f->free_fn(f);
}

struct bl_frame_pool {
  pthread_mutex_t lock;
  bl_frame *free_list;    /* owned, linked by pool_next */
  size_t n_free;
  size_t n_out;           /* frames that somebody holds */
  size_t keep_max;
  size_t capacity_bytes;
  bool closed;            /* its owner is gone: the last frame to come back frees it */
};

static void pool_destroy(bl_frame_pool *p) {
  pthread_mutex_destroy(&p->lock);
  bl_free(p);
}

static void pool_give_back(bl_frame *f) {
  bl_frame_pool *p = f->owner;
  pthread_mutex_lock(&p->lock);
  p->n_out--;
  bool keep = !p->closed && p->n_free < p->keep_max;
  if (keep) {
    f->pool_next = p->free_list;
    p->free_list = f;
    p->n_free++;
  }
  bool last = p->closed && p->n_out == 0;
  pthread_mutex_unlock(&p->lock);
  if (!keep)
    bl_free(f);
  if (last)
    pool_destroy(p);
}

bl_frame_pool *bl_frame_pool_new(size_t capacity_bytes, size_t keep_max) {
  bl_frame_pool *p = bl_calloc(1, sizeof *p);
  if (p == NULL)
    return NULL;
  p->capacity_bytes = capacity_bytes;
  p->keep_max = keep_max;
  if (pthread_mutex_init(&p->lock, NULL) != 0) {
    bl_free(p);
    return NULL;
  }
  return p;
}

void bl_frame_pool_free(bl_frame_pool *p) {
  if (p == NULL)
    return;
  pthread_mutex_lock(&p->lock);
  bl_frame *list = p->free_list;
  p->free_list = NULL;
  p->n_free = 0;
  p->closed = true;
  bool last = p->n_out == 0;
  pthread_mutex_unlock(&p->lock);
  while (list != NULL) {
    bl_frame *next = list->pool_next;
    bl_free(list);
    list = next;
  }
  if (last)
    pool_destroy(p);
}

bl_frame *bl_frame_pool_take(bl_frame_pool *p) {
  pthread_mutex_lock(&p->lock);
  bl_frame *f = p->free_list;
  if (f != NULL) {
    p->free_list = f->pool_next;
    p->n_free--;
  }
  p->n_out++;
  pthread_mutex_unlock(&p->lock);
  if (f == NULL) {
    f = bl_frame_new(p->capacity_bytes);
    if (f == NULL) {
      pthread_mutex_lock(&p->lock);
      p->n_out--;
      pthread_mutex_unlock(&p->lock);
      return NULL;
    }
    f->free_fn = pool_give_back;
    f->owner = p;
  }
  f->pool_next = NULL;
  f->size = f->capacity;
  atomic_store_explicit(&f->refs, 1, memory_order_relaxed);
  return f;
}
