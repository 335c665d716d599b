/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics_message.h"

#include "base/alloc.h"
#include "base/log.h"
#include "job/auc.h"

static size_t count_used(const uint64_t *a, const uint64_t *b, size_t n) {
  size_t used = 0;
  for (size_t i = 0; i < n; i++)
    used += a[i] != 0 || (b != NULL && b[i] != 0);
  return used;
}

/* The entries of a (and b) that are not zero in one of them, with their numbers. b may be NULL. False: no memory. */
static bool make_sparse(const uint64_t *a, const uint64_t *b, size_t n, uint32_t **ret_at, uint64_t **ret_a, uint64_t **ret_b,
                        size_t *ret_n) {
  size_t used = count_used(a, b, n), k = 0;
  uint32_t *at = bl_calloc(used + 1, sizeof *at);
  uint64_t *to_a = bl_calloc(used + 1, sizeof *to_a), *to_b = bl_calloc(used + 1, sizeof *to_b);
  if (at == NULL || to_a == NULL || to_b == NULL) {
    bl_free(at);
    bl_free(to_a);
    bl_free(to_b);
    return false;
  }
  for (size_t i = 0; i < n; i++) {
    if (a[i] == 0 && (b == NULL || b[i] == 0))
      continue;
    at[k] = (uint32_t)i;
    to_a[k] = a[i];
    to_b[k++] = b != NULL ? b[i] : 0;
  }
  *ret_at = at;
  *ret_a = to_a;
  *ret_b = to_b;
  *ret_n = used;
  return true;
}

static void add_auc(Ballast__Control__Metrics *m, const wk_measures *more) {
  size_t n;
  if (!make_sparse(more->positive, more->negative, BL_AUC_BUCKETS, &m->auc_buckets, &m->auc_positive, &m->auc_negative, &n))
    bl_log_warning("metric_left_out", "metric=auc reason=memory");
  else
    m->n_auc_buckets = m->n_auc_positive = m->n_auc_negative = n;
}

static void add_confusion(Ballast__Control__Metrics *m, const wk_measures *more) {
  size_t n, cells = (size_t)more->n_classes * more->n_classes;
  uint64_t *none;
  if (!make_sparse(more->confusion, NULL, cells, &m->confusion_cells, &m->confusion_counts, &none, &n)) {
    bl_log_warning("metric_left_out", "metric=confusion reason=memory");
    return;
  }
  bl_free(none);
  m->n_confusion_cells = m->n_confusion_counts = n;
}

void wk_metrics_message_init(wk_metrics_message *mm, const wk_metrics *from, bool with_lists) {
  Ballast__Control__Metrics *m = &mm->m;
  ballast__control__metrics__init(m);
  m->n = from->n;
  m->loss_sum = from->loss_sum;
  m->correct = from->correct;
  m->squared_error_sum = from->squared_error_sum;
  if (from->more == NULL)
    return;
  m->top = from->more->n_top;
  if (with_lists && from->more->positive != NULL)
    add_auc(m, from->more);
  if (with_lists && from->more->confusion != NULL)
    add_confusion(m, from->more);
}

void wk_metrics_message_fini(wk_metrics_message *mm) {
  bl_free(mm->m.auc_buckets);
  bl_free(mm->m.auc_positive);
  bl_free(mm->m.auc_negative);
  bl_free(mm->m.confusion_cells);
  bl_free(mm->m.confusion_counts);
}
