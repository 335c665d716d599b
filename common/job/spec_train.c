/* SPDX-License-Identifier: Apache-2.0
 *
 * What is measured beside loss and accuracy, and what the measurements decide.
 */
#include "base/num.h"
#include "base/str.h"
#include "job/spec_parts.h"
#include "job/tensors.h"

#include <inttypes.h>
#include <string.h>

#define TOP_PREFIX "top"

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

void bl_job_train_finish(bl_conf_reader *r, const bl_node *root) {
  bl_job_spec *spec = r->base;
  const bl_node *metrics = bl_node_get(root, "metrics");
  uint64_t classes = classes_of(spec);
  if (spec->n_metrics > 0 && spec->loss == BL_LOSS_SQUARED) {
    bl_conf_errors_add_field(r->errors, metrics, "with the loss squared there are no classes: loss and rmse are what is measured");
    return;
  }
  for (size_t i = 0; i < spec->n_metrics; i++)
    read_metric(r, metrics, spec->metrics[i], classes);
}
