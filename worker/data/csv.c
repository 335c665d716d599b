/* SPDX-License-Identifier: Apache-2.0
 *
 * CSV columns to cells: which field is which input, numbers, categories, classes, and what to do where a
 * value is missing. The training set decides on columns and categories; other files are matched to it.
 */
#include "data/csv_scan.h"
#include "data/hash.h"
#include "data/preprocess.h"

#include "base/alloc.h"
#include "base/num.h"
#include "base/str.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define CATEGORIES_MAX 65536

typedef struct csv_reader {
  const wk_read_request *req;
  const bl_source_spec *source;
  wk_samples *s;
  uint32_t file; /* number of the file at hand */
  const char *path;
  wk_csv_scan scan;
  wk_words names;      /* header names, numbered by position */
  uint32_t n_fields;   /* of each record of the file at hand */
  uint32_t *positions; /* owned [s->n_columns]: field of each input */
  int64_t target;      /* field of the target, or -1 */
  uint32_t hash_bits;  /* 0: columns are not hashed */
  uint64_t hash_seed;
  uint64_t *column_seeds; /* owned [s->n_columns] */
  uint64_t entry_capacity;
  wk_words classes;    /* texts of a class target, while reading the training set */
  uint64_t capacity;   /* samples that fit into the arrays */
} csv_reader;

static bl_status no_memory(const csv_reader *r, bl_error *err) {
  return bl_fail(err, BL_ENOMEM, "%s:%llu: no memory", r->path, (unsigned long long)r->scan.record_line);
}

/* A column by its header name, else by its number from 0. */
static int64_t find_field(const csv_reader *r, const char *name) {
  int64_t at = wk_words_find(&r->names, name);
  uint64_t number;
  if (at < 0 && bl_str_to_u64(name, &number) == BL_OK && number < r->n_fields)
    at = (int64_t)number;
  return at;
}

static bl_status no_such_column(const csv_reader *r, const char *role, const char *name, bl_error *err) {
  if (r->names.n == 0)
    return bl_fail(err, BL_ENOENT,
                   "%s: %s column '%s' does not exist: without a header columns are numbered 0 to %u", r->path,
                   role, name, r->n_fields - 1);
  const char *best = NULL;
  for (uint32_t i = 0; i < r->names.n; i++) {
    const char *candidate = bl_str_nearest(name, (const char *const[]){r->names.at[i]->text}, 1);
    if (candidate != NULL && (best == NULL || bl_str_distance(name, candidate) < bl_str_distance(name, best)))
      best = candidate;
  }
  return bl_fail(err, BL_ENOENT, "%s: %s column '%s' is not in the header%s%s%s", r->path, role, name,
                 best != NULL ? ", did you mean '" : "", best != NULL ? best : "", best != NULL ? "'?" : "");
}

static bl_status read_header(csv_reader *r, bl_error *err) {
  for (uint32_t i = 0; i < r->n_fields; i++) {
    const char *name = wk_csv_scan_field(&r->scan, i);
    uint32_t id = 0;
    bl_status status = wk_words_add(&r->names, name, r->file, r->scan.record_line, UINT32_MAX, &id);
    if (status != BL_OK)
      return no_memory(r, err);
    if (id != i)
      return bl_fail(err, BL_EINVAL, "%s:%llu: two columns are named '%s'", r->path,
                     (unsigned long long)r->scan.record_line, name);
  }
  return BL_OK;
}

static bl_status find_target(csv_reader *r, bl_error *err) {
  const char *name = r->source->target;
  if (name == NULL && r->req->pre != NULL)
    name = r->req->pre->target_column;
  r->target = name != NULL ? find_field(r, name) : -1;
  if (r->target >= 0 || !r->req->with_targets)
    return BL_OK;
  if (name == NULL)
    return bl_fail(err, BL_EINVAL, "%s: the source does not say which column is the target", r->path);
  return no_such_column(r, "target", name, err);
}

static bl_status add_column(csv_reader *r, uint32_t field, bl_error *err) {
  char number[24];
  snprintf(number, sizeof number, "%u", field);
  wk_column *col = &r->s->columns[r->s->n_columns];
  col->name = bl_strdup(r->names.n > 0 ? r->names.at[field]->text : number);
  if (col->name == NULL)
    return no_memory(r, err);
  r->s->n_columns++;
  return BL_OK;
}

static bl_status mark_categorical(csv_reader *r, bl_error *err) {
  bool all = r->hash_bits > 0 && r->source->n_categorical == 0;
  for (uint32_t c = 0; all && c < r->s->n_columns; c++)
    r->s->columns[c].categorical = true;
  for (size_t k = 0; k < r->source->n_categorical; k++) {
    int64_t field = find_field(r, r->source->categorical[k]);
    if (field < 0)
      return no_such_column(r, "categorical", r->source->categorical[k], err);
    bool found = false;
    for (uint32_t c = 0; c < r->s->n_columns; c++) {
      if (find_field(r, r->s->columns[c].name) == field)
        found = r->s->columns[c].categorical = true;
    }
    if (!found)
      return bl_fail(err, BL_EINVAL, "%s: categorical column '%s' is not one of the inputs", r->path,
                     r->source->categorical[k]);
  }
  return BL_OK;
}

/* Training set, first file: the inputs as the job file wants them, or all but the target. */
static bl_status choose_columns(csv_reader *r, bl_error *err) {
  bool all = r->source->n_columns == 0;
  r->s->columns = bl_calloc(all ? r->n_fields : r->source->n_columns, sizeof *r->s->columns);
  if (r->s->columns == NULL)
    return no_memory(r, err);
  bl_status status = BL_OK;
  for (uint32_t i = 0; all && status == BL_OK && i < r->n_fields; i++) {
    if (i != r->target)
      status = add_column(r, i, err);
  }
  for (size_t k = 0; !all && status == BL_OK && k < r->source->n_columns; k++) {
    int64_t field = find_field(r, r->source->columns[k]);
    if (field < 0)
      return no_such_column(r, "input", r->source->columns[k], err);
    if (field == r->target)
      return bl_fail(err, BL_EINVAL, "%s: column '%s' is both input and target", r->path,
                     r->source->columns[k]);
    status = add_column(r, (uint32_t)field, err);
  }
  if (status == BL_OK && r->s->n_columns == 0)
    return bl_fail(err, BL_EINVAL, "%s: there is no input column beside the target", r->path);
  return status == BL_OK ? mark_categorical(r, err) : status;
}

/* Other files: the inputs of the training set. */
static bl_status copy_columns(csv_reader *r, bl_error *err) {
  const wk_preprocess *pre = r->req->pre;
  r->s->columns = bl_calloc(pre->n_columns, sizeof *r->s->columns);
  if (r->s->columns == NULL)
    return no_memory(r, err);
  for (uint32_t c = 0; c < pre->n_columns; c++) {
    r->s->columns[c].categorical = pre->columns[c].categories != NULL || pre->columns[c].hashed;
    r->s->columns[c].name = bl_strdup(pre->columns[c].name);
    if (r->s->columns[c].name == NULL)
      return no_memory(r, err);
    r->s->n_columns++;
  }
  return BL_OK;
}

/* A file to predict from may lack the target. Without a header, later columns have then moved down by one. */
static bool lacks_target(const csv_reader *r, uint64_t *ret_target) {
  const wk_preprocess *pre = r->req->pre;
  return pre != NULL && !r->req->with_targets && !r->source->header && r->n_fields + 1 == pre->n_fields &&
         pre->target_column != NULL && bl_str_to_u64(pre->target_column, ret_target) == BL_OK;
}

static bl_status find_positions(csv_reader *r, bl_error *err) {
  uint64_t target = UINT64_MAX, number;
  bool shorter = lacks_target(r, &target);
  const wk_preprocess *pre = r->req->pre;
  if (pre != NULL && !r->source->header && !shorter && r->n_fields != pre->n_fields)
    return bl_fail(err, BL_EMISMATCH, "%s has %u columns, the training set had %u", r->path, r->n_fields,
                   pre->n_fields);
  if (shorter)
    r->target = -1;
  bl_free(r->positions);
  r->positions = bl_calloc(r->s->n_columns, sizeof *r->positions);
  if (r->positions == NULL)
    return no_memory(r, err);
  for (uint32_t c = 0; c < r->s->n_columns; c++) {
    const char *name = r->s->columns[c].name;
    int64_t field = find_field(r, name);
    if (shorter && bl_str_to_u64(name, &number) == BL_OK && number > target)
      field = (int64_t)number - 1;
    if (field < 0 || field >= r->n_fields)
      return no_such_column(r, "input", name, err);
    r->positions[c] = (uint32_t)field;
  }
  return BL_OK;
}

/* Each column's seed; whether any holds numbers. */
static bl_status prepare_hash(csv_reader *r, bl_error *err) {
  wk_samples *s = r->s;
  if (r->hash_bits == 0 || r->column_seeds != NULL)
    return BL_OK;
  r->column_seeds = bl_calloc(s->n_columns, sizeof *r->column_seeds);
  if (r->column_seeds == NULL)
    return no_memory(r, err);
  s->ones = true;
  for (uint32_t c = 0; c < s->n_columns; c++) {
    r->column_seeds[c] = wk_hash_column(r->hash_seed, s->columns[c].name);
    s->ones = s->ones && s->columns[c].categorical;
  }
  return BL_OK;
}

/* Called with the first record of each file. */
static bl_status match_columns(csv_reader *r, bl_error *err) {
  if (r->scan.n_fields > WK_INPUTS_MAX)
    return bl_fail(err, BL_ELIMIT, "%s has %u columns, the limit is %u", r->path, r->scan.n_fields,
                   WK_INPUTS_MAX);
  r->n_fields = r->scan.n_fields;
  r->s->n_fields = r->n_fields;
  wk_words_fini(&r->names);
  bl_status status = r->source->header ? read_header(r, err) : BL_OK;
  if (status == BL_OK)
    status = find_target(r, err);
  if (status == BL_OK && r->s->columns == NULL)
    status = r->req->pre != NULL ? copy_columns(r, err) : choose_columns(r, err);
  if (status == BL_OK)
    status = prepare_hash(r, err);
  return status == BL_OK ? find_positions(r, err) : status;
}

static const char *field_name(const csv_reader *r, uint32_t field) {
  return field < r->names.n ? r->names.at[field]->text : "";
}

/* "file:12: column 3 'total_rooms'" in front of what is wrong with a field. */
static bl_status bad_field(const csv_reader *r, uint32_t field, bl_status status, const char *what,
                           bl_error *err) {
  const char *name = field_name(r, field);
  return bl_fail(err, status, "%s:%llu: column %u%s%s%s: '%.64s' %s", r->path,
                 (unsigned long long)r->scan.record_line, field, *name != '\0' ? " '" : "", name,
                 *name != '\0' ? "'" : "", wk_csv_scan_field(&r->scan, field), what);
}

static bl_status parse_number(const csv_reader *r, uint32_t field, double *ret_value, bl_error *err) {
  const char *text = wk_csv_scan_field(&r->scan, field);
  double v;
  if (bl_str_to_double(text, &v) == BL_OK) {
    if (fabs(v) > FLT_MAX)
      return bad_field(r, field, BL_EINVAL, "is too large for a 32-bit number", err);
    *ret_value = v;
    return BL_OK;
  }
  const char *digits = text + (*text == '-' || *text == '+');
  if (strncasecmp(digits, "nan", 3) == 0 || strncasecmp(digits, "inf", 3) == 0)
    return bad_field(r, field, BL_ENOTFINITE, "is not a finite number", err);
  return bad_field(r, field, BL_EINVAL, "is not a number", err);
}

static bl_status parse_category(csv_reader *r, uint32_t c, double *ret_value, bl_error *err) {
  const wk_preprocess *pre = r->req->pre;
  uint32_t field = r->positions[c], id = 0;
  const char *text = wk_csv_scan_field(&r->scan, field);
  if (pre != NULL) {
    int64_t k = wk_words_search(pre->columns[c].categories, pre->columns[c].n_categories, text);
    if (k < 0)
      return bad_field(r, field, BL_EINVAL, "is not a category of the training set", err);
    *ret_value = (double)k;
    return BL_OK;
  }
  bl_status status =
      wk_words_add(&r->s->columns[c].words, text, r->file, r->scan.record_line, CATEGORIES_MAX, &id);
  if (status == BL_ELIMIT)
    return bad_field(r, field, status, "is one category too many, the limit is 65536", err);
  if (status != BL_OK)
    return no_memory(r, err);
  *ret_value = id;
  return BL_OK;
}

static bl_status parse_input(csv_reader *r, uint32_t c, double *ret_value, bl_error *err) {
  uint32_t field = r->positions[c];
  if (*wk_csv_scan_field(&r->scan, field) != '\0')
    return r->s->columns[c].categorical ? parse_category(r, c, ret_value, err)
                                        : parse_number(r, field, ret_value, err);
  switch (r->source->missing) {
  case BL_MISSING_ZERO:
    *ret_value = r->s->columns[c].categorical ? NAN : 0;
    return BL_OK;
  case BL_MISSING_MEAN: /* the preprocessing puts the mean there; of categories none is set */
    *ret_value = NAN;
    return BL_OK;
  case BL_MISSING_ERROR:
  case BL_MISSING_SKIP: /* read_row has left such rows out */
    break;
  }
  return bad_field(r, field, BL_EINVAL, "is missing (the source's 'missing' may be mean, zero or skip)", err);
}

/* Class of a text once the classes are known; names NULL: the text is the number. -1: none. */
static int64_t class_of(char *const *names, uint32_t n_names, uint32_t n_classes, const char *text) {
  if (names != NULL)
    return wk_words_search(names, n_names, text);
  double v;
  if (bl_str_to_double(text, &v) != BL_OK || v < 0 || v >= n_classes || v != floor(v))
    return -1;
  return (int64_t)v;
}

static bl_status out_of_range(const char *path, uint64_t line, const char *text, uint32_t n_classes,
                              bl_error *err) {
  return bl_fail(err, BL_EINVAL, "%s:%llu: label '%.64s' is out of range, the model has %u classes (0 to %u)",
                 path, (unsigned long long)line, text, n_classes, n_classes - 1);
}

static bl_status parse_target(csv_reader *r, uint64_t i, bl_error *err) {
  uint32_t field = (uint32_t)r->target;
  const wk_preprocess *pre = r->req->pre;
  if (r->req->target == WK_TARGET_VALUE)
    return parse_number(r, field, &r->s->values[i], err);
  const char *text = wk_csv_scan_field(&r->scan, field);
  if (pre == NULL) { /* numbered for now; resolve_classes turns the number into the class */
    bl_status status =
        wk_words_add(&r->classes, text, r->file, r->scan.record_line, WK_CLASSES_MAX, &r->s->labels[i]);
    if (status == BL_ELIMIT)
      return bad_field(r, field, status, "is one label too many", err);
    return status == BL_OK ? BL_OK : no_memory(r, err);
  }
  int64_t k = class_of(pre->class_names, pre->n_class_names, pre->n_classes, text);
  if (k < 0 && pre->class_names != NULL)
    return bad_field(r, field, BL_EINVAL, "is not a class of the training set", err);
  if (k < 0)
    return out_of_range(r->path, r->scan.record_line, text, pre->n_classes, err);
  r->s->labels[i] = (uint32_t)k;
  return BL_OK;
}

static bl_status make_room(csv_reader *r, bl_error *err) {
  wk_samples *s = r->s;
  if (s->n < r->capacity)
    return BL_OK;
  uint64_t capacity = BL_MAX(64, r->capacity * 2), cells;
  if (!bl_mul_u64(capacity, s->n_columns, &cells))
    return no_memory(r, err);
  bool hashed = r->hash_bits > 0;
  void *grown = hashed ? bl_realloc_array(s->row_start, capacity + 1, sizeof *s->row_start)
                       : bl_realloc_array(s->cells, cells, sizeof *s->cells);
  if (grown == NULL)
    return no_memory(r, err);
  if (hashed)
    s->row_start = grown;
  else
    s->cells = grown;
  if (r->req->with_targets && r->req->target == WK_TARGET_CLASS) {
    grown = bl_realloc_array(s->labels, capacity, sizeof *s->labels);
    s->labels = grown != NULL ? grown : s->labels;
  } else if (r->req->with_targets) {
    grown = bl_realloc_array(s->values, capacity, sizeof *s->values);
    s->values = grown != NULL ? grown : s->values;
  }
  if (grown == NULL)
    return no_memory(r, err);
  r->capacity = capacity;
  return BL_OK;
}

/* Looked for before anything is parsed, so that a row that is left out leaves no category behind. */
static bool has_gap(const csv_reader *r) {
  for (uint32_t c = 0; c < r->s->n_columns; c++) {
    if (*wk_csv_scan_field(&r->scan, r->positions[c]) == '\0')
      return true;
  }
  return r->req->with_targets && *wk_csv_scan_field(&r->scan, (uint32_t)r->target) == '\0';
}

/* A category is 1 in the slot of its text, a number the value of its column's own slot. An empty cell that may be
 * missing leaves nothing. */
static bl_status read_hashed(csv_reader *r, bl_error *err) {
  wk_samples *s = r->s;
  uint64_t at = s->n == 0 ? 0 : s->row_start[s->n];
  s->row_start[s->n] = at;
  for (uint32_t c = 0; c < s->n_columns; c++) {
    uint32_t field = r->positions[c];
    const char *text = wk_csv_scan_field(&r->scan, field);
    bool category = s->columns[c].categorical;
    double v = 1;
    if (*text == '\0' && r->source->missing == BL_MISSING_ZERO)
      continue;
    if (*text == '\0')
      return bad_field(r, field, BL_EINVAL, "is missing (the source's 'missing' may be zero or skip)", err);
    bl_status status = category ? BL_OK : parse_number(r, field, &v, err);
    if (status != BL_OK)
      return status;
    uint64_t slot = wk_hash_slot(r->column_seeds[c], text, category ? strlen(text) : 0, r->hash_bits);
    if (wk_samples_add_entry(s, &r->entry_capacity, at++, slot, (float)v) != BL_OK)
      return no_memory(r, err);
  }
  s->row_start[s->n + 1] = at;
  return BL_OK;
}

static bl_status read_row(csv_reader *r, bl_error *err) {
  wk_samples *s = r->s;
  if (r->scan.n_fields != r->n_fields)
    return bl_fail(err, BL_EINVAL, "%s:%llu: ragged row: %u fields, the first row has %u", r->path,
                   (unsigned long long)r->scan.record_line, r->scan.n_fields, r->n_fields);
  if (r->source->missing == BL_MISSING_SKIP && has_gap(r))
    return BL_OK;
  bl_status status = make_room(r, err);
  if (status == BL_OK && r->hash_bits > 0)
    status = read_hashed(r, err);
  for (uint32_t c = 0; status == BL_OK && r->hash_bits == 0 && c < s->n_columns; c++)
    status = parse_input(r, c, &s->cells[s->n * s->n_columns + c], err);
  if (status != BL_OK)
    return status;
  if (r->req->with_targets && *wk_csv_scan_field(&r->scan, (uint32_t)r->target) == '\0')
    return bad_field(r, (uint32_t)r->target, BL_EINVAL, "is missing, a target cannot be", err);
  if (r->req->with_targets)
    status = parse_target(r, s->n, err);
  if (status == BL_OK)
    s->n++;
  return status;
}

static bl_status read_records(csv_reader *r, bl_error *err) {
  bool found = false, first = true;
  for (;;) {
    bl_status status = wk_csv_scan_next(&r->scan, &found, err);
    if (status != BL_OK || !found)
      return status;
    if (first)
      status = match_columns(r, err);
    if (status == BL_OK && !(first && r->source->header))
      status = read_row(r, err);
    if (status != BL_OK)
      return status;
    first = false;
  }
}

static bl_status read_file(csv_reader *r, uint32_t file, bl_error *err) {
  wk_input *in = NULL;
  r->file = file;
  r->path = r->source->paths[file];
  bl_status status = wk_input_open(r->path, &in, err);
  if (status != BL_OK)
    return status;
  wk_csv_scan_init(&r->scan, in, r->source->delimiter != 0 ? r->source->delimiter : ',');
  status = read_records(r, err);
  wk_csv_scan_fini(&r->scan);
  wk_input_close(in);
  return status;
}

/* Categories in sorted order, whatever the order of the rows. */
static bl_status sort_categories(csv_reader *r, bl_error *err) {
  wk_samples *s = r->s;
  for (uint32_t c = 0; c < s->n_columns; c++) {
    if (!s->columns[c].categorical || r->hash_bits > 0)
      continue;
    uint32_t *rank;
    if (wk_words_sort(&s->columns[c].words, &rank) != BL_OK)
      return no_memory(r, err);
    for (uint64_t i = 0; i < s->n; i++) {
      double *cell = &s->cells[i * s->n_columns + c];
      if (!isnan(*cell))
        *cell = rank[(uint32_t)*cell];
    }
    bl_free(rank);
  }
  return BL_OK;
}

static bool all_numbers(const wk_words *words) {
  double v;
  for (uint32_t i = 0; i < words->n; i++) {
    if (bl_str_to_double(words->at[i]->text, &v) != BL_OK)
      return false;
  }
  return true;
}

/* Classes by number when every label is one, else by sorted name. */
static bl_status choose_classes(csv_reader *r, uint32_t *class_by_id, bl_error *err) {
  wk_samples *s = r->s;
  uint32_t n_classes = r->req->n_classes;
  bool named = !all_numbers(&r->classes);
  if (named) {
    uint32_t *rank;
    if (wk_words_sort(&r->classes, &rank) != BL_OK)
      return no_memory(r, err);
    bl_free(rank); /* the words hold their old numbers themselves */
    s->class_names = bl_calloc(r->classes.n, sizeof *s->class_names);
    if (s->class_names == NULL)
      return no_memory(r, err);
    s->n_class_names = r->classes.n;
  }
  for (uint32_t i = 0; i < r->classes.n; i++) {
    wk_word *word = r->classes.at[i];
    int64_t k = named ? i : class_of(NULL, 0, n_classes, word->text);
    if (!named && k < 0)
      return out_of_range(r->source->paths[word->file], word->line, word->text, n_classes, err);
    if (k >= n_classes)
      return bl_fail(err, BL_EINVAL, "%s:%llu: label '%.64s' is one of %u classes, the model has %u",
                     r->source->paths[word->file], (unsigned long long)word->line, word->text, r->classes.n,
                     n_classes);
    class_by_id[word->id] = (uint32_t)k;
    if (named) {
      s->class_names[i] = bl_strdup(word->text);
      if (s->class_names[i] == NULL)
        return no_memory(r, err);
    }
  }
  return BL_OK;
}

static bl_status resolve_classes(csv_reader *r, bl_error *err) {
  if (r->s->labels == NULL)
    return BL_OK;
  uint32_t *class_by_id = bl_calloc(r->classes.n, sizeof *class_by_id);
  if (class_by_id == NULL)
    return no_memory(r, err);
  bl_status status = choose_classes(r, class_by_id, err);
  for (uint64_t i = 0; status == BL_OK && i < r->s->n; i++)
    r->s->labels[i] = class_by_id[r->s->labels[i]];
  bl_free(class_by_id);
  return status;
}

bl_status wk_csv_read(const wk_read_request *req, wk_samples *ret_samples, bl_error *err) {
  csv_reader r = {.req = req, .source = req->source, .s = ret_samples, .target = -1};
  r.hash_bits = req->pre != NULL ? req->pre->hash_bits : req->source->hash_bits;
  r.hash_seed = req->pre != NULL ? req->pre->hash_seed : req->source->hash_seed;
  ret_samples->storage = r.hash_bits > 0 ? WK_STORAGE_SPARSE : WK_STORAGE_CELLS;
  ret_samples->n_cols = r.hash_bits > 0 ? UINT64_C(1) << r.hash_bits : 0;
  bl_status status = BL_OK;
  for (size_t i = 0; status == BL_OK && i < req->source->n_paths; i++)
    status = read_file(&r, (uint32_t)i, err);
  if (status == BL_OK && req->pre == NULL)
    status = sort_categories(&r, err);
  if (status == BL_OK && req->pre == NULL)
    status = resolve_classes(&r, err);
  if (r.hash_bits == 0)
    ret_samples->n_cols = ret_samples->n_columns;
  wk_words_fini(&r.names);
  wk_words_fini(&r.classes);
  bl_free(r.positions);
  bl_free(r.column_seeds);
  return status;
}
