/* SPDX-License-Identifier: Apache-2.0
 *
 * The agent's core. Registration and the heartbeat are one small state machine: not registered -> Register
 * with backoff; registered -> Heartbeat every heartbeat_ms; silence longer than the lease -> not registered.
 * Tasks are records; a record without a process either waits for a slot (STARTING) or has ended.
 */
#include "agent.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"
#include "outbox.h"
#include "task_output.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define REGISTER_FIRST_NS (500 * BL_NS_PER_MS)
#define REGISTER_MAX_NS (5 * BL_NS_PER_S)
#define SILENCE_LOG_FIRST_NS BL_NS_PER_S
#define SILENCE_LOG_MAX_NS (60 * BL_NS_PER_S)
#define HEARTBEAT_MS_MIN 20
#define HEARTBEAT_MS_MAX 60000
#define LEASE_MS_MIN 100
#define LEASE_MS_MAX 3600000
/* A change of state is told before the next heartbeat is due, but no oftener than this. */
#define HURRY_NS (20 * BL_NS_PER_MS)
#define PROCESSES_MAX 4096
#define TRAFFIC_TASKS_MAX 8 /* whose tensors one heartbeat tells of: 65 tensors are up to 40 KB */

typedef struct record {
  Ballast__Control__StartTask *start; /* owned; its plan is the newest that was seen */
  Ballast__Control__TaskStatus status; /* text and waits_for point into the buffers below */
  char text[BL_CONTROL_TEXT_BYTES_MAX];
  char waits_for[256];
  uint64_t lead[BL_CONTROL_LEAD_MAX]; /* status.lead points here */
  Ballast__Control__TaskStatus *traffic; /* the last that told of tensors, status.traffic points into it; owned, NULL before */
  bool has_traffic;      /* which the coordinator has not been told */
  uint64_t process;      /* 0: none */
  uint64_t heard_ns;     /* last message from the task */
  uint64_t ended_order;  /* which ended first */
  uint64_t kill_at_ns;   /* UINT64_MAX: no */
  bool stop_asked, told_done, forget;
  uint64_t acknowledged; /* task's own report number that it was told about */
  Ballast__Control__ReportAck *ack; /* the coordinator's newest, with what it carries for the task; owned, NULL before */
  Ballast__Control__ReportAck *news; /* the last acknowledgement that brought more than a number; owned, NULL before */
  bool has_news;                     /* which the task has not been told */
  wk_task_output words;
  wk_outbox outbox;
} record;

struct wk_agent {
  wk_agent_config config;
  record **records; /* owned */
  size_t n_records, records_capacity;
  uint64_t *orphans; /* processes that were replaced and are being killed; owned */
  size_t n_orphans;
  uint64_t last_process, ended_count;
  bool registered, stopping, hurry;
  uint64_t coordinator_incarnation;
  uint64_t heartbeat_ns, lease_ns, heartbeat_sequence;
  uint64_t last_heartbeat_ns, next_send_ns; /* register or heartbeat */
  uint64_t register_wait_ns;
  uint64_t heard_ns;                        /* last message from the coordinator; 0: never */
  uint64_t lost_since_ns, next_silence_log_ns, silence_log_wait_ns;
  bool refused_for_good;
  char refusal[512];
  wk_agent_stats stats;
};

/* ---- records ------------------------------------------------------------------------------------------ */

static void count_malformed(wk_agent *a, const char *from, const char *reason) {
  uint64_t n = ++a->stats.malformed;
  if (bl_is_worth_a_line(n))
    bl_log_warning("message_refused", "from=%s count=%" PRIu64 " reason=%s", from, n, BL_LOGQ(reason));
}

static bool has_ended(const record *r) {
  return r->status.state == BALLAST__CONTROL__TASK_STATE__TASK_DONE ||
         r->status.state == BALLAST__CONTROL__TASK_STATE__TASK_FAILED ||
         r->status.state == BALLAST__CONTROL__TASK_STATE__TASK_STOPPED;
}

static record *find(wk_agent *a, uint64_t job, uint32_t rank) {
  for (size_t i = 0; i < a->n_records; i++) {
    record *r = a->records[i];
    if (r->status.job == job && r->status.rank == rank)
      return r;
  }
  return NULL;
}

static record *find_process(wk_agent *a, uint64_t process) {
  for (size_t i = 0; i < a->n_records; i++) {
    if (a->records[i]->process == process)
      return a->records[i];
  }
  return NULL;
}

static void record_free(record *r) {
  if (r == NULL)
    return;
  bl_control_free(r->start != NULL ? &r->start->base : NULL);
  wk_outbox_fini(&r->outbox);
  bl_control_free(r->ack != NULL ? &r->ack->base : NULL);
  bl_control_free(r->news != NULL ? &r->news->base : NULL);
  bl_control_free(r->traffic != NULL ? &r->traffic->base : NULL);
  bl_free(r);
}

static record *record_new(wk_agent *a, const Ballast__Control__StartTask *m, uint64_t now_ns) {
  if (a->n_records == a->records_capacity) {
    size_t capacity = a->records_capacity > 0 ? a->records_capacity * 2 : 16;
    record **records = bl_realloc_array(a->records, capacity, sizeof *records);
    if (records == NULL)
      return NULL;
    a->records = records;
    a->records_capacity = capacity;
  }
  record *r = bl_calloc(1, sizeof *r);
  if (r == NULL)
    return NULL;
  r->start = (Ballast__Control__StartTask *)bl_control_copy(&m->base);
  if (r->start == NULL) {
    bl_free(r);
    return NULL;
  }
  ballast__control__task_status__init(&r->status);
  r->status.job = m->plan->job;
  r->status.rank = m->rank;
  r->status.incarnation = m->incarnation;
  r->status.view = m->plan->view;
  r->status.state = BALLAST__CONTROL__TASK_STATE__TASK_STARTING;
  r->status.text = r->text;
  r->status.waits_for = r->waits_for;
  r->kill_at_ns = UINT64_MAX;
  r->heard_ns = now_ns;
  wk_task_output_init(&r->words, now_ns);
  wk_outbox_init(&r->outbox);
  a->records[a->n_records++] = r;
  return r;
}

static void orphan(wk_agent *a, uint64_t process) {
  if (process == 0)
    return;
  a->config.launcher->kill(a->config.launcher, process, SIGKILL);
  a->orphans[a->n_orphans++] = process;
}

/* Forgets a record; its process, if there is still one, is killed and no longer listened to. */
static void forget(wk_agent *a, record *r) {
  for (size_t i = 0; i < a->n_records; i++) {
    if (a->records[i] != r)
      continue;
    memmove(a->records + i, a->records + i + 1, (a->n_records - i - 1) * sizeof *a->records);
    a->n_records--;
    break;
  }
  orphan(a, r->process);
  a->stats.log_lines_dropped += r->words.n_left_out_total + r->outbox.n_logs_dropped;
  a->stats.reports_dropped += r->outbox.n_dropped + r->outbox.n;
  record_free(r);
}

static void forget_oldest_ended(wk_agent *a) {
  size_t n = 0;
  record *oldest = NULL;
  for (size_t i = 0; i < a->n_records; i++) {
    record *r = a->records[i];
    if (!has_ended(r) || r->process != 0)
      continue;
    n++;
    if (oldest == NULL || (r->outbox.n == 0) > (oldest->outbox.n == 0) ||
        ((r->outbox.n == 0) == (oldest->outbox.n == 0) && r->ended_order < oldest->ended_order))
      oldest = r;
  }
  if (n > WK_AGENT_ENDED_MAX)
    forget(a, oldest);
}

static void set_state(wk_agent *a, record *r, Ballast__Control__TaskState state) {
  if (r->status.state == state)
    return;
  r->status.state = state;
  a->hurry = true;
  if (has_ended(r))
    r->ended_order = ++a->ended_count;
}

BL_PRINTF(5, 6)
static void fail_task(wk_agent *a, record *r, bl_status status, bool retryable, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(r->text, sizeof r->text, fmt, args);
  va_end(args);
  r->status.status = (uint32_t)-status;
  r->status.retryable = retryable;
  r->waits_for[0] = '\0';
  set_state(a, r, BALLAST__CONTROL__TASK_STATE__TASK_FAILED);
  bl_log_warning("task_failed", "job=%" PRIu64 " rank=%u incarnation=%u retryable=%d reason=%s", r->status.job,
                 r->status.rank, r->status.incarnation, retryable, BL_LOGQ(r->text));
}

/* ---- processes ---------------------------------------------------------------------------------------- */

size_t wk_agent_n_processes(const wk_agent *a) {
  size_t n = a->n_orphans;
  for (size_t i = 0; i < a->n_records; i++)
    n += a->records[i]->process != 0;
  return n;
}

static void send_to_task(wk_agent *a, record *r, bl_msg_type type, const ProtobufCMessage *m) {
  if (r->process == 0)
    return;
  bl_msg msg = BL_MSG_INIT;
  bl_status status = bl_control_pack(type, m, &msg);
  if (status == BL_OK)
    status = a->config.launcher->send(a->config.launcher, r->process, &msg);
  if (status != BL_OK) /* declarative: who wants it says it again */
    bl_log_debug("task_unsent", "type=%s job=%" PRIu64 " rank=%u status=%s", bl_msg_type_name(type), r->status.job,
                 r->status.rank, bl_status_name(status));
  bl_msg_fini(&msg);
}

static void launch(wk_agent *a, record *r, uint64_t now_ns) {
  bl_error err = BL_ERROR_INIT;
  wk_launch what = {.process = ++a->last_process,
                    .job = r->status.job,
                    .rank = r->status.rank,
                    .incarnation = r->status.incarnation,
                    .blas_core = r->start->blas_core,
                    .blas_threads = r->start->blas_threads > 0 ? r->start->blas_threads : 1};
  bl_status status = a->config.launcher->start(a->config.launcher, &what, &err);
  if (status != BL_OK) {
    fail_task(a, r, status, true, "cannot start a process for rank %u of job %" PRIu64 ": %s", r->status.rank,
              r->status.job, err.text);
    return;
  }
  r->process = what.process;
  r->heard_ns = now_ns;
  r->waits_for[0] = '\0';
  a->stats.tasks_started++;
  bl_log_info("task_started", "job=%" PRIu64 " rank=%u incarnation=%u process=%" PRIu64, r->status.job,
              r->status.rank, r->status.incarnation, r->process);
  send_to_task(a, r, BL_MSG_START_TASK, &r->start->base);
}

/* A replaced task holds its slot until its process is gone, so that a machine never runs more than its slots. */
static void launch_waiting(wk_agent *a, uint64_t now_ns) {
  size_t n = wk_agent_n_processes(a);
  for (size_t i = 0; i < a->n_records && n < a->config.slots && !a->stopping; i++) {
    record *r = a->records[i];
    if (r->process != 0 || has_ended(r))
      continue;
    launch(a, r, now_ns);
    n += r->process != 0;
  }
}

static void stop_task(wk_agent *a, record *r, const char *reason, uint64_t now_ns) {
  if (r->process == 0) {
    if (!has_ended(r))
      set_state(a, r, BALLAST__CONTROL__TASK_STATE__TASK_STOPPED);
    return;
  }
  if (r->stop_asked)
    return;
  r->stop_asked = true;
  r->kill_at_ns = now_ns + WK_AGENT_STOP_GRACE_NS;
  Ballast__Control__StopTask m = BALLAST__CONTROL__STOP_TASK__INIT;
  m.job = r->status.job;
  m.rank = r->status.rank;
  m.incarnation = r->status.incarnation;
  m.reason = (char *)reason;
  m.comes_back = a->stopping;
  send_to_task(a, r, BL_MSG_STOP_TASK, &m.base);
  bl_log_info("task_stopping", "job=%" PRIu64 " rank=%u incarnation=%u reason=%s", m.job, m.rank, m.incarnation,
              BL_LOGQ(reason));
}

static void describe_crash(wk_agent *a, record *r, int64_t code, int signum) {
  char words[WK_TASK_OUTPUT_LAST_BYTES_MAX + 1], how[160];
  wk_task_output_last(&r->words, words, sizeof words);
  const char *name = signum > 0 ? sigabbrev_np(signum) : NULL;
  if (signum > 0)
    snprintf(how, sizeof how, "was killed by signal %d (SIG%s)%s", signum, name != NULL ? name : "?",
             signum == SIGKILL ? ", perhaps for lack of memory" : "");
  else
    snprintf(how, sizeof how, "ended with code %" PRId64 " and without a result", code);
  a->stats.tasks_crashed++;
  fail_task(a, r, BL_EIO, true, "rank %u of job %" PRIu64 " on %s %s at clock %" PRIu64 "; %s%s", r->status.rank,
            r->status.job, a->config.name, how, r->status.clock,
            words[0] != '\0' ? "its last words: " : "it said nothing", words);
}

void wk_agent_on_task_exit(wk_agent *a, uint64_t process, int64_t code, int signum, uint64_t now_ns) {
  for (size_t i = 0; i < a->n_orphans; i++) {
    if (a->orphans[i] == process) {
      a->orphans[i] = a->orphans[--a->n_orphans];
      launch_waiting(a, now_ns);
      return;
    }
  }
  record *r = process != 0 ? find_process(a, process) : NULL;
  if (r == NULL)
    return;
  r->process = 0;
  r->kill_at_ns = UINT64_MAX;
  if (!has_ended(r)) {
    if (r->told_done)
      set_state(a, r, BALLAST__CONTROL__TASK_STATE__TASK_DONE);
    else if (r->stop_asked)
      set_state(a, r, BALLAST__CONTROL__TASK_STATE__TASK_STOPPED);
    else
      describe_crash(a, r, code, signum);
  }
  r->waits_for[0] = '\0';
  bl_log_info("task_ended", "job=%" PRIu64 " rank=%u incarnation=%u state=%d code=%" PRId64 " signal=%d",
              r->status.job, r->status.rank, r->status.incarnation, (int)r->status.state, code, signum);
  if (r->forget)
    forget(a, r);
  else
    forget_oldest_ended(a);
  launch_waiting(a, now_ns);
}

/* ---- from tasks --------------------------------------------------------------------------------------- */

/* Cut between characters: a heartbeat with half a character in it would not be accepted. */
static void copy_text(char *out, size_t size, const char *text) {
  if (bl_str_copy(out, size, text))
    return;
  size_t n = strlen(out);
  while (n > 0 && (out[n - 1] & 0x80) != 0)
    n--;
  out[n] = '\0';
}

/* Kept until there is more: statuses tell of tensors now and then. Without memory the old ones stay. */
static void keep_traffic(record *r, const Ballast__Control__TaskStatus *m) {
  ProtobufCMessage *copy = m->n_traffic > 0 ? bl_control_copy(&m->base) : NULL;
  if (copy == NULL)
    return;
  bl_control_free(r->traffic != NULL ? &r->traffic->base : NULL);
  r->traffic = (Ballast__Control__TaskStatus *)copy;
  r->status.traffic = r->traffic->traffic;
  r->status.n_traffic = r->traffic->n_traffic;
  r->has_traffic = true;
}

static void on_task_status(wk_agent *a, record *r, const Ballast__Control__TaskStatus *m) {
  /* Only the task's own story: who it is stays as we know it, and an end is final. */
  if (has_ended(r) || m->state <= BALLAST__CONTROL__TASK_STATE__TASK_STARTING)
    return;
  Ballast__Control__TaskStatus *s = &r->status;
  s->status = m->status;
  s->retryable = m->retryable;
  s->clock = m->clock;
  s->epoch = m->epoch;
  s->samples = m->samples;
  s->loss = m->loss;
  s->samples_per_second = m->samples_per_second;
  s->view = m->view;
  s->bytes_pushed = m->bytes_pushed;
  s->bytes_pulled = m->bytes_pulled;
  s->bytes_pushed_dense = m->bytes_pushed_dense;
  s->bytes_pulled_dense = m->bytes_pulled_dense;
  s->clocks_not_finite = m->clocks_not_finite;
  s->lead = r->lead;
  s->n_lead = BL_MIN(m->n_lead, BL_COUNT_OF(r->lead));
  if (s->n_lead > 0)
    memcpy(r->lead, m->lead, s->n_lead * sizeof r->lead[0]);
  keep_traffic(r, m);
  copy_text(r->text, sizeof r->text, m->text);
  copy_text(r->waits_for, sizeof r->waits_for, m->waits_for);
  if (m->state == BALLAST__CONTROL__TASK_STATE__TASK_FAILED)
    bl_log_warning("task_failed", "job=%" PRIu64 " rank=%u incarnation=%u retryable=%d reason=%s", s->job, s->rank,
                   s->incarnation, s->retryable, BL_LOGQ(r->text));
  set_state(a, r, m->state);
}

/* Under the names that we know, not those that the task wrote. */
static void queue_report(wk_agent *a, record *r, Ballast__Control__Report *m, uint64_t task_sequence) {
  m->job = r->status.job;
  m->rank = r->status.rank;
  m->incarnation = r->status.incarnation;
  if (wk_outbox_add(&r->outbox, m, task_sequence) != BL_OK)
    a->stats.reports_dropped++;
}

static void on_task_report(wk_agent *a, record *r, Ballast__Control__Report *m) {
  queue_report(a, r, m, m->sequence);
  r->told_done |= m->done != NULL;
}

void wk_agent_on_task_msg(wk_agent *a, uint64_t process, const bl_msg *msg, uint64_t now_ns) {
  record *r = process != 0 ? find_process(a, process) : NULL;
  if (r == NULL)
    return;
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_error err = BL_ERROR_INIT;
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    count_malformed(a, "task", err.text);
    return;
  }
  r->heard_ns = now_ns;
  if (type == BL_MSG_TASK_STATUS)
    on_task_status(a, r, (const Ballast__Control__TaskStatus *)m);
  else if (type == BL_MSG_REPORT)
    on_task_report(a, r, (Ballast__Control__Report *)m);
  else if (type != BL_MSG_TASK_HELLO)
    count_malformed(a, "task", bl_msg_type_name(type));
  bl_control_free(m);
}

typedef struct line_context {
  wk_agent *a;
  record *r;
  uint64_t wall_ns;
} line_context;

static void on_line(bl_log_level level, const char *text, void *arg) {
  line_context *c = arg;
  Ballast__Control__LogLine line = BALLAST__CONTROL__LOG_LINE__INIT;
  line.wall_ns = c->wall_ns;
  line.level = (uint32_t)level;
  line.text = (char *)text;
  Ballast__Control__Report report = BALLAST__CONTROL__REPORT__INIT;
  report.log = &line;
  queue_report(c->a, c->r, &report, 0);
}

void wk_agent_on_task_output(wk_agent *a, uint64_t process, const char *bytes, size_t size, uint64_t now_ns,
                             uint64_t wall_ns) {
  record *r = process != 0 ? find_process(a, process) : NULL;
  if (r != NULL)
    wk_task_output_feed(&r->words, bytes, size, now_ns, on_line, &(line_context){a, r, wall_ns});
}

/* ---- from the coordinator ----------------------------------------------------------------------------- */

static void on_registered(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  const Ballast__Control__Registered *m = (const Ballast__Control__Registered *)base;
  if (m->incarnation != a->config.incarnation || strcmp(m->name, a->config.name) != 0)
    return;
  if (!a->registered)
    bl_log_info("registered", "coordinator=%s name=%s heartbeat_ms=%u lease_ms=%u", a->config.coordinator,
                a->config.name, m->heartbeat_ms, m->lease_ms);
  a->registered = true;
  a->refusal[0] = '\0';
  a->coordinator_incarnation = m->coordinator_incarnation;
  a->heartbeat_ns = BL_MAX(HEARTBEAT_MS_MIN, BL_MIN(HEARTBEAT_MS_MAX, m->heartbeat_ms)) * BL_NS_PER_MS;
  a->lease_ns = BL_MAX(LEASE_MS_MIN, BL_MIN(LEASE_MS_MAX, m->lease_ms)) * BL_NS_PER_MS;
  a->register_wait_ns = REGISTER_FIRST_NS;
  a->next_send_ns = now_ns;
  for (size_t i = 0; i < a->n_records; i++) {
    wk_outbox_hurry(&a->records[i]->outbox);
    a->records[i]->has_traffic = a->records[i]->traffic != NULL; /* it may be another coordinator */
  }
}

static void register_again(wk_agent *a, const char *reason, uint64_t now_ns) {
  if (!a->registered)
    return;
  a->registered = false;
  a->lost_since_ns = now_ns;
  a->register_wait_ns = REGISTER_FIRST_NS;
  a->next_send_ns = now_ns;
  bl_log_info("registering_again", "coordinator=%s reason=%s", a->config.coordinator, BL_LOGQ(reason));
}

static void on_reregister(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  register_again(a, ((const Ballast__Control__Reregister *)base)->reason, now_ns);
}

static void on_rejected(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  const Ballast__Control__Rejected *m = (const Ballast__Control__Rejected *)base;
  bool for_good = m->status == (uint32_t)-BL_EPROTO || m->status == (uint32_t)-BL_EACCES;
  if (strcmp(a->refusal, m->text) != 0)
    bl_log_error("rejected", "coordinator=%s name=%s reason=%s", a->config.coordinator, a->config.name,
                 BL_LOGQ(m->text));
  bl_str_copy(a->refusal, sizeof a->refusal, m->text[0] != '\0' ? m->text : "no reason given");
  a->refused_for_good = for_good;
  a->registered = false;
  a->register_wait_ns = REGISTER_MAX_NS;
  a->next_send_ns = now_ns + REGISTER_MAX_NS;
}

static void on_heartbeat_ack(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  const Ballast__Control__HeartbeatAck *m = (const Ballast__Control__HeartbeatAck *)base;
  if (m->coordinator_incarnation != a->coordinator_incarnation)
    register_again(a, "the coordinator was started again", now_ns);
}

static void on_start_task(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  const Ballast__Control__StartTask *m = (const Ballast__Control__StartTask *)base;
  record *r = find(a, m->plan->job, m->rank);
  if (r != NULL && m->incarnation <= r->status.incarnation)
    return;
  if (a->stopping)
    return;
  if (r != NULL)
    forget(a, r);
  size_t n_live = 0;
  for (size_t i = 0; i < a->n_records; i++)
    n_live += !has_ended(a->records[i]);
  r = record_new(a, m, now_ns);
  if (r == NULL) {
    bl_log_error("task_refused", "job=%" PRIu64 " rank=%u reason=\"no memory\"", m->plan->job, m->rank);
    return;
  }
  a->hurry = true;
  if (n_live >= a->config.slots) {
    fail_task(a, r, BL_ELIMIT, true, "%s has no free slot for rank %u of job %" PRIu64 ": %zu of %u are taken",
              a->config.name, m->rank, m->plan->job, n_live, a->config.slots);
    return;
  }
  bl_str_copy(r->waits_for, sizeof r->waits_for, "a slot: the process of an ended task is still there");
  launch_waiting(a, now_ns);
}

/* The record that a command means; NULL when it is about another incarnation. */
static record *meant(wk_agent *a, uint64_t job, uint32_t rank, uint32_t incarnation) {
  record *r = find(a, job, rank);
  return r != NULL && r->status.incarnation == incarnation ? r : NULL;
}

static void on_run_task(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  (void)now_ns;
  const Ballast__Control__RunTask *m = (const Ballast__Control__RunTask *)base;
  record *r = meant(a, m->job, m->rank, m->incarnation);
  if (r != NULL && !has_ended(r))
    send_to_task(a, r, BL_MSG_RUN_TASK, base);
}

static void on_stop_task(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  const Ballast__Control__StopTask *m = (const Ballast__Control__StopTask *)base;
  record *r = find(a, m->job, m->rank);
  if (r == NULL || m->incarnation < r->status.incarnation)
    return;
  if (!has_ended(r)) {
    stop_task(a, r, m->reason, now_ns);
  } else if (r->process == 0) {
    forget(a, r);
  } else {
    r->forget = true; /* told its end, but is still there */
    r->kill_at_ns = BL_MIN(r->kill_at_ns, now_ns + WK_AGENT_STOP_GRACE_NS);
  }
}

static void on_update_task(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  (void)now_ns;
  const Ballast__Control__UpdateTask *m = (const Ballast__Control__UpdateTask *)base;
  record *r = meant(a, m->plan->job, m->rank, m->incarnation);
  if (r == NULL || has_ended(r))
    return;
  if (m->plan->view >= r->start->plan->view) {
    ProtobufCMessage *plan = bl_control_copy(&m->plan->base);
    if (plan == NULL)
      return; /* it comes again */
    bl_control_free(&r->start->plan->base);
    r->start->plan = (Ballast__Control__JobPlan *)plan;
  }
  send_to_task(a, r, BL_MSG_UPDATE_TASK, base);
}

static void tell_acknowledged(wk_agent *a, record *r) {
  bool acknowledged = r->outbox.task_sequence > r->acknowledged && r->ack != NULL;
  if ((!acknowledged && !r->has_news) || r->process == 0)
    return;
  Ballast__Control__ReportAck ack = BALLAST__CONTROL__REPORT_ACK__INIT;
  if (acknowledged)
    ack = *r->ack;
  ack.job = r->status.job;
  ack.rank = r->status.rank;
  ack.incarnation = r->status.incarnation;
  ack.sequence = r->outbox.task_sequence; /* in the task's own count */
  if (r->has_news) {
    ack.metrics_csv = r->news->metrics_csv;
    ack.files = r->news->files;
    ack.n_files = r->news->n_files;
  }
  bl_msg msg = BL_MSG_INIT;
  if (bl_control_pack(BL_MSG_REPORT_ACK, &ack.base, &msg) == BL_OK &&
      a->config.launcher->send(a->config.launcher, r->process, &msg) == BL_OK) {
    r->acknowledged = ack.sequence;
    r->has_news = false;
  }
  bl_msg_fini(&msg);
}

/* Sums over all ranks may come at any time. Without memory the model has no metrics.csv: no reason to fail. */
static void keep_news(record *r, const Ballast__Control__ReportAck *m) {
  if (m->metrics_csv[0] == '\0' && m->n_files == 0)
    return;
  ProtobufCMessage *copy = bl_control_copy(&m->base);
  if (copy == NULL)
    return;
  bl_control_free(r->news != NULL ? &r->news->base : NULL);
  r->news = (Ballast__Control__ReportAck *)copy;
  r->has_news = true;
}

/* A verdict that the task could not be told yet goes on to the next acknowledgement. */
static void keep_verdict(record *r, Ballast__Control__ReportAck *next) {
  if (r->ack == NULL || r->ack->verdict == NULL || next->verdict != NULL || r->outbox.task_sequence <= r->acknowledged)
    return;
  next->verdict = r->ack->verdict;
  r->ack->verdict = NULL;
}

static void send_reports(wk_agent *a, record *r, uint64_t now_ns);

static void on_report_ack(wk_agent *a, const ProtobufCMessage *base, uint64_t now_ns) {
  const Ballast__Control__ReportAck *m = (const Ballast__Control__ReportAck *)base;
  record *r = meant(a, m->job, m->rank, m->incarnation);
  if (r == NULL)
    return;
  ProtobufCMessage *copy = bl_control_copy(base);
  if (copy == NULL)
    return; /* the report is sent again, and acknowledged again */
  keep_news(r, m);
  bool taken = wk_outbox_ack(&r->outbox, m->sequence);
  if (taken) {
    a->stats.reports_acknowledged++;
    keep_verdict(r, (Ballast__Control__ReportAck *)copy);
    bl_control_free(r->ack != NULL ? &r->ack->base : NULL);
    r->ack = (Ballast__Control__ReportAck *)copy;
  } else {
    bl_control_free(copy);
  }
  tell_acknowledged(a, r);
  if (taken)
    send_reports(a, r, now_ns);
}

static const struct {
  bl_msg_type type;
  void (*fn)(wk_agent *a, const ProtobufCMessage *m, uint64_t now_ns);
} handlers[] = {
    {BL_MSG_REGISTERED, on_registered},       {BL_MSG_REREGISTER, on_reregister},
    {BL_MSG_REJECTED, on_rejected},           {BL_MSG_HEARTBEAT_ACK, on_heartbeat_ack},
    {BL_MSG_START_TASK, on_start_task},       {BL_MSG_RUN_TASK, on_run_task},
    {BL_MSG_STOP_TASK, on_stop_task},         {BL_MSG_UPDATE_TASK, on_update_task},
    {BL_MSG_REPORT_ACK, on_report_ack},
};

void wk_agent_on_msg(wk_agent *a, const bl_msg *msg, uint64_t now_ns) {
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_error err = BL_ERROR_INIT;
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    count_malformed(a, a->config.coordinator, err.text);
    return;
  }
  a->heard_ns = now_ns;
  bool known = false;
  for (size_t i = 0; i < BL_COUNT_OF(handlers) && !known; i++) {
    if (handlers[i].type == type) {
      handlers[i].fn(a, m, now_ns);
      known = true;
    }
  }
  if (!known)
    count_malformed(a, a->config.coordinator, bl_msg_type_name(type));
  bl_control_free(m);
}

/* ---- to the coordinator ------------------------------------------------------------------------------- */

static bool send_up(wk_agent *a, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  bl_status status = bl_control_pack(type, m, &msg);
  if (status == BL_OK)
    status = bl_transport_send(a->config.transport, NULL, &msg);
  bl_msg_fini(&msg);
  return status == BL_OK;
}

static void send_reports(wk_agent *a, record *r, uint64_t now_ns) {
  if (!a->registered)
    return;
  const Ballast__Control__Report *report = wk_outbox_due(&r->outbox, now_ns);
  if (report != NULL && send_up(a, BL_MSG_REPORT, &report->base))
    a->stats.reports_sent++;
}

static void send_register(wk_agent *a) {
  const wk_agent_config *c = &a->config;
  Ballast__Control__Register m = BALLAST__CONTROL__REGISTER__INIT;
  m.protocol_min = BL_PROTOCOL_MIN;
  m.protocol_max = bl_protocol_max(c->protocol_max);
  m.role = BALLAST__CONTROL__ROLE__ROLE_WORKER;
  m.name = (char *)c->name;
  m.incarnation = c->incarnation;
  m.build = (char *)c->build;
  m.host = (char *)c->host;
  m.rack = (char *)c->rack;
  m.slots = c->slots;
  m.cores = c->cores;
  m.blas_core = (char *)c->blas_core;
  m.kernel_table = (char *)c->kernel_table;
  m.status_url = (char *)c->status_url;
  m.public_key = (char *)c->public_key;
  send_up(a, BL_MSG_REGISTER, &m.base);
}

/* A heartbeat tells of the tensors of a few tasks that have news of them; the others' turn comes with the next ones. */
static void choose_traffic(wk_agent *a) {
  unsigned left = TRAFFIC_TASKS_MAX;
  for (size_t i = 0; i < a->n_records; i++) {
    record *r = a->records[i];
    bool told = r->has_traffic && left > 0;
    left -= told;
    r->has_traffic &= !told;
    r->status.n_traffic = told ? r->traffic->n_traffic : 0;
  }
}

static void send_heartbeat(wk_agent *a) {
  Ballast__Control__TaskStatus *tasks[BL_CONTROL_TASKS_MAX];
  size_t n = BL_MIN(a->n_records, BL_CONTROL_TASKS_MAX);
  for (size_t i = 0; i < n; i++)
    tasks[i] = &a->records[i]->status;
  choose_traffic(a);
  Ballast__Control__Heartbeat m = BALLAST__CONTROL__HEARTBEAT__INIT;
  m.name = (char *)a->config.name;
  m.incarnation = a->config.incarnation;
  m.sequence = ++a->heartbeat_sequence;
  m.n_tasks = n;
  m.tasks = tasks;
  m.draining = a->stopping;
  send_up(a, BL_MSG_HEARTBEAT, &m.base);
  for (size_t i = 0; i < n; i++) /* our own pages show what there is */
    tasks[i]->n_traffic = a->records[i]->traffic != NULL ? a->records[i]->traffic->n_traffic : 0;
  a->stats.heartbeats++;
}

/* Says who is missing and for how long, ever more rarely. */
static void log_silence(wk_agent *a, uint64_t now_ns) {
  if (now_ns < a->next_silence_log_ns)
    return;
  char since[32], next[32];
  bl_log_warning("coordinator_silent", "address=%s silent_for=\"%s\" next_attempt_in=\"%s\" processes=%zu",
                 a->config.coordinator, bl_str_duration(wk_agent_silence_ns(a, now_ns), since, sizeof since),
                 bl_str_duration(a->register_wait_ns, next, sizeof next), wk_agent_n_processes(a));
  a->silence_log_wait_ns = BL_MIN(a->silence_log_wait_ns * 2, SILENCE_LOG_MAX_NS);
  a->next_silence_log_ns = now_ns + a->silence_log_wait_ns;
}

static uint64_t tick_registration(wk_agent *a, uint64_t now_ns) {
  if (a->registered && now_ns - a->heard_ns > a->lease_ns) {
    a->registered = false;
    a->lost_since_ns = a->heard_ns;
    a->register_wait_ns = REGISTER_FIRST_NS;
    a->next_send_ns = now_ns;
    a->silence_log_wait_ns = SILENCE_LOG_FIRST_NS;
    a->next_silence_log_ns = now_ns;
  }
  if (a->lost_since_ns == 0) { /* the first tick */
    a->lost_since_ns = now_ns;
    a->next_silence_log_ns = now_ns + SILENCE_LOG_FIRST_NS;
  }
  if (a->registered) {
    if (a->hurry)
      a->next_send_ns = BL_MIN(a->next_send_ns, a->last_heartbeat_ns + HURRY_NS);
    if (now_ns >= a->next_send_ns) {
      send_heartbeat(a);
      a->hurry = false;
      a->last_heartbeat_ns = now_ns;
      a->next_send_ns = now_ns + a->heartbeat_ns;
    }
    return BL_MIN(a->next_send_ns, a->heard_ns + a->lease_ns + 1);
  }
  if (now_ns >= a->next_send_ns && !a->refused_for_good) {
    send_register(a);
    a->next_send_ns = now_ns + a->register_wait_ns;
    if (a->refusal[0] == '\0')
      log_silence(a, now_ns);
    a->register_wait_ns = BL_MIN(a->register_wait_ns * 2, REGISTER_MAX_NS);
  }
  return a->refused_for_good ? UINT64_MAX : a->next_send_ns;
}

/* Hung tasks, overdue stops, acknowledgements that did not fit. Returns the next deadline. */
static uint64_t tick_task(wk_agent *a, record *r, uint64_t now_ns) {
  uint64_t next = UINT64_MAX;
  if (r->process != 0) {
    bool loading = r->status.state <= BALLAST__CONTROL__TASK_STATE__TASK_LOADING;
    uint64_t limit_ns = loading ? WK_AGENT_LOADING_SILENCE_MAX_NS : WK_AGENT_SILENCE_MAX_NS;
    if (!has_ended(r) && now_ns - r->heard_ns > limit_ns) {
      char silent[32];
      a->stats.tasks_hung++;
      fail_task(a, r, BL_ETIMEOUT, true, "rank %u of job %" PRIu64 " on %s said nothing for %s and was killed",
                r->status.rank, r->status.job, a->config.name,
                bl_str_duration(now_ns - r->heard_ns, silent, sizeof silent));
      r->kill_at_ns = now_ns;
    }
    if (has_ended(r) && r->kill_at_ns == UINT64_MAX)
      r->kill_at_ns = now_ns + WK_AGENT_STOP_GRACE_NS; /* it told its end: time to go */
    if (now_ns >= r->kill_at_ns) {
      a->config.launcher->kill(a->config.launcher, r->process, SIGKILL);
      r->kill_at_ns = now_ns + WK_AGENT_STOP_GRACE_NS;
    }
    next = BL_MIN(r->kill_at_ns, has_ended(r) ? UINT64_MAX : r->heard_ns + limit_ns + 1);
    tell_acknowledged(a, r);
  }
  send_reports(a, r, now_ns);
  return a->registered ? BL_MIN(next, BL_MAX(now_ns + BL_NS_PER_MS, wk_outbox_next_ns(&r->outbox))) : next;
}

uint64_t wk_agent_tick(wk_agent *a, uint64_t now_ns) {
  uint64_t next = UINT64_MAX;
  launch_waiting(a, now_ns);
  for (size_t i = 0; i < a->n_records; i++) {
    uint64_t t = tick_task(a, a->records[i], now_ns);
    next = BL_MIN(next, t);
  }
  uint64_t t = tick_registration(a, now_ns);
  return BL_MIN(next, t);
}

/* ---- life --------------------------------------------------------------------------------------------- */

bl_status wk_agent_new(const wk_agent_config *config, wk_agent **ret_agent, bl_error *err) {
  if (config->slots == 0 || config->slots > PROCESSES_MAX)
    return bl_fail(err, BL_EINVAL, "a worker has between 1 and %d slots, not %u", PROCESSES_MAX, config->slots);
  if (config->name[0] == '\0' || strlen(config->name) > BL_CONTROL_NAME_BYTES_MAX)
    return bl_fail(err, BL_EINVAL, "a node's name has between 1 and %d bytes, not %zu", BL_CONTROL_NAME_BYTES_MAX,
                   strlen(config->name));
  wk_agent *a = bl_calloc(1, sizeof *a);
  /* Every orphan was a process in a slot, so there are never more of them than slots. */
  uint64_t *orphans = bl_calloc(config->slots, sizeof *orphans);
  if (a == NULL || orphans == NULL) {
    bl_free(a);
    bl_free(orphans);
    return bl_fail(err, BL_ENOMEM, "no memory for the agent");
  }
  a->config = *config;
  a->orphans = orphans;
  a->register_wait_ns = REGISTER_FIRST_NS;
  a->silence_log_wait_ns = SILENCE_LOG_FIRST_NS;
  *ret_agent = a;
  return BL_OK;
}

void wk_agent_free(wk_agent *a) {
  if (a == NULL)
    return;
  for (size_t i = 0; i < a->n_records; i++)
    record_free(a->records[i]);
  bl_free(a->records);
  bl_free(a->orphans);
  bl_free(a);
}

bool wk_agent_stop(wk_agent *a, const char *reason, uint64_t now_ns) {
  a->stopping = true;
  for (size_t i = 0; i < a->n_records; i++) {
    if (!has_ended(a->records[i]))
      stop_task(a, a->records[i], reason, now_ns);
  }
  return wk_agent_n_processes(a) == 0;
}

bool wk_agent_is_registered(const wk_agent *a) { return a->registered; }

uint64_t wk_agent_silence_ns(const wk_agent *a, uint64_t now_ns) {
  return a->registered || a->lost_since_ns == 0 ? 0 : now_ns - a->lost_since_ns;
}

const char *wk_agent_refusal(const wk_agent *a, bool *ret_for_good) {
  *ret_for_good = a->refused_for_good && a->refusal[0] != '\0';
  return a->refusal;
}

wk_agent_stats wk_agent_get_stats(const wk_agent *a) {
  wk_agent_stats s = a->stats;
  for (size_t i = 0; i < a->n_records; i++) {
    s.log_lines_dropped += a->records[i]->words.n_left_out_total + a->records[i]->outbox.n_logs_dropped;
    s.reports_dropped += a->records[i]->outbox.n_dropped;
  }
  return s;
}

const Ballast__Control__TaskStatus *wk_agent_task_at(const wk_agent *a, size_t i) {
  return i < a->n_records ? &a->records[i]->status : NULL;
}
