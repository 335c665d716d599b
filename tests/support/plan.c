/* SPDX-License-Identifier: Apache-2.0
 *
 * Job plans for tests: built on the stack of this function, then copied.
 */
#include "plan.h"

#include "base/alloc.h"

#include <stdio.h>

#define TENSORS_MAX 16
#define SHARDS_MAX 16

Ballast__Control__JobPlan *test_plan_new(const test_plan_options *o) {
  static const uint64_t default_elems[] = {150, 7, 64};
  const uint64_t *elems = o->tensor_elems != NULL ? o->tensor_elems : default_elems;
  uint32_t n_dense = o->tensor_elems != NULL ? o->n_tensors : 3, n_tensors = n_dense + o->n_tables;
  uint64_t chunk_elems = o->chunk_elems > 0 ? o->chunk_elems : 48;
  BL_ASSERT(n_tensors <= TENSORS_MAX && o->n_shards <= SHARDS_MAX);

  Ballast__Control__Tensor tensors[TENSORS_MAX], *tensor_list[TENSORS_MAX];
  uint64_t dims[TENSORS_MAX][2];
  char names[TENSORS_MAX][24], servers[SHARDS_MAX][16];
  for (uint32_t i = 0; i < n_tensors; i++) {
    ballast__control__tensor__init(&tensors[i]);
    snprintf(names[i], sizeof names[i], "t%u", i);
    tensors[i].name = names[i];
    tensors[i].table = i >= n_dense;
    tensors[i].n_dims = tensors[i].table ? 2 : 1;
    tensors[i].dims = dims[i];
    dims[i][0] = tensors[i].table ? o->tables[i - n_dense].rows : elems[i];
    dims[i][1] = tensors[i].table ? o->tables[i - n_dense].width : 0;
    tensors[i].init = o->init != 0 ? o->init : BL_INIT_UNIFORM;
    tensors[i].init_scale = 0.5f;
    tensors[i].no_decay = i % 2 == 1;
    tensors[i].grouped = o->grouped && i % 4 != 3;
    tensors[i].lr_scale = i % 4 == 0 ? 0.5 : 1;
    tensors[i].weight_decay = i % 4 == 0 ? 0.02 : 0.03;
    tensors[i].frozen = i % 4 == 2;
    tensor_list[i] = &tensors[i];
  }
  Ballast__Control__ShardRef shards[SHARDS_MAX], *shard_list[SHARDS_MAX];
  for (uint32_t i = 0; i < o->n_shards; i++) {
    ballast__control__shard_ref__init(&shards[i]);
    snprintf(servers[i], sizeof servers[i], "s%u", i);
    shards[i].server = servers[i];
    shards[i].endpoint = (char *)"tcp://127.0.0.1:1";
    shard_list[i] = &shards[i];
  }
  Ballast__Control__KeyValue params[2], *param_list[2] = {&params[0], &params[1]};
  ballast__control__key_value__init(&params[0]);
  ballast__control__key_value__init(&params[1]);
  params[0].key = (char *)"lr";
  params[0].value = o->lr > 0 ? o->lr : 0.1;
  params[1].key = (char *)"weight_decay";
  params[1].value = o->weight_decay;
  Ballast__Control__Rule optimizer, schedule;
  ballast__control__rule__init(&optimizer);
  optimizer.name = (char *)(o->optimizer != NULL ? o->optimizer : "sgd");
  optimizer.n_params = o->weight_decay > 0 ? 2 : 1;
  optimizer.params = param_list;
  ballast__control__rule__init(&schedule);
  schedule.name = (char *)"constant";

  Ballast__Control__JobPlan p;
  ballast__control__job_plan__init(&p);
  p.job = o->job;
  p.name = (char *)"test";
  p.seed = o->seed;
  p.world = o->world;
  p.view = 1;
  p.n_incarnations = o->world;
  p.incarnations = bl_calloc(o->world, sizeof(uint32_t));
  p.n_tensors = n_tensors;
  p.tensors = tensor_list;
  p.chunk_elems = chunk_elems;
  p.n_shards = o->n_shards;
  p.shards = shard_list;
  p.codec_push = (char *)(o->codec_push != NULL ? o->codec_push : "float32");
  p.codec_pull = (char *)(o->codec_pull != NULL ? o->codec_pull : "float32");
  p.feedback = true;
  p.not_finite = (uint32_t)o->not_finite;
  p.momentum_correction = o->momentum_correction;
  p.adapts = o->adapts;
  bl_tensor_table *table;
  BL_ASSERT(bl_plan_table(&p, &table, NULL) == BL_OK);
  uint32_t n_chunks = table->n_chunks;
  bl_tensor_table_free(table);
  p.n_chunk_shards = n_chunks;
  p.chunk_shards = bl_calloc(n_chunks, sizeof(uint32_t));
  BL_ASSERT(p.incarnations != NULL && p.chunk_shards != NULL);
  for (uint32_t i = 0; i < o->world; i++)
    p.incarnations[i] = 1;
  for (uint32_t i = 0; i < n_chunks; i++)
    p.chunk_shards[i] = i % o->n_shards;
  p.optimizer = &optimizer;
  p.schedule = &schedule;
  p.clip_value = o->clip_value;
  p.clip_norm = o->clip_norm;
  p.clip_global_norm = o->clip_global_norm;
  p.average_ema = o->average_ema;
  p.sync = (char *)(o->sync != NULL ? o->sync : "bsp");
  p.staleness = o->staleness;
  p.streams = o->streams;
  p.key_cache_bytes = o->key_cache_bytes;
  p.clock_samples = o->world; /* one a rank */
  p.clocks = o->clocks > 0 ? o->clocks : 10;
  Ballast__Control__JobPlan *copy = (Ballast__Control__JobPlan *)bl_control_copy(&p.base);
  BL_ASSERT(copy != NULL);
  bl_free(p.incarnations);
  bl_free(p.chunk_shards);
  return copy;
}
