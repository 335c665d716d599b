/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients on their way out.
 */
#include "train/exchange.h"

#include "base/alloc.h"
#include "base/num.h"
#include "train/finite.h"

#include <math.h>
#include <string.h>

typedef struct wk_held {
  uint32_t tensor, n_rows; /* rows: of a table */
  const uint64_t *rows;
  float *grad;
} wk_held;

bl_status wk_exchange_init(wk_exchange *x, const wk_exchange_config *config, bl_error *err) {
  uint32_t n = config->table->n_tensors;
  bool holds = config->clips_locally && config->clip_norm > 0;
  *x = (wk_exchange){.config = *config,
                     .kernels = bl_kernels_get(),
                     .squares = bl_calloc(n, sizeof *x->squares),
                     .held = holds ? bl_calloc(n, sizeof *x->held) : NULL,
                     .not_finite_tensor = n};
  if (x->squares != NULL && (x->held != NULL || !holds))
    return BL_OK;
  wk_exchange_fini(x);
  return bl_fail(err, BL_ENOMEM, "no memory for the norms of %u tensors", n);
}

void wk_exchange_fini(wk_exchange *x) {
  bl_free(x->squares);
  bl_free(x->held);
  x->squares = NULL;
  x->held = NULL;
}

void wk_exchange_begin(wk_exchange *x) {
  x->not_finite_tensor = x->config.table->n_tensors;
  x->n_checked = 0;
  x->n_held = 0;
}

/* What stands in the place of numbers that are not finite. Returns the sum of squares. */
static double mend(const wk_exchange *x, float *part, size_t n) {
  if (x->config.not_finite == BL_NOT_FINITE_CLIP)
    return wk_make_finite(part, n);
  if (x->config.not_finite == BL_NOT_FINITE_SKIP) /* nothing of this clock is applied, and nothing of it spreads */
    memset(part, 0, n * sizeof *part);
  return 0;
}

/* Looks at n elements of a gradient; first: of its tensor in this clock. */
static void look_at(wk_exchange *x, uint32_t tensor, float *part, size_t n, bool first) {
  if (x->config.table->tensors[tensor].group.frozen)
    return; /* nothing is done with it, so it is in no norm, and may be anything */
  bool measures = x->config.clip_norm > 0;
  /* Squares of float32 cannot overflow a double, so the sum is finite exactly when the elements are. */
  double squares = measures ? x->kernels->sum_squares(part, n) : 0;
  if (measures ? !isfinite(squares) : !x->kernels->all_finite(part, n)) {
    x->not_finite_tensor = BL_MIN(x->not_finite_tensor, tensor);
    squares = mend(x, part, n);
  }
  x->squares[tensor] = (first ? 0 : x->squares[tensor]) + squares;
}

/* Where a job fails of them, numbers are looked at when they are on their way: what the shards do with them waits for the
 * commit. */
static bool looks_first(const wk_exchange *x) {
  return x->held != NULL || x->config.not_finite != BL_NOT_FINITE_FAIL;
}

void wk_exchange_push_rows(wk_exchange *x, uint32_t tensor, const uint64_t *rows, uint32_t n_rows, float *grad,
                           uint64_t now_ns) {
  size_t n = (size_t)n_rows * bl_table_width(&x->config.table->tensors[tensor]);
  bool ahead = looks_first(x);
  if (ahead)
    look_at(x, tensor, grad, n, true);
  if (x->held != NULL)
    x->held[x->n_held++] = (wk_held){.tensor = tensor, .rows = rows, .n_rows = n_rows, .grad = grad};
  else
    bl_session_push_rows(x->config.session, tensor, rows, n_rows, grad, now_ns);
  if (!ahead)
    look_at(x, tensor, grad, n, true);
}

void wk_exchange_push(wk_exchange *x, uint32_t tensor, float *grad, uint64_t n_ready, uint64_t now_ns) {
  float *part = grad + x->n_checked;
  size_t n = n_ready - x->n_checked;
  bool first = x->n_checked == 0, whole = n_ready == x->config.table->tensors[tensor].n_elems, ahead = looks_first(x);
  if (ahead)
    look_at(x, tensor, part, n, first);
  if (x->held == NULL)
    bl_session_push_part(x->config.session, tensor, grad, n_ready, now_ns);
  else if (whole)
    x->held[x->n_held++] = (wk_held){.tensor = tensor, .grad = grad};
  if (!ahead)
    look_at(x, tensor, part, n, first);
  x->n_checked = whole ? 0 : n_ready;
}

/* In the order of the tensors, not of their arrival: the same bits whatever the model's backward order. */
static float clip_scale(const wk_exchange *x) {
  if (x->config.clip_norm <= 0)
    return 1;
  double sum = 0;
  for (uint32_t i = 0; i < x->config.table->n_tensors; i++)
    sum += x->squares[i];
  double norm = sqrt(sum);
  return norm > x->config.clip_norm ? (float)(x->config.clip_norm / norm) : 1;
}

static void push_held(wk_exchange *x, float scale, uint64_t now_ns) {
  for (uint32_t i = 0; i < x->n_held; i++) {
    const wk_held *h = &x->held[i];
    const bl_tensor *t = &x->config.table->tensors[h->tensor];
    size_t n = t->table ? (size_t)h->n_rows * bl_table_width(t) : t->n_elems;
    if (scale != 1)
      x->kernels->scale(h->grad, scale, n);
    if (t->table)
      bl_session_push_rows(x->config.session, h->tensor, h->rows, h->n_rows, h->grad, now_ns);
    else
      bl_session_push(x->config.session, h->tensor, h->grad, now_ns);
  }
}

void wk_exchange_commit(wk_exchange *x, bool loss_finite, uint64_t n_samples, uint64_t now_ns) {
  bool met = !loss_finite || x->not_finite_tensor < x->config.table->n_tensors;
  bool finite = !met || x->config.not_finite == BL_NOT_FINITE_CLIP;
  float scale = finite ? clip_scale(x) : 1;
  if (x->held != NULL)
    push_held(x, scale, now_ns);
  bl_session_commit(x->config.session, x->held != NULL ? 1 : scale, finite, n_samples, now_ns);
}

const char *wk_exchange_not_finite(const wk_exchange *x) {
  const bl_tensor_table *t = x->config.table;
  return x->not_finite_tensor < t->n_tensors ? t->tensors[x->not_finite_tensor].name : NULL;
}
