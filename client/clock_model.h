/* SPDX-License-Identifier: Apache-2.0
 *
 * How long a clock would take, for any choice of codecs: what `auto` compares choices by. Pure arithmetic.
 *
 * A rank's clock, all ranks doing the same at the same time:
 *
 *   compute ....................|            tensors become ready from the last to the first within `overlap`; encoding
 *            |......overlap.....|            them takes the computing thread's time
 *              push ================|        one after the other, each when it is ready; the shards add them up meanwhile
 *                                   | pull ==============|   download, decoding, and encoding on the shards overlap chunk by
 *                                                            chunk: the slowest of the three counts
 *
 * Shards are taken to be as fast as this machine.
 */
#ifndef BL_CLIENT_CLOCK_MODEL_H
#define BL_CLIENT_CLOCK_MODEL_H

#include <stdint.h>

/* What a codec does to one element, here. */
typedef struct bl_codec_cost {
  double bytes, encode_ns, decode_ns;
} bl_codec_cost;

typedef struct bl_clock_conditions {
  double compute_ns, overlap_ns, latency_ns;
  double up_ns_per_byte, down_ns_per_byte;
  uint32_t world, n_shards;
  double pull_ns; /* below 0: from the pulls' costs; else they are not this rank's to choose, and take so long */
} bl_clock_conditions;

/* One tensor with the codecs that a choice has for it. Behind them stand those that come before it in the model: tensors
 * are pushed from the last to the first. */
typedef struct bl_clock_tensor {
  uint64_t n_elems;
  const bl_codec_cost *push, *pull;
} bl_clock_tensor;

typedef struct bl_clock_time {
  double total_ns;
  double push_ns; /* of them: from the end of computing and encoding to the last byte of the pushes */
  double pull_ns;
} bl_clock_time;

/* Cost: a few ns per tensor. */
bl_clock_time bl_clock_model(const bl_clock_conditions *c, const bl_clock_tensor *tensors, uint32_t n);

#endif
