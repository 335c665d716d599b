/* SPDX-License-Identifier: Apache-2.0
 *
 * Learning-rate schedules: pure functions of the clock, so that a replaced server or a resumed job has the
 * same rate without any state. One row and one function per rule. Nothing here calls libm: every machine
 * gets the same bits.
 *
 * Every rule starts with a linear warm-up over `warmup` clocks, 1/warmup at clock 0; the rule's own shape
 * runs over the clocks behind it.
 */
#include "optim/rules.h"

#include <string.h>

enum { WARMUP, FIRST };

#define CLOCKS_MAX 1e12
#define WARMUP_INFO                                                                                                   \
  [WARMUP] = {"warmup", 0, 0, CLOCKS_MAX, false, "clocks during which the rate rises linearly to the base rate"}

static uint64_t warmup_clocks(const double *params) { return (uint64_t)params[WARMUP]; }

/* Where the shape behind the warm-up stands, 0 to 1. */
static double progress(uint64_t clock, uint64_t n_clocks, const double *params) {
  uint64_t first = warmup_clocks(params);
  if (clock >= n_clocks || first >= n_clocks)
    return 1.0;
  return (double)(clock - first) / (double)(n_clocks - first);
}

/* The shapes: only called behind the warm-up. */
static double constant_shape(uint64_t clock, uint64_t n_clocks, const double *params) { return 1.0; }

enum { STEP_EVERY = FIRST, STEP_GAMMA };

static double step_shape(uint64_t clock, uint64_t n_clocks, const double *params) {
  return bl_optim_power(params[STEP_GAMMA], (clock - warmup_clocks(params)) / (uint64_t)params[STEP_EVERY]);
}

enum { EXPONENTIAL_GAMMA = FIRST };

static double exponential_shape(uint64_t clock, uint64_t n_clocks, const double *params) {
  return bl_optim_power(params[EXPONENTIAL_GAMMA], clock - warmup_clocks(params));
}

enum { LINEAR_END = FIRST };

static double linear_shape(uint64_t clock, uint64_t n_clocks, const double *params) {
  return 1.0 + (params[LINEAR_END] - 1.0) * progress(clock, n_clocks, params);
}

/* cos(pi p) for p in [0, 1]: Taylor to x^20 on the first quarter, whose error is below 1e-16, and its mirror. */
static double half_turn_cosine(double p) {
  double x = 3.14159265358979323846 * (p > 0.5 ? 1.0 - p : p), sum = 1.0;
  for (int k = 20; k >= 2; k -= 2)
    sum = 1.0 - x * x / (double)(k * (k - 1)) * sum;
  return p > 0.5 ? -sum : sum;
}

enum { COSINE_END = FIRST };

/* Source: Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, one period. */
static double cosine_shape(uint64_t clock, uint64_t n_clocks, const double *params) {
  double end = params[COSINE_END];
  return end + (1.0 - end) * (1.0 + half_turn_cosine(progress(clock, n_clocks, params))) / 2.0;
}

enum { CYCLE_RISE = FIRST, CYCLE_START, CYCLE_END };

/* One cycle in two legs: from `start` up to the base rate during the first `rise` of the clocks, then down to `end`.
 * Source: Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates",
 * 2018, section 3, where both legs are straight and a last short leg falls on to almost 0; here the second leg does
 * both. Half cosines instead of lines are the form that the fast.ai library made common. The rate alone
 * cycles: momentum stays. `bend` says how far along a leg is, of its length. */
static double cycle(double p, const double *params, double (*bend)(double part)) {
  double rise = params[CYCLE_RISE], start = params[CYCLE_START], end = params[CYCLE_END];
  if (p < rise)
    return start + (1.0 - start) * bend(p / rise);
  return 1.0 + (end - 1.0) * bend((p - rise) / (1.0 - rise));
}

static double half_cosine(double part) { return (1.0 - half_turn_cosine(part)) / 2.0; }
static double straight(double part) { return part; }

static double one_cycle_shape(uint64_t clock, uint64_t n_clocks, const double *params) {
  return cycle(progress(clock, n_clocks, params), params, half_cosine);
}

static double one_cycle_linear_shape(uint64_t clock, uint64_t n_clocks, const double *params) {
  return cycle(progress(clock, n_clocks, params), params, straight);
}

typedef double (*shape_fn)(uint64_t clock, uint64_t n_clocks, const double *params);

static double with_warmup(shape_fn shape, uint64_t clock, uint64_t n_clocks, const double *params) {
  uint64_t first = warmup_clocks(params);
  if (clock < first)
    return (double)(clock + 1) / (double)first;
  return shape(clock, n_clocks, params);
}

#define DEFINE_FACTOR(rule)                                                                                           \
  static double rule##_factor(uint64_t clock, uint64_t n_clocks, const double *params) {                             \
    return with_warmup(rule##_shape, clock, n_clocks, params);                                                        \
  }
DEFINE_FACTOR(constant)
DEFINE_FACTOR(step)
DEFINE_FACTOR(exponential)
DEFINE_FACTOR(linear)
DEFINE_FACTOR(cosine)
DEFINE_FACTOR(one_cycle)
DEFINE_FACTOR(one_cycle_linear)
#undef DEFINE_FACTOR

static const bl_param_info constant_params[] = {WARMUP_INFO};
static const bl_param_info step_params[] = {
    WARMUP_INFO,
    [STEP_EVERY] = {"every", 1000, 1, CLOCKS_MAX, false, "clocks between two steps"},
    [STEP_GAMMA] = {"gamma", 0.1, 0, 1, true, "the rate is multiplied by this at each step"},
};
static const bl_param_info exponential_params[] = {
    WARMUP_INFO,
    [EXPONENTIAL_GAMMA] = {"gamma", 0.999, 0, 1, true, "the rate is multiplied by this at each clock"},
};
static const bl_param_info linear_params[] = {
    WARMUP_INFO,
    [LINEAR_END] = {"end", 0, 0, 1, false, "factor that the rate reaches behind the last clock"},
};
static const bl_param_info cosine_params[] = {
    WARMUP_INFO,
    [COSINE_END] = {"end", 0, 0, 1, false, "factor that the rate reaches behind the last clock"},
};

#define CYCLE_INFOS                                                                                                   \
  WARMUP_INFO, [CYCLE_RISE] = {"rise", 0.3, 0, 0.999, false, "part of the clocks during which the rate rises"},     \
               [CYCLE_START] = {"start", 0.04, 0, 1, false, "factor at the first clock"},                            \
               [CYCLE_END] = {"end", 4e-6, 0, 1, false, "factor that the rate reaches behind the last clock"}
static const bl_param_info one_cycle_params[] = {CYCLE_INFOS};
static const bl_param_info one_cycle_linear_params[] = {CYCLE_INFOS};

#define ROW(rule, text) {#rule, text, rule##_params, BL_COUNT_OF(rule##_params), rule##_factor}

static const bl_schedule_rule rules[] = {
    ROW(constant, "the base rate throughout"),
    ROW(step, "a fixed factor every so many clocks"),
    ROW(exponential, "a fixed factor at every clock"),
    ROW(linear, "a straight line from the base rate to its end"),
    ROW(cosine, "half a cosine from the base rate to its end"),
    ROW(one_cycle, "up to the base rate and down to almost nothing, along half cosines"),
    ROW(one_cycle_linear, "the same along straight lines"),
};

const bl_schedule_rule *bl_schedule_rule_at(size_t i) { return i < BL_COUNT_OF(rules) ? &rules[i] : NULL; }

const bl_schedule_rule *bl_schedule_rule_by_name(const char *name) {
  for (size_t i = 0; i < BL_COUNT_OF(rules); i++) {
    if (strcmp(rules[i].name, name) == 0)
      return &rules[i];
  }
  return NULL;
}
