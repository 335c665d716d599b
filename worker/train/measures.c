/* SPDX-License-Identifier: Apache-2.0 */
#include "train/measures.h"

#include "base/alloc.h"
#include "job/auc.h"

#include <string.h>

bl_status wk_measures_init(wk_measures *m, const bl_metrics_spec *spec, uint32_t n_outputs, uint32_t n_classes,
                           bl_error *err) {
  *m = (wk_measures){.spec = *spec, .n_outputs = n_outputs, .n_classes = n_classes};
  if (spec->auc) {
    m->positive = bl_calloc(BL_AUC_BUCKETS, sizeof *m->positive);
    m->negative = bl_calloc(BL_AUC_BUCKETS, sizeof *m->negative);
  }
  if (spec->confusion)
    m->confusion = bl_calloc((size_t)n_classes * n_classes, sizeof *m->confusion);
  if ((!spec->auc || (m->positive != NULL && m->negative != NULL)) && (!spec->confusion || m->confusion != NULL))
    return BL_OK;
  wk_measures_fini(m);
  return bl_fail(err, BL_ENOMEM, "no memory to measure auc or confusion");
}

void wk_measures_fini(wk_measures *m) {
  bl_free(m->positive);
  bl_free(m->negative);
  bl_free(m->confusion);
  m->positive = m->negative = m->confusion = NULL;
}

void wk_measures_clear(wk_measures *m) {
  m->n_top = 0;
  if (m->positive != NULL) {
    memset(m->positive, 0, BL_AUC_BUCKETS * sizeof *m->positive);
    memset(m->negative, 0, BL_AUC_BUCKETS * sizeof *m->negative);
  }
  if (m->confusion != NULL)
    memset(m->confusion, 0, (size_t)m->n_classes * m->n_classes * sizeof *m->confusion);
}

/* How many outputs come before the label's: greater ones, and equal ones of lower classes, as argmax decides. */
static uint32_t place_of(const float *z, uint32_t n, uint32_t label) {
  uint32_t before = 0;
  if (z[label] != z[label])
    return n;
  for (uint32_t j = 0; j < n; j++)
    before += z[j] > z[label] || (z[j] == z[label] && j < label);
  return before;
}

static uint32_t predicted(const float *z, uint32_t n) {
  uint32_t best = 0;
  if (n == 1)
    return z[0] >= 0.0f;
  for (uint32_t j = 1; j < n; j++)
    if (z[j] > z[best])
      best = j;
  return best;
}

void wk_measures_add(wk_measures *m, const float *z, const uint32_t *labels, uint32_t n) {
  for (uint32_t i = 0; i < n; i++, z += m->n_outputs) {
    uint32_t label = labels[i];
    if (m->spec.top_k > 0)
      m->n_top += place_of(z, m->n_outputs, label) < m->spec.top_k;
    if (m->positive != NULL) {
      /* Two outputs: the difference orders samples as the probability of class 1 does. */
      uint32_t bucket = bl_auc_bucket(m->n_outputs == 1 ? z[0] : z[1] - z[0]);
      (label == 1 ? m->positive : m->negative)[bucket]++;
    }
    if (m->confusion != NULL)
      m->confusion[(size_t)label * m->n_classes + predicted(z, m->n_outputs)]++;
  }
}
