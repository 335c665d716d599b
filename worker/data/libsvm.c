/* SPDX-License-Identifier: Apache-2.0
 *
 * libsvm text: "label index:value index:value ..." per line, indices from 1 and increasing, a comment after
 * '#'. Kept sparse (compressed rows). Labels of two classes may be -1 and +1.
 */
#include "data/input.h"
#include "data/samples.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/num.h"
#include "base/str.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <strings.h>

typedef struct libsvm_reader {
  const wk_read_request *req;
  wk_samples *s;
  wk_input *in;
  const char *path;
  uint64_t line;
  bl_buf text;
  uint64_t row_capacity, value_capacity;
  bool has_minus_one, has_zero;
} libsvm_reader;

static bl_status no_memory(const libsvm_reader *r, bl_error *err) {
  return bl_fail(err, BL_ENOMEM, "%s:%llu: no memory", r->path, (unsigned long long)r->line);
}

static bl_status bad_text(const libsvm_reader *r, bl_status status, const char *text, const char *what,
                          bl_error *err) {
  return bl_fail(err, status, "%s:%llu: '%.64s' %s", r->path, (unsigned long long)r->line, text, what);
}

/* One line without its end; *ret_found false at the end of the file. */
static bl_status read_line(libsvm_reader *r, bool *ret_found, bl_error *err) {
  bl_buf_clear(&r->text);
  int byte = wk_input_byte(r->in);
  *ret_found = byte >= 0;
  r->line++;
  for (; byte >= 0 && byte != '\n'; byte = wk_input_byte(r->in)) {
    if (byte == 0)
      return bl_fail(err, BL_EINVAL, "%s:%llu: a NUL byte, this is not a text file", r->path,
                     (unsigned long long)r->line);
    if (r->text.size >= WK_RECORD_BYTES_MAX)
      return bl_fail(err, BL_ELIMIT, "%s:%llu: a line longer than %zu bytes", r->path,
                     (unsigned long long)r->line, WK_RECORD_BYTES_MAX);
    bl_buf_add_byte(&r->text, (uint8_t)byte);
  }
  bl_buf_add_byte(&r->text, 0);
  return r->text.failed ? no_memory(r, err) : wk_input_status(r->in, err);
}

static bl_status grow(uint64_t have, uint64_t *capacity, void **a, size_t a_size, void **b, size_t b_size) {
  if (have < *capacity)
    return BL_OK;
  uint64_t wanted = BL_MAX(1024, *capacity * 2);
  void *grown = bl_realloc_array(*a, wanted, a_size);
  if (grown == NULL)
    return BL_ENOMEM;
  *a = grown;
  grown = bl_realloc_array(*b, wanted, b_size);
  if (grown == NULL)
    return BL_ENOMEM;
  *b = grown;
  *capacity = wanted;
  return BL_OK;
}

static bl_status parse_number(const libsvm_reader *r, const char *text, double *ret_value, bl_error *err) {
  double v;
  if (bl_str_to_double(text, &v) == BL_OK && fabs(v) <= FLT_MAX) {
    *ret_value = v;
    return BL_OK;
  }
  const char *digits = text + (*text == '-' || *text == '+');
  if (strncasecmp(digits, "nan", 3) == 0 || strncasecmp(digits, "inf", 3) == 0)
    return bad_text(r, BL_ENOTFINITE, text, "is not a finite number", err);
  return bad_text(r, BL_EINVAL, text, "is not a 32-bit number", err);
}

static bl_status set_class(libsvm_reader *r, const char *text, double v, uint32_t *ret_label, bl_error *err) {
  uint32_t n = r->req->n_classes;
  r->has_zero |= v == 0;
  r->has_minus_one |= v == -1;
  if (r->has_minus_one && r->has_zero)
    return bad_text(r, BL_EINVAL, text, "is a label, but labels are either -1 and +1 or 0 and 1", err);
  if (v == -1 && n == 2)
    v = 0;
  if (v < 0 || v >= n || v != floor(v))
    return bl_fail(err, BL_EINVAL,
                   "%s:%llu: label '%.64s' is out of range, the model has %u classes (0 to %u%s)", r->path,
                   (unsigned long long)r->line, text, n, n - 1, n == 2 ? ", or -1 and +1" : "");
  *ret_label = (uint32_t)v;
  return BL_OK;
}

/* Room for one more row, and its label. */
static bl_status begin_row(libsvm_reader *r, const char *label, bl_error *err) {
  wk_samples *s = r->s;
  bool classes = r->req->target == WK_TARGET_CLASS;
  void *targets = classes ? (void *)s->labels : (void *)s->values, *starts = s->row_start;
  bl_status status = grow(s->n + 1, &r->row_capacity, &starts, sizeof *s->row_start, &targets,
                          classes ? sizeof *s->labels : sizeof *s->values);
  s->row_start = starts;
  if (classes)
    s->labels = targets;
  else
    s->values = targets;
  if (status != BL_OK)
    return no_memory(r, err);
  if (s->n == 0)
    s->row_start[0] = 0;
  s->row_start[s->n + 1] = s->row_start[s->n];
  double v = 0;
  if (r->req->with_targets)
    status = parse_number(r, label, &v, err);
  if (status != BL_OK)
    return status;
  if (classes)
    s->labels[s->n] = 0;
  else
    s->values[s->n] = v;
  return classes && r->req->with_targets ? set_class(r, label, v, &s->labels[s->n], err) : BL_OK;
}

static bl_status add_feature(libsvm_reader *r, char *text, uint64_t *last_index, bl_error *err) {
  wk_samples *s = r->s;
  char *colon = strchr(text, ':');
  uint64_t index, at = s->row_start[s->n + 1];
  double v;
  if (colon == NULL)
    return bad_text(r, BL_EINVAL, text, "is not index:value", err);
  *colon = '\0';
  if (bl_str_to_u64(text, &index) != BL_OK || index == 0)
    return bad_text(r, BL_EINVAL, text, "is not a feature index, they are whole numbers from 1", err);
  if (index > s->n_cols)
    return bl_fail(err, BL_EINVAL, "%s:%llu: feature %llu is beyond the %llu features of the source", r->path,
                   (unsigned long long)r->line, (unsigned long long)index, (unsigned long long)s->n_cols);
  if (index <= *last_index)
    return bl_fail(err, BL_EINVAL, "%s:%llu: feature %llu after %llu, indices must increase", r->path,
                   (unsigned long long)r->line, (unsigned long long)index, (unsigned long long)*last_index);
  bl_status status = parse_number(r, colon + 1, &v, err);
  if (status != BL_OK)
    return status;
  if (wk_samples_add_entry(s, &r->value_capacity, at, index - 1, (float)v) != BL_OK)
    return no_memory(r, err);
  s->row_start[s->n + 1] = at + 1;
  *last_index = index;
  return BL_OK;
}

static bl_status parse_line(libsvm_reader *r, bl_error *err) {
  char *text = (char *)r->text.data, *rest;
  char *comment = strchr(text, '#');
  if (comment != NULL)
    *comment = '\0';
  char *word = strtok_r(text, " \t\r", &rest);
  if (word == NULL)
    return BL_OK;
  bl_status status = begin_row(r, word, err);
  uint64_t last_index = 0;
  if (r->req->with_targets || strchr(word, ':') == NULL) /* a file to predict from may have no labels */
    word = strtok_r(NULL, " \t\r", &rest);
  for (; status == BL_OK && word != NULL; word = strtok_r(NULL, " \t\r", &rest))
    status = add_feature(r, word, &last_index, err);
  if (status == BL_OK)
    r->s->n++;
  return status;
}

static bl_status read_file(libsvm_reader *r, const char *path, bl_error *err) {
  r->path = path;
  r->line = 0;
  bl_status status = wk_input_open(path, &r->in, err);
  bool found = status == BL_OK;
  while (status == BL_OK && found) {
    status = read_line(r, &found, err);
    if (status == BL_OK && found)
      status = parse_line(r, err);
  }
  wk_input_close(r->in);
  r->in = NULL;
  return status;
}

bl_status wk_libsvm_read(const wk_read_request *req, wk_samples *ret_samples, bl_error *err) {
  libsvm_reader r = {.req = req, .s = ret_samples, .text = BL_BUF_INIT};
  ret_samples->storage = WK_STORAGE_SPARSE;
  ret_samples->n_cols = req->source->features > 0 ? req->source->features : req->n_inputs;
  bl_status status = BL_OK;
  uint64_t max = req->sparse ? BL_JOB_SPARSE_INPUTS_MAX : WK_INPUTS_MAX;
  if (ret_samples->n_cols > max)
    return bl_fail(err, BL_ELIMIT, "%llu features, the limit is %llu%s", (unsigned long long)ret_samples->n_cols,
                   (unsigned long long)max, req->sparse ? "" : " where the first layer is not sparse");
  for (size_t i = 0; status == BL_OK && i < req->source->n_paths; i++)
    status = read_file(&r, req->source->paths[i], err);
  bl_buf_fini(&r.text);
  if (!req->with_targets) {
    bl_free(ret_samples->labels);
    bl_free(ret_samples->values);
    ret_samples->labels = NULL;
    ret_samples->values = NULL;
  }
  return status;
}
