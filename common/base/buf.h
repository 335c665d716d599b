/* SPDX-License-Identifier: Apache-2.0
 *
 * Growable byte buffer. An append that fails for lack of memory sets `failed` and every later append is
 * a no-op, so a caller checks once at the end. Always NUL-terminated behind `size` when data != NULL.
 */
#ifndef BL_BASE_BUF_H
#define BL_BASE_BUF_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct bl_buf {
  uint8_t *data; /* owned */
  size_t size;
  size_t capacity;
  bool failed;
} bl_buf;

#define BL_BUF_INIT {NULL, 0, 0, false}

void bl_buf_fini(bl_buf *b);
void bl_buf_clear(bl_buf *b); /* size 0, keeps the memory */
/* Room for n more bytes; returns where they go (size is not changed), NULL when failed. */
void *bl_buf_reserve(bl_buf *b, size_t n);
void bl_buf_add(bl_buf *b, const void *data, size_t n);
void bl_buf_add_str(bl_buf *b, const char *s);
void bl_buf_add_byte(bl_buf *b, uint8_t byte);
void bl_buf_printf(bl_buf *b, const char *fmt, ...) BL_PRINTF(2, 3);
/* "" when empty or failed. */
const char *bl_buf_str(const bl_buf *b);
/* Hands the text over: the caller frees it with bl_free; NULL when failed. The buffer is empty after. */
char *bl_buf_take_str(bl_buf *b);

#endif
