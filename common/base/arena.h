/* SPDX-License-Identifier: Apache-2.0
 *
 * Arena: allocations that live and die together, such as one parsed message or one job description.
 * Memory is zeroed and 16-byte aligned. A limit bounds what one arena may take. One thread at a time.
 */
#ifndef BL_BASE_ARENA_H
#define BL_BASE_ARENA_H

#include "base/status.h"

#include <stdint.h>

typedef struct bl_arena_block bl_arena_block;

typedef struct bl_arena {
  bl_arena_block *head; /* owned */
  size_t used_bytes;    /* over all blocks */
  size_t limit_bytes;   /* 0: none */
} bl_arena;

void bl_arena_init(bl_arena *a, size_t limit_bytes);
void bl_arena_fini(bl_arena *a);
/* Forgets all allocations; keeps the newest block so that a steady use allocates nothing. */
void bl_arena_reset(bl_arena *a);
/* NULL when memory or the limit is short. */
void *bl_arena_alloc(bl_arena *a, size_t size);
void *bl_arena_array(bl_arena *a, size_t n, size_t size);
char *bl_arena_strdup(bl_arena *a, const char *s);
char *bl_arena_strndup(bl_arena *a, const char *s, size_t n);
char *bl_arena_printf(bl_arena *a, const char *fmt, ...) BL_PRINTF(2, 3);

#endif
