/* SPDX-License-Identifier: Apache-2.0
 *
 * Statistics are computed in double, in file order, in two passes, so that every machine gets the same bits.
 */
#include "data/preprocess.h"

#include "base/alloc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void wk_preprocess_free(wk_preprocess *pre) {
  if (pre == NULL)
    return;
  for (uint32_t c = 0; pre->columns != NULL && c < pre->n_columns; c++) {
    for (uint32_t k = 0; pre->columns[c].categories != NULL && k < pre->columns[c].n_categories; k++)
      bl_free(pre->columns[c].categories[k]);
    bl_free(pre->columns[c].categories);
    bl_free(pre->columns[c].name);
  }
  for (uint32_t k = 0; pre->class_names != NULL && k < pre->n_class_names; k++)
    bl_free(pre->class_names[k]);
  bl_free(pre->class_names);
  bl_free(pre->columns);
  bl_free(pre->target_column);
  bl_free(pre->mean);
  bl_free(pre->deviation);
  bl_free(pre);
}

static void expand_cells(const wk_preprocess *pre, const double *cells, double *row) {
  for (uint32_t c = 0; c < pre->n_columns; c++) {
    const wk_pre_column *col = &pre->columns[c];
    if (col->categories == NULL) {
      *row++ = isnan(cells[c]) ? col->fill : cells[c];
      continue;
    }
    memset(row, 0, col->n_categories * sizeof *row);
    if (!isnan(cells[c]))
      row[(uint32_t)cells[c]] = 1;
    row += col->n_categories;
  }
}

void wk_preprocess_expand(const wk_preprocess *pre, const wk_samples *s, uint64_t i, double *row) {
  switch (s->storage) {
  case WK_STORAGE_BYTES:
    for (uint32_t c = 0; c < s->n_cols; c++)
      row[c] = s->bytes[i * s->n_cols + c];
    return;
  case WK_STORAGE_CELLS:
    expand_cells(pre, s->cells + i * s->n_cols, row);
    return;
  case WK_STORAGE_FLOATS:
    for (uint32_t c = 0; c < s->n_cols; c++)
      row[c] = (double)s->floats[i * s->n_cols + c];
    return;
  case WK_STORAGE_SPARSE:
    memset(row, 0, pre->n_inputs * sizeof *row);
    for (uint64_t k = wk_samples_row_first(s, i); k < wk_samples_row_first(s, i + 1); k++)
      row[wk_samples_col(s, k)] = (double)wk_samples_val(s, k);
    return;
  }
}

static bl_status no_memory(bl_error *err) {
  return bl_fail(err, BL_ENOMEM, "no memory for the preprocessing");
}

/* Copies what the reader found out about the columns. */
static bl_status copy_columns(wk_preprocess *pre, const wk_samples *s, bl_error *err) {
  pre->columns = bl_calloc(s->n_columns, sizeof *pre->columns);
  if (pre->columns == NULL)
    return no_memory(err);
  pre->n_columns = s->n_columns;
  pre->n_fields = s->n_fields;
  uint64_t n_inputs = 0;
  for (uint32_t c = 0; c < s->n_columns; c++) {
    const wk_column *from = &s->columns[c];
    wk_pre_column *to = &pre->columns[c];
    to->name = bl_strdup(from->name);
    if (to->name == NULL)
      return no_memory(err);
    n_inputs += from->categorical ? from->words.n : 1;
    to->hashed = from->categorical && pre->hash_bits > 0;
    if (!from->categorical || to->hashed)
      continue;
    to->categories = bl_calloc(from->words.n, sizeof *to->categories);
    if (to->categories == NULL)
      return no_memory(err);
    to->n_categories = from->words.n;
    for (uint32_t k = 0; k < from->words.n; k++) {
      to->categories[k] = bl_strdup(from->words.at[k]->text);
      if (to->categories[k] == NULL)
        return no_memory(err);
    }
  }
  if (pre->hash_bits > 0)
    n_inputs = UINT64_C(1) << pre->hash_bits;
  if (n_inputs > WK_INPUTS_MAX && !pre->sparse)
    return bl_fail(err, BL_ELIMIT, "the columns expand to %llu inputs, the limit is %u",
                   (unsigned long long)n_inputs, WK_INPUTS_MAX);
  pre->n_inputs = n_inputs;
  return BL_OK;
}

static bl_status copy_class_names(wk_preprocess *pre, const wk_samples *s, bl_error *err) {
  if (s->class_names == NULL)
    return BL_OK;
  pre->class_names = bl_calloc(s->n_class_names, sizeof *pre->class_names);
  if (pre->class_names == NULL)
    return no_memory(err);
  pre->n_class_names = s->n_class_names;
  for (uint32_t k = 0; k < s->n_class_names; k++) {
    pre->class_names[k] = bl_strdup(s->class_names[k]);
    if (pre->class_names[k] == NULL)
      return no_memory(err);
  }
  return BL_OK;
}

static bl_status fit_fills(wk_preprocess *pre, const wk_samples *s, uint64_t n_train, bl_error *err) {
  for (uint32_t c = 0; c < s->n_cols; c++) {
    if (pre->columns[c].categories != NULL)
      continue;
    double sum = 0;
    uint64_t present = 0;
    for (uint64_t i = 0; i < n_train; i++) {
      double v = s->cells[i * s->n_cols + c];
      if (!isnan(v)) {
        sum += v;
        present++;
      }
    }
    if (present == 0)
      return bl_fail(err, BL_EINVAL, "column '%s' has no value in any of the %llu training samples",
                     pre->columns[c].name, (unsigned long long)n_train);
    pre->columns[c].fill = sum / (double)present;
  }
  return BL_OK;
}

/* One-hot inputs stay 0 and 1. */
static void keep_one_hot(wk_preprocess *pre) {
  uint64_t j = 0;
  for (uint32_t c = 0; c < pre->n_columns; c++) {
    if (pre->columns[c].categories == NULL) {
      j++;
      continue;
    }
    for (uint32_t k = 0; k < pre->columns[c].n_categories; k++, j++) {
      pre->mean[j] = 0;
      pre->deviation[j] = 1;
    }
  }
}

static bl_status fit_standard(wk_preprocess *pre, const wk_samples *s, uint64_t n_train, bl_error *err) {
  uint64_t n = pre->n_inputs;
  pre->mean = bl_calloc(n, sizeof *pre->mean);
  pre->deviation = bl_calloc(n, sizeof *pre->deviation);
  double *row = bl_calloc(n, sizeof *row);
  bl_status status = BL_OK;
  if (pre->mean == NULL || pre->deviation == NULL || row == NULL) {
    status = no_memory(err);
    goto out;
  }
  for (uint64_t i = 0; i < n_train; i++) {
    wk_preprocess_expand(pre, s, i, row);
    for (uint64_t j = 0; j < n; j++)
      pre->mean[j] += row[j];
  }
  for (uint64_t j = 0; j < n; j++)
    pre->mean[j] /= (double)n_train;
  for (uint64_t i = 0; i < n_train; i++) {
    wk_preprocess_expand(pre, s, i, row);
    for (uint64_t j = 0; j < n; j++)
      pre->deviation[j] += (row[j] - pre->mean[j]) * (row[j] - pre->mean[j]);
  }
  for (uint64_t j = 0; j < n; j++) {
    pre->deviation[j] = sqrt(pre->deviation[j] / (double)n_train);
    if (!isfinite(pre->mean[j]) || !isfinite(pre->deviation[j])) {
      status = bl_fail(err, BL_ENOTFINITE, "input %llu: its values are too large to be normalised", (unsigned long long)j);
      goto out;
    }
    if (pre->deviation[j] == 0)
      pre->deviation[j] = 1; /* a constant column becomes 0 */
  }
  keep_one_hot(pre);
out:
  bl_free(row);
  return status;
}

static bl_status fit_target(wk_preprocess *pre, const double *values, uint64_t n_train, bl_error *err) {
  double sum = 0, squares = 0;
  for (uint64_t i = 0; i < n_train; i++)
    sum += values[i];
  double mean = sum / (double)n_train;
  for (uint64_t i = 0; i < n_train; i++)
    squares += (values[i] - mean) * (values[i] - mean);
  double deviation = sqrt(squares / (double)n_train);
  if (!isfinite(mean) || !isfinite(deviation))
    return bl_fail(err, BL_ENOTFINITE, "the targets are too large to be standardised");
  pre->target_mean = mean;
  pre->target_deviation = deviation > 0 ? deviation : 1;
  return BL_OK;
}

static bl_status fit(wk_preprocess *pre, const bl_job_spec *spec, const wk_samples *s, uint64_t n_train,
                     bl_error *err) {
  bl_status status = s->columns != NULL ? copy_columns(pre, s, err) : BL_OK;
  if (status == BL_OK)
    status = copy_class_names(pre, s, err);
  if (status == BL_OK && s->storage == WK_STORAGE_CELLS)
    status = fit_fills(pre, s, n_train, err);
  if (status == BL_OK && pre->normalize == BL_NORMALIZE_STANDARD)
    status = fit_standard(pre, s, n_train, err);
  if (status == BL_OK && pre->standardize_target)
    status = fit_target(pre, s->values, n_train, err);
  if (status != BL_OK || spec->data.train.target == NULL)
    return status;
  pre->target_column = bl_strdup(spec->data.train.target);
  return pre->target_column != NULL ? BL_OK : no_memory(err);
}

bl_status wk_preprocess_fit(const bl_job_spec *spec, const wk_read_request *req, const wk_samples *s,
                            uint64_t n_train, wk_preprocess **ret_pre, bl_error *err) {
  wk_preprocess *pre = bl_calloc(1, sizeof *pre);
  if (pre == NULL)
    return no_memory(err);
  *pre = (wk_preprocess){
      .kind = req->source->kind,
      .target = req->target,
      .n_inputs = s->n_cols,
      .sparse = req->sparse,
      .hash_bits = req->source->hash_bits,
      .hash_seed = req->source->hash_seed,
      .n_classes = req->target == WK_TARGET_CLASS ? req->n_classes : 0,
      .normalize = spec->data.normalize != 0 ? spec->data.normalize : BL_NORMALIZE_NONE,
      .standardize_target = spec->data.standardize_target && req->target == WK_TARGET_VALUE,
      .target_deviation = 1,
  };
  bl_status status = fit(pre, spec, s, n_train, err);
  if (status == BL_OK)
    status = wk_preprocess_check(pre, req->source->paths[0], err);
  if (status == BL_OK)
    *ret_pre = pre;
  else
    wk_preprocess_free(pre);
  return status;
}

double wk_preprocess_target_to_units(const wk_preprocess *pre, double y) {
  return y * pre->target_deviation + pre->target_mean;
}

double wk_preprocess_target_variance(const wk_preprocess *pre) {
  return pre->target_deviation * pre->target_deviation;
}

wk_target_kind wk_preprocess_target_kind(const wk_preprocess *pre) {
  return pre->target;
}

const char *wk_preprocess_class_name(const wk_preprocess *pre, uint32_t class_index, char *out, size_t size) {
  if (class_index < pre->n_class_names)
    return pre->class_names[class_index];
  snprintf(out, size, "%u", class_index);
  return out;
}
