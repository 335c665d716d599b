/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/reconcile.h"

#include "coordinator/lifecycle.h"

#include "base/log.h"

#include <inttypes.h>
#include <string.h>

static bool send_to(bl_transport *out, const co_node *node, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  if (bl_control_pack(type, m, &msg) != BL_OK)
    return false;
  /* A full queue or a peer that is just gone: the difference stays, and is sent again. */
  bl_status status = bl_transport_send(out, &node->peer, &msg);
  bl_msg_fini(&msg);
  return status == BL_OK;
}

static bool overdue(const co_state *st, uint64_t sent_ns) {
  return sent_ns == 0 || st->now_ns - sent_ns >= CO_RESEND_NS;
}

/* ---- servers ---------------------------------------------------------------------------------------- */

static void reconcile_server(co_state *st, co_job *job, co_server_use *use, bl_transport *out) {
  const co_node *node = co_state_live(st, use->name, use->incarnation);
  if (node == NULL || node->hb == NULL)
    return; /* what it holds is not known yet */
  const Ballast__Control__ServerJobStatus *s = co_node_job(node, job->id);
  bool knows = s != NULL && s->view >= job->view;
  if (knows || (use->sent_view == job->view && !overdue(st, use->sent_ns)))
    return;
  if (send_to(out, node, BL_MSG_OPEN_JOB, &job->open->base)) {
    use->sent_view = job->view;
    use->sent_ns = st->now_ns;
  }
}

/* ---- tasks ------------------------------------------------------------------------------------------ */

static bool send_start(co_job *job, uint32_t rank, const co_node *node, bl_transport *out) {
  Ballast__Control__StartTask m = BALLAST__CONTROL__START_TASK__INIT;
  m.plan = job->open->plan;
  m.rank = rank;
  m.incarnation = job->ranks[rank].incarnation;
  m.job_text = job->text;
  m.blas_core = job->blas_core;
  m.blas_threads = job->spec->blas_threads;
  m.kernel_table = (char *)"auto";
  return send_to(out, node, BL_MSG_START_TASK, &m.base);
}

static bool send_update(co_job *job, uint32_t rank, const co_node *node, bl_transport *out) {
  Ballast__Control__UpdateTask m = BALLAST__CONTROL__UPDATE_TASK__INIT;
  m.plan = job->open->plan;
  m.rank = rank;
  m.incarnation = job->ranks[rank].incarnation;
  return send_to(out, node, BL_MSG_UPDATE_TASK, &m.base);
}

static bool send_run(co_job *job, uint32_t rank, const co_node *node, bl_transport *out) {
  Ballast__Control__RunTask m = BALLAST__CONTROL__RUN_TASK__INIT;
  m.job = job->id;
  m.rank = rank;
  m.incarnation = job->ranks[rank].incarnation;
  m.view = job->view;
  return send_to(out, node, BL_MSG_RUN_TASK, &m.base);
}

/* The one message that brings a task nearer to what it should be; BL_MSG_INVALID: none. */
static bl_msg_type task_needs(const co_job *job, const Ballast__Control__TaskStatus *t) {
  if (t == NULL)
    return BL_MSG_START_TASK;
  if (t->state > BALLAST__CONTROL__TASK_STATE__TASK_RUNNING)
    return BL_MSG_INVALID;
  if (co_job_plan_is_complete(job) && t->view < job->view)
    return BL_MSG_UPDATE_TASK;
  if (job->state == CO_JOB_RUNNING && t->state == BALLAST__CONTROL__TASK_STATE__TASK_READY)
    return BL_MSG_RUN_TASK;
  return BL_MSG_INVALID;
}

static bool send_task(co_job *job, uint32_t rank, bl_msg_type type, const co_node *node, bl_transport *out) {
  static const struct {
    bl_msg_type type;
    bool (*send)(co_job *job, uint32_t rank, const co_node *node, bl_transport *out);
  } sends[] = {
      {BL_MSG_START_TASK, send_start},
      {BL_MSG_UPDATE_TASK, send_update},
      {BL_MSG_RUN_TASK, send_run},
  };
  for (size_t i = 0; i < BL_COUNT_OF(sends); i++)
    if (sends[i].type == type)
      return sends[i].send(job, rank, node, out);
  return false;
}

static void reconcile_rank(co_state *st, co_job *job, uint32_t rank, bl_transport *out) {
  co_rank *r = &job->ranks[rank];
  if (!co_rank_has_slot(r) || r->done != NULL)
    return;
  const co_node *node = co_state_live(st, r->node, r->node_incarnation);
  if (node == NULL || node->hb == NULL)
    return;
  bl_msg_type type = task_needs(job, co_node_task(node, job->id, rank, r->incarnation));
  if (type == BL_MSG_INVALID)
    return;
  /* A task that is seen and then not is replaced (lifecycle.c), never started twice under one name. */
  if (type == BL_MSG_START_TASK && r->seen)
    return;
  if (r->sent_type == type && r->sent_view == job->view && !overdue(st, r->sent_ns))
    return;
  if (send_task(job, rank, type, node, out)) {
    r->sent_type = type;
    r->sent_view = job->view;
    r->sent_ns = st->now_ns;
  }
}

/* ---- jobs ------------------------------------------------------------------------------------------- */

static const char *why_ended(const co_job *job) {
  if (job == NULL)
    return "the coordinator knows no such job";
  return job->reason[0] != '\0' ? job->reason : co_job_state_name(job->state);
}

/* Nodes are told of the end as soon as it is stored, also of what stands in no heartbeat yet. What gets lost, and
 * whoever is not heard of now, is seen to by co_reconcile_node. */
static void tell_end(co_state *st, co_job *job, bl_transport *out) {
  job->told_end = true;
  for (uint32_t i = 0; job->state != CO_JOB_FINISHING && i < job->n_ranks; i++) {
    const co_rank *r = &job->ranks[i];
    const co_node *node = co_rank_has_slot(r) ? co_state_live(st, r->node, r->node_incarnation) : NULL;
    if (node == NULL)
      continue;
    const Ballast__Control__TaskStatus *t = co_node_task(node, job->id, i, r->incarnation);
    Ballast__Control__StopTask m = BALLAST__CONTROL__STOP_TASK__INIT;
    m.job = job->id;
    m.rank = i;
    m.incarnation = r->incarnation;
    m.reason = (char *)why_ended(job);
    if ((t != NULL || r->sent_type != 0) && !send_to(out, node, BL_MSG_STOP_TASK, &m.base))
      job->told_end = false;
  }
  for (uint32_t i = 0; i < job->n_servers; i++) {
    const co_node *node = co_state_live(st, job->servers[i].name, job->servers[i].incarnation);
    if (node == NULL || (job->servers[i].sent_ns == 0 && co_node_job(node, job->id) == NULL))
      continue;
    Ballast__Control__CloseJob m = BALLAST__CONTROL__CLOSE_JOB__INIT;
    m.job = job->id;
    m.reason = (char *)why_ended(job);
    if (!send_to(out, node, BL_MSG_CLOSE_JOB, &m.base))
      job->told_end = false;
  }
}

void co_reconcile_job(co_state *st, co_job *job, bl_transport *out) {
  bool over = co_job_state_is_terminal(job->state) || job->state == CO_JOB_FINISHING;
  if (over && !job->dirty && !job->told_end)
    tell_end(st, job, out);
  if (job->dirty || !co_job_state_is_active(job->state) || job->state == CO_JOB_FINISHING)
    return;
  /* Servers first: a task that hears of a view before the shards is only refused until they have it. */
  if (co_job_plan_is_complete(job))
    for (uint32_t i = 0; i < job->n_servers; i++)
      reconcile_server(st, job, &job->servers[i], out);
  for (uint32_t i = 0; i < job->n_ranks; i++)
    reconcile_rank(st, job, i, out);
}

/* ---- leftovers -------------------------------------------------------------------------------------- */

/* Its result is stored, but its acknowledgement waits for the other ranks' and brings what it still has to write. */
static bool waits_for_others(const co_rank *r, const Ballast__Control__TaskStatus *t) {
  return t->rank == 0 && r->done != NULL && t->state == BALLAST__CONTROL__TASK_STATE__TASK_RUNNING;
}

static bool wants_task(const co_job *job, const co_node *node, const Ballast__Control__TaskStatus *t) {
  if (job == NULL || t->rank >= job->n_ranks)
    return false;
  if (job->dirty)
    return true; /* not decided before it is stored */
  const co_rank *r = &job->ranks[t->rank];
  return co_job_state_is_active(job->state) && job->state != CO_JOB_FINISHING &&
         r->incarnation == t->incarnation && strcmp(r->node, node->reg->name) == 0 && (r->done == NULL || waits_for_others(r, t));
}

static bool wants_server_job(const co_job *job, const co_node *node) {
  if (job == NULL)
    return false;
  if (job->dirty)
    return true;
  if (!co_job_state_is_active(job->state) || job->state == CO_JOB_FINISHING)
    return false;
  for (uint32_t i = 0; i < job->n_servers; i++)
    if (strcmp(job->servers[i].name, node->reg->name) == 0)
      return true;
  return false;
}

static bool stop_task(const co_job *job, const Ballast__Control__TaskStatus *t, const co_node *node,
                      bl_transport *out) {
  Ballast__Control__StopTask m = BALLAST__CONTROL__STOP_TASK__INIT;
  m.job = t->job;
  m.rank = t->rank;
  m.incarnation = t->incarnation;
  m.reason =
      (char *)(job != NULL && co_job_state_is_active(job->state) ? "this rank has finished or runs elsewhere"
                                                                 : why_ended(job));
  return send_to(out, node, BL_MSG_STOP_TASK, &m.base);
}

void co_reconcile_node(co_state *st, co_node *node, bl_transport *out) {
  if (!node->alive || node->hb == NULL || !overdue(st, node->cleanup_sent_ns))
    return;
  for (size_t i = 0; i < node->hb->n_tasks; i++) {
    const Ballast__Control__TaskStatus *t = node->hb->tasks[i];
    const co_job *job = co_state_job(st, t->job);
    if (!wants_task(job, node, t) && stop_task(job, t, node, out))
      node->cleanup_sent_ns = st->now_ns;
  }
  for (size_t i = 0; i < node->hb->n_jobs; i++) {
    const co_job *job = co_state_job(st, node->hb->jobs[i]->job);
    if (wants_server_job(job, node))
      continue;
    Ballast__Control__CloseJob m = BALLAST__CONTROL__CLOSE_JOB__INIT;
    m.job = node->hb->jobs[i]->job;
    m.reason = (char *)why_ended(job);
    if (send_to(out, node, BL_MSG_CLOSE_JOB, &m.base))
      node->cleanup_sent_ns = st->now_ns;
  }
}
