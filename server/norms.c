/* SPDX-License-Identifier: Apache-2.0
 *
 * Two sums of squares per chunk.
 */
#include "server/norms.h"

#include "base/alloc.h"

bl_status srv_norms_init(srv_norms *n, uint32_t n_chunks) {
  n->squares = bl_calloc(n_chunks, sizeof *n->squares);
  n->n_chunks = n_chunks;
  return n->squares != NULL ? BL_OK : BL_ENOMEM;
}

void srv_norms_fini(srv_norms *n) { bl_free(n->squares); }

void srv_norms_put(srv_norms *n, uint32_t chunk, uint64_t clock, double squares) {
  n->squares[chunk][clock & 1] = squares;
  n->n_there[clock & 1]++;
}

void srv_norms_open_clock(srv_norms *n, uint64_t clock) { n->n_there[clock & 1] = 0; }

bool srv_norms_are_there(const srv_norms *n, uint64_t clock, uint64_t open) {
  return clock == open ? n->n_there[clock & 1] == n->n_chunks : clock + 1 == open;
}

double srv_norms_get(const srv_norms *n, uint32_t chunk, uint64_t clock) { return n->squares[chunk][clock & 1]; }
