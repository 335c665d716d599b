/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/metrics.h"

#include "base/alloc.h"
#include "job/auc.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void counts_fini(co_counts *c) {
  bl_free(c->at);
  bl_free(c->a);
  bl_free(c->b);
  *c = (co_counts){0};
}

static bl_status counts_new(size_t n, bool two, co_counts *ret_counts) {
  co_counts c = {bl_calloc(n, sizeof *c.at), bl_calloc(n, sizeof *c.a), two ? bl_calloc(n, sizeof *c.b) : NULL, n};
  if (c.at == NULL || c.a == NULL || (two && c.b == NULL)) {
    counts_fini(&c);
    return BL_ENOMEM;
  }
  *ret_counts = c;
  return BL_OK;
}

/* n 0: nothing. b NULL: lists of one count. */
static bl_status counts_copy(const uint32_t *at, const uint64_t *a, const uint64_t *b, size_t n, co_counts *ret_counts) {
  if (n == 0)
    return BL_OK;
  bl_status status = counts_new(n, b != NULL, ret_counts);
  if (status != BL_OK)
    return status;
  memcpy(ret_counts->at, at, n * sizeof *at);
  memcpy(ret_counts->a, a, n * sizeof *a);
  if (b != NULL)
    memcpy(ret_counts->b, b, n * sizeof *b);
  return BL_OK;
}

/* Merges two rising lists. */
static bl_status counts_add(co_counts *sum, const co_counts *c) {
  co_counts merged = {0};
  if (c->n == 0)
    return BL_OK;
  bl_status status = counts_new(sum->n + c->n, c->b != NULL, &merged);
  if (status != BL_OK)
    return status;
  size_t i = 0, j = 0, k = 0;
  for (; i < sum->n || j < c->n; k++) {
    bool left = i < sum->n && (j == c->n || sum->at[i] <= c->at[j]), right = j < c->n && (i == sum->n || c->at[j] <= sum->at[i]);
    merged.at[k] = left ? sum->at[i] : c->at[j];
    merged.a[k] = (left ? sum->a[i] : 0) + (right ? c->a[j] : 0);
    if (merged.b != NULL)
      merged.b[k] = (left ? sum->b[i] : 0) + (right ? c->b[j] : 0);
    i += left;
    j += right;
  }
  merged.n = k;
  counts_fini(sum);
  *sum = merged;
  return BL_OK;
}

bl_status co_metrics_from(const Ballast__Control__Metrics *m, co_metrics *ret_metrics) {
  *ret_metrics = (co_metrics){0};
  if (m == NULL)
    return BL_OK;
  ret_metrics->n = m->n;
  ret_metrics->correct = m->correct;
  ret_metrics->top = m->top;
  ret_metrics->loss_sum = m->loss_sum;
  ret_metrics->squared_error_sum = m->squared_error_sum;
  bl_status status = counts_copy(m->auc_buckets, m->auc_positive, m->auc_negative, m->n_auc_buckets, &ret_metrics->scores);
  if (status == BL_OK)
    status = counts_copy(m->confusion_cells, m->confusion_counts, NULL, m->n_confusion_cells, &ret_metrics->confusion);
  return status;
}

bl_status co_metrics_add(co_metrics *sum, const co_metrics *m) {
  sum->n += m->n;
  sum->correct += m->correct;
  sum->top += m->top;
  sum->loss_sum += m->loss_sum;
  sum->squared_error_sum += m->squared_error_sum;
  bl_status status = counts_add(&sum->scores, &m->scores);
  return status == BL_OK ? counts_add(&sum->confusion, &m->confusion) : status;
}

void co_metrics_close(co_metrics *m) {
  if (m->scores.n == 0)
    return;
  m->has_auc = bl_auc_from_counts(m->scores.a, m->scores.b, m->scores.n, &m->auc, &m->auc_error);
  counts_fini(&m->scores);
}

void co_metrics_drop_confusion(co_metrics *m) { counts_fini(&m->confusion); }

void co_metrics_fini(co_metrics *m) {
  counts_fini(&m->scores);
  counts_fini(&m->confusion);
}

size_t co_metrics_values(const bl_job_spec *spec, const co_metrics *m, co_metric_value out[CO_METRIC_NAMES_MAX]) {
  const bl_metrics_spec *asked = &spec->measure;
  double n = (double)m->n;
  size_t k = 0;
  if (asked->top_k > 0) {
    snprintf(out[k].name, sizeof out[k].name, "top%u", asked->top_k);
    out[k++].value = m->n > 0 ? (double)m->top / n : NAN;
  }
  if (asked->auc) {
    out[k++] = (co_metric_value){"auc", m->has_auc ? m->auc : NAN};
    out[k++] = (co_metric_value){"auc_error", m->has_auc ? m->auc_error : NAN};
  }
  if (asked->log_loss)
    out[k++] = (co_metric_value){"log_loss", m->n > 0 ? m->loss_sum / n : NAN};
  return k;
}
