/* SPDX-License-Identifier: Apache-2.0
 *
 * Control plane of a server. What a shard reports replaces what was known about it; a job is open when all
 * its shards are, at its view.
 */
#include "server/node.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REGISTER_FIRST_NS (200 * BL_NS_PER_MS)
#define REGISTER_MAX_NS (5 * BL_NS_PER_S)
#define SILENCE_LOG_FIRST_NS BL_NS_PER_S
#define SILENCE_LOG_MAX_NS (60 * BL_NS_PER_S)

typedef struct node_job {
  uint64_t id, view;          /* the highest view that we were told */
  bool uses[SRV_SHARDS_MAX];  /* shards that the plan names */
  srv_shard_job_info *infos;  /* owned, [n_shards] */
} node_job;

struct srv_node {
  srv_node_config config;
  node_job *jobs[SRV_JOBS_MAX];
  size_t n_jobs;
  bool registered, dirty; /* dirty: a state changed, the next heartbeat goes out at once */
  uint64_t register_at, register_wait, heartbeat_at, sequence;
  uint64_t heard_ns;      /* last message of the coordinator; 0: none yet */
  uint64_t silence_log_at, silence_log_wait; /* 0: the silence has not been logged */
  uint64_t malformed;
  bool rejected_for_good;
  char rejected[256];
};

static char *text(const char *s) { return bl_control_text(s != NULL ? s : ""); }

bl_status srv_node_new(const srv_node_config *config, srv_node **ret_node, bl_error *err) {
  BL_ASSERT(config->n_shards > 0 && config->n_shards <= SRV_SHARDS_MAX);
  srv_node *n = bl_calloc(1, sizeof *n);
  if (n == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the server's node");
  n->config = *config;
  n->register_wait = REGISTER_FIRST_NS;
  *ret_node = n;
  return BL_OK;
}

static void free_job(node_job *j) {
  bl_free(j->infos);
  bl_free(j);
}

void srv_node_free(srv_node *n) {
  if (n == NULL)
    return;
  for (size_t i = 0; i < n->n_jobs; i++)
    free_job(n->jobs[i]);
  bl_free(n);
}

/* ---- to the coordinator ---- */

static void send(srv_node *n, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  if (bl_control_pack(type, m, &msg) == BL_OK)
    (void)!bl_transport_send(n->config.coordinator, NULL, &msg); /* said again */
  bl_msg_fini(&msg);
}

static void send_register(srv_node *n) {
  const srv_node_config *c = &n->config;
  char *endpoints[SRV_SHARDS_MAX];
  for (uint32_t i = 0; i < c->n_shards; i++)
    endpoints[i] = text(c->endpoints[i]);
  Ballast__Control__Register m;
  ballast__control__register__init(&m);
  m.protocol_min = BL_PROTOCOL_MIN;
  m.protocol_max = bl_protocol_max(c->protocol_max);
  m.role = BALLAST__CONTROL__ROLE__ROLE_SERVER;
  m.name = text(c->name);
  m.incarnation = c->incarnation;
  m.build = text(c->build);
  m.host = text(c->host);
  m.rack = text(c->rack);
  m.n_shard_endpoints = c->n_shards;
  m.shard_endpoints = endpoints;
  m.memory_bytes = c->memory_bytes;
  m.kernel_table = text(c->kernel_table);
  m.status_url = text(c->status_url);
  m.public_key = text(c->public_key);
  m.blas_core = text("");
  send(n, BL_MSG_REGISTER, &m.base);
}

static bool is_worse(bl_status a, bl_status b) { return a != BL_OK && b == BL_OK; }

static void summarize(const srv_node *n, const node_job *j, Ballast__Control__ServerJobStatus *s) {
  ballast__control__server_job_status__init(s);
  s->job = j->id;
  s->view = j->view;
  s->state = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN;
  s->text = text("");
  bool any = false;
  bl_status worst = BL_OK;
  for (uint32_t i = 0; i < n->config.n_shards; i++) {
    const srv_shard_job_info *info = &j->infos[i];
    if (!j->uses[i])
      continue;
    s->memory_bytes += info->memory_bytes;
    s->clocks_skipped = BL_MAX(s->clocks_skipped, info->clocks_skipped);
    s->table_rows += info->table_rows;
    s->key_bytes += info->key_bytes;
    s->key_bytes_saved += info->key_bytes_saved;
    bool failed = info->state == BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED;
    if (failed && is_worse(info->status, worst)) {
      worst = info->status;
      s->text = text(info->text);
    } else if (!failed && (info->state != BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN || info->view < j->view)) {
      s->state = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPENING;
    }
    if (info->n_chunks == 0)
      continue;
    s->clock_min = any ? BL_MIN(s->clock_min, info->clock) : info->clock;
    s->clock_max = any ? BL_MAX(s->clock_max, info->clock) : info->clock;
    any = true;
  }
  if (worst != BL_OK)
    s->state = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED;
  s->status = (uint32_t)-worst;
}

static void send_heartbeat(srv_node *n) {
  Ballast__Control__ServerJobStatus *statuses = bl_calloc(n->n_jobs, sizeof *statuses);
  Ballast__Control__ServerJobStatus **list = bl_calloc(n->n_jobs, sizeof(void *));
  Ballast__Control__Heartbeat m;
  ballast__control__heartbeat__init(&m);
  m.name = text(n->config.name);
  m.incarnation = n->config.incarnation;
  m.sequence = ++n->sequence;
  m.memory_bytes = n->config.memory_bytes;
  if (statuses != NULL && list != NULL) { /* without memory: alive, and nothing to say */
    for (size_t i = 0; i < n->n_jobs; i++) {
      summarize(n, n->jobs[i], &statuses[i]);
      list[i] = &statuses[i];
      m.memory_used_bytes += statuses[i].memory_bytes;
    }
    m.n_jobs = n->n_jobs;
    m.jobs = list;
    send(n, BL_MSG_HEARTBEAT, &m.base);
  }
  bl_free(statuses);
  bl_free(list);
}

/* Says who is missing and for how long, ever more rarely. */
static void log_silence(srv_node *n, uint64_t now_ns) {
  uint64_t limit_ns = n->registered ? n->config.lease_ns : SILENCE_LOG_FIRST_NS;
  if (now_ns - n->heard_ns <= limit_ns || now_ns < n->silence_log_at)
    return;
  char since[32], next[32];
  bl_log_warning("coordinator_silent", "address=%s silent_for=\"%s\" next_attempt_in=\"%s\" open_jobs=%zu",
                 text(n->config.address), bl_str_duration(now_ns - n->heard_ns, since, sizeof since),
                 bl_str_duration(n->registered ? n->config.heartbeat_ns : n->register_wait, next, sizeof next),
                 n->n_jobs);
  n->silence_log_wait = BL_MIN(BL_MAX(n->silence_log_wait * 2, SILENCE_LOG_FIRST_NS), SILENCE_LOG_MAX_NS);
  n->silence_log_at = now_ns + n->silence_log_wait;
}

uint64_t srv_node_tick(srv_node *n, uint64_t now_ns) {
  if (n->rejected_for_good)
    return UINT64_MAX;
  if (n->heard_ns == 0)
    n->heard_ns = now_ns;
  if (n->rejected[0] == '\0')
    log_silence(n, now_ns);
  if (!n->registered) {
    if (now_ns >= n->register_at) {
      send_register(n);
      n->register_at = now_ns + n->register_wait;
      n->register_wait = BL_MIN(n->register_wait * 2, REGISTER_MAX_NS);
    }
    return n->register_at;
  }
  if (n->dirty || now_ns >= n->heartbeat_at) {
    n->dirty = false;
    n->heartbeat_at = now_ns + n->config.heartbeat_ns;
    send_heartbeat(n);
  }
  return n->heartbeat_at;
}

/* ---- from the coordinator ---- */

static node_job *find(srv_node *n, uint64_t id, size_t *ret_at) {
  for (size_t i = 0; i < n->n_jobs; i++) {
    if (n->jobs[i]->id == id) {
      if (ret_at != NULL)
        *ret_at = i;
      return n->jobs[i];
    }
  }
  return NULL;
}

static node_job *add_job(srv_node *n, const Ballast__Control__JobPlan *plan) {
  node_job *j = n->n_jobs < SRV_JOBS_MAX ? bl_calloc(1, sizeof *j) : NULL;
  if (j == NULL)
    return NULL;
  j->infos = bl_calloc(n->config.n_shards, sizeof *j->infos);
  if (j->infos == NULL) {
    bl_free(j);
    return NULL;
  }
  j->id = plan->job;
  for (size_t i = 0; i < plan->n_shards; i++)
    if (strcmp(plan->shards[i]->server, n->config.name) == 0 && plan->shards[i]->index < n->config.n_shards)
      j->uses[plan->shards[i]->index] = true;
  n->jobs[n->n_jobs++] = j;
  return j;
}

static void fail_shard(node_job *j, uint32_t shard, bl_status status, const char *why) {
  srv_shard_job_info *info = &j->infos[shard];
  *info = (srv_shard_job_info){.job = j->id,
                               .view = j->view,
                               .state = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED,
                               .status = status};
  bl_str_copy(info->text, sizeof info->text, why);
}

static void open_job(srv_node *n, const Ballast__Control__JobPlan *plan) {
  node_job *j = find(n, plan->job, NULL);
  if (j != NULL && plan->view <= j->view)
    return;
  if (j == NULL && (j = add_job(n, plan)) == NULL) {
    bl_log_warning("job_not_opened", "job=%" PRIu64 " reason=%s", plan->job, BL_LOGQ("no memory or too many jobs"));
    return; /* said again */
  }
  uint64_t view_before = j->view; /* 0: it is new */
  j->view = plan->view;
  n->dirty = true;
  bl_log_info("job_open", "job=%" PRIu64 " view=%" PRIu64 " ranks=%u", plan->job, plan->view, plan->world);
  for (uint32_t i = 0; i < n->config.n_shards; i++) {
    if (!j->uses[i])
      continue;
    Ballast__Control__JobPlan *copy = (Ballast__Control__JobPlan *)bl_control_copy(&plan->base);
    if (copy != NULL && n->config.open_job(n->config.arg, i, copy) == BL_OK)
      continue;
    if (view_before == 0)
      fail_shard(j, i, BL_ENOMEM, "no memory to open it");
    else
      j->view = view_before; /* the shard goes on in it; the coordinator says the new one again */
  }
}

static void close_job(srv_node *n, const Ballast__Control__CloseJob *m) {
  size_t at;
  node_job *j = find(n, m->job, &at);
  if (j == NULL)
    return;
  bl_log_info("job_closed", "job=%" PRIu64 " reason=%s", m->job, BL_LOGQ(m->reason));
  for (uint32_t i = 0; i < n->config.n_shards; i++)
    if (j->uses[i])
      n->config.close_job(n->config.arg, i, j->id);
  free_job(j);
  n->jobs[at] = n->jobs[--n->n_jobs];
  n->dirty = true;
}

static void on_registered(srv_node *n, const Ballast__Control__Registered *m, uint64_t now_ns) {
  if (m->incarnation != n->config.incarnation || strcmp(m->name, n->config.name) != 0)
    return;
  if (m->heartbeat_ms > 0)
    n->config.heartbeat_ns = m->heartbeat_ms * BL_NS_PER_MS;
  if (m->lease_ms > 0)
    n->config.lease_ns = m->lease_ms * BL_NS_PER_MS;
  if (!n->registered)
    bl_log_info("registered", "name=%s shards=%u", n->config.name, n->config.n_shards);
  n->registered = true;
  n->rejected[0] = '\0';
  n->register_wait = REGISTER_FIRST_NS;
  n->heartbeat_at = now_ns;
}

/* Of another version, or not allowed: nothing changes by asking again. A taken name may become free. */
static void on_rejected(srv_node *n, const Ballast__Control__Rejected *m, uint64_t now_ns) {
  const char *why = m->text[0] != '\0' ? m->text : "no reason given";
  if (strncmp(n->rejected, why, sizeof n->rejected - 1) != 0)
    bl_log_error("rejected", "by=%s reason=%s", text(n->config.address), BL_LOGQ(why));
  snprintf(n->rejected, sizeof n->rejected, "%.255s", why);
  n->rejected_for_good = m->status == (uint32_t)-BL_EPROTO || m->status == (uint32_t)-BL_EACCES;
  n->registered = false;
  n->register_wait = REGISTER_MAX_NS;
  n->register_at = now_ns + REGISTER_MAX_NS;
}

static void dispatch(srv_node *n, bl_msg_type type, const ProtobufCMessage *m, uint64_t now_ns) {
  switch (type) {
  case BL_MSG_REGISTERED:
    on_registered(n, (const Ballast__Control__Registered *)m, now_ns);
    break;
  case BL_MSG_REREGISTER:
    n->registered = false;
    n->register_at = now_ns;
    break;
  case BL_MSG_REJECTED:
    on_rejected(n, (const Ballast__Control__Rejected *)m, now_ns);
    break;
  case BL_MSG_OPEN_JOB:
    if (((const Ballast__Control__OpenJob *)m)->plan != NULL)
      open_job(n, ((const Ballast__Control__OpenJob *)m)->plan);
    break;
  case BL_MSG_CLOSE_JOB:
    close_job(n, (const Ballast__Control__CloseJob *)m);
    break;
  case BL_MSG_HEARTBEAT_ACK:
    break;
  default:
    n->malformed++;
    bl_log_warning("unexpected_message", "from=coordinator type=%s", bl_msg_type_name(type));
  }
}

void srv_node_on_msg(srv_node *n, bl_msg *msg, uint64_t now_ns) {
  bl_msg_type type;
  ProtobufCMessage *m;
  bl_error err = BL_ERROR_INIT;
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    n->malformed++;
    if (bl_is_worth_a_line(n->malformed))
      bl_log_warning("message_refused", "from=coordinator count=%" PRIu64 " reason=%s", n->malformed,
                     BL_LOGQ(err.text));
    return;
  }
  n->heard_ns = now_ns;
  if (n->silence_log_wait > 0)
    bl_log_info("coordinator_back", "address=%s", text(n->config.address));
  n->silence_log_at = n->silence_log_wait = 0;
  dispatch(n, type, m, now_ns);
  bl_control_free(m);
}

/* ---- from the shards ---- */

void srv_node_on_report(srv_node *n, uint32_t shard, const srv_shard_job_info *infos, size_t n_infos,
                        uint64_t now_ns) {
  (void)now_ns;
  for (size_t i = 0; i < n_infos; i++) {
    node_job *j = find(n, infos[i].job, NULL);
    if (j == NULL || shard >= n->config.n_shards)
      continue; /* closed meanwhile */
    srv_shard_job_info *old = &j->infos[shard];
    n->dirty |= old->state != infos[i].state || old->view != infos[i].view;
    *old = infos[i];
  }
}

/* ---- about itself ---- */

bool srv_node_is_registered(const srv_node *n) { return n->registered; }

const char *srv_node_rejected(const srv_node *n) { return n->rejected_for_good ? n->rejected : NULL; }

bool srv_node_job_at(const srv_node *n, size_t i, Ballast__Control__ServerJobStatus *ret_status) {
  if (i >= n->n_jobs)
    return false;
  summarize(n, n->jobs[i], ret_status);
  return true;
}

const char *srv_node_waits_for(const srv_node *n, char *out, size_t size, uint64_t now_ns) {
  char since[32];
  uint64_t silent_ns = n->heard_ns > 0 && now_ns > n->heard_ns ? now_ns - n->heard_ns : 0;
  bl_str_duration(silent_ns, since, sizeof since);
  if (n->rejected[0] != '\0')
    snprintf(out, size, "the coordinator at %s refused this server: %s", text(n->config.address), n->rejected);
  else if (!n->registered)
    snprintf(out, size, "waits for the coordinator at %s: silent for %s", text(n->config.address), since);
  else if (silent_ns > n->config.lease_ns)
    snprintf(out, size, "the coordinator at %s has been silent for %s", text(n->config.address), since);
  else
    snprintf(out, size, "%s", "");
  return out;
}
