/* SPDX-License-Identifier: Apache-2.0
 *
 * Prediction and its command line. Two writers, one per format, behind a table.
 */
#include "predict.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/num.h"
#include "daemon/daemon.h"
#include "model_folder.h"
#include "train/sparse_input.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH 256
#define FILES_MAX 64
#define CLASS_NAME_BYTES 256

/* Everything a writer needs for one sample. probabilities: [n_classes], NULL for values. */
typedef struct prediction {
  uint64_t row;
  const wk_preprocess *pre;
  uint32_t n_classes, best;
  const double *probabilities;
  double value;
  bool has_target;
  uint32_t target_label;
  double target_value;
} prediction;

typedef struct predictor {
  const wk_predict_config *config;
  bool with_targets;
  wk_loaded model;
  wk_dataset *data;
  wk_dataset_info info;
  float *x, *outputs, *values;
  uint32_t *labels;
  uint64_t *indices;
  double *probabilities;
  wk_sparse_input sparse; /* instead of x, labels and values where the model takes sparse samples */
  wk_distinct distinct;
  uint64_t correct;
  double squared_error;
} predictor;

static const char *class_name(const prediction *p, uint32_t i, char *out) {
  return wk_preprocess_class_name(p->pre, i, out, CLASS_NAME_BYTES);
}

/* ---- CSV ---------------------------------------------------------------------------------------------- */

static void csv_text(FILE *out, const char *text) {
  if (strpbrk(text, ",\"\r\n") == NULL) {
    fputs(text, out);
    return;
  }
  fputc('"', out);
  for (; *text != '\0'; text++) {
    if (*text == '"')
      fputc('"', out);
    fputc(*text, out);
  }
  fputc('"', out);
}

static void csv_head(FILE *out, const prediction *p) {
  fputs(p->probabilities != NULL ? "row,class" : "row,value", out);
  for (uint32_t i = 0; p->probabilities != NULL && i < p->n_classes; i++) {
    char name[CLASS_NAME_BYTES], column[CLASS_NAME_BYTES + 4];
    snprintf(column, sizeof column, "p(%s)", class_name(p, i, name));
    fputc(',', out);
    csv_text(out, column);
  }
  fputs(p->has_target ? ",target\n" : "\n", out);
}

static void csv_row(FILE *out, const prediction *p) {
  char name[CLASS_NAME_BYTES];
  fprintf(out, "%" PRIu64 ",", p->row);
  if (p->probabilities != NULL)
    csv_text(out, class_name(p, p->best, name));
  else
    fprintf(out, "%.9g", p->value);
  for (uint32_t i = 0; p->probabilities != NULL && i < p->n_classes; i++)
    fprintf(out, ",%.6g", p->probabilities[i]);
  if (p->has_target) {
    fputc(',', out);
    if (p->probabilities != NULL)
      csv_text(out, class_name(p, p->target_label, name));
    else
      fprintf(out, "%.9g", p->target_value);
  }
  fputc('\n', out);
}

/* ---- JSON lines --------------------------------------------------------------------------------------- */

static void json_head(FILE *out, const prediction *p) {
  (void)out;
  (void)p;
}

static void json_row(FILE *out, const prediction *p) {
  char name[CLASS_NAME_BYTES];
  json_t *o = json_object();
  json_object_set_new(o, "row", json_integer((json_int_t)p->row));
  if (p->probabilities != NULL) {
    json_object_set_new(o, "class", json_string(class_name(p, p->best, name)));
    json_t *all = json_object();
    for (uint32_t i = 0; i < p->n_classes; i++)
      json_object_set_new(all, class_name(p, i, name), json_real(p->probabilities[i]));
    json_object_set_new(o, "probabilities", all);
  } else {
    json_object_set_new(o, "value", json_real(p->value));
  }
  if (p->has_target)
    json_object_set_new(o, "target", p->probabilities != NULL ? json_string(class_name(p, p->target_label, name))
                                                              : json_real(p->target_value));
  json_dumpf(o, out, JSON_COMPACT | JSON_REAL_PRECISION(9));
  json_decref(o);
  fputc('\n', out);
}

static const struct {
  const char *name;
  void (*head)(FILE *out, const prediction *p);
  void (*row)(FILE *out, const prediction *p);
} formats[] = {
    [WK_PREDICT_CSV] = {"csv", csv_head, csv_row},
    [WK_PREDICT_JSON] = {"json", json_head, json_row},
};

/* ---- prediction --------------------------------------------------------------------------------------- */

static const struct {
  const char *name;
  bl_source_kind kind;
} kinds[] = {{"idx", BL_SOURCE_IDX}, {"csv", BL_SOURCE_CSV}, {"libsvm", BL_SOURCE_LIBSVM}, {"npy", BL_SOURCE_NPY}};

static bl_status open_data(predictor *p, bl_error *err) {
  const wk_predict_config *c = p->config;
  bl_source_spec source = p->model.spec->data.train;
  source.kind = c->kind == NULL ? source.kind : BL_SOURCE_NONE;
  for (size_t i = 0; c->kind != NULL && i < BL_COUNT_OF(kinds); i++) {
    if (strcmp(kinds[i].name, c->kind) == 0)
      source.kind = kinds[i].kind;
  }
  if (source.kind == BL_SOURCE_NONE)
    return bl_fail(err, BL_EINVAL, "kind '%s' is none of idx, csv, libsvm, npy", c->kind);
  /* Inputs and targets: that the second file is there says it. */
  bool pair = (source.kind == BL_SOURCE_IDX || source.kind == BL_SOURCE_NPY) && c->n_files == 2;
  p->with_targets = c->with_targets || pair;
  source.paths = c->files;
  source.n_paths = c->n_files;
  bl_status status = wk_dataset_open(&source, p->model.pre, p->with_targets, &p->data, err);
  if (status != BL_OK)
    return status;
  p->info = wk_dataset_get_info(p->data);
  if (p->info.n_inputs != p->model.n_inputs)
    return bl_fail(err, BL_EMISMATCH, "%s has %" PRIu64 " inputs, the model takes %" PRIu64, c->files[0], p->info.n_inputs,
                   p->model.n_inputs);
  return BL_OK;
}

static bl_status allocate(predictor *p, bl_error *err) {
  const bl_model_spec *model = &p->model.spec->model;
  if (p->info.sparse != bl_model_is_sparse(model))
    return bl_fail(err, BL_EMISMATCH, "%s: the job and its preprocessing do not agree whether samples are sparse",
                   p->config->model_dir);
  if (p->info.sparse)
    wk_sparse_input_init(&p->sparse, model->layers[0].units, false);
  uint64_t n_inputs = p->info.sparse ? 1 : p->model.n_inputs;
  p->x = bl_calloc_aligned(BATCH, n_inputs * sizeof *p->x);
  p->outputs = bl_calloc(BATCH, p->model.n_outputs * sizeof *p->outputs);
  p->values = bl_calloc(BATCH, sizeof *p->values);
  p->labels = bl_calloc(BATCH, sizeof *p->labels);
  p->indices = bl_calloc(BATCH, sizeof *p->indices);
  p->probabilities = bl_calloc(BL_MAX(p->model.n_outputs, 2), sizeof *p->probabilities);
  if (p->x == NULL || p->outputs == NULL || p->values == NULL || p->labels == NULL || p->indices == NULL ||
      p->probabilities == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for %d samples of %" PRIu64 " inputs", BATCH, n_inputs);
  return BL_OK;
}

static void finish(predictor *p) {
  wk_loaded_fini(&p->model);
  wk_dataset_free(p->data);
  wk_sparse_input_fini(&p->sparse);
  wk_distinct_fini(&p->distinct);
  bl_free_aligned(p->x);
  bl_free(p->outputs);
  bl_free(p->values);
  bl_free(p->labels);
  bl_free(p->indices);
  bl_free(p->probabilities);
}

/* The ith sample of the present batch. One sigmoid output is the probability of class 1 of two. */
static prediction predict_one(predictor *p, uint64_t first, uint32_t i) {
  prediction r = {.row = first + i, .pre = p->model.pre, .has_target = p->with_targets};
  const float *out = p->outputs + (size_t)i * p->model.n_outputs;
  if (wk_preprocess_target_kind(p->model.pre) == WK_TARGET_VALUE) {
    r.value = wk_preprocess_target_to_units(p->model.pre, (double)out[0]);
    r.target_value = wk_preprocess_target_to_units(p->model.pre, (double)p->values[i]);
    p->squared_error += (r.value - r.target_value) * (r.value - r.target_value);
    return r;
  }
  r.n_classes = BL_MAX(p->model.n_outputs, 2);
  r.probabilities = p->probabilities;
  r.target_label = p->labels[i];
  for (uint32_t k = 0; k < p->model.n_outputs; k++)
    p->probabilities[k] = (double)out[k];
  if (p->model.n_outputs == 1) {
    p->probabilities[1] = (double)out[0];
    p->probabilities[0] = 1 - p->probabilities[1];
    r.best = p->probabilities[1] >= 0.5;
  } else {
    for (uint32_t k = 1; k < r.n_classes; k++) {
      if (p->probabilities[k] > p->probabilities[r.best])
        r.best = k;
    }
  }
  p->correct += r.best == r.target_label;
  return r;
}

static bl_status forward_sparse(predictor *p, uint32_t n, bl_error *err) {
  uint32_t t = wk_sparse_tensor(p->model.table);
  bl_status status = wk_sparse_input_fetch(&p->sparse, &p->distinct, p->data, p->indices, n, err);
  if (status != BL_OK)
    return status;
  wk_sparse_input_fill(&p->sparse, &p->model.tables[t], &p->model.table->tensors[t], p->model.spec->seed);
  wk_model_forward_sparse(p->model.model, &p->sparse.x, n, NULL);
  if (p->with_targets) {
    memcpy(p->labels, p->sparse.labels, n * sizeof *p->labels);
    memcpy(p->values, p->sparse.values, n * sizeof *p->values);
  }
  return BL_OK;
}

static bl_status forward(predictor *p, uint32_t n, bl_error *err) {
  if (p->info.sparse)
    return forward_sparse(p, n, err);
  wk_dataset_fetch(p->data, p->indices, n, p->x, p->with_targets ? p->labels : NULL, p->with_targets ? p->values : NULL);
  wk_model_forward(p->model.model, p->x, n, NULL);
  return BL_OK;
}

static bl_status predict_all(predictor *p, FILE *out, bl_error *err) {
  for (uint64_t first = 0; first < p->info.n_samples; first += BATCH) {
    uint32_t n = (uint32_t)BL_MIN(p->info.n_samples - first, BATCH);
    for (uint32_t i = 0; i < n; i++)
      p->indices[i] = first + i;
    bl_status status = forward(p, n, err);
    if (status != BL_OK)
      return status;
    wk_model_predict(p->model.model, n, p->outputs);
    for (uint32_t i = 0; i < n; i++) {
      prediction r = predict_one(p, first, i);
      if (r.row == 0)
        formats[p->config->format].head(out, &r);
      formats[p->config->format].row(out, &r);
    }
  }
  return BL_OK;
}

bl_status wk_predict(const wk_predict_config *config, FILE *out, bl_error *err) {
  predictor p = {.config = config};
  bl_status status = wk_model_folder_read(config->model_dir, BATCH, &p.model, err);
  if (status == BL_OK)
    status = open_data(&p, err);
  if (status == BL_OK)
    status = allocate(&p, err);
  if (status == BL_OK)
    status = predict_all(&p, out, err);
  if (status == BL_OK && (fflush(out) != 0 || ferror(out)))
    status = bl_fail_errno(err, "cannot write the predictions");
  if (status == BL_OK && p.with_targets && p.info.n_samples > 0) {
    double n = (double)p.info.n_samples;
    if (wk_preprocess_target_kind(p.model.pre) == WK_TARGET_VALUE)
      fprintf(stderr, "%" PRIu64 " samples, mean squared error %.6g\n", p.info.n_samples, p.squared_error / n);
    else
      fprintf(stderr, "%" PRIu64 " samples, accuracy %.4f\n", p.info.n_samples, (double)p.correct / n);
  }
  finish(&p);
  return status;
}

/* ---- command line ------------------------------------------------------------------------------------- */

typedef struct predict_options {
  wk_predict_config config;
  const char *out;
  char *files[FILES_MAX]; /* absolute, owned */
} predict_options;

static const struct argp_option options[] = {
    {"model", 'm', "DIR", 0, "folder of a trained model", 0},
    {"kind", 'k', "idx|csv|libsvm|npy", 0, "what the files are (default: as the training data)", 0},
    {"format", 'f', "csv|json", 0, "what to write (default csv; json: one object per line)", 0},
    {"targets", 't', NULL, 0, "the files hold targets too: write them, and a summary to standard error", 0},
    {"out", 'o', "FILE", 0, "write there instead of to standard output", 0},
    {"predict", 'p', NULL, OPTION_HIDDEN, NULL, 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void add_file(predict_options *o, const char *file, struct argp_state *state) {
  char *here = getcwd(NULL, 0);
  if (o->config.n_files == FILES_MAX)
    argp_error(state, "more than %d files", FILES_MAX);
  if (here == NULL || bl_path_resolve(here, file, &o->files[o->config.n_files], NULL) != BL_OK)
    argp_failure(state, BL_EXIT_FAILED, errno, "%s", file);
  free(here);
  o->config.n_files++;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  predict_options *o = state->input;
  switch (key) {
  case 'm':
    o->config.model_dir = arg;
    return 0;
  case 'k':
    o->config.kind = arg;
    return 0;
  case 'f':
    o->config.format = strcmp(arg, "json") == 0 ? WK_PREDICT_JSON : WK_PREDICT_CSV;
    if (o->config.format == WK_PREDICT_CSV && strcmp(arg, "csv") != 0)
      argp_error(state, "format '%s' is none of csv, json", arg);
    return 0;
  case 't':
    o->config.with_targets = true;
    return 0;
  case 'o':
    o->out = arg;
    return 0;
  case 'p':
    return 0;
  case ARGP_KEY_ARG:
    add_file(o, arg, state);
    return 0;
  case ARGP_KEY_END:
    if (o->config.model_dir == NULL || o->config.n_files == 0)
      argp_error(state, "--model DIR and at least one file are needed");
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int wk_predict_main(int argc, char **argv) {
  static const struct argp argp = {options, parse, "--predict FILE...",
                                   "Applies a trained model to data files and writes one prediction per sample.",
                                   NULL, NULL, NULL};
  predict_options o = {.config = {.format = WK_PREDICT_CSV}, .out = NULL};
  argp_err_exit_status = BL_EXIT_USAGE;
  argp_parse(&argp, argc, argv, 0, NULL, &o);
  o.config.files = (const char *const *)o.files;
  bl_error err = BL_ERROR_INIT;
  bl_status status = BL_OK;
  FILE *out = stdout;
  if (o.out != NULL && (out = fopen(o.out, "w")) == NULL)
    status = bl_fail_errno(&err, "cannot write %s", o.out);
  if (status == BL_OK)
    status = wk_predict(&o.config, out, &err);
  if (out != NULL && out != stdout && fclose(out) != 0 && status == BL_OK)
    status = bl_fail_errno(&err, "cannot write %s", o.out);
  if (status != BL_OK)
    fprintf(stderr, "ballast-worker: %s\n", err.text);
  for (size_t i = 0; i < o.config.n_files; i++)
    bl_free(o.files[i]);
  return status == BL_OK ? BL_EXIT_OK : BL_EXIT_FAILED;
}
