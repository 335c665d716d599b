/* SPDX-License-Identifier: Apache-2.0
 *
 * What is measured beside loss and accuracy, and what the measurements decide.
 */
#include "base/num.h"
#include "base/str.h"
#include "job/spec_parts.h"
#include "job/tensors.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define TOP_PREFIX "top"
#define STOP_PATIENCE 3 /* as in the table */

/* clang-format off */
static const bl_word stop_modes[] = {{"auto", BL_STOP_AUTO}, {"min", BL_STOP_MIN}, {"max", BL_STOP_MAX}};

#define AT(member) .offset = offsetof(bl_job_spec, stop.member)

const bl_field bl_job_stop_fields[BL_JOB_N_STOP_FIELDS] = {
    {.name = "metric", .type = BL_FIELD_TEXT, AT(metric), .max = 64,
     .doc = "validation_loss, validation_accuracy ...: what has to get better. Left out: no early stopping."},
    {.name = "patience", .type = BL_FIELD_U32, AT(patience), .default_text = "3", .min = 1, .max = 1000000,
     .doc = "Epochs without a better one after which the job stops."},
    {.name = "min_delta", .type = BL_FIELD_DOUBLE, AT(min_delta), .default_text = "0", .real_max = 1e30,
     .doc = "Better by not more than this does not count."},
    {.name = "mode", .type = BL_FIELD_ENUM, AT(mode), .default_text = "auto", BL_WORDS(stop_modes),
     .doc = "min: lower is better; max: higher is; auto: min for loss, rmse and log_loss, max for the others."},
};
#define INIT_AT(member) .offset = offsetof(bl_job_spec, init.member)

const bl_field bl_job_init_fields[BL_JOB_N_INIT_FIELDS] = {
    {.name = "path", .type = BL_FIELD_TEXT, INIT_AT(path), .max = 4000, .doc = "A model folder, or a safetensors file."},
    {.name = "job", .type = BL_FIELD_U64, INIT_AT(job), .default_text = "0", .doc = "The output folder of this job of the cluster."},
    {.name = "resume", .type = BL_FIELD_BOOL, INIT_AT(resume), .default_text = "false",
     .doc = "Goes on where the training that wrote the folder stopped: epochs, order of the samples, schedule."},
};
/* clang-format on */

/* A path, or a mapping. */
void bl_job_read_init(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_init_spec *init = &((bl_job_spec *)r->base)->init;
  (void)f;
  if (node->kind == BL_NODE_MAP)
    bl_schema_read(r, bl_job_init_fields, BL_JOB_N_INIT_FIELDS, node);
  else
    bl_schema_read_value(r, &bl_job_init_fields[0], node);
  if (node->kind == BL_NODE_MAP && (init->path != NULL) == (init->job != 0))
    bl_conf_errors_add_field(r->errors, node, "write one of path and job");
}

void bl_job_write_init(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_init_spec *init = &((const bl_job_spec *)base)->init;
  (void)f;
  (void)indent;
  if (init->path == NULL && init->job == 0) {
    bl_buf_add_str(out, " null\n");
    return;
  }
  bl_buf_add_str(out, " ");
  bl_schema_dump_flow(bl_job_init_fields, BL_JOB_N_INIT_FIELDS, base, out);
  bl_buf_add_str(out, "\n");
}

/* Of a model whose shapes are right; 0 otherwise. */
static uint64_t classes_of(const bl_job_spec *spec) {
  uint64_t outputs = 0;
  bl_error ignored = BL_ERROR_INIT;
  if (spec->loss == 0 || spec->loss == BL_LOSS_SQUARED || spec->model.n_layers == 0 ||
      bl_model_output_size(&spec->model, &outputs, &ignored) != BL_OK)
    return 0;
  return spec->loss == BL_LOSS_SIGMOID_CROSS_ENTROPY ? 2 : outputs;
}

static void read_top(bl_conf_reader *r, const bl_node *node, const char *word, uint64_t classes) {
  bl_metrics_spec *m = &((bl_job_spec *)r->base)->measure;
  uint64_t k;
  if (bl_str_to_u64(word + strlen(TOP_PREFIX), &k) != BL_OK || k < 2 || k > BL_JOB_TOP_MAX)
    bl_conf_errors_add_field(r->errors, node, "'%.40s': behind top stands a number from 2 to %d, such as top5", word,
                             BL_JOB_TOP_MAX);
  else if (m->top_k != 0)
    bl_conf_errors_add_field(r->errors, node, "only one topK may be given, and top%u is there already", m->top_k);
  else if (classes != 0 && k >= classes)
    bl_conf_errors_add_field(r->errors, node, "%s: with %" PRIu64 " classes it would always be right", word, classes);
  else
    m->top_k = (uint32_t)k;
}

static void read_metric(bl_conf_reader *r, const bl_node *node, const char *word, uint64_t classes) {
  static const char *const words[] = {"top5", "auc", "log_loss", "confusion"};
  bl_metrics_spec *m = &((bl_job_spec *)r->base)->measure;
  char near[100];
  if (bl_str_has_prefix(word, TOP_PREFIX)) {
    read_top(r, node, word, classes);
  } else if (strcmp(word, "auc") == 0) {
    m->auc = true;
    if (classes != 0 && classes != 2)
      bl_conf_errors_add_field(r->errors, node, "auc needs two classes, this model has %" PRIu64, classes);
  } else if (strcmp(word, "log_loss") == 0) {
    m->log_loss = true;
  } else if (strcmp(word, "confusion") == 0) {
    m->confusion = true;
    if (classes > BL_JOB_CONFUSION_CLASSES_MAX)
      bl_conf_errors_add_field(r->errors, node, "a confusion matrix of %" PRIu64 " classes; the limit is %d", classes,
                               BL_JOB_CONFUSION_CLASSES_MAX);
  } else {
    bl_conf_errors_add_field(r->errors, node, "there is no metric '%.60s'%s (allowed: topK such as top5, auc, log_loss, confusion)",
                             word, bl_conf_nearest(word, words, BL_COUNT_OF(words), near, sizeof near));
  }
}

/* The words behind train_ and validation_ that the job measures. */
static bool is_measured(const bl_job_spec *spec, const char *name, bool on_train) {
  char top[16];
  bool classes = spec->loss != BL_LOSS_SQUARED;
  snprintf(top, sizeof top, TOP_PREFIX "%u", spec->measure.top_k);
  if (strcmp(name, "loss") == 0)
    return true;
  if (strcmp(name, classes ? "accuracy" : "rmse") == 0)
    return true;
  return !on_train && ((spec->measure.top_k > 0 && strcmp(name, top) == 0) || (spec->measure.auc && strcmp(name, "auc") == 0) ||
                       (spec->measure.log_loss && strcmp(name, "log_loss") == 0));
}

static void check_stop(bl_conf_reader *r, const bl_node *root) {
  bl_job_spec *spec = r->base;
  const bl_node *section = bl_node_get(root, "early_stopping"), *node = bl_node_find(root, "early_stopping.metric");
  const char *metric = spec->stop.metric, *name = metric != NULL ? strchr(metric, '_') : NULL;
  /* A dump writes the defaults of what is off. */
  bool is_default = spec->stop.patience == STOP_PATIENCE && spec->stop.min_delta == 0 && spec->stop.mode == BL_STOP_AUTO;
  if (section != NULL && metric == NULL && !is_default)
    bl_conf_errors_add_field(r->errors, section, "metric is missing: what has to get better, such as validation_loss");
  if (metric == NULL)
    return;
  bool on_train = bl_str_has_prefix(metric, "train_"), on_validation = bl_str_has_prefix(metric, "validation_");
  if (bl_str_has_prefix(metric, "test_"))
    bl_conf_errors_add_field(r->errors, node, "the test set is there to judge the finished model; hold out data.validation for this");
  else if ((!on_train && !on_validation) || (spec->loss != 0 && !is_measured(spec, name + 1, on_train)))
    bl_conf_errors_add_field(r->errors, node,
                             "'%.60s' is not measured (allowed: validation_loss, validation_%s, train_loss ..., and with "
                             "validation_ before it what 'metrics' asks for)",
                             metric, spec->loss == BL_LOSS_SQUARED ? "rmse" : "accuracy");
  else if (on_validation && !(spec->data.validation > 0) && !spec->data.progressive)
    bl_conf_errors_add_field(r->errors, node, "nothing is held out: set data.validation, such as 10 %%");
  if (spec->sync != NULL && !bl_sync_in_step(spec->sync))
    bl_conf_errors_add_field(r->errors, node, "with 'sync: %s' the ranks are never at the end of an epoch together; use bsp",
                             spec->sync);
  bool lower = name != NULL && (strcmp(name, "_loss") == 0 || strcmp(name, "_rmse") == 0 || strcmp(name, "_log_loss") == 0);
  if (spec->stop.mode == BL_STOP_AUTO)
    spec->stop.mode = lower ? BL_STOP_MIN : BL_STOP_MAX;
}

void bl_job_train_finish(bl_conf_reader *r, const bl_node *root) {
  bl_job_spec *spec = r->base;
  const bl_node *metrics = bl_node_get(root, "metrics");
  uint64_t classes = classes_of(spec);
  if (spec->n_metrics > 0 && spec->loss == BL_LOSS_SQUARED) {
    bl_conf_errors_add_field(r->errors, metrics, "with the loss squared there are no classes: loss and rmse are what is measured");
    spec->n_metrics = 0;
  }
  for (size_t i = 0; i < spec->n_metrics; i++)
    read_metric(r, metrics, spec->metrics[i], classes);
  check_stop(r, root);
  if (spec->save_every > 0 && spec->output == NULL)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "save_every"), "there is no folder to save to: set output");
}
