/* SPDX-License-Identifier: Apache-2.0
 *
 * A toy in place of training: its gradient is a pure function of (weights, rank, clock), so that every run of a
 * plan has one right result, whatever happens on the way.
 */
#ifndef TESTS_TOY_H
#define TESTS_TOY_H

#include "job/plan.h"

#define TOY_RANKS_MAX 8

/* Of one tensor of n elements: w -> g. w NULL: a gradient that does not depend on the weights. */
void toy_gradient(const Ballast__Control__JobPlan *plan, uint32_t tensor, uint64_t n, uint32_t rank,
                  uint64_t clock, const float *w, float *g);
/* Which rows of a table a rank touches in a clock, rising: about a fifth, in some clocks none. [rows] -> n */
uint32_t toy_rows(const Ballast__Control__JobPlan *plan, uint32_t tensor, const bl_tensor *t, uint32_t rank,
                  uint64_t clock, uint64_t *rows);
/* The gradient of n rows; w, g: [n, width]. */
void toy_row_gradient(const Ballast__Control__JobPlan *plan, uint32_t tensor, uint64_t width, const uint64_t *rows,
                      uint32_t n, uint32_t rank, uint64_t clock, const float *w, float *g);
/* What a rank says in its commit, for clip_norm. n_elems: of each gradient. */
float toy_scale(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, float *const *grads,
                const uint64_t *n_elems);
uint64_t toy_checksum(const bl_tensor_table *t, float *const *w);
/* How far w is, at most, from initial values - rate * (sum of all gradients - left) (those without weights; rule sgd).
 * clocks: of each rank; NULL: the plan's. left: what ranks still hold back, per tensor; NULL: nothing. */
double toy_distance(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, const uint64_t *clocks,
                    float *const *w, const double *const *left);
/* Initial values that rank 0 brings, where the plan says so; they are not those of the seed. */
void toy_initial(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, float *const *w);
/* Checksum of the weights at the end of the plan; of their average where the plan has one. */
uint64_t toy_reference(const Ballast__Control__JobPlan *plan, uint64_t clocks);

#endif
