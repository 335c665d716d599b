/* SPDX-License-Identifier: Apache-2.0
 *
 * The conversation of a shard. Order of the file: life, replies, checks, messages, sending what is ready,
 * jobs, replay.
 */
#include "server/shard.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/num.h"
#include "job/choices.h"
#include "server/job.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define WORK_SLICE_ELEMS (1u << 16)           /* then what is ready leaves: the next step runs while it is on its way */
#define BATCH_BYTES (1u << 20)                /* frames of one reply, unless a single chunk has more */
#define SEND_SLICE_BYTES (8u << 20)           /* of one job; then the others' messages and arithmetic have their turn */
#define SEND_RETRY_NS BL_NS_PER_MS            /* after a transport that was full */
#define MEMORY_RETRY_NS (10 * BL_NS_PER_MS)

/* A job, or the reason why there is none. */
typedef struct shard_job {
  uint64_t id;
  srv_job *job; /* NULL: could not be opened */
  uint64_t view;
  bl_status status;
  char text[256];
  int64_t credit;     /* elements of arithmetic that it may do; below 0: a chunk took more than its slice */
  uint32_t next_rank; /* round robin of sending */
} shard_job;

typedef struct pending_reply {
  struct pending_reply *next;
  uint64_t lsn;
  bl_peer to;
  bl_msg msg;
} pending_reply;

struct srv_shard {
  srv_shard_config config;
  srv_log *log;
  bl_map jobs; /* id -> shard_job */
  shard_job *list[SRV_JOBS_MAX]; /* in the order of opening; [jobs.count] */
  size_t next_job;               /* round robin of the arithmetic */
  pending_reply *pending_first, **pending_last;
  size_t n_pending;
  srv_shard_stats stats;
};

/* ---- life ---------------------------------------------------------------------------------------------- */

bl_status srv_shard_new(const srv_shard_config *config, srv_shard **ret_shard, bl_error *err) {
  srv_shard *s = bl_calloc(1, sizeof *s);
  if (s != NULL)
    s->log = srv_log_new(config->log_bytes_max, config->has_follower);
  if (s == NULL || s->log == NULL) {
    bl_free(s);
    return bl_fail(err, BL_ENOMEM, "no memory for shard %u", config->index);
  }
  s->config = *config;
  s->pending_last = &s->pending_first;
  srv_log_set_tap(s->log, config->tap, config->tap_arg);
  *ret_shard = s;
  return BL_OK;
}

static void free_job(shard_job *sj) {
  srv_job_free(sj->job);
  bl_free(sj);
}

static void drop_pending(srv_shard *s) {
  pending_reply *p = s->pending_first;
  s->pending_first = p->next;
  if (s->pending_first == NULL)
    s->pending_last = &s->pending_first;
  s->n_pending--;
  bl_msg_fini(&p->msg);
  bl_free(p);
}

void srv_shard_free(srv_shard *s) {
  if (s == NULL)
    return;
  while (s->pending_first != NULL)
    drop_pending(s);
  for (size_t i = 0; i < s->jobs.count; i++)
    free_job(s->list[i]);
  bl_map_fini(&s->jobs);
  srv_log_free(s->log);
  bl_free(s);
}

/* ---- replies ------------------------------------------------------------------------------------------- */

/* A reply that is lost here, for lack of memory or because the peer's queue is full, is asked for again. frames: what
 * stands behind the header, taken. */
static void send_reply_with(srv_shard *s, const bl_peer *to, const bl_data_msg *d, bl_msg *frames, uint64_t lsn) {
  bl_msg msg = BL_MSG_INIT;
  bl_msg_move(&msg, frames);
  pending_reply *p = NULL;
  if (s->config.transport != NULL && bl_data_pack(d, msg.n_frames, &msg) == BL_OK) {
    if (lsn <= srv_log_safe(s->log))
      (void)!bl_transport_send(s->config.transport, to, &msg);
    else if (s->n_pending < SRV_PENDING_REPLIES_MAX)
      p = bl_calloc(1, sizeof *p);
  }
  if (p == NULL) {
    bl_msg_fini(&msg);
    return;
  }
  p->lsn = lsn;
  p->to = *to;
  bl_msg_move(&p->msg, &msg);
  *s->pending_last = p;
  s->pending_last = &p->next;
  s->n_pending++;
}

static void send_reply(srv_shard *s, const bl_peer *to, const bl_data_msg *d, uint64_t lsn) {
  bl_msg none = BL_MSG_INIT;
  send_reply_with(s, to, d, &none, lsn);
}

static void release_pending(srv_shard *s) {
  while (s->pending_first != NULL && s->pending_first->lsn <= srv_log_safe(s->log)) {
    (void)!bl_transport_send(s->config.transport, &s->pending_first->to, &s->pending_first->msg);
    drop_pending(s);
  }
}

/* What every request names, for checks and refusals. */
typedef struct request {
  uint64_t job, view;
  uint32_t rank, incarnation;
  uint64_t request;
  const bl_peer *from;
  uint32_t chunk; /* that is being looked at, + 1; 0: none */
} request;

/* The clock that is open for a rank. */
static uint64_t open_clock(const srv_job *j, uint32_t rank) {
  return rank < j->world ? j->ranks[rank].clock : j->clock;
}

static bl_status refuse(srv_shard *s, const request *r, const srv_job *j, bl_status status, const char *fmt, ...)
    BL_PRINTF(5, 6);
static bl_status refuse(srv_shard *s, const request *r, const srv_job *j, bl_status status, const char *fmt, ...) {
  bl_data_msg d = {.type = BL_MSG_REFUSE};
  d.refuse = (bl_refuse){.job = r->job,
                         .rank = r->rank,
                         .request = r->request,
                         .status = status,
                         .chunk = r->chunk,
                         .view = j != NULL ? j->view : 0,
                         .clock = j != NULL ? open_clock(j, r->rank) : 0};
  if (status == BL_EPROTO) {
    d.refuse.protocol_min = BL_PROTOCOL_MIN;
    d.refuse.protocol_max = bl_protocol_max(s->config.protocol_max);
  }
  va_list args;
  va_start(args, fmt);
  vsnprintf(d.refuse.text, sizeof d.refuse.text, fmt, args);
  va_end(args);
  s->stats.refusals++;
  s->stats.refused_by[-status]++;
  bl_log_debug("refused", "shard=%u job=%" PRIu64 " rank=%u status=%s reason=%s", s->config.index, r->job, r->rank,
               bl_status_name(status), BL_LOGQ(d.refuse.text));
  send_reply(s, r->from, &d, 0);
  return status;
}

/* ---- checks -------------------------------------------------------------------------------------------- */

/* The job that a request names rightly, whatever its state; NULL: refused. */
static srv_job *find_any_job(srv_shard *s, const request *r) {
  const shard_job *sj = bl_map_get(&s->jobs, r->job);
  srv_job *j = sj != NULL ? sj->job : NULL;
  if (sj == NULL)
    refuse(s, r, NULL, BL_ENOENT, "job %" PRIu64 " is not open on shard %u of %s", r->job, s->config.index,
           s->config.server);
  else if (j == NULL)
    refuse(s, r, NULL, sj->status, "%s", sj->text);
  else if (j->state == SRV_JOB_FAILED)
    refuse(s, r, j, j->status, "%s", j->text);
  else if (r->view < j->view)
    refuse(s, r, j, BL_EVIEW, "view %" PRIu64 " is over, the present one is %" PRIu64, r->view, j->view);
  else if (r->view > j->view)
    refuse(s, r, j, BL_EAGAIN, "view %" PRIu64 " is not known here yet, the present one is %" PRIu64, r->view,
           j->view);
  else if (r->rank >= j->world)
    refuse(s, r, j, BL_EINVAL, "rank %u of a job with %u ranks", r->rank, j->world);
  else if (r->incarnation != j->ranks[r->rank].incarnation)
    refuse(s, r, j, BL_EINCARNATION, "incarnation %u of rank %u is not %u, which this view has", r->incarnation,
           r->rank, j->ranks[r->rank].incarnation);
  else
    return j;
  return NULL;
}

/* The job that a request may speak to; NULL: refused. */
static srv_job *find_job(srv_shard *s, const request *r) {
  srv_job *j = find_any_job(s, r);
  if (j != NULL && j->state == SRV_JOB_OPENING)
    refuse(s, r, j, BL_EAGAIN, "job %" PRIu64 " is being opened", j->id);
  else if (j != NULL && j->state == SRV_JOB_AWAITS)
    refuse(s, r, j, BL_EAGAIN, "job %" PRIu64 " waits for its initial values from rank 0", j->id);
  else
    return j;
  return NULL;
}

static bl_status check_chunks(srv_shard *s, const request *r, const srv_job *j, const uint32_t *chunks, uint32_t n) {
  for (uint32_t i = 0; i < n; i++)
    if (srv_job_local(j, chunks[i]) == SRV_NO_CHUNK)
      return refuse(s, r, j, BL_EINVAL, "chunk %u does not lie on shard %u of %s", chunks[i], s->config.index,
                    s->config.server);
  return BL_OK;
}

static void note_peer(srv_job *j, const request *r) {
  srv_rank *rank = &j->ranks[r->rank];
  rank->peer = *r->from;
  rank->has_peer = true;
  rank->request = r->request;
}

/* ---- messages ------------------------------------------------------------------------------------------ */

static void on_hello(srv_shard *s, const bl_peer *from, const bl_hello *h) {
  request r = {.job = h->job, .view = h->view, .rank = h->rank, .incarnation = h->incarnation, .from = from};
  uint32_t ours = bl_protocol_max(s->config.protocol_max);
  if (h->protocol_min > ours || h->protocol_max < BL_PROTOCOL_MIN) {
    refuse(s, &r, NULL, BL_EPROTO, "rank %u of job %" PRIu64 " speaks protocol %u to %u, server %s %d to %u: upgrade the older of the two",
           h->rank, h->job, h->protocol_min, h->protocol_max, s->config.server, BL_PROTOCOL_MIN, ours);
    return;
  }
  srv_job *j = find_job(s, &r);
  if (j == NULL)
    return;
  note_peer(j, &r);
  bl_data_msg d = {.type = BL_MSG_WELCOME};
  d.welcome = (bl_welcome){.protocol = BL_MIN(h->protocol_max, ours),
                           .job = j->id,
                           .rank = h->rank,
                           .view = j->view,
                           .clock = open_clock(j, h->rank),
                           .oldest = srv_job_oldest(j),
                           .window_bytes = s->config.window_bytes,
                           .shard = s->config.index};
  send_reply(s, from, &d, srv_log_last(s->log));
}

/* Acknowledges chunks; those under which other incarnations' bytes stand go into messages of their own. */
static void send_acks(srv_shard *s, const bl_push *p, const bl_peer *from, const uint32_t *applied, uint32_t n,
                      const uint32_t *chunks) {
  bool done[BL_MSG_FRAMES_MAX] = {false};
  for (uint32_t first = 0; first < n; first++) {
    if (done[first])
      continue;
    bl_data_msg d = {.type = BL_MSG_ACK};
    bl_ack *a = &d.ack;
    a->job = p->job;
    a->rank = p->rank;
    a->clock = p->clock;
    a->request = p->request;
    a->applied_incarnation = applied[first];
    for (uint32_t i = first; i < n; i++) {
      if (done[i] || applied[i] != applied[first])
        continue;
      done[i] = true;
      a->chunks[a->n_chunks++] = chunks[i];
    }
    send_reply(s, from, &d, srv_log_last(s->log));
  }
}

static void say_need_keys(srv_shard *s, const request *r, bool push, const uint32_t *chunks, uint32_t n) {
  if (n == 0)
    return;
  bl_data_msg d = {.type = BL_MSG_NEED_KEYS};
  d.need_keys.job = r->job;
  d.need_keys.rank = r->rank;
  d.need_keys.request = r->request;
  d.need_keys.push = push;
  d.need_keys.n_chunks = n;
  memcpy(d.need_keys.chunks, chunks, n * sizeof *chunks);
  send_reply(s, r->from, &d, 0);
}

/* The keys that a row frame brings or names. NULL with BL_OK: the checksum means nothing here (any more); otherwise
 * refused. The reference is the caller's. */
static bl_status take_keys(srv_shard *s, srv_job *j, const request *r, uint32_t local, const bl_frame *frame, bool push,
                           srv_keys **ret_keys) {
  bl_error err = BL_ERROR_INIT;
  bl_rows_view view;
  uint32_t chunk = j->chunks[local].id;
  bl_status st = srv_rows_open(j->chunks[local].rows, &j->rows, frame, push, &view, &err);
  if (st != BL_OK)
    return refuse(s, r, j, st, "chunk %u: %.200s", chunk, err.text);
  if (view.keys == NULL) {
    *ret_keys = srv_keys_find(&j->rows.cache, r->rank, local, &view.id);
    size_t saved = *ret_keys != NULL ? (*ret_keys)->frame->size - BL_ROWS_HEADER_BYTES : 0;
    j->key_bytes_saved += saved;
    s->stats.key_bytes_saved += saved;
    return BL_OK;
  }
  *ret_keys = srv_keys_take(&j->rows.cache, &j->pools, r->rank, local, &view);
  j->key_bytes += view.key_bytes;
  s->stats.key_bytes += view.key_bytes;
  return *ret_keys != NULL ? BL_OK : refuse(s, r, j, BL_ENOMEM, "chunk %u: no memory for its keys", chunk);
}

/* One bucket of a push that is new. BL_ENOENT: its keys are needed. */
static bl_status take_rows(srv_shard *s, srv_job *j, const request *r, uint64_t clock, uint32_t local,
                           bl_frame *frame) {
  srv_chunk *c = &j->chunks[local];
  srv_keys *keys = NULL;
  bl_error err = BL_ERROR_INIT;
  bl_status st = take_keys(s, j, r, local, frame, true, &keys);
  if (st != BL_OK)
    return st;
  if (keys == NULL)
    return BL_ENOENT;
  st = srv_job_admit_rows(j, local, r->rank, keys, frame->size, &err);
  if (st != BL_OK) {
    srv_keys_unref(keys);
    return refuse(s, r, j, st, "chunk %u: %.200s", c->id, err.text);
  }
  srv_entry e = {.kind = SRV_ENTRY_PUSH,
                 .job = j->id,
                 .rank = r->rank,
                 .incarnation = r->incarnation,
                 .clock = clock,
                 .chunk = c->id,
                 .frame = frame,
                 .keys = keys->frame};
  st = srv_log_append(s->log, &e);
  if (st != BL_OK) {
    srv_rows_unstage(c->rows, r->rank);
    return refuse(s, r, j, st, "chunk %u: the log of shard %u is full", c->id, s->config.index);
  }
  srv_job_apply(j, &e);
  s->stats.pushes++;
  return BL_OK;
}

/* A rank that has committed brings no further bucket when those that the commit counts are here. */
static bl_status check_count(srv_shard *s, srv_job *j, const request *r, uint64_t clock, const srv_chunk *c) {
  const srv_rank *rank = &j->ranks[r->rank];
  if (c->rows != NULL && rank->committed[clock & 1] != 0 &&
      rank->n_buckets_seen >= rank->n_pushed[clock & 1] - j->n_dense)
    return refuse(s, r, j, BL_EMISMATCH,
                  "chunk %u: the commit of clock %" PRIu64 " counts %u buckets and they are here", c->id, clock,
                  rank->n_buckets_seen);
  return BL_OK;
}

/* One chunk of a push that is new: checks the frame, logs it, applies it. BL_ENOENT: a bucket's keys are needed. */
static bl_status take_frame(srv_shard *s, srv_job *j, const request *r, uint64_t clock, uint32_t chunk,
                            bl_frame *frame) {
  uint32_t local = srv_job_local(j, chunk);
  bl_error err = BL_ERROR_INIT;
  bl_codec_view view;
  bl_status st = check_count(s, j, r, clock, &j->chunks[local]);
  if (st != BL_OK || j->chunks[local].rows != NULL)
    return st != BL_OK ? st : take_rows(s, j, r, clock, local, frame);
  if (!srv_job_in_clock(j, local, clock))
    return refuse(s, r, j, BL_EINVAL, "chunk %u is not exchanged in clock %" PRIu64, chunk, clock);
  st = bl_codec_open(frame->data, frame->size, j->chunks[local].n_elems, &view, &err);
  if (st != BL_OK)
    return refuse(s, r, j, st, "chunk %u: %.200s", chunk, err.text);
  if (!srv_job_takes(j, local, &view))
    return refuse(s, r, j, BL_EINVAL, "chunk %u: a frame of codec %s with flags %u, this job pushes %s differences",
                  chunk, view.codec->name, view.flags, srv_job_tensor(j, local)->policy.push.codec->name);
  st = srv_job_admit_push(j, local, r->rank, frame->size);
  if (st != BL_OK)
    return refuse(s, r, j, st, "chunk %u: %s", chunk,
                  j->state == SRV_JOB_FAILED ? j->text : "no room to hold it now");
  srv_entry e = {.kind = SRV_ENTRY_PUSH,
                 .job = j->id,
                 .rank = r->rank,
                 .incarnation = r->incarnation,
                 .clock = clock,
                 .chunk = chunk,
                 .frame = frame};
  st = srv_log_append(s->log, &e);
  if (st != BL_OK)
    return refuse(s, r, j, st, "chunk %u: the log of shard %u is full", chunk, s->config.index);
  srv_job_apply(j, &e);
  s->stats.pushes++;
  return BL_OK;
}

static bl_status check_initial(srv_shard *s, const request *r, const srv_job *j, const bl_push *p) {
  if (!j->plan->initial || p->rank != 0)
    return refuse(s, r, j, BL_EINVAL, "initial values from rank %u: job %" PRIu64 " %s", p->rank, j->id,
                  j->plan->initial ? "takes them from rank 0" : "makes its own");
  if (p->clock != BL_CLOCK_INITIAL)
    return refuse(s, r, j, BL_EINVAL, "initial values in the name of clock %" PRIu64, p->clock);
  return check_chunks(s, r, j, p->chunks, p->n_chunks);
}

/* Initial values of one chunk that has none: exact, whatever codec the job pushes with. */
static bl_status take_initial(srv_shard *s, srv_job *j, const request *r, uint32_t chunk, bl_frame *frame) {
  bl_error err = BL_ERROR_INIT;
  bl_codec_view view;
  bl_status st = bl_codec_open(frame->data, frame->size, j->chunks[srv_job_local(j, chunk)].n_elems, &view, &err);
  if (st != BL_OK)
    return refuse(s, r, j, st, "chunk %u: %.200s", chunk, err.text);
  if (view.codec->id != BL_CODEC_FLOAT32 || (view.flags & BL_CODEC_REPLACE) == 0)
    return refuse(s, r, j, BL_EINVAL, "chunk %u: a frame of codec %s with flags %u, initial values are float32 replace frames",
                  chunk, view.codec->name, view.flags);
  srv_entry e = {.kind = SRV_ENTRY_INITIAL,
                 .job = j->id,
                 .rank = r->rank,
                 .incarnation = r->incarnation,
                 .clock = BL_CLOCK_INITIAL,
                 .chunk = chunk,
                 .frame = frame};
  st = srv_log_append(s->log, &e);
  if (st != BL_OK)
    return refuse(s, r, j, st, "chunk %u: the log of shard %u is full", chunk, s->config.index);
  srv_job_apply(j, &e);
  return BL_OK;
}

static void on_initial(srv_shard *s, const bl_peer *from, const bl_push *p, bl_msg *msg) {
  request r = {p->job, p->view, p->rank, p->incarnation, p->request, from, 0};
  srv_job *j = find_any_job(s, &r);
  if (j == NULL || check_initial(s, &r, j, p) != BL_OK)
    return;
  uint32_t chunks[BL_MSG_FRAMES_MAX] = {0}, applied[BL_MSG_FRAMES_MAX] = {0}, n = 0;
  s->stats.bytes_pushed += bl_msg_bytes(msg);
  for (uint32_t i = 0; i < p->n_chunks; i++) {
    bool is_new = !srv_job_is_inited(j, srv_job_local(j, p->chunks[i]));
    if (is_new && take_initial(s, j, &r, p->chunks[i], msg->frames[i]) != BL_OK)
      continue;
    s->stats.repeats += !is_new;
    chunks[n] = p->chunks[i];
    applied[n++] = p->incarnation;
  }
  send_acks(s, p, from, applied, n, chunks);
}

/* The incarnation whose bytes stand under the name; the asker's own when nobody knows any more. */
static uint32_t applied_by(const srv_cell *cell, uint64_t clock, uint32_t own) {
  bool known = cell->seen[clock & 1].by != 0 && cell->seen[clock & 1].clock == (uint32_t)clock;
  return known ? cell->seen[clock & 1].by - 1 : own;
}

static void on_push(srv_shard *s, const bl_peer *from, const bl_push *p, bl_msg *msg) {
  request r = {p->job, p->view, p->rank, p->incarnation, p->request, from, 0};
  srv_job *j = find_job(s, &r);
  if (j == NULL || check_chunks(s, &r, j, p->chunks, p->n_chunks) != BL_OK)
    return;
  if (srv_rule_when(open_clock(j, p->rank), p->clock) == SRV_FUTURE) {
    refuse(s, &r, j, BL_ECLOCK, "a push for clock %" PRIu64 " while clock %" PRIu64 " is open", p->clock,
           open_clock(j, p->rank));
    return;
  }
  note_peer(j, &r);
  s->stats.bytes_pushed += bl_msg_bytes(msg);
  uint32_t chunks[BL_MSG_FRAMES_MAX] = {0}, applied[BL_MSG_FRAMES_MAX] = {0}, keyless[BL_MSG_FRAMES_MAX], n = 0,
           n_keyless = 0;
  for (uint32_t i = 0; i < p->n_chunks; i++) {
    uint32_t local = srv_job_local(j, p->chunks[i]);
    srv_cell *cell = srv_job_cell(j, local, p->rank);
    /* The clock may end within this message; what is past is only acknowledged. */
    bool is_new = srv_job_is_new(j, local, p->rank, p->clock);
    r.chunk = p->chunks[i] + 1;
    bl_status st = is_new ? take_frame(s, j, &r, p->clock, p->chunks[i], msg->frames[i]) : BL_OK;
    if (st == BL_ENOENT)
      keyless[n_keyless++] = p->chunks[i];
    if (st != BL_OK)
      continue;
    s->stats.repeats += !is_new;
    chunks[n] = p->chunks[i];
    applied[n++] = applied_by(cell, p->clock, p->incarnation);
    /* In bsp whoever pushes for a clock holds its weights; free running ranks hold what they were sent last. */
    if (p->answer && p->clock + 1 >= srv_job_oldest(j) && j->chunks[local].rows == NULL)
      srv_job_want(j, local, p->rank, p->clock + 1, j->rule->in_step ? p->clock + 1 : cell->have);
  }
  send_acks(s, p, from, applied, n, chunks);
  say_need_keys(s, &r, true, keyless, n_keyless);
}

/* True: the commit is new and in the log. False: a repeat, or refused with *ret_status set. */
static bool take_commit(srv_shard *s, srv_job *j, const request *r, const bl_commit *c, bl_frame *choices,
                        bl_status *ret_status) {
  const srv_rank *rank = &j->ranks[c->rank];
  if (c->clock != rank->clock || c->clock == BL_CLOCK_FINISHED || rank->committed[c->clock & 1] != 0)
    return false;
  bl_status st = srv_job_admit_commit(j);
  if (st != BL_OK) {
    *ret_status = refuse(s, r, j, st, "no memory to apply what came before");
    return false;
  }
  srv_entry e = {.kind = SRV_ENTRY_COMMIT,
                 .job = j->id,
                 .rank = c->rank,
                 .incarnation = c->incarnation,
                 .clock = c->clock,
                 .scale = c->scale,
                 .not_finite = c->not_finite,
                 .finished = c->finished,
                 .n_samples = c->n_samples,
                 .n_chunks = c->n_chunks,
                 .frame = choices};
  st = srv_log_append(s->log, &e);
  if (st != BL_OK) {
    *ret_status = refuse(s, r, j, st, "the log of shard %u is full", s->config.index);
    return false;
  }
  if (c->not_finite && j->skips)
    bl_log_warning("gradient_not_finite", "job=%" PRIu64 " rank=%u clock=%" PRIu64 " policy=skip_clock", j->id, c->rank,
                   c->clock);
  srv_job_apply(j, &e);
  s->stats.commits++;
  s->stats.not_finite += c->not_finite;
  return true;
}

/* What a commit must say: how many chunks the rank pushed here. */
static bl_status check_commit(srv_shard *s, const request *r, const srv_job *j, const bl_commit *c) {
  uint64_t open = open_clock(j, c->rank);
  if (srv_rule_when(open, c->clock) == SRV_FUTURE)
    return refuse(s, r, j, BL_ECLOCK, "a commit of clock %" PRIu64 " while clock %" PRIu64 " is open", c->clock, open);
  if (c->finished && j->rule->in_step)
    return refuse(s, r, j, BL_EINVAL, "rank %u says it has finished, but in %s all ranks end together", c->rank,
                  j->rule->name);
  if (c->finished && open == c->clock && j->ranks[c->rank].n_seen > 0)
    return refuse(s, r, j, BL_EINVAL, "rank %u says it has finished in the middle of clock %" PRIu64, c->rank, open);
  uint32_t n_dense = srv_job_n_dense(j, c->clock), n_max = n_dense + j->n_chunks - j->n_dense;
  if (!c->finished && (c->n_chunks < n_dense || c->n_chunks > n_max))
    return refuse(s, r, j, BL_EMISMATCH, "the commit counts %u chunks, this shard has %u", c->n_chunks, n_max);
  uint32_t n_buckets = j->ranks[c->rank].n_buckets_seen;
  if (!c->finished && c->clock == open && n_buckets > c->n_chunks - n_dense)
    return refuse(s, r, j, BL_EMISMATCH, "the commit counts %u buckets, %u are here", c->n_chunks - n_dense,
                  n_buckets);
  return BL_OK;
}

/* Codecs that the rank chooses for pulls, which is for rank 0 to do. */
static bl_status check_choices(srv_shard *s, const request *r, const srv_job *j, const bl_frame *choices) {
  bl_error err = BL_ERROR_INIT;
  if (!j->adapts || r->rank != 0)
    return refuse(s, r, j, BL_EINVAL, "rank %u chooses codecs: job %" PRIu64 " %s", r->rank, j->id,
                  j->adapts ? "lets rank 0 do that" : "does not adapt");
  if (choices->size > BL_CHOICES_BYTES_MAX)
    return refuse(s, r, j, BL_ELIMIT, "%zu bytes of choices, limit %d", choices->size, BL_CHOICES_BYTES_MAX);
  bl_status st = bl_choices_read((const char *)choices->data, choices->size, j->table, NULL, NULL, &err);
  return st == BL_OK ? BL_OK : refuse(s, r, j, st, "choices: %.200s", err.text);
}

static void on_commit(srv_shard *s, const bl_peer *from, const bl_commit *c, bl_msg *msg) {
  request r = {c->job, c->view, c->rank, c->incarnation, c->request, from, 0};
  srv_job *j = find_job(s, &r);
  bl_frame *choices = c->n_choices > 0 ? msg->frames[0] : NULL;
  if (j == NULL || check_commit(s, &r, j, c) != BL_OK)
    return;
  if (choices != NULL && check_choices(s, &r, j, choices) != BL_OK)
    return;
  note_peer(j, &r);
  srv_rank *rank = &j->ranks[c->rank];
  bl_status st = BL_OK;
  s->stats.repeats += !take_commit(s, j, &r, c, choices, &st) && st == BL_OK;
  if (st != BL_OK)
    return;
  if (c->answer)
    rank->gate = (c->finished ? BL_CLOCK_FINISHED : c->clock + 1) + 1;
  bool known = c->clock + 1 >= rank->clock && rank->committed[c->clock & 1] != 0;
  bl_data_msg d = {.type = BL_MSG_ACK};
  d.ack.job = j->id;
  d.ack.rank = c->rank;
  d.ack.clock = c->clock;
  d.ack.request = c->request;
  d.ack.commit = true;
  d.ack.applied_incarnation = known ? rank->committed[c->clock & 1] - 1 : c->incarnation;
  send_reply(s, from, &d, srv_log_last(s->log));
}

/* Which versions, or clocks of a free running rank, may be asked for. */
static bl_status check_want(srv_shard *s, const request *r, const srv_job *j, uint64_t want) {
  uint64_t last = open_clock(j, r->rank) + 1, first = srv_job_oldest(j);
  if (!j->rule->in_step && want == BL_CLOCK_FINISHED)
    return BL_OK;
  if (want <= last && want >= first)
    return BL_OK;
  return refuse(s, r, j, BL_ECLOCK, "version %" PRIu64 " is asked for; versions %" PRIu64 " to %" PRIu64 " are served",
                want, first, last);
}

/* An exact replace frame, made for this answer alone: averages are pulled once in an epoch. NULL: no memory. */
static bl_frame *average_frame(srv_job *j, uint32_t local, const float *average) {
  uint32_t n = j->chunks[local].n_elems;
  bl_frame *f = bl_frame_pools_take(&j->pools, bl_codec_bound_bytes(&bl_codec_spec_exact, n));
  if (f != NULL)
    f->size = bl_codec_encode_exact(average, n, BL_CODEC_REPLACE, f->data);
  return f;
}

/* Adds the averages of chunks from *i on that fit a message; false: that of chunk *i is not there, or no memory. */
static bool add_averages(srv_job *j, const bl_pull *p, uint32_t *i, bl_frames *out, bl_msg *frames) {
  for (size_t bytes = 0; *i < p->n_chunks && bytes < BATCH_BYTES; (*i)++) {
    uint32_t local = srv_job_local(j, p->chunks[*i]);
    const float *average = srv_job_average(j, local, p->rank, p->want);
    bl_frame *f = average != NULL ? average_frame(j, local, average) : NULL;
    if (f == NULL)
      return false;
    bl_status st = bl_msg_add_frame(frames, f);
    BL_ASSERT(st == BL_OK);
    bytes += f->size;
    out->chunks[out->n_chunks] = p->chunks[*i];
    out->to[out->n_chunks++] = j->chunks[local].version;
    out->version = BL_MAX(out->version, j->chunks[local].version);
  }
  return true;
}

/* Who pulls averages has the weights of that version, so they are there as a rule; what is not is asked for again. */
static void on_pull_average(srv_shard *s, srv_job *j, const request *r, const bl_pull *p) {
  if (j->average == NULL) {
    refuse(s, r, j, BL_EINVAL, "this job keeps no average of its weights");
    return;
  }
  note_peer(j, r);
  s->stats.pulls++;
  for (uint32_t i = 0; i < p->n_chunks;) {
    bl_msg frames = BL_MSG_INIT;
    bl_data_msg d = {.type = BL_MSG_FRAMES};
    d.frames.job = j->id;
    d.frames.rank = p->rank;
    d.frames.request = p->request;
    d.frames.average = true;
    bool all = add_averages(j, p, &i, &d.frames, &frames);
    s->stats.bytes_pulled += bl_msg_bytes(&frames);
    s->stats.frames_sent += d.frames.n_chunks;
    send_reply_with(s, r->from, &d, &frames, srv_log_last(s->log));
    if (!all) {
      refuse(s, r, j, BL_EAGAIN, "the average of chunk %u is not there yet", p->chunks[i]);
      return;
    }
  }
}

static void on_pull(srv_shard *s, const bl_peer *from, const bl_pull *p) {
  request r = {p->job, p->view, p->rank, p->incarnation, p->request, from, 0};
  srv_job *j = find_job(s, &r);
  if (j == NULL || check_chunks(s, &r, j, p->chunks, p->n_chunks) != BL_OK)
    return;
  if (p->average) {
    on_pull_average(s, j, &r, p);
    return;
  }
  if (check_want(s, &r, j, p->want) != BL_OK)
    return;
  for (uint32_t i = 0; i < p->n_chunks; i++)
    if (j->chunks[srv_job_local(j, p->chunks[i])].rows != NULL) {
      refuse(s, &r, j, BL_EINVAL, "chunk %u is of a table: its rows are to be named", p->chunks[i]);
      return;
    }
  note_peer(j, &r);
  s->stats.pulls++;
  for (uint32_t i = 0; i < p->n_chunks; i++)
    srv_job_want(j, srv_job_local(j, p->chunks[i]), p->rank, p->want, p->have_nothing ? 0 : p->have + 1);
  j->ranks[p->rank].blocked = false;
}

/* A pull that must wait keeps its keys; what can be answered now is never refused for that, or all would wait
 * for ever. */
static bool may_wait(const srv_job *j, uint32_t local, const bl_pull_rows *p) {
  return srv_job_may_answer(j, local, p->rank, p->want) ||
         j->rows.cache.bytes_live <= j->rows.cache.bytes_max + j->limits.hold_bytes_max;
}

static void on_pull_rows(srv_shard *s, const bl_peer *from, const bl_pull_rows *p, const bl_msg *msg) {
  request r = {p->job, p->view, p->rank, p->incarnation, p->request, from, 0};
  srv_job *j = find_job(s, &r);
  if (j == NULL || check_chunks(s, &r, j, p->chunks, p->n_chunks) != BL_OK || check_want(s, &r, j, p->want) != BL_OK)
    return;
  note_peer(j, &r);
  s->stats.pulls++;
  s->stats.bytes_pushed += bl_msg_bytes(msg);
  uint32_t keyless[BL_MSG_FRAMES_MAX], n_keyless = 0;
  for (uint32_t i = 0; i < p->n_chunks; i++) {
    uint32_t local = srv_job_local(j, p->chunks[i]);
    srv_keys *keys = NULL;
    if (j->chunks[local].rows == NULL) {
      refuse(s, &r, j, BL_EINVAL, "chunk %u is not of a table", p->chunks[i]);
      return;
    }
    if (!may_wait(j, local, p)) {
      refuse(s, &r, j, BL_EAGAIN, "chunk %u: no room for more keys now", p->chunks[i]);
      continue;
    }
    if (take_keys(s, j, &r, local, msg->frames[i], false, &keys) != BL_OK)
      continue;
    if (keys == NULL)
      keyless[n_keyless++] = p->chunks[i];
    else
      srv_job_want_rows(j, local, p->rank, p->want, keys, p->request);
  }
  if (p->n_chunks == 0)
    j->ranks[p->rank].gate = p->want + 1;
  j->ranks[p->rank].blocked = false;
  say_need_keys(s, &r, false, keyless, n_keyless);
}

/* May the rows of a version be told, and is it the present one? */
static bl_status check_dump(srv_shard *s, const request *r, srv_job *j, const bl_dump_rows *d, uint32_t local) {
  if (local == SRV_NO_CHUNK || j->chunks[local].rows == NULL || d->from > j->chunks[local].rows->n_runs)
    return refuse(s, r, j, BL_EINVAL, "rows of chunk %u from %" PRIu64 " on are asked for, which is no table's here",
                  d->chunk, d->from);
  bl_status st = srv_job_catch_up(j, local);
  if (st != BL_OK)
    return refuse(s, r, j, st, "%s", j->state == SRV_JOB_FAILED ? j->text : "no memory to apply what came before");
  if (j->rule->in_step && d->version != j->clock)
    return refuse(s, r, j, d->version > j->clock ? BL_EAGAIN : BL_ECLOCK,
                  "rows of version %" PRIu64 " are asked for, the present one is %" PRIu64, d->version, j->clock);
  bool is_early = !j->rule->in_step && d->version == BL_CLOCK_FINISHED && j->slowest != BL_CLOCK_FINISHED;
  if (is_early || j->chunks[local].lsn > srv_log_safe(s->log))
    return refuse(s, r, j, BL_EAGAIN, "the rows of this version cannot be told yet");
  return BL_OK;
}

static void on_dump_rows(srv_shard *s, const bl_peer *from, const bl_dump_rows *p) {
  request r = {p->job, p->view, p->rank, p->incarnation, p->request, from, 0};
  srv_job *j = find_job(s, &r);
  if (j == NULL)
    return;
  uint32_t local = srv_job_local(j, p->chunk);
  if (check_dump(s, &r, j, p, local) != BL_OK)
    return;
  note_peer(j, &r);
  bl_data_msg d = {.type = BL_MSG_DUMPED_ROWS};
  d.dumped_rows = (bl_dumped_rows){.job = j->id,
                                   .rank = p->rank,
                                   .version = p->version,
                                   .request = p->request,
                                   .chunk = p->chunk,
                                   .from = p->from};
  bl_frame *frame = NULL;
  bl_status st =
      srv_rows_dump(j->chunks[local].rows, &j->rows, p->from, &d.dumped_rows.next, &d.dumped_rows.last, &frame);
  if (st != BL_OK) {
    refuse(s, &r, j, st, "no memory to read the rows of chunk %u", p->chunk);
    return;
  }
  bl_msg msg = BL_MSG_INIT;
  d.dumped_rows.n_frames = frame != NULL;
  if (frame != NULL)
    st = bl_msg_add_frame(&msg, frame);
  BL_ASSERT(st == BL_OK);
  st = bl_data_pack(&d, msg.n_frames, &msg);
  s->stats.bytes_pulled += bl_msg_bytes(&msg);
  if (st == BL_OK && s->config.transport != NULL) /* lost when the peer's queue is full: asked for again */
    (void)!bl_transport_send(s->config.transport, from, &msg);
  bl_msg_fini(&msg);
}

/* The answer goes out in srv_shard_tick, when all norms are there. */
static void on_ask_norms(srv_shard *s, const bl_peer *from, const bl_ask_norms *a) {
  request r = {a->job, a->view, a->rank, a->incarnation, a->request, from, 0};
  srv_job *j = find_job(s, &r);
  if (j == NULL)
    return;
  uint64_t open = open_clock(j, a->rank);
  if (j->norms.squares == NULL) {
    refuse(s, &r, j, BL_EINVAL, "norms are asked for, but this job does not clip by them");
    return;
  }
  if (a->clock > open || a->clock + 1 < open) {
    refuse(s, &r, j, BL_ECLOCK, "the norms of clock %" PRIu64 " are asked for while clock %" PRIu64 " is open", a->clock, open);
    return;
  }
  note_peer(j, &r);
  j->ranks[a->rank].norms_want = a->clock + 1;
  j->ranks[a->rank].norms_first = a->first;
}

static void on_malformed(srv_shard *s, const bl_peer *from, const bl_error *err) {
  request r = {.from = from};
  s->stats.malformed++;
  if (bl_is_worth_a_line(s->stats.malformed))
    bl_log_warning("message_refused", "shard=%u count=%" PRIu64 " reason=%s", s->config.index, s->stats.malformed,
                   BL_LOGQ(err->text));
  refuse(s, &r, NULL, BL_EPROTO, "%.250s", err->text);
}

void srv_shard_on_msg(srv_shard *s, const bl_peer *from, bl_msg *msg, uint64_t now_ns) {
  (void)now_ns;
  bl_data_msg d;
  bl_error err = BL_ERROR_INIT;
  s->stats.messages++;
  if (bl_data_unpack(msg, &d, &err) != BL_OK) {
    on_malformed(s, from, &err);
    return;
  }
  switch (d.type) {
  case BL_MSG_HELLO:
    on_hello(s, from, &d.hello);
    break;
  case BL_MSG_PUSH:
    (d.push.initial ? on_initial : on_push)(s, from, &d.push, msg);
    break;
  case BL_MSG_COMMIT:
    on_commit(s, from, &d.commit, msg);
    break;
  case BL_MSG_PULL:
    on_pull(s, from, &d.pull);
    break;
  case BL_MSG_PULL_ROWS:
    on_pull_rows(s, from, &d.pull_rows, msg);
    break;
  case BL_MSG_DUMP_ROWS:
    on_dump_rows(s, from, &d.dump_rows);
    break;
  case BL_MSG_ASK_NORMS:
    on_ask_norms(s, from, &d.ask_norms);
    break;
  case BL_MSG_REFUSE: /* never answered, or two daemons would refuse each other for ever */
    s->stats.malformed++;
    break;
  default:
    bl_fail(&err, BL_EPROTO, "a %s message is not for a shard", bl_msg_type_name(d.type));
    on_malformed(s, from, &err);
  }
}

/* ---- sending what is ready ----------------------------------------------------------------------------- */

/* Frames gathered for one rank. */
typedef struct batch {
  bl_data_msg d;
  bl_msg msg;
  size_t bytes;
  uint32_t locals[BL_MSG_FRAMES_MAX], n_locals;
  uint64_t versions[BL_MSG_FRAMES_MAX]; /* that its chunks are brought to */
} batch;

static void batch_begin(batch *b, const srv_job *j, uint32_t r) {
  b->d.type = BL_MSG_FRAMES;
  b->d.frames.job = j->id;
  b->d.frames.rank = r;
  b->d.frames.version = b->d.frames.gate = 0;
  b->d.frames.slowest = j->rule->in_step ? 0 : j->slowest + 1;
  b->d.frames.request = j->ranks[r].request;
  b->d.frames.average = b->d.frames.skipped = false;
  b->d.frames.n_chunks = 0;
  b->msg = (bl_msg)BL_MSG_INIT;
  b->bytes = 0;
  b->n_locals = 0;
}

/* gate: of the frames message. In bsp the frames of a message lead to one version, which is what was asked for. */
static bool batch_fits(const batch *b, const srv_job *j, uint32_t local, uint64_t gate,
                       const srv_versions_frames *f) {
  const bl_frames *fr = &b->d.frames;
  if (fr->n_chunks == 0)
    return true;
  size_t bytes = 0;
  for (uint32_t i = 0; i < f->n; i++)
    bytes += f->frame[i]->size;
  return fr->gate == gate && (gate != 0 || fr->version == f->to[f->n - 1]) &&
         fr->chunks[fr->n_chunks - 1] < j->chunks[local].id && fr->n_chunks + f->n <= BL_MSG_FRAMES_MAX &&
         b->bytes + bytes <= BATCH_BYTES;
}

static void batch_add(batch *b, const srv_job *j, uint32_t local, uint64_t gate, const srv_versions_frames *f) {
  bl_frames *fr = &b->d.frames;
  fr->gate = gate;
  for (uint32_t i = 0; i < f->n; i++) {
    fr->chunks[fr->n_chunks] = j->chunks[local].id;
    fr->from[fr->n_chunks] = f->from[i];
    fr->to[fr->n_chunks++] = f->to[i];
    fr->version = BL_MAX(fr->version, f->to[i]);
    bl_status st = bl_msg_add_frame(&b->msg, bl_frame_ref(f->frame[i]));
    BL_ASSERT(st == BL_OK);
    b->bytes += f->frame[i]->size;
  }
  b->versions[b->n_locals] = f->to[f->n - 1];
  b->locals[b->n_locals++] = local;
}

/* Sends the batch; on success its chunks are no longer wanted. */
static bl_status batch_send(srv_shard *s, srv_job *j, uint32_t r, batch *b) {
  srv_rank *rank = &j->ranks[r];
  if (b->n_locals == 0)
    return BL_OK;
  b->d.frames.skipped = srv_job_was_skipped(j, b->d.frames.version);
  bl_status st = bl_data_pack(&b->d, b->d.frames.n_chunks, &b->msg);
  size_t bytes = bl_msg_bytes(&b->msg);
  if (st == BL_OK)
    st = bl_transport_send(s->config.transport, &rank->peer, &b->msg);
  if (st == BL_OK) {
    s->stats.bytes_pulled += bytes;
    s->stats.frames_sent += b->d.frames.n_chunks;
  }
  bl_msg_fini(&b->msg);
  if (st == BL_EUNREACHABLE) /* nobody there: whoever comes asks again */
    st = BL_OK;
  for (uint32_t i = 0; st == BL_OK && i < b->n_locals; i++) {
    srv_cell *cell = srv_job_cell(j, b->locals[i], r);
    cell->want = 0;
    cell->have = b->versions[i] + 1; /* if it is lost, the rank asks and says what it has */
    if (j->chunks[b->locals[i]].rows != NULL)
      srv_rows_answered(j->chunks[b->locals[i]].rows, r);
    srv_versions_sent(&j->chunks[b->locals[i]].versions, &j->env);
  }
  batch_begin(b, j, r);
  return st;
}

/* Puts a chunk that could not be sent back to the front. */
static void unready(srv_job *j, srv_rank *rank, const uint32_t *locals, uint32_t n) {
  for (uint32_t i = n; i-- > 0;) {
    srv_cell *cell = srv_job_cell(j, locals[i], (uint32_t)(rank - j->ranks));
    if (cell->ready)
      continue;
    cell->ready = true;
    rank->ready_first = (rank->ready_first + j->n_chunks - 1) % j->n_chunks;
    rank->ready[rank->ready_first] = locals[i];
    rank->n_ready++;
  }
}

static bl_status flush(srv_shard *s, srv_job *j, uint32_t r, batch *b) {
  uint32_t locals[BL_MSG_FRAMES_MAX], n = b->n_locals;
  memcpy(locals, b->locals, n * sizeof *locals);
  bl_status st = batch_send(s, j, r, b);
  if (st != BL_OK)
    unready(j, &j->ranks[r], locals, n);
  return st;
}

/* The same for rows: the frame is made for this rank, which asked for these rows. */
static bl_status get_rows(srv_job *j, uint32_t local, uint32_t r, uint64_t version, srv_versions_frames *ret) {
  srv_chunk *c = &j->chunks[local];
  if (c->rows->cells[r].wanted == NULL || version + 1 < c->version || version < srv_job_oldest(j))
    return BL_ECLOCK;
  *ret = (srv_versions_frames){.n = 1, .from = {version}, .to = {version}};
  return srv_rows_answer(c->rows, &j->rows, r, version < c->version, &ret->frame[0]);
}

/* The frames for what a rank wants of a chunk. BL_EAGAIN: not now, it becomes ready again; BL_ECLOCK: never. */
static bl_status get_frames(srv_job *j, uint32_t local, uint32_t r, srv_versions_frames *ret) {
  srv_chunk *c = &j->chunks[local];
  const srv_cell *cell = srv_job_cell(j, local, r);
  uint64_t version = j->rule->in_step ? cell->want - 1 : c->version;
  if (!srv_job_is_answerable(j, local, r))
    return BL_EAGAIN;
  if (c->rows != NULL)
    return get_rows(j, local, r, version, ret);
  return srv_versions_get(&c->versions, &j->env, c->weights, c->n_elems, c->version, version, cell->have, ret);
}

/* until: of stats.bytes_pulled; what is ready beyond waits for the next tick. */
static void send_ready(srv_shard *s, srv_job *j, uint32_t r, uint64_t until) {
  srv_rank *rank = &j->ranks[r];
  batch b;
  batch_begin(&b, j, r);
  bl_status st = BL_OK;
  rank->blocked = false;
  for (uint32_t left = rank->n_ready; left > 0 && st == BL_OK && s->stats.bytes_pulled < until; left--) {
    uint32_t local = rank->ready[rank->ready_first];
    const srv_chunk *c = &j->chunks[local];
    srv_cell *cell = srv_job_cell(j, local, r);
    bool is_newest = !j->rule->in_step || cell->want - 1 == c->version;
    if (cell->want != 0 && is_newest && BL_MAX(c->lsn, j->slowest_lsn) > srv_log_safe(s->log))
      break; /* not safe yet: the weights, or that the rank may have them */
    rank->ready_first = (rank->ready_first + 1) % j->n_chunks;
    rank->n_ready--;
    cell->ready = false;
    if (cell->want == 0 || !rank->has_peer)
      continue;
    srv_versions_frames f = {0};
    uint64_t gate = j->rule->in_step ? 0 : cell->want;
    st = get_frames(j, local, r, &f);
    if (st == BL_ECLOCK || st == BL_EAGAIN) { /* asked for long ago; EAGAIN: its step makes it ready again */
      cell->want = st == BL_ECLOCK ? 0 : cell->want;
      st = BL_OK;
      continue;
    }
    if (st == BL_OK && !batch_fits(&b, j, local, gate, &f))
      st = flush(s, j, r, &b);
    if (st == BL_OK)
      batch_add(&b, j, local, gate, &f);
    else
      unready(j, rank, &local, 1);
    if (c->rows != NULL)
      bl_frame_unref(f.frame[0]);
  }
  bl_status last = flush(s, j, r, &b);
  rank->blocked = st != BL_OK || last != BL_OK;
}

/* Tells a rank that it may begin the clock that it asked about. Lost: asked again. */
static void open_gate(srv_shard *s, srv_job *j, uint32_t r) {
  srv_rank *rank = &j->ranks[r];
  if (!rank->has_peer || j->state == SRV_JOB_FAILED || !srv_job_is_gate_open(j, r) ||
      BL_MAX(j->clock_lsn, j->slowest_lsn) > srv_log_safe(s->log))
    return;
  batch b;
  batch_begin(&b, j, r);
  b.d.frames.version = j->rule->in_step ? rank->gate - 1 : 0;
  b.d.frames.gate = j->rule->in_step ? 0 : rank->gate;
  b.d.frames.skipped = srv_job_was_skipped(j, b.d.frames.version);
  rank->gate = 0;
  send_reply(s, &rank->peer, &b.d, 0);
}

/* Sends of one job, its ranks in turn. Returns when it wants to go on. */
static uint64_t send_turn(srv_shard *s, shard_job *sj, uint64_t now_ns) {
  srv_job *j = sj->job;
  uint64_t until = s->stats.bytes_pulled + SEND_SLICE_BYTES, deadline = UINT64_MAX;
  for (uint32_t i = 0; j != NULL && i < j->world && s->config.transport != NULL; i++) {
    uint32_t r = (sj->next_rank + i) % j->world;
    if (j->ranks[r].gate != 0)
      open_gate(s, j, r);
    if (j->ranks[r].n_ready > 0)
      send_ready(s, j, r, until);
    if (s->stats.bytes_pulled >= until) { /* the next time from here: a rank with much does not hold up the others */
      sj->next_rank = r + 1;
      return now_ns;
    }
    if (j->ranks[r].blocked && j->ranks[r].n_ready > 0)
      deadline = BL_MIN(deadline, now_ns + SEND_RETRY_NS);
  }
  return deadline;
}

/* A slice of arithmetic, shared by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): in its turn a job may
 * do a slice, and what the last chunk took beyond is taken off its next turns. So jobs with work get equal parts of the
 * shard, however large their chunks and however many jobs have none. Returns what was done. */
static uint64_t work_turn(srv_shard *s) {
  uint64_t used = 0;
  size_t idle = 0; /* jobs in a row that could do nothing */
  while (idle < s->jobs.count && used < WORK_SLICE_ELEMS) {
    shard_job *sj = s->list[s->next_job++ % s->jobs.count];
    if (sj->job == NULL || !srv_job_has_work(sj->job)) {
      sj->credit = BL_MIN(sj->credit, 0);
      idle++;
      continue;
    }
    sj->credit += WORK_SLICE_ELEMS;
    uint64_t done = 0;
    if (sj->credit > 0) {
      done = srv_job_work(sj->job, (uint64_t)sj->credit);
      sj->credit = done > 0 && srv_job_has_work(sj->job) ? sj->credit - (int64_t)done
                                                         : BL_MIN(sj->credit - (int64_t)done, 0);
      idle = done > 0 ? 0 : idle + 1; /* 0: no memory now */
    } else {
      idle = 0;
    }
    used += done;
  }
  return used;
}

/* Answers who has asked for norms. What is lost on the way is asked for again. */
static void send_norms(srv_shard *s, srv_job *j, uint32_t r) {
  srv_rank *rank = &j->ranks[r];
  uint64_t clock = rank->norms_want - 1;
  if (rank->norms_want == 0 || !rank->has_peer || !srv_norms_are_there(&j->norms, clock, j->clock))
    return;
  rank->norms_want = 0;
  uint32_t i = 0;
  while (i < j->n_chunks && j->chunks[i].id < rank->norms_first)
    i++;
  while (i < j->n_chunks) {
    bl_data_msg d = {.type = BL_MSG_NORMS};
    d.norms.job = j->id;
    d.norms.rank = r;
    d.norms.clock = clock;
    d.norms.request = rank->request;
    for (; i < j->n_chunks && d.norms.n_chunks < BL_MSG_FRAMES_MAX; i++) {
      d.norms.chunks[d.norms.n_chunks] = j->chunks[i].id;
      d.norms.squares[d.norms.n_chunks++] = srv_norms_get(&j->norms, i, clock);
    }
    send_reply(s, &rank->peer, &d, srv_log_last(s->log));
  }
}

uint64_t srv_shard_tick(srv_shard *s, uint64_t now_ns) {
  uint64_t deadline = UINT64_MAX;
  release_pending(s);
  uint64_t used = work_turn(s);
  bool has_work = false;
  for (size_t i = 0; i < s->jobs.count; i++) {
    shard_job *sj = s->list[(s->next_job + i) % s->jobs.count];
    for (uint32_t r = 0; sj->job != NULL && sj->job->norms.squares != NULL && r < sj->job->world; r++)
      send_norms(s, sj->job, r);
    uint64_t next = send_turn(s, sj, now_ns);
    deadline = BL_MIN(deadline, next);
    has_work |= sj->job != NULL && srv_job_has_work(sj->job);
  }
  if (has_work)
    deadline = used > 0 ? now_ns : BL_MIN(deadline, now_ns + MEMORY_RETRY_NS);
  return deadline;
}

/* ---- jobs ---------------------------------------------------------------------------------------------- */

static srv_job_limits limits_of(const srv_shard *s) {
  return (srv_job_limits){.hold_bytes_max = s->config.hold_bytes_max, .memory_bytes_max = s->config.memory_bytes_max};
}

/* Adds the job, or its failure, to the shard. */
static bl_status add_job(srv_shard *s, const Ballast__Control__JobPlan *plan, bl_error *err) {
  if (s->jobs.count >= SRV_JOBS_MAX)
    return bl_fail(err, BL_ELIMIT, "shard %u has its limit of %d jobs", s->config.index, SRV_JOBS_MAX);
  shard_job *sj = bl_calloc(1, sizeof *sj);
  if (sj == NULL || bl_map_put(&s->jobs, plan->job, sj) != BL_OK) {
    bl_free(sj);
    return bl_fail(err, BL_ENOMEM, "no memory for job %" PRIu64, plan->job);
  }
  s->list[s->jobs.count - 1] = sj;
  bl_error why = BL_ERROR_INIT;
  srv_job_limits limits = limits_of(s);
  sj->id = plan->job;
  sj->view = plan->view;
  sj->status = srv_job_new(plan, s->config.server, s->config.index, &limits, &sj->job, &why);
  if (sj->status == BL_OK)
    return BL_OK;
  snprintf(sj->text, sizeof sj->text, "%.255s", why.text);
  return bl_fail(err, sj->status, "%s", why.text);
}

static void remove_job(srv_shard *s, shard_job *sj) {
  size_t i = 0;
  while (s->list[i] != sj)
    i++;
  bl_map_remove(&s->jobs, sj->id);
  memmove(&s->list[i], &s->list[i + 1], (s->jobs.count - i) * sizeof s->list[0]);
  free_job(sj);
}

static bl_status adopt_view(srv_shard *s, srv_job *j, const Ballast__Control__JobPlan *plan, bl_error *err) {
  bl_status st = srv_job_check_view(j, plan, err);
  if (st != BL_OK)
    return st;
  srv_entry e = {.kind = SRV_ENTRY_VIEW, .job = j->id, .plan = plan};
  st = srv_log_append(s->log, &e);
  if (st != BL_OK)
    return bl_fail(err, st, "the log of shard %u is full", s->config.index);
  srv_job_apply(j, &e);
  return BL_OK;
}

bl_status srv_shard_open_job(srv_shard *s, const Ballast__Control__JobPlan *plan, bl_error *err) {
  shard_job *sj = bl_map_get(&s->jobs, plan->job);
  if (sj != NULL && sj->job == NULL && plan->view > sj->view) { /* could not be opened: another view, another try */
    remove_job(s, sj);
    sj = NULL;
  }
  if (sj != NULL) {
    if (sj->job == NULL)
      return bl_fail(err, sj->status, "%s", sj->text);
    return plan->view > sj->job->view ? adopt_view(s, sj->job, plan, err) : BL_OK;
  }
  bl_status st = add_job(s, plan, err);
  if (st != BL_OK)
    return st;
  srv_entry e = {.kind = SRV_ENTRY_OPEN, .job = plan->job, .plan = plan};
  st = srv_log_append(s->log, &e);
  if (st != BL_OK) {
    remove_job(s, bl_map_get(&s->jobs, plan->job));
    return bl_fail(err, st, "the log of shard %u is full", s->config.index);
  }
  return BL_OK;
}

bl_status srv_shard_close_job(srv_shard *s, uint64_t job) {
  shard_job *sj = bl_map_get(&s->jobs, job);
  if (sj == NULL)
    return BL_ENOENT;
  if (sj->job != NULL) {
    srv_entry e = {.kind = SRV_ENTRY_CLOSE, .job = job};
    bl_status st = srv_log_append(s->log, &e);
    if (st != BL_OK)
      return st;
  }
  remove_job(s, sj);
  return BL_OK;
}

static const Ballast__Control__ShardJobState state_on_wire[SRV_JOB_STATE_COUNT] = {
    [SRV_JOB_OPENING] = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPENING,
    [SRV_JOB_AWAITS] = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN, /* ready for rank 0, which waits for that */
    [SRV_JOB_OPEN] = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN,
    [SRV_JOB_FAILED] = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED,
};

static uint64_t memory_of(const srv_job *j) { return j->memory_bytes + j->held_bytes + j->rows.cache.bytes_live; }

static void describe(const shard_job *sj, srv_shard_job_info *out) {
  const srv_job *j = sj->job;
  *out = (srv_shard_job_info){.job = sj->id,
                              .view = j != NULL ? j->view : sj->view,
                              .clock = j != NULL ? j->clock : 0,
                              .memory_bytes = j != NULL ? memory_of(j) : 0,
                              .state = state_on_wire[j != NULL ? j->state : SRV_JOB_FAILED],
                              .status = j != NULL ? j->status : sj->status,
                              .n_chunks = j != NULL ? j->n_chunks : 0,
                              .table_rows = j != NULL ? srv_job_table_rows(j) : 0,
                              .clocks_skipped = j != NULL ? j->n_skipped : 0,
                              .key_bytes = j != NULL ? j->key_bytes : 0,
                              .key_bytes_saved = j != NULL ? j->key_bytes_saved : 0};
  snprintf(out->text, sizeof out->text, "%s", j != NULL ? j->text : sj->text);
}

bl_status srv_shard_job_status(const srv_shard *s, uint64_t job, srv_shard_job_info *ret_info) {
  const shard_job *sj = bl_map_get(&s->jobs, job);
  if (sj == NULL)
    return BL_ENOENT;
  describe(sj, ret_info);
  return BL_OK;
}

size_t srv_shard_jobs(const srv_shard *s, srv_shard_job_info *out, size_t max) {
  for (size_t i = 0; i < s->jobs.count && i < max; i++)
    describe(s->list[i], &out[i]);
  return s->jobs.count;
}

void srv_shard_get_stats(const srv_shard *s, srv_shard_stats *ret_stats) {
  *ret_stats = s->stats;
  ret_stats->log_last = srv_log_last(s->log);
  ret_stats->log_safe = srv_log_safe(s->log);
  ret_stats->log_bytes = srv_log_bytes(s->log);
  ret_stats->n_jobs = (uint32_t)s->jobs.count;
  ret_stats->held_bytes = ret_stats->memory_bytes = 0;
  for (size_t i = 0; i < s->jobs.count; i++) {
    const srv_job *j = s->list[i]->job;
    ret_stats->held_bytes += j != NULL ? j->held_bytes : 0;
    ret_stats->memory_bytes += j != NULL ? memory_of(j) : 0;
  }
}

/* ---- the log ------------------------------------------------------------------------------------------- */

void srv_shard_set_safe(srv_shard *s, uint64_t lsn) {
  srv_log_set_safe(s->log, lsn);
  release_pending(s);
}

uint64_t srv_shard_last_lsn(const srv_shard *s) { return srv_log_last(s->log); }

static bl_status replay_rows(srv_job *j, const srv_entry *e, uint32_t local, bl_error *err) {
  srv_rows *rows = j->chunks[local].rows;
  bl_rows_view frame, keys;
  if (!srv_job_is_new(j, local, e->rank, e->clock))
    return BL_OK;
  if (e->keys == NULL)
    return bl_fail(err, BL_EINVAL, "entry %" PRIu64 " has no keys", e->lsn);
  bl_status st = srv_rows_open(rows, &j->rows, e->frame, true, &frame, err);
  if (st == BL_OK)
    st = srv_rows_open(rows, &j->rows, e->keys, false, &keys, err);
  if (st != BL_OK)
    return st;
  if (keys.keys == NULL || frame.id.checksum != keys.id.checksum || frame.id.n_rows != keys.id.n_rows)
    return bl_fail(err, BL_EINVAL, "the keys of entry %" PRIu64 " are not those of its frame", e->lsn);
  srv_keys *list = srv_keys_take(&j->rows.cache, &j->pools, e->rank, local, &keys);
  if (list == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to replay entry %" PRIu64, e->lsn);
  st = srv_job_admit_rows(j, local, e->rank, list, 0, err);
  if (st != BL_OK)
    srv_keys_unref(list);
  return st;
}

static bl_status replay_push(srv_job *j, const srv_entry *e, bl_error *err) {
  uint32_t local = srv_job_local(j, e->chunk);
  if (local == SRV_NO_CHUNK || e->rank >= j->world || e->frame == NULL)
    return bl_fail(err, BL_EINVAL, "entry %" PRIu64 " is no push of job %" PRIu64, e->lsn, j->id);
  if (j->chunks[local].rows != NULL)
    return replay_rows(j, e, local, err);
  bl_codec_view view;
  bl_status st = bl_codec_open(e->frame->data, e->frame->size, j->chunks[local].n_elems, &view, err);
  if (st == BL_OK && !srv_job_takes(j, local, &view))
    st = bl_fail(err, BL_EINVAL, "entry %" PRIu64 " is not of codec %s", e->lsn,
                 srv_job_tensor(j, local)->policy.push.codec->name);
  if (st != BL_OK)
    return st;
  st = srv_job_admit_push(j, local, e->rank, e->frame->size);
  return st == BL_ENOMEM ? bl_fail(err, st, "no memory to replay entry %" PRIu64, e->lsn) : BL_OK;
}

static bl_status replay_initial(const srv_job *j, const srv_entry *e, bl_error *err) {
  uint32_t local = srv_job_local(j, e->chunk);
  bl_codec_view view;
  if (local == SRV_NO_CHUNK || e->frame == NULL || !j->plan->initial)
    return bl_fail(err, BL_EINVAL, "entry %" PRIu64 " is no initial value of job %" PRIu64, e->lsn, j->id);
  bl_status st = bl_codec_open(e->frame->data, e->frame->size, j->chunks[local].n_elems, &view, err);
  if (st == BL_OK && view.codec->id != BL_CODEC_FLOAT32)
    st = bl_fail(err, BL_EINVAL, "entry %" PRIu64 " is not float32", e->lsn);
  return st;
}

bl_status srv_shard_replay(srv_shard *s, const srv_entry *entry, bl_error *err) {
  if (entry->kind == SRV_ENTRY_OPEN)
    return srv_shard_open_job(s, entry->plan, err);
  if (entry->kind == SRV_ENTRY_CLOSE)
    return srv_shard_close_job(s, entry->job);
  shard_job *sj = bl_map_get(&s->jobs, entry->job);
  srv_job *j = sj != NULL ? sj->job : NULL;
  if (j == NULL)
    return bl_fail(err, BL_EINVAL, "entry %" PRIu64 " is of job %" PRIu64 ", which is not open", entry->lsn,
                   entry->job);
  if (entry->kind == SRV_ENTRY_VIEW)
    return adopt_view(s, j, entry->plan, err);
  while (j->state == SRV_JOB_OPENING && srv_job_work(j, UINT64_MAX) > 0)
    ;
  if (entry->rank >= j->world)
    return bl_fail(err, BL_EINVAL, "entry %" PRIu64 " names rank %u of %u", entry->lsn, entry->rank, j->world);
  if (entry->kind == SRV_ENTRY_PUSH && j->state == SRV_JOB_OPEN) {
    bl_status st = replay_push(j, entry, err);
    if (st != BL_OK)
      return st;
  }
  if (entry->kind == SRV_ENTRY_INITIAL) {
    bl_status st = replay_initial(j, entry, err);
    if (st != BL_OK)
      return st;
  }
  if (entry->kind == SRV_ENTRY_COMMIT && srv_job_admit_commit(j) != BL_OK)
    return bl_fail(err, BL_ENOMEM, "no memory to replay entry %" PRIu64, entry->lsn);
  srv_entry e = *entry;
  bl_status st = srv_log_append(s->log, &e);
  if (st != BL_OK)
    return bl_fail(err, st, "the log of shard %u is full", s->config.index);
  srv_job_apply(j, &e);
  return BL_OK;
}

uint64_t srv_shard_state_checksum(srv_shard *s) {
  uint64_t sum = 0; /* over jobs in any order */
  for (size_t i = 0; i < s->jobs.count; i++)
    if (s->list[i]->job != NULL)
      sum += srv_job_checksum(s->list[i]->job);
  return sum;
}
