/* SPDX-License-Identifier: Apache-2.0
 *
 * Norms of the gradients of all ranks, for jobs that clip by them: the sum of squares of each chunk of this shard,
 * taken when the last rank's gradient is in the chunk's sum. Ranks ask for them, add those of all shards in the order
 * of chunks and say the resulting factor in their commits, so that the clock's step can apply it.
 *
 * Kept for the open clock and the one before: a rank that is carried anew may have to ask again while another shard still
 * is in that clock. Everything follows from what has been pushed; nothing here is logged.
 *
 * Threads: the shard's.
 */
#ifndef SRV_NORMS_H
#define SRV_NORMS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct srv_norms {
  double (*squares)[2]; /* [n_chunks], by parity of the clock; NULL: the job does not clip so */
  uint32_t n_chunks;
  uint32_t n_there[2];
} srv_norms;

BL_MUST_CHECK bl_status srv_norms_init(srv_norms *n, uint32_t n_chunks);
void srv_norms_fini(srv_norms *n);

/* The chunk's sum of a clock is complete. Once per chunk and clock. */
void srv_norms_put(srv_norms *n, uint32_t chunk, uint64_t clock, double squares);
/* `clock` is open now: what stands under its parity is two clocks old. */
void srv_norms_open_clock(srv_norms *n, uint64_t clock);
/* All chunks' squares of a clock are known, when `open` is the open one. Clocks before open - 1 are forgotten. */
bool srv_norms_are_there(const srv_norms *n, uint64_t clock, uint64_t open);
double srv_norms_get(const srv_norms *n, uint32_t chunk, uint64_t clock);

#endif
