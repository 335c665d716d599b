/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples from two NumPy arrays: inputs [n, ...], whose further dimensions are taken as one row, and targets [n] or
 * [n, 1]. Bytes stay bytes in memory, everything else becomes float32.
 */
#include "data/npy.h"
#include "data/samples.h"

#include "base/alloc.h"
#include "base/num.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static bl_status check_inputs(const char *path, const wk_npy *a, bl_error *err) {
  uint64_t n = a->dims[0];
  if (a->n_elems == 0)
    return bl_fail(err, BL_EINVAL, "%s is empty: a dimension is 0", path);
  if (a->n_elems / n > WK_INPUTS_MAX)
    return bl_fail(err, BL_ELIMIT, "%s: one record has %" PRIu64 " values, the limit is %u", path, a->n_elems / n,
                   WK_INPUTS_MAX);
  return BL_OK;
}

static bl_status to_floats(const char *path, const wk_npy *a, float **ret_floats, bl_error *err) {
  uint64_t n_cols = a->n_elems / a->dims[0];
  float *floats = bl_calloc(a->n_elems, sizeof *floats);
  if (floats == NULL)
    return bl_fail(err, BL_ENOMEM, "%s: no memory for %" PRIu64 " numbers", path, a->n_elems);
  for (uint64_t i = 0; i < a->n_elems; i++) {
    double v = wk_npy_number(a, i);
    if (!(fabs(v) <= FLT_MAX)) {
      bl_free(floats);
      return bl_fail(err, BL_ENOTFINITE, "%s: record %" PRIu64 ", value %" PRIu64 " (counted from 0): %g is no 32-bit number", path,
                     i / n_cols, i % n_cols, v);
    }
    floats[i] = (float)v;
  }
  *ret_floats = floats;
  return BL_OK;
}

/* How many 32-bit slots from the beginning are below n_cols; the loop that billions of them go through. */
static uint64_t n_good_slots(const wk_npy *a, uint64_t n_cols) {
  const uint32_t *v = (const uint32_t *)(const void *)a->data;
  uint64_t i = 0;
  while (a->type == WK_NPY_U4 && i < a->n_elems && v[i] < n_cols)
    i++;
  return i;
}

/* Slots as they lie in the file where they have 32 bits. */
static bl_status to_cols(const char *path, wk_npy *a, wk_samples *s, bl_error *err) {
  bool wide = s->n_cols > UINT32_MAX, as_is = a->elem_bytes == sizeof *s->cols && !wide;
  if (wide)
    s->wide_cols = bl_calloc(a->n_elems, sizeof *s->wide_cols);
  else if (!as_is)
    s->cols = bl_calloc(a->n_elems, sizeof *s->cols);
  if (!as_is && s->cols == NULL && s->wide_cols == NULL)
    return bl_fail(err, BL_ENOMEM, "%s: no memory for %" PRIu64 " slots", path, a->n_elems);
  for (uint64_t i = as_is ? n_good_slots(a, s->n_cols) : 0; i < a->n_elems; i++) {
    int64_t v = wk_npy_integer(a, i);
    if (v < 0 || (uint64_t)v >= s->n_cols)
      return bl_fail(err, BL_EINVAL,
                     "%s: record %" PRIu64 ", field %" PRIu64 " (counted from 0): slot %" PRId64
                     " is out of range, the model has %" PRIu64 " inputs (0 to %" PRIu64 ")",
                     path, i / s->row_width, i % s->row_width, v, s->n_cols, s->n_cols - 1);
    if (wide)
      s->wide_cols[i] = (uint64_t)v;
    else if (!as_is)
      s->cols[i] = (uint32_t)v;
  }
  if (as_is) {
    s->cols = (uint32_t *)(void *)a->data;
    a->data = NULL;
  }
  return BL_OK;
}

/* For a sparse layer: [n, fields] whole numbers, each the number of an input that is 1. */
static bl_status take_slots(const char *path, wk_npy *a, uint64_t n_inputs, wk_samples *s, bl_error *err) {
  if (!wk_npy_is_integer(a))
    return bl_fail(err, BL_EINVAL, "%s holds numbers of type %s; a sparse layer takes slots, which are whole numbers", path,
                   wk_npy_type_name(a->type));
  if (a->n_elems == 0)
    return bl_fail(err, BL_EINVAL, "%s is empty: a dimension is 0", path);
  s->storage = WK_STORAGE_SPARSE;
  s->n = a->dims[0];
  s->n_cols = n_inputs;
  s->row_width = a->n_elems / s->n;
  s->ones = true;
  return to_cols(path, a, s, err);
}

static bl_status take_inputs(const char *path, wk_npy *a, wk_samples *s, bl_error *err) {
  bl_status status = check_inputs(path, a, err);
  if (status != BL_OK)
    return status;
  s->n = a->dims[0];
  s->n_cols = (uint32_t)(a->n_elems / s->n);
  if (a->type != WK_NPY_U1 && a->type != WK_NPY_BOOL) {
    s->storage = WK_STORAGE_FLOATS;
    return to_floats(path, a, &s->floats, err);
  }
  s->storage = WK_STORAGE_BYTES;
  for (uint64_t i = 0; a->type == WK_NPY_BOOL && i < a->n_elems; i++)
    a->data[i] = a->data[i] != 0;
  s->bytes = a->data;
  a->data = NULL;
  return BL_OK;
}

static bl_status check_targets(const wk_read_request *req, const wk_npy *a, const wk_samples *s, bl_error *err) {
  const char *inputs = req->source->paths[0], *path = req->source->paths[1];
  if (a->n_dims > 2 || (a->n_dims == 2 && a->dims[1] != 1))
    return bl_fail(err, BL_EINVAL,
                   "%s has the shape of inputs (%u dimensions), targets are [n] or [n, 1] (are inputs and targets swapped?)",
                   path, a->n_dims);
  if (a->dims[0] != s->n)
    return bl_fail(err, BL_EMISMATCH, "%s has %" PRIu64 " targets, but %s has %" PRIu64 " records", path, a->dims[0], inputs,
                   s->n);
  return BL_OK;
}

static bl_status take_targets(const wk_read_request *req, const wk_npy *a, wk_samples *s, bl_error *err) {
  const char *path = req->source->paths[1];
  bool classes = req->target == WK_TARGET_CLASS;
  if (classes)
    s->labels = bl_calloc(s->n, sizeof *s->labels);
  else
    s->values = bl_calloc(s->n, sizeof *s->values);
  if (s->labels == NULL && s->values == NULL)
    return bl_fail(err, BL_ENOMEM, "%s: no memory for %" PRIu64 " targets", path, s->n);
  for (uint64_t i = 0; i < s->n; i++) {
    double v = wk_npy_number(a, i);
    if (classes && !(v >= 0 && v < req->n_classes && v == floor(v)))
      return bl_fail(err, BL_EINVAL,
                     "%s: record %" PRIu64 " (counted from 0): label %.9g is out of range, the model has %u classes (0 to %u)",
                     path, i, v, req->n_classes, req->n_classes - 1);
    if (!(fabs(v) <= FLT_MAX))
      return bl_fail(err, BL_ENOTFINITE, "%s: record %" PRIu64 " (counted from 0): %g is no 32-bit number", path, i, v);
    if (classes)
      s->labels[i] = (uint32_t)v;
    else
      s->values[i] = v;
  }
  return BL_OK;
}

bl_status wk_npy_samples_read(const wk_read_request *req, wk_samples *ret_samples, bl_error *err) {
  const bl_source_spec *source = req->source;
  wk_npy a = {0};
  if (source->n_paths < (req->with_targets ? 2 : 1))
    return bl_fail(err, BL_EINVAL, "an npy source needs the file of inputs%s", req->with_targets ? " and the file of targets" : "");
  bl_status status = wk_npy_read(source->paths[0], &a, err);
  if (status == BL_OK)
    status = req->sparse ? take_slots(source->paths[0], &a, req->n_inputs, ret_samples, err)
                         : take_inputs(source->paths[0], &a, ret_samples, err);
  wk_npy_fini(&a);
  if (status != BL_OK || !req->with_targets)
    return status;
  status = wk_npy_read(source->paths[1], &a, err);
  if (status == BL_OK)
    status = check_targets(req, &a, ret_samples, err);
  if (status == BL_OK)
    status = take_targets(req, &a, ret_samples, err);
  wk_npy_fini(&a);
  return status;
}
