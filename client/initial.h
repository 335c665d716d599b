/* SPDX-License-Identifier: Apache-2.0
 *
 * Rank 0 brings the initial values of a job to its shards, before anybody's session begins (JobPlan.initial): exact
 * frames, each chunk named and repeated until acknowledged. A shard that has all of them welcomes a Hello, and gets
 * nothing; so whoever starts anew in the middle sends only what is missing to shards that miss something.
 *
 * A deterministic state machine like the session: the caller feeds it messages and time. Threads: one.
 */
#ifndef BL_CLIENT_INITIAL_H
#define BL_CLIENT_INITIAL_H

#include "job/tensors.h"
#include "wire/data.h"
#include "wire/transport.h"

typedef struct bl_initial bl_initial;

typedef struct bl_initial_config {
  uint64_t job;
  uint32_t incarnation; /* of rank 0 */
  uint64_t view;
  const bl_tensor_table *table;   /* borrowed, as those below */
  const uint32_t *shard_of_chunk; /* [table->n_chunks] */
  uint32_t n_shards;
  bl_transport *const *shards;    /* [n_shards] */
  uint64_t retry_ns;
  float *const *values;           /* [n_tensors] */
} bl_initial_config;

BL_MUST_CHECK bl_status bl_initial_new(const bl_initial_config *config, bl_initial **ret_initial, bl_error *err);
void bl_initial_free(bl_initial *x);

/* A message from shard i; those that are not for it are passed over. */
void bl_initial_on_msg(bl_initial *x, uint32_t shard, bl_msg *msg, uint64_t now_ns);
/* Sends what is due; returns the time of the next repeat. The first call begins. */
uint64_t bl_initial_tick(bl_initial *x, uint64_t now_ns);
void bl_initial_set_view(bl_initial *x, uint64_t view, uint64_t now_ns);

bool bl_initial_is_done(const bl_initial *x);
bl_status bl_initial_status(const bl_initial *x, bl_error *err); /* BL_OK while all is well */

#endif
