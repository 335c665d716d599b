/* SPDX-License-Identifier: Apache-2.0
 *
 * State of a job on a shard. Order of the file: life, entries, arithmetic, wants, checksum.
 */
#include "server/job.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/num.h"
#include "codec/spec.h"
#include "job/choices.h"
#include "kernel/kernel.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define INIT_SLICE_ELEMS (1u << 15) /* a normal deviate costs about 30 ns */
#define INIT_COST 8                 /* against an element of a step */
#define ROWS_COST 8                 /* of an element of a table, found and put back by its key */
#define ROWS_COST_ELEMS 64          /* of looking at a bucket */
#define POOL_KEEP 64
#define SUM_FRAMES_MAX 16           /* added in one pass */
#define ALIGN_ELEMS 16              /* chunks begin on a cache line */

/* ---- life ---------------------------------------------------------------------------------------------- */

static bl_status find_own_shard(const Ballast__Control__JobPlan *plan, const char *server, uint32_t index,
                                uint32_t *ret_shard, bl_error *err) {
  for (size_t i = 0; i < plan->n_shards; i++) {
    if (plan->shards[i]->index == index && strcmp(plan->shards[i]->server, server) == 0) {
      *ret_shard = (uint32_t)i;
      return BL_OK;
    }
  }
  return bl_fail(err, BL_ENOENT, "plan of job %" PRIu64 " does not name shard %u of server '%s'", plan->job, index,
                 server);
}

/* Fills the table's own chunks; returns the number of float32 elements that the dense ones take with alignment. */
static uint64_t take_chunks(srv_job *j, uint32_t shard) {
  uint64_t elems = 0;
  uint32_t n = 0;
  for (uint32_t id = 0; id < j->table->n_chunks; id++) {
    if (j->plan->chunk_shards[id] != shard)
      continue;
    const bl_chunk *c = &j->table->chunks[id];
    j->chunks[n] = (srv_chunk){.id = id, .tensor = c->tensor, .n_elems = c->n_elems, .version = j->clock};
    j->local_of[id] = n++;
    if (j->table->tensors[c->tensor].table)
      continue;
    j->n_dense++;
    elems += bl_div_up_u64(c->n_elems, ALIGN_ELEMS) * ALIGN_ELEMS;
  }
  return elems;
}

static bool is_bucket(const srv_job *j, const srv_chunk *c) { return j->table->tensors[c->tensor].table; }

static void point_into_blocks(srv_job *j) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < j->n_chunks; i++) {
    srv_chunk *c = &j->chunks[i];
    if (is_bucket(j, c))
      continue;
    c->weights = j->weights + at;
    c->versions.policy = &j->table->tensors[c->tensor].policy;
    c->versions.pull = c->versions.policy->pull;
    c->versions.chunk = c->id;
    if (j->base != NULL)
      c->versions.room = j->base + at;
    if (!bl_codec_spec_is_exact(&c->versions.pull))
      c->versions.base = c->versions.room;
    if (j->average != NULL)
      c->average = j->average + at;
    for (uint32_t s = 0; s < j->optim.rule->n_slots; s++)
      c->slots[s] = j->slots[s] + at;
    at += bl_div_up_u64(c->n_elems, ALIGN_ELEMS) * ALIGN_ELEMS;
  }
}

static bl_status allocate_numbers(srv_job *j, uint64_t elems) {
  uint32_t n_blocks = 1;
  if (elems == 0) /* tables only */
    return BL_OK;
  if ((j->weights = bl_calloc_aligned(elems, sizeof(float))) == NULL)
    return BL_ENOMEM;
  if (!j->pulls_exactly) {
    n_blocks++;
    j->base = bl_calloc_aligned(elems, sizeof(float));
    j->env.scratch = bl_calloc_aligned(j->table->chunk_elems, sizeof(float));
    j->env.rest = bl_calloc_aligned(j->table->chunk_elems, sizeof(float));
    if (j->base == NULL || j->env.scratch == NULL || j->env.rest == NULL)
      return BL_ENOMEM;
  }
  if (j->plan->average_ema > 0) {
    n_blocks++;
    if ((j->average = bl_calloc_aligned(elems, sizeof(float))) == NULL)
      return BL_ENOMEM;
  }
  for (uint32_t s = 0; s < j->optim.rule->n_slots; s++, n_blocks++)
    if ((j->slots[s] = bl_calloc_aligned(elems, sizeof(float))) == NULL)
      return BL_ENOMEM;
  point_into_blocks(j);
  j->memory_bytes += elems * sizeof(float) * n_blocks;
  return BL_OK;
}

/* Buckets: nothing in them yet. */
static bl_status allocate_rows(srv_job *j) {
  if (j->n_dense == j->n_chunks)
    return BL_OK;
  j->rows = (srv_rows_env){.table = j->table,
                           .pools = &j->pools,
                           .seed = j->seed,
                           .world = j->world,
                           .keeps_previous = j->env.keeps_previous,
                           .memory_bytes = &j->memory_bytes,
                           .memory_bytes_max = j->limits.memory_bytes_max};
  srv_key_cache_init(&j->rows.cache, j->plan->key_cache_bytes);
  bl_status st = srv_rows_env_init(&j->rows, j->optim.rule->n_slots);
  for (uint32_t i = 0; st == BL_OK && i < j->n_chunks; i++) {
    srv_chunk *c = &j->chunks[i];
    if (!is_bucket(j, c))
      continue;
    c->n_inited = c->n_elems;
    j->n_opened++;
    if ((c->rows = srv_rows_new(&j->rows, c->id, j->optim.rule->n_slots)) == NULL)
      st = BL_ENOMEM;
  }
  return st;
}

static bl_status allocate_cells(srv_job *j) {
  uint64_t n_cells, n_ready;
  if (!bl_mul_u64(j->n_chunks, j->world, &n_cells) || !bl_mul_u64(n_cells, sizeof(srv_cell), &n_ready))
    return BL_ENOMEM;
  j->cells = bl_calloc(n_cells, sizeof *j->cells);
  j->ranks = bl_calloc(j->world, sizeof *j->ranks);
  if (j->adapts && (j->chosen_at = bl_calloc(j->table->n_tensors, sizeof *j->chosen_at)) == NULL)
    return BL_ENOMEM;
  j->work = bl_calloc(j->n_chunks, sizeof *j->work);
  if (j->cells == NULL || j->ranks == NULL || j->work == NULL)
    return BL_ENOMEM;
  if (!j->rule->in_step) {
    j->n_updates_max = j->world + 1;
    j->updates = bl_calloc(j->n_updates_max, sizeof *j->updates);
    if (j->updates == NULL)
      return BL_ENOMEM;
  }
  for (uint32_t r = 0; r < j->world; r++) {
    j->ranks[r].incarnation = j->plan->incarnations[r];
    j->ranks[r].clock = j->start_clock;
    j->ranks[r].n_needed = j->clock;
    j->ranks[r].ready = bl_calloc(j->n_chunks, sizeof(uint32_t));
    if (j->ranks[r].ready == NULL)
      return BL_ENOMEM;
  }
  if (j->plan->clip_global_norm > 0) {
    if (srv_norms_init(&j->norms, j->n_chunks) != BL_OK)
      return BL_ENOMEM;
    j->memory_bytes += j->n_chunks * sizeof *j->norms.squares;
  }
  j->memory_bytes += n_cells * (sizeof(srv_cell) + sizeof(uint32_t)) + j->n_chunks * sizeof(srv_chunk);
  return BL_OK;
}

static void enqueue_work(srv_job *j, uint32_t local) {
  if (j->chunks[local].queued)
    return;
  j->chunks[local].queued = true;
  j->work[(j->work_first + j->n_work++) % j->n_chunks] = local;
}

/* Ranks whose gradients make an update. */
static uint32_t n_parts(const srv_job *j) { return j->rule->in_step ? j->world : 1; }

static bool pushes_exactly(const srv_job *j) {
  for (uint32_t i = 0; i < j->table->n_tensors; i++)
    if (j->table->tensors[i].policy.push.codec->id != BL_CODEC_FLOAT32)
      return false;
  return true;
}

static bl_status read_plan(srv_job *j, const Ballast__Control__JobPlan *plan, bl_error *err) {
  j->plan = (Ballast__Control__JobPlan *)bl_control_copy(&plan->base);
  if (j->plan == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the plan of job %" PRIu64, plan->job);
  bl_status st = bl_plan_table(j->plan, &j->table, err);
  if (st == BL_OK)
    st = bl_plan_check(j->plan, j->table, err);
  if (st == BL_OK)
    st = bl_plan_optim(j->plan, &j->optim, err);
  if (st != BL_OK)
    return st;
  j->rule = srv_rule_by_name(plan->sync);
  if (j->rule == NULL)
    return bl_fail(err, BL_EUNSUPPORTED, "job %" PRIu64 ": this server does not know sync '%s'", plan->job,
                   plan->sync);
  j->id = plan->job;
  j->view = plan->view;
  j->seed = plan->seed;
  j->world = plan->world;
  j->start_clock = j->slowest = plan->start_clock;
  if (!bl_mul_u64(plan->start_clock, j->rule->in_step ? 1 : plan->world, &j->clock) ||
      !bl_mul_u64(plan->start_clock, plan->clock_samples, &j->n_samples))
    return bl_fail(err, BL_ELIMIT, "job %" PRIu64 " starts at clock %" PRIu64 " of %u ranks: too many to count",
                   plan->job, plan->start_clock, plan->world);
  j->staleness = plan->staleness;
  j->favoured = SRV_NO_RANK;
  j->clip_value = (float)plan->clip_value;
  j->skips = plan->not_finite == BL_NOT_FINITE_SKIP;
  j->scales = plan->clip_norm > 0;
  j->adapts = plan->adapts;
  j->pulls_exactly = !j->adapts && bl_tensor_table_pulls_exactly(j->table);
  j->direct = n_parts(j) == 1 && pushes_exactly(j) && !j->adapts && !j->scales && !(plan->clip_value > 0) &&
              !(plan->clip_global_norm > 0);
  return BL_OK;
}

static size_t frame_bytes_max(const srv_job *j, uint32_t local, const bl_codec_spec *spec) {
  return srv_versions_frame_bytes_max(spec, srv_job_tensor(j, local)->policy.warmup_epochs, j->chunks[local].n_elems);
}

static bl_status allocate(srv_job *j, uint32_t shard) {
  for (uint32_t id = 0; id < j->table->n_chunks; id++)
    j->n_chunks += j->plan->chunk_shards[id] == shard;
  j->local_of = bl_malloc((size_t)j->table->n_chunks * sizeof *j->local_of);
  j->chunks = bl_calloc(j->n_chunks, sizeof *j->chunks);
  if (j->local_of == NULL || j->chunks == NULL)
    return BL_ENOMEM;
  memset(j->local_of, 0xff, (size_t)j->table->n_chunks * sizeof *j->local_of);
  uint64_t elems = take_chunks(j, shard);
  size_t largest = bl_codec_bound_bytes(&bl_codec_spec_exact, (uint32_t)j->table->chunk_elems);
  for (uint32_t i = 0; i < j->n_chunks; i++)
    largest = BL_MAX(largest, frame_bytes_max(j, i, &srv_job_tensor(j, i)->policy.pull));
  bl_codec_spec widest = {.codec = bl_codec_by_id(BL_CODEC_TOPK), .density = 1}; /* of all that may be chosen */
  for (uint32_t i = 0; i < j->n_chunks && j->adapts; i++)
    largest = BL_MAX(largest, frame_bytes_max(j, i, &widest));
  if (j->n_dense < j->n_chunks)
    largest = BL_MAX(largest, srv_rows_frame_bytes_max(j->table));
  /* What is kept beyond the next clock stays warm; what is given up once sent only needs a few. */
  size_t keep = j->env.keeps_previous || !j->pulls_exactly ? (size_t)j->n_chunks * 2 + POOL_KEEP : POOL_KEEP;
  bl_status st = bl_frame_pools_init(&j->pools, largest, keep);
  if (st == BL_OK)
    st = allocate_cells(j);
  if (st == BL_OK)
    st = allocate_numbers(j, elems);
  if (st == BL_OK)
    st = allocate_rows(j);
  return st;
}

bl_status srv_job_new(const Ballast__Control__JobPlan *plan, const char *server, uint32_t index,
                      const srv_job_limits *limits, srv_job **ret_job, bl_error *err) {
  uint32_t shard = 0;
  srv_job *j = bl_calloc(1, sizeof *j);
  if (j == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for job %" PRIu64, plan->job);
  j->limits = *limits;
  bl_status st = read_plan(j, plan, err);
  if (st == BL_OK)
    st = find_own_shard(plan, server, index, &shard, err);
  if (st != BL_OK)
    goto fail;
  j->env = (srv_versions_env){.seed = j->seed,
                              .epoch_clocks = plan->epoch_clocks * (j->rule->in_step ? 1 : j->world),
                              .is_shared = j->world > 1,
                              .keeps_previous =
                                  j->rule->in_step && (j->world > 1 || plan->n_shards > 1 || !j->pulls_exactly),
                              .n_deltas_max = j->rule->in_step ? 1 : SRV_DELTAS_MAX,
                              .pools = &j->pools};
  st = allocate(j, shard);
  if (st == BL_OK && !j->rule->in_step && (j->env.empty = bl_frame_new(0)) == NULL)
    st = BL_ENOMEM;
  if (st != BL_OK) {
    bl_fail(err, st, "job %" PRIu64 ": no memory for %u chunks of %u ranks on shard %u", j->id, j->n_chunks,
            j->world, index);
    goto fail;
  }
  j->state = j->n_opened == j->n_chunks ? SRV_JOB_OPEN : plan->initial ? SRV_JOB_AWAITS : SRV_JOB_OPENING;
  for (uint32_t i = 0; i < j->n_chunks && j->state != SRV_JOB_AWAITS; i++)
    enqueue_work(j, i);
  *ret_job = j;
  return BL_OK;
fail:
  srv_job_free(j);
  return st;
}

void srv_job_free(srv_job *j) {
  if (j == NULL)
    return;
  for (uint64_t i = 0; j->cells != NULL && i < (uint64_t)j->n_chunks * j->world; i++)
    bl_frame_unref(j->cells[i].held);
  for (uint32_t i = 0; j->chunks != NULL && i < j->n_chunks; i++) {
    srv_versions_fini(&j->chunks[i].versions);
    bl_free_aligned(j->chunks[i].sum);
    srv_rows_free(j->chunks[i].rows, &j->rows);
  }
  srv_rows_env_fini(&j->rows);
  for (uint32_t r = 0; j->ranks != NULL && r < j->world; r++)
    bl_free(j->ranks[r].ready);
  bl_free(j->ranks);
  bl_free(j->updates);
  bl_free(j->chosen_at);
  srv_norms_fini(&j->norms);
  bl_free(j->cells);
  bl_free(j->work);
  bl_free(j->chunks);
  bl_free(j->local_of);
  bl_free_aligned(j->weights);
  bl_free_aligned(j->base);
  bl_free_aligned(j->average);
  bl_free_aligned(j->env.scratch);
  bl_free_aligned(j->env.rest);
  bl_frame_unref(j->env.empty);
  for (uint32_t s = 0; s < BL_OPTIM_SLOTS_MAX; s++)
    bl_free_aligned(j->slots[s]);
  bl_frame_pools_fini(&j->pools);
  bl_tensor_table_free(j->table);
  if (j->plan != NULL)
    bl_control_free(&j->plan->base);
  bl_free(j);
}

uint32_t srv_job_local(const srv_job *j, uint32_t chunk_id) {
  return chunk_id < j->table->n_chunks ? j->local_of[chunk_id] : SRV_NO_CHUNK;
}

bool srv_job_takes(const srv_job *j, uint32_t local, const bl_codec_view *view) {
  const bl_codec_spec *spec = &srv_job_tensor(j, local)->policy.push;
  return (view->flags & BL_CODEC_REPLACE) == 0 &&
         (j->adapts || view->codec == spec->codec || (spec->zstd && view->codec->id == BL_CODEC_ZSTD));
}

uint64_t srv_job_oldest(const srv_job *j) {
  return j->rule->in_step ? srv_versions_oldest(&j->env, j->clock, j->start_clock) : 0;
}

uint64_t srv_job_table_rows(const srv_job *j) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < j->n_chunks && j->n_dense < j->n_chunks; i++)
    n += j->chunks[i].rows != NULL ? j->chunks[i].rows->table.n_rows : 0;
  return n;
}

void srv_job_fail(srv_job *j, bl_status status, const char *fmt, ...) {
  if (j->state == SRV_JOB_FAILED)
    return;
  va_list args;
  va_start(args, fmt);
  vsnprintf(j->text, sizeof j->text, fmt, args);
  va_end(args);
  j->status = status;
  j->state = SRV_JOB_FAILED;
}

/* ---- entries ------------------------------------------------------------------------------------------- */

bl_status srv_job_check_view(const srv_job *j, const Ballast__Control__JobPlan *plan, bl_error *err) {
  bool same = plan->world == j->world && plan->n_incarnations == j->world && plan->seed == j->seed &&
              plan->n_chunk_shards == j->plan->n_chunk_shards && plan->n_shards == j->plan->n_shards &&
              memcmp(plan->chunk_shards, j->plan->chunk_shards, plan->n_chunk_shards * sizeof(uint32_t)) == 0;
  if (!same)
    return bl_fail(err, BL_EMISMATCH, "view %" PRIu64 " of job %" PRIu64 " changes more than incarnations",
                   plan->view, j->id);
  for (uint32_t r = 0; r < j->world; r++)
    if (plan->incarnations[r] == UINT32_MAX)
      return bl_fail(err, BL_EINVAL, "view %" PRIu64 " of job %" PRIu64 ": incarnation of rank %u is beyond the last",
                     plan->view, j->id, r);
  return BL_OK;
}

static void drop_held(srv_job *j, srv_cell *cell);

/* What a free running rank's incarnation has pushed for its open clock goes with it: the next one works with other
 * weights, and a clock's gradient must be of one piece. (In bsp it would push the same bytes again.) */
static void forget_open_clock(srv_job *j, uint32_t r) {
  srv_rank *rank = &j->ranks[r];
  unsigned parity = rank->clock & 1;
  if (j->rule->in_step || rank->clock == BL_CLOCK_FINISHED)
    return;
  for (uint32_t i = 0; i < j->n_chunks; i++) {
    srv_cell *cell = srv_job_cell(j, i, r);
    if (cell->seen[parity].by == 0 || cell->seen[parity].clock != (uint32_t)rank->clock)
      continue; /* what is held then is of an update that is complete */
    cell->seen[parity].by = 0;
    drop_held(j, cell);
    if (j->chunks[i].rows != NULL)
      srv_rows_drop(j->chunks[i].rows, r);
  }
  rank->n_seen = rank->n_buckets_seen = 0;
  rank->committed[parity] = 0;
}

static void apply_view(srv_job *j, const Ballast__Control__JobPlan *plan) {
  j->view = plan->view;
  for (uint32_t r = 0; r < j->world; r++) {
    srv_rank *rank = &j->ranks[r];
    if (rank->incarnation == plan->incarnations[r])
      continue;
    rank->incarnation = plan->incarnations[r];
    rank->has_peer = false;
    forget_open_clock(j, r);
    rank->norms_want = 0;
    for (uint32_t i = 0; i < j->n_chunks; i++) { /* what the one before had asked for, and held */
      srv_job_cell(j, i, r)->want = 0;
      srv_job_cell(j, i, r)->have = 0;
      if (j->chunks[i].rows != NULL)
        srv_rows_leave(j->chunks[i].rows, r);
    }
    rank->gate = 0;
    if (j->favoured == r)
      j->favoured = SRV_NO_RANK;
  }
}

/* Whose gradient the chunk's next update takes next; SRV_NO_RANK: nobody's, or not yet known. */
static uint32_t next_rank(const srv_job *j, const srv_chunk *c) {
  if (j->rule->in_step)
    return c->n_added < j->world ? c->n_added : SRV_NO_RANK;
  return c->n_added == 0 && c->version < j->clock ? j->updates[c->version % j->n_updates_max].rank : SRV_NO_RANK;
}

/* The clock that a chunk's next update has for the rank. */
static uint64_t clock_of_update(const srv_job *j, const srv_chunk *c) {
  return j->rule->in_step ? c->version : j->updates[c->version % j->n_updates_max].clock;
}

/* Gradients of a frozen tensor are taken, so that the conversation is the same, and dropped. */
static bool is_frozen(const srv_job *j, const srv_chunk *c) { return j->table->tensors[c->tensor].group.frozen; }

/* The sum takes a rank's bytes when its turn has come and, with scaling, its factor is known. */
static bool may_add(srv_job *j, const srv_chunk *c, uint32_t local, uint32_t rank) {
  return (!j->direct || c->rows != NULL) && rank != SRV_NO_RANK && rank == next_rank(j, c) &&
         srv_job_cell(j, local, rank)->held != NULL &&
         (!j->scales || j->ranks[rank].committed[clock_of_update(j, c) & 1] != 0);
}

/* The rank's open clock has all that it will bring. */
static bool is_rank_complete(const srv_rank *rank) {
  unsigned parity = rank->clock & 1;
  return rank->committed[parity] != 0 && rank->n_seen == rank->n_pushed[parity];
}

/* Is it known that the rank whose turn it is brings nothing of this bucket? Of free running ranks an update is complete. */
static bool may_skip(const srv_job *j, const srv_chunk *c, uint32_t local) {
  uint32_t r = next_rank(j, c);
  if (c->rows == NULL || r == SRV_NO_RANK || j->cells[(size_t)local * j->world + r].held != NULL)
    return false;
  return c->version < j->clock || is_rank_complete(&j->ranks[r]);
}

static void set_rank_clock(srv_rank *rank, uint64_t clock) {
  rank->clock = clock;
  rank->n_seen = rank->n_buckets_seen = 0;
  rank->committed[clock & 1] = 0;
}

static void work_on_all(srv_job *j) {
  for (uint32_t i = 0; i < j->n_chunks; i++)
    enqueue_work(j, i);
}

/* One rank's gradient that is not finite spoils the sum: nobody's is applied. */
static void judge_clock(srv_job *j) {
  bool skipped = false;
  for (uint32_t r = 0; r < j->world; r++)
    skipped |= j->ranks[r].not_finite[j->clock & 1];
  j->skipped[j->clock & 1] = skipped ? j->clock + 1 : 0;
  j->n_skipped += skipped;
}

bool srv_job_was_skipped(const srv_job *j, uint64_t version) {
  return j->rule->in_step && version > 0 && j->skipped[(version - 1) & 1] == version;
}

/* Does the chunk's next update change nothing? */
static bool is_skipped(const srv_job *j, const srv_chunk *c) {
  return j->rule->in_step ? srv_job_was_skipped(j, c->version + 1) : j->updates[c->version % j->n_updates_max].skipped;
}

static void next_clock(srv_job *j, uint64_t lsn) {
  judge_clock(j);
  j->clock++;
  j->clock_lsn = lsn;
  j->n_ranks_complete = 0;
  if (j->norms.squares != NULL)
    srv_norms_open_clock(&j->norms, j->clock);
  for (uint32_t r = 0; r < j->world; r++)
    set_rank_clock(&j->ranks[r], j->clock);
  work_on_all(j);
}

static void mark_ready(srv_job *j, uint32_t local, uint32_t r);

static void mark_if_answerable(srv_job *j, uint32_t local, uint32_t r) {
  if (srv_job_cell(j, local, r)->want != 0 && srv_job_is_answerable(j, local, r))
    mark_ready(j, local, r);
}

/* The slowest rank may have gone on: whoever waited for it may too. */
static void find_slowest(srv_job *j, uint64_t lsn) {
  uint64_t slowest = BL_CLOCK_FINISHED;
  for (uint32_t r = 0; r < j->world; r++)
    slowest = BL_MIN(slowest, j->ranks[r].clock);
  if (slowest == j->slowest)
    return;
  j->slowest = slowest;
  j->slowest_lsn = lsn;
  for (uint32_t r = 0; r < j->world; r++)
    for (uint32_t i = 0; i < j->n_chunks && j->ranks[r].has_peer; i++)
      mark_if_answerable(j, i, r);
}

/* A free running rank's clock is complete: it becomes the next update. */
static void next_update(srv_job *j, uint32_t r, uint64_t lsn) {
  srv_rank *rank = &j->ranks[r];
  j->updates[j->clock % j->n_updates_max] = (srv_update){r, rank->clock, j->n_samples / j->plan->clock_samples,
                                                           rank->not_finite[rank->clock & 1]};
  j->n_skipped += rank->not_finite[rank->clock & 1];
  j->n_samples += BL_MIN(rank->n_samples, UINT64_MAX - j->n_samples);
  rank->n_needed = ++j->clock;
  j->clock_lsn = lsn;
  if (j->favoured == r)
    j->favoured = SRV_NO_RANK;
  set_rank_clock(rank, rank->clock + 1);
  work_on_all(j);
  find_slowest(j, lsn);
}

static void count_complete(srv_job *j, uint32_t r, uint64_t lsn) {
  if (!is_rank_complete(&j->ranks[r]))
    return;
  if (!j->rule->in_step)
    next_update(j, r, lsn);
  else if (++j->n_ranks_complete == j->world)
    next_clock(j, lsn);
  else
    for (uint32_t i = 0; i < j->n_chunks && j->n_dense < j->n_chunks; i++)
      if (may_skip(j, &j->chunks[i], i)) /* who comes behind this rank need not wait for it there */
        enqueue_work(j, i);
}

static void settle(srv_job *j, uint32_t local);

bool srv_job_in_clock(const srv_job *j, uint32_t local, uint64_t clock) {
  return !j->rule->in_step || bl_tensor_in_clock(j->table, j->chunks[local].tensor, clock);
}

uint32_t srv_job_n_dense(const srv_job *j, uint64_t clock) {
  uint32_t n = 0;
  if (j->table->n_streams <= 1)
    return j->n_dense;
  for (uint32_t i = 0; i < j->n_chunks; i++)
    n += srv_job_in_clock(j, i, clock);
  return n;
}

bool srv_job_is_new(const srv_job *j, uint32_t local, uint32_t rank, uint64_t clock) {
  const srv_cell *cell = &j->cells[(size_t)local * j->world + rank];
  unsigned parity = clock & 1;
  bool is_there = cell->seen[parity].by != 0 && cell->seen[parity].clock == (uint32_t)clock;
  return clock == j->ranks[rank].clock && clock != BL_CLOCK_FINISHED && !is_there;
}

static void apply_push(srv_job *j, const srv_entry *e) {
  uint32_t local = srv_job_local(j, e->chunk);
  srv_chunk *c = &j->chunks[local];
  srv_cell *cell = srv_job_cell(j, local, e->rank);
  unsigned parity = e->clock & 1;
  if (!srv_job_is_new(j, local, e->rank, e->clock) || c->version != j->clock || cell->held != NULL) {
    if (c->rows != NULL)
      srv_rows_unstage(c->rows, e->rank);
    return;
  }
  srv_rank *rank = &j->ranks[e->rank];
  if (c->rows != NULL)
    srv_rows_hold(c->rows, e->rank);
  cell->seen[parity].clock = (uint32_t)e->clock;
  cell->seen[parity].by = e->incarnation + 1;
  cell->held = bl_frame_ref(e->frame);
  j->held_bytes += e->frame->size;
  rank->n_seen++;
  rank->n_buckets_seen += c->rows != NULL;
  if (may_add(j, c, local, e->rank))
    settle(j, local);
  count_complete(j, e->rank, e->lsn);
}

/* The factor follows from the norms, which are the same for all. */
static bool scales_agree(const srv_job *j, uint32_t rank, unsigned parity) {
  for (uint32_t r = 0; r < j->world; r++)
    if (j->ranks[r].committed[parity] != 0 && !j->ranks[r].not_finite[parity] && !j->ranks[rank].not_finite[parity] &&
        j->ranks[r].scale[parity] != j->ranks[rank].scale[parity])
      return false;
  return true;
}

#define CHOICES_APART 8 /* updates, and one per rank: nothing that is open is older */

/* Holds from the next update on that is not complete yet. Of choices that come too soon one behind the other the first
 * stands, whatever the chunks have come to: that must not show. */
static void on_choice(uint32_t tensor, const bl_codec_spec *spec, void *arg) {
  srv_job *j = arg;
  if (j->chosen_at[tensor] != 0 && j->clock < j->chosen_at[tensor] + CHOICES_APART + j->world)
    return;
  j->chosen_at[tensor] = j->clock + 1;
  for (uint32_t i = 0; i < j->n_chunks; i++)
    if (j->chunks[i].tensor == tensor && frame_bytes_max(j, i, spec) <= j->pools.capacity[j->pools.n - 1])
      srv_versions_choose(&j->chunks[i].versions, spec, j->clock + 1);
}

static void apply_commit(srv_job *j, const srv_entry *e) {
  srv_rank *rank = &j->ranks[e->rank];
  unsigned parity = e->clock & 1;
  if (e->clock != rank->clock || e->clock == BL_CLOCK_FINISHED || rank->committed[parity] != 0)
    return;
  if (e->not_finite && !j->skips) {
    srv_job_fail(j, BL_ENOTFINITE,
                 "rank %u met a NaN or an infinity in clock %" PRIu64
                 ": the learning rate may be too high, or the data wrong",
                 e->rank, e->clock);
    return;
  }
  if (e->finished) {
    if (j->favoured == e->rank)
      j->favoured = SRV_NO_RANK;
    rank->clock = BL_CLOCK_FINISHED;
    find_slowest(j, e->lsn);
    return;
  }
  rank->committed[parity] = e->incarnation + 1;
  rank->scale[parity] = e->scale;
  rank->not_finite[parity] = e->not_finite;
  rank->n_pushed[parity] = e->n_chunks;
  rank->n_samples = e->n_samples;
  if (e->frame != NULL && j->adapts)
    (void)!bl_choices_read((const char *)e->frame->data, e->frame->size, j->table, on_choice, j, NULL); /* read before */
  if (j->norms.squares != NULL && !scales_agree(j, e->rank, parity)) {
    srv_job_fail(j, BL_EMISMATCH, "rank %u clips clock %" PRIu64 " by the factor %.9g, other ranks by another: they have not "
                 "seen the same norms", e->rank, e->clock, (double)e->scale);
    return;
  }
  if (j->scales && j->rule->in_step)
    for (uint32_t i = 0; i < j->n_chunks; i++)
      if (may_add(j, &j->chunks[i], i, e->rank))
        enqueue_work(j, i);
  count_complete(j, e->rank, e->lsn);
}

static void chunk_is_inited(srv_job *j, srv_chunk *c);

bool srv_job_is_inited(const srv_job *j, uint32_t local) { return j->chunks[local].n_inited == j->chunks[local].n_elems; }

/* The first to come stands: a rank 0 that starts anew reads the same file. */
static void apply_initial(srv_job *j, const srv_entry *e) {
  uint32_t local = srv_job_local(j, e->chunk);
  srv_chunk *c = &j->chunks[local];
  if (j->state != SRV_JOB_AWAITS || srv_job_is_inited(j, local))
    return;
  bl_codec_view view = bl_codec_trusted(e->frame->data, e->frame->size); /* opened before it was logged */
  view.codec->decode(&view, c->weights);
  c->n_inited = c->n_elems;
  chunk_is_inited(j, c);
}

void srv_job_apply(srv_job *j, const srv_entry *e) {
  if (j->state == SRV_JOB_FAILED)
    return;
  switch (e->kind) {
  case SRV_ENTRY_VIEW:
    apply_view(j, e->plan);
    break;
  case SRV_ENTRY_PUSH:
    apply_push(j, e);
    break;
  case SRV_ENTRY_COMMIT:
    apply_commit(j, e);
    break;
  case SRV_ENTRY_INITIAL:
    apply_initial(j, e);
    break;
  case SRV_ENTRY_OPEN:  /* opening and closing are the shard's */
  case SRV_ENTRY_CLOSE:
    break;
  }
}

/* A chunk whose step is still due takes no push of the next clock. */
bl_status srv_job_catch_up(srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  while (c->version < j->clock && j->state != SRV_JOB_FAILED) {
    uint64_t version = c->version;
    uint32_t n_added = c->n_added;
    settle(j, local);
    if (c->version == version && c->n_added == n_added)
      return BL_ENOMEM;
  }
  return j->state == SRV_JOB_FAILED ? j->status : BL_OK;
}

/* Whose frames must never be refused, or all would wait for ever: in step the next in order. Free running ranks
 * are held until their commit, so one of them, the first that began, must be able to come that far. */
static bool is_always_admitted(srv_job *j, const srv_chunk *c, uint32_t rank) {
  if (j->rule->in_step)
    return next_rank(j, c) == rank;
  if (j->favoured == SRV_NO_RANK)
    j->favoured = rank;
  return j->favoured == rank;
}

bl_status srv_job_admit_rows(srv_job *j, uint32_t local, uint32_t rank, srv_keys *keys, size_t frame_bytes,
                             bl_error *err) {
  bl_status st = srv_job_catch_up(j, local);
  if (st != BL_OK)
    return bl_fail(err, st, "%s", j->state == SRV_JOB_FAILED ? j->text : "no memory to apply what came before");
  srv_chunk *c = &j->chunks[local];
  if (frame_bytes > 0 && !is_always_admitted(j, c, rank) && j->held_bytes + frame_bytes > j->limits.hold_bytes_max)
    return bl_fail(err, BL_EAGAIN, "no room to hold it now");
  return srv_rows_stage(c->rows, &j->rows, rank, keys, err);
}

bl_status srv_job_admit_push(srv_job *j, uint32_t local, uint32_t rank, size_t frame_bytes) {
  bl_status st = srv_job_catch_up(j, local);
  if (st != BL_OK)
    return st;
  srv_chunk *c = &j->chunks[local];
  if (c->sum == NULL && !j->direct && !is_frozen(j, c)) {
    if ((c->sum = bl_calloc_aligned(c->n_elems, sizeof(float))) == NULL)
      return BL_ENOMEM;
    j->memory_bytes += (uint64_t)c->n_elems * sizeof(float);
  }
  if (!is_always_admitted(j, c, rank) && j->held_bytes + frame_bytes > j->limits.hold_bytes_max)
    return BL_EAGAIN;
  return BL_OK;
}

/* A rank's next push brings a chunk up to date first, so that as a rule no more updates than ranks are open; only
 * chunks that nobody pushes can lag behind further. A bucket may not be pushed for many clocks while a frame is held
 * for it, whose factor is known for two clocks only. */
bl_status srv_job_admit_commit(srv_job *j) {
  if (j->rule->in_step && j->n_dense == j->n_chunks)
    return BL_OK;
  for (uint32_t i = 0; i < j->n_chunks; i++) {
    const srv_chunk *c = &j->chunks[i];
    uint64_t lag = j->clock - c->version, lag_max = c->rows != NULL ? 0 : j->rule->in_step ? 1 : j->world - 1;
    if (lag > lag_max && srv_job_catch_up(j, i) == BL_ENOMEM)
      return BL_ENOMEM;
  }
  return BL_OK;
}

/* ---- arithmetic ---------------------------------------------------------------------------------------- */

static void drop_held(srv_job *j, srv_cell *cell) {
  j->held_bytes -= cell->held->size;
  bl_frame_unref(cell->held);
  cell->held = NULL;
}

/* The sum is rank 0's values, then + rank 1's, ...: the first is stored, so that no sum needs clearing. */
static void add_scaled(srv_job *j, srv_chunk *c, uint32_t local, uint32_t r) {
  srv_cell *cell = srv_job_cell(j, local, r);
  float scale = j->ranks[r].scale[clock_of_update(j, c) & 1];
  bl_codec_view view = bl_codec_trusted(cell->held->data, cell->held->size); /* opened before it was logged */
  if (c->n_added > 0) {
    view.codec->accumulate(&view, scale, c->sum);
    return;
  }
  view.codec->decode(&view, c->sum);
  if (scale != 1.0f)
    bl_kernels_get()->scale(c->sum, scale, c->n_elems);
}

/* How many ranks from r on have their frames here, in the order in which they are added. */
static uint32_t n_held_from(srv_job *j, uint32_t local, uint32_t r) {
  uint32_t n = 1;
  while (j->rule->in_step && n < SUM_FRAMES_MAX && r + n < j->world && srv_job_cell(j, local, r + n)->held != NULL)
    n++;
  return n;
}

/* Frames of several ranks in one pass: the bits are those of one after the other. */
static void add_frames(srv_job *j, srv_chunk *c, uint32_t local, uint32_t r, uint32_t n) {
  bl_codec_view views[SUM_FRAMES_MAX];
  for (uint32_t i = 0; i < n; i++) {
    const bl_frame *held = srv_job_cell(j, local, r + i)->held;
    views[i] = bl_codec_trusted(held->data, held->size); /* opened before it was logged */
  }
  bl_codec_sum(views, n, c->n_added == 0, c->sum);
}

/* The rank whose turn it is, and with it those behind it that can be added in the same pass. */
static void add_ranks(srv_job *j, srv_chunk *c, uint32_t local, uint32_t r) {
  uint32_t n = 1;
  if (c->rows != NULL)
    srv_rows_add(c->rows, &j->rows, r, srv_job_cell(j, local, r)->held,
                 j->scales ? j->ranks[r].scale[clock_of_update(j, c) & 1] : 1.0f);
  else if (j->scales && !is_frozen(j, c))
    add_scaled(j, c, local, r);
  else if (!is_frozen(j, c))
    add_frames(j, c, local, r, n = n_held_from(j, local, r));
  for (uint32_t i = 0; i < n; i++)
    drop_held(j, srv_job_cell(j, local, r + i));
  c->n_added += n;
  if (c->rows == NULL && j->norms.squares != NULL && c->n_added == j->world)
    srv_norms_put(&j->norms, local, c->version,
                  is_frozen(j, c) ? 0 : bl_kernels_get()->sum_squares(c->sum, c->n_elems));
}

/* What the optimizer steps by. Of a rank by itself it is read where the network put it: float32 payloads are
 * numbers. */
static const float *gradient(srv_job *j, const srv_chunk *c, uint32_t local) {
  if (!j->direct)
    return c->sum;
  return (const float *)(const void *)(srv_job_cell(j, local, next_rank(j, c))->held->data + BL_CODEC_HEADER_BYTES);
}

/* All that the chunk's next update is made of is there. */
static bool may_step(const srv_job *j, const srv_chunk *c) {
  return c->version < j->clock && ((j->direct && c->rows == NULL) || c->n_added == n_parts(j));
}

static void mark_ready(srv_job *j, uint32_t local, uint32_t r) {
  srv_cell *cell = srv_job_cell(j, local, r);
  srv_rank *rank = &j->ranks[r];
  if (cell->ready)
    return;
  cell->ready = true;
  rank->ready[(rank->ready_first + rank->n_ready++) % j->n_chunks] = local;
}

/* Who may have what they want now that the chunk has a new version. */
static void mark_waiting(srv_job *j, uint32_t local, uint32_t by) {
  bool all = j->rule->in_step || j->slowest == BL_CLOCK_FINISHED;
  for (uint32_t r = all ? 0 : by; r < (all ? j->world : by + 1); r++)
    mark_if_answerable(j, local, r);
}

/* Updates of a chunk since the job began. */
static uint64_t n_updates(const srv_job *j, const srv_chunk *c) {
  if (j->rule->in_step)
    return bl_tensor_exchanges(j->table, c->tensor, c->version) - bl_tensor_exchanges(j->table, c->tensor, j->start_clock);
  return c->version - j->start_clock * j->world;
}

static bl_optim_at update_at(const srv_job *j, const srv_chunk *c) {
  uint64_t place = j->rule->in_step ? c->version : j->updates[c->version % j->n_updates_max].place;
  return bl_tensor_optim_at(&j->table->tensors[c->tensor], place, n_updates(j, c) + 1); /* what the rule accumulates began there */
}

static void end_step(srv_job *j, uint32_t local, uint32_t by) {
  srv_chunk *c = &j->chunks[local];
  c->version++;
  c->n_added = 0;
  c->lsn = j->clock_lsn;
  mark_waiting(j, local, by);
}

static void fail_not_finite(srv_job *j, const srv_chunk *c) {
  srv_job_fail(j, BL_ENOTFINITE, "the gradient of tensor '%s' is not finite in clock %" PRIu64,
               j->table->tensors[c->tensor].name, clock_of_update(j, c));
}

/* Rank whose clock the chunk's next update is, of free running ranks. */
static uint32_t updated_by(const srv_job *j, const srv_chunk *c) {
  return j->rule->in_step ? 0 : j->updates[c->version % j->n_updates_max].rank;
}

static void step_rows(srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  bl_optim_at at = update_at(j, c);
  bool skipped = is_skipped(j, c);
  if (!skipped && !srv_rows_is_finite(c->rows)) {
    fail_not_finite(j, c);
    return;
  }
  if (skipped)
    srv_rows_skip(c->rows);
  else
    srv_rows_step(c->rows, &j->rows, &j->optim, &at, j->clip_value);
  end_step(j, local, updated_by(j, c));
}

/* The weights and their state by the gradient that there is. */
static void update(srv_job *j, srv_chunk *c, const float *grad) {
  float scale = j->norms.squares != NULL ? j->ranks[0].scale[c->version & 1] : 1.0f;
  if (scale != 1.0f)
    bl_kernels_get()->scale(c->sum, scale, c->n_elems);
  if (j->clip_value > 0)
    bl_kernels_get()->clip(c->sum, j->clip_value, c->n_elems);
  bl_optim_at at = update_at(j, c);
  bl_optim_step(&j->optim, &at, c->weights, grad, c->slots, c->n_elems);
  if (c->average != NULL)
    bl_kernels_get()->average(c->average, c->weights, bl_average_part(j->plan->average_ema, n_updates(j, c) + 1),
                              c->n_elems);
}

/* One update of a chunk. BL_ENOMEM: nothing changed, to be tried again. */
static bl_status step(srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  const float *grad = is_frozen(j, c) || is_skipped(j, c) ? NULL : gradient(j, c, local);
  uint32_t by = updated_by(j, c);
  bl_frame *spare;
  if (grad != NULL && !bl_kernels_get()->all_finite(grad, c->n_elems)) {
    fail_not_finite(j, c);
    return BL_OK;
  }
  bl_status st = srv_versions_prepare(&c->versions, &j->env, c->weights, c->n_elems, c->version + 1, &spare);
  if (st != BL_OK)
    return st;
  if (grad != NULL)
    update(j, c, grad);
  if (j->direct)
    drop_held(j, srv_job_cell(j, local, by));
  srv_versions_step(&c->versions, &j->env, c->weights, c->n_elems, c->version + 1, spare);
  end_step(j, local, by);
  return BL_OK;
}

/* A clock that was not about this chunk. */
static void skip(srv_job *j, uint32_t local) {
  srv_versions_skip(&j->chunks[local].versions);
  end_step(j, local, 0);
}

static void chunk_is_inited(srv_job *j, srv_chunk *c) {
  if (c->versions.base != NULL)
    memcpy(c->versions.base, c->weights, (size_t)c->n_elems * sizeof(float));
  if (++j->n_opened == j->n_chunks && j->state != SRV_JOB_FAILED)
    j->state = SRV_JOB_OPEN;
}

static void init_slice(srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  uint32_t n = BL_MIN(c->n_elems - c->n_inited, INIT_SLICE_ELEMS);
  bl_tensor_init_values(&j->table->tensors[c->tensor], j->seed, j->table->chunks[c->id].first + c->n_inited, n,
                        c->weights + c->n_inited);
  c->n_inited += n;
  if (c->n_inited == c->n_elems)
    chunk_is_inited(j, c);
}

static bool is_due(srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  if (j->state == SRV_JOB_FAILED)
    return false;
  if (c->n_inited < c->n_elems)
    return j->state == SRV_JOB_OPENING;
  return c->version < j->clock || may_add(j, c, local, next_rank(j, c)) || may_skip(j, c, local);
}

/* Additions that are due, one step or one slice of initial values; what is left is queued. */
static void settle(srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  if (c->n_inited < c->n_elems)
    init_slice(j, local);
  else if (c->version < j->clock && !srv_job_in_clock(j, local, c->version))
    skip(j, local);
  else if (may_add(j, c, local, next_rank(j, c)))
    add_ranks(j, c, local, next_rank(j, c));
  else if (may_skip(j, c, local))
    c->n_added++;
  else if (may_step(j, c) && c->rows != NULL)
    step_rows(j, local);
  else if (may_step(j, c))
    (void)!step(j, local); /* without memory for its frame it stays due */
  if (is_due(j, local))
    enqueue_work(j, local);
}

/* Of one addition or step. n_worked: of a bucket, before it. */
static uint64_t cost_of(const srv_chunk *c, uint64_t n_worked) {
  return c->rows == NULL ? c->n_elems : ROWS_COST_ELEMS + ROWS_COST * (c->rows->n_worked - n_worked);
}

uint64_t srv_job_work(srv_job *j, uint64_t budget_elems) {
  uint64_t used = 0;
  for (uint32_t left = j->n_work; left > 0 && used < budget_elems;) {
    uint32_t local = j->work[j->work_first];
    srv_chunk *c = &j->chunks[local];
    uint32_t n_inited = c->n_inited, n_added = c->n_added;
    uint64_t version = c->version, n_worked = c->rows != NULL ? c->rows->n_worked : 0;
    if (is_due(j, local)) {
      bool init = n_inited < c->n_elems;
      c->queued = true; /* stays in front while it makes progress: its frames leave soonest */
      settle(j, local);
      used += init ? (uint64_t)INIT_COST * (c->n_inited - n_inited) : cost_of(c, n_worked);
    }
    bool stuck = c->n_inited == n_inited && c->n_added == n_added && c->version == version;
    if (is_due(j, local) && !stuck)
      continue;
    j->work_first = (j->work_first + 1) % j->n_chunks;
    j->n_work--;
    c->queued = false;
    left--;
    if (is_due(j, local))
      enqueue_work(j, local); /* no memory: behind the others */
  }
  return used;
}

bool srv_job_has_work(const srv_job *j) { return j->n_work > 0 && j->state != SRV_JOB_FAILED; }

/* ---- wants --------------------------------------------------------------------------------------------- */

const float *srv_job_average(const srv_job *j, uint32_t local, uint32_t rank, uint64_t want) {
  const srv_chunk *c = &j->chunks[local];
  bool is_there = j->rule->in_step                ? want <= c->version
                  : want == BL_CLOCK_FINISHED ? j->slowest == BL_CLOCK_FINISHED && c->version == j->clock
                                              : c->version >= j->ranks[rank].n_needed;
  if (!is_there)
    return NULL;
  return is_frozen(j, c) || n_updates(j, c) == 0 ? c->weights : c->average;
}

bool srv_job_may_answer(const srv_job *j, uint32_t local, uint32_t r, uint64_t want) {
  const srv_chunk *c = &j->chunks[local];
  const srv_rank *rank = &j->ranks[r];
  if (j->rule->in_step)
    return want <= c->version;
  if (want == BL_CLOCK_FINISHED)
    return j->slowest == BL_CLOCK_FINISHED && c->version == j->clock;
  return want <= rank->clock && c->version >= rank->n_needed && j->rule->may_begin(want, j->slowest, j->staleness);
}

bool srv_job_is_answerable(const srv_job *j, uint32_t local, uint32_t r) {
  return srv_job_may_answer(j, local, r, j->cells[(size_t)local * j->world + r].want - 1);
}

void srv_job_want(srv_job *j, uint32_t local, uint32_t rank, uint64_t want, uint64_t have) {
  srv_cell *cell = srv_job_cell(j, local, rank);
  if (cell->want > want + 1)
    return; /* a late repeat of something older */
  cell->want = want + 1;
  cell->have = have;
  mark_if_answerable(j, local, rank);
}

void srv_job_want_rows(srv_job *j, uint32_t local, uint32_t rank, uint64_t want, srv_keys *keys, uint64_t request) {
  if (srv_job_cell(j, local, rank)->want > want + 1) { /* a late repeat of something older */
    srv_keys_unref(keys);
    return;
  }
  srv_rows_want(j->chunks[local].rows, rank, keys, request);
  srv_job_want(j, local, rank, want, 0);
}

bool srv_job_is_gate_open(const srv_job *j, uint32_t r) {
  const srv_rank *rank = &j->ranks[r];
  uint64_t want = rank->gate - 1;
  if (rank->gate == 0)
    return false;
  if (j->rule->in_step)
    return want <= j->clock;
  return want == BL_CLOCK_FINISHED ? j->slowest == BL_CLOCK_FINISHED
                                   : want <= rank->clock && j->rule->may_begin(want, j->slowest, j->staleness);
}

/* ---- checksum ------------------------------------------------------------------------------------------ */

static void add_u64(bl_checksum_stream *s, uint64_t v) { bl_checksum_stream_add(s, &v, sizeof v); }

static void add_bytes(const void *data, size_t size, void *arg) { bl_checksum_stream_add(arg, data, size); }

static void add_cells(bl_checksum_stream *s, srv_job *j, uint32_t local) {
  for (uint32_t r = 0; r < j->world; r++) {
    srv_cell *cell = srv_job_cell(j, local, r);
    bl_checksum_stream_add(s, cell->seen, sizeof cell->seen);
    if (cell->held != NULL)
      bl_checksum_stream_add(s, cell->held->data, cell->held->size);
  }
}

static void add_chunk(bl_checksum_stream *s, srv_job *j, uint32_t local) {
  srv_chunk *c = &j->chunks[local];
  size_t bytes = (size_t)c->n_elems * sizeof(float);
  add_u64(s, c->id);
  add_u64(s, c->version);
  add_u64(s, c->n_added);
  if (c->rows != NULL) {
    if (srv_rows_visit(c->rows, add_bytes, s) != BL_OK)
      add_u64(s, 0); /* no memory: a checksum that nobody else has */
    add_cells(s, j, local);
    return;
  }
  bl_checksum_stream_add(s, c->weights, bytes);
  for (uint32_t i = 0; i < j->optim.rule->n_slots; i++)
    bl_checksum_stream_add(s, c->slots[i], bytes);
  if (c->average != NULL)
    bl_checksum_stream_add(s, c->average, bytes);
  if (c->versions.base != NULL) {
    add_u64(s, c->versions.brake);
    add_u64(s, c->versions.next_from);
    bl_checksum_stream_add(s, c->versions.base, bytes);
  }
  for (uint32_t i = 0; i < c->versions.n_deltas; i++)
    bl_checksum_stream_add(s, c->versions.deltas[i]->data, c->versions.deltas[i]->size);
  if (c->n_added > 0 && c->sum != NULL)
    bl_checksum_stream_add(s, c->sum, bytes);
  add_cells(s, j, local);
}

uint64_t srv_job_checksum(srv_job *j) {
  while (srv_job_has_work(j) && srv_job_work(j, UINT64_MAX) > 0)
    ;
  bl_checksum_stream *s = bl_checksum_stream_new();
  if (s == NULL)
    return 0;
  add_u64(s, j->id);
  add_u64(s, j->state);
  if (j->state != SRV_JOB_FAILED) { /* a failed one is only failed: how far it came depends on timing */
    add_u64(s, j->view);
    add_u64(s, j->clock);
    add_u64(s, j->n_samples);
    add_u64(s, j->n_skipped);
    if (j->adapts)
      bl_checksum_stream_add(s, j->chosen_at, j->table->n_tensors * sizeof *j->chosen_at);
    for (uint32_t r = 0; r < j->world; r++) {
      const srv_rank *rank = &j->ranks[r];
      add_u64(s, rank->incarnation);
      add_u64(s, rank->clock);
      add_u64(s, rank->n_needed);
      add_u64(s, rank->n_samples);
      add_u64(s, rank->n_seen);
      for (unsigned p = 0; p < 2; p++) {
        add_u64(s, rank->committed[p]);
        if (rank->committed[p] != 0) {
          bl_checksum_stream_add(s, &rank->scale[p], sizeof rank->scale[p]);
          add_u64(s, rank->not_finite[p]);
        }
      }
    }
    for (uint32_t i = 0; i < j->n_chunks; i++)
      add_chunk(s, j, i);
  }
  uint64_t value = bl_checksum_stream_value(s);
  bl_checksum_stream_free(s);
  return value;
}
