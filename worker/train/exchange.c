/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients on their way out.
 */
#include "train/exchange.h"

#include "base/alloc.h"
#include "base/num.h"

#include <math.h>

bl_status wk_exchange_init(wk_exchange *x, bl_session *session, const bl_tensor_table *table, double clip_norm,
                           bl_error *err) {
  double *squares = bl_calloc(table->n_tensors, sizeof *squares);
  if (squares == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the norms of %u tensors", table->n_tensors);
  *x = (wk_exchange){.session = session,
                     .table = table,
                     .kernels = bl_kernels_get(),
                     .clip_norm = clip_norm,
                     .squares = squares,
                     .not_finite_tensor = table->n_tensors};
  return BL_OK;
}

void wk_exchange_fini(wk_exchange *x) { bl_free(x->squares); }

void wk_exchange_begin(wk_exchange *x) {
  x->not_finite_tensor = x->table->n_tensors;
  x->n_checked = 0;
}

/* Looks at n elements of a gradient; first: of its tensor in this clock. */
static void look_at(wk_exchange *x, uint32_t tensor, const float *part, size_t n, bool first) {
  bool finite;
  if (x->table->tensors[tensor].group.frozen)
    return; /* nothing is done with it, so it is in no norm, and may be anything */
  if (x->clip_norm > 0) {
    /* Squares of float32 cannot overflow a double, so the sum is finite exactly when the elements are. */
    double squares = x->kernels->sum_squares(part, n);
    x->squares[tensor] = (first ? 0 : x->squares[tensor]) + squares;
    finite = isfinite(squares);
  } else {
    finite = x->kernels->all_finite(part, n);
  }
  if (!finite)
    x->not_finite_tensor = BL_MIN(x->not_finite_tensor, tensor);
}

void wk_exchange_push_rows(wk_exchange *x, uint32_t tensor, const uint64_t *rows, uint32_t n_rows, const float *grad,
                           uint64_t now_ns) {
  bl_session_push_rows(x->session, tensor, rows, n_rows, grad, now_ns);
  look_at(x, tensor, grad, (size_t)n_rows * bl_table_width(&x->table->tensors[tensor]), true);
}

void wk_exchange_push(wk_exchange *x, uint32_t tensor, const float *grad, uint64_t n_ready, uint64_t now_ns) {
  const float *part = grad + x->n_checked;
  size_t n = n_ready - x->n_checked;
  /* First on its way, then looked at: what the shards do with it waits for the commit. */
  bl_session_push_part(x->session, tensor, grad, n_ready, now_ns);
  look_at(x, tensor, part, n, x->n_checked == 0);
  x->n_checked = n_ready < x->table->tensors[tensor].n_elems ? n_ready : 0;
}

/* In the order of the tensors, not of their arrival: the same bits whatever the model's backward order. */
static float clip_scale(const wk_exchange *x) {
  if (x->clip_norm <= 0)
    return 1;
  double sum = 0;
  for (uint32_t i = 0; i < x->table->n_tensors; i++)
    sum += x->squares[i];
  double norm = sqrt(sum);
  return norm > x->clip_norm ? (float)(x->clip_norm / norm) : 1;
}

void wk_exchange_commit(wk_exchange *x, bool loss_finite, uint64_t n_samples, uint64_t now_ns) {
  bool finite = loss_finite && x->not_finite_tensor == x->table->n_tensors;
  bl_session_commit(x->session, finite ? clip_scale(x) : 1, finite, n_samples, now_ns);
}

const char *wk_exchange_not_finite(const wk_exchange *x) {
  return x->not_finite_tensor < x->table->n_tensors ? x->table->tensors[x->not_finite_tensor].name : NULL;
}
