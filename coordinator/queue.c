/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/queue.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <string.h>

/* Names in a sentence: more than this many become a number. */
#define CO_NAMES_SHOWN_MAX 4u

static bool task_is_live(const Ballast__Control__TaskStatus *t) {
  return t->state >= BALLAST__CONTROL__TASK_STATE__TASK_STARTING &&
         t->state <= BALLAST__CONTROL__TASK_STATE__TASK_RUNNING;
}

static bool rank_holds_slot(const co_job *job, const co_rank *rank) {
  return co_job_state_is_active(job->state) && co_rank_has_slot(rank) && rank->done == NULL;
}

/* A task that runs although no job counts it any more still takes its slot until it is gone. */
static bool task_is_counted(const co_state *st, const co_node *node, const Ballast__Control__TaskStatus *t) {
  const co_job *job = co_state_job(st, t->job);
  if (job == NULL || t->rank >= job->n_ranks)
    return false;
  const co_rank *rank = &job->ranks[t->rank];
  return rank_holds_slot(job, rank) && rank->incarnation == t->incarnation &&
         strcmp(rank->node, node->reg->name) == 0;
}

static uint32_t leftovers_on(const co_state *st, const co_node *node) {
  uint32_t n = 0;
  for (size_t i = 0; node->hb != NULL && i < node->hb->n_tasks; i++)
    n += task_is_live(node->hb->tasks[i]) && !task_is_counted(st, node, node->hb->tasks[i]);
  return n;
}

uint64_t co_queue_reserved_bytes(const co_state *st, const co_node *node) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < st->n_jobs; i++)
    if (co_job_state_is_active(st->jobs[i]->state))
      for (uint32_t s = 0; s < node->reg->n_shard_endpoints; s++)
        bytes += co_job_shard_load(st->jobs[i], node->reg->name, s);
  return bytes;
}

/* Incarnation 0 is no time at which a program could have started, and stands for "no slot yet" (job.h). */
static bool takes_work(const co_node *node, bl_role role) {
  return co_node_is(node, role) && node->alive && node->reg->incarnation != 0 && !(node->hb != NULL && node->hb->draining);
}

/* What a node of an older version would not understand of the job is never sent to it. job NULL: none in particular. */
static bool speaks(const co_node *node, const co_job *job) {
  return job == NULL || node->reg->protocol_max >= job->protocol;
}

/* Behind the reason why a job waits: nodes that would have taken work, if they were newer. */
static void list_too_old(const co_state *st, const co_job *job, bl_role role, bl_buf *why) {
  uint32_t shown = 0, more = 0;
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *node = st->members.nodes[i];
    if (!takes_work(node, role) || speaks(node, job))
      continue;
    if (shown == CO_NAMES_SHOWN_MAX) {
      more++;
      continue;
    }
    if (shown++ == 0)
      bl_buf_printf(why, "%sjob %" PRIu64 " needs protocol %u for %s: ", why->size > 0 ? "; " : "", job->id,
                    job->protocol, job->protocol_for);
    bl_buf_printf(why, "%s%s %s speaks %u", shown > 1 ? ", " : "", bl_role_name(role), node->reg->name,
                  node->reg->protocol_max);
  }
  if (more > 0)
    bl_buf_printf(why, " and %u more", more);
  if (shown > 0)
    bl_buf_printf(why, ", upgrade %s", shown + more == 1 ? "it" : "them");
}

/* ---- slots ------------------------------------------------------------------------------------------ */

typedef struct slot_view {
  co_node *node;
  uint32_t free, ours; /* ours: ranks of the job at hand */
} slot_view;

struct co_survey {
  slot_view *workers; /* owned */
  size_t n_workers;   /* live, not draining */
  size_t n_with_free;
  uint64_t slots, used, free;
  uint32_t protocol; /* that all nodes speak: not all of the room is there for a job that needs more */
  uint64_t memory_bytes; /* of all servers together; UINT64_MAX: not known */
  bl_buf users; /* who uses them, as part of a sentence; "": not asked yet. The same for all jobs that hold none */
};

/* Ranks with a slot, of the job at hand (`ours`) and of all, counted in one pass over the jobs: [members.n]. */
static void count_ranks(const co_state *st, const co_job *ours_job, uint32_t *used, uint32_t *ours) {
  for (size_t k = 0; k < st->n_jobs; k++) {
    const co_job *job = st->jobs[k];
    for (uint32_t i = 0; co_job_state_is_active(job->state) && i < job->n_ranks; i++) {
      size_t at = rank_holds_slot(job, &job->ranks[i]) ? co_membership_index(&st->members, job->ranks[i].node)
                                                       : st->members.n;
      if (at < st->members.n) {
        used[at]++;
        ours[at] += job == ours_job;
      }
    }
  }
}

uint32_t *co_queue_slots_used(const co_state *st) {
  size_t n = BL_MAX(st->members.n, 1);
  uint32_t *used = bl_calloc(2 * n, sizeof *used);
  if (used == NULL)
    return NULL;
  count_ranks(st, NULL, used, used + n);
  for (size_t i = 0; i < st->members.n; i++)
    used[i] += leftovers_on(st, st->members.nodes[i]);
  return used;
}

static bool survey_slots(const co_state *st, const co_job *job, co_survey *s) {
  memset(s, 0, sizeof *s);
  size_t n = BL_MAX(st->members.n, 1);
  s->workers = bl_calloc(n, sizeof *s->workers);
  uint32_t *counts = bl_calloc(2 * n, sizeof *counts), *ours = counts != NULL ? counts + n : NULL;
  if (s->workers == NULL || counts == NULL) {
    bl_free(counts);
    return false;
  }
  count_ranks(st, job, counts, ours);
  for (size_t i = 0; i < st->members.n; i++) {
    co_node *node = st->members.nodes[i];
    if (!takes_work(node, BL_ROLE_WORKER) || !speaks(node, job))
      continue;
    uint32_t slots = node->reg->slots, used = BL_MIN(counts[i] + leftovers_on(st, node), slots);
    s->workers[s->n_workers++] = (slot_view){node, slots - used, ours[i]};
    s->slots += slots;
    s->used += used;
    s->n_with_free += used < slots;
  }
  s->free = s->slots - s->used;
  bl_free(counts);
  return true;
}

static void list_missing(const co_state *st, bl_role role, bl_buf *why) {
  uint32_t shown = 0, more = 0;
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *node = st->members.nodes[i];
    if (node->alive || !co_node_is(node, role))
      continue;
    if (shown == CO_NAMES_SHOWN_MAX) {
      more++;
      continue;
    }
    char text[32];
    bl_buf_printf(
        why, "%s%s missing for %s", shown++ == 0 ? ": " : ", ", node->reg->name,
        bl_str_duration((st->now_ns - node->heard_ns) / BL_NS_PER_S * BL_NS_PER_S, text, sizeof text));
  }
  if (more > 0)
    bl_buf_printf(why, " and %u more", more);
}

static void list_users(const co_state *st, const co_job *except, bl_buf *why) {
  uint32_t n = 0;
  for (size_t i = 0; i < st->n_jobs; i++)
    n += st->jobs[i] != except && co_job_state_is_active(st->jobs[i]->state);
  uint32_t shown = 0;
  for (size_t i = 0; i < st->n_jobs && shown < CO_NAMES_SHOWN_MAX; i++)
    if (st->jobs[i] != except && co_job_state_is_active(st->jobs[i]->state))
      bl_buf_printf(why, "%s%" PRIu64, shown++ == 0 ? (n == 1 ? " by job " : " by jobs ") : ", ",
                    st->jobs[i]->id);
  if (n > shown)
    bl_buf_printf(why, " and %u more", n - shown);
}

/* "jobs 3 and 5": those that have ranks on the worker. */
static void list_jobs_on(const co_state *st, const co_node *node, bl_buf *why) {
  uint64_t shown[CO_NAMES_SHOWN_MAX];
  uint32_t n = 0;
  for (size_t k = 0; k < st->n_jobs; k++) {
    const co_job *job = st->jobs[k];
    bool here = false;
    for (uint32_t i = 0; !here && i < job->n_ranks; i++)
      here = rank_holds_slot(job, &job->ranks[i]) && strcmp(job->ranks[i].node, node->reg->name) == 0;
    if (here && n < CO_NAMES_SHOWN_MAX)
      shown[n] = job->id;
    n += here;
  }
  uint32_t named = BL_MIN(n, CO_NAMES_SHOWN_MAX);
  if (n == 0)
    bl_buf_add_str(why, "tasks that are ending");
  for (uint32_t i = 0; i < named; i++)
    bl_buf_printf(why, "%s%" PRIu64, i == 0 ? (n == 1 ? "job " : "jobs ") : i + 1 == n ? " and " : ", ", shown[i]);
  if (n > named)
    bl_buf_printf(why, " and %u more", n - named);
}

static void list_full_workers(const co_state *st, const co_survey *s, bl_buf *why) {
  uint32_t n = 0;
  for (size_t i = 0; i < s->n_workers; i++) {
    const slot_view *w = &s->workers[i];
    if (w->free > 0 || w->node->reg->slots == 0 || n++ >= CO_NAMES_SHOWN_MAX)
      continue;
    bl_buf_printf(why, "%s%s is full with ", n == 1 ? ": " : ", ", w->node->reg->name);
    list_jobs_on(st, w->node, why);
  }
  if (n > CO_NAMES_SHOWN_MAX)
    bl_buf_printf(why, ", and so are %u more", n - CO_NAMES_SHOWN_MAX);
}

/* Workers that must carry the ranks: with local data every rank needs one of its own, or two would read the same. */
static uint32_t workers_needed(const co_job *job) {
  return co_job_is_local(job) ? job->n_ranks : BL_MAX(job->spec->workers_min, 1);
}

static bool enough_workers(const co_state *st, const co_job *job, size_t n_workers, bl_buf *why) {
  uint32_t min = workers_needed(job);
  if (n_workers >= min)
    return true;
  bl_buf_printf(why, "job %" PRIu64 " waits for %zu of %u workers", job->id, min - n_workers, min);
  list_missing(st, BL_ROLE_WORKER, why);
  return false;
}

static uint32_t ranks_without_slot(const co_job *job) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < job->n_ranks; i++)
    n += !co_rank_has_slot(&job->ranks[i]) && job->ranks[i].done == NULL;
  return n;
}

static bool enough_slots(const co_state *st, const co_job *job, co_survey *s, uint32_t needed,
                         bool *ret_blocks, bl_buf *why) {
  uint32_t distinct = BL_MIN(workers_needed(job), job->n_ranks);
  bool replacing = needed < job->n_ranks;
  if (s->free >= needed && (replacing || s->n_with_free >= distinct))
    return true;
  uint64_t all = needed; /* with the ranks of this job that have theirs */
  for (size_t i = 0; i < s->n_workers; i++)
    all += s->workers[i].ours;
  if (s->free < needed && all > s->slots) {
    bl_buf_printf(why,
                  "job %" PRIu64 " waits for %" PRIu64 " slot%s: it needs %" PRIu64
                  ", and the cluster has %" PRIu64 " in all, %" PRIu64 " in use",
                  job->id, needed - s->free, needed - s->free == 1 ? "" : "s", all, s->slots, s->used);
    if (s->used > 0 && s->users.size == 0)
      list_users(st, job, &s->users);
    bl_buf_add_str(why, bl_buf_str(&s->users));
  } else if (s->free < needed) {
    bl_buf_printf(why, "job %" PRIu64 " waits for %" PRIu64, job->id, needed - s->free);
    if (s->free > 0)
      bl_buf_printf(why, " of %u", needed);
    bl_buf_add_str(why, needed == 1 ? " slot" : " slots");
    list_full_workers(st, s, why);
  } else {
    bl_buf_printf(why, "job %" PRIu64 " waits for a free slot on %zu more worker%s", job->id, distinct - s->n_with_free,
                  distinct - s->n_with_free == 1 ? "" : "s");
    list_full_workers(st, s, why);
  }
  /* Slots in use come free; more than there are do not, and nobody else should wait for that. */
  *ret_blocks = s->slots >= needed;
  return false;
}

static void survey_nodes(const co_state *st, co_survey *s) {
  s->protocol = UINT32_MAX;
  uint32_t n_servers = 0, n_known = 0;
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *node = st->members.nodes[i];
    bool is_server = takes_work(node, BL_ROLE_SERVER);
    if (is_server || takes_work(node, BL_ROLE_WORKER))
      s->protocol = BL_MIN(s->protocol, node->reg->protocol_max);
    n_servers += is_server;
    n_known += is_server && node->reg->memory_bytes > 0;
    s->memory_bytes += is_server ? node->reg->memory_bytes : 0;
  }
  if (n_servers == 0 || n_known < n_servers)
    s->memory_bytes = UINT64_MAX;
}

co_survey *co_survey_new(const co_state *st) {
  co_survey *s = bl_calloc(1, sizeof *s);
  if (s == NULL)
    return NULL;
  if (!survey_slots(st, NULL, s)) {
    co_survey_free(s);
    return NULL;
  }
  survey_nodes(st, s);
  return s;
}

void co_survey_free(co_survey *s) {
  if (s != NULL) {
    bl_buf_fini(&s->users);
    bl_free(s->workers);
  }
  bl_free(s);
}

bool co_survey_is_for(const co_survey *s, const co_job *job) {
  return job->protocol <= s->protocol;
}

bool co_survey_has_room(const co_survey *s, const co_job *job) {
  return s->free >= job->n_ranks && s->n_workers >= workers_needed(job);
}

bool co_survey_could_have_room(const co_survey *s, const co_job *job) {
  return s->slots >= job->n_ranks && s->n_workers >= workers_needed(job) && s->memory_bytes >= co_job_server_bytes(job);
}

static slot_view *best_worker(const co_survey *s) {
  slot_view *best = NULL;
  for (size_t i = 0; i < s->n_workers; i++) {
    slot_view *w = &s->workers[i];
    if (w->free == 0)
      continue;
    if (best == NULL || w->ours < best->ours || (w->ours == best->ours && w->free > best->free))
      best = w;
  }
  return best;
}

static slot_view *worker_named(const co_survey *s, const char *name) {
  for (size_t i = 0; i < s->n_workers; i++)
    if (strcmp(s->workers[i].node->reg->name, name) == 0)
      return &s->workers[i];
  return NULL;
}

/* For local data: by name, not by load, so that the same workers get the same ranks in every run. */
static slot_view *first_unused_worker(const co_survey *s) {
  for (size_t i = 0; i < s->n_workers; i++)
    if (s->workers[i].free > 0 && s->workers[i].ours == 0)
      return &s->workers[i];
  return NULL;
}

/* Whether every rank that is bound to a worker can have a slot there; the first that cannot is named. */
static bool bound_workers_are_free(const co_state *st, const co_job *job, const co_survey *s, bool *ret_blocks,
                                   bl_buf *why) {
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const co_rank *rank = &job->ranks[i];
    if (!co_rank_is_bound(rank) || rank->done != NULL)
      continue;
    const slot_view *w = worker_named(s, rank->node);
    if (w != NULL && w->free > 0)
      continue;
    const co_node *node = co_membership_find(&st->members, rank->node);
    char text[32];
    bl_buf_printf(why, "job %" PRIu64 " waits for rank %u: its data is on %s, ", job->id, i, rank->node);
    if (w != NULL) {
      *ret_blocks = w->node->reg->slots > 0;
      bl_buf_add_str(why, "all of whose slots are in use");
      list_users(st, job, why);
    } else if (node == NULL) {
      bl_buf_add_str(why, "which has not been heard of since the coordinator started");
    } else if (!co_node_is(node, BL_ROLE_WORKER)) {
      bl_buf_add_str(why, "which is no worker now");
    } else if (node->alive) {
      bl_buf_add_str(why, "which is shutting down");
    } else {
      bl_buf_printf(why, "missing for %s",
                    bl_str_duration((st->now_ns - node->heard_ns) / BL_NS_PER_S * BL_NS_PER_S, text, sizeof text));
    }
    return false;
  }
  return true;
}

static bool has_bound_rank(const co_job *job) {
  for (uint32_t i = 0; i < job->n_ranks; i++)
    if (co_rank_is_bound(&job->ranks[i]) && job->ranks[i].done == NULL)
      return true;
  return false;
}

static void hand_out(co_job *job, co_survey *s) {
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    co_rank *rank = &job->ranks[i];
    if (co_rank_has_slot(rank) || rank->done != NULL)
      continue;
    slot_view *w = co_rank_is_bound(rank)  ? worker_named(s, rank->node)
                   : co_job_is_local(job) ? first_unused_worker(s)
                                          : best_worker(s);
    BL_ASSERT(w != NULL);
    bl_str_copy(rank->node, sizeof rank->node, w->node->reg->name);
    rank->node_incarnation = w->node->reg->incarnation;
    if (rank->incarnation == 0)
      rank->incarnation = 1;
    w->free--;
    w->ours++;
    job->dirty = true;
  }
}

static bool give_slots(co_state *st, co_survey *s, co_job *job, uint32_t needed, bool *ret_blocks, bl_buf *why) {
  bool given;
  if (has_bound_rank(job)) /* local data: then all that lack a slot are bound */
    given = bound_workers_are_free(st, job, s, ret_blocks, why);
  else
    given = enough_workers(st, job, s->n_workers, why) && enough_slots(st, job, s, needed, ret_blocks, why);
  if (given)
    hand_out(job, s);
  return given;
}

bool co_queue_give_slots(co_state *st, co_job *job, bool *ret_blocks, bl_buf *why) {
  *ret_blocks = false;
  uint32_t needed = ranks_without_slot(job);
  if (needed == 0)
    return true;
  co_survey s;
  bool given = survey_slots(st, job, &s) && give_slots(st, &s, job, needed, ret_blocks, why);
  if (!given)
    list_too_old(st, job, BL_ROLE_WORKER, why);
  bl_buf_fini(&s.users);
  bl_free(s.workers);
  return given;
}

void co_queue_choose_blas_core(const co_state *st, co_job *job) {
  const char *core = NULL;
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *node = st->members.nodes[i];
    if (!node->alive || !co_node_is(node, BL_ROLE_WORKER))
      continue;
    if (core != NULL && strcmp(core, node->reg->blas_core) != 0) {
      core = CO_BLAS_CORE_COMMON;
      break;
    }
    core = node->reg->blas_core;
  }
  bl_str_copy(job->blas_core, sizeof job->blas_core,
              core == NULL || core[0] == '\0' ? CO_BLAS_CORE_COMMON : core);
}

/* ---- server memory ---------------------------------------------------------------------------------- */

typedef struct shard_survey {
  co_shard *shards; /* owned */
  size_t n;
  size_t n_servers;
  bool bounded;                            /* every server has said how much it has */
  uint64_t capacity_bytes, free_bytes, largest_free_bytes; /* over servers */
} shard_survey;

/* A job that has ended takes its memory until the server has let go of it. */
static uint64_t leftover_bytes(const co_state *st, const co_node *node) {
  uint64_t bytes = 0;
  for (size_t i = 0; node->hb != NULL && i < node->hb->n_jobs; i++) {
    const co_job *job = co_state_job(st, node->hb->jobs[i]->job);
    if (job == NULL || !co_job_state_is_active(job->state))
      bytes += node->hb->jobs[i]->memory_bytes;
  }
  return bytes;
}

static void add_server(const co_state *st, const co_node *node, shard_survey *s) {
  uint32_t n_shards = (uint32_t)node->reg->n_shard_endpoints;
  uint64_t capacity = node->reg->memory_bytes, reserved = 0, leftover = leftover_bytes(st, node);
  for (uint32_t i = 0; i < n_shards; i++) {
    co_shard *shard = &s->shards[s->n++];
    *shard = (co_shard){.server = node->reg->name,
                        .server_incarnation = node->reg->incarnation,
                        .index = i,
                        .endpoint = node->reg->shard_endpoints[i],
                        .public_key = node->reg->public_key,
                        .capacity_bytes = capacity / n_shards};
    for (size_t k = 0; k < st->n_jobs; k++)
      if (co_job_state_is_active(st->jobs[k]->state))
        shard->load_bytes += co_job_shard_load(st->jobs[k], node->reg->name, i);
    shard->load_bytes += leftover / n_shards;
    reserved += shard->load_bytes;
  }
  s->n_servers++;
  s->capacity_bytes += capacity;
  s->bounded = s->bounded && capacity > 0;
  uint64_t room = capacity > reserved ? capacity - reserved : 0;
  s->free_bytes += room;
  s->largest_free_bytes = BL_MAX(s->largest_free_bytes, room);
}

static bool survey_shards(const co_state *st, const co_job *job, shard_survey *s) {
  memset(s, 0, sizeof *s);
  s->bounded = true;
  size_t n = 0;
  for (size_t i = 0; i < st->members.n; i++)
    n += st->members.nodes[i]->reg->n_shard_endpoints;
  s->shards = bl_calloc(BL_MAX(n, 1), sizeof *s->shards);
  if (s->shards == NULL)
    return false;
  for (size_t i = 0; i < st->members.n; i++)
    if (takes_work(st->members.nodes[i], BL_ROLE_SERVER) && speaks(st->members.nodes[i], job))
      add_server(st, st->members.nodes[i], s);
  return true;
}

static void say_memory(const co_job *job, const shard_survey *s, bl_buf *why) {
  char need[32], largest[32], all[32];
  bl_buf_printf(why, "job %" PRIu64 " needs %s on servers, largest free is %s", job->id,
                bl_str_bytes(co_job_server_bytes(job), need, sizeof need),
                bl_str_bytes(s->largest_free_bytes, largest, sizeof largest));
  if (s->n_servers > 1)
    bl_buf_printf(why, ", %s on all %zu together", bl_str_bytes(s->free_bytes, all, sizeof all), s->n_servers);
}

static bool place(const co_state *st, co_job *job, bool *ret_blocks, bl_buf *why) {
  shard_survey s;
  bool placed = false;
  if (!survey_shards(st, job, &s)) {
    bl_buf_printf(why, "job %" PRIu64 " waits: the coordinator is short of memory", job->id);
  } else if (s.n == 0) {
    bl_buf_printf(why, "job %" PRIu64 " waits for a server", job->id);
    list_missing(st, BL_ROLE_SERVER, why);
  } else if (s.bounded && co_job_server_bytes(job) > s.free_bytes) {
    say_memory(job, &s, why);
    *ret_blocks = s.capacity_bytes >= co_job_server_bytes(job);
  } else {
    bl_error err = BL_ERROR_INIT;
    bl_status status = co_job_place(job, s.shards, s.n, &err);
    placed = status == BL_OK;
    if (status == BL_ELIMIT)
      say_memory(job, &s, why);
    else if (!placed)
      bl_buf_printf(why, "job %" PRIu64 " waits: %s", job->id, err.text);
  }
  if (!placed)
    list_too_old(st, job, BL_ROLE_SERVER, why);
  bl_free(s.shards);
  return placed;
}

/* Also in the survey, which others look at next. */
static void take_back_slots(co_job *job, co_survey *s) {
  for (uint32_t i = 0; i < job->n_ranks; i++)
    co_job_unbind_rank(job, i);
  for (size_t i = 0; i < s->n_workers; i++) {
    s->workers[i].free += s->workers[i].ours; /* a queued job had none before */
    s->workers[i].ours = 0;
  }
}

bool co_queue_start(co_state *st, co_survey *s, co_job *job, bool *ret_blocks, bl_buf *why) {
  *ret_blocks = false;
  /* After a return to the queue: what still holds the job must not mix with its next start. */
  const co_node *holder = job->ranks[0].incarnation > 0 ? co_state_holder(st, job->id) : NULL;
  if (holder != NULL) {
    bl_buf_printf(why, "job %" PRIu64 " waits for %s to let go of it", job->id, holder->reg->name);
    return false;
  }
  bool was_dirty = job->dirty;
  if (co_survey_is_for(s, job) ? !give_slots(st, s, job, job->n_ranks, ret_blocks, why)
                               : !co_queue_give_slots(st, job, ret_blocks, why))
    return false;
  if (!place(st, job, ret_blocks, why)) {
    take_back_slots(job, s);
    job->dirty = was_dirty;
    return false;
  }
  co_queue_choose_blas_core(st, job);
  job->dirty = true;
  return true;
}
