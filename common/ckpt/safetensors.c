/* SPDX-License-Identifier: Apache-2.0 */
#include "ckpt/safetensors.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/le.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES 8
#define HEADER_ALIGN 8 /* the data starts aligned, as the reference writer does it */

/* ---- writing: {"__metadata__": {...}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}} ---- */

static json_t *json_of_tensor(const bl_tensor *t, uint64_t begin, uint64_t end) {
  json_t *shape = json_array();
  for (uint32_t d = 0; shape != NULL && d < t->n_dims; d++)
    if (json_array_append_new(shape, json_integer((json_int_t)t->dims[d])) != 0) {
      json_decref(shape);
      return NULL;
    }
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets", (json_int_t)begin,
                   (json_int_t)end);
}

static json_t *json_of_metadata(const char *const (*metadata)[2], size_t n_metadata) {
  json_t *pairs = json_object();
  for (size_t i = 0; i < n_metadata; i++)
    if (json_object_set_new(pairs, metadata[i][0], json_string(metadata[i][1])) != 0) {
      json_decref(pairs);
      return NULL;
    }
  return pairs;
}

static json_t *json_of_table(const bl_tensor_table *table, const char *const (*metadata)[2], size_t n_metadata) {
  json_t *root = json_object();
  if (n_metadata > 0 && json_object_set_new(root, "__metadata__", json_of_metadata(metadata, n_metadata)) != 0)
    goto fail;
  uint64_t at = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    uint64_t bytes, end;
    if (!bl_mul_u64(table->tensors[i].n_elems, sizeof(float), &bytes) || !bl_add_u64(at, bytes, &end) ||
        end > INT64_MAX)
      goto fail;
    if (json_object_set_new(root, table->tensors[i].name, json_of_tensor(&table->tensors[i], at, end)) != 0)
      goto fail;
    at = end;
  }
  return root;
fail:
  json_decref(root);
  return NULL;
}

bl_status bl_safetensors_write(const char *path, const bl_tensor_table *table, float *const *values,
                               const char *const (*metadata)[2], size_t n_metadata, bl_error *err) {
  static const char spaces[HEADER_ALIGN] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
  bl_status status;
  bl_file_part *parts = NULL;
  char *text = NULL;
  json_t *root = json_of_table(table, metadata, n_metadata);
  if (root == NULL) {
    status = bl_fail(err, BL_EINVAL, "cannot write %s: a tensor name or a metadata text is not UTF-8", path);
    goto out;
  }
  text = json_dumps(root, JSON_COMPACT);
  parts = bl_calloc((size_t)table->n_tensors + 3, sizeof *parts);
  if (text == NULL || parts == NULL) {
    status = bl_fail(err, BL_ENOMEM, "cannot write %s: no memory for its header", path);
    goto out;
  }
  size_t size = strlen(text), padding = (HEADER_ALIGN - size % HEADER_ALIGN) % HEADER_ALIGN;
  if (size + padding > BL_SAFETENSORS_HEADER_MAX_BYTES) {
    status = bl_fail(err, BL_ELIMIT, "cannot write %s: a header of %zu bytes, the limit is %u", path, size + padding,
                     BL_SAFETENSORS_HEADER_MAX_BYTES);
    goto out;
  }
  uint8_t length[LENGTH_BYTES];
  bl_le_put64(length, size + padding);
  size_t n = 0;
  parts[n++] = (bl_file_part){length, sizeof length};
  parts[n++] = (bl_file_part){text, size};
  parts[n++] = (bl_file_part){spaces, padding};
  for (uint32_t i = 0; i < table->n_tensors; i++)
    parts[n++] = (bl_file_part){values[i], table->tensors[i].n_elems * sizeof(float)};
  status = bl_file_write_atomic_parts(path, parts, n, 0644, err);
out:
  bl_free(parts);
  free(text);
  json_decref(root);
  return status;
}

/* ---- reading ---- */

static const struct {
  const char *name;
  unsigned bytes;
} dtypes[] = {{"F32", 4}, {"F64", 8}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},     {"I16", 2},     {"I8", 1},
              {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

/* A tensor as the file tells it, checked. */
typedef struct entry {
  const char *name; /* in the JSON */
  const json_t *shape;
  uint64_t begin, end;
  bool f32;
} entry;

typedef struct reader {
  const char *path;
  int fd;
  uint64_t data_at, data_bytes;
  json_t *root;
  entry *entries;
  size_t n_entries;
} reader;

static bl_status read_at(const reader *r, void *out, size_t size, uint64_t at, bl_error *err) {
  char *p = out;
  while (size > 0) {
    ssize_t n = pread(r->fd, p, size, (off_t)at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return bl_fail_errno(err, "cannot read %s", r->path);
    if (n == 0)
      return bl_fail(err, BL_EIO, "%s became shorter while it was read", r->path);
    p += n;
    at += (uint64_t)n;
    size -= (size_t)n;
  }
  return BL_OK;
}

static bl_status read_header(reader *r, bl_error *err) {
  struct stat st;
  if (fstat(r->fd, &st) != 0)
    return bl_fail_errno(err, "cannot read %s", r->path);
  if (!S_ISREG(st.st_mode))
    return bl_fail(err, BL_EINVAL, "%s is not a regular file", r->path);
  uint64_t file_bytes = (uint64_t)st.st_size;
  uint8_t length[LENGTH_BYTES];
  if (file_bytes < sizeof length)
    return bl_fail(err, BL_ECORRUPT, "%s is no safetensors file: %llu bytes, at least %d are needed", r->path,
                   (unsigned long long)file_bytes, LENGTH_BYTES);
  bl_status status = read_at(r, length, sizeof length, 0, err);
  if (status != BL_OK)
    return status;
  uint64_t n = bl_le_get64(length);
  if (n > file_bytes - sizeof length)
    return bl_fail(err, BL_ECORRUPT, "%s is cut short or no safetensors file: a header of %llu bytes in a file of %llu",
                   r->path, (unsigned long long)n, (unsigned long long)file_bytes);
  if (n > BL_SAFETENSORS_HEADER_MAX_BYTES)
    return bl_fail(err, BL_ELIMIT, "%s: a header of %llu bytes, the limit is %u", r->path, (unsigned long long)n,
                   BL_SAFETENSORS_HEADER_MAX_BYTES);
  char *text = bl_malloc(n + 1);
  if (text == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the header of %s: %llu bytes", r->path, (unsigned long long)n);
  status = read_at(r, text, n, sizeof length, err);
  if (status == BL_OK) {
    json_error_t why;
    r->root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(r->root))
      status = bl_fail(err, BL_ECORRUPT, "%s: the header is not a JSON object: %s", r->path,
                       r->root == NULL ? why.text : "another type");
  }
  bl_free(text);
  r->data_at = sizeof length + n;
  r->data_bytes = file_bytes - r->data_at;
  return status;
}

/* A whole number from 0. */
static bool get_count(const json_t *j, uint64_t *ret_value) {
  if (!json_is_integer(j) || json_integer_value(j) < 0)
    return false;
  *ret_value = (uint64_t)json_integer_value(j);
  return true;
}

static unsigned dtype_bytes(const json_t *j) {
  for (size_t i = 0; json_is_string(j) && i < BL_COUNT_OF(dtypes); i++)
    if (strcmp(json_string_value(j), dtypes[i].name) == 0)
      return dtypes[i].bytes;
  return 0;
}

static bool shape_bytes(const json_t *shape, unsigned elem_bytes, uint64_t *ret_bytes) {
  uint64_t bytes = elem_bytes;
  for (size_t d = 0; d < json_array_size(shape); d++) {
    uint64_t dim;
    if (!get_count(json_array_get(shape, d), &dim) || !bl_mul_u64(bytes, dim, &bytes))
      return false;
  }
  *ret_bytes = bytes;
  return true;
}

static bl_status read_entry(const reader *r, const char *name, const json_t *j, entry *ret_entry, bl_error *err) {
  const json_t *shape = json_object_get(j, "shape"), *span = json_object_get(j, "data_offsets");
  const json_t *dtype = json_object_get(j, "dtype");
  unsigned elem_bytes = dtype_bytes(dtype);
  uint64_t bytes;
  entry e = {.name = name, .shape = shape};
  if (elem_bytes == 0)
    return bl_fail(err, BL_ECORRUPT, "%s: tensor %.64s has no known dtype", r->path, name);
  if (!json_is_array(shape) || !shape_bytes(shape, elem_bytes, &bytes))
    return bl_fail(err, BL_ECORRUPT, "%s: tensor %.64s has no valid shape", r->path, name);
  if (json_array_size(span) != 2 || !get_count(json_array_get(span, 0), &e.begin) ||
      !get_count(json_array_get(span, 1), &e.end))
    return bl_fail(err, BL_ECORRUPT, "%s: tensor %.64s has no valid data_offsets", r->path, name);
  if (e.begin > e.end || e.end > r->data_bytes)
    return bl_fail(err, BL_ECORRUPT, "%s: tensor %.64s lies at [%llu, %llu) of %llu bytes of data", r->path, name,
                   (unsigned long long)e.begin, (unsigned long long)e.end, (unsigned long long)r->data_bytes);
  if (e.end - e.begin != bytes)
    return bl_fail(err, BL_ECORRUPT, "%s: tensor %.64s takes %llu bytes, its shape %llu", r->path, name,
                   (unsigned long long)(e.end - e.begin), (unsigned long long)bytes);
  e.f32 = strcmp(json_string_value(dtype), "F32") == 0;
  *ret_entry = e;
  return BL_OK;
}

static int by_place(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* Fills r->entries, in the order of their places, and checks that they cover the data. */
static bl_status read_entries(reader *r, bl_error *err) {
  r->entries = bl_calloc(json_object_size(r->root) + 1, sizeof *r->entries);
  if (r->entries == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the header of %s", r->path);
  const char *name;
  json_t *j;
  json_object_foreach(r->root, name, j) {
    if (strcmp(name, "__metadata__") == 0)
      continue;
    bl_status status = read_entry(r, name, j, &r->entries[r->n_entries], err);
    if (status != BL_OK)
      return status;
    r->n_entries++;
  }
  qsort(r->entries, r->n_entries, sizeof *r->entries, by_place);
  uint64_t at = 0;
  for (size_t i = 0; i < r->n_entries; i++) {
    if (r->entries[i].begin != at)
      return bl_fail(err, BL_ECORRUPT, "%s: tensor %.64s begins at byte %llu of the data, %s ends at %llu", r->path,
                     r->entries[i].name, (unsigned long long)r->entries[i].begin,
                     i == 0 ? "nothing" : "the one before it", (unsigned long long)at);
    at = r->entries[i].end;
  }
  if (at != r->data_bytes)
    return bl_fail(err, BL_ECORRUPT, "%s: %llu bytes of data, the tensors take %llu", r->path,
                   (unsigned long long)r->data_bytes, (unsigned long long)at);
  return BL_OK;
}

static bool same_shape(const json_t *shape, const bl_tensor *t) {
  if (json_array_size(shape) != t->n_dims)
    return false;
  for (uint32_t d = 0; d < t->n_dims; d++)
    if ((uint64_t)json_integer_value(json_array_get(shape, d)) != t->dims[d])
      return false;
  return true;
}

/* "[784, 10]". Returns out. */
static const char *say_shape(const json_t *shape, char *out, size_t size) {
  size_t used = (size_t)snprintf(out, size, "[");
  for (size_t d = 0; d < json_array_size(shape) && used < size; d++)
    used += (size_t)snprintf(out + used, size - used, "%s%lld", d > 0 ? ", " : "",
                             (long long)json_integer_value(json_array_get(shape, d)));
  if (used < size)
    snprintf(out + used, size - used, "]");
  return out;
}

static bl_status other_shape(const reader *r, const bl_tensor *t, const json_t *shape, bl_error *err) {
  char here[100], there[100];
  size_t used = (size_t)snprintf(there, sizeof there, "[");
  for (uint32_t d = 0; d < t->n_dims && used < sizeof there; d++)
    used += (size_t)snprintf(there + used, sizeof there - used, "%s%llu", d > 0 ? ", " : "", (unsigned long long)t->dims[d]);
  return bl_fail(err, BL_EMISMATCH, "%s: tensor %s has the shape %s, the model's has %s]", r->path, t->name,
                 say_shape(shape, here, sizeof here), there);
}

/* What is in the file and not in the model, by its first name. */
static bl_status extra_tensor(const reader *r, const bl_tensor_table *table, bl_error *err) {
  for (size_t k = 0; k < r->n_entries; k++) {
    bool known = false;
    for (uint32_t i = 0; i < table->n_tensors && !known; i++)
      known = strcmp(r->entries[k].name, table->tensors[i].name) == 0;
    if (!known)
      return bl_fail(err, BL_EMISMATCH, "%s holds %zu tensors, the model has %u: %.64s is none of them", r->path, r->n_entries,
                     table->n_tensors, r->entries[k].name);
  }
  return BL_OK;
}

/* The entry of each tensor of the table, or why the file is not this table's. entry_of: [n_tensors] */
static bl_status match_table(const reader *r, const bl_tensor_table *table, const entry **entry_of, bl_error *err) {
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor *t = &table->tensors[i];
    for (size_t k = 0; k < r->n_entries && entry_of[i] == NULL; k++)
      if (strcmp(r->entries[k].name, t->name) == 0)
        entry_of[i] = &r->entries[k];
    if (entry_of[i] == NULL)
      return bl_fail(err, BL_EMISMATCH, "%s holds no tensor %s; it holds %zu tensors, the model has %u", r->path, t->name,
                     r->n_entries, table->n_tensors);
    if (!entry_of[i]->f32)
      return bl_fail(err, BL_EMISMATCH, "%s: tensor %s is not of type F32", r->path, t->name);
    if (!same_shape(entry_of[i]->shape, t))
      return other_shape(r, t, entry_of[i]->shape, err);
  }
  return r->n_entries == table->n_tensors ? BL_OK : extra_tensor(r, table, err);
}

bl_status bl_safetensors_metadata(const char *path, const char *key, char *out, size_t size, bl_error *err) {
  reader r = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (r.fd < 0)
    return bl_fail_errno(err, "cannot open %s", path);
  bl_status status = read_header(&r, err);
  const char *value = status == BL_OK ? json_string_value(json_object_get(json_object_get(r.root, "__metadata__"), key)) : NULL;
  if (status == BL_OK)
    snprintf(out, size, "%s", value != NULL ? value : "");
  json_decref(r.root);
  close(r.fd);
  return status;
}

bl_status bl_safetensors_read(const char *path, const bl_tensor_table *table, float *const *values, bl_error *err) {
  reader r = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (r.fd < 0)
    return bl_fail_errno(err, "cannot open %s", path);
  const entry **entry_of = NULL;
  bl_status status = read_header(&r, err);
  if (status == BL_OK)
    status = read_entries(&r, err);
  if (status != BL_OK)
    goto out;
  entry_of = bl_calloc((size_t)table->n_tensors + 1, sizeof *entry_of);
  if (entry_of == NULL) {
    status = bl_fail(err, BL_ENOMEM, "no memory to read %s", path);
    goto out;
  }
  status = match_table(&r, table, entry_of, err);
  for (uint32_t i = 0; status == BL_OK && values != NULL && i < table->n_tensors; i++)
    status = read_at(&r, values[i], entry_of[i]->end - entry_of[i]->begin, r.data_at + entry_of[i]->begin, err);
out:
  bl_free(entry_of);
  bl_free(r.entries);
  json_decref(r.root);
  close(r.fd);
  return status;
}

/* ---- checksum ---- */

static int by_name(const void *a, const void *b) {
  const bl_tensor *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

bl_status bl_weights_checksum(const bl_tensor_table *table, float *const *values, uint64_t *ret_xxh3) {
  bl_status status = BL_ENOMEM;
  bl_checksum_stream *sum = bl_checksum_stream_new();
  const bl_tensor **sorted = bl_calloc((size_t)table->n_tensors + 1, sizeof *sorted);
  if (sum == NULL || sorted == NULL)
    goto out;
  for (uint32_t i = 0; i < table->n_tensors; i++)
    sorted[i] = &table->tensors[i];
  qsort(sorted, table->n_tensors, sizeof *sorted, by_name);
  for (uint32_t i = 0; i < table->n_tensors; i++)
    bl_checksum_stream_add(sum, values[sorted[i] - table->tensors], sorted[i]->n_elems * sizeof(float));
  *ret_xxh3 = bl_checksum_stream_value(sum);
  status = BL_OK;
out:
  bl_free(sorted);
  bl_checksum_stream_free(sum);
  return status;
}
