/* SPDX-License-Identifier: Apache-2.0
 *
 * Inverted dropout: y = x / (1 - p) where kept, 0 elsewhere. The mask is a function of (seed, clock, rank,
 * layer, element), so a step that is done again, on whatever worker, drops the same elements.
 * Source: Srivastava et al., "Dropout", JMLR 15 (2014), section 10 for the inverted form.
 */
#include "base/rng.h"
#include "nn/layer.h"

#include <string.h>

/* Each element takes 16 random bits: the rate is rounded to multiples of 2^-16, and the scale is that of the
 * rounded rate, so that the mean is exact. */
#define DROPOUT_STEPS 65536u

static uint32_t threshold_of(double rate) { return (uint32_t)(rate * DROPOUT_STEPS + 0.5); }

static bl_status dropout_plan(const wk_layer *l, const bl_layer_spec *spec, bool for_training,
                              wk_layer_plan *ret_plan, bl_error *err) {
  if (!(spec->rate >= 0.0 && threshold_of(spec->rate) < DROPOUT_STEPS))
    return bl_fail(err, BL_EINVAL, "layer %s: rate is %g, it must be at least 0 and below 1", spec->name, spec->rate);
  *ret_plan = (wk_layer_plan){
      .out = l->in,
      .state_bytes_per_sample = for_training ? l->in : 0,
      .in_place = !for_training,
  };
  return BL_OK;
}

static float dropout_scale(const wk_layer *l) {
  return (float)((double)DROPOUT_STEPS / (DROPOUT_STEPS - threshold_of(l->rate)));
}

static void dropout_forward(wk_layer *l, uint32_t n, const wk_step_id *step) {
  uint64_t elems = n * l->out;
  if (step == NULL || threshold_of(l->rate) == 0) {
    if (l->y != l->x)
      memcpy(l->y, l->x, elems * sizeof *l->y);
    if (l->state != NULL)
      memset(l->state, 1, elems);
    return;
  }
  BL_ASSERT(l->state != NULL); /* models for evaluation are given no step */
  /* Counter, low half: layer 10 bits, rank 12 (BL_JOB_LAYERS_MAX, BL_JOB_RANKS_MAX), block 42. */
  uint64_t low = (uint64_t)l->index << 54 | (uint64_t)step->rank << 42;
  l->vec->random_keep(bl_rng_key(step->seed, BL_RNG_DROPOUT), step->clock, low, threshold_of(l->rate), l->state, elems);
  l->vec->mask(l->x, l->state, dropout_scale(l), l->y, elems);
}

static void dropout_backward(wk_layer *l, float *dy, float *dx, uint32_t n, const wk_grad_sink *sink) {
  l->vec->mask(dy, l->state, dropout_scale(l), dy, n * l->out);
}

const wk_layer_ops wk_layer_dropout = {"dropout", dropout_plan, dropout_forward, dropout_backward};
