/* SPDX-License-Identifier: Apache-2.0
 *
 * Job plans for tests of shards and sessions, without a coordinator: a few tensors of odd sizes, chunks
 * dealt out in turn.
 */
#ifndef TESTS_PLAN_H
#define TESTS_PLAN_H

#include "job/plan.h"

typedef struct test_table {
  uint64_t rows, width;
} test_table;

typedef struct test_plan_options {
  uint64_t job, seed;
  uint32_t world, n_shards;
  const uint64_t *tensor_elems; /* NULL: three tensors of 150, 7 and 64 elements; every second is no_decay */
  uint32_t n_tensors;           /* with tensor_elems; 0: tables only */
  const test_table *tables;     /* tensors behind those */
  uint32_t n_tables;
  uint64_t key_cache_bytes;
  uint64_t chunk_elems;         /* 0: 48 */
  const char *optimizer;        /* NULL: "sgd" */
  double lr;                    /* 0: 0.1 */
  double weight_decay;          /* only given when not 0 */
  double clip_value, clip_norm, clip_global_norm;
  double average_ema;
  bool grouped;                 /* t0: half the rate, decay 0.02; t1: decay 0.03; t2: frozen; t3 has no group, ... */
  bl_not_finite not_finite;
  const char *codec_push, *codec_pull; /* NULL: "float32" */
  double momentum_correction;
  bool adapts;
  uint64_t clocks;              /* 0: 10 */
  bl_init_kind init;            /* 0: uniform */
  const char *sync;             /* NULL: "bsp" */
  uint32_t staleness;           /* ssp */
  uint32_t streams;             /* local */
} test_plan_options;

/* Shard i is shard 0 of server "s<i>". Freed with bl_control_free(&plan->base). Asserts that memory is there. */
Ballast__Control__JobPlan *test_plan_new(const test_plan_options *o);

#endif
