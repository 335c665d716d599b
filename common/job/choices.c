/* SPDX-License-Identifier: Apache-2.0
 *
 * Chosen codecs as text.
 */
#include "job/choices.h"

#include "base/num.h"
#include "base/str.h"
#include "codec/spec.h"

#include <stdio.h>
#include <string.h>

bool bl_choices_put(char *out, size_t size, size_t *used, uint32_t tensor, const bl_codec_spec *spec) {
  char codec[BL_CODEC_TEXT_MAX], line[BL_CODEC_TEXT_MAX + 16];
  size_t n = (size_t)snprintf(line, sizeof line, "%u=%s\n", tensor, bl_codec_spec_write(spec, codec));
  if (n > size - *used)
    return false;
  memcpy(out + *used, line, n);
  *used += n;
  return true;
}

static bl_status read_line(const char *line, const bl_tensor_table *table, bl_on_choice_fn *on_choice, void *arg,
                           bl_error *err) {
  char number[16] = "";
  uint64_t tensor = UINT64_MAX;
  bl_codec_spec spec;
  const char *codec = strchr(line, '=');
  if (codec == NULL)
    return bl_fail(err, BL_EINVAL, "'%.40s' chooses no codec", line);
  snprintf(number, sizeof number, "%.*s", (int)BL_MIN((size_t)(codec - line), sizeof number - 1), line);
  if (bl_str_to_u64(number, &tensor) != BL_OK || tensor >= table->n_tensors || table->tensors[tensor].table)
    return bl_fail(err, BL_EINVAL, "'%.40s' names none of the %u dense tensors", line, table->n_tensors);
  bl_status st = bl_codec_spec_read(codec + 1, &spec, err);
  if (st == BL_OK && on_choice != NULL)
    on_choice((uint32_t)tensor, &spec, arg);
  return st;
}

bl_status bl_choices_read(const char *text, size_t size, const bl_tensor_table *table, bl_on_choice_fn *on_choice,
                          void *arg, bl_error *err) {
  char line[BL_CODEC_TEXT_MAX + 16];
  for (size_t at = 0; at < size;) {
    const char *end = memchr(text + at, '\n', size - at);
    size_t n = end != NULL ? (size_t)(end - text) - at : size - at;
    if (end == NULL || n >= sizeof line || memchr(text + at, '\0', n) != NULL)
      return bl_fail(err, BL_EINVAL, "a choice of codecs with a line of %zu bytes, or cut off", n);
    memcpy(line, text + at, n);
    line[n] = '\0';
    bl_status st = read_line(line, table, on_choice, arg, err);
    if (st != BL_OK)
      return st;
    at += n + 1;
  }
  return BL_OK;
}
