/* SPDX-License-Identifier: Apache-2.0
 *
 * Average in, weights back.
 */
#include "train/average.h"

#include "base/alloc.h"

#include <string.h>

bl_status wk_average_init(wk_average *a, bl_session *session, const bl_tensor_table *table, float *const *params,
                          bl_error *err) {
  *a = (wk_average){.session = session, .table = table, .params = params};
  if (session == NULL)
    return BL_OK;
  a->kept = bl_malloc(table->n_elems * sizeof *a->kept);
  if (a->kept == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to keep the weights while their average is evaluated");
  return BL_OK;
}

void wk_average_fini(wk_average *a) { bl_free(a->kept); }

void wk_average_bring_in(wk_average *a, uint64_t now_ns) {
  if (a->session == NULL || a->is_in)
    return;
  float *to = a->kept;
  for (uint32_t i = 0; i < a->table->n_tensors; to += a->table->tensors[i++].n_elems)
    memcpy(to, a->params[i], a->table->tensors[i].n_elems * sizeof *to);
  a->is_in = true;
  bl_session_pull_average(a->session, a->params, now_ns);
}

bool wk_average_is_there(const wk_average *a) { return a->session == NULL || bl_session_average_is_there(a->session); }

void wk_average_take_out(wk_average *a) {
  if (!a->is_in)
    return;
  const float *from = a->kept;
  for (uint32_t i = 0; i < a->table->n_tensors; from += a->table->tensors[i++].n_elems)
    memcpy(a->params[i], from, a->table->tensors[i].n_elems * sizeof *from);
  a->is_in = false;
}
