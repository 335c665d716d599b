/* SPDX-License-Identifier: Apache-2.0
 *
 * Collecting mistakes. A text that does not fit its 400 bytes is cut; a list that is full says so in its
 * last entry.
 */
#include "conf/errors.h"

#include "conf/doc.h"

#include <stdio.h>
#include <string.h>

#define SET_PREFIX "--set "

static void add_text(bl_conf_errors *errors, unsigned line, const char *prefix, const char *fmt, va_list args)
    BL_PRINTF(4, 0);
static void add_at(bl_conf_errors *errors, const bl_node *node, bool with_field, const char *fmt, va_list args)
    BL_PRINTF(4, 0);

static void add_text(bl_conf_errors *errors, unsigned line, const char *prefix, const char *fmt, va_list args) {
  if (errors == NULL)
    return;
  if (errors->n == BL_CONF_ERRORS_MAX) {
    bl_conf_error *last = &errors->at[BL_CONF_ERRORS_MAX - 1];
    last->line = 0;
    snprintf(last->text, sizeof last->text, "there are more mistakes: only the first %d are listed",
             BL_CONF_ERRORS_MAX - 1);
    return;
  }
  bl_conf_error *e = &errors->at[errors->n++];
  e->line = line;
  int n = snprintf(e->text, sizeof e->text, "%s", prefix);
  if (n >= 0 && (size_t)n < sizeof e->text)
    vsnprintf(e->text + n, sizeof e->text - (size_t)n, fmt, args);
}

void bl_conf_errors_add_line(bl_conf_errors *errors, unsigned line, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  add_text(errors, line, "", fmt, args);
  va_end(args);
}

static void add_at(bl_conf_errors *errors, const bl_node *node, bool with_field, const char *fmt,
                   va_list args) {
  char prefix[320] = "", path[160];
  size_t n = 0;
  if (node != NULL && node->override != NULL)
    n = (size_t)snprintf(prefix, 160, SET_PREFIX "%.140s: ", node->override);
  if (node != NULL && with_field)
    snprintf(prefix + n, sizeof prefix - n, "field '%s': ", bl_node_path(node, path, sizeof path));
  add_text(errors, node == NULL || node->override != NULL ? 0 : node->line, prefix, fmt, args);
}

void bl_conf_errors_add(bl_conf_errors *errors, const bl_node *node, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  add_at(errors, node, false, fmt, args);
  va_end(args);
}

void bl_conf_errors_add_field(bl_conf_errors *errors, const bl_node *node, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  add_at(errors, node, true, fmt, args);
  va_end(args);
}

void bl_conf_errors_sort(bl_conf_errors *errors) {
  if (errors == NULL)
    return;
  for (size_t i = 1; i < errors->n; i++) {
    bl_conf_error moved = errors->at[i];
    /* What has no line stays behind what has one. */
    size_t j = i;
    for (; j > 0 && errors->at[j - 1].line - 1 > moved.line - 1; j--)
      errors->at[j] = errors->at[j - 1];
    errors->at[j] = moved;
  }
}

void bl_conf_errors_print(const bl_conf_errors *errors, const char *file, bl_buf *out) {
  for (size_t i = 0; i < errors->n; i++) {
    const bl_conf_error *e = &errors->at[i];
    if (file == NULL || strncmp(e->text, SET_PREFIX, strlen(SET_PREFIX)) == 0)
      bl_buf_printf(out, "%s\n", e->text);
    else if (e->line == 0)
      bl_buf_printf(out, "%s: %s\n", file, e->text);
    else
      bl_buf_printf(out, "%s:%u: %s\n", file, e->line, e->text);
  }
}
