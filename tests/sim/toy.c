/* SPDX-License-Identifier: Apache-2.0
 *
 * The toy model and its straight line: every clock in turn, every rank in turn, no messages.
 */
#include "toy.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/rng.h"
#include "codec/select.h"
#include "kernel/kernel.h"
#include "support.h"

#include <math.h>
#include <string.h>

#define TENSORS_MAX 16

static float element(const Ballast__Control__JobPlan *plan, uint32_t tensor, uint64_t i, uint32_t rank, uint64_t clock,
                     float w) {
  return (0.3f * w + bl_rng_unit(plan->seed, clock * 4096 + rank, ((uint64_t)tensor << 32) + i) - 0.5f) /
         (float)plan->world;
}

uint32_t toy_rows(const Ballast__Control__JobPlan *plan, uint32_t tensor, const bl_tensor *t, uint32_t rank,
                  uint64_t clock, uint64_t *rows) {
  uint64_t hi = UINT64_C(1) << 40 | clock * 4096 | rank;
  uint32_t n = 0;
  if (bl_rng_below(plan->seed, hi, tensor, 8) == 0)
    return 0;
  for (uint64_t row = 0; row < bl_table_rows(t); row++)
    if (bl_rng_below(plan->seed, hi, ((uint64_t)tensor << 32) + row + 100, 5) == 0)
      rows[n++] = row;
  return n;
}

void toy_row_gradient(const Ballast__Control__JobPlan *plan, uint32_t tensor, uint64_t width, const uint64_t *rows,
                      uint32_t n, uint32_t rank, uint64_t clock, const float *w, float *g) {
  for (uint64_t i = 0; i < n * width; i++)
    g[i] = element(plan, tensor, rows[i / width] * width + i % width, rank, clock, w != NULL ? w[i] : 0.0f);
}

void toy_gradient(const Ballast__Control__JobPlan *plan, uint32_t tensor, uint64_t n, uint32_t rank,
                  uint64_t clock, const float *w, float *g) {
  for (uint64_t i = 0; i < n; i++)
    g[i] = element(plan, tensor, i, rank, clock, w != NULL ? w[i] : 0.0f);
}

float toy_scale(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, float *const *grads,
                const uint64_t *n_elems) {
  if (!(plan->clip_norm > 0))
    return 1.0f;
  double sum = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    if (!t->tensors[i].group.frozen)
      sum += bl_kernels_get()->sum_squares(grads[i], n_elems[i]);
  double norm = sqrt(sum);
  return norm > plan->clip_norm ? (float)(plan->clip_norm / norm) : 1.0f;
}

uint64_t toy_checksum(const bl_tensor_table *t, float *const *w) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    sum = bl_checksum_seeded(w[i], t->tensors[i].n_elems * sizeof(float), sum);
  return sum;
}

static float *floats(uint64_t n) {
  float *p = bl_calloc(n, sizeof *p);
  ck_assert_ptr_nonnull(p);
  return p;
}

/* Through a codec and back: what the other side sees. */
static void round_trip(const bl_encode *e, const float *x, float *residual, float *y, uint32_t n) {
  uint8_t *frame = bl_malloc(bl_codec_bound_bytes(e->spec, n));
  ck_assert_ptr_nonnull(frame);
  bl_codec_view view = bl_codec_trusted(frame, bl_codec_encode(e, x, residual, n, 0, frame));
  view.codec->decode(&view, y);
  bl_free(frame);
}

/* What a rank keeps of a tensor from clock to clock. */
typedef struct kept {
  float *residual, *velocity;
} kept;

/* A tensor chunk by chunk, as a rank pushes it in a clock. */
static void push(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, uint32_t tensor, uint32_t rank,
                 uint64_t clock, const float *g, kept *k, float *y) {
  const bl_tensor *of = &t->tensors[tensor];
  bool sparse = of->policy.push.codec->sparse, corrected = of->policy.momentum > 0;
  bl_select_source source = {.x = g, .residual = k->residual, .n = of->n_elems, .momentum = of->policy.momentum};
  source.velocity = corrected ? k->velocity : NULL;
  float threshold = of->policy.push.codec->id != BL_CODEC_TOPK ? 0
                    : bl_select_sampled(&source, of->policy.push.density, bl_codec_key(plan->seed, rank, clock, of->first_chunk));
  for (uint64_t i = 0; i < of->n_elems && corrected && !sparse; i++) {
    volatile float faded = k->velocity[i] * of->policy.momentum;
    k->velocity[i] = faded + g[i];
  }
  for (uint32_t id = of->first_chunk; id < of->first_chunk + of->n_chunks; id++) {
    const bl_chunk *c = &t->chunks[id];
    bl_encode e = {.spec = &of->policy.push,
                   .key = bl_codec_key(plan->seed, rank, clock, id),
                   .threshold = threshold,
                   .velocity = corrected && sparse ? k->velocity + c->first : NULL,
                   .momentum = of->policy.momentum,
                   .columns = bl_tensor_columns(of)};
    round_trip(&e, (corrected && !sparse ? k->velocity : g) + c->first,
               of->policy.feedback ? k->residual + c->first : NULL, y + c->first, c->n_elems);
  }
}

/* A tensor's change to a version, as shards send it. */
static void pull(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, uint32_t tensor, uint64_t version,
                 const float *x, uint32_t *brakes, float *y) {
  const bl_tensor *of = &t->tensors[tensor];
  for (uint32_t id = of->first_chunk; id < of->first_chunk + of->n_chunks; id++) {
    const bl_chunk *c = &t->chunks[id];
    bl_codec_spec spec = of->policy.pull;
    spec.density = fminf(1, spec.density * (float)(1 << brakes[id]));
    bl_encode e = {.spec = &spec, .key = bl_codec_key(plan->seed, UINT32_MAX, version, id)};
    float *rest = floats(c->n_elems);
    round_trip(&e, x + c->first, rest, y + c->first, c->n_elems);
    double all = bl_kernels_get()->sum_squares(x + c->first, c->n_elems);
    double left = bl_kernels_get()->sum_squares(rest, c->n_elems);
    if (spec.density > 0 && version % 8 == 0 && left > 64 * (all - left) && brakes[id] < 4)
      brakes[id]++;
    else if (spec.density > 0 && version % 8 == 0 && left < 16 * (all - left) && brakes[id] > 0)
      brakes[id]--;
    bl_free(rest);
  }
}

typedef struct straight {
  float *w, *held, *sum, *g, *decoded, *average, *slots[BL_OPTIM_SLOTS_MAX];
  bool *touched;                 /* of a table: rows in this clock */
  uint64_t *rows[TOY_RANKS_MAX]; /* and of each rank */
  uint32_t n_rows[TOY_RANKS_MAX];
} straight;

/* What a rank computes of a table from the rows that it is sent. */
static void row_gradient(const Ballast__Control__JobPlan *plan, uint32_t tensor, const bl_tensor *t, uint32_t rank,
                         uint64_t clock, straight *x, float *g) {
  uint64_t width = bl_table_width(t);
  uint32_t n = x->n_rows[rank] = toy_rows(plan, tensor, t, rank, clock, x->rows[rank]);
  for (uint32_t i = 0; i < n; i++)
    memcpy(x->held + i * width, x->w + x->rows[rank][i] * width, width * sizeof(float));
  round_trip(&(bl_encode){.spec = &t->policy.pull}, x->held, NULL, x->held, (uint32_t)(n * width));
  toy_row_gradient(plan, tensor, width, x->rows[rank], n, rank, clock, x->held, g);
}

/* Adds a rank's gradient to the rows that it is about: the first to touch one sets it. */
static void add_rows(const bl_tensor *t, uint32_t rank, float scale, straight *x) {
  uint64_t width = bl_table_width(t);
  for (uint32_t i = 0; i < x->n_rows[rank]; i++) {
    uint64_t row = x->rows[rank][i];
    for (uint64_t k = 0; k < width; k++) {
      volatile float v = x->decoded[i * width + k] * scale;
      float *sum = &x->sum[row * width + k];
      *sum = x->touched[row] ? *sum + v : v;
    }
    x->touched[row] = true;
  }
}

/* The rule, row by row, on those that were touched. */
static void step_rows(const bl_optim *optim, const bl_optim_at *at, const bl_tensor *t, straight *x) {
  uint64_t width = bl_table_width(t);
  for (uint64_t row = 0; row < bl_table_rows(t); row++) {
    float *slots[BL_OPTIM_SLOTS_MAX] = {NULL};
    for (uint32_t k = 0; k < optim->rule->n_slots; k++)
      slots[k] = x->slots[k] + row * width;
    if (x->touched[row])
      bl_optim_step(optim, at, x->w + row * width, x->sum + row * width, slots, width);
    x->touched[row] = false;
  }
}

double toy_distance(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, const uint64_t *clocks,
                    float *const *w, const double *const *left) {
  double far = 0, lr = plan->optimizer->params[0]->value;
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    uint64_t n = t->tensors[i].n_elems;
    float *start = floats(n), *g = floats(n);
    uint64_t *rows = t->tensors[i].table ? bl_calloc(bl_table_rows(&t->tensors[i]), sizeof *rows) : NULL;
    double *sum = bl_calloc(n, sizeof *sum);
    ck_assert_ptr_nonnull(sum);
    bl_tensor_init_values(&t->tensors[i], plan->seed, 0, n, start);
    for (uint32_t r = 0; r < plan->world; r++)
      for (uint64_t clock = 0; clock < (clocks != NULL ? clocks[r] : plan->clocks); clock++) {
        uint64_t width = t->tensors[i].table ? bl_table_width(&t->tensors[i]) : 1;
        uint64_t n_rows = t->tensors[i].table ? toy_rows(plan, i, &t->tensors[i], r, clock, rows) : n;
        if (rows != NULL)
          toy_row_gradient(plan, i, width, rows, (uint32_t)n_rows, r, clock, NULL, g);
        else
          toy_gradient(plan, i, n, r, clock, NULL, g);
        for (uint64_t k = 0; k < n_rows * width; k++)
          sum[rows != NULL ? rows[k / width] * width + k % width : k] += (double)g[k];
      }
    bl_free(rows);
    for (uint64_t k = 0; k < n; k++)
      far = fmax(far, fabs((double)start[k] - lr * (sum[k] - (left != NULL ? left[i][k] : 0)) - (double)w[i][k]));
    bl_free(start);
    bl_free(g);
    bl_free(sum);
  }
  return far;
}

/* Chunk by chunk: rules may look at a chunk as a whole. */
static void update(const bl_optim *optim, const bl_tensor_table *t, uint32_t tensor, uint64_t clock, straight *x) {
  bl_optim_at at = bl_tensor_optim_at(&t->tensors[tensor], clock, bl_tensor_exchanges(t, tensor, clock) + 1);
  for (uint32_t id = 0; id < t->n_chunks && !t->tensors[tensor].group.frozen; id++) {
    const bl_chunk *c = &t->chunks[id];
    float *slots[BL_OPTIM_SLOTS_MAX];
    if (c->tensor != tensor)
      continue;
    for (uint32_t k = 0; k < optim->rule->n_slots; k++)
      slots[k] = x->slots[k] + c->first;
    bl_optim_step(optim, &at, x->w + c->first, x->sum + c->first, slots, c->n_elems);
  }
}

/* Of the sums over all ranks, chunk by chunk. */
static float global_scale(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, const straight *x) {
  double sum = 0;
  if (!(plan->clip_global_norm > 0)) /* there may be tables then */
    return 1.0f;
  for (uint32_t id = 0; id < t->n_chunks; id++) {
    const bl_chunk *c = &t->chunks[id];
    if (!t->tensors[c->tensor].group.frozen)
      sum += bl_kernels_get()->sum_squares(x[c->tensor].sum + c->first, c->n_elems);
  }
  double norm = sqrt(sum), limit = plan->clip_global_norm;
  return limit > 0 && norm > limit ? (float)(limit / norm) : 1.0f;
}

void toy_initial(const Ballast__Control__JobPlan *plan, const bl_tensor_table *t, float *const *w) {
  for (uint32_t i = 0; i < t->n_tensors; i++)
    bl_tensor_init_values(&t->tensors[i], plan->seed + 1, 0, t->tensors[i].n_elems, w[i]);
}

uint64_t toy_reference(const Ballast__Control__JobPlan *plan, uint64_t clocks) {
  bl_tensor_table *t;
  bl_optim optim;
  ck_assert_ok(bl_plan_table(plan, &t, NULL));
  ck_assert_ok(bl_plan_optim(plan, &optim, NULL));
  straight x[TENSORS_MAX];
  float *grads[TOY_RANKS_MAX][TENSORS_MAX], *held[TENSORS_MAX];
  kept kept_by[TOY_RANKS_MAX][TENSORS_MAX];
  uint32_t *brakes = bl_calloc(t->n_chunks, sizeof *brakes);
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    uint64_t n = t->tensors[i].n_elems;
    x[i] = (straight){
        .w = floats(n), .held = floats(n), .sum = floats(n), .decoded = floats(n), .average = floats(n)};
    for (uint32_t k = 0; k < optim.rule->n_slots; k++)
      x[i].slots[k] = floats(n);
    for (uint32_t r = 0; r < plan->world; r++) {
      grads[r][i] = floats(n);
      kept_by[r][i] = (kept){floats(n), floats(n)};
      if (t->tensors[i].table)
        x[i].rows[r] = bl_calloc(bl_table_rows(&t->tensors[i]), sizeof(uint64_t));
    }
    x[i].touched = bl_calloc(t->tensors[i].dims[0], sizeof(bool));
    bl_tensor_init_values(&t->tensors[i], plan->seed, 0, n, x[i].w);
    if (plan->initial)
      bl_tensor_init_values(&t->tensors[i], plan->seed + 1, 0, n, x[i].w);
    memcpy(x[i].held, x[i].w, n * sizeof(float));
    held[i] = t->tensors[i].table ? x[i].w : x[i].held; /* tables are read as they are at the end */
  }
  for (uint64_t clock = 0; clock < clocks; clock++) {
    float scale[TOY_RANKS_MAX];
    for (uint32_t r = 0; r < plan->world; r++) {
      uint64_t n_elems[TENSORS_MAX];
      for (uint32_t i = 0; i < t->n_tensors; i++) {
        n_elems[i] = t->tensors[i].n_elems;
        if (t->tensors[i].table) {
          row_gradient(plan, i, &t->tensors[i], r, clock, &x[i], grads[r][i]);
          n_elems[i] = (uint64_t)x[i].n_rows[r] * bl_table_width(&t->tensors[i]);
        } else {
          toy_gradient(plan, i, t->tensors[i].n_elems, r, clock, x[i].held, grads[r][i]);
        }
      }
      scale[r] = toy_scale(plan, t, grads[r], n_elems);
    }
    for (uint32_t i = 0; i < t->n_tensors; i++) {
      uint32_t n = (uint32_t)t->tensors[i].n_elems;
      for (uint32_t r = 0; r < plan->world && bl_tensor_in_clock(t, i, clock); r++) {
        if (t->tensors[i].table) {
          round_trip(&(bl_encode){.spec = &t->tensors[i].policy.push}, grads[r][i], NULL, x[i].decoded,
                     x[i].n_rows[r] * bl_table_width(&t->tensors[i]));
          add_rows(&t->tensors[i], r, scale[r], &x[i]);
          continue;
        }
        push(plan, t, i, r, clock, grads[r][i], &kept_by[r][i], x[i].decoded);
        for (uint32_t k = 0; k < n; k++) {
          volatile float v = x[i].decoded[k] * scale[r];
          x[i].sum[k] = r == 0 ? v : x[i].sum[k] + v;
        }
      }
    }
    float global = global_scale(plan, t, x);
    for (uint32_t i = 0; i < t->n_tensors; i++) {
      uint32_t n = (uint32_t)t->tensors[i].n_elems;
      if (!bl_tensor_in_clock(t, i, clock))
        continue;
      bl_kernels_get()->scale(x[i].sum, global, n);
      if (plan->clip_value > 0)
        bl_kernels_get()->clip(x[i].sum, (float)plan->clip_value, n);
      if (t->tensors[i].table) {
        bl_optim_at at = bl_tensor_optim_at(&t->tensors[i], clock, clock + 1);
        step_rows(&optim, &at, &t->tensors[i], &x[i]);
        continue;
      }
      update(&optim, t, i, clock, &x[i]);
      double decay = plan->average_ema, corrected = 1;
      for (uint64_t k = 0; k <= clock; k++)
        corrected *= decay;
      for (uint32_t k = 0; k < n; k++) {
        volatile float change = (float)((1 - decay) / (1 - corrected)) * (x[i].w[k] - x[i].average[k]);
        x[i].average[k] = t->tensors[i].group.frozen ? x[i].w[k] : x[i].average[k] + change;
      }
      if (t->tensors[i].policy.pull.codec->exact) {
        memcpy(x[i].held, x[i].w, n * sizeof(float));
        continue;
      }
      for (uint32_t k = 0; k < n; k++)
        x[i].sum[k] = x[i].w[k] - x[i].held[k];
      pull(plan, t, i, clock + 1, x[i].sum, brakes, x[i].decoded);
      for (uint32_t k = 0; k < n; k++)
        x[i].held[k] += x[i].decoded[k];
    }
  }
  for (uint32_t i = 0; i < t->n_tensors && plan->average_ema > 0; i++)
    held[i] = x[i].average;
  bl_free(brakes);
  uint64_t sum = toy_checksum(t, held);
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    bl_free(x[i].w);
    bl_free(x[i].held);
    bl_free(x[i].sum);
    bl_free(x[i].decoded);
    bl_free(x[i].average);
    for (uint32_t k = 0; k < optim.rule->n_slots; k++)
      bl_free(x[i].slots[k]);
    for (uint32_t r = 0; r < plan->world; r++) {
      bl_free(grads[r][i]);
      bl_free(kept_by[r][i].residual);
      bl_free(kept_by[r][i].velocity);
      bl_free(x[i].rows[r]);
    }
    bl_free(x[i].touched);
  }
  bl_tensor_table_free(t);
  return sum;
}
