/* SPDX-License-Identifier: Apache-2.0
 *
 * Shards and sessions over the simulator, with a toy gradient in place of training: a pure function of
 * (weights, rank, clock), so that every run has one right result, computed by a straight line of code.
 */
#ifndef TESTS_DATA_PLANE_H
#define TESTS_DATA_PLANE_H

#include "plan.h"
#include "server/shard.h"
#include "sim.h"

#define DP_SHARDS_MAX 4
#define DP_RANKS_MAX 8

typedef struct dp_options {
  uint64_t seed;
  test_plan_options plan;
  sim_config net;
  uint64_t window_bytes, hold_bytes_max; /* 0: 4 KiB, 64 KiB */
  uint32_t n_crashes;                    /* ranks that die and come back as another incarnation */
  uint32_t n_ghosts;                     /* ranks that are replaced and live on beside their successor */
  uint32_t slow_factor;                  /* rank 0 takes so many times as long as the others; 0: as long */
} dp_options;

typedef struct dp_result {
  uint64_t weights;    /* checksum over what rank 0 holds at the end */
  uint64_t shards;     /* sum of the shards' state checksums */
  uint64_t sim_ns;
  uint64_t lead_max;   /* clocks that a rank pushed ahead of the slowest, on any shard */
  uint64_t others_ns;  /* from the start until the last of the other ranks than 0 had pushed its last clock */
} dp_result;

/* Runs the job to its end and checks all invariants; every failed one is a failed ck_assert naming the seed. */
dp_result dp_run(const dp_options *o);
/* The same weights without cluster, messages and chunks. Free running ranks (plan.sync) have none: their gradients
 * do not depend on the weights there, so that every order of updates must come to nearly the same end. */
uint64_t dp_reference(const dp_options *o);

#endif
