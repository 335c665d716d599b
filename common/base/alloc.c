/* SPDX-License-Identifier: Apache-2.0
 *
 * Thin layer over malloc with counters and a fault injector.
 */
#include "base/alloc.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t live_blocks;
static _Atomic uint64_t total_calls;
static _Atomic uint64_t fail_countdown; /* 0: off; 1: every call fails; n: n-1 calls succeed first */

static bool may_allocate(void) {
  atomic_fetch_add_explicit(&total_calls, 1, memory_order_relaxed);
  uint64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
  if (left == 0)
    return true;
  if (left == 1)
    return false;
  atomic_store_explicit(&fail_countdown, left - 1, memory_order_relaxed);
  return true;
}

static void *counted(void *p) {
  if (p != NULL)
    atomic_fetch_add_explicit(&live_blocks, 1, memory_order_relaxed);
  return p;
}

void *bl_malloc(size_t size) { return may_allocate() ? counted(malloc(size > 0 ? size : 1)) : NULL; }

void *bl_calloc(size_t n, size_t size) {
  return may_allocate() ? counted(calloc(n > 0 ? n : 1, size > 0 ? size : 1)) : NULL;
}

void *bl_realloc(void *p, size_t size) {
  if (p == NULL)
    return bl_malloc(size);
  return may_allocate() ? realloc(p, size > 0 ? size : 1) : NULL;
}

void *bl_realloc_array(void *p, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes))
    return NULL;
  return bl_realloc(p, bytes);
}

char *bl_strndup(const char *s, size_t n) {
  size_t len = strnlen(s, n);
  char *copy = bl_malloc(len + 1);
  if (copy != NULL) {
    memcpy(copy, s, len);
    copy[len] = '\0';
  }
  return copy;
}

char *bl_strdup(const char *s) { return bl_strndup(s, strlen(s)); }

void bl_free(void *p) {
  if (p != NULL)
    atomic_fetch_sub_explicit(&live_blocks, 1, memory_order_relaxed);
  free(p);
}

void *bl_calloc_aligned(size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - 128 || !may_allocate())
    return NULL;
  bytes = (bytes + 64) & ~(size_t)63;
  /* calloc gives untouched zero pages for large blocks; posix_memalign plus memset would fault them all in. */
  char *raw = calloc(1, bytes + 64);
  if (raw == NULL)
    return NULL;
  char *p = (char *)(((uintptr_t)raw + 64) & ~(uintptr_t)63);
  memcpy(p - sizeof raw, &raw, sizeof raw);
  return counted(p);
}

void bl_free_aligned(void *p) {
  if (p == NULL)
    return;
  void *raw;
  memcpy(&raw, (char *)p - sizeof raw, sizeof raw);
  bl_free(raw);
}

bl_alloc_stats bl_alloc_get_stats(void) {
  return (bl_alloc_stats){.live_blocks = atomic_load(&live_blocks), .total_calls = atomic_load(&total_calls)};
}

static void set_thresholds(int trim_bytes, int pad_bytes) {
  mallopt(M_TRIM_THRESHOLD, trim_bytes);
  mallopt(M_TOP_PAD, pad_bytes);
}

static _Atomic bool is_tuned;

void bl_alloc_tune(void) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  set_thresholds(512 << 20, 16 << 20);
  atomic_store(&is_tuned, true);
}

void bl_alloc_trim(void (*release)(void *arg), void *arg) {
  if (atomic_load(&is_tuned)) /* other threads that free meanwhile give back more than they would: no harm */
    set_thresholds(1 << 16, 0);
  if (release != NULL)
    release(arg);
  char *own = malloc(4 * BL_ALLOC_TRIM_BYTES);
  if (own != NULL) {
    *(volatile char *)own = 0; /* or the pair would be optimised away */
    free(own);
  }
  (void)malloc_trim(0); /* what lies between blocks in use */
  if (atomic_load(&is_tuned))
    set_thresholds(512 << 20, 16 << 20);
}

void bl_alloc_fail_after(uint64_t n) { atomic_store(&fail_countdown, n); }
