/* SPDX-License-Identifier: Apache-2.0
 *
 * One pass over the bytes, one field after the other.
 */
#include "data/csv_scan.h"

#include "data/samples.h"

#include "base/alloc.h"
#include "base/num.h"

#include <string.h>

void wk_csv_scan_init(wk_csv_scan *c, wk_input *in, char delimiter) {
  *c = (wk_csv_scan){.in = in, .delimiter = delimiter, .line = 1, .text = BL_BUF_INIT};
}

void wk_csv_scan_fini(wk_csv_scan *c) {
  bl_buf_fini(&c->text);
  bl_free(c->starts);
}

const char *wk_csv_scan_field(const wk_csv_scan *c, uint32_t i) {
  BL_ASSERT(i < c->n_fields);
  return (const char *)c->text.data + c->starts[i];
}

static bl_status no_memory(const wk_csv_scan *c, bl_error *err) {
  return bl_fail(err, BL_ENOMEM, "%s:%llu: no memory", wk_input_path(c->in), (unsigned long long)c->line);
}

static bl_status malformed(const wk_csv_scan *c, bl_error *err, const char *what) {
  return bl_fail(err, BL_EINVAL, "%s:%llu: %s", wk_input_path(c->in), (unsigned long long)c->line, what);
}

static bl_status begin_field(wk_csv_scan *c, bl_error *err) {
  if (c->n_fields == c->capacity) {
    uint32_t capacity = BL_MAX(16, c->capacity * 2);
    size_t *starts = bl_realloc_array(c->starts, capacity, sizeof *starts);
    if (starts == NULL)
      return no_memory(c, err);
    c->starts = starts;
    c->capacity = capacity;
  }
  c->starts[c->n_fields++] = c->text.size;
  return BL_OK;
}

static bl_status add_byte(wk_csv_scan *c, int byte, bl_error *err) {
  if (byte == 0)
    return malformed(c, err, "a NUL byte, this is not a text file");
  if (c->text.size >= WK_RECORD_BYTES_MAX)
    return bl_fail(err, BL_ELIMIT, "%s:%llu: a record longer than %zu bytes begins here", wk_input_path(c->in),
                   (unsigned long long)c->record_line, WK_RECORD_BYTES_MAX);
  bl_buf_add_byte(&c->text, (uint8_t)byte);
  if (byte == '\n')
    c->line++;
  return c->text.failed ? no_memory(c, err) : BL_OK;
}

/* After the opening quote; *ret_next is the byte behind the closing one. */
static bl_status scan_quoted(wk_csv_scan *c, int *ret_next, bl_error *err) {
  uint64_t opened = c->line;
  for (;;) {
    int byte = wk_input_byte(c->in);
    if (byte == '"') {
      byte = wk_input_byte(c->in);
      if (byte != '"') {
        *ret_next = byte;
        return BL_OK;
      }
    } else if (byte < 0) {
      bl_status status = wk_input_status(c->in, err);
      return status != BL_OK ? status
                             : bl_fail(err, BL_EINVAL, "%s:%llu: the quote that opens here is never closed",
                                       wk_input_path(c->in), (unsigned long long)opened);
    }
    bl_status status = add_byte(c, byte, err);
    if (status != BL_OK)
      return status;
  }
}

static void trim_field(wk_csv_scan *c) {
  size_t *start = &c->starts[c->n_fields - 1];
  while (c->text.size > *start &&
         (c->text.data[c->text.size - 1] == ' ' || c->text.data[c->text.size - 1] == '\t'))
    c->text.size--;
  while (c->text.size > *start && (c->text.data[*start] == ' ' || c->text.data[*start] == '\t'))
    ++*start;
}

/* A field that starts with `byte`; *ret_end: the byte behind it: delimiter, line feed, or -1. */
static bl_status scan_field(wk_csv_scan *c, int byte, int *ret_end, bl_error *err) {
  bl_status status = begin_field(c, err);
  bool quoted = byte == '"';
  if (status == BL_OK && quoted)
    status = scan_quoted(c, &byte, err);
  for (; status == BL_OK && byte >= 0; byte = wk_input_byte(c->in)) {
    if (byte == '\r') {
      byte = wk_input_byte(c->in);
      if (byte != '\n' && byte >= 0)
        return malformed(c, err, "a carriage return inside a line");
    }
    if (byte == c->delimiter || byte == '\n' || byte < 0)
      break;
    if (quoted)
      return malformed(c, err, "text after a closing quote");
    if (byte == '"')
      return malformed(c, err, "a quote inside a field that does not start with one");
    status = add_byte(c, byte, err);
  }
  if (status == BL_OK)
    status = wk_input_status(c->in, err);
  if (status != BL_OK)
    return status;
  trim_field(c);
  bl_buf_add_byte(&c->text, 0);
  *ret_end = byte;
  return c->text.failed ? no_memory(c, err) : BL_OK;
}

/* First byte of the next record that is not empty, or -1. */
static int skip_empty_lines(wk_csv_scan *c) {
  int byte = wk_input_byte(c->in);
  if (c->line == 1 && byte == 0xef) { /* EF BB BF */
    wk_input_byte(c->in);
    wk_input_byte(c->in);
    byte = wk_input_byte(c->in);
  }
  while (byte == '\n' || byte == '\r') {
    c->line += byte == '\n';
    byte = wk_input_byte(c->in);
  }
  return byte;
}

bl_status wk_csv_scan_next(wk_csv_scan *c, bool *ret_found, bl_error *err) {
  bl_buf_clear(&c->text);
  c->n_fields = 0;
  int byte = skip_empty_lines(c);
  c->record_line = c->line;
  if (byte < 0) {
    *ret_found = false;
    return wk_input_status(c->in, err);
  }
  for (;;) {
    int end = 0;
    bl_status status = scan_field(c, byte, &end, err);
    if (status != BL_OK)
      return status;
    if (end != c->delimiter) {
      c->line += end == '\n';
      *ret_found = true;
      return BL_OK;
    }
    byte = wk_input_byte(c->in);
  }
}
