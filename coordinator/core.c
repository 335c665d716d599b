/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/core.h"

#include "coordinator/grants.h"
#include "coordinator/history.h"
#include "coordinator/lifecycle.h"
#include "coordinator/reconcile.h"
#include "coordinator/schedule.h"
#include "coordinator/status.h"
#include "coordinator/traffic.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Longest time between two looks at the leases. */
#define CO_TICK_NS UINT64_C(250000000)

struct co_core {
  co_state st;
  bl_transport *out;
  uint64_t history_jobs_max;
  uint64_t settled_ns; /* 0: not yet */
  bool unsettled;      /* something came in since */
  co_core_stats stats;
  uint64_t dropped; /* by the socket, unread */
};

const co_state *co_core_state(const co_core *core) {
  return &core->st;
}
co_core_stats co_core_get_stats(const co_core *core) {
  co_core_stats stats = core->stats;
  stats.malformed += core->dropped;
  return stats;
}
void co_core_set_wall(co_core *core, uint64_t wall_ns) {
  core->st.wall_ns = wall_ns;
}
void co_core_set_dropped(co_core *core, uint64_t n) {
  core->dropped = n;
}

/* ---- load ------------------------------------------------------------------------------------------- */

bl_status co_core_new(const co_core_config *config, uint64_t now_ns, uint64_t wall_ns, co_core **ret_core,
                      bl_error *err) {
  co_core *core = bl_calloc(1, sizeof *core);
  if (core == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the coordinator");
  co_state *st = &core->st;
  co_membership_init(&st->members);
  st->incarnation = config->incarnation;
  st->protocol_max = bl_protocol_max(config->protocol_max);
  st->heartbeat_ns = config->heartbeat_ns;
  st->lease_ns = config->lease_ns;
  st->queue_pass_ns = config->queue_pass_ns;
  st->started_ns = st->now_ns = now_ns;
  st->started_wall_ns = st->wall_ns = wall_ns;
  st->store = config->store;
  core->out = config->transport;
  core->history_jobs_max = BL_MAX(config->history_jobs_max, 1);
  core->unsettled = true;
  bl_status status = co_history_load(st, err);
  if (status != BL_OK) {
    co_core_free(core);
    return status;
  }
  for (size_t i = 0; i < st->n_jobs; i++)
    if (co_job_state_is_active(st->jobs[i]->state))
      co_state_log(st, st->jobs[i], BL_LOG_INFO, "the coordinator has started again; job %" PRIu64 " was %s",
                   st->jobs[i]->id, co_job_phase_name(st->jobs[i]->state));
  *ret_core = core;
  return BL_OK;
}

void co_core_free(co_core *core) {
  if (core == NULL)
    return;
  for (size_t i = 0; i < core->st.n_jobs; i++)
    co_job_free(core->st.jobs[i]);
  bl_free(core->st.jobs);
  co_membership_fini(&core->st.members);
  bl_free(core);
}

/* ---- sending ---------------------------------------------------------------------------------------- */

static void reply(co_core *core, const bl_peer *to, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  /* Whoever asked asks again when an answer is lost. */
  if (bl_control_pack(type, m, &msg) == BL_OK && bl_transport_send(core->out, to, &msg) != BL_OK)
    bl_log_debug("reply_lost", "type=%s", bl_msg_type_name(type));
  bl_msg_fini(&msg);
}

static void reject(co_core *core, const bl_peer *to, bl_status status, const char *text) {
  Ballast__Control__Rejected m = BALLAST__CONTROL__REJECTED__INIT;
  m.status = (uint32_t) - (int)status;
  m.text = (char *)text;
  m.protocol_min = BL_PROTOCOL_MIN;
  m.protocol_max = core->st.protocol_max;
  core->stats.refused++;
  reply(core, to, BL_MSG_REJECTED, &m.base);
}

static void answer(co_core *core, const bl_peer *to, uint64_t request, uint64_t job, bl_status status,
                   const char *text, const char *json) {
  Ballast__Control__Answer m = BALLAST__CONTROL__ANSWER__INIT;
  m.request = request;
  m.job = job;
  m.status = (uint32_t) - (int)status;
  m.text = (char *)text;
  m.json = (char *)json;
  reply(core, to, BL_MSG_ANSWER, &m.base);
}

static void ask_to_register(co_core *core, const bl_peer *to) {
  Ballast__Control__Reregister m = BALLAST__CONTROL__REREGISTER__INIT;
  m.reason = (char *)"this coordinator does not know you in this incarnation";
  reply(core, to, BL_MSG_REREGISTER, &m.base);
}

/* ---- nodes ------------------------------------------------------------------------------------------ */

/* True when the key says that the peer is who it claims to be. */
static bool key_allows(const bl_peer *from, bl_role role, const char *name) {
  return !from->authenticated || (from->role == role && strcmp(from->name, name) == 0);
}

static void on_register(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  Ballast__Control__Register *reg = (Ballast__Control__Register *)*m;
  bl_error err = BL_ERROR_INIT;
  uint32_t ours = core->st.protocol_max;
  if (reg->protocol_min > ours || reg->protocol_max < BL_PROTOCOL_MIN) {
    bl_fail(&err, BL_EPROTO,
            "'%s' speaks protocol %u to %u, this coordinator %u to %u: upgrade the older of the two", reg->name,
            reg->protocol_min, reg->protocol_max, BL_PROTOCOL_MIN, ours);
    reject(core, from, BL_EPROTO, err.text);
    return;
  }
  if (!key_allows(from, (bl_role)reg->role, reg->name)) {
    bl_fail(&err, BL_EACCES, "the key of '%s' is allowed as %s '%s', not as %s '%s'", reg->name,
            bl_role_name(from->role), from->name, bl_role_name((bl_role)reg->role), reg->name);
    reject(core, from, BL_EACCES, err.text);
    return;
  }
  co_node *node;
  uint64_t incarnation = reg->incarnation;
  co_node *before = co_membership_find(&core->st.members, reg->name);
  bool known = before != NULL && before->alive && before->reg->incarnation == incarnation;
  bl_status status = co_membership_register(&core->st.members, from, reg, core->st.now_ns, &node, &err);
  if (status != BL_OK) {
    reject(core, from, status, err.text);
    return;
  }
  *m = NULL; /* taken */
  if (!known)
    bl_log_info("node_joined", "node=%s role=%s host=%s incarnation=%" PRIu64, node->reg->name,
                bl_role_name((bl_role)node->reg->role), BL_LOGQ(node->reg->host), incarnation);
  Ballast__Control__Registered r = BALLAST__CONTROL__REGISTERED__INIT;
  r.name = node->reg->name;
  r.incarnation = incarnation;
  r.coordinator_incarnation = core->st.incarnation;
  r.heartbeat_ms = (uint32_t)(core->st.heartbeat_ns / 1000000);
  r.lease_ms = (uint32_t)(core->st.lease_ns / 1000000);
  r.protocol = BL_MIN(node->reg->protocol_max, ours);
  reply(core, from, BL_MSG_REGISTERED, &r.base);
}

/* What is counted only on the nodes, for those who look when the job has left them. */
static void take_counts(co_core *core, const co_node *node) {
  for (size_t i = 0; i < node->hb->n_jobs; i++) {
    co_job *job = co_state_job(&core->st, node->hb->jobs[i]->job);
    if (job != NULL)
      job->clocks_skipped = BL_MAX(job->clocks_skipped, node->hb->jobs[i]->clocks_skipped);
  }
}

static void on_heartbeat(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  Ballast__Control__Heartbeat *hb = (Ballast__Control__Heartbeat *)*m;
  co_node *node = co_membership_find(&core->st.members, hb->name);
  if (node != NULL && node->reg->incarnation > hb->incarnation) {
    reject(core, from, BL_EEXIST, "another process of this name has registered since");
    return;
  }
  bool was_alive = node != NULL && node->alive;
  bl_status status = co_membership_heartbeat(&core->st.members, from, hb, core->st.now_ns, &node);
  if (status == BL_ENOENT)
    ask_to_register(core, from);
  if (status != BL_OK)
    return;
  *m = NULL;
  take_counts(core, node);
  if (!was_alive)
    bl_log_info("node_back", "node=%s", node->reg->name);
  for (size_t i = 0; i < node->hb->n_tasks; i++)
    co_traffic_keep(co_state_job(&core->st, node->hb->tasks[i]->job), node->hb->tasks[i]);
  Ballast__Control__HeartbeatAck ack = BALLAST__CONTROL__HEARTBEAT_ACK__INIT;
  ack.sequence = node->hb->sequence;
  ack.coordinator_incarnation = core->st.incarnation;
  reply(core, from, BL_MSG_HEARTBEAT_ACK, &ack.base);
}

/* ---- reports ---------------------------------------------------------------------------------------- */

/* job: NULL when nobody knows it any more. */
static void acknowledge(co_core *core, const bl_peer *to, const co_job *job, const Ballast__Control__Report *report,
                        uint64_t sequence) {
  Ballast__Control__ReportAck m = BALLAST__CONTROL__REPORT_ACK__INIT;
  co_grants_ack scratch;
  if (job != NULL && report->rank < job->n_ranks)
    co_grants_add(job, report->rank, &scratch, &m);
  m.job = report->job;
  m.rank = report->rank;
  m.incarnation = report->incarnation;
  m.sequence = sequence;
  reply(core, to, BL_MSG_REPORT_ACK, &m.base);
}

/* Rank 0 lays the epochs' numbers over all ranks beside the model, so the acknowledgement of its last report
 * carries them and waits until all ranks have delivered theirs. */
static void acknowledge_result(co_core *core, const bl_peer *to, const co_job *job) {
  co_result result;
  if (!co_job_result(job, &result))
    return;
  bl_buf csv = BL_BUF_INIT, confusion[2] = {BL_BUF_INIT, BL_BUF_INIT};
  static const char *const names[2] = {"confusion_validation.csv", "confusion_test.csv"};
  const co_metrics *metrics[2] = {&result.validation, &result.test};
  Ballast__Control__OutputFile files[2], *list[2];
  co_status_metrics_csv(job, &csv);
  Ballast__Control__ReportAck m = BALLAST__CONTROL__REPORT_ACK__INIT;
  m.files = list;
  for (size_t i = 0; i < BL_COUNT_OF(names); i++) {
    if (!co_status_confusion_csv(job, metrics[i], &confusion[i]))
      continue;
    ballast__control__output_file__init(&files[m.n_files]);
    files[m.n_files].name = (char *)(uintptr_t)names[i];
    files[m.n_files].text = (char *)(uintptr_t)bl_buf_str(&confusion[i]);
    list[m.n_files] = &files[m.n_files];
    m.n_files++;
  }
  m.job = job->id;
  m.rank = 0;
  m.incarnation = job->ranks[0].incarnation;
  m.sequence = job->ranks[0].sequence;
  m.metrics_csv = (char *)(uintptr_t)bl_buf_str(&csv);
  reply(core, to, BL_MSG_REPORT_ACK, &m.base);
  bl_buf_fini(&csv);
  bl_buf_fini(&confusion[0]);
  bl_buf_fini(&confusion[1]);
}

/* An epoch is complete: rank 0, wherever it is, may write what the job has come to so far. One that is lost is made up
 * for by the next. */
static void tell_metrics(co_core *core, const co_job *job) {
  const co_node *node = co_membership_find(&core->st.members, job->ranks[0].node);
  if (job->spec->output == NULL || node == NULL || job->ranks[0].done != NULL)
    return;
  bl_buf csv = BL_BUF_INIT;
  co_status_metrics_csv(job, &csv);
  Ballast__Control__ReportAck m = BALLAST__CONTROL__REPORT_ACK__INIT;
  m.job = job->id;
  m.incarnation = job->ranks[0].incarnation;
  m.metrics_csv = (char *)(uintptr_t)bl_buf_str(&csv);
  reply(core, &node->peer, BL_MSG_REPORT_ACK, &m.base); /* acknowledges nothing: sequence 0 */
  bl_buf_fini(&csv);
}

/* Early stopping: an epoch's report is acknowledged with the verdict, once there is one. Until then the agent repeats
 * it, also to a coordinator that has started again meanwhile. */
static void acknowledge_epoch(co_core *core, const bl_peer *to, co_job *job, uint32_t rank, uint32_t epoch, uint64_t sequence) {
  co_rank *r = &job->ranks[rank];
  bool stop;
  Ballast__Control__EpochVerdict v = BALLAST__CONTROL__EPOCH_VERDICT__INIT;
  if (!co_job_verdict(job, epoch, &stop, &v.best_epoch)) {
    r->verdict_epoch = epoch;
    r->verdict_sequence = sequence;
    return;
  }
  if (r->verdict_epoch == epoch)
    r->verdict_epoch = 0;
  v.epoch = epoch;
  v.stop = stop;
  Ballast__Control__ReportAck m = BALLAST__CONTROL__REPORT_ACK__INIT;
  m.job = job->id;
  m.rank = rank;
  m.incarnation = r->incarnation;
  m.sequence = sequence;
  m.verdict = &v;
  reply(core, to, BL_MSG_REPORT_ACK, &m.base);
}

/* The last rank's report has made an epoch complete: all that wait for it hear so. */
static void tell_verdicts(co_core *core, co_job *job) {
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const co_rank *r = &job->ranks[i];
    const co_node *node = r->verdict_epoch != 0 ? co_membership_find(&core->st.members, r->node) : NULL;
    if (node != NULL)
      acknowledge_epoch(core, &node->peer, job, i, r->verdict_epoch, r->verdict_sequence);
  }
}

/* What is stored of a rank: at once, but for the result of rank 0 and what waits for a verdict. `epoch`: of the report, 0:
 * it is of another kind. No answer covers another report than the one that came: that may be waiting. */
static void acknowledge_stored(co_core *core, const bl_peer *to, co_job *job, const Ballast__Control__Report *report,
                               uint32_t epoch) {
  const co_rank *rank = &job->ranks[report->rank];
  uint64_t sequence = BL_MIN(report->sequence, rank->sequence);
  if (report->rank == 0 && rank->done != NULL)
    acknowledge_result(core, to, job);
  else if (co_stopping_is_asked(job->spec) && epoch != 0 && epoch <= job->spec->epochs)
    acknowledge_epoch(core, to, job, report->rank, epoch, sequence);
  else
    acknowledge(core, to, job, report, sequence);
}

/* lease: the answer that is stored with a request for samples; otherwise NULL. */
static bl_status store_report(co_core *core, co_job *job, const Ballast__Control__Report *report,
                              const co_ledger_entry *lease, bl_error *err) {
  co_store *store = core->st.store;
  if (report->log != NULL) {
    co_log_record r = {.job = job->id,
                       .number = job->log_number + 1,
                       .wall_ns = report->log->wall_ns,
                       .level = report->log->level,
                       .rank = report->rank,
                       .incarnation = report->incarnation,
                       .sequence = report->sequence,
                       .text = report->log->text};
    return store->put_log(store, &r, err);
  }
  bl_msg packed = BL_MSG_INIT;
  bl_status status = lease != NULL ? co_grants_pack(report, lease, &packed)
                                   : bl_control_pack(BL_MSG_REPORT, &report->base, &packed);
  if (status != BL_OK)
    return bl_fail(err, status, "a report of job %" PRIu64 " cannot be packed", job->id);
  co_report_record r = {.job = job->id,
                        .rank = report->rank,
                        .incarnation = report->incarnation,
                        .sequence = report->sequence,
                        .kind = co_report_kind_of(report),
                        .epoch = report->epoch != NULL ? report->epoch->epoch : 0,
                        .message = packed.head->data,
                        .message_bytes = packed.head->size};
  status = store->put_report(store, &r, err);
  bl_msg_fini(&packed);
  return status;
}

static void take_report(co_job *job, ProtobufCMessage **m) {
  Ballast__Control__Report *report = (Ballast__Control__Report *)*m;
  if (report->log != NULL) {
    if (co_job_add_log(job, job->log_number + 1, report->log->wall_ns, report->log->level, report->rank,
                       report->log->text) != BL_OK)
      bl_log_warning("log_line_lost", "job=%" PRIu64, job->id);
    return;
  }
  bool taken = false;
  bl_status status = co_job_take_report(job, report, &taken);
  if (status != BL_OK)
    bl_log_warning("report_ignored", "job=%" PRIu64 " rank=%u status=%s", job->id, report->rank,
                   bl_status_name(status));
  if (taken)
    *m = NULL;
}

static void on_report(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  Ballast__Control__Report *report = (Ballast__Control__Report *)*m;
  const co_node *node = co_membership_find_peer(&core->st.members, from);
  if (node == NULL) {
    ask_to_register(core, from);
    return;
  }
  co_job *job = co_state_job(&core->st, report->job);
  /* An end or a new incarnation that is not on the disk may be taken back by a restart, and then this report is
   * wanted after all: it comes again. */
  if (job != NULL && job->dirty)
    return;
  /* What nobody waits for any more is acknowledged, so that it is not repeated for ever. */
  if (job == NULL || co_job_state_is_terminal(job->state) || report->rank >= job->n_ranks ||
      report->incarnation < job->ranks[report->rank].incarnation) {
    acknowledge(core, from, NULL, report, report->sequence);
    return;
  }
  co_rank *rank = &job->ranks[report->rank];
  if (report->incarnation != rank->incarnation || strcmp(rank->node, node->reg->name) != 0) {
    core->stats.refused++;
    return;
  }
  if (report->sequence != rank->sequence + 1) {
    acknowledge_stored(core, from, job, report, report->epoch != NULL ? report->epoch->epoch : 0);
    return;
  }
  bl_error err = BL_ERROR_INIT;
  co_ledger_entry lease;
  if (report->lease != NULL && co_grants_plan(job, report, &lease) != BL_OK) {
    core->stats.refused++;
    return; /* out of place, or no memory for the ledger: it comes again */
  }
  if (store_report(core, job, report, report->lease != NULL ? &lease : NULL, &err) != BL_OK) {
    bl_log_error("store_failed", "error=%s", BL_LOGQ(err.text));
    bl_str_copy(core->st.store_error, sizeof core->st.store_error, err.text);
    return; /* not acknowledged: it comes again */
  }
  rank->sequence = report->sequence;
  Ballast__Control__Report name = BALLAST__CONTROL__REPORT__INIT; /* take_report may take the message */
  name.job = report->job;
  name.rank = report->rank;
  name.incarnation = report->incarnation;
  name.sequence = report->sequence;
  uint32_t epoch = report->epoch != NULL ? report->epoch->epoch : 0;
  bool last = report->done != NULL;
  uint32_t closed = co_job_closed_epochs(job);
  if (report->lease == NULL)
    take_report(job, m);
  else if (co_ledger_apply(job->ledger, report->rank, &lease) != BL_OK)
    bl_log_error("bug", "bug=lease_refused job=%" PRIu64 " rank=%u", job->id, report->rank);
  if (co_job_closed_epochs(job) > closed)
    tell_metrics(core, job);
  acknowledge_stored(core, from, job, &name, epoch);
  tell_verdicts(core, job);
  const co_node *first = last && name.rank != 0 ? co_membership_find(&core->st.members, job->ranks[0].node) : NULL;
  if (first != NULL && job->ranks[0].done != NULL)
    acknowledge_result(core, &first->peer, job);
}

/* ---- commands --------------------------------------------------------------------------------------- */

/* init_from: {job: N} becomes the path of that job's output folder, in the text that is stored. */
static bl_status resolve_init(co_state *st, co_job **job, bl_buf *mistakes) {
  bl_job_spec *spec = (*job)->spec;
  if (spec->init.job == 0)
    return BL_OK;
  co_job *old = NULL; /* of the history */
  const co_job *source = co_history_job(st, spec->init.job, &old);
  if (source == NULL || source->spec->output == NULL) {
    co_job_free(old);
    bl_buf_printf(mistakes, source == NULL ? "%s: init_from: there is no job %" PRIu64
                                           : "%s: init_from: job %" PRIu64 " has no output folder",
                  (*job)->file, spec->init.job);
    return BL_EINVAL;
  }
  spec->init.path = source->spec->output; /* for the text; the job that is made of it has its own */
  spec->init.job = 0;
  bl_buf text = BL_BUF_INIT;
  co_job *resolved = NULL;
  bl_job_spec_dump(spec, &text);
  co_job_free(old);
  bl_status status = text.failed ? BL_ENOMEM
                                 : co_job_new((*job)->id, bl_buf_str(&text), text.size, (*job)->file, (*job)->token,
                                              (*job)->submitter, &resolved, mistakes);
  bl_buf_fini(&text);
  co_job_free(*job);
  *job = resolved;
  return status;
}

static void on_submit(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  const Ballast__Control__Submit *s = (const Ballast__Control__Submit *)*m;
  co_state *st = &core->st;
  co_job *job = NULL;
  uint64_t same = 0;
  bl_error err = BL_ERROR_INIT;
  bl_status status = co_history_token(st, s->token, &same, &err);
  if (status != BL_OK || same != 0) {
    answer(core, from, s->request, same, status, err.text, "");
    return;
  }
  if (st->n_jobs >= CO_JOBS_MAX) {
    answer(core, from, s->request, 0, BL_ELIMIT, "the coordinator holds as many jobs as it may; cancel some",
           "");
    return;
  }
  bl_buf mistakes = BL_BUF_INIT;
  status = co_job_new(st->next_job, s->job_text, strlen(s->job_text), s->file[0] != '\0' ? s->file : "job", s->token,
                 from->authenticated ? from->name : s->submitter, &job, &mistakes);
  if (status == BL_OK)
    status = resolve_init(st, &job, &mistakes);
  if (status != BL_OK) {
    co_job_free(job);
    answer(core, from, s->request, 0, status,
           mistakes.size > 0 ? bl_buf_str(&mistakes) : bl_status_name(status), "");
    bl_buf_fini(&mistakes);
    return;
  }
  bl_buf_fini(&mistakes);
  job->submitted_wall_ns = st->wall_ns;
  job->dirty = true;
  if (!co_state_save(st, job)) {
    bl_fail(&err, BL_EIO, "the job cannot be stored: %s", st->store_error);
    status = BL_EIO;
  } else if (co_state_add(st, job) != BL_OK) {
    status = bl_fail(&err, BL_ENOMEM, "no memory for another job");
  }
  if (status != BL_OK) {
    co_job_free(job);
    answer(core, from, s->request, 0, status, err.text, "");
    return;
  }
  st->next_job++;
  co_state_log(st, job, BL_LOG_INFO, "job %" PRIu64 " '%s' is submitted by %s", job->id, job->spec->name,
               job->submitter[0] != '\0' ? job->submitter : "somebody");
  answer(core, from, s->request, job->id, BL_OK, "", "");
}

/* The job that a command is about, when the sender may change it; NULL: *err says why not. */
static co_job *job_to_change(const co_core *core, const bl_peer *from, uint64_t id, const char *verb, bl_error *err) {
  co_job *job = co_state_job(&core->st, id), *old = NULL;
  const co_job *seen = co_history_job(&core->st, id, &old);
  if (seen == NULL) {
    bl_fail(err, BL_ENOENT, "there is no job %" PRIu64, id);
  } else if (from->authenticated && from->role == BL_ROLE_USER && strcmp(from->name, seen->submitter) != 0) {
    bl_fail(err, BL_EACCES, "job %" PRIu64 " belongs to '%s', and '%s' is no admin", id, seen->submitter, from->name);
    job = NULL;
  } else if (job == NULL) {
    bl_fail(err, BL_ESTATE, "job %" PRIu64 " cannot be %s any more: it is %s", id, verb, co_job_state_name(seen->state));
  }
  co_job_free(old);
  return job;
}

static void on_cancel(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  const Ballast__Control__Cancel *c = (const Ballast__Control__Cancel *)*m;
  bl_error err = BL_ERROR_INIT;
  co_job *job = job_to_change(core, from, c->job, "cancelled", &err);
  bl_status status = job != NULL ? BL_OK : err.status;
  if (job != NULL && job->state != CO_JOB_CANCELLED) {
    const char *who = from->authenticated ? from->name : "command";
    bl_fail(&err, BL_OK, "cancelled by %s", who);
    status = co_lifecycle_apply(&core->st, job, CO_EV_CANCEL, BL_ECANCELLED, err.text);
    if (status != BL_OK)
      bl_fail(&err, status, "job %" PRIu64 " cannot be cancelled any more: it is %s", c->job,
              co_job_state_name(job->state));
    else if (!co_state_save(&core->st, job))
      status = bl_fail(&err, BL_EIO, "the cancellation cannot be stored yet: %.400s", core->st.store_error);
  }
  answer(core, from, c->request, c->job, status, status == BL_OK ? "" : err.text, "");
}

static bl_status set_priority(co_core *core, co_job *job, int32_t priority, const char *who, bl_error *err) {
  int32_t before = job->priority;
  if (priority < -BL_JOB_PRIORITY_MAX || priority > BL_JOB_PRIORITY_MAX)
    return bl_fail(err, BL_EINVAL, "a priority is a whole number from -%d to %d, not %d", BL_JOB_PRIORITY_MAX,
                   BL_JOB_PRIORITY_MAX, priority);
  if (job->state != CO_JOB_QUEUED)
    return bl_fail(err, BL_ESTATE, "the priority of job %" PRIu64 " matters no more: it is %s", job->id,
                   co_job_state_name(job->state));
  if (priority == before)
    return BL_OK;
  job->priority = priority;
  job->dirty = true;
  if (!co_state_save(&core->st, job)) {
    job->priority = before; /* what was not stored would be lost by a restart, so it does not hold before either */
    return bl_fail(err, BL_EIO, "the priority cannot be stored: %.400s", core->st.store_error);
  }
  co_state_log(&core->st, job, BL_LOG_INFO, "the priority of job %" PRIu64 " is now %d, before %d (by %s)", job->id,
               priority, before, who);
  return BL_OK;
}

static void on_set_priority(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  const Ballast__Control__SetPriority *p = (const Ballast__Control__SetPriority *)*m;
  bl_error err = BL_ERROR_INIT;
  co_job *job = job_to_change(core, from, p->job, "moved in the queue", &err);
  bl_status status = job != NULL ? set_priority(core, job, p->priority, from->authenticated ? from->name : "command", &err)
                                 : err.status;
  answer(core, from, p->request, p->job, status, status == BL_OK ? "" : err.text, "");
}

typedef bl_status query_fn(const co_state *st, const Ballast__Control__Query *q, bl_buf *out, bl_error *err);

static bl_status query_status(const co_state *st, const Ballast__Control__Query *q, bl_buf *out, bl_error *err) {
  (void)q;
  (void)err;
  return co_status_cluster(st, out);
}

static bl_status query_jobs(const co_state *st, const Ballast__Control__Query *q, bl_buf *out, bl_error *err) {
  co_query query = {q->state, q->name, q->submitter, q->submitted_ns, q->job, q->limit};
  return co_history_find(st, &query, out, err);
}

static bl_status query_job(const co_state *st, const Ballast__Control__Query *q, bl_buf *out, bl_error *err) {
  (void)err;
  co_job *old;
  const co_job *job = co_history_job(st, q->job, &old);
  bl_status status = job != NULL ? co_status_job(st, job, out) : BL_ENOENT;
  co_job_free(old);
  return status;
}

static bl_status query_logs(const co_state *st, const Ballast__Control__Query *q, bl_buf *out, bl_error *err) {
  (void)err;
  co_job *old;
  const co_job *job = co_history_job(st, q->job, &old);
  bl_status status = job != NULL ? co_status_logs(job, q->since, out) : BL_ENOENT;
  co_job_free(old);
  return status;
}

static void on_query(co_core *core, const bl_peer *from, ProtobufCMessage **m) {
  static const struct {
    const char *what;
    query_fn *fn;
  } queries[] = {{"status", query_status}, {"jobs", query_jobs}, {"job", query_job}, {"logs", query_logs}};
  const Ballast__Control__Query *q = (const Ballast__Control__Query *)*m;
  bl_buf json = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  bl_status status = BL_EUNSUPPORTED;
  for (size_t i = 0; i < BL_COUNT_OF(queries); i++)
    if (strcmp(queries[i].what, q->what) == 0)
      status = queries[i].fn(&core->st, q, &json, &err);
  if (status == BL_EUNSUPPORTED)
    bl_fail(&err, status, "a query asks for status, jobs, job or logs, not '%s'", q->what);
  else if (status == BL_ENOENT)
    bl_fail(&err, status, "there is no job %" PRIu64, q->job);
  else if (status != BL_OK && err.text[0] == '\0')
    bl_fail(&err, status, "the answer is too large or memory is short");
  answer(core, from, q->request, q->job, status, err.text, status == BL_OK ? bl_buf_str(&json) : "");
  bl_buf_fini(&json);
}

/* ---- dispatch --------------------------------------------------------------------------------------- */

#define ROLE(r) (1u << BL_ROLE_##r)

/* Who may send what; on sockets without keys everybody may. A message that is taken over is set to NULL. */
static const struct {
  bl_msg_type type;
  unsigned roles;
  bool command; /* refused by an Answer, else by Rejected */
  void (*fn)(co_core *core, const bl_peer *from, ProtobufCMessage **m);
} handlers[] = {
    {BL_MSG_REGISTER, ROLE(SERVER) | ROLE(WORKER), false, on_register},
    {BL_MSG_HEARTBEAT, ROLE(SERVER) | ROLE(WORKER), false, on_heartbeat},
    {BL_MSG_REPORT, ROLE(WORKER), false, on_report},
    {BL_MSG_SUBMIT, ROLE(ADMIN) | ROLE(USER), true, on_submit},
    {BL_MSG_CANCEL, ROLE(ADMIN) | ROLE(USER), true, on_cancel},
    {BL_MSG_SET_PRIORITY, ROLE(ADMIN) | ROLE(USER), true, on_set_priority},
    {BL_MSG_QUERY, ROLE(ADMIN) | ROLE(USER) | ROLE(VIEWER), true, on_query},
};

/* `request` is the first field of every command. */
static uint64_t request_of(bl_msg_type type, const ProtobufCMessage *m) {
  return type == BL_MSG_SUBMIT   ? ((const Ballast__Control__Submit *)m)->request
         : type == BL_MSG_CANCEL ? ((const Ballast__Control__Cancel *)m)->request
         : type == BL_MSG_SET_PRIORITY ? ((const Ballast__Control__SetPriority *)m)->request
                                 : ((const Ballast__Control__Query *)m)->request;
}

static void refuse_role(co_core *core, const bl_peer *from, bl_msg_type type, bool command,
                        const ProtobufCMessage *m) {
  bl_error err = BL_ERROR_INIT;
  bl_fail(&err, BL_EACCES, "the key of '%s' (%s) does not allow %s", from->name, bl_role_name(from->role),
          bl_msg_type_name(type));
  if (!command) {
    reject(core, from, BL_EACCES, err.text);
    return;
  }
  core->stats.refused++;
  answer(core, from, request_of(type, m), 0, BL_EACCES, err.text, "");
}

static void dispatch(co_core *core, const bl_peer *from, bl_msg_type type, ProtobufCMessage **m) {
  for (size_t i = 0; i < BL_COUNT_OF(handlers); i++) {
    if (handlers[i].type != type)
      continue;
    if (from->authenticated && (handlers[i].roles & (1u << from->role)) == 0)
      refuse_role(core, from, type, handlers[i].command, *m);
    else
      handlers[i].fn(core, from, m);
    return;
  }
  core->stats.refused++; /* a message that only coordinators send */
}

void co_core_on_msg(co_core *core, const bl_peer *from, const bl_msg *msg, uint64_t now_ns) {
  core->st.now_ns = BL_MAX(core->st.now_ns, now_ns);
  core->stats.messages++;
  core->unsettled = true;
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_error err = BL_ERROR_INIT;
  bl_status status = bl_control_unpack(msg, &type, &m, &err);
  if (status != BL_OK) {
    core->stats.malformed++;
    if (bl_is_worth_a_line(core->stats.malformed))
      bl_log_warning("message_refused", "count=%" PRIu64 " reason=%s", core->stats.malformed, BL_LOGQ(err.text));
    reject(core, from, status, err.text);
    return;
  }
  dispatch(core, from, type, &m);
  bl_control_free(m);
}

/* ---- tick ------------------------------------------------------------------------------------------- */

static void expire_nodes(co_core *core) {
  co_state *st = &core->st;
  if (co_membership_expire(&st->members, st->now_ns, st->lease_ns) == 0)
    return;
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *node = st->members.nodes[i];
    if (!node->alive && st->now_ns - node->heard_ns < st->lease_ns + 2 * CO_TICK_NS)
      bl_log_warning("node_lost", "node=%s silent_ms=%" PRIu64, node->reg->name,
                     (st->now_ns - node->heard_ns) / 1000000);
  }
}

static void settle(co_core *core) {
  co_state *st = &core->st;
  expire_nodes(core);
  for (size_t i = 0; i < st->n_jobs; i++)
    if (co_job_state_is_active(st->jobs[i]->state))
      co_lifecycle_step(st, st->jobs[i]);
  co_schedule(st);
  for (size_t i = 0; i < st->n_jobs; i++)
    if (co_state_save(st, st->jobs[i]))
      co_reconcile_job(st, st->jobs[i], core->out);
  for (size_t i = 0; i < st->members.n; i++)
    co_reconcile_node(st, st->members.nodes[i], core->out);
  co_history_sweep(st, core->history_jobs_max);
  core->settled_ns = st->now_ns;
  core->unsettled = false;
}

uint64_t co_core_tick(co_core *core, uint64_t now_ns) {
  co_state *st = &core->st;
  st->now_ns = BL_MAX(st->now_ns, now_ns);
  uint64_t due = core->settled_ns + (core->unsettled ? CO_SETTLE_NS : CO_TICK_NS);
  if (core->settled_ns == 0 || st->now_ns >= due)
    settle(core);
  return core->settled_ns + (core->unsettled ? CO_SETTLE_NS : CO_TICK_NS);
}
