/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocation: checked, accounted, and able to fail on demand in tests.
 *
 * Every function returns NULL when memory is short, when a size overflows, or when the fault injector
 * says so; callers handle it. bl_free accepts NULL. Memory is freed with bl_free only. Any thread.
 */
#ifndef BL_BASE_ALLOC_H
#define BL_BASE_ALLOC_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

void *bl_malloc(size_t size) BL_MUST_CHECK;
void *bl_calloc(size_t n, size_t size) BL_MUST_CHECK;
void *bl_realloc(void *p, size_t size) BL_MUST_CHECK;
/* n * size checked for overflow; on failure the old block stays. */
void *bl_realloc_array(void *p, size_t n, size_t size) BL_MUST_CHECK;
char *bl_strdup(const char *s) BL_MUST_CHECK;
char *bl_strndup(const char *s, size_t n) BL_MUST_CHECK;
void bl_free(void *p);

/* Large arrays of numbers: 64-byte aligned, zeroed; freed with bl_free_aligned. */
void *bl_calloc_aligned(size_t n, size_t size) BL_MUST_CHECK;
void bl_free_aligned(void *p);

typedef struct bl_alloc_stats {
  uint64_t live_blocks;
  uint64_t total_calls; /* allocations since start: its difference shows a steady state without any */
} bl_alloc_stats;
bl_alloc_stats bl_alloc_get_stats(void);
/* For processes that get and free large blocks all the time: freed ones are kept and used again, up to 512 MiB. Above the
 * default thresholds each would be a fresh mapping, whose pages are faulted in again: 2 us per 4 KiB. */
void bl_alloc_tune(void);
/* Gives freed memory back to the system all the same: after something large has gone. release (may be NULL) frees what
 * is to go along: of each thread that allocated, a block of BL_ALLOC_TRIM_BYTES or more makes the end of that thread's
 * heap go too, which only a free within the heap can shrink. Cost: a walk over free blocks, about a millisecond per GiB
 * that goes back. */
#define BL_ALLOC_TRIM_BYTES (64u << 10)
void bl_alloc_trim(void (*release)(void *arg), void *arg);

/* Tests: the nth allocation from now (1 = next) and all after it fail; 0 switches it off. */
void bl_alloc_fail_after(uint64_t n);

#endif
