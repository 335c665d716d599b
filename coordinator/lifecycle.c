/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/lifecycle.h"

#include "base/log.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* More steps than states in one go mean a cycle in the observations: a bug, survived by waiting. */
#define CO_STEPS_MAX 16u

const Ballast__Control__TaskStatus *co_rank_task(const co_state *st, const co_job *job, uint32_t rank) {
  const co_rank *r = &job->ranks[rank];
  const co_node *node = co_rank_has_slot(r) ? co_state_live(st, r->node, r->node_incarnation) : NULL;
  return node != NULL ? co_node_task(node, job->id, rank, r->incarnation) : NULL;
}

/* ---- what happened to a rank ------------------------------------------------------------------------- */

typedef enum rank_fate {
  RANK_FINE,
  RANK_NODE_LOST,
  RANK_CRASHED, /* or vanished: worth another try */
  RANK_BROKEN,  /* trying again would not help */
} rank_fate;

static rank_fate fate_of(const co_state *st, const co_job *job, uint32_t rank, bl_error *why) {
  const co_rank *r = &job->ranks[rank];
  if (!co_rank_has_slot(r) || r->done != NULL)
    return RANK_FINE;
  if (co_state_node_is_lost(st, r->node, r->node_incarnation)) {
    const co_node *node = co_membership_find(&st->members, r->node);
    bool restarted = node != NULL && node->alive;
    bl_fail(why, BL_EUNREACHABLE, "worker %s %s", r->node,
            restarted ? "has restarted" : "was lost (no heartbeat)");
    return RANK_NODE_LOST;
  }
  const co_node *node = co_state_live(st, r->node, r->node_incarnation);
  if (node == NULL || node->hb == NULL)
    return RANK_FINE; /* not heard yet */
  const Ballast__Control__TaskStatus *task = co_node_task(node, job->id, rank, r->incarnation);
  if (task == NULL) {
    if (!r->seen)
      return RANK_FINE;
    bl_fail(why, BL_EUNREACHABLE, "worker %s no longer knows its task", r->node);
    return RANK_CRASHED;
  }
  if (task->state != BALLAST__CONTROL__TASK_STATE__TASK_FAILED &&
      task->state != BALLAST__CONTROL__TASK_STATE__TASK_STOPPED)
    return RANK_FINE;
  bl_status status = task->status != 0 && task->status <= (uint32_t)-BL_STATUS_LAST
                         ? (bl_status) - (int)task->status
                         : BL_EBUG;
  bool stopped = task->state == BALLAST__CONTROL__TASK_STATE__TASK_STOPPED;
  if (stopped && node->hb->draining) {
    bl_fail(why, BL_EUNREACHABLE, "worker %s is shutting down", r->node);
    return RANK_NODE_LOST;
  }
  bl_fail(why, status, "%s",
          task->text[0] != '\0' ? task->text
          : stopped             ? "the task was stopped"
                                : "no reason given");
  return task->retryable || stopped ? RANK_CRASHED : RANK_BROKEN;
}

/* Remembers which tasks have been heard of, so that a missing one is known to be lost and not unsent. */
static void note_seen(const co_state *st, co_job *job) {
  for (uint32_t i = 0; i < job->n_ranks; i++)
    if (!job->ranks[i].seen && co_rank_task(st, job, i) != NULL)
      job->ranks[i].seen = true;
}

/* ---- observations: each finds at most one event ------------------------------------------------------- */

static co_job_event see_broken_ranks(co_state *st, co_job *job, bl_error *why) {
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    bl_error cause = BL_ERROR_INIT;
    rank_fate fate = fate_of(st, job, i, &cause);
    if (fate == RANK_BROKEN) {
      bl_fail(why, cause.status, "rank %u on %s: %s", i, job->ranks[i].node, cause.text);
      return CO_EV_FATAL;
    }
    if (fate == RANK_CRASHED && job->ranks[i].crashes >= job->spec->task_retries) {
      bl_fail(why, cause.status, "rank %u crashed %u times, the last time on %s: %s", i,
              job->ranks[i].crashes + 1, job->ranks[i].node, cause.text);
      return CO_EV_FATAL;
    }
  }
  return CO_EV_NONE;
}

static co_job_event see_lost_ranks(co_state *st, co_job *job, bl_error *why) {
  for (uint32_t i = 0; i < job->n_ranks; i++)
    if (fate_of(st, job, i, why) != RANK_FINE)
      return CO_EV_RANK_LOST;
  return CO_EV_NONE;
}

static bool past_start(const co_job *job) {
  return job->state == CO_JOB_RUNNING || job->state == CO_JOB_RECOVERING;
}

static co_job_event see_servers(co_state *st, co_job *job, bl_error *why) {
  for (uint32_t i = 0; i < job->n_servers; i++) {
    const co_server_use *use = &job->servers[i];
    if (co_state_node_is_lost(st, use->name, use->incarnation)) {
      const co_node *node = co_membership_find(&st->members, use->name);
      bl_fail(why, BL_EUNREACHABLE, "server %s %s, and with it its part of the weights", use->name,
              node != NULL && node->alive ? "has restarted" : "was lost (no heartbeat)");
      return CO_EV_SERVER_LOST;
    }
    const co_node *node = co_state_live(st, use->name, use->incarnation);
    if (node == NULL || node->hb == NULL)
      continue;
    const Ballast__Control__ServerJobStatus *s = co_node_job(node, job->id);
    if (s == NULL && past_start(job)) {
      bl_fail(why, BL_EUNREACHABLE, "server %s no longer knows the job, and its part of the weights is gone",
              use->name);
      return CO_EV_SERVER_LOST;
    }
    if (s != NULL && s->state == BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED) {
      bl_fail(why, BL_EIO, "server %s: %s", use->name,
              s->text[0] != '\0' ? s->text : "the job cannot be opened");
      return CO_EV_FATAL;
    }
  }
  return CO_EV_NONE;
}

static bool same_data(const Ballast__Control__DataReport *a, const Ballast__Control__DataReport *b) {
  return a->train_samples == b->train_samples && a->validation_samples == b->validation_samples &&
         a->test_samples == b->test_samples && a->fingerprint == b->fingerprint;
}

static void say_data(const Ballast__Control__DataReport *d, bool content, char *out, size_t size) {
  if (content)
    snprintf(out, size, "fingerprint %016" PRIx64 "%s%.80s%s", d->fingerprint, d->detail[0] != '\0' ? " (" : "",
             d->detail, d->detail[0] != '\0' ? ")" : "");
  else
    snprintf(out, size, "%" PRIu64 " training, %" PRIu64 " validation and %" PRIu64 " test samples", d->train_samples,
             d->validation_samples, d->test_samples);
}

/* What differs: the numbers of samples where these do, else what was read. */
static bl_status say_difference(const co_rank *r, uint32_t rank, const Ballast__Control__DataReport *there,
                                const char *there_name, bl_error *why) {
  const Ballast__Control__DataReport *here = r->data->data;
  char a[220], b[220];
  bool numbers = here->train_samples != there->train_samples || here->validation_samples != there->validation_samples ||
                 here->test_samples != there->test_samples;
  say_data(here, !numbers, a, sizeof a);
  say_data(there, !numbers, b, sizeof b);
  return bl_fail(why, BL_EMISMATCH, "the data differs between workers%s: rank %u on %s has %s; %s has %s",
                 numbers ? "" : ", in as many samples", rank, r->node, a, there_name, b);
}

/* Local data is compared with nobody's; but it must not change under a job, whose plan counts on it. */
static co_job_event see_changed_data(const co_job *job, bl_error *why) {
  for (uint32_t i = 0; job->data_agreed && i < job->n_ranks; i++) {
    const co_rank *r = &job->ranks[i];
    uint64_t planned = job->open->plan->rank_samples[i];
    if (r->data == NULL || r->data->data->train_samples == planned)
      continue;
    bl_fail(why, BL_EMISMATCH,
            "the data of rank %u on %s has changed: %" PRIu64 " training samples now, %" PRIu64 " at the start", i,
            r->node, r->data->data->train_samples, planned);
    return CO_EV_FATAL;
  }
  return CO_EV_NONE;
}

/* Every rank must hold the same samples in the same order. The first rank that reported is the
 * measure; after the start, the agreed numbers are. */
static co_job_event see_different_data(co_state *st, co_job *job, bl_error *why) {
  (void)st;
  if (co_job_is_local(job))
    return see_changed_data(job, why);
  Ballast__Control__DataReport agreed = BALLAST__CONTROL__DATA_REPORT__INIT;
  agreed.train_samples = job->train_samples;
  agreed.validation_samples = job->validation_samples;
  agreed.test_samples = job->test_samples;
  agreed.fingerprint = job->fingerprint;
  const Ballast__Control__DataReport *measure = job->data_agreed ? &agreed : NULL;
  const char *measure_node = "the workers at the start";
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const co_rank *r = &job->ranks[i];
    if (r->data == NULL)
      continue;
    if (measure == NULL) {
      measure = r->data->data;
      measure_node = r->node;
    } else if (!same_data(measure, r->data->data)) {
      say_difference(r, i, measure, measure_node, why);
      return CO_EV_FATAL;
    }
  }
  return CO_EV_NONE;
}

/* Every rank has reported data of its own: the job's is all of it. */
static co_job_event take_local_data(co_job *job, bl_error *why) {
  uint64_t train = 0, validation = 0, test = 0;
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const Ballast__Control__DataReport *d = job->ranks[i].data->data;
    if (d->train_samples == 0) {
      bl_fail(why, BL_EINVAL, "the training set of rank %u on %s has no sample", i, job->ranks[i].node);
      return CO_EV_FATAL;
    }
    if (!bl_add_u64(train, d->train_samples, &train) || !bl_add_u64(validation, d->validation_samples, &validation) ||
        !bl_add_u64(test, d->test_samples, &test)) {
      bl_fail(why, BL_ELIMIT, "the data of all ranks has more samples than can be counted");
      return CO_EV_FATAL;
    }
  }
  if (co_job_plan_rank_samples(job) != BL_OK)
    return CO_EV_NONE; /* short of memory: seen again at the next tick */
  job->train_samples = train;
  job->validation_samples = validation;
  job->test_samples = test;
  job->fingerprint = 0;
  return CO_EV_DATA_AGREED;
}

static co_job_event see_agreement(co_state *st, co_job *job, bl_error *why) {
  (void)st;
  for (uint32_t i = 0; i < job->n_ranks; i++)
    if (job->ranks[i].data == NULL)
      return CO_EV_NONE;
  if (job->spec->init.resume && job->ranks[0].data->data->epochs_done >= job->spec->epochs) {
    bl_fail(why, BL_EINVAL,
            "%s has %" PRIu64 " epochs behind it, and the job asks for %" PRIu64 " in all: nothing is left; give it more epochs",
            job->spec->init.path, job->ranks[0].data->data->epochs_done, job->spec->epochs);
    return CO_EV_FATAL;
  }
  if (co_job_is_local(job))
    return take_local_data(job, why);
  const Ballast__Control__DataReport *d = job->ranks[0].data->data;
  if (d->train_samples == 0) {
    bl_fail(why, BL_EINVAL, "the training set has no sample");
    return CO_EV_FATAL;
  }
  job->train_samples = d->train_samples;
  job->validation_samples = d->validation_samples;
  job->test_samples = d->test_samples;
  job->fingerprint = d->fingerprint;
  return CO_EV_DATA_AGREED;
}

static bool rank_is_ready(const co_state *st, const co_job *job, uint32_t i) {
  if (job->ranks[i].done != NULL)
    return true;
  const Ballast__Control__TaskStatus *t = co_rank_task(st, job, i);
  return t != NULL && job->ranks[i].data != NULL && t->view == job->view &&
         t->state >= BALLAST__CONTROL__TASK_STATE__TASK_READY &&
         t->state <= BALLAST__CONTROL__TASK_STATE__TASK_DONE;
}

static bool server_is_ready(const co_state *st, const co_job *job, const co_server_use *use) {
  const co_node *node = co_state_live(st, use->name, use->incarnation);
  const Ballast__Control__ServerJobStatus *s = node != NULL ? co_node_job(node, job->id) : NULL;
  return s != NULL && s->view == job->view && s->state == BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN;
}

static co_job_event see_ready(co_state *st, co_job *job, bl_error *why) {
  (void)why;
  for (uint32_t i = 0; i < job->n_servers; i++)
    if (!server_is_ready(st, job, &job->servers[i]))
      return CO_EV_NONE;
  for (uint32_t i = 0; i < job->n_ranks; i++)
    if (!rank_is_ready(st, job, i))
      return CO_EV_NONE;
  return CO_EV_READY;
}

static co_job_event see_all_done(co_state *st, co_job *job, bl_error *why) {
  (void)st;
  uint64_t weights = 0;
  uint32_t first = 0;
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    if (job->ranks[i].done == NULL)
      return CO_EV_NONE;
    uint64_t own = job->ranks[i].done->done->weights_xxh3;
    if (own == 0)
      continue; /* this rank did not look */
    if (weights != 0 && own != weights) {
      bl_fail(why, BL_EMISMATCH, "ranks %u and %u ended with different weights: %016" PRIx64 " and %016" PRIx64,
              first, i, weights, own);
      return CO_EV_FATAL;
    }
    if (weights == 0)
      first = i;
    weights = own;
  }
  return CO_EV_ALL_DONE;
}

static co_job_event see_closed(co_state *st, co_job *job, bl_error *why) {
  (void)why;
  return co_state_holder(st, job->id) == NULL ? CO_EV_CLOSED : CO_EV_NONE;
}

typedef co_job_event see_fn(co_state *st, co_job *job, bl_error *why);

/* In this order: a finished job stays finished whatever breaks after; mistakes go before losses. */
#define CO_SEES_MAX 7
static see_fn *const sees[CO_JOB_STATE_COUNT][CO_SEES_MAX] = {
    [CO_JOB_LOADING] = {see_broken_ranks, see_servers, see_different_data, see_lost_ranks, see_agreement},
    [CO_JOB_OPENING] = {see_broken_ranks, see_servers, see_different_data, see_lost_ranks, see_ready},
    [CO_JOB_RUNNING] = {see_all_done, see_broken_ranks, see_servers, see_different_data, see_lost_ranks},
    [CO_JOB_RECOVERING] = {see_all_done, see_broken_ranks, see_servers, see_different_data, see_lost_ranks,
                           see_ready},
    [CO_JOB_FINISHING] = {see_closed},
};

/* ---- actions ---------------------------------------------------------------------------------------- */

static void do_start(co_state *st, co_job *job) {
  job->started_wall_ns = st->wall_ns;
  co_state_log(st, job, BL_LOG_INFO, "job %" PRIu64 " starts: %u ranks load their data, core type %s", job->id,
               job->n_ranks, job->blas_core);
}

/* Epochs that rank 0 has found behind the weights of a job that resumes another. */
static uint64_t epochs_done(const co_job *job) {
  return job->spec->init.resume && job->ranks[0].data != NULL ? job->ranks[0].data->data->epochs_done : 0;
}

static void do_open(co_state *st, co_job *job) {
  Ballast__Control__JobPlan *plan = job->open->plan;
  const bl_job_spec *spec = job->spec;
  job->data_agreed = true;
  bool own_pace = co_job_is_local(job) && !bl_sync_in_step(spec->sync); /* nobody waits for the rank with the most */
  plan->clocks = co_job_is_local(job) && !own_pace
                     ? bl_job_clocks_local(plan->rank_samples, plan->n_rank_samples, bl_job_clock_samples(spec), spec->epochs)
                     : bl_job_clocks(job->train_samples, bl_job_clock_samples(spec), spec->epochs);
  plan->epoch_clocks = plan->warmup_epochs > 0 ? plan->clocks / spec->epochs : 0;
  plan->start_clock = plan->clocks / spec->epochs * epochs_done(job);
  co_job_next_view(job);
  co_state_log(st, job, BL_LOG_INFO,
               "%s: %" PRIu64 " training, %" PRIu64 " validation, %" PRIu64
               " test samples; %" PRIu64 " clocks, shards used: %zu, servers: %u",
               co_job_is_local(job) ? "every rank has data of its own" : "the data agrees", job->train_samples,
               job->validation_samples, job->test_samples, plan->clocks, plan->n_shards, job->n_servers);
}

static void do_run(co_state *st, co_job *job) {
  if (job->running_wall_ns == 0)
    job->running_wall_ns = st->wall_ns;
  co_state_log(st, job, BL_LOG_INFO, "all ranks are ready in view %" PRIu64, job->view);
}

static void do_replace(co_state *st, co_job *job) {
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    bl_error why = BL_ERROR_INIT;
    rank_fate fate = fate_of(st, job, i, &why);
    if (fate == RANK_FINE)
      continue;
    co_state_log(st, job, BL_LOG_WARNING, "rank %u on %s is replaced: %s", i, job->ranks[i].node, why.text);
    job->ranks[i].crashes += fate == RANK_CRASHED;
    co_job_reset_rank(job, i);
  }
  if (co_job_plan_is_complete(job))
    co_job_next_view(job);
}

static void do_requeue(co_state *st, co_job *job) {
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    co_job_reset_rank(job, i);
    co_job_unbind_rank(job, i); /* nothing was computed yet: any worker will do */
  }
  co_job_unplace(job);
  co_ledger_free(job->ledger); /* of data that may differ next time */
  job->ledger = NULL;
  job->data_agreed = false;
  co_state_log(st, job, BL_LOG_WARNING, "job %" PRIu64 " goes back into the queue: %s", job->id, job->reason);
  job->reason[0] = '\0';
  job->status = BL_OK;
}

static void do_finish(co_state *st, co_job *job) {
  job->finished_wall_ns = st->wall_ns;
  co_state_log(st, job, BL_LOG_INFO, "every rank has delivered its result");
}

static void do_end(co_state *st, co_job *job) {
  if (job->finished_wall_ns == 0)
    job->finished_wall_ns = st->wall_ns;
  co_state_log(st, job, job->state == CO_JOB_FAILED ? BL_LOG_ERROR : BL_LOG_INFO, "job %" PRIu64 " is %s%s%s",
               job->id, co_job_state_name(job->state), job->reason[0] != '\0' ? ": " : "", job->reason);
}

static void (*const actions[CO_ACT_COUNT])(co_state *st, co_job *job) = {
    [CO_ACT_START] = do_start,     [CO_ACT_OPEN] = do_open,       [CO_ACT_RUN] = do_run,
    [CO_ACT_REPLACE] = do_replace, [CO_ACT_REQUEUE] = do_requeue, [CO_ACT_FINISH] = do_finish,
    [CO_ACT_END] = do_end,
};

bl_status co_lifecycle_apply(co_state *st, co_job *job, co_job_event event, bl_status status,
                             const char *reason) {
  co_job_step step = co_job_state_step(job->state, event);
  if (step.next == CO_JOB_INVALID)
    return BL_ESTATE;
  job->state = step.next;
  job->waits_for[0] = '\0';
  job->dirty = true;
  if (step.action == CO_ACT_END || step.action == CO_ACT_REQUEUE) {
    job->status = status;
    bl_str_copy(job->reason, sizeof job->reason, reason);
  }
  if (actions[step.action] != NULL)
    actions[step.action](st, job);
  return BL_OK;
}

void co_lifecycle_step(co_state *st, co_job *job) {
  note_seen(st, job);
  for (unsigned n = 0; n < CO_STEPS_MAX; n++) {
    bl_error why = BL_ERROR_INIT;
    co_job_event event = CO_EV_NONE;
    for (size_t i = 0; i < CO_SEES_MAX && sees[job->state][i] != NULL && event == CO_EV_NONE; i++)
      event = sees[job->state][i](st, job, &why);
    if (event == CO_EV_NONE)
      return;
    if (co_lifecycle_apply(st, job, event, why.status, why.text) != BL_OK) {
      bl_log_error("bug", "bug=event_without_transition job=%" PRIu64 " state=%s event=%s", job->id,
                   co_job_phase_name(job->state), co_job_event_name(event));
      return;
    }
  }
}

/* ---- what an active job waits for ---------------------------------------------------------------------- */

static bool wait_for_server(const co_state *st, const co_job *job, bl_buf *out) {
  for (uint32_t i = 0; i < job->n_servers; i++)
    if (!server_is_ready(st, job, &job->servers[i])) {
      bl_buf_printf(out, "job %" PRIu64 " waits for server %s to open its shards", job->id,
                    job->servers[i].name);
      return true;
    }
  return false;
}

void co_lifecycle_waits_for(const co_state *st, const co_job *job, bl_buf *out) {
  if (!co_job_state_is_active(job->state) || job->state == CO_JOB_RUNNING)
    return;
  if (job->state == CO_JOB_FINISHING) {
    const co_node *holder = co_state_holder(st, job->id);
    if (holder != NULL)
      bl_buf_printf(out, "job %" PRIu64 " waits for %s to let go of it", job->id, holder->reg->name);
    return;
  }
  if (job->state != CO_JOB_LOADING && wait_for_server(st, job, out))
    return;
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const co_rank *r = &job->ranks[i];
    bool ready = job->state == CO_JOB_LOADING ? r->data != NULL : rank_is_ready(st, job, i);
    if (ready)
      continue;
    bl_buf_printf(out, "job %" PRIu64 " waits for rank %u on %s to %s", job->id, i, r->node,
                  r->data == NULL ? "load its data" : "join the present view");
    return;
  }
}
