/* SPDX-License-Identifier: Apache-2.0
 *
 * What is counted over the samples of a rank beside loss and accuracy: top-k hits, scores per bucket (AUC), the
 * confusion matrix. All are counts, so those of many ranks are added without loss. Threads: one.
 */
#ifndef WK_TRAIN_MEASURES_H
#define WK_TRAIN_MEASURES_H

#include "job/spec.h"

typedef struct wk_measures {
  bl_metrics_spec spec;
  uint32_t n_outputs, n_classes;
  uint64_t n_top;                /* samples whose label is among the top_k outputs; ties go to the lower class */
  uint64_t *positive, *negative; /* [BL_AUC_BUCKETS] samples of class 1 and 0 by score; owned, NULL: not asked for */
  uint64_t *confusion;           /* [n_classes * n_classes]: row = true class, column = predicted; owned, or NULL */
} wk_measures;

BL_MUST_CHECK bl_status wk_measures_init(wk_measures *m, const bl_metrics_spec *spec, uint32_t n_outputs,
                                         uint32_t n_classes, bl_error *err);
void wk_measures_fini(wk_measures *m);
void wk_measures_clear(wk_measures *m);

/* z: [n, n_outputs] outputs before softmax or sigmoid, labels: [n] below n_classes. */
void wk_measures_add(wk_measures *m, const float *z, const uint32_t *labels, uint32_t n);

#endif
