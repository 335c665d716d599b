/* SPDX-License-Identifier: Apache-2.0
 *
 * Metrics over the ranks: sums taken in rank order, and what becomes of the counts of an epoch when all are in. Pure;
 * one thread.
 */
#ifndef CO_METRICS_H
#define CO_METRICS_H

#include "job/spec.h"
#include "wire/control.h"

/* A sparse list of counts, by number rising. */
typedef struct co_counts {
  uint32_t *at;     /* owned [n] */
  uint64_t *a, *b;  /* owned [n]; b NULL for lists of one count */
  size_t n;
} co_counts;

typedef struct co_metrics {
  uint64_t n, correct, top;
  double loss_sum, squared_error_sum;
  co_counts scores;    /* per bucket: a positive, b negative samples; until closed */
  co_counts confusion; /* per cell: a */
  bool has_auc;
  double auc, auc_error; /* once closed */
} co_metrics;

/* m may be NULL: nothing. BL_ENOMEM: counts are left out, the rest is there. */
BL_MUST_CHECK bl_status co_metrics_from(const Ballast__Control__Metrics *m, co_metrics *ret_metrics);
/* BL_ENOMEM: the counts of *sum are as before, the rest is added. */
BL_MUST_CHECK bl_status co_metrics_add(co_metrics *sum, const co_metrics *m);
/* The scores become the AUC and are freed. */
void co_metrics_close(co_metrics *m);
void co_metrics_drop_confusion(co_metrics *m);
void co_metrics_fini(co_metrics *m);

/* The numbers that the job asks for, beside loss, accuracy and rmse: name as in JSON and CSV behind "test_". */
#define CO_METRIC_NAMES_MAX 4
typedef struct co_metric_value {
  char name[16];
  double value; /* NaN: not known */
} co_metric_value;
/* Returns how many; their names depend on the job alone. */
size_t co_metrics_values(const bl_job_spec *spec, const co_metrics *m, co_metric_value out[CO_METRIC_NAMES_MAX]);

#endif
