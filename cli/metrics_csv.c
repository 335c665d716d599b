/* SPDX-License-Identifier: Apache-2.0
 *
 * One row per epoch; a number that was not measured is an empty cell.
 */
#include "cli/metrics_csv.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const columns[] = {
    "epoch",           "clock",          "samples",   "seconds",       "train_loss", "train_accuracy", "train_rmse", "validation_loss",
    "validation_accuracy", "validation_rmse", "test_loss", "test_accuracy", "test_rmse"};

static void add_cell(bl_buf *out, const json_t *value) {
  if (json_is_integer(value))
    bl_buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
  else if (json_is_real(value))
    bl_buf_printf(out, "%.9g", json_real_value(value));
}

static void add_row(bl_buf *out, const json_t *epoch) {
  for (size_t i = 0; i < BL_COUNT_OF(columns); i++) {
    if (i > 0)
      bl_buf_add_byte(out, ',');
    if (epoch != NULL)
      add_cell(out, json_object_get(epoch, columns[i]));
    else
      bl_buf_add_str(out, columns[i]);
  }
  bl_buf_add_byte(out, '\n');
}

bl_status cli_write_metrics_csv(const json_t *job, bl_error *err) {
  const char *folder = cli_text(json_object_get(job, "result"), "output");
  char path[4096];
  if (folder[0] == '\0' || !bl_file_exists(folder))
    return BL_OK;
  if ((size_t)snprintf(path, sizeof path, "%s/metrics.csv", folder) >= sizeof path)
    return bl_fail(err, BL_ELIMIT, "the path of %s/metrics.csv is too long", folder);
  bl_buf text = BL_BUF_INIT;
  add_row(&text, NULL);
  size_t i;
  json_t *epoch;
  json_array_foreach(json_object_get(job, "history"), i, epoch) add_row(&text, epoch);
  bl_status status = text.failed ? bl_fail(err, BL_ENOMEM, "no memory for %s", path)
                                 : bl_file_write_atomic(path, text.data, text.size, 0644, err);
  bl_buf_fini(&text);
  return status;
}
