/* SPDX-License-Identifier: Apache-2.0
 *
 * Model folders, written beside their place and moved there.
 */
#include "model_folder.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/str.h"
#include "ckpt/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES_MAX 4096
#define METRICS_BYTES_MAX ((size_t)64 << 20)
#define LAST_WEIGHTS "last.safetensors"
/* The weights last: a folder with weights is complete. */
static const char *const file_names[] = {"job.yaml", "preprocess.json", "model.safetensors"};

static bl_status path_in(char *out, const char *dir, const char *name, bl_error *err) {
  int n = snprintf(out, PATH_BYTES_MAX, "%s/%s", dir, name);
  return n > 0 && n < PATH_BYTES_MAX ? BL_OK : bl_fail(err, BL_ELIMIT, "the path %s/%s is too long", dir, name);
}

/* An empty folder beside dir, on the same file system. */
static bl_status make_staging(const char *dir, char *staging, bl_error *err) {
  int n = snprintf(staging, PATH_BYTES_MAX, "%s.new.%ld", dir, (long)getpid());
  if (n <= 0 || n >= PATH_BYTES_MAX)
    return bl_fail(err, BL_ELIMIT, "the output path %s is too long", dir);
  char *above = bl_path_dir(dir);
  if (above == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a path");
  bl_status status = bl_file_make_dirs(above, 0755, err);
  bl_free(above);
  if (status != BL_OK)
    return status;
  if (mkdir(staging, 0755) != 0)
    return bl_fail_errno(err, "output: cannot make the folder %s", staging);
  return BL_OK;
}

bl_status wk_model_folder_check(const char *dir, bl_error *err) {
  struct stat st;
  if (stat(dir, &st) == 0) {
    if (!S_ISDIR(st.st_mode))
      return bl_fail(err, BL_EEXIST, "output: %s is a file, not a folder", dir);
    if (access(dir, W_OK | X_OK) != 0)
      return bl_fail_errno(err, "output: the folder %s cannot be written", dir);
  }
  char staging[PATH_BYTES_MAX];
  bl_status status = make_staging(dir, staging, err);
  if (status == BL_OK && rmdir(staging) != 0)
    status = bl_fail_errno(err, "output: cannot remove the folder %s", staging);
  return status;
}

static bl_status write_job(const char *path, const bl_job_spec *spec, bl_error *err) {
  bl_buf text = BL_BUF_INIT;
  bl_job_spec_dump(spec, &text);
  bl_status status = text.failed ? bl_fail(err, BL_ENOMEM, "no memory for %s", path)
                                 : bl_file_write_atomic(path, text.data, text.size, 0644, err);
  bl_buf_fini(&text);
  return status;
}

static bl_status write_weights(const char *path, const wk_trained *t, bl_error *err) {
  char xxh3[24], clocks[24], epochs[24], job[24];
  snprintf(epochs, sizeof epochs, "%" PRIu64, t->epochs);
  snprintf(job, sizeof job, "%" PRIu64, t->job);
  snprintf(xxh3, sizeof xxh3, "%016" PRIx64, t->weights_xxh3);
  snprintf(clocks, sizeof clocks, "%" PRIu64, t->clocks);
  const char *const metadata[][2] = {
      {"format", "ballast"}, {"job", t->spec->name}, {"job_number", job},
      {"epochs", epochs},    {"clocks", clocks},      {"weights_xxh3", xxh3}};
  return bl_safetensors_write_tables(path, t->table, t->params, t->tables, metadata, BL_COUNT_OF(metadata), err);
}

static bl_status fill(const char *dir, const wk_trained *t, bl_error *err) {
  char path[PATH_BYTES_MAX];
  bl_status status = path_in(path, dir, "job.yaml", err);
  if (status == BL_OK)
    status = write_job(path, t->spec, err);
  if (status == BL_OK)
    status = path_in(path, dir, "preprocess.json", err);
  if (status == BL_OK)
    status = wk_preprocess_write(t->pre, path, err);
  if (status == BL_OK)
    status = path_in(path, dir, "model.safetensors", err);
  return status == BL_OK ? write_weights(path, t, err) : status;
}

/* Moves the files one by one into a folder that stands already and may hold other things. */
static bl_status move_files(const char *staging, const char *dir, bl_error *err) {
  for (size_t i = 0; i < BL_COUNT_OF(file_names); i++) {
    char from[PATH_BYTES_MAX], to[PATH_BYTES_MAX];
    bl_status status = path_in(from, staging, file_names[i], err);
    if (status == BL_OK)
      status = path_in(to, dir, file_names[i], err);
    if (status != BL_OK)
      return status;
    if (rename(from, to) != 0)
      return bl_fail_errno(err, "output: cannot move %s to %s", from, to);
  }
  return BL_OK;
}

bl_status wk_model_folder_write(const char *dir, const wk_trained *trained, bl_error *err) {
  char staging[PATH_BYTES_MAX];
  bl_status status = make_staging(dir, staging, err);
  if (status != BL_OK)
    return status;
  status = fill(staging, trained, err);
  bool moved = status == BL_OK && rename(staging, dir) == 0;
  if (status == BL_OK && !moved)
    status = errno == ENOTEMPTY || errno == EEXIST ? move_files(staging, dir, err)
                                                   : bl_fail_errno(err, "output: cannot move %s to %s", staging, dir);
  if (!moved) {
    bl_error ignored = BL_ERROR_INIT; /* a folder of our own left behind is the lesser trouble */
    if (bl_file_remove_tree(staging, &ignored) != BL_OK && status == BL_OK)
      status = bl_fail(err, ignored.status, "%s", ignored.text);
  }
  return status;
}

bl_status wk_model_folder_write_last(const char *dir, const wk_trained *trained, bl_error *err) {
  char path[PATH_BYTES_MAX];
  bl_status status = path_in(path, dir, LAST_WEIGHTS, err);
  if (status == BL_OK)
    status = bl_file_make_dirs(dir, 0755, err);
  return status == BL_OK ? write_weights(path, trained, err) : status;
}

void wk_model_folder_drop_last(const char *dir) {
  char path[PATH_BYTES_MAX];
  if (path_in(path, dir, LAST_WEIGHTS, NULL) == BL_OK)
    unlink(path);
}

static uint64_t number_in(const char *path, const char *key, bl_status *status, bl_error *err) {
  char text[32] = "";
  uint64_t n = 0;
  if (*status == BL_OK)
    *status = bl_safetensors_metadata(path, key, text, sizeof text, err);
  return *status == BL_OK && bl_str_to_u64(text, &n) == BL_OK ? n : 0;
}

bl_status wk_model_folder_saved(const char *dir, const char *name, wk_saved *ret_saved, bl_error *err) {
  char path[PATH_BYTES_MAX];
  bl_status status = path_in(path, dir, name, err);
  wk_saved saved = {number_in(path, "job_number", &status, err), number_in(path, "epochs", &status, err),
                    number_in(path, "clocks", &status, err)};
  if (status == BL_OK)
    *ret_saved = saved;
  return status;
}

bl_status wk_model_folder_write_text(const char *dir, const char *name, const char *text, bl_error *err) {
  char path[PATH_BYTES_MAX];
  if (name[0] == '.' || strchr(name, '/') != NULL)
    return bl_fail(err, BL_EINVAL, "output: '%.60s' is no name of a file", name);
  bl_status status = path_in(path, dir, name, err);
  if (status == BL_OK)
    status = bl_file_make_dirs(dir, 0755, err);
  return status == BL_OK ? bl_file_write_atomic(path, text, strlen(text), 0644, err) : status;
}

/* Rows of `old` whose epoch is at most keep; nothing when its columns are others. */
static void keep_rows(const char *old, const char *csv, uint64_t keep, bl_buf *out) {
  size_t head = strcspn(csv, "\n") + 1;
  if (strncmp(old, csv, head) != 0)
    return;
  for (const char *row = old + head; *row != '\0';) {
    size_t n = strcspn(row, "\n") + 1;
    if (row[n - 1] != '\n')
      return; /* torn */
    if (strtoull(row, NULL, 10) <= keep)
      bl_buf_add(out, row, n);
    row += n;
  }
}

bl_status wk_model_folder_write_metrics(const char *dir, const char *csv, uint64_t keep, bl_error *err) {
  char path[PATH_BYTES_MAX];
  bl_buf old = BL_BUF_INIT, all = BL_BUF_INIT;
  bl_error ignored = BL_ERROR_INIT;
  size_t head = strcspn(csv, "\n");
  head += csv[head] == '\n';
  bl_buf_add(&all, csv, head);
  if (keep > 0 && path_in(path, dir, "metrics.csv", NULL) == BL_OK &&
      bl_file_read(path, METRICS_BYTES_MAX, &old, &ignored) == BL_OK)
    keep_rows(bl_buf_str(&old), csv, keep, &all);
  bl_buf_add_str(&all, csv + head);
  bl_status status = all.failed ? bl_fail(err, BL_ENOMEM, "no memory for metrics.csv")
                                : wk_model_folder_write_text(dir, "metrics.csv", bl_buf_str(&all), err);
  bl_buf_fini(&old);
  bl_buf_fini(&all);
  return status;
}

static bl_status read_job(const char *dir, wk_loaded *l, bl_error *err) {
  char path[PATH_BYTES_MAX];
  bl_status status = path_in(path, dir, "job.yaml", err);
  if (status != BL_OK)
    return status;
  bl_conf_errors *errors = bl_calloc(1, sizeof *errors);
  if (errors == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for %s", path);
  status = bl_job_spec_read(path, NULL, 0, &l->spec, errors);
  if (status != BL_OK && errors->n > 0)
    bl_fail(err, status, "%s:%u: %s", path, errors->at[0].line, errors->at[0].text);
  else if (status != BL_OK)
    bl_fail(err, status, "cannot read %s: %s", path, bl_status_name(status));
  bl_free(errors);
  return status;
}

static bl_status read_weights(const char *path, wk_loaded *l, bl_error *err) {
  bl_saved_rows *tables = bl_calloc((size_t)l->table->n_tensors + 1, sizeof *tables);
  if (tables == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to read %s", path);
  bl_status status = bl_safetensors_read_tables(path, l->table, wk_model_params(l->model), tables, err);
  if (status == BL_OK)
    l->tables = tables;
  else
    bl_free(tables);
  return status;
}

bl_status wk_model_folder_read(const char *dir, uint32_t batch_max, wk_loaded *ret_loaded, bl_error *err) {
  wk_loaded l = {.n_inputs = 1};
  char path[PATH_BYTES_MAX];
  uint64_t n_outputs = 0;
  bl_status status = read_job(dir, &l, err);
  if (status == BL_OK)
    status = path_in(path, dir, "preprocess.json", err);
  if (status == BL_OK)
    status = wk_preprocess_read(path, &l.pre, err);
  if (status == BL_OK)
    status = bl_tensor_table_of_model(&l.spec->model, l.spec->chunk_bytes, &l.table, err);
  if (status == BL_OK)
    status = bl_model_output_size(&l.spec->model, &n_outputs, err);
  if (status == BL_OK)
    status = wk_model_new(&l.spec->model, l.spec->loss, l.table, batch_max, false, &l.model, err);
  if (status == BL_OK)
    status = path_in(path, dir, "model.safetensors", err);
  if (status == BL_OK)
    status = read_weights(path, &l, err);
  if (status != BL_OK) {
    wk_loaded_fini(&l);
    return status;
  }
  l.n_outputs = (uint32_t)n_outputs;
  for (size_t i = 0; i < l.spec->model.n_input_dims; i++)
    l.n_inputs *= l.spec->model.input[i];
  *ret_loaded = l;
  return BL_OK;
}

void wk_loaded_fini(wk_loaded *l) {
  for (uint32_t i = 0; l->tables != NULL && i < l->table->n_tensors; i++)
    bl_saved_rows_fini(&l->tables[i]);
  bl_free(l->tables);
  wk_model_free(l->model);
  bl_tensor_table_free(l->table);
  wk_preprocess_free(l->pre);
  bl_job_spec_free(l->spec);
  memset(l, 0, sizeof *l);
}
