/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/stopping.h"

#include <math.h>
#include <string.h>

bool co_stopping_is_asked(const bl_job_spec *spec) { return spec->stop.metric != NULL; }

static double loss_of(const co_metrics *m) { return m->loss_sum / (double)m->n; }
static double accuracy_of(const co_metrics *m) { return (double)m->correct / (double)m->n; }
static double rmse_of(const co_metrics *m) { return sqrt(m->squared_error_sum / (double)m->n); }

static double value_of(const bl_job_spec *spec, const co_metrics *m, const char *name) {
  static const struct {
    const char *name;
    double (*of)(const co_metrics *m);
  } always[] = {{"loss", loss_of}, {"accuracy", accuracy_of}, {"rmse", rmse_of}};
  co_metric_value asked[CO_METRIC_NAMES_MAX];
  if (m->n == 0)
    return NAN;
  for (size_t i = 0; i < BL_COUNT_OF(always); i++)
    if (strcmp(always[i].name, name) == 0)
      return always[i].of(m);
  for (size_t i = 0, n = co_metrics_values(spec, m, asked); i < n; i++)
    if (strcmp(asked[i].name, name) == 0)
      return asked[i].value;
  return NAN;
}

static bool is_better(const co_stopping *s, const bl_stop_spec *stop, double value) {
  if (isnan(value))
    return false;
  if (s->best_epoch == 0)
    return true;
  return stop->mode == BL_STOP_MAX ? value - stop->min_delta > s->best_value : value + stop->min_delta < s->best_value;
}

void co_stopping_judge(co_stopping *s, const bl_job_spec *spec, uint32_t epoch, uint32_t first_epoch,
                       const co_metrics *train, const co_metrics *validation) {
  s->n_seen = epoch;
  if (epoch < first_epoch || s->stop_epoch != 0)
    return;
  bool on_train = strncmp(spec->stop.metric, "train_", 6) == 0;
  double value = value_of(spec, on_train ? train : validation, strchr(spec->stop.metric, '_') + 1);
  if (is_better(s, &spec->stop, value)) {
    s->best_epoch = epoch;
    s->best_value = value;
  }
  uint32_t since = s->best_epoch > 0 ? s->best_epoch : first_epoch - 1;
  if (epoch - since >= spec->stop.patience)
    s->stop_epoch = epoch;
}
