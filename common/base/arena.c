/* SPDX-License-Identifier: Apache-2.0
 *
 * Chain of blocks, newest first, each at least twice the last.
 */
#include "base/arena.h"

#include "base/alloc.h"
#include "base/num.h"

#include <stdio.h>
#include <string.h>

struct bl_arena_block {
  bl_arena_block *next;
  size_t capacity;
  size_t used;
  size_t pad;
  uint8_t bytes[];
};

#define ARENA_FIRST_BLOCK_BYTES 4096

void bl_arena_init(bl_arena *a, size_t limit_bytes) { *a = (bl_arena){.limit_bytes = limit_bytes}; }

static void free_chain(bl_arena_block *b) {
  while (b != NULL) {
    bl_arena_block *next = b->next;
    bl_free(b);
    b = next;
  }
}

void bl_arena_fini(bl_arena *a) {
  free_chain(a->head);
  *a = (bl_arena){.limit_bytes = a->limit_bytes};
}

void bl_arena_reset(bl_arena *a) {
  if (a->head != NULL) {
    free_chain(a->head->next);
    a->head->next = NULL;
    a->head->used = 0;
  }
  a->used_bytes = 0;
}

void *bl_arena_alloc(bl_arena *a, size_t size) {
  if (size > SIZE_MAX / 4)
    return NULL;
  size = (size + 15) & ~(size_t)15;
  if (a->limit_bytes != 0 && size > a->limit_bytes - BL_MIN(a->used_bytes, a->limit_bytes))
    return NULL;
  bl_arena_block *b = a->head;
  if (b == NULL || b->capacity - b->used < size) {
    size_t capacity = b != NULL ? b->capacity * 2 : ARENA_FIRST_BLOCK_BYTES;
    if (capacity < size)
      capacity = size;
    b = bl_malloc(sizeof *b + capacity);
    if (b == NULL)
      return NULL;
    *b = (bl_arena_block){.next = a->head, .capacity = capacity};
    a->head = b;
  }
  void *p = b->bytes + b->used;
  b->used += size;
  a->used_bytes += size;
  memset(p, 0, size);
  return p;
}

void *bl_arena_array(bl_arena *a, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes))
    return NULL;
  return bl_arena_alloc(a, bytes);
}

char *bl_arena_strndup(bl_arena *a, const char *s, size_t n) {
  size_t len = strnlen(s, n);
  char *copy = bl_arena_alloc(a, len + 1);
  if (copy != NULL)
    memcpy(copy, s, len);
  return copy;
}

char *bl_arena_strdup(bl_arena *a, const char *s) { return bl_arena_strndup(a, s, strlen(s)); }

char *bl_arena_printf(bl_arena *a, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(NULL, 0, fmt, args);
  va_end(args);
  if (n < 0)
    return NULL;
  char *text = bl_arena_alloc(a, (size_t)n + 1);
  if (text == NULL)
    return NULL;
  va_start(args, fmt);
  vsnprintf(text, (size_t)n + 1, fmt, args);
  va_end(args);
  return text;
}
