/* SPDX-License-Identifier: Apache-2.0
 *
 * preprocess.json: what prediction must know to treat other files like the training set. Pure data; numbers
 * are written with 17 digits and come back bit for bit. Example:
 * {"version": 1, "source": "csv", "target": "value", "inputs": 2, "classes": 0, "normalize": "standard",
 *  "mean": [...], "deviation": [...], "target_mean": 0.0, "target_deviation": 1.0, "fields": 3,
 *  "target_column": "price", "columns": [{"name": "rooms", "fill": 5.4}, {"name": "sea", "categories": ["no",
 * "yes"]}]}
 */
#include "data/preprocess.h"

#include "base/alloc.h"
#include "base/file.h"

#include "base/str.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREPROCESS_VERSION 1
#define PREPROCESS_BYTES_MAX ((size_t)1 << 30)

static const struct {
  bl_normalize value;
  const char *name;
} normalize_names[] = {
    {BL_NORMALIZE_NONE, "none"}, {BL_NORMALIZE_UNIT, "unit"}, {BL_NORMALIZE_STANDARD, "standard"}};

static const struct {
  wk_target_kind value;
  const char *name;
} target_names[] = {{WK_TARGET_CLASS, "class"}, {WK_TARGET_VALUE, "value"}};

/* ---- writing; a NULL from jansson anywhere makes a set fail, which *failed remembers ---- */

static void put(json_t *object, const char *key, json_t *value, bool *failed) {
  if (json_object_set_new(object, key, value) != 0)
    *failed = true;
}

static json_t *numbers(const double *v, uint64_t n, bool *failed) {
  json_t *array = json_array();
  for (uint64_t i = 0; i < n; i++)
    if (json_array_append_new(array, json_real(v[i])) != 0)
      *failed = true;
  return array;
}

static json_t *texts(char *const *v, uint32_t n, bool *failed) {
  json_t *array = json_array();
  for (uint32_t i = 0; i < n; i++)
    if (json_array_append_new(array, json_string(v[i])) != 0)
      *failed = true;
  return array;
}

static json_t *columns_to_json(const wk_preprocess *pre, bool *failed) {
  json_t *array = json_array();
  for (uint32_t c = 0; c < pre->n_columns; c++) {
    const wk_pre_column *col = &pre->columns[c];
    json_t *object = json_object();
    put(object, "name", json_string(col->name), failed);
    if (pre->hash_bits > 0)
      put(object, "hashed", json_boolean(col->hashed), failed);
    else if (col->categories != NULL)
      put(object, "categories", texts(col->categories, col->n_categories, failed), failed);
    else
      put(object, "fill", json_real(col->fill), failed);
    if (json_array_append_new(array, object) != 0)
      *failed = true;
  }
  return array;
}

static json_t *to_json(const wk_preprocess *pre, bool *failed) {
  json_t *root = json_object();
  put(root, "version", json_integer(PREPROCESS_VERSION), failed);
  put(root, "source", json_string(wk_reader_find(pre->kind)->name), failed);
  put(root, "target", json_string(target_names[pre->target - 1].name), failed);
  put(root, "inputs", json_integer((json_int_t)pre->n_inputs), failed);
  if (pre->sparse)
    put(root, "sparse", json_true(), failed);
  put(root, "classes", json_integer(pre->n_classes), failed);
  put(root, "normalize", json_string(normalize_names[pre->normalize - 1].name), failed);
  if (pre->mean != NULL) {
    put(root, "mean", numbers(pre->mean, pre->n_inputs, failed), failed);
    put(root, "deviation", numbers(pre->deviation, pre->n_inputs, failed), failed);
  }
  put(root, "standardize_target", json_boolean(pre->standardize_target), failed);
  put(root, "target_mean", json_real(pre->target_mean), failed);
  put(root, "target_deviation", json_real(pre->target_deviation), failed);
  if (pre->class_names != NULL)
    put(root, "class_names", texts(pre->class_names, pre->n_class_names, failed), failed);
  if (pre->hash_bits > 0) {
    char seed[24]; /* a text: JSON's numbers end at 2^63 */
    snprintf(seed, sizeof seed, "%" PRIu64, pre->hash_seed);
    put(root, "hash", json_pack("{s:i, s:s}", "bits", (int)pre->hash_bits, "seed", seed), failed);
  }
  if (pre->columns != NULL) {
    put(root, "fields", json_integer(pre->n_fields), failed);
    put(root, "columns", columns_to_json(pre, failed), failed);
  }
  if (pre->target_column != NULL)
    put(root, "target_column", json_string(pre->target_column), failed);
  return root;
}

bl_status wk_preprocess_check(const wk_preprocess *pre, const char *path, bl_error *err) {
  bool failed = false;
  json_decref(to_json(pre, &failed));
  return failed ? bl_fail(err, BL_EINVAL, "%s: no memory, or a name in it is not UTF-8", path) : BL_OK;
}

bl_status wk_preprocess_write(const wk_preprocess *pre, const char *path, bl_error *err) {
  bool failed = false;
  json_t *root = to_json(pre, &failed);
  char *text = failed ? NULL : json_dumps(root, JSON_REAL_PRECISION(17) | JSON_INDENT(1));
  json_decref(root);
  if (text == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to write %s", path);
  bl_status status = bl_file_write_atomic(path, text, strlen(text), 0644, err);
  free(text); /* jansson's own allocator is malloc */
  return status;
}

/* ---- reading ---- */

typedef struct reader {
  const char *path;
  json_t *root;
  bl_error *err;
} reader;

static bl_status wrong(const reader *r, const char *key, const char *what) {
  return bl_fail(r->err, BL_ECORRUPT, "%s: field '%s' %s", r->path, key, what);
}

static bl_status no_memory(const reader *r) {
  return bl_fail(r->err, BL_ENOMEM, "no memory to read %s", r->path);
}

static bl_status get_u32(const reader *r, const char *key, uint32_t max, uint32_t *ret_value) {
  const json_t *v = json_object_get(r->root, key);
  if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > max)
    return wrong(r, key, "is missing or not a whole number in its range");
  *ret_value = (uint32_t)json_integer_value(v);
  return BL_OK;
}

static bl_status get_u64(const reader *r, const char *key, uint64_t max, uint64_t *ret_value) {
  const json_t *v = json_object_get(r->root, key);
  if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
    return wrong(r, key, "is missing or not a whole number in its range");
  *ret_value = (uint64_t)json_integer_value(v);
  return BL_OK;
}

static bl_status get_number(const reader *r, const json_t *v, const char *key, double *ret_value) {
  if (!json_is_number(v) || !isfinite(json_number_value(v)))
    return wrong(r, key, "is missing or not a finite number");
  *ret_value = json_number_value(v);
  return BL_OK;
}

static bl_status get_numbers(const reader *r, const char *key, uint64_t n, double **ret_values) {
  const json_t *array = json_object_get(r->root, key);
  if (!json_is_array(array) || json_array_size(array) != n)
    return wrong(r, key, "is not a list of one number for each input");
  double *v = bl_calloc(n, sizeof *v);
  if (v == NULL)
    return no_memory(r);
  *ret_values = v;
  for (uint64_t i = 0; i < n; i++) {
    bl_status status = get_number(r, json_array_get(array, i), key, &v[i]);
    if (status != BL_OK)
      return status;
  }
  return BL_OK;
}

static bl_status get_text(const reader *r, const json_t *v, const char *key, char **ret_text) {
  if (!json_is_string(v))
    return wrong(r, key, "is missing or not a text");
  *ret_text = bl_strdup(json_string_value(v));
  return *ret_text != NULL ? BL_OK : no_memory(r);
}

/* A list of distinct texts in bytewise order. */
static bl_status get_sorted_texts(const reader *r, const json_t *array, const char *key, char ***ret_texts,
                                  uint32_t *ret_n) {
  size_t n = json_array_size(array);
  if (!json_is_array(array) || n == 0 || n > WK_CLASSES_MAX)
    return wrong(r, key, "is not a list of texts");
  char **list = bl_calloc(n, sizeof *list);
  if (list == NULL)
    return no_memory(r);
  *ret_texts = list;
  *ret_n = (uint32_t)n;
  for (size_t i = 0; i < n; i++) {
    bl_status status = get_text(r, json_array_get(array, i), key, &list[i]);
    if (status != BL_OK)
      return status;
    if (i > 0 && strcmp(list[i - 1], list[i]) >= 0)
      return wrong(r, key, "is not sorted");
  }
  return BL_OK;
}

static bl_status get_hash(const reader *r, wk_preprocess *pre) {
  json_t *hash = json_object_get(r->root, "hash"), *bits = json_object_get(hash, "bits");
  const char *seed = json_string_value(json_object_get(hash, "seed"));
  if (hash == NULL)
    return BL_OK;
  if (json_object_size(hash) != 2 || !json_is_integer(bits) || json_integer_value(bits) < 1 ||
      json_integer_value(bits) > BL_JOB_HASH_BITS_MAX || seed == NULL || bl_str_to_u64(seed, &pre->hash_seed) != BL_OK)
    return wrong(r, "hash", "is not {bits, seed} with 1 to 40 bits and a seed as text");
  pre->hash_bits = (uint32_t)json_integer_value(bits);
  if (pre->n_inputs != UINT64_C(1) << pre->hash_bits)
    return wrong(r, "inputs", "is not the number of slots");
  return pre->kind == BL_SOURCE_CSV ? BL_OK : wrong(r, "hash", "belongs to csv only");
}

static bl_status get_column(const reader *r, json_t *object, const wk_preprocess *pre, wk_pre_column *col) {
  bl_status status = get_text(r, json_object_get(object, "name"), "name", &col->name);
  if (status != BL_OK)
    return status;
  const json_t *categories = json_object_get(object, "categories"), *hashed = json_object_get(object, "hashed");
  if (json_object_size(object) != 2)
    return wrong(r, "columns", "holds a column with fields that this version does not know");
  col->hashed = json_is_true(hashed);
  if (pre->hash_bits > 0)
    return json_is_boolean(hashed) ? BL_OK : wrong(r, "columns", "holds a column that is not hashed");
  if (categories != NULL)
    return get_sorted_texts(r, categories, "categories", &col->categories, &col->n_categories);
  return get_number(r, json_object_get(object, "fill"), "fill", &col->fill);
}

static bl_status get_columns(const reader *r, wk_preprocess *pre) {
  json_t *array = json_object_get(r->root, "columns");
  size_t n = json_array_size(array);
  if (!json_is_array(array) || n == 0 || n > WK_INPUTS_MAX)
    return wrong(r, "columns", "is not a list of columns");
  pre->columns = bl_calloc(n, sizeof *pre->columns);
  if (pre->columns == NULL)
    return no_memory(r);
  pre->n_columns = (uint32_t)n;
  uint64_t n_inputs = 0;
  for (uint32_t c = 0; c < n; c++) {
    bl_status status = get_column(r, json_array_get(array, c), pre, &pre->columns[c]);
    if (status != BL_OK)
      return status;
    n_inputs += pre->columns[c].categories != NULL ? pre->columns[c].n_categories : 1;
  }
  if (pre->hash_bits == 0 && n_inputs != pre->n_inputs)
    return wrong(r, "columns", "does not expand to the number of inputs");
  return get_u32(r, "fields", WK_INPUTS_MAX, &pre->n_fields);
}

static bl_status get_kinds(const reader *r, wk_preprocess *pre) {
  const char *source = json_string_value(json_object_get(r->root, "source"));
  const char *target = json_string_value(json_object_get(r->root, "target"));
  const char *normalize = json_string_value(json_object_get(r->root, "normalize"));
  const wk_reader *found = source != NULL ? wk_reader_find_name(source) : NULL;
  if (found == NULL)
    return wrong(r, "source", "is not one of idx, csv, libsvm, npy");
  pre->kind = found->kind;
  for (size_t i = 0; target != NULL && i < BL_COUNT_OF(target_names); i++)
    if (strcmp(target, target_names[i].name) == 0)
      pre->target = target_names[i].value;
  if (pre->target == 0)
    return wrong(r, "target", "is not one of class, value");
  for (size_t i = 0; normalize != NULL && i < BL_COUNT_OF(normalize_names); i++)
    if (strcmp(normalize, normalize_names[i].name) == 0)
      pre->normalize = normalize_names[i].value;
  return pre->normalize != 0 ? BL_OK : wrong(r, "normalize", "is not one of none, unit, standard");
}

static bl_status get_sparse(const reader *r, wk_preprocess *pre) {
  const json_t *sparse = json_object_get(r->root, "sparse");
  pre->sparse = json_is_true(sparse);
  if (sparse != NULL && !json_is_boolean(sparse))
    return wrong(r, "sparse", "is not true or false");
  return pre->sparse && pre->normalize != BL_NORMALIZE_NONE ? wrong(r, "normalize", "must be none for sparse samples") : BL_OK;
}

static bl_status check_keys(const reader *r) {
  static const char *const known[] = {"version",     "source",           "target",
                                      "inputs",      "classes",          "normalize",
                                      "mean",        "deviation",        "standardize_target",
                                      "target_mean", "target_deviation", "class_names",
                                      "fields",      "columns",          "target_column",
                                      "sparse",      "hash"};
  const char *key;
  json_t *value;
  json_object_foreach(r->root, key, value) {
    bool found = false;
    for (size_t i = 0; i < BL_COUNT_OF(known); i++)
      found |= strcmp(key, known[i]) == 0;
    if (!found)
      return wrong(r, key, "is not known to this version");
  }
  return BL_OK;
}

static bl_status get_statistics(const reader *r, wk_preprocess *pre) {
  bl_status status = BL_OK;
  if (pre->normalize == BL_NORMALIZE_STANDARD) {
    status = get_numbers(r, "mean", pre->n_inputs, &pre->mean);
    if (status == BL_OK)
      status = get_numbers(r, "deviation", pre->n_inputs, &pre->deviation);
    for (uint64_t j = 0; status == BL_OK && j < pre->n_inputs; j++)
      if (!(pre->deviation[j] > 0))
        status = wrong(r, "deviation", "holds a number that is not above 0");
  }
  if (status == BL_OK)
    status = get_number(r, json_object_get(r->root, "target_mean"), "target_mean", &pre->target_mean);
  if (status == BL_OK)
    status =
        get_number(r, json_object_get(r->root, "target_deviation"), "target_deviation", &pre->target_deviation);
  if (status == BL_OK && !(pre->target_deviation > 0))
    status = wrong(r, "target_deviation", "is not above 0");
  return status;
}

static bl_status from_json(const reader *r, wk_preprocess *pre) {
  uint32_t version = 0;
  bl_status status = get_u32(r, "version", UINT32_MAX, &version);
  if (status == BL_OK && version != PREPROCESS_VERSION)
    return bl_fail(r->err, BL_EUNSUPPORTED, "%s has version %u, this program reads version %d", r->path,
                   version, PREPROCESS_VERSION);
  if (status == BL_OK)
    status = check_keys(r);
  if (status == BL_OK)
    status = get_kinds(r, pre);
  if (status == BL_OK)
    status = get_sparse(r, pre);
  if (status == BL_OK)
    status = get_u64(r, "inputs", pre->sparse ? BL_JOB_SPARSE_INPUTS_MAX : WK_INPUTS_MAX, &pre->n_inputs);
  if (status == BL_OK)
    status = get_hash(r, pre);
  if (status == BL_OK)
    status = get_u32(r, "classes", UINT32_MAX, &pre->n_classes);
  if (status == BL_OK && (pre->n_inputs == 0 || (pre->target == WK_TARGET_CLASS) != (pre->n_classes > 0)))
    return wrong(r, pre->n_inputs == 0 ? "inputs" : "classes", "does not fit the target");
  if (status == BL_OK)
    status = get_statistics(r, pre);
  const json_t *names = json_object_get(r->root, "class_names"),
               *target = json_object_get(r->root, "target_column");
  if (status == BL_OK && names != NULL)
    status = get_sorted_texts(r, names, "class_names", &pre->class_names, &pre->n_class_names);
  if (status == BL_OK && pre->n_class_names > pre->n_classes)
    return wrong(r, "class_names", "has more names than there are classes");
  if (status == BL_OK && pre->kind == BL_SOURCE_CSV)
    status = get_columns(r, pre);
  if (status == BL_OK && target != NULL)
    status = get_text(r, target, "target_column", &pre->target_column);
  pre->standardize_target = json_is_true(json_object_get(r->root, "standardize_target"));
  return status;
}

bl_status wk_preprocess_read(const char *path, wk_preprocess **ret_pre, bl_error *err) {
  bl_buf text = BL_BUF_INIT;
  reader r = {.path = path, .err = err};
  wk_preprocess *pre = NULL;
  json_error_t at;
  bl_status status = bl_file_read(path, PREPROCESS_BYTES_MAX, &text, err);
  if (status != BL_OK)
    goto out;
  r.root = json_loadb(bl_buf_str(&text), text.size, JSON_REJECT_DUPLICATES, &at);
  if (!json_is_object(r.root)) {
    status = r.root != NULL ? bl_fail(err, BL_ECORRUPT, "%s is not a JSON object", path)
                            : bl_fail(err, BL_ECORRUPT, "%s:%d: %s", path, at.line, at.text);
    goto out;
  }
  pre = bl_calloc(1, sizeof *pre);
  status = pre != NULL ? from_json(&r, pre) : no_memory(&r);
out:
  json_decref(r.root);
  bl_buf_fini(&text);
  if (status == BL_OK)
    *ret_pre = pre;
  else
    wk_preprocess_free(pre);
  return status;
}
