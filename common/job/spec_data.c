/* SPDX-License-Identifier: Apache-2.0
 *
 * The section data: where samples come from and what is done to them before training.
 */
#include "base/num.h"
#include "base/str.h"
#include "job/spec_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PATHS_MAX 4096
#define COLUMNS_MAX 65536
#define AT(member) .offset = offsetof(bl_source_spec, member)
#define LIST_AT(member, count)                                                                                 \
  .offset = offsetof(bl_source_spec, member), .count_offset = offsetof(bl_source_spec, count)

/* clang-format off */
static const bl_word missing_words[] = {
    {"error", BL_MISSING_ERROR}, {"mean", BL_MISSING_MEAN}, {"zero", BL_MISSING_ZERO}, {"skip", BL_MISSING_SKIP}};

static const bl_field hash_fields[] = {
    {.name = "bits", .type = BL_FIELD_U32, .since = 2, AT(hash_bits), .default_text = "0", .max = BL_JOB_HASH_BITS_MAX,
     .doc = "A category becomes one of 2^bits slots, by its hash. 0: off, each word becomes an input of its own."},
    {.name = "seed", .type = BL_FIELD_U64, .since = 2, AT(hash_seed), .default_text = "0", .doc = "Of the hash."},
};

/* "path" comes first in both tables: a dump leaves it out and writes paths. */
static const bl_field csv_fields[] = {
    {.name = "path", .type = BL_FIELD_LIST, LIST_AT(paths, n_paths), .min = 1, .max = 1, .doc = "The file."},
    {.name = "paths", .type = BL_FIELD_LIST, LIST_AT(paths, n_paths), .min = 1, .max = PATHS_MAX,
     .doc = "Several files, read one behind the other as one."},
    {.name = "header", .type = BL_FIELD_BOOL, AT(header), .default_text = "true",
     .doc = "The first line of every file holds the names of the columns."},
    {.name = "delimiter", .type = BL_FIELD_CHAR, AT(delimiter), .default_text = ",",
     .doc = "Character between two columns; tab for the tabulator."},
    {.name = "target", .type = BL_FIELD_TEXT, AT(target), .max = 256,
     .doc = "Column to predict: its name, or its number from 0."},
    {.name = "columns", .type = BL_FIELD_LIST, LIST_AT(columns, n_columns), .max = COLUMNS_MAX,
     .doc = "Input columns. Left out: all but the target."},
    {.name = "categorical", .type = BL_FIELD_LIST, LIST_AT(categorical, n_categorical), .max = COLUMNS_MAX,
     .doc = "Input columns of words: each different word becomes an input of its own that is 0 or 1."},
    {.name = "missing", .type = BL_FIELD_ENUM, AT(missing), .default_text = "error", BL_WORDS(missing_words),
     .doc = "An empty cell: error stops the job, mean and zero fill it in, skip leaves the line out."},
    {.name = "hash", .type = BL_FIELD_SECTION, .since = 2, BL_FIELDS(hash_fields),
     .doc = "Hashed features: {bits: 24}. All columns are categories then, unless categorical names some."},
};

static const bl_field libsvm_fields[] = {
    {.name = "path", .type = BL_FIELD_LIST, LIST_AT(paths, n_paths), .min = 1, .max = 1, .doc = "The file."},
    {.name = "paths", .type = BL_FIELD_LIST, LIST_AT(paths, n_paths), .min = 1, .max = PATHS_MAX,
     .doc = "Several files, read one behind the other as one."},
    {.name = "features", .type = BL_FIELD_U64, AT(features), .default_text = "0", .max = BL_JOB_SPARSE_INPUTS_MAX,
     .doc = "Number of inputs. 0: the model's input size."},
};

static const bl_field idx_fields[] = {
    {.name = "paths", .type = BL_FIELD_LIST, LIST_AT(paths, n_paths), .min = 2, .max = 2,
     .doc = "The file of inputs and the file of labels, plain or .gz."},
};

static const bl_field npy_fields[] = {
    {.name = "paths", .type = BL_FIELD_LIST, LIST_AT(paths, n_paths), .min = 2, .max = 2,
     .doc = "The file of inputs and the file of targets, plain or .gz."},
};

static const struct source_row {
  const char *name;
  bl_source_kind kind;
  const bl_field *fields;
  size_t n_fields;
  size_t first_dumped;
  bl_normalize normalize; /* default of data.normalize */
} sources[] = {
    {"idx", BL_SOURCE_IDX, idx_fields, BL_COUNT_OF(idx_fields), 0, BL_NORMALIZE_UNIT},
    {"csv", BL_SOURCE_CSV, csv_fields, BL_COUNT_OF(csv_fields), 1, BL_NORMALIZE_STANDARD},
    {"libsvm", BL_SOURCE_LIBSVM, libsvm_fields, BL_COUNT_OF(libsvm_fields), 1, BL_NORMALIZE_NONE},
    {"npy", BL_SOURCE_NPY, npy_fields, BL_COUNT_OF(npy_fields), 0, BL_NORMALIZE_NONE},
};

/* The kinds once more as fields: their table gives the nearest name and the documentation. */
static const bl_field kind_fields[] = {
    {.name = "idx", .type = BL_FIELD_CUSTOM, BL_FIELDS(idx_fields),
     .doc = "Two files in the format of MNIST: inputs, labels. A list of two paths."},
    {.name = "csv", .type = BL_FIELD_CUSTOM, BL_FIELDS(csv_fields), .doc = "Text with a line per sample."},
    {.name = "libsvm", .type = BL_FIELD_CUSTOM, BL_FIELDS(libsvm_fields),
     .doc = "Text with 'label index:value ...' lines, indices from 1."},
    {.name = "npy", .type = BL_FIELD_CUSTOM, .since = 2, BL_FIELDS(npy_fields),
     .doc = "Two NumPy arrays: inputs, targets. A list of two paths."},
};
/* clang-format on */

static const struct source_row *source_by_kind(bl_source_kind kind) {
  for (size_t i = 0; i < BL_COUNT_OF(sources); i++) {
    if (sources[i].kind == kind)
      return &sources[i];
  }
  return NULL;
}

static const struct source_row *source_by_name(const char *name) {
  for (size_t i = 0; i < BL_COUNT_OF(sources); i++) {
    if (strcmp(sources[i].name, name) == 0)
      return &sources[i];
  }
  return NULL;
}

/* Fields of one kind. `like`: defaults, NULL: the tables'. */
static void read_kind(bl_conf_reader *r, const struct source_row *row, const bl_node *node,
                      const bl_source_spec *like, bl_source_spec *s) {
  bl_conf_reader inner = *r;
  inner.base = s;
  if (like != NULL && like->kind == row->kind)
    *s = *like;
  else
    bl_schema_defaults(&inner, row->fields, row->n_fields);
  s->kind = row->kind;
  s->paths = NULL;
  s->n_paths = 0;
  if (node->kind == BL_NODE_MAP)
    bl_schema_read_given(&inner, row->fields, row->n_fields, node);
  else
    bl_schema_read_value(&inner, &row->fields[row->first_dumped], node); /* a path or a list of them */
  const bl_node *path = bl_node_get(node, "path"), *paths = bl_node_get(node, "paths");
  if (path != NULL && paths != NULL)
    bl_conf_errors_add_field(r->errors, paths, "path and paths cannot stand together");
  else if (node->kind == BL_NODE_MAP && path == NULL && paths == NULL)
    bl_conf_errors_add_field(r->errors, node, "the path of the file is missing");
  r->no_memory |= inner.no_memory;
}

static void read_source(bl_conf_reader *r, const bl_node *node, const bl_source_spec *like, bl_source_spec *s) {
  char what[80];
  if (node->kind != BL_NODE_MAP || node->n_children == 0) {
    bl_conf_errors_add_field(r->errors, node,
                             "%s is not allowed here; write {idx: ...}, {csv: ...}, {libsvm: ...} or {npy: ...}",
                             bl_node_describe(node, what, sizeof what));
    return;
  }
  const bl_node *chosen = NULL;
  for (const bl_node *c = node->first; c != NULL; c = c->next) {
    if (source_by_name(c->key) == NULL)
      bl_schema_unknown(r, kind_fields, BL_COUNT_OF(kind_fields), c);
    else if (chosen != NULL)
      bl_conf_errors_add_field(r->errors, c, "only one kind of source may be given, and '%s' is there already",
                               chosen->key);
    else
      chosen = c;
  }
  if (chosen == NULL)
    return;
  if (chosen->is_null)
    bl_conf_errors_add_field(r->errors, chosen, "the path of the file is missing");
  else
    read_kind(r, source_by_name(chosen->key), chosen, like, s);
}

static void read_train(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  read_source(r, node, NULL, (bl_source_spec *)(void *)((char *)r->base + f->offset));
}

/* Waits for bl_job_data_finish: its defaults are those of train, which may stand below it. */
static void read_test(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  (void)r;
  (void)f;
  (void)node;
}

static void write_source(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_source_spec *s = (const bl_source_spec *)(const void *)((const char *)base + f->offset);
  const struct source_row *row = source_by_kind(s->kind);
  (void)indent;
  if (row == NULL) {
    bl_buf_add_str(out, " null\n");
    return;
  }
  bl_buf_printf(out, " {%s: ", row->name);
  bl_schema_dump_flow(row->fields + row->first_dumped, row->n_fields - row->first_dumped, s, out);
  bl_buf_add_str(out, "}\n");
}

/* clang-format off */
static const bl_word where_words[] = {{"shared", BL_DATA_SHARED}, {"local", BL_DATA_LOCAL}};
static const bl_word normalize_words[] = {
    {"none", BL_NORMALIZE_NONE}, {"unit", BL_NORMALIZE_UNIT}, {"standard", BL_NORMALIZE_STANDARD}};

#define IN_SPEC(member) .offset = offsetof(bl_job_spec, data.member)

const bl_field bl_job_data_fields[BL_JOB_N_DATA_FIELDS] = {
    {.name = "where", .type = BL_FIELD_ENUM, IN_SPEC(where), .default_text = "shared", BL_WORDS(where_words),
     .doc = "shared: the same files at the same path on every worker, compared before the first clock.\n"
            "local: every rank has files of its own, which never leave its worker."},
    {.name = "train", .type = BL_FIELD_CUSTOM, IN_SPEC(train), .required = true, BL_FIELDS(kind_fields),
     .read = read_train, .write = write_source,
     .doc = "Training set: {idx: [inputs, labels]}, {csv: {...}}, {libsvm: {...}} or {npy: [inputs, targets]}."},
    {.name = "test", .type = BL_FIELD_CUSTOM, IN_SPEC(test), BL_FIELDS(kind_fields), .read = read_test,
     .write = write_source,
     .doc = "Test set, of the same kind; what it leaves out it takes from train. Left out: none."},
    {.name = "validation", .type = BL_FIELD_FRACTION, IN_SPEC(validation), .default_text = "0", .real_max = 1,
     .real_max_open = true,
     .doc = "Part of the training set that is kept for validation: its last samples, before shuffling."},
    {.name = "progressive", .type = BL_FIELD_BOOL, .since = 2, IN_SPEC(progressive), .default_text = "false",
     .doc = "Validation for streams: every batch is predicted before it is trained on."},
    {.name = "shuffle", .type = BL_FIELD_BOOL, IN_SPEC(shuffle), .default_text = "true",
     .doc = "A new order of the samples in every epoch, made from the seed."},
    {.name = "normalize", .type = BL_FIELD_ENUM, IN_SPEC(normalize), BL_WORDS(normalize_words),
     .doc = "none; unit: bytes divided by 255; standard: every column to mean 0 and deviation 1.\n"
            "Left out: unit for idx, standard for csv, none for libsvm, npy and hashed columns."},
    {.name = "standardize_target", .type = BL_FIELD_BOOL, IN_SPEC(standardize_target), .default_text = "false",
     .doc = "Squared loss: train on (y - mean) / deviation and report in the file's own units."},
};
/* clang-format on */

static bool list_has(const char *const *items, size_t n, const char *word) {
  for (size_t i = 0; i < n; i++) {
    if (strcmp(items[i], word) == 0)
      return true;
  }
  return false;
}

/* Columns against each other. Without a header, columns are numbers. */
static void check_csv(bl_conf_reader *r, const bl_node *node, const bl_source_spec *s) {
  const bl_node *target = bl_node_find(node, "csv.target"), *columns = bl_node_find(node, "csv.columns");
  const bl_node *categorical = bl_node_find(node, "csv.categorical");
  uint64_t number;
  if (s->target == NULL)
    bl_conf_errors_add_field(r->errors, bl_node_get(node, "csv"),
                             "target is missing: the column to predict, by name or number from 0");
  else if (!s->header && bl_str_to_u64(s->target, &number) != BL_OK)
    bl_conf_errors_add_field(r->errors, target != NULL ? target : node,
                             "'%.60s' is a name, but without a header columns have only numbers", s->target);
  if (s->target != NULL && list_has(s->columns, s->n_columns, s->target))
    bl_conf_errors_add_field(r->errors, columns != NULL ? columns : node,
                             "the target '%.60s' cannot be an input too", s->target);
  for (size_t i = 0; i < s->n_categorical; i++) {
    if (s->target != NULL && strcmp(s->categorical[i], s->target) == 0)
      bl_conf_errors_add_field(r->errors, categorical != NULL ? categorical : node,
                               "the target '%.60s' cannot be an input too", s->target);
    else if (s->n_columns > 0 && !list_has(s->columns, s->n_columns, s->categorical[i]))
      bl_conf_errors_add_field(r->errors, categorical != NULL ? categorical : node,
                               "'%.60s' is not among the columns", s->categorical[i]);
  }
}

/* Preprocessing must be the same on all ranks although none sees the data of another. */
static void check_local_source(bl_conf_reader *r, const bl_node *node, const bl_source_spec *s) {
  const bl_node *missing = bl_node_find(node, "csv.missing"), *categorical = bl_node_find(node, "csv.categorical");
  if (s->kind != BL_SOURCE_CSV)
    return;
  if (s->missing != 0 && s->missing != BL_MISSING_ERROR && s->missing != BL_MISSING_ZERO)
    bl_conf_errors_add_field(r->errors, missing != NULL ? missing : node,
                             "with 'where: local' only error and zero are allowed: a mean would differ from worker "
                             "to worker, and skipped lines too");
  if (s->n_categorical > 0 && s->hash_bits == 0)
    bl_conf_errors_add_field(r->errors, categorical != NULL ? categorical : node,
                             "with 'where: local' no column may be categorical: the words would differ from worker "
                             "to worker (hash is allowed)");
}

static void check_local(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *spec = r->base;
  const bl_data_spec *d = &spec->data;
  const bl_node *train = bl_node_find(root, "data.train"), *test = bl_node_find(root, "data.test");
  const bl_node *where = bl_node_find(root, "data.where"), *normalize = bl_node_find(root, "data.normalize");
  const bl_node *batch = bl_node_get(root, "batch");
  if (train != NULL)
    check_local_source(r, train, &d->train);
  if (test != NULL)
    check_local_source(r, test, &d->test);
  if (d->normalize == BL_NORMALIZE_STANDARD)
    bl_conf_errors_add_field(r->errors, normalize != NULL ? normalize : where,
                             "with 'where: local' data.normalize must be none or unit%s: means and deviations would "
                             "differ from worker to worker",
                             normalize != NULL ? "" : ", and for csv it is standard when it is left out");
  if (d->standardize_target)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "data.standardize_target"),
                             "with 'where: local' the target cannot be standardised: its mean would differ from "
                             "worker to worker");
  if (batch != NULL && spec->batch > 0 && spec->ranks > 0 && spec->batch % spec->ranks != 0)
    bl_conf_errors_add_field(r->errors, batch,
                             "with 'where: local' every rank takes an equal part of the batch: %" PRIu64
                             " is no multiple of %u ranks",
                             spec->batch, spec->ranks);
}

/* Hashed columns against the rest of the source. */
static void check_hash(bl_conf_reader *r, const bl_node *node, const bl_source_spec *s) {
  const bl_node *missing = bl_node_find(node, "csv.missing");
  if (s->hash_bits > 0 && s->missing == BL_MISSING_MEAN)
    bl_conf_errors_add_field(r->errors, missing != NULL ? missing : node,
                             "hashed columns have no mean: zero leaves an empty cell out, error and skip are allowed too");
}

static void check_sparse_normalize(bl_conf_reader *r, const bl_node *root) {
  const bl_data_spec *d = &((const bl_job_spec *)r->base)->data;
  const bl_node *normalize = bl_node_find(root, "data.normalize");
  if (d->train.hash_bits > 0 && d->normalize != BL_NORMALIZE_NONE)
    bl_conf_errors_add_field(r->errors, normalize, "hashed columns are not normalised: write none, or leave it out");
}

void bl_job_data_finish(bl_conf_reader *r, const bl_node *root) {
  bl_job_spec *spec = r->base;
  bl_data_spec *d = &spec->data;
  const bl_node *train = bl_node_find(root, "data.train"), *test = bl_node_find(root, "data.test");
  if (test != NULL)
    read_source(r, test, &d->train, &d->test);
  if (train != NULL && d->train.kind == BL_SOURCE_CSV)
    check_csv(r, train, &d->train);
  if (test != NULL && d->test.kind == BL_SOURCE_CSV && d->train.kind == BL_SOURCE_CSV)
    check_csv(r, test, &d->test);
  if (train != NULL && d->test.kind != BL_SOURCE_NONE && d->train.kind != BL_SOURCE_NONE &&
      d->test.kind != d->train.kind)
    bl_conf_errors_add_field(r->errors, test,
                             "the test set is %s and the training set is %s: they must be of one kind",
                             source_by_kind(d->test.kind)->name, source_by_kind(d->train.kind)->name);
  if (train != NULL)
    check_hash(r, train, &d->train);
  if (d->normalize == 0 && d->train.kind != BL_SOURCE_NONE)
    d->normalize = d->train.hash_bits > 0 ? BL_NORMALIZE_NONE : source_by_kind(d->train.kind)->normalize;
  check_sparse_normalize(r, root);
  if (d->progressive && d->validation > 0)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "data.progressive"),
                             "progressive validation holds nothing out: leave out data.validation");
  if (d->standardize_target && spec->loss != 0 && spec->loss != BL_LOSS_SQUARED)
    bl_conf_errors_add_field(r->errors, bl_node_find(root, "data.standardize_target"),
                             "only the squared loss has a target that can be standardised");
  if (d->where == BL_DATA_LOCAL)
    check_local(r, root);
}
