/* SPDX-License-Identifier: Apache-2.0 */
#include "client/choice.h"

#include "base/num.h"

#include <math.h>
#include <string.h>

/* Of a clock, for all tensors: what leaving the exact codec has to earn, in both directions, and with each further step.
 * Together less than 5 %: so much may be lost on a choice that is less lossy. */
#define LOSSY_COST 0.035
#define BOTH_COST 0.006
#define STEP_COST 0.001
#define DIFFER_GAIN 0.0005 /* of a clock: what a tensor has to earn by differing from the others */
#define DIFFER_MAX 32      /* tensors that may */
#define DENSITY_SLACK 1e-6

static const bl_codec_cost *cost_of(const bl_choice *c, uint32_t t, int d, const uint8_t *plan) {
  const bl_codec_cost *fixed = c->tensors[t].fixed[d];
  return fixed != NULL ? fixed : &c->ladder[d][plan[2 * t + (uint32_t)d]].cost;
}

bl_clock_time bl_choice_time(const bl_choice *c, const uint8_t *plan) {
  for (uint32_t t = 0; t < c->n_tensors; t++)
    c->scratch[t] = (bl_clock_tensor){c->tensors[t].n_elems, cost_of(c, t, BL_CHOICE_PUSH, plan),
                                      cost_of(c, t, BL_CHOICE_PULL, plan)};
  bl_clock_time time = bl_clock_model(&c->conditions, c->scratch, c->n_tensors);
  time.total_ns += c->other_ns;
  return time;
}

double bl_choice_price(const bl_choice *c, const uint8_t *plan) {
  double lossy = 0, all = 0;
  for (uint32_t t = 0; t < c->n_tensors; t++) {
    double elems = (double)c->tensors[t].n_elems;
    all += elems;
    uint32_t n_lossy = 0, steps = 0;
    for (uint32_t d = 0; d < BL_CHOICE_DIRECTIONS; d++) {
      uint32_t step = c->tensors[t].fixed[d] == NULL ? plan[2 * t + d] : 0;
      n_lossy += step > 0;
      steps += step;
    }
    if (n_lossy > 0)
      lossy += elems * (LOSSY_COST + BOTH_COST * (n_lossy - 1) + STEP_COST * (steps - n_lossy));
  }
  return bl_choice_time(c, plan).total_ns * (1 + (all > 0 ? lossy / all : 0));
}

/* A pull has to carry what the pushes of all ranks touch, or what it leaves out grows without end. */
static bool go_together(const bl_choice *c, uint32_t t, uint32_t push, uint32_t pull) {
  if (c->tensors[t].fixed[BL_CHOICE_PULL] != NULL || c->ladder[BL_CHOICE_PULL][pull].density >= 1)
    return true;
  double pushed = c->tensors[t].fixed[BL_CHOICE_PUSH] != NULL ? 1 : c->ladder[BL_CHOICE_PUSH][push].density;
  return c->ladder[BL_CHOICE_PULL][pull].density * (1 + DENSITY_SLACK) >= pushed * c->conditions.world;
}

static uint8_t lossiest(const bl_choice_tensor *t, int d, uint32_t step) {
  if (t->held[d] || t->fixed[d] != NULL)
    return t->now[d];
  while (step > 0 && (t->allowed[d] & 1u << step) == 0)
    step--;
  return (uint8_t)step;
}

static void fill(const bl_choice *c, uint32_t push_step, uint32_t pull_step, uint8_t *plan) {
  for (uint32_t t = 0; t < c->n_tensors; t++) {
    const bl_choice_tensor *at = &c->tensors[t];
    uint8_t push = lossiest(at, BL_CHOICE_PUSH, push_step), pull = lossiest(at, BL_CHOICE_PULL, pull_step);
    while (!at->held[BL_CHOICE_PULL] && pull > 0 && !go_together(c, t, push, pull))
      pull = lossiest(at, BL_CHOICE_PULL, pull - 1u);
    plan[2 * t] = go_together(c, t, push, pull) ? push : at->now[BL_CHOICE_PUSH];
    plan[2 * t + 1] = pull;
  }
}

/* The largest tensors, largest first. */
static uint32_t largest(const bl_choice *c, uint32_t out[DIFFER_MAX]) {
  uint32_t n = 0;
  for (uint32_t t = 0; t < c->n_tensors; t++) {
    uint32_t k = n < DIFFER_MAX ? n++ : DIFFER_MAX;
    for (; k > 0 && c->tensors[out[k - 1]].n_elems < c->tensors[t].n_elems; k--)
      if (k < DIFFER_MAX)
        out[k] = out[k - 1];
    if (k < DIFFER_MAX)
      out[k] = t;
  }
  return n;
}

/* One tensor, one direction: the cheapest step, everything else as it is. */
static double differ(const bl_choice *c, uint32_t t, uint32_t d, uint8_t *plan, double price) {
  const bl_choice_tensor *at = &c->tensors[t];
  uint8_t *step = &plan[2 * t + d], best = *step;
  if (at->held[d] || at->fixed[d] != NULL)
    return price;
  for (uint32_t i = 0; i < c->n_ladder[d]; i++) {
    *step = (uint8_t)i;
    if ((at->allowed[d] & 1u << i) == 0 || !go_together(c, t, plan[2 * t], plan[2 * t + 1]))
      continue;
    double p = bl_choice_price(c, plan);
    if (p < price * (1 - DIFFER_GAIN)) {
      price = p;
      best = (uint8_t)i;
    }
  }
  *step = best;
  return price;
}

double bl_choice_search(const bl_choice *c, uint8_t *plan, uint8_t *trial) {
  double best = INFINITY;
  uint32_t pull_steps = c->conditions.pull_ns >= 0 ? 1 : c->n_ladder[BL_CHOICE_PULL];
  for (uint32_t i = 0; i < c->n_ladder[BL_CHOICE_PUSH]; i++) {
    for (uint32_t k = 0; k < pull_steps; k++) {
      fill(c, i, k, trial);
      double price = bl_choice_price(c, trial);
      if (price >= best)
        continue;
      best = price;
      memcpy(plan, trial, 2 * (size_t)c->n_tensors);
    }
  }
  uint32_t order[DIFFER_MAX] = {0}, n = largest(c, order);
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t d = 0; d < BL_CHOICE_DIRECTIONS; d++)
      best = differ(c, order[i], d, plan, best);
  return best;
}
