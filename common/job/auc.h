/* SPDX-License-Identifier: Apache-2.0
 *
 * Area under the ROC curve that many parties can count together: scores fall into 65536 buckets in their order, the top
 * 16 bits of the float32, and only counts per bucket travel. Pure; any thread.
 *
 * AUC = (pairs of a positive and a negative sample with the higher score on the positive + half of the ties) / pairs
 * (Mann and Whitney, "On a test of whether one of two random variables is stochastically larger than the other", Annals
 * of Mathematical Statistics 18, 1947). Two scores in one bucket count as a tie, so what is computed differs from the
 * exact value by at most half the share of the pairs that lie within a bucket: that bound comes with it. A bucket is as
 * wide as 2^-7 of the score's size.
 */
#ifndef BL_JOB_AUC_H
#define BL_JOB_AUC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BL_AUC_BUCKETS 65536u

/* A greater score never has a smaller bucket; NaN has the last. */
uint32_t bl_auc_bucket(float score);

/* Counts of n buckets, by number rising. False without a positive or without a negative sample. */
bool bl_auc_from_counts(const uint64_t *positive, const uint64_t *negative, size_t n, double *ret_auc, double *ret_error);

#endif
