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
#define NAME_BYTES_MAX 512
#define HEADER_ALIGN 8 /* the data starts aligned, as the reference writer does it */

/* ---- writing: {"__metadata__": {...}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}} ---- */

#define ROWS_SUFFIX ".rows"
#define VALUES_SUFFIX ".values"

/* An array of the file: a tensor, or one of the two of a table. */
typedef struct part {
  const char *name, *suffix;
  const char *dtype;
  uint64_t dims[BL_JOB_DIMS_MAX];
  uint32_t n_dims;
  const void *data;
  uint64_t bytes;
} part;

static json_t *json_of_part(const part *p, uint64_t begin, uint64_t end) {
  json_t *shape = json_array();
  for (uint32_t d = 0; shape != NULL && d < p->n_dims; d++)
    if (json_array_append_new(shape, json_integer((json_int_t)p->dims[d])) != 0) {
      json_decref(shape);
      return NULL;
    }
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", p->dtype, "shape", shape, "data_offsets", (json_int_t)begin,
                   (json_int_t)end);
}

/* The arrays of a table's tensors, in its order; returns how many. parts: [2 * n_tensors] */
static size_t make_parts(const bl_tensor_table *table, float *const *values, const bl_saved_rows *tables, part *parts) {
  size_t n = 0;
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor *t = &table->tensors[i];
    if (t->table && tables != NULL) {
      const bl_saved_rows *r = &tables[i];
      uint64_t width = t->dims[1];
      parts[n++] = (part){t->name, ROWS_SUFFIX, "I64", {r->n}, 1, r->rows, r->n * sizeof *r->rows};
      parts[n++] = (part){t->name, VALUES_SUFFIX, "F32", {r->n, width}, 2, r->values, r->n * width * sizeof *r->values};
      continue;
    }
    part *p = &parts[n++];
    *p = (part){.name = t->name, .suffix = "", .dtype = "F32", .n_dims = t->n_dims, .data = values[i]};
    memcpy(p->dims, t->dims, sizeof p->dims);
    p->bytes = t->n_elems <= UINT64_MAX / sizeof(float) ? t->n_elems * sizeof(float) : UINT64_MAX;
  }
  return n;
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

static json_t *json_of_parts(const part *parts, size_t n_parts, const char *const (*metadata)[2], size_t n_metadata) {
  json_t *root = json_object();
  if (n_metadata > 0 && json_object_set_new(root, "__metadata__", json_of_metadata(metadata, n_metadata)) != 0)
    goto fail;
  uint64_t at = 0;
  for (size_t i = 0; i < n_parts; i++) {
    char name[NAME_BYTES_MAX];
    uint64_t end;
    if (!bl_add_u64(at, parts[i].bytes, &end) || end > INT64_MAX)
      goto fail;
    int n = snprintf(name, sizeof name, "%s%s", parts[i].name, parts[i].suffix);
    if (n < 0 || (size_t)n >= sizeof name || json_object_set_new(root, name, json_of_part(&parts[i], at, end)) != 0)
      goto fail;
    at = end;
  }
  return root;
fail:
  json_decref(root);
  return NULL;
}

static bl_status write_parts(const char *path, const part *parts, size_t n_parts, const char *const (*metadata)[2],
                             size_t n_metadata, bl_error *err) {
  static const char spaces[HEADER_ALIGN] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
  bl_status status;
  bl_file_part *files = NULL;
  char *text = NULL;
  json_t *root = json_of_parts(parts, n_parts, metadata, n_metadata);
  if (root == NULL) {
    status = bl_fail(err, BL_EINVAL, "cannot write %s: a tensor name or a metadata text is not UTF-8", path);
    goto out;
  }
  text = json_dumps(root, JSON_COMPACT);
  files = bl_calloc(n_parts + 3, sizeof *files);
  if (text == NULL || files == NULL) {
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
  files[n++] = (bl_file_part){length, sizeof length};
  files[n++] = (bl_file_part){text, size};
  files[n++] = (bl_file_part){spaces, padding};
  for (size_t i = 0; i < n_parts; i++)
    files[n++] = (bl_file_part){parts[i].data, parts[i].bytes};
  status = bl_file_write_atomic_parts(path, files, n, 0644, err);
out:
  bl_free(files);
  free(text);
  json_decref(root);
  return status;
}

bl_status bl_safetensors_write_tables(const char *path, const bl_tensor_table *table, float *const *values,
                                      const bl_saved_rows *tables, const char *const (*metadata)[2], size_t n_metadata,
                                      bl_error *err) {
  part *parts = bl_calloc(2 * (size_t)table->n_tensors + 1, sizeof *parts);
  if (parts == NULL)
    return bl_fail(err, BL_ENOMEM, "cannot write %s: no memory for its header", path);
  bl_status status =
      write_parts(path, parts, make_parts(table, values, tables, parts), metadata, n_metadata, err);
  bl_free(parts);
  return status;
}

bl_status bl_safetensors_write(const char *path, const bl_tensor_table *table, float *const *values,
                               const char *const (*metadata)[2], size_t n_metadata, bl_error *err) {
  return bl_safetensors_write_tables(path, table, values, NULL, metadata, n_metadata, err);
}

void bl_saved_rows_fini(bl_saved_rows *t) {
  bl_free(t->rows);
  bl_free(t->values);
  *t = (bl_saved_rows){0};
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
  bool f32, i64;
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
  e.i64 = strcmp(json_string_value(dtype), "I64") == 0;
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

static const entry *find_entry(const reader *r, const char *name, const char *suffix) {
  size_t n = strlen(name);
  for (size_t k = 0; k < r->n_entries; k++)
    if (strncmp(r->entries[k].name, name, n) == 0 && strcmp(r->entries[k].name + n, suffix) == 0)
      return &r->entries[k];
  return NULL;
}

/* Where the parts of a tensor lie. */
typedef struct place {
  const entry *values, *rows; /* rows: of tables, else NULL */
} place;

static bl_status match_table(const reader *r, const bl_tensor *t, place *ret_place, bl_error *err) {
  place p = {find_entry(r, t->name, VALUES_SUFFIX), find_entry(r, t->name, ROWS_SUFFIX)};
  if (p.values == NULL || p.rows == NULL)
    return bl_fail(err, BL_EMISMATCH, "%s holds no %s%s, a table is two tensors", r->path, t->name,
                   p.rows == NULL ? ROWS_SUFFIX : VALUES_SUFFIX);
  if (!p.rows->i64 || json_array_size(p.rows->shape) != 1 || !p.values->f32 || json_array_size(p.values->shape) != 2 ||
      json_integer_value(json_array_get(p.values->shape, 0)) != json_integer_value(json_array_get(p.rows->shape, 0)) ||
      (uint64_t)json_integer_value(json_array_get(p.values->shape, 1)) != t->dims[1])
    return bl_fail(err, BL_EMISMATCH, "%s: the rows of table %s are not I64 [n] with values F32 [n, %llu]", r->path,
                   t->name, (unsigned long long)t->dims[1]);
  *ret_place = p;
  return BL_OK;
}

static bl_status match_tensor(const reader *r, const bl_tensor *t, uint32_t n_tensors, place *ret_place, bl_error *err) {
  const entry *e = find_entry(r, t->name, "");
  if (e == NULL)
    return bl_fail(err, BL_EMISMATCH, "%s holds no tensor %s; it holds %zu tensors, the model has %u", r->path, t->name,
                   r->n_entries, n_tensors);
  if (!e->f32)
    return bl_fail(err, BL_EMISMATCH, "%s: tensor %s is not of type F32", r->path, t->name);
  if (!same_shape(e->shape, t))
    return other_shape(r, t, e->shape, err);
  *ret_place = (place){e, NULL};
  return BL_OK;
}

/* What is in the file and not in the model, by its first name. */
static bl_status extra_tensor(const reader *r, const bl_tensor_table *table, const place *places, bl_error *err) {
  for (size_t k = 0; k < r->n_entries; k++) {
    bool known = false;
    for (uint32_t i = 0; i < table->n_tensors && !known; i++)
      known = &r->entries[k] == places[i].values || &r->entries[k] == places[i].rows;
    if (!known)
      return bl_fail(err, BL_EMISMATCH, "%s holds %zu tensors, the model has %u: %.64s is none of them", r->path, r->n_entries,
                     table->n_tensors, r->entries[k].name);
  }
  return BL_OK;
}

/* The places of the table's tensors, or why the file is not this table's. places: [n_tensors] */
static bl_status match_all(const reader *r, const bl_tensor_table *table, bool with_tables, place *places, bl_error *err) {
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    const bl_tensor *t = &table->tensors[i];
    bl_status status = t->table && with_tables ? match_table(r, t, &places[i], err)
                                               : match_tensor(r, t, table->n_tensors, &places[i], err);
    if (status != BL_OK)
      return status;
  }
  return extra_tensor(r, table, places, err);
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

static bl_status read_entry_at(const reader *r, const entry *e, void *out, bl_error *err) {
  return read_at(r, out, e->end - e->begin, r->data_at + e->begin, err);
}

/* The file may be hostile: rows must be of the table, each once, ascending. */
static bl_status read_table(const reader *r, const bl_tensor *t, const place *p, bl_saved_rows *ret_rows, bl_error *err) {
  bl_saved_rows rows = {.n = (p->rows->end - p->rows->begin) / sizeof(uint64_t)};
  rows.rows = bl_malloc(p->rows->end - p->rows->begin + 1);
  rows.values = bl_malloc(p->values->end - p->values->begin + 1);
  bl_status status = BL_OK;
  if (rows.rows == NULL || rows.values == NULL)
    status = bl_fail(err, BL_ENOMEM, "no memory for the %llu rows of %s", (unsigned long long)rows.n, t->name);
  if (status == BL_OK)
    status = read_entry_at(r, p->rows, rows.rows, err);
  if (status == BL_OK)
    status = read_entry_at(r, p->values, rows.values, err);
  for (uint64_t i = 0; status == BL_OK && i < rows.n; i++)
    if (rows.rows[i] >= t->dims[0] || (i > 0 && rows.rows[i] <= rows.rows[i - 1]))
      status = bl_fail(err, BL_ECORRUPT, "%s: row %llu of %s at place %llu is not below %llu, or not above the one before",
                       r->path, (unsigned long long)rows.rows[i], t->name, (unsigned long long)i,
                       (unsigned long long)t->dims[0]);
  if (status == BL_OK)
    *ret_rows = rows;
  else
    bl_saved_rows_fini(&rows);
  return status;
}

static bl_status read_all(const reader *r, const bl_tensor_table *table, float *const *values, bl_saved_rows *tables,
                          bl_error *err) {
  place *places = bl_calloc((size_t)table->n_tensors + 1, sizeof *places);
  if (places == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to read %s", r->path);
  bl_status status = match_all(r, table, tables != NULL, places, err);
  for (uint32_t i = 0; status == BL_OK && values != NULL && i < table->n_tensors; i++)
    status = places[i].rows != NULL ? read_table(r, &table->tensors[i], &places[i], &tables[i], err)
                                    : read_entry_at(r, places[i].values, values[i], err);
  bl_free(places);
  return status;
}

bl_status bl_safetensors_read_tables(const char *path, const bl_tensor_table *table, float *const *values,
                                     bl_saved_rows *ret_tables, bl_error *err) {
  reader r = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (r.fd < 0)
    return bl_fail_errno(err, "cannot open %s", path);
  for (uint32_t i = 0; ret_tables != NULL && i < table->n_tensors; i++)
    ret_tables[i] = (bl_saved_rows){0};
  bl_status status = read_header(&r, err);
  if (status == BL_OK)
    status = read_entries(&r, err);
  if (status == BL_OK)
    status = read_all(&r, table, values, ret_tables, err);
  for (uint32_t i = 0; status != BL_OK && ret_tables != NULL && i < table->n_tensors; i++)
    bl_saved_rows_fini(&ret_tables[i]);
  bl_free(r.entries);
  json_decref(r.root);
  close(r.fd);
  return status;
}

bl_status bl_safetensors_read(const char *path, const bl_tensor_table *table, float *const *values, bl_error *err) {
  return bl_safetensors_read_tables(path, table, values, NULL, err);
}

/* ---- checksum ---- */

static int by_name(const void *a, const void *b) {
  const bl_tensor *const *x = a, *const *y = b;
  return strcmp((*x)->name, (*y)->name);
}

bl_status bl_weights_checksum(const bl_tensor_table *table, float *const *values, uint64_t *ret_xxh3) {
  return bl_weights_checksum_tables(table, values, NULL, ret_xxh3);
}

bl_status bl_weights_checksum_tables(const bl_tensor_table *table, float *const *values, const bl_saved_rows *tables,
                                     uint64_t *ret_xxh3) {
  bl_status status = BL_ENOMEM;
  bl_checksum_stream *sum = bl_checksum_stream_new();
  const bl_tensor **sorted = bl_calloc((size_t)table->n_tensors + 1, sizeof *sorted);
  if (sum == NULL || sorted == NULL)
    goto out;
  for (uint32_t i = 0; i < table->n_tensors; i++)
    sorted[i] = &table->tensors[i];
  qsort(sorted, table->n_tensors, sizeof *sorted, by_name);
  for (uint32_t i = 0; i < table->n_tensors; i++) {
    size_t at = (size_t)(sorted[i] - table->tensors);
    if (sorted[i]->table && tables != NULL) {
      bl_checksum_stream_add(sum, tables[at].rows, tables[at].n * sizeof *tables[at].rows);
      bl_checksum_stream_add(sum, tables[at].values, tables[at].n * sorted[i]->dims[1] * sizeof(float));
    } else {
      bl_checksum_stream_add(sum, values[at], sorted[i]->n_elems * sizeof(float));
    }
  }
  *ret_xxh3 = bl_checksum_stream_value(sum);
  status = BL_OK;
out:
  bl_free(sorted);
  bl_checksum_stream_free(sum);
  return status;
}
