/* SPDX-License-Identifier: Apache-2.0
 *
 * The idx format of the MNIST family: two zero bytes, type, number of dimensions, then the dimensions as
 * big-endian 32-bit numbers, then the values. Example, two images of 28x28 bytes:
 * 00 00 08 03  00 00 00 02  00 00 00 1c  00 00 00 1c, then 1568 bytes.
 */
#include "data/input.h"
#include "data/samples.h"

#include "base/alloc.h"
#include "base/num.h"

#include <stdio.h>

#define IDX_DIMS_MAX 4
#define IDX_TYPE_UBYTE 0x08

typedef struct idx_header {
  unsigned n_dims;
  uint32_t dims[IDX_DIMS_MAX];
  uint64_t record_bytes;
} idx_header;

static bl_status check_magic(const char *path, const uint8_t magic[4], bl_error *err) {
  if (magic[0] != 0 || magic[1] != 0)
    return bl_fail(err, BL_ECORRUPT,
                   "%s is not an idx file: it starts with %02x %02x %02x %02x, expected 00 00 08 and the "
                   "number of dimensions",
                   path, magic[0], magic[1], magic[2], magic[3]);
  if (magic[2] != IDX_TYPE_UBYTE)
    return bl_fail(err, BL_EUNSUPPORTED,
                   "%s: idx values of type 0x%02x are not supported, only unsigned bytes (0x08)", path,
                   magic[2]);
  if (magic[3] < 1 || magic[3] > IDX_DIMS_MAX)
    return bl_fail(err, BL_EUNSUPPORTED, "%s: idx file with %u dimensions, supported are 1 to %d", path,
                   magic[3], IDX_DIMS_MAX);
  return BL_OK;
}

static bl_status read_header(wk_input *in, idx_header *ret_h, bl_error *err) {
  uint8_t bytes[4 + 4 * IDX_DIMS_MAX];
  size_t n = 0, n_dim_bytes = 0;
  bl_status status = wk_input_read(in, bytes, 4, &n, err);
  if (status != BL_OK)
    return status;
  if (n < 4)
    return bl_fail(err, BL_ECORRUPT, "%s is not an idx file: it has only %zu bytes", wk_input_path(in), n);
  status = check_magic(wk_input_path(in), bytes, err);
  if (status != BL_OK)
    return status;
  idx_header h = {.n_dims = bytes[3], .record_bytes = 1};
  status = wk_input_read(in, bytes + 4, 4 * h.n_dims, &n_dim_bytes, err);
  if (status != BL_OK)
    return status;
  if (n_dim_bytes < 4 * h.n_dims)
    return bl_fail(err, BL_ECORRUPT, "%s is truncated inside its idx header", wk_input_path(in));
  for (unsigned i = 0; i < h.n_dims; i++) {
    const uint8_t *p = bytes + 4 + 4 * i;
    h.dims[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    if (i > 0 && (!bl_mul_u64(h.record_bytes, h.dims[i], &h.record_bytes) || h.record_bytes > WK_INPUTS_MAX))
      return bl_fail(err, BL_ELIMIT, "%s: one record has more than %u values", wk_input_path(in),
                     WK_INPUTS_MAX);
  }
  if (h.record_bytes == 0)
    return bl_fail(err, BL_EINVAL, "%s: a dimension is 0", wk_input_path(in));
  *ret_h = h;
  return BL_OK;
}

/* Header and values of one file; nothing may follow them. */
static bl_status read_file(const char *path, idx_header *ret_h, uint8_t **ret_data, bl_error *err) {
  wk_input *in = NULL;
  uint8_t *data = NULL;
  idx_header h;
  bl_status status = wk_input_open(path, &in, err);
  if (status == BL_OK)
    status = read_header(in, &h, err);
  if (status != BL_OK)
    goto out;
  char what[80];
  snprintf(what, sizeof what, "%u records of %llu bytes", h.dims[0], (unsigned long long)h.record_bytes);
  status = wk_input_read_block(in, h.dims[0] * h.record_bytes, what, &data, err);
  if (status != BL_OK)
    goto out;
  int more = wk_input_byte(in);
  status = wk_input_status(in, err);
  if (status == BL_OK && more >= 0)
    status = bl_fail(err, BL_ECORRUPT, "%s: more bytes follow the %s that its header promises", path, what);
out:
  wk_input_close(in);
  if (status == BL_OK) {
    *ret_h = h;
    *ret_data = data;
  } else {
    bl_free(data);
  }
  return status;
}

static bl_status set_targets(const wk_read_request *req, const uint8_t *bytes, wk_samples *s, bl_error *err) {
  const char *path = req->source->paths[1];
  bool classes = req->target == WK_TARGET_CLASS;
  if (classes)
    s->labels = bl_calloc(s->n, sizeof *s->labels);
  else
    s->values = bl_calloc(s->n, sizeof *s->values);
  if (s->labels == NULL && s->values == NULL)
    return bl_fail(err, BL_ENOMEM, "%s: no memory for %llu labels", path, (unsigned long long)s->n);
  for (uint64_t i = 0; i < s->n; i++) {
    if (!classes) {
      s->values[i] = bytes[i];
      continue;
    }
    if (bytes[i] >= req->n_classes)
      return bl_fail(
          err, BL_EINVAL,
          "%s: record %llu (counted from 0): label %u is out of range, the model has %u classes (0 to %u)",
          path, (unsigned long long)i, bytes[i], req->n_classes, req->n_classes - 1);
    s->labels[i] = bytes[i];
  }
  return BL_OK;
}

static bl_status read_labels(const wk_read_request *req, wk_samples *s, bl_error *err) {
  const char *images = req->source->paths[0], *path = req->source->paths[1];
  idx_header h;
  uint8_t *bytes = NULL;
  bl_status status = read_file(path, &h, &bytes, err);
  if (status != BL_OK)
    return status;
  if (h.n_dims != 1)
    status = bl_fail(err, BL_EINVAL,
                     "%s has %u dimensions, a file of labels has one (are inputs and labels swapped?)", path,
                     h.n_dims);
  else if (h.dims[0] != s->n)
    status = bl_fail(err, BL_EMISMATCH, "%s has %u labels, but %s has %llu records", path, h.dims[0], images,
                     (unsigned long long)s->n);
  else
    status = set_targets(req, bytes, s, err);
  bl_free(bytes);
  return status;
}

bl_status wk_idx_read(const wk_read_request *req, wk_samples *ret_samples, bl_error *err) {
  const bl_source_spec *source = req->source;
  if (source->n_paths < (req->with_targets ? 2 : 1))
    return bl_fail(err, BL_EINVAL, "an idx source needs the file of inputs%s",
                   req->with_targets ? " and the file of labels" : "");
  wk_samples *s = ret_samples;
  idx_header h;
  bl_status status = read_file(source->paths[0], &h, &s->bytes, err);
  if (status != BL_OK)
    return status;
  s->storage = WK_STORAGE_BYTES;
  s->n = h.dims[0];
  s->n_cols = (uint32_t)h.record_bytes;
  return req->with_targets ? read_labels(req, s, err) : BL_OK;
}
