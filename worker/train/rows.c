/* SPDX-License-Identifier: Apache-2.0
 *
 * A slot per clock, by its number modulo three, and one for evaluation.
 */
#include "train/rows.h"

#include "base/alloc.h"

#define CLOCK_SLOTS 3
#define SLOTS (CLOCK_SLOTS + 1)

typedef struct slot {
  uint64_t clock;
  bool fetched, pulled;
  wk_sparse_input input;
} slot;

struct wk_rows {
  bl_session *session;
  uint32_t tensor;
  bool asked; /* a pull was begun */
  wk_distinct distinct;
  slot slots[SLOTS];
};

static size_t place_of(uint64_t clock) {
  return clock == WK_ROWS_EVALUATION ? CLOCK_SLOTS : clock % CLOCK_SLOTS;
}

bl_status wk_rows_new(bl_session *session, const bl_tensor_table *table, wk_rows **ret_rows, bl_error *err) {
  uint32_t tensor = wk_sparse_tensor(table);
  *ret_rows = NULL;
  if (tensor == UINT32_MAX)
    return BL_OK;
  wk_rows *r = bl_calloc(1, sizeof *r);
  if (r == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the rows of a table");
  r->session = session;
  r->tensor = tensor;
  for (size_t i = 0; i < SLOTS; i++)
    wk_sparse_input_init(&r->slots[i].input, bl_table_width(&table->tensors[tensor]), i < CLOCK_SLOTS);
  *ret_rows = r;
  return BL_OK;
}

void wk_rows_free(wk_rows *r) {
  if (r == NULL)
    return;
  for (size_t i = 0; i < SLOTS; i++)
    wk_sparse_input_fini(&r->slots[i].input);
  wk_distinct_fini(&r->distinct);
  bl_free(r);
}

bool wk_rows_is_fetched(const wk_rows *r, uint64_t clock) {
  const slot *s = &r->slots[place_of(clock)];
  return s->fetched && s->clock == clock;
}

bl_status wk_rows_fetch(wk_rows *r, uint64_t clock, const wk_dataset *data, const uint64_t *indices, uint32_t n,
                        bl_error *err) {
  slot *s = &r->slots[place_of(clock)];
  s->fetched = s->pulled = false;
  bl_status status = wk_sparse_input_fetch(&s->input, &r->distinct, data, indices, n, err);
  s->fetched = status == BL_OK;
  s->clock = clock;
  return status;
}

void wk_rows_pull(wk_rows *r, uint64_t clock, uint64_t version, uint64_t now_ns) {
  slot *s = &r->slots[place_of(clock)];
  BL_ASSERT(wk_rows_is_fetched(r, clock));
  if (s->pulled)
    return;
  s->pulled = r->asked = true;
  bl_session_pull_rows(r->session, r->tensor, version, s->input.rows, s->input.x.n_rows, s->input.weights,
                       now_ns);
}

bool wk_rows_are_idle(const wk_rows *r) {
  return !r->asked || bl_session_rows_ready(r->session, r->tensor);
}

wk_sparse_input *wk_rows_input(wk_rows *r, uint64_t clock) {
  slot *s = &r->slots[place_of(clock)];
  return s->pulled && s->clock == clock && wk_rows_are_idle(r) ? &s->input : NULL;
}
