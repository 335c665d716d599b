/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of a sparse model's table on their way: batches that are fetched ahead, the pull of the rows that each
 * touches, the push of their gradients. Up to three clocks are under way: the gradient of one may still be
 * unacknowledged while the rows of the next are pulled and the samples of the one behind it are fetched. Knows
 * nothing of epochs. Threads: one.
 */
#ifndef WK_TRAIN_ROWS_H
#define WK_TRAIN_ROWS_H

#include "client/session.h"
#include "train/sparse_input.h"

/* Instead of a clock: a batch that is evaluated. Another one replaces it. */
#define WK_ROWS_EVALUATION UINT64_MAX

typedef struct wk_rows wk_rows;

/* NULL in *ret_rows: the model has no table. session: borrowed for its life. */
BL_MUST_CHECK bl_status wk_rows_new(bl_session *session, const bl_tensor_table *table, wk_rows **ret_rows,
                                    bl_error *err);
void wk_rows_free(wk_rows *r);

bool wk_rows_is_fetched(const wk_rows *r, uint64_t clock);
/* Replaces the batch of three clocks before, whose gradient must be free. */
BL_MUST_CHECK bl_status wk_rows_fetch(wk_rows *r, uint64_t clock, const wk_dataset *data,
                                      const uint64_t *indices, uint32_t n, bl_error *err);
/* Asks for the rows of a fetched batch as they are in a version; again changes nothing. The rows that were
 * asked for before must be there. */
void wk_rows_pull(wk_rows *r, uint64_t clock, uint64_t version, uint64_t now_ns);
/* Rows that were asked for are there, for any batch: another pull may begin. */
bool wk_rows_are_idle(const wk_rows *r);
/* The batch with its weights; NULL: they are not there yet. */
wk_sparse_input *wk_rows_input(wk_rows *r, uint64_t clock);

#endif
