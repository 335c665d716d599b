/* SPDX-License-Identifier: Apache-2.0
 *
 * Placement: which shard holds which chunk. Pure. Balanced by bytes: chunks, largest first, each to the
 * shard with the least load (Graham, "Bounds on multiprocessing timing anomalies", 1969: LPT), ties to the
 * lower index, so the result is a function of its inputs.
 */
#ifndef BL_PLACE_PLACE_H
#define BL_PLACE_PLACE_H

#include "job/tensors.h"

/* load_bytes: [n_shards] present load, raised by what is placed. capacity_bytes: [n_shards], 0 = none.
 * bytes_per_elem: weights + optimizer state + working copies. ret_shard_of_chunk: [table->n_chunks].
 * BL_ELIMIT when a chunk fits nowhere: the sentence gives need and room. */
BL_MUST_CHECK bl_status bl_place_chunks(const bl_tensor_table *table, uint64_t bytes_per_elem,
                                        uint64_t *load_bytes, const uint64_t *capacity_bytes, size_t n_shards,
                                        uint32_t *ret_shard_of_chunk, bl_error *err);

/* Server memory that one float32 weight takes in a job: weights, accumulator, optimizer slots (an average of
 * the weights counts as one more), and frames of up to two versions. */
uint64_t bl_place_bytes_per_elem(uint32_t n_optimizer_slots, bool exact_pull_codec);

#endif
