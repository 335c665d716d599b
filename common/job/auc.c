/* SPDX-License-Identifier: Apache-2.0 */
#include "job/auc.h"

#include <string.h>

uint32_t bl_auc_bucket(float score) {
  uint32_t bits;
  if (score != score)
    return BL_AUC_BUCKETS - 1;
  score += 0.0f; /* -0 becomes 0: the same score */
  memcpy(&bits, &score, sizeof bits);
  /* Of negative numbers the greater magnitude is the smaller number. */
  bits = (bits >> 31) != 0 ? ~bits : bits | UINT32_C(0x80000000);
  return bits >> 16;
}

bool bl_auc_from_counts(const uint64_t *positive, const uint64_t *negative, size_t n, double *ret_auc, double *ret_error) {
  double below = 0, right = 0, tied = 0, positives = 0;
  for (size_t i = 0; i < n; i++) {
    double p = (double)positive[i], q = (double)negative[i];
    right += p * below;
    tied += p * q;
    below += q;
    positives += p;
  }
  double pairs = positives * below;
  if (!(pairs > 0))
    return false;
  *ret_auc = (right + tied / 2) / pairs;
  *ret_error = tied / 2 / pairs;
  return true;
}
