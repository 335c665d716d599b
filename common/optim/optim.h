/* SPDX-License-Identifier: Apache-2.0
 *
 * Update rules and learning-rate schedules: what a shard does with an aggregated gradient.
 *
 * Registry: one row and one file per rule. A rule's state is `n_slots` float32 arrays of the chunk's size,
 * zero at the start; everything else a step needs is a pure function of the clock, so the state of an
 * optimizer is exactly its arrays (they are logged, snapshotted and replicated as such).
 * Threads: any; no allocation in step.
 */
#ifndef BL_OPTIM_OPTIM_H
#define BL_OPTIM_OPTIM_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define BL_OPTIM_SLOTS_MAX 4
#define BL_OPTIM_PARAMS_MAX 16

typedef struct bl_param {
  const char *key;
  double value;
} bl_param;

/* One parameter that a rule accepts: for the job-file schema, its documentation and its checks. */
typedef struct bl_param_info {
  const char *key;
  double default_value;
  double min, max;
  bool min_open; /* min itself is not allowed */
  const char *doc;
} bl_param_info;

typedef struct bl_optim_step_args {
  double lr;            /* after the schedule and the group's factor */
  uint64_t step;        /* 1 for the first update */
  double weight_decay;  /* what holds for these weights; 0: none, also for a rule without the parameter */
  const double *params; /* [n_params] in the order of the rule's table */
} bl_optim_step_args;

typedef struct bl_optim_rule {
  const char *name; /* "sgd", "momentum", "adam", ... */
  const char *doc;
  const bl_param_info *params; /* params[0] is always lr */
  size_t n_params;
  uint32_t n_slots;
  bool no_schedule; /* only a constant rate means anything */
  bool needs_chunk; /* norms over what is passed together: not for parts of a chunk, nor rows gathered from one */
  /* w, g, slots[i]: [n]; w and slots are updated in place, g is read only. */
  void (*step)(float *w, const float *g, float *const *slots, size_t n, const bl_optim_step_args *args);
} bl_optim_rule;

const bl_optim_rule *bl_optim_rule_by_name(const char *name);
const bl_optim_rule *bl_optim_rule_at(size_t i);

typedef struct bl_schedule_rule {
  const char *name; /* "constant", "step", "exponential", "linear", "cosine", "one_cycle", ... */
  const char *doc;
  const bl_param_info *params; /* params[0] is always warmup */
  size_t n_params;
  /* Factor on the base rate at a clock (0-based) out of n_clocks. */
  double (*factor)(uint64_t clock, uint64_t n_clocks, const double *params);
} bl_schedule_rule;

const bl_schedule_rule *bl_schedule_rule_by_name(const char *name);
const bl_schedule_rule *bl_schedule_rule_at(size_t i);

/* params: of the schedule, in the order of its table. False only for a rule with no_schedule. */
bool bl_optim_takes_schedule(const bl_optim_rule *rule, const bl_schedule_rule *schedule, const double *params);

/* A configured optimizer: rule + schedule + numbers; a plain value without pointers to owned memory. */
typedef struct bl_optim {
  const bl_optim_rule *rule;
  double params[BL_OPTIM_PARAMS_MAX];
  const bl_schedule_rule *schedule;
  double schedule_params[BL_OPTIM_PARAMS_MAX];
  uint64_t n_clocks;
} bl_optim;

/* Unknown rule or key, value out of range: BL_EINVAL, the text names it, what is allowed, and the nearest
 * right name. Parameters not given take their defaults. schedule may be NULL: constant. */
BL_MUST_CHECK bl_status bl_optim_init(bl_optim *o, const char *rule, const bl_param *params, size_t n_params,
                                      const char *schedule, const bl_param *schedule_params,
                                      size_t n_schedule_params, uint64_t n_clocks, bl_error *err);

#define BL_OPTIM_DECAY_OF_RULE (-1.0)

/* Which update it is, and what holds for the weights that it is about. */
typedef struct bl_optim_at {
  uint64_t clock;      /* place in the schedule, from 0; whole, as the powers of the schedules are products */
  uint64_t step;       /* 1 for the first update of these weights: what bias corrections count */
  double lr_scale;     /* factor of a parameter group on the rate */
  double weight_decay; /* of a parameter group, in place of the rule's; below 0: the rule's own */
} bl_optim_at;

/* One update per clock, no group: what BSP does with a tensor that decays (or not). */
static inline bl_optim_at bl_optim_at_clock(uint64_t clock, bool no_decay) {
  return (bl_optim_at){clock, clock + 1, 1.0, no_decay ? 0.0 : BL_OPTIM_DECAY_OF_RULE};
}

/* One update of n weights: a chunk, or rows of a table gathered. Shapes: w, g, slots[i]: [n], any alignment, n may
 * be 0. */
void bl_optim_step(const bl_optim *o, const bl_optim_at *at, float *w, const float *g, float *const *slots, size_t n);

/* Exponential moving average of weights: y += part * (w - y) with the kernel `average`, step = 1 for the first update.
 * y begins at 0 and is corrected for that, as a mean of the moments is in Adam: after t updates it is the sum of
 * (1 - decay) decay^(t - i) w_i over i = 1 .. t, divided by 1 - decay^t; so y = w_1 after the first.
 * Source: Kingma and Ba, "Adam", ICLR 2015, section 7.2 (temporal averaging). Range: 0 <= decay < 1. */
float bl_average_part(double decay, uint64_t step);

#endif
