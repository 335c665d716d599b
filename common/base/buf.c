/* SPDX-License-Identifier: Apache-2.0
 *
 * Growable byte buffer: doubles, keeps one spare byte for the NUL.
 */
#include "base/buf.h"

#include "base/alloc.h"

#include <stdio.h>
#include <string.h>

void bl_buf_fini(bl_buf *b) {
  bl_free(b->data);
  *b = (bl_buf)BL_BUF_INIT;
}

void bl_buf_clear(bl_buf *b) {
  b->size = 0;
  b->failed = false;
  if (b->data != NULL)
    b->data[0] = '\0';
}

void *bl_buf_reserve(bl_buf *b, size_t n) {
  if (b->failed)
    return NULL;
  if (n > SIZE_MAX / 2 - b->size - 1) {
    b->failed = true;
    return NULL;
  }
  size_t need = b->size + n + 1;
  if (need > b->capacity) {
    size_t capacity = b->capacity > 0 ? b->capacity : 64;
    while (capacity < need)
      capacity *= 2;
    uint8_t *data = bl_realloc(b->data, capacity);
    if (data == NULL) {
      b->failed = true;
      return NULL;
    }
    b->data = data;
    b->capacity = capacity;
  }
  b->data[b->size] = '\0';
  return b->data + b->size;
}

void bl_buf_add(bl_buf *b, const void *data, size_t n) {
  if (bl_buf_reserve(b, n) == NULL)
    return;
  if (n > 0)
    memcpy(b->data + b->size, data, n);
  b->size += n;
  b->data[b->size] = '\0';
}

void bl_buf_add_str(bl_buf *b, const char *s) { bl_buf_add(b, s, strlen(s)); }

void bl_buf_add_byte(bl_buf *b, uint8_t byte) { bl_buf_add(b, &byte, 1); }

void bl_buf_printf(bl_buf *b, const char *fmt, ...) {
  char small[256];
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(small, sizeof small, fmt, args);
  va_end(args);
  if (n < 0) {
    b->failed = true;
    return;
  }
  if ((size_t)n < sizeof small) {
    bl_buf_add(b, small, (size_t)n);
    return;
  }
  char *room = bl_buf_reserve(b, (size_t)n);
  if (room == NULL)
    return;
  va_start(args, fmt);
  vsnprintf(room, (size_t)n + 1, fmt, args);
  va_end(args);
  b->size += (size_t)n;
}

const char *bl_buf_str(const bl_buf *b) { return b->data != NULL && !b->failed ? (const char *)b->data : ""; }

char *bl_buf_take_str(bl_buf *b) {
  if (bl_buf_reserve(b, 0) == NULL)
    return NULL;
  char *text = (char *)b->data;
  *b = (bl_buf)BL_BUF_INIT;
  return text;
}
