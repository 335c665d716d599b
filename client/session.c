/* SPDX-License-Identifier: Apache-2.0
 *
 * A rank's side of the data plane. Each chunk goes through two small life cycles, one per direction:
 *
 *   push: NONE -> QUEUED -> SENT -> ACKED        (SENT falls back to QUEUED when it must be repeated)
 *   pull: NONE -> ANSWER | QUEUED -> ASKED -> NONE with the version held
 *
 * Buckets of tables are pushed as chunks are, where they are touched; their rows are pulled apart from the weights
 * (client/rows.h). A shard that has nothing but buckets is asked to say when the next clock may begin (gate).
 *
 * Everything is per shard: two rings of chunks waiting to go out, a window for each direction, one back-off.
 * A message carries chunks, not chunks a message: a reply is matched by chunk and version, so that lost,
 * repeated and reordered messages need no further bookkeeping. Frames are encoded when they are sent, and
 * again when they are repeated: the caller's gradient is the only copy. But where a residual is kept (client/feedback.h)
 * it is settled at the encoding, so there the frame is kept until it is acknowledged.
 */
#include "client/session.h"

#include "client/rows.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "client/adapt.h"
#include "client/feedback.h"
#include "client/norms.h"
#include "codec/select.h"
#include "job/policy.h"
#include "kernel/kernel.h"
#include "wire/pools.h"
#include "wire/rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define BATCH_BYTES (1u << 20)        /* frames of one push */
#define BATCH_WAIT_BYTES (1u << 18)   /* small tensors wait for company until commit */
#define BACKOFF_MAX 8                 /* times retry_ns */
#define AGAIN_NS (100 * BL_NS_PER_MS)  /* after a push that found no room */
#define SEND_RETRY_NS BL_NS_PER_MS    /* after a transport that was full */
#define UNKNOWN_JOB_MAX 64            /* refused hellos in a row before the job is given up */
#define CORRUPT_MAX 16                /* in a row */
#define POOL_KEEP 32
#define NEVER UINT64_MAX
#define GRADIENT_NORM_CLOCKS 64

typedef enum push_state { PUSH_NONE = 0, PUSH_QUEUED, PUSH_SENT, PUSH_ACKED } push_state;
typedef enum pull_state { PULL_NONE = 0, PULL_ANSWER, PULL_QUEUED, PULL_ASKED } pull_state;

typedef struct chunk {
  uint64_t held;        /* version in the weights array + 1; 0: nothing */
  uint64_t got;         /* target + 1 that the weights array answers; 0: none. In bsp the same as held */
  uint64_t push_due;    /* SENT: when to repeat */
  uint64_t pull_due;    /* ANSWER, ASKED: when to ask again */
  uint8_t push, pull;
  bool sent_before;     /* in this clock: a repeat */
  uint32_t frame_bytes; /* SENT: of what is to be acknowledged */
  bl_frame *kept;       /* of this clock, encoded with its residual; NULL: not yet, or not needed */
  bool averaged;        /* while averages are pulled: it is there */
} chunk;

typedef struct ring {
  uint32_t *at; /* owned, [capacity] */
  uint32_t capacity, first, n;
  uint64_t bytes; /* float32 of the chunks in it */
} ring;

/* Word from a shard without dense chunks that the target is reached: comes with the commit, or is asked for. */
typedef enum gate_state { GATE_OPEN = 0, GATE_ANSWER, GATE_QUEUED, GATE_ASKED } gate_state;
/* Jobs that clip by all ranks' norm begin with the question for the norms of the shard's chunks; HELD has them and waits
 * for those of the other shards. */
typedef enum commit_state {
  COMMIT_NONE = 0,
  COMMIT_NORMS_QUEUED,
  COMMIT_NORMS_ASKED,
  COMMIT_HELD,
  COMMIT_QUEUED,
  COMMIT_SENT,
  COMMIT_ACKED
} commit_state;

typedef struct shard {
  bl_transport *transport;
  uint32_t n_chunks;
  uint32_t n_dense;                  /* of them no buckets */
  uint32_t n_dense_pushed;           /* of those in this clock; with streams not all */
  uint32_t n_buckets_pushed;         /* in this clock */
  gate_state gate;
  uint64_t gate_due;
  bool welcomed, waits_for_view, hello_sent;
  uint64_t hello_due, clock, window_bytes;
  ring push, pull;
  uint64_t push_flight, pull_flight; /* float32 bytes of chunks SENT and ASKED */
  uint64_t answer_left;              /* of this clock */
  commit_state commit;
  uint64_t commit_due;
  uint64_t check_at;                 /* nothing is overdue before */
  uint64_t backoff;                  /* 1 .. BACKOFF_MAX */
  bool full;                         /* the transport would not take more */
  unsigned n_unknown, n_corrupt;
} shard;

/* All rows of a table, bucket by bucket. */
typedef struct dump {
  bool active, asked;
  uint32_t tensor, chunk;
  uint64_t version, from, due;
  bl_on_rows_fn *on_rows;
  void *arg;
  uint64_t *rows; /* owned, [rows of a frame] while active */
  float *values;  /* owned, [chunk_elems] */
} dump;

struct bl_session {
  bl_session_config config;
  const bl_tensor_table *table;
  chunk *chunks;          /* [n_chunks] */
  uint32_t *end_chunk;    /* [n_tensors]: behind the tensor's last chunk */
  const float **grads;    /* [n_tensors], of this clock */
  shard *shards;          /* [n_shards] */
  bl_frame_pools pools;
  bl_row_exchange *rows;  /* NULL: no tables */
  bool skipped;           /* the clock that led to the target changed nothing */
  bl_adapt *adapt;        /* NULL: the job does not adapt */
  bl_feedback *feedback;  /* NULL: every push is exact */
  bl_codec_spec *specs;    /* [n_tensors]: of this clock's pushes */
  float *thresholds;       /* [n_tensors]: of this clock's topk; 0: not found yet */
  uint64_t residual_clock; /* before which the residuals stand now; FINISHED has none of its own */
  dump dump;
  bl_data_msg scratch;
  bl_norm_sum norms;      /* clip_global_norm */
  bool started, committed, pulling, finished;
  float *const *average;      /* where averages go while they are pulled; else NULL */
  uint64_t clock, target;     /* pulling: the version that is wanted */
  uint64_t weights_version;
  uint64_t request, first_request; /* refusals of requests before the present phase are old news */
  uint64_t slowest;           /* free running: least that shards have said on the way to the target */
  uint32_t n_missing;         /* chunks without the target */
  uint32_t n_unacked;         /* pushed in this clock and not acknowledged */
  float scale;
  bool finite;
  uint64_t n_samples;
  bl_error failure;
  bl_session_stats stats;
  bl_tensor_stats *tensor_stats; /* [n_tensors], owned: the counters */
};

/* ---- small things -------------------------------------------------------------------------------------- */

static bool is_bucket(const bl_session *s, uint32_t id) { return s->table->tensors[s->table->chunks[id].tensor].table; }

/* Numbers of a chunk as float32; of a bucket those that are pushed. */
static uint64_t dense_bytes(const bl_session *s, uint32_t id) {
  if (is_bucket(s, id))
    return (uint64_t)bl_rows_pushed(s->rows, id) * bl_table_width(&s->table->tensors[s->table->chunks[id].tensor]) *
           sizeof(float);
  return (uint64_t)s->table->chunks[id].n_elems * sizeof(float);
}

static void ring_put(bl_session *s, ring *r, uint32_t id) {
  r->at[(r->first + r->n++) % r->capacity] = id;
  r->bytes += dense_bytes(s, id);
}

static uint32_t ring_front(const ring *r) { return r->at[r->first]; }

static void ring_take(bl_session *s, ring *r) {
  r->bytes -= dense_bytes(s, ring_front(r));
  r->first = (r->first + 1) % r->capacity;
  r->n--;
}

static bl_tensor_stats *tensor_stats_of(bl_session *s, uint32_t id) {
  return &s->tensor_stats[s->table->chunks[id].tensor];
}

/* With streams only a part of the tensors is exchanged in a clock. */
static bool is_in_clock(const bl_session *s, uint32_t id) {
  return s->config.free_running || bl_tensor_in_clock(s->table, s->table->chunks[id].tensor, s->clock);
}

static shard *shard_of(bl_session *s, uint32_t id) { return &s->shards[s->config.shard_of_chunk[id]]; }

static uint64_t rto(const bl_session *s, const shard *sh) { return s->config.retry_ns * sh->backoff; }

static uint64_t due(const bl_session *s, shard *sh, uint64_t now_ns) {
  uint64_t at = now_ns + rto(s, sh);
  sh->check_at = BL_MIN(sh->check_at, at);
  return at;
}

static void fail(bl_session *s, bl_status status, const char *text) {
  if (s->failure.status == BL_OK)
    bl_fail(&s->failure, status, "%s", text);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

static bl_status allocate(bl_session *s) {
  const bl_tensor_table *t = s->table;
  s->chunks = bl_calloc(t->n_chunks, sizeof *s->chunks);
  s->end_chunk = bl_calloc(t->n_tensors, sizeof *s->end_chunk);
  s->grads = bl_calloc(t->n_tensors, sizeof *s->grads);
  s->specs = bl_calloc(t->n_tensors, sizeof *s->specs);
  s->thresholds = bl_calloc(t->n_tensors, sizeof *s->thresholds);
  s->shards = bl_calloc(s->config.n_shards, sizeof *s->shards);
  s->tensor_stats = bl_calloc(t->n_tensors, sizeof *s->tensor_stats);
  if (s->specs == NULL || s->thresholds == NULL || s->chunks == NULL || s->end_chunk == NULL || s->grads == NULL || s->shards == NULL || s->tensor_stats == NULL)
    return BL_ENOMEM;
  for (uint32_t id = 0; id < t->n_chunks; id++) {
    s->end_chunk[t->chunks[id].tensor] = id + 1;
    shard_of(s, id)->n_chunks++;
    shard_of(s, id)->n_dense += !is_bucket(s, id);
  }
  for (uint32_t i = 0; i < s->config.n_shards; i++) {
    shard *sh = &s->shards[i];
    sh->transport = s->config.shards[i];
    sh->check_at = NEVER;
    sh->backoff = 1;
    sh->push.capacity = sh->pull.capacity = sh->n_chunks;
    sh->push.at = bl_calloc(sh->n_chunks, sizeof(uint32_t));
    sh->pull.at = bl_calloc(sh->n_chunks, sizeof(uint32_t));
    if (sh->push.at == NULL || sh->pull.at == NULL)
      return BL_ENOMEM;
  }
  if (s->config.clip_global_norm > 0 && bl_norm_sum_init(&s->norms, t->n_chunks) != BL_OK)
    return BL_ENOMEM;
  bl_row_config rows = {.table = t,
                        .shard_of_chunk = s->config.shard_of_chunk,
                        .n_shards = s->config.n_shards,
                        .caches_keys = s->config.caches_keys};
  if (bl_row_exchange_new(&rows, &s->rows) != BL_OK)
    return BL_ENOMEM;
  bl_feedback_config feedback = {
      .table = t, .job = s->config.job, .seed = s->config.seed, .rank = s->config.rank,
      .incarnation = s->config.incarnation, .path = s->config.residual_path,
      .undoes = s->config.skips};
  if (bl_feedback_new(&feedback, &s->feedback, NULL) != BL_OK)
    return BL_ENOMEM;
  bl_adapt_config adapt = {.table = t,
                           .tensors = s->config.adapting,
                           .rank = s->config.rank,
                           .world = s->config.world,
                           .n_shards = s->config.n_shards,
                           .sparse = s->config.takes_sparse,
                           .now_ns = s->config.now_ns,
                           .now_arg = s->config.now_arg};
  s->config.adapting = NULL; /* borrowed for the call */
  if (s->config.adapts && bl_adapt_new(&adapt, &s->adapt, NULL) != BL_OK)
    return BL_ENOMEM;
  size_t bytes = BL_MAX(bl_tensor_table_frame_bytes_max(t, true),
                        bl_adapt_frame_bytes_max(s->adapt, (uint32_t)t->chunk_elems));
  return bl_frame_pools_init(&s->pools, BL_MAX(bytes, bl_rows_frame_bytes_max(t)), POOL_KEEP);
}

bl_status bl_session_new(const bl_session_config *config, bl_session **ret_session, bl_error *err) {
  const bl_tensor_table *t = config->table;
  if (config->n_shards == 0 || config->rank >= config->world)
    return bl_fail(err, BL_EINVAL, "a session of rank %u of %u on %u shards", config->rank, config->world,
                   config->n_shards);
  for (uint32_t id = 0; id < t->n_chunks; id++)
    if (config->shard_of_chunk[id] >= config->n_shards)
      return bl_fail(err, BL_EINVAL, "chunk %u lies on shard %u of %u", id, config->shard_of_chunk[id],
                     config->n_shards);
  bl_session *s = bl_calloc(1, sizeof *s);
  if (s == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a session");
  s->config = *config;
  s->table = t;
  s->weights_version = NEVER;
  s->config.retry_ns = BL_MAX(config->retry_ns, BL_NS_PER_MS);
  if (allocate(s) != BL_OK) {
    bl_session_free(s);
    return bl_fail(err, BL_ENOMEM, "no memory for a session with %u chunks", t->n_chunks);
  }
  *ret_session = s;
  return BL_OK;
}

static void end_dump(bl_session *s) {
  bl_free(s->dump.rows);
  bl_free_aligned(s->dump.values);
  s->dump = (dump){0};
}

void bl_session_free(bl_session *s) {
  if (s == NULL)
    return;
  for (uint32_t i = 0; s->shards != NULL && i < s->config.n_shards; i++) {
    bl_free(s->shards[i].push.at);
    bl_free(s->shards[i].pull.at);
  }
  end_dump(s);
  for (uint32_t id = 0; s->chunks != NULL && id < s->table->n_chunks; id++)
    bl_frame_unref(s->chunks[id].kept);
  bl_feedback_free(s->feedback);
  bl_adapt_free(s->adapt);
  bl_row_exchange_free(s->rows);
  bl_frame_pools_fini(&s->pools);
  bl_norm_sum_fini(&s->norms);
  bl_free(s->tensor_stats);
  bl_free(s->shards);
  bl_free(s->grads);
  bl_free(s->specs);
  bl_free(s->thresholds);
  bl_free(s->end_chunk);
  bl_free(s->chunks);
  bl_free(s);
}

/* ---- sending ------------------------------------------------------------------------------------------- */

/* Packs scratch and the frames in msg, and sends. BL_OK or "not now"; msg is empty after. */
static bl_status send_scratch(bl_session *s, shard *sh, bl_msg *msg) {
  bl_status st = bl_data_pack(&s->scratch, msg->n_frames, msg);
  size_t bytes = bl_msg_bytes(msg);
  if (st == BL_OK)
    st = bl_transport_send(sh->transport, NULL, msg);
  if (st == BL_OK)
    s->stats.bytes_pushed += bytes;
  bl_msg_fini(msg);
  sh->full = st != BL_OK;
  return st;
}

static void send_hello(bl_session *s, shard *sh, uint64_t now_ns) {
  bl_msg msg = BL_MSG_INIT;
  s->scratch.type = BL_MSG_HELLO;
  s->scratch.hello = (bl_hello){.protocol_min = BL_PROTOCOL_MIN,
                                .protocol_max = bl_protocol_max(s->config.protocol_max),
                                .job = s->config.job,
                                .rank = s->config.rank,
                                .incarnation = s->config.incarnation,
                                .view = s->config.view};
  (void)!send_scratch(s, sh, &msg); /* repeated anyway */
  sh->full = false;
  sh->hello_sent = true;
  sh->hello_due = due(s, sh, now_ns);
}

static void sort_ids(uint32_t *ids, uint32_t n) {
  for (uint32_t i = 1; i < n; i++) /* nearly sorted already */
    for (uint32_t k = i; k > 0 && ids[k - 1] > ids[k]; k--) {
      uint32_t t = ids[k];
      ids[k] = ids[k - 1];
      ids[k - 1] = t;
    }
}

/* Takes chunks from a ring that go together: within a message's bounds and the window. */
static uint32_t take_batch(bl_session *s, ring *r, uint64_t room_bytes, uint64_t limit_bytes, uint32_t *ids) {
  uint64_t bytes = 0;
  uint32_t n = 0;
  while (r->n > 0 && n < BL_MSG_FRAMES_MAX) {
    uint64_t more = dense_bytes(s, ring_front(r));
    if (bytes + more > room_bytes || (n > 0 && bytes + more > limit_bytes))
      break;
    ids[n++] = ring_front(r);
    bytes += more;
    ring_take(s, r);
  }
  sort_ids(ids, n);
  return n;
}

static bl_encode how_to_encode(const bl_session *s, uint32_t id) {
  uint32_t tensor = s->table->chunks[id].tensor;
  const bl_tensor *t = &s->table->tensors[tensor];
  return (bl_encode){.spec = &s->specs[tensor],
                     .key = bl_codec_key(s->config.seed, s->config.rank, s->clock, id),
                     .threshold = s->thresholds[tensor],
                     .columns = bl_tensor_columns(t)};
}

/* A chunk's gradient with its residual. NULL: no memory, and nothing is settled. */
static bl_frame *encode_and_settle(bl_session *s, uint32_t id) {
  const bl_chunk *c = &s->table->chunks[id];
  const float *x = s->grads[c->tensor] + c->first;
  bl_encode e = how_to_encode(s, id);
  bl_frame *f = bl_frame_pools_take(&s->pools, bl_codec_bound_bytes(e.spec, c->n_elems));
  if (f == NULL)
    return NULL;
  uint64_t since_ns = bl_adapt_now(s->adapt);
  f->size = bl_feedback_encode(s->feedback, id, s->clock, &e, x, f->data);
  bl_adapt_encoded(s->adapt, e.spec, c->n_elems, f->size, since_ns);
  bool roomy = f->size < bl_codec_bound_bytes(e.spec, c->n_elems) / 2;
  bl_frame *small = roomy ? bl_frame_pools_take(&s->pools, f->size) : NULL;
  if (small == NULL)
    return f;
  memcpy(small->data, f->data, f->size); /* it is kept: what it does not need goes back */
  small->size = f->size;
  bl_frame_unref(f);
  return small;
}

static bl_frame *encode_chunk(bl_session *s, uint32_t id) {
  const bl_chunk *c = &s->table->chunks[id];
  chunk *state = &s->chunks[id];
  if (is_bucket(s, id))
    return bl_rows_encode_push(s->rows, id, &s->pools);
  if (bl_feedback_is_for(&s->table->tensors[c->tensor])) {
    if (state->kept == NULL)
      state->kept = encode_and_settle(s, id);
    return state->kept != NULL ? bl_frame_ref(state->kept) : NULL;
  }
  bl_encode e = how_to_encode(s, id);
  bl_frame *f = bl_frame_pools_take(&s->pools, bl_codec_bound_bytes(e.spec, c->n_elems));
  if (f != NULL)
    f->size = bl_codec_encode(&e, s->grads[c->tensor] + c->first, NULL, c->n_elems, 0, f->data);
  return f;
}

static bl_status encode_push(bl_session *s, const uint32_t *ids, uint32_t n, bl_msg *msg) {
  for (uint32_t i = 0; i < n; i++) {
    bl_frame *f = encode_chunk(s, ids[i]);
    if (f == NULL)
      return BL_ENOMEM;
    bl_status st = bl_msg_add_frame(msg, f);
    BL_ASSERT(st == BL_OK);
  }
  return BL_OK;
}

/* The window in one direction: what may still go out; a chunk larger than the whole window goes alone. */
static uint64_t room(const shard *sh, uint64_t flight) {
  if (flight == 0)
    return NEVER;
  return flight < sh->window_bytes ? sh->window_bytes - flight : 0;
}

static void queue_pull(bl_session *s, uint32_t id) {
  s->chunks[id].pull = PULL_QUEUED;
  ring_put(s, &shard_of(s, id)->pull, id);
}

/* What has gone out or come in, float32 of it, and how much that was. */
static void count_pushed(bl_session *s, uint32_t id, uint64_t frame_bytes) {
  bl_tensor_stats *t = tensor_stats_of(s, id);
  uint64_t dense = s->chunks[id].sent_before ? 0 : dense_bytes(s, id);
  s->stats.repeats += s->chunks[id].sent_before;
  s->stats.bytes_pushed_dense += dense;
  t->bytes_pushed_dense += dense;
  t->bytes_pushed += frame_bytes;
}

static void count_pulled_dense(bl_session *s, uint32_t id, uint64_t dense) {
  s->stats.bytes_pulled_dense += dense;
  tensor_stats_of(s, id)->bytes_pulled_dense += dense;
}

static void mark_pushed(bl_session *s, shard *sh, uint32_t id, bool answer, uint64_t now_ns) {
  chunk *c = &s->chunks[id];
  c->sent_before = true;
  c->push = PUSH_SENT;
  c->push_due = due(s, sh, now_ns);
  sh->push_flight += dense_bytes(s, id);
  if (c->pull != PULL_NONE || is_bucket(s, id))
    return;
  if (answer) {
    c->pull = PULL_ANSWER;
    c->pull_due = s->committed ? due(s, sh, now_ns) : NEVER; /* counted from the commit */
  } else if (s->committed) {
    queue_pull(s, id);
  }
}

/* One push message. False: nothing to send, or not now. */
static bool push_some(bl_session *s, shard *sh, uint64_t now_ns) {
  uint32_t ids[BL_MSG_FRAMES_MAX];
  uint32_t n = take_batch(s, &sh->push, room(sh, sh->push_flight), BL_MIN(BATCH_BYTES, sh->window_bytes), ids);
  if (n == 0)
    return false;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < n; i++)
    bytes += dense_bytes(s, ids[i]);
  bl_msg msg = BL_MSG_INIT;
  size_t sizes[BL_MSG_FRAMES_MAX];
  bl_status st = encode_push(s, ids, n, &msg);
  for (uint32_t i = 0; st == BL_OK && i < n; i++)
    sizes[i] = msg.frames[i]->size;
  bool answer = bytes <= sh->answer_left;
  if (st == BL_OK) {
    bl_push *p = &s->scratch.push;
    s->scratch.type = BL_MSG_PUSH;
    p->job = s->config.job;
    p->view = s->config.view;
    p->rank = s->config.rank;
    p->incarnation = s->config.incarnation;
    p->clock = s->clock;
    p->request = ++s->request;
    p->answer = answer;
    p->initial = false; /* the scratch may have held another message */
    p->n_chunks = n;
    memcpy(p->chunks, ids, n * sizeof *ids);
    st = send_scratch(s, sh, &msg);
  }
  if (st != BL_OK) { /* not now: at the end of the ring again */
    bl_msg_fini(&msg);
    sh->full = true;
    for (uint32_t i = 0; i < n; i++)
      ring_put(s, &sh->push, ids[i]);
    return false;
  }
  sh->answer_left -= answer ? bytes : 0;
  for (uint32_t i = 0; i < n; i++) {
    bl_adapt_sent(s->adapt, sizes[i], now_ns);
    s->chunks[ids[i]].frame_bytes = (uint32_t)sizes[i];
    count_pushed(s, ids[i], sizes[i]);
    mark_pushed(s, sh, ids[i], answer, now_ns);
  }
  return true;
}

static void send_commit(bl_session *s, shard *sh, uint64_t now_ns) {
  bl_msg msg = BL_MSG_INIT;
  s->scratch.type = BL_MSG_COMMIT;
  s->scratch.commit = (bl_commit){.job = s->config.job,
                                  .view = s->config.view,
                                  .rank = s->config.rank,
                                  .incarnation = s->config.incarnation,
                                  .clock = s->clock,
                                  .request = ++s->request,
                                  .scale = s->scale,
                                  .not_finite = !s->finite,
                                  .n_samples = s->n_samples,
                                  .n_chunks = s->finished ? 0 : sh->n_dense_pushed + sh->n_buckets_pushed,
                                  .finished = s->finished,
                                  .answer = sh->gate == GATE_ANSWER};
  bl_frame *choices = s->finished ? NULL : bl_adapt_choices(s->adapt);
  if (choices != NULL && bl_msg_add_frame(&msg, bl_frame_ref(choices)) == BL_OK)
    s->scratch.commit.n_choices = 1;
  if (send_scratch(s, sh, &msg) != BL_OK)
    return;
  sh->commit = COMMIT_SENT;
  sh->commit_due = due(s, sh, now_ns);
}

/* From the first chunk on whose norm is missing. */
static void send_ask_norms(bl_session *s, shard *sh, uint64_t now_ns) {
  uint32_t first = 0;
  while (first + 1 < s->table->n_chunks && (s->norms.there[first] || shard_of(s, first) != sh))
    first++;
  bl_msg msg = BL_MSG_INIT;
  s->scratch.type = BL_MSG_ASK_NORMS;
  s->scratch.ask_norms = (bl_ask_norms){.job = s->config.job,
                                        .view = s->config.view,
                                        .rank = s->config.rank,
                                        .incarnation = s->config.incarnation,
                                        .clock = s->clock,
                                        .request = ++s->request,
                                        .first = first};
  if (send_scratch(s, sh, &msg) != BL_OK)
    return;
  sh->commit = COMMIT_NORMS_ASKED;
  sh->commit_due = due(s, sh, now_ns);
}

/* One pull message for chunks that hold the same version. */
static bool pull_some(bl_session *s, shard *sh, uint64_t now_ns) {
  uint32_t ids[BL_MSG_FRAMES_MAX];
  uint32_t n = take_batch(s, &sh->pull, room(sh, sh->pull_flight), sh->window_bytes, ids);
  if (n == 0)
    return false;
  bl_pull *p = &s->scratch.pull;
  s->scratch.type = BL_MSG_PULL;
  uint64_t held = s->chunks[ids[0]].held;
  uint32_t n_same = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (s->chunks[ids[i]].held == held)
      p->chunks[n_same++] = ids[i];
    else
      ring_put(s, &sh->pull, ids[i]);
  }
  p->job = s->config.job;
  p->view = s->config.view;
  p->rank = s->config.rank;
  p->incarnation = s->config.incarnation;
  p->have = held > 0 ? held - 1 : 0;
  p->have_nothing = held == 0;
  p->want = s->target;
  p->average = s->average != NULL;
  p->request = ++s->request;
  p->n_chunks = n_same;
  memcpy(ids, p->chunks, n_same * sizeof *ids);
  bl_msg msg = BL_MSG_INIT;
  if (send_scratch(s, sh, &msg) != BL_OK) {
    for (uint32_t i = 0; i < n_same; i++)
      ring_put(s, &sh->pull, ids[i]);
    return false;
  }
  for (uint32_t i = 0; i < n_same; i++) {
    chunk *c = &s->chunks[ids[i]];
    c->pull = PULL_ASKED;
    c->pull_due = due(s, sh, now_ns);
    sh->pull_flight += dense_bytes(s, ids[i]);
  }
  return true;
}

/* Asks a shard for rows, or (no ids) when the target is reached. */
static bl_status send_pull_rows(bl_session *s, shard *sh, uint64_t want, const uint32_t *ids, uint32_t n, bl_msg *msg) {
  bl_pull_rows *p = &s->scratch.pull_rows;
  s->scratch.type = BL_MSG_PULL_ROWS;
  p->job = s->config.job;
  p->view = s->config.view;
  p->rank = s->config.rank;
  p->incarnation = s->config.incarnation;
  p->want = want;
  p->request = ++s->request;
  p->n_chunks = n;
  if (n > 0)
    memcpy(p->chunks, ids, n * sizeof *ids);
  return send_scratch(s, sh, msg);
}

static bool pull_rows_some(bl_session *s, shard *sh, uint64_t now_ns) {
  uint32_t ids[BL_MSG_FRAMES_MAX], index = (uint32_t)(sh - s->shards);
  bl_msg msg = BL_MSG_INIT;
  uint64_t want = 0, flight = bl_rows_flight_bytes(s->rows, index);
  uint32_t n = bl_rows_take_pulls(s->rows, index, room(sh, flight), &s->pools, &msg, ids, &want);
  if (n == 0) {
    bl_msg_fini(&msg);
    return false;
  }
  if (send_pull_rows(s, sh, want, ids, n, &msg) != BL_OK) {
    bl_rows_unasked(s->rows, ids, n);
    return false;
  }
  bl_rows_asked(s->rows, ids, n, due(s, sh, now_ns));
  return true;
}

static void ask_gate(bl_session *s, shard *sh, uint64_t now_ns) {
  bl_msg msg = BL_MSG_INIT;
  if (send_pull_rows(s, sh, s->target, NULL, 0, &msg) != BL_OK)
    return;
  sh->gate = GATE_ASKED;
  sh->gate_due = due(s, sh, now_ns);
}

static void ask_dump(bl_session *s, shard *sh, uint64_t now_ns) {
  bl_msg msg = BL_MSG_INIT;
  const dump *d = &s->dump;
  s->scratch.type = BL_MSG_DUMP_ROWS;
  s->scratch.dump_rows = (bl_dump_rows){.job = s->config.job,
                                        .view = s->config.view,
                                        .rank = s->config.rank,
                                        .incarnation = s->config.incarnation,
                                        .version = d->version,
                                        .request = ++s->request,
                                        .chunk = d->chunk,
                                        .from = d->from};
  if (send_scratch(s, sh, &msg) != BL_OK)
    return;
  s->dump.asked = true;
  s->dump.due = due(s, sh, now_ns);
}

static void pump_rows(bl_session *s, shard *sh, uint64_t now_ns) {
  while (!sh->full && pull_rows_some(s, sh, now_ns))
    ;
  if (!sh->full && s->dump.active && !s->dump.asked && shard_of(s, s->dump.chunk) == sh)
    ask_dump(s, sh, now_ns);
}

/* Sends what may go out on a shard now. */
static void pump(bl_session *s, shard *sh, uint64_t now_ns) {
  if (s->failure.status != BL_OK || !s->started || sh->n_chunks == 0 || sh->waits_for_view)
    return;
  sh->full = false;
  if (!sh->welcomed) {
    if (!sh->hello_sent)
      send_hello(s, sh, now_ns);
    return;
  }
  while (!sh->full && push_some(s, sh, now_ns))
    ;
  if (sh->commit == COMMIT_NORMS_QUEUED && sh->push.n == 0 && !sh->full)
    send_ask_norms(s, sh, now_ns);
  if (sh->commit == COMMIT_QUEUED && sh->push.n == 0 && !sh->full)
    send_commit(s, sh, now_ns);
  while (!sh->full && (s->pulling || s->average != NULL) && pull_some(s, sh, now_ns))
    ;
  if (!sh->full && s->pulling && sh->gate == GATE_QUEUED)
    ask_gate(s, sh, now_ns);
  if (s->rows != NULL)
    pump_rows(s, sh, now_ns);
}

/* ---- what the caller does ------------------------------------------------------------------------------ */

void bl_session_start(bl_session *s, uint64_t now_ns) {
  s->started = true;
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

bool bl_session_is_ready(const bl_session *s) {
  if (!s->started || s->failure.status != BL_OK)
    return false;
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    if (s->shards[i].n_chunks > 0 && !s->shards[i].welcomed)
      return false;
  return true;
}

uint64_t bl_session_clock(const bl_session *s) { return s->clock; }

uint64_t bl_session_weights_version(const bl_session *s) { return s->weights_version; }

/* From now on weights of this version may arrive. */
static void begin_pulling(bl_session *s, uint64_t version, uint64_t now_ns) {
  s->pulling = true;
  s->target = version;
  s->slowest = BL_CLOCK_FINISHED;
  s->n_missing = 0;
  for (uint32_t i = 0; i < s->config.n_shards; i++) {
    shard *sh = &s->shards[i];
    if (sh->n_chunks == 0 || (s->committed && !s->finished ? sh->n_dense_pushed : sh->n_dense) > 0)
      continue;
    s->n_missing++;
    sh->gate = s->committed ? GATE_ANSWER : GATE_QUEUED;
    sh->gate_due = s->committed ? due(s, sh, now_ns) : 0;
  }
  for (uint32_t id = 0; id < s->table->n_chunks; id++) {
    chunk *c = &s->chunks[id];
    if (is_bucket(s, id))
      continue;
    if (s->committed && !s->finished && !is_in_clock(s, id)) {
      c->held = c->got = version + 1; /* what is here is the new version too */
      continue;
    }
    BL_ASSERT(!s->committed || s->finished || c->push != PUSH_NONE); /* every tensor has been pushed */
    if (c->got == version + 1)
      continue;
    s->n_missing++;
    if (c->pull == PULL_ANSWER)
      c->pull_due = due(s, shard_of(s, id), now_ns);
    else if (c->pull == PULL_NONE && c->push != PUSH_QUEUED) /* a push still to go out may ask for the answer */
      queue_pull(s, id);
  }
  if (s->n_missing == 0) {
    s->pulling = false;
    s->weights_version = version;
  }
}

void bl_session_pull(bl_session *s, uint64_t version, uint64_t now_ns) {
  s->first_request = s->request + 1;
  begin_pulling(s, version, now_ns);
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

void bl_session_pull_average(bl_session *s, float *const *into, uint64_t now_ns) {
  BL_ASSERT(!s->committed && !s->pulling && s->average == NULL && s->weights_version == s->target);
  s->first_request = s->request + 1;
  s->average = into;
  s->n_missing = s->table->n_chunks;
  for (uint32_t id = 0; id < s->table->n_chunks; id++) {
    s->chunks[id].averaged = false;
    queue_pull(s, id);
  }
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

bool bl_session_average_is_there(const bl_session *s) { return s->average == NULL; }

/* What a tensor is encoded with in this clock. */
static void choose_spec(bl_session *s, uint32_t tensor) {
  const bl_tensor_policy *p = &s->table->tensors[tensor].policy;
  const bl_codec_spec *chosen = bl_adapt_push_spec(s->adapt, tensor);
  uint64_t epoch = s->config.epoch_clocks > 0 ? s->clock / s->config.epoch_clocks : UINT64_MAX;
  s->specs[tensor] = bl_codec_spec_at(chosen != NULL ? chosen : &p->push, p->warmup_epochs, epoch);
}

/* The largest of the whole tensor are sent, so all of it has to be there; the chunks compete with each other. */
static bool waits_for_all(const bl_session *s, uint32_t tensor) { return s->specs[tensor].codec->id == BL_CODEC_TOPK; }

static void find_threshold(bl_session *s, uint32_t tensor, const float *grad) {
  const bl_tensor *t = &s->table->tensors[tensor];
  bl_select_source source = {.x = grad, .n = t->n_elems, .momentum = t->policy.momentum};
  if (t->policy.feedback) {
    source.residual = bl_feedback_of_tensor(s->feedback, tensor, s->clock);
    source.velocity = bl_feedback_velocity(s->feedback, tensor, s->clock);
  }
  s->thresholds[tensor] = bl_select_sampled(&source, s->specs[tensor].density,
                                            bl_codec_key(s->config.seed, s->config.rank, s->clock, t->first_chunk));
}

void bl_session_push_part(bl_session *s, uint32_t tensor, const float *grad, uint64_t n_ready, uint64_t now_ns) {
  BL_ASSERT(tensor < s->table->n_tensors && !s->committed);
  BL_ASSERT(s->config.free_running || bl_tensor_in_clock(s->table, tensor, s->clock));
  choose_spec(s, tensor);
  if (waits_for_all(s, tensor) && n_ready < s->table->tensors[tensor].n_elems)
    return;
  if (waits_for_all(s, tensor) && s->chunks[s->table->tensors[tensor].first_chunk].push == PUSH_NONE)
    find_threshold(s, tensor, grad);
  s->grads[tensor] = grad;
  uint32_t first = tensor > 0 ? s->end_chunk[tensor - 1] : 0, end = s->end_chunk[tensor];
  while (end > first && s->table->chunks[end - 1].first + s->table->chunks[end - 1].n_elems > n_ready)
    end--;
  for (uint32_t id = first; id < end; id++) {
    chunk *c = &s->chunks[id];
    if (c->push != PUSH_NONE)
      continue;
    c->push = PUSH_QUEUED;
    c->sent_before = false;
    s->n_unacked++;
    ring_put(s, &shard_of(s, id)->push, id);
  }
  for (uint32_t id = first; id < end; id++)
    if (shard_of(s, id)->push.bytes >= BATCH_WAIT_BYTES)
      pump(s, shard_of(s, id), now_ns);
}

void bl_session_push(bl_session *s, uint32_t tensor, const float *grad, uint64_t now_ns) {
  bl_session_push_part(s, tensor, grad, s->table->tensors[tensor].n_elems, now_ns);
}

static void fail_with(bl_session *s, const bl_error *err) { fail(s, err->status, err->text); }

void bl_session_pull_rows(bl_session *s, uint32_t tensor, uint64_t version, const uint64_t *rows, uint32_t n,
                          float *values, uint64_t now_ns) {
  BL_ASSERT(tensor < s->table->n_tensors && s->table->tensors[tensor].table);
  bl_error err = BL_ERROR_INIT;
  if (bl_rows_begin_pull(s->rows, tensor, version, rows, n, values, &err) != BL_OK)
    fail_with(s, &err);
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

bool bl_session_rows_ready(const bl_session *s, uint32_t tensor) { return bl_rows_is_ready(s->rows, tensor); }

void bl_session_push_rows(bl_session *s, uint32_t tensor, const uint64_t *rows, uint32_t n, const float *grad,
                          uint64_t now_ns) {
  const bl_tensor *t = &s->table->tensors[tensor];
  BL_ASSERT(tensor < s->table->n_tensors && t->table && !s->committed);
  bl_error err = BL_ERROR_INIT;
  if (bl_rows_begin_push(s->rows, tensor, rows, n, grad, &err) != BL_OK) {
    fail_with(s, &err);
    return;
  }
  for (uint32_t id = t->first_chunk; id < t->first_chunk + t->n_chunks; id++) {
    chunk *c = &s->chunks[id];
    if (c->push != PUSH_NONE || bl_rows_pushed(s->rows, id) == 0)
      continue;
    c->push = PUSH_QUEUED;
    c->sent_before = false;
    s->n_unacked++;
    shard_of(s, id)->n_buckets_pushed++;
    ring_put(s, &shard_of(s, id)->push, id);
  }
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    if (s->shards[i].push.bytes >= BATCH_WAIT_BYTES)
      pump(s, &s->shards[i], now_ns);
}

bl_status bl_session_dump_rows(bl_session *s, uint32_t tensor, uint64_t version, bl_on_rows_fn *on_rows, void *arg,
                               uint64_t now_ns) {
  const bl_tensor *t = &s->table->tensors[tensor];
  BL_ASSERT(tensor < s->table->n_tensors && t->table && !s->dump.active);
  s->dump = (dump){.active = true,
                   .tensor = tensor,
                   .chunk = t->first_chunk,
                   .version = version,
                   .on_rows = on_rows,
                   .arg = arg,
                   .rows = bl_calloc(bl_table_frame_rows_max(s->table, tensor), sizeof(uint64_t)),
                   .values = bl_calloc_aligned(s->table->chunk_elems, sizeof(float))};
  if (s->dump.rows == NULL || s->dump.values == NULL) {
    end_dump(s);
    return BL_ENOMEM;
  }
  pump(s, shard_of(s, s->dump.chunk), now_ns);
  return BL_OK;
}

bool bl_session_dump_is_done(const bl_session *s) { return !s->dump.active; }

/* Now and then, for whoever asks how large residuals are: a pass over the gradients. */
static void measure_gradients(bl_session *s) {
  for (uint32_t i = 0; s->feedback != NULL && s->clock % GRADIENT_NORM_CLOCKS == 0 && i < s->table->n_tensors; i++)
    if (s->grads[i] != NULL && bl_feedback_is_for(&s->table->tensors[i]))
      s->tensor_stats[i].gradient_norm =
          sqrt(bl_kernels_get()->sum_squares(s->grads[i], s->table->tensors[i].n_elems));
}

void bl_session_commit(bl_session *s, float scale, bool finite, uint64_t n_samples, uint64_t now_ns) {
  BL_ASSERT(!s->committed);
  s->committed = true;
  measure_gradients(s);
  bl_adapt_committed(s->adapt, s->grads, bl_codec_key(s->config.seed, s->config.rank, s->clock, UINT32_MAX), now_ns);
  s->scale = scale;
  s->finite = finite;
  s->n_samples = n_samples;
  bool asks = s->norms.squares != NULL && finite;
  if (asks)
    bl_norm_sum_begin(&s->norms);
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    s->shards[i].commit = s->shards[i].n_chunks == 0 ? COMMIT_ACKED : asks ? COMMIT_NORMS_QUEUED : COMMIT_QUEUED;
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    s->shards[i].n_dense_pushed = 0;
  for (uint32_t id = 0; id < s->table->n_chunks; id++)
    shard_of(s, id)->n_dense_pushed += !is_bucket(s, id) && is_in_clock(s, id);
  begin_pulling(s, s->clock + 1, now_ns);
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

void bl_session_finish(bl_session *s, uint64_t now_ns) {
  BL_ASSERT(s->config.free_running && !s->committed && s->n_unacked == 0);
  s->committed = s->finished = true;
  s->scale = 1;
  s->finite = true;
  s->n_samples = 0;
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    s->shards[i].commit = s->shards[i].n_chunks > 0 ? COMMIT_QUEUED : COMMIT_ACKED;
  begin_pulling(s, BL_CLOCK_FINISHED, now_ns);
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

bool bl_session_gradients_free(const bl_session *s) { return s->n_unacked == 0; }

/* ---- what comes back ----------------------------------------------------------------------------------- */

static void progress(shard *sh) {
  sh->backoff = 1;
  sh->n_unknown = sh->n_corrupt = 0;
}

static void drop_kept(chunk *c) {
  bl_frame_unref(c->kept);
  c->kept = NULL;
}

static void acknowledge(bl_session *s, shard *sh, uint32_t id, uint64_t now_ns) {
  chunk *c = &s->chunks[id];
  if (c->push != PUSH_SENT)
    return;
  c->push = PUSH_ACKED;
  bl_adapt_acked(s->adapt, c->frame_bytes, now_ns);
  drop_kept(c);
  sh->push_flight -= dense_bytes(s, id);
  s->n_unacked--;
  if (is_bucket(s, id))
    bl_rows_push_known(s->rows, id);
}

static void count_lead(bl_session *s) {
  static const uint64_t at_most[BL_LEAD_BUCKETS - 1] = {0, 1, 2, 3, 4, 8, 16, 32};
  uint64_t lead = s->target > s->slowest ? s->target - s->slowest : 0;
  unsigned i = 0;
  while (i < BL_LEAD_BUCKETS - 1 && lead > at_most[i])
    i++;
  s->stats.lead[i]++;
}

/* What the clock behind these weights has left in the residuals, if it changed nothing: in step any rank can be the reason,
 * and a shard says so; a free running rank was it itself. */
static void undo_skipped(bl_session *s) {
  bool own = s->config.free_running && s->committed && !s->finite;
  if (s->feedback != NULL && s->config.skips && (s->skipped || own))
    bl_feedback_undo(s->feedback, own ? s->clock : s->target - 1);
  s->skipped = false;
}

/* All weights of the target are there; behind a commit that is the end of the clock. */
static void finish_version(bl_session *s, uint64_t now_ns) {
  s->pulling = false;
  undo_skipped(s);
  if (s->config.free_running && s->target != BL_CLOCK_FINISHED)
    count_lead(s);
  s->weights_version = s->target;
  if (!s->committed) {
    bl_adapt_begin_clock(s->adapt, s->clock, now_ns);
    return;
  }
  s->committed = false;
  s->residual_clock = s->finished ? s->clock : s->clock + 1;
  s->clock = s->finished ? BL_CLOCK_FINISHED : s->clock + 1;
  bl_adapt_end_clock(s->adapt, now_ns);
  memset(s->grads, 0, s->table->n_tensors * sizeof *s->grads);
  bl_adapt_begin_clock(s->adapt, s->clock, now_ns);
  s->first_request = s->request + 1;
  s->n_unacked = 0;
  for (uint32_t id = 0; id < s->table->n_chunks; id++) {
    s->chunks[id].push = PUSH_NONE;
    s->chunks[id].sent_before = false;
    drop_kept(&s->chunks[id]);
  }
  if (s->rows != NULL)
    bl_rows_end_push(s->rows);
  for (uint32_t i = 0; i < s->config.n_shards; i++) {
    shard *sh = &s->shards[i];
    sh->commit = COMMIT_NONE;
    sh->n_buckets_pushed = 0;
    sh->push_flight = 0;
    sh->push.n = 0;
    sh->push.bytes = 0;
    sh->answer_left = sh->window_bytes;
  }
}

static bool repeat_gate(bl_session *s, shard *sh, uint64_t now_ns, bool all, uint64_t *next) {
  bool waits = s->pulling && (sh->gate == GATE_ANSWER || sh->gate == GATE_ASKED);
  bool late = waits && (all || sh->gate_due <= now_ns);
  if (late)
    sh->gate = GATE_QUEUED;
  else if (waits)
    *next = BL_MIN(*next, sh->gate_due);
  return late;
}

static bool repeat_rows(bl_session *s, shard *sh, uint32_t index, uint64_t now_ns, bool all, uint64_t *next) {
  bool late = repeat_gate(s, sh, now_ns, all, next);
  if (s->rows != NULL)
    late |= bl_rows_repeat(s->rows, index, now_ns, all, next);
  if (s->dump.active && s->dump.asked && shard_of(s, s->dump.chunk) == sh) {
    if (all || s->dump.due <= now_ns)
      s->dump.asked = false;
    else
      *next = BL_MIN(*next, s->dump.due);
  }
  s->stats.repeats += late;
  return late;
}

/* Puts what is overdue back into its ring; returns the next time something may be. */
static uint64_t repeat_overdue(bl_session *s, shard *sh, uint32_t index, uint64_t now_ns, bool all) {
  uint64_t next = NEVER;
  bool late = false;
  for (uint32_t id = 0; id < s->table->n_chunks; id++) {
    chunk *c = &s->chunks[id];
    if (s->config.shard_of_chunk[id] != index)
      continue;
    if (c->push == PUSH_SENT && (all || c->push_due <= now_ns)) {
      late = true;
      c->push = PUSH_QUEUED;
      sh->push_flight -= dense_bytes(s, id);
      ring_put(s, &sh->push, id);
    } else if (c->push == PUSH_SENT) {
      next = BL_MIN(next, c->push_due);
    }
    bool waits = c->pull == PULL_ANSWER || c->pull == PULL_ASKED;
    if (waits && (s->pulling || s->average != NULL) && (all || c->pull_due <= now_ns)) {
      late = true;
      s->stats.repeats++;
      if (c->pull == PULL_ASKED)
        sh->pull_flight -= dense_bytes(s, id);
      queue_pull(s, id);
    } else if (waits) {
      next = BL_MIN(next, c->pull_due);
    }
  }
  late |= repeat_rows(s, sh, index, now_ns, all, &next);
  bool asked = sh->commit == COMMIT_NORMS_ASKED, sent = sh->commit == COMMIT_SENT;
  if ((asked || sent) && (all || sh->commit_due <= now_ns)) {
    late = true;
    s->stats.repeats++;
    sh->commit = asked ? COMMIT_NORMS_QUEUED : COMMIT_QUEUED;
  } else if (asked || sent) {
    next = BL_MIN(next, sh->commit_due);
  }
  if (late)
    bl_adapt_lost(s->adapt);
  if (late && !all)
    sh->backoff = BL_MIN(sh->backoff * 2, BACKOFF_MAX);
  return next;
}

static void on_welcome(bl_session *s, uint32_t index, const bl_welcome *w, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  if (sh->welcomed || w->view != s->config.view)
    return;
  sh->welcomed = true;
  sh->clock = w->clock;
  sh->window_bytes = BL_MAX(w->window_bytes, 1);
  sh->answer_left = sh->window_bytes;
  progress(sh);
  sh->check_at = repeat_overdue(s, sh, index, now_ns, true); /* after a reconnect */
  /* Once: a shard may have gone on since, but the caller works on the clock that it was told. */
  if (s->weights_version == NEVER && !s->pulling && bl_session_is_ready(s)) {
    s->clock = NEVER;
    for (uint32_t i = 0; i < s->config.n_shards; i++)
      if (s->shards[i].n_chunks > 0)
        s->clock = BL_MIN(s->clock, s->shards[i].clock);
    if (s->feedback != NULL && s->clock != BL_CLOCK_FINISHED)
      bl_feedback_begin(s->feedback, s->clock, s->clock == s->config.start_clock);
    s->residual_clock = s->clock;
  }
  pump(s, sh, now_ns);
}

/* Another incarnation's bytes stand under the name. In step it had the same gradient, so with the same residual they are
 * our bytes too. */
static void dropped(bl_session *s, uint32_t id, uint32_t by) {
  bool settles = !is_bucket(s, id) && bl_feedback_is_for(&s->table->tensors[s->table->chunks[id].tensor]);
  bool same = s->config.same_again && (!settles || bl_feedback_is_whole(s->feedback, id));
  s->stats.drops++;
  if (settles && !same)
    bl_feedback_replace(s->feedback, id, s->clock, by);
}

static void on_ack(bl_session *s, uint32_t index, const bl_ack *a, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  if (a->clock != s->clock)
    return;
  progress(sh);
  if (a->commit && sh->commit == COMMIT_SENT)
    sh->commit = COMMIT_ACKED;
  for (uint32_t i = 0; i < a->n_chunks; i++) {
    uint32_t id = a->chunks[i];
    if (id >= s->table->n_chunks || s->config.shard_of_chunk[id] != index)
      continue;
    if (s->chunks[id].push == PUSH_SENT && a->applied_incarnation != s->config.incarnation)
      dropped(s, id, a->applied_incarnation);
    acknowledge(s, sh, id, now_ns);
  }
  pump(s, sh, now_ns);
}

static bool has_norms_of(const bl_session *s, const shard *sh) {
  for (uint32_t id = 0; id < s->table->n_chunks; id++)
    if (!s->norms.there[id] && &s->shards[s->config.shard_of_chunk[id]] == sh)
      return false;
  return true;
}

/* The norms of all shards are there: every commit may go. */
static void commit_with_norm(bl_session *s, uint64_t now_ns) {
  s->scale = bl_norm_sum_scale(&s->norms, s->config.clip_global_norm);
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    if (s->shards[i].commit != COMMIT_ACKED)
      s->shards[i].commit = COMMIT_QUEUED;
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    pump(s, &s->shards[i], now_ns);
}

static void on_norms(bl_session *s, uint32_t index, const bl_norms *n, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  bool waits = sh->commit == COMMIT_NORMS_ASKED || sh->commit == COMMIT_NORMS_QUEUED;
  if (!waits || n->clock != s->clock)
    return;
  progress(sh);
  for (uint32_t i = 0; i < n->n_chunks; i++)
    if (n->chunks[i] < s->table->n_chunks && s->config.shard_of_chunk[n->chunks[i]] == index)
      bl_norm_sum_take(&s->norms, n->chunks[i], n->squares[i]);
  if (has_norms_of(s, sh))
    sh->commit = COMMIT_HELD;
  if (s->norms.n_missing == 0)
    commit_with_norm(s, now_ns);
}

static void corrupt(bl_session *s, shard *sh, const char *text) {
  s->stats.refusals++;
  if (++sh->n_corrupt >= CORRUPT_MAX)
    fail(s, BL_ECORRUPT, text);
}

/* One frame of weights into the caller's array. */
static void take_frame(bl_session *s, shard *sh, uint32_t id, uint64_t from, uint64_t to, const bl_frame *f) {
  chunk *c = &s->chunks[id];
  const bl_chunk *place = &s->table->chunks[id];
  if (f->size == 0)
    return; /* "you hold it": whether that is so, held tells */
  bl_codec_view view;
  bl_error err = BL_ERROR_INIT;
  bl_status st = bl_codec_open(f->data, f->size, place->n_elems, &view, &err);
  bool replace = st == BL_OK && (view.flags & BL_CODEC_REPLACE) != 0;
  if (st == BL_OK && !replace && c->held != from + 1)
    return; /* a difference to something else than what is here */
  float *w = s->config.weights[place->tensor] + place->first;
  uint64_t since_ns = bl_adapt_now(s->adapt);
  if (st == BL_OK && replace)
    view.codec->decode(&view, w);
  else if (st == BL_OK)
    view.codec->accumulate(&view, 1.0f, w);
  if (st == BL_OK)
    bl_adapt_decoded(s->adapt, place->tensor, view.n, since_ns);
  if (st != BL_OK) {
    corrupt(s, sh, err.text[0] != '\0' ? err.text : "weights that cannot be decoded");
    return;
  }
  c->held = to + 1;
}

/* Does frame i of a message answer what is asked for now? In bsp any way to a version up to the target does. */
static bool is_wanted(const bl_session *s, const chunk *c, const bl_frames *f, uint32_t i) {
  if (s->config.free_running)
    return f->gate == s->target + 1 && c->got != f->gate;
  return f->to[i] <= s->target && f->to[i] >= c->held; /* else a repeat, or an answer to an earlier life */
}

/* Frame i has been taken: is the chunk where it should be? A chunk's frames stand one behind the other. */
static bool is_there(const bl_session *s, const chunk *c, const bl_frames *f, uint32_t i) {
  if (!s->config.free_running)
    return c->held == s->target + 1;
  bool is_last = i + 1 == f->n_chunks || f->chunks[i + 1] != f->chunks[i];
  return is_last && c->held == f->to[i] + 1;
}

static void arrived(bl_session *s, shard *sh, uint32_t id, uint64_t now_ns) {
  chunk *c = &s->chunks[id];
  if (c->pull == PULL_ASKED)
    sh->pull_flight -= dense_bytes(s, id);
  /* QUEUED: it stays in its ring and is passed over there. */
  if (c->pull != PULL_QUEUED)
    c->pull = PULL_NONE;
  if (s->committed && sh->clock > s->clock && c->push == PUSH_SENT)
    dropped(s, id, BL_FEEDBACK_ANYBODY); /* it was over before we came */
  if (s->committed)
    acknowledge(s, sh, id, now_ns); /* the clock is over on that shard: the weights stand for it */
  count_pulled_dense(s, id, dense_bytes(s, id));
  s->n_missing--;
}

/* Chunks that have arrived while their question still waited to be asked. */
static void forget_answered(bl_session *s, shard *sh) {
  for (uint32_t n = sh->pull.n; n > 0; n--) {
    uint32_t id = ring_front(&sh->pull);
    ring_take(s, &sh->pull);
    if (s->chunks[id].got == s->target + 1)
      s->chunks[id].pull = PULL_NONE;
    else
      ring_put(s, &sh->pull, id);
  }
}

/* Frames without a chunk: the version, or the clock of a free running rank, has come. */
static void on_gate(bl_session *s, shard *sh, const bl_frames *f) {
  bool reached = s->config.free_running ? f->gate == s->target + 1 : f->version == s->target;
  if (f->n_chunks > 0 || !s->pulling || !reached || sh->gate == GATE_OPEN)
    return;
  sh->gate = GATE_OPEN;
  progress(sh);
  s->n_missing--;
}

static void on_row_frame(bl_session *s, shard *sh, uint32_t id, const bl_frames *f, uint32_t i, const bl_frame *frame) {
  bl_error err = BL_ERROR_INIT;
  bool taken;
  uint64_t version = s->config.free_running ? f->gate - 1 : f->to[i];
  uint64_t n_before = bl_rows_get_stats(s->rows).rows_pulled;
  bl_status st = bl_rows_take_answer(s->rows, id, version, frame, &taken, &err);
  if (st != BL_OK)
    corrupt(s, sh, err.text);
  if (st != BL_OK || !taken)
    return;
  progress(sh);
  uint32_t width = bl_table_width(&s->table->tensors[s->table->chunks[id].tensor]);
  count_pulled_dense(s, id, (bl_rows_get_stats(s->rows).rows_pulled - n_before) * width * sizeof(float));
}

static void on_need_keys(bl_session *s, uint32_t index, const bl_need_keys *k, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  for (uint32_t i = 0; i < k->n_chunks && s->rows != NULL; i++) {
    uint32_t id = k->chunks[i];
    if (id >= s->table->n_chunks || s->config.shard_of_chunk[id] != index || !is_bucket(s, id))
      continue;
    bl_rows_need_keys(s->rows, id, k->push);
    if (!k->push || s->chunks[id].push != PUSH_SENT)
      continue;
    s->chunks[id].push = PUSH_QUEUED;
    sh->push_flight -= dense_bytes(s, id);
    ring_put(s, &sh->push, id);
  }
  pump(s, sh, now_ns);
}

/* Rows of a bucket into the caller's hands. */
static bl_status take_dump(bl_session *s, const bl_frame *frame, bl_error *err) {
  dump *d = &s->dump;
  const bl_tensor *t = &s->table->tensors[d->tensor];
  uint32_t bucket = (uint32_t)s->table->chunks[d->chunk].first, width = bl_table_width(t);
  bl_rows_view v;
  bl_codec_view numbers;
  bl_status st = bl_rows_open(frame->data, frame->size, width, bl_table_frame_rows_max(s->table, d->tensor),
                              bl_table_runs(t, bucket), &v, err);
  if (st == BL_OK && (v.keys == NULL || v.numbers == NULL))
    st = bl_fail(err, BL_ECORRUPT, "rows without keys or numbers");
  if (st == BL_OK)
    st = bl_codec_open(v.numbers, v.numbers_bytes, v.id.n_rows * width, &numbers, err);
  if (st != BL_OK)
    return st;
  numbers.codec->decode(&numbers, d->values);
  bl_rows_reader keys = bl_rows_read(v.keys);
  for (uint32_t i = 0; i < v.id.n_rows; i++)
    d->rows[i] = bl_table_row(t, bucket, bl_rows_next(&keys));
  d->on_rows(d->rows, v.id.n_rows, d->values, d->arg);
  return BL_OK;
}

static void on_dumped(bl_session *s, uint32_t index, const bl_dumped_rows *r, const bl_msg *msg, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  dump *d = &s->dump;
  bl_error err = BL_ERROR_INIT;
  if (!d->active || !d->asked || r->chunk != d->chunk || r->from != d->from || r->version != d->version)
    return;
  if (r->n_frames > 0 && take_dump(s, msg->frames[0], &err) != BL_OK) {
    corrupt(s, sh, err.text);
    return; /* asked for again when it is due */
  }
  progress(sh);
  const bl_tensor *t = &s->table->tensors[d->tensor];
  d->asked = false;
  d->from = r->last ? 0 : r->next;
  d->chunk += r->last;
  if (d->chunk == t->first_chunk + t->n_chunks)
    end_dump(s);
  else
    pump(s, shard_of(s, d->chunk), now_ns);
}

/* Nothing of this phase shall show in the next. */
static void finish_average(bl_session *s) {
  s->average = NULL;
  for (uint32_t id = 0; id < s->table->n_chunks; id++)
    s->chunks[id].pull = PULL_NONE;
  for (uint32_t i = 0; i < s->config.n_shards; i++) {
    s->shards[i].pull.n = 0;
    s->shards[i].pull.bytes = s->shards[i].pull_flight = 0;
  }
}

/* The average of a chunk into the caller's array. */
static bl_status take_average(bl_session *s, uint32_t id, const bl_frame *f, bl_error *err) {
  const bl_chunk *place = &s->table->chunks[id];
  bl_codec_view view;
  bl_status st = bl_codec_open(f->data, f->size, place->n_elems, &view, err);
  if (st == BL_OK && (view.flags & BL_CODEC_REPLACE) == 0)
    st = bl_fail(err, BL_ECORRUPT, "an average of weights that is a difference");
  if (st == BL_OK)
    view.codec->decode(&view, s->average[place->tensor] + place->first);
  return st;
}

static void on_average(bl_session *s, uint32_t index, const bl_frames *f, const bl_msg *msg, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  for (uint32_t i = 0; i < f->n_chunks && s->average != NULL; i++) {
    uint32_t id = f->chunks[i];
    bl_error err = BL_ERROR_INIT;
    if (id >= s->table->n_chunks || s->config.shard_of_chunk[id] != index || s->chunks[id].averaged)
      continue;
    if (take_average(s, id, msg->frames[i], &err) != BL_OK) {
      corrupt(s, sh, err.text[0] != '\0' ? err.text : "an average that cannot be decoded");
      continue;
    }
    progress(sh);
    if (s->chunks[id].pull == PULL_ASKED) {
      sh->pull_flight -= dense_bytes(s, id);
      s->chunks[id].pull = PULL_NONE;
    }
    s->chunks[id].averaged = true;
    count_pulled_dense(s, id, dense_bytes(s, id));
    if (--s->n_missing == 0)
      finish_average(s);
  }
  pump(s, sh, now_ns);
}

static void on_frames(bl_session *s, uint32_t index, const bl_frames *f, const bl_msg *msg, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  if (s->pulling)
    bl_adapt_arrived(s->adapt, bl_msg_bytes(msg), now_ns);
  for (uint32_t i = 0; i < f->n_chunks; i++)
    if (f->chunks[i] < s->table->n_chunks)
      tensor_stats_of(s, f->chunks[i])->bytes_pulled += msg->frames[i]->size;
  if (f->average) {
    on_average(s, index, f, msg, now_ns);
    return;
  }
  if (f->gate == s->target + 1 && f->slowest > 0)
    s->slowest = BL_MIN(s->slowest, f->slowest - 1);
  s->skipped |= s->pulling && f->skipped && f->version == s->target;
  on_gate(s, sh, f);
  bool queued = false;
  for (uint32_t i = 0; i < f->n_chunks; i++) {
    uint32_t id = f->chunks[i];
    if (id >= s->table->n_chunks || s->config.shard_of_chunk[id] != index)
      continue;
    chunk *c = &s->chunks[id];
    if (is_bucket(s, id)) {
      on_row_frame(s, sh, id, f, i, msg->frames[i]);
      continue;
    }
    if (!s->pulling) { /* too early (an earlier incarnation had finished this clock) or too late */
      if (c->pull == PULL_ANSWER)
        c->pull = PULL_NONE;
      continue;
    }
    if (c->got == s->target + 1 || !is_wanted(s, c, f, i))
      continue;
    take_frame(s, sh, id, f->from[i], f->to[i], msg->frames[i]);
    if (!is_there(s, c, f, i))
      continue;
    c->got = s->target + 1;
    queued |= c->pull == PULL_QUEUED;
    progress(sh);
    arrived(s, sh, id, now_ns);
  }
  if (queued)
    forget_answered(s, sh);
  if (s->pulling && s->n_missing == 0)
    finish_version(s, now_ns);
  pump(s, sh, now_ns);
}

static void hello_again(bl_session *s, shard *sh, uint64_t now_ns) {
  sh->welcomed = false;
  sh->hello_sent = true; /* not at once: after the back-off */
  sh->backoff = BL_MIN(sh->backoff * 2, BACKOFF_MAX);
  sh->hello_due = due(s, sh, now_ns);
}

/* What a refusal means for the session. */
typedef enum verdict {
  LATER = 0, /* repeat when it is due */
  FATAL,
  NEW_VIEW,  /* wait for set_view */
  UNKNOWN,   /* say hello again */
  CORRUPT,
} verdict;

static const uint8_t verdicts[-BL_STATUS_LAST + 1] = {
    [-BL_EVIEW] = NEW_VIEW,     [-BL_ENOENT] = UNKNOWN,     [-BL_ECORRUPT] = CORRUPT, [-BL_EINVAL] = FATAL,
    [-BL_EINCARNATION] = FATAL, [-BL_EPROTO] = FATAL,       [-BL_EACCES] = FATAL,     [-BL_ENOTFINITE] = FATAL,
    [-BL_ELIMIT] = FATAL,       [-BL_EUNSUPPORTED] = FATAL, [-BL_EMISMATCH] = FATAL,  [-BL_ECANCELLED] = FATAL,
};

static uint64_t oldest_wanted(const bl_session *s) {
  uint64_t oldest = s->pulling ? s->target : NEVER;
  if (s->rows != NULL)
    oldest = BL_MIN(oldest, bl_rows_oldest_wanted(s->rows));
  return s->dump.active ? BL_MIN(oldest, s->dump.version) : oldest;
}

/* The shard lives and says that it cannot take this chunk yet: no reason to wait as if nothing came back. */
static void push_again_soon(bl_session *s, shard *sh, uint32_t id, uint64_t now_ns) {
  if (id >= s->table->n_chunks || shard_of(s, id) != sh || s->chunks[id].push != PUSH_SENT)
    return;
  progress(sh);
  s->chunks[id].push_due = BL_MIN(s->chunks[id].push_due, now_ns + AGAIN_NS);
  sh->check_at = BL_MIN(sh->check_at, s->chunks[id].push_due);
}

static void on_refuse(bl_session *s, shard *sh, const bl_refuse *r, uint64_t now_ns) {
  s->stats.refusals++;
  if (r->request != 0 && r->request < s->first_request)
    return; /* of an earlier clock: a late repeat */
  verdict v = (verdict)verdicts[-r->status];
  if (r->status == BL_ECLOCK && r->clock > oldest_wanted(s))
    v = FATAL; /* the version is gone for good */
  switch (v) {
  case FATAL:
    fail(s, r->status, r->text);
    break;
  case NEW_VIEW:
    sh->waits_for_view = r->view > s->config.view;
    break;
  case UNKNOWN:
    if (sh->welcomed)
      hello_again(s, sh, now_ns);
    else if (r->request == 0 && ++sh->n_unknown >= UNKNOWN_JOB_MAX)
      fail(s, r->status, r->text);
    break;
  case CORRUPT:
    if (++sh->n_corrupt >= CORRUPT_MAX)
      fail(s, r->status, r->text);
    break;
  case LATER:
    if (r->status == BL_EAGAIN && r->chunk > 0)
      push_again_soon(s, sh, r->chunk - 1, now_ns);
    break;
  }
}

void bl_session_on_msg(bl_session *s, uint32_t index, bl_msg *msg, uint64_t now_ns) {
  bl_data_msg *d = &s->scratch;
  bl_error err = BL_ERROR_INIT;
  if (index >= s->config.n_shards || s->failure.status != BL_OK)
    return;
  s->stats.bytes_pulled += bl_msg_bytes(msg);
  if (bl_data_unpack(msg, d, &err) != BL_OK) {
    corrupt(s, &s->shards[index], err.text);
    return;
  }
  /* Sending uses the scratch too: handlers send last. */
  switch (d->type) {
  case BL_MSG_WELCOME:
    if (d->welcome.job == s->config.job && d->welcome.rank == s->config.rank)
      on_welcome(s, index, &d->welcome, now_ns);
    break;
  case BL_MSG_ACK:
    if (d->ack.job == s->config.job && d->ack.rank == s->config.rank)
      on_ack(s, index, &d->ack, now_ns);
    break;
  case BL_MSG_FRAMES:
    if (d->frames.job == s->config.job && d->frames.rank == s->config.rank)
      on_frames(s, index, &d->frames, msg, now_ns);
    break;
  case BL_MSG_NEED_KEYS: {
    bl_need_keys keys = d->need_keys;
    if (keys.job == s->config.job && keys.rank == s->config.rank)
      on_need_keys(s, index, &keys, now_ns);
    break;
  }
  case BL_MSG_DUMPED_ROWS:
    if (d->dumped_rows.job == s->config.job && d->dumped_rows.rank == s->config.rank)
      on_dumped(s, index, &d->dumped_rows, msg, now_ns);
    break;
  case BL_MSG_NORMS:
    if (d->norms.job == s->config.job && d->norms.rank == s->config.rank)
      on_norms(s, index, &d->norms, now_ns);
    break;
  case BL_MSG_REFUSE: {
    bool ours = d->refuse.job == s->config.job && d->refuse.rank == s->config.rank;
    if (ours || (d->refuse.job == 0 && d->refuse.status == BL_EPROTO))
      on_refuse(s, &s->shards[index], &d->refuse, now_ns);
    break;
  }
  default:
    corrupt(s, &s->shards[index], "a message that shards do not send");
  }
}

/* ---- time ---------------------------------------------------------------------------------------------- */

static uint64_t tick_shard(bl_session *s, uint32_t index, uint64_t now_ns) {
  shard *sh = &s->shards[index];
  if (sh->n_chunks == 0 || sh->waits_for_view)
    return NEVER;
  if (!sh->welcomed && sh->hello_sent) {
    if (sh->hello_due > now_ns)
      return sh->hello_due;
    sh->hello_sent = false;
    sh->backoff = BL_MIN(sh->backoff * 2, BACKOFF_MAX);
    pump(s, sh, now_ns);
    return sh->hello_due;
  }
  if (sh->check_at <= now_ns)
    sh->check_at = repeat_overdue(s, sh, index, now_ns, false);
  pump(s, sh, now_ns);
  return sh->full ? BL_MIN(sh->check_at, now_ns + SEND_RETRY_NS) : sh->check_at;
}

uint64_t bl_session_tick(bl_session *s, uint64_t now_ns) {
  uint64_t next = NEVER;
  if (!s->started || s->failure.status != BL_OK)
    return NEVER;
  for (uint32_t i = 0; i < s->config.n_shards; i++)
    next = BL_MIN(next, tick_shard(s, i, now_ns));
  return next;
}

void bl_session_set_view(bl_session *s, uint64_t view, uint64_t now_ns) {
  if (view <= s->config.view)
    return;
  s->config.view = view;
  for (uint32_t i = 0; i < s->config.n_shards; i++) {
    shard *sh = &s->shards[i];
    sh->waits_for_view = false;
    sh->backoff = 1;
    sh->hello_sent = false;
    if (sh->welcomed)
      sh->check_at = repeat_overdue(s, sh, i, now_ns, true);
    pump(s, sh, now_ns);
  }
}

/* ---- what it says about itself ------------------------------------------------------------------------- */

bl_status bl_session_status(const bl_session *s, bl_error *err) {
  if (err != NULL)
    *err = s->failure;
  return s->failure.status;
}

bl_session_stats bl_session_get_stats(const bl_session *s) {
  bl_session_stats stats = s->stats;
  if (s->rows != NULL) {
    bl_row_stats rows = bl_rows_get_stats(s->rows);
    stats.keys_sent_bytes = rows.keys_sent_bytes;
    stats.keys_saved_bytes = rows.keys_saved_bytes;
    stats.rows_pulled = rows.rows_pulled;
    stats.rows_pushed = rows.rows_pushed;
  }
  return stats;
}

void bl_session_remove_residuals(bl_session *s) {
  if (s->feedback != NULL)
    bl_feedback_remove_file(s->feedback);
}

const float *bl_session_residual(const bl_session *s, uint32_t tensor) {
  return bl_feedback_of_tensor(s->feedback, tensor, s->residual_clock);
}

bl_tensor_stats bl_session_get_tensor_stats(const bl_session *s, uint32_t tensor) {
  BL_ASSERT(tensor < s->table->n_tensors);
  bl_tensor_stats stats = s->tensor_stats[tensor];
  const bl_codec_spec *push = bl_adapt_push_spec(s->adapt, tensor), *pull = bl_adapt_pull_spec(s->adapt, tensor);
  stats.push = push != NULL ? push : &s->table->tensors[tensor].policy.push;
  stats.pull = pull != NULL ? pull : &s->table->tensors[tensor].policy.pull;
  stats.reason = bl_adapt_reason(s->adapt, tensor);
  if (s->feedback != NULL) {
    stats.residual_norm = bl_feedback_norm(s->feedback, tensor, s->residual_clock);
    bl_feedback_loss loss = bl_feedback_loss_of(s->feedback, tensor);
    stats.residuals_lost = loss.chunks;
    stats.lost_squared = loss.squares;
  }
  return stats;
}

/* What a shard owes: NULL when nothing. */
static const char *owes(const bl_session *s, const shard *sh, uint32_t index) {
  if (sh->n_chunks == 0 || !s->started)
    return NULL;
  if (sh->waits_for_view)
    return "the new view of the job";
  if (!sh->welcomed)
    return "welcome";
  if (s->rows != NULL && bl_rows_is_waiting(s->rows, index))
    return "rows";
  for (uint32_t id = 0; id < s->table->n_chunks && s->average != NULL; id++)
    if (s->config.shard_of_chunk[id] == index && !s->chunks[id].averaged)
      return "average of the weights";
  if (!s->committed && !s->pulling)
    return NULL;
  if (s->committed && (sh->commit == COMMIT_NORMS_QUEUED || sh->commit == COMMIT_NORMS_ASKED))
    return "norms of the gradient";
  if (s->committed && sh->commit < COMMIT_ACKED && sh->commit != COMMIT_HELD)
    return "acknowledgement";
  if (s->pulling && sh->gate != GATE_OPEN)
    return "the next clock";
  for (uint32_t id = 0; id < s->table->n_chunks; id++)
    if (s->config.shard_of_chunk[id] == index && !is_bucket(s, id) && s->chunks[id].got != s->target + 1)
      return "weights";
  return NULL;
}

const char *bl_session_waits_for(const bl_session *s, char *out, size_t size) {
  uint32_t n = 0, n_owing = 0;
  const char *first = NULL;
  uint32_t first_index = 0;
  for (uint32_t i = 0; i < s->config.n_shards; i++) {
    const char *what = owes(s, &s->shards[i], i);
    n += s->shards[i].n_chunks > 0;
    n_owing += what != NULL;
    if (what != NULL && first == NULL) {
      first = what;
      first_index = i;
    }
  }
  if (first == NULL)
    snprintf(out, size, "%s", "");
  else
    snprintf(out, size, "%u of %u shards: %s from shard %u", n_owing, n, first, first_index);
  return out;
}
