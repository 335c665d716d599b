/* SPDX-License-Identifier: Apache-2.0
 *
 * Steps and differences. A frozen tensor takes part in nothing: its difference is 0.
 */
#include "train/local_steps.h"

#include "base/alloc.h"
#include "base/num.h"
#include "kernel/kernel.h"
#include "train/finite.h"

#include <math.h>
#include <string.h>

static bl_status init_optim(wk_local_steps *l, const bl_job_spec *spec, uint64_t n_steps, bl_error *err) {
  return bl_optim_init(&l->optim, spec->optimizer, spec->optimizer_params, spec->n_optimizer_params, spec->schedule,
                       spec->schedule_params, spec->n_schedule_params, n_steps, err);
}

static bool allocate(wk_local_steps *l) {
  l->start = bl_calloc_aligned(l->table->n_elems, sizeof *l->start);
  l->first_elem = bl_calloc(l->table->n_tensors, sizeof *l->first_elem);
  bool ok = l->start != NULL && l->first_elem != NULL;
  for (uint32_t s = 0; ok && s < l->optim.rule->n_slots; s++)
    ok = (l->slots[s] = bl_calloc_aligned(l->table->n_elems, sizeof *l->slots[s])) != NULL;
  for (uint32_t i = 1; ok && i < l->table->n_tensors; i++)
    l->first_elem[i] = l->first_elem[i - 1] + l->table->tensors[i - 1].n_elems;
  return ok;
}

bl_status wk_local_steps_init(wk_local_steps *l, const bl_job_spec *spec, const bl_tensor_table *table,
                              float *const *params, float *const *grads, float *const *held, uint64_t n_steps,
                              bl_error *err) {
  *l = (wk_local_steps){.table = table,
                        .params = params,
                        .grads = grads,
                        .held = held,
                        .mix = spec->outer.overlap > 0 ? (float)spec->outer.mix : 0,
                        .clip_value = (float)spec->clip_value,
                        .clip_norm = spec->clip_norm,
                        .mends = spec->not_finite == BL_NOT_FINITE_CLIP,
                        .not_finite_tensor = table->n_tensors};
  bl_status status = init_optim(l, spec, n_steps, err);
  if (status == BL_OK && !allocate(l))
    status = bl_fail(err, BL_ENOMEM, "no memory for the weights of a round and %u numbers of state for each of them",
                     l->optim.rule->n_slots);
  if (status != BL_OK)
    wk_local_steps_fini(l);
  return status;
}

void wk_local_steps_fini(wk_local_steps *l) {
  bl_free_aligned(l->start);
  bl_free(l->first_elem);
  for (uint32_t s = 0; s < BL_OPTIM_SLOTS_MAX; s++)
    bl_free_aligned(l->slots[s]);
  *l = (wk_local_steps){0};
}

void wk_local_steps_begin_round(wk_local_steps *l) {
  for (uint32_t i = 0; l->held == NULL && i < l->table->n_tensors; i++)
    memcpy(l->start + l->first_elem[i], l->params[i], l->table->tensors[i].n_elems * sizeof *l->start);
}

/* The factor that brings the gradient to clip_norm, in the order of the tensors. False: not finite. */
static bool look_at_gradients(wk_local_steps *l, float *ret_scale) {
  double sum = 0;
  for (uint32_t i = 0; i < l->table->n_tensors; i++) {
    const bl_tensor *t = &l->table->tensors[i];
    if (t->group.frozen)
      continue;
    /* Squares of float32 cannot overflow a double, so the sum is finite exactly when the elements are. */
    double squares = bl_kernels_get()->sum_squares(l->grads[i], t->n_elems);
    if (!isfinite(squares)) {
      l->not_finite_tensor = BL_MIN(i, l->not_finite_tensor);
      if (!l->mends)
        return false;
      squares = wk_make_finite(l->grads[i], t->n_elems);
    }
    sum += squares;
  }
  double norm = sqrt(sum);
  *ret_scale = l->clip_norm > 0 && norm > l->clip_norm ? (float)(l->clip_norm / norm) : 1;
  return true;
}

static void step_chunk(wk_local_steps *l, const bl_chunk *c, float scale, uint64_t place) {
  const bl_tensor *t = &l->table->tensors[c->tensor];
  const bl_kernels *k = bl_kernels_get();
  float *g = l->grads[c->tensor] + c->first, *slots[BL_OPTIM_SLOTS_MAX] = {NULL};
  bl_optim_at at = bl_tensor_optim_at(t, place, l->n_updates + 1);
  if (t->group.frozen)
    return;
  if (scale != 1.0f)
    k->scale(g, scale, c->n_elems);
  if (l->clip_value > 0)
    k->clip(g, l->clip_value, c->n_elems);
  for (uint32_t s = 0; s < l->optim.rule->n_slots; s++)
    slots[s] = l->slots[s] + l->first_elem[c->tensor] + c->first;
  bl_optim_step(&l->optim, &at, l->params[c->tensor] + c->first, g, slots, c->n_elems);
}

bool wk_local_steps_step(wk_local_steps *l, uint64_t place) {
  float scale = 1;
  l->not_finite_tensor = l->table->n_tensors;
  if (!look_at_gradients(l, &scale))
    return false;
  for (uint32_t i = 0; i < l->table->n_chunks; i++)
    step_chunk(l, &l->table->chunks[i], scale, place);
  l->n_updates++;
  return true;
}

/* start becomes the difference, the model gets the weights of the round back: one pass over both. Every operation is
 * rounded by itself, as in a kernel. */
static void exchange_ends(float *restrict start, float *restrict w, float part, uint64_t n) {
  for (uint64_t k = 0; k < n; k++) {
    float before = start[k];
    start[k] = part * (before - w[k]);
    w[k] = before;
  }
}

void wk_local_steps_end_round(wk_local_steps *l, uint32_t tensor, double part) {
  uint64_t n = l->table->tensors[tensor].n_elems;
  float *out = l->start + l->first_elem[tensor];
  if (l->held == NULL) {
    exchange_ends(out, l->params[tensor], (float)part, n);
    return;
  }
  bl_kernels_get()->sub(out, l->held[tensor], l->params[tensor], n);
  bl_kernels_get()->scale(out, (float)part, n);
}

void wk_local_steps_merge(wk_local_steps *l, uint32_t tensor) {
  uint64_t n = l->table->tensors[tensor].n_elems;
  if (l->held != NULL && l->mix > 0)
    bl_kernels_get()->average(l->params[tensor], l->held[tensor], 1.0f - l->mix, n);
  else if (l->held != NULL)
    memcpy(l->params[tensor], l->held[tensor], n * sizeof(float));
}

void wk_local_steps_start(wk_local_steps *l) {
  for (uint32_t i = 0; l->held != NULL && i < l->table->n_tensors; i++)
    memcpy(l->params[i], l->held[i], l->table->tensors[i].n_elems * sizeof(float));
}

static void swap(float *restrict a, float *restrict b, uint64_t n) {
  for (uint64_t k = 0; k < n; k++) {
    float x = a[k];
    a[k] = b[k];
    b[k] = x;
  }
}

void wk_local_steps_show_held(wk_local_steps *l, bool show) {
  if (l->held == NULL || l->shown == show)
    return;
  for (uint32_t i = 0; i < l->table->n_tensors; i++)
    swap(l->params[i], l->held[i], l->table->tensors[i].n_elems);
  l->shown = show;
}

float **wk_held_weights_new(const bl_tensor_table *table) {
  float **held = bl_calloc(table->n_tensors, sizeof *held);
  bool ok = held != NULL;
  for (uint32_t i = 0; ok && i < table->n_tensors; i++)
    ok = (held[i] = bl_calloc_aligned(table->tensors[i].n_elems, sizeof **held)) != NULL;
  if (ok)
    return held;
  wk_held_weights_free(held, table);
  return NULL;
}

void wk_held_weights_free(float **held, const bl_tensor_table *table) {
  for (uint32_t i = 0; held != NULL && i < table->n_tensors; i++)
    bl_free_aligned(held[i]);
  bl_free(held);
}

float *wk_local_steps_difference(const wk_local_steps *l, uint32_t tensor) { return l->start + l->first_elem[tensor]; }

bool wk_local_steps_has_state(const wk_local_steps *l) { return l->optim.rule->n_slots > 0 || l->held != NULL; }

const char *wk_local_steps_not_finite(const wk_local_steps *l) {
  return l->table != NULL && l->not_finite_tensor < l->table->n_tensors ? l->table->tensors[l->not_finite_tensor].name : NULL;
}
