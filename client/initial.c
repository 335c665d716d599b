/* SPDX-License-Identifier: Apache-2.0
 *
 * Per shard: HELLO -Welcome-> DONE, or -Refuse again-> SENDING -all chunks acknowledged-> DONE.
 */
#include "client/initial.h"

#include "base/alloc.h"
#include "base/num.h"
#include "codec/codec.h"

#include <inttypes.h>
#include <string.h>

#define BATCH_BYTES (1u << 20)
#define WINDOW_BYTES (4u << 20) /* not acknowledged, per shard: enough to keep a fast link busy */
#define BACKOFF_MAX 8
#define CORRUPT_MAX 16

typedef enum shard_state { SHARD_HELLO = 1, SHARD_SENDING, SHARD_DONE } shard_state;
typedef enum chunk_state { CHUNK_WAITS = 0, CHUNK_SENT, CHUNK_ACKNOWLEDGED } chunk_state;

typedef struct shard {
  shard_state state;
  uint32_t next;   /* first chunk of the table that may wait */
  uint32_t n_left; /* chunks of this shard that are not acknowledged */
  uint64_t sent_bytes, due_ns, backoff, n_corrupt;
} shard;

struct bl_initial {
  bl_initial_config config;
  shard *shards;   /* owned [n_shards] */
  uint8_t *chunks; /* chunk_state, owned [n_chunks] */
  uint64_t request;
  bl_error error;
};

bl_status bl_initial_new(const bl_initial_config *config, bl_initial **ret_initial, bl_error *err) {
  bl_initial *x = bl_calloc(1, sizeof *x);
  if (x != NULL) {
    x->config = *config;
    x->shards = bl_calloc(config->n_shards, sizeof *x->shards);
    x->chunks = bl_calloc(config->table->n_chunks, sizeof *x->chunks);
  }
  if (x == NULL || x->shards == NULL || x->chunks == NULL) {
    bl_initial_free(x);
    return bl_fail(err, BL_ENOMEM, "no memory to send the initial values of %u chunks", config->table->n_chunks);
  }
  for (uint32_t i = 0; i < config->n_shards; i++)
    x->shards[i] = (shard){.state = SHARD_HELLO, .backoff = 1};
  for (uint32_t i = 0; i < config->table->n_chunks; i++)
    x->shards[config->shard_of_chunk[i]].n_left++;
  *ret_initial = x;
  return BL_OK;
}

void bl_initial_free(bl_initial *x) {
  if (x == NULL)
    return;
  bl_free(x->shards);
  bl_free(x->chunks);
  bl_free(x);
}

static uint64_t chunk_bytes(const bl_initial *x, uint32_t chunk) { return x->config.table->chunks[chunk].n_elems * sizeof(float); }

static void send(bl_initial *x, uint32_t i, const bl_data_msg *d, bl_msg *msg, uint32_t n_frames) {
  if (bl_data_pack(d, n_frames, msg) == BL_OK)
    (void)!bl_transport_send(x->config.shards[i], NULL, msg); /* what is lost is repeated */
  bl_msg_fini(msg);
}

static void say_hello(bl_initial *x, uint32_t i) {
  bl_msg msg = BL_MSG_INIT;
  bl_data_msg d = {.type = BL_MSG_HELLO};
  d.hello = (bl_hello){.protocol_min = BL_PROTOCOL_MIN,
                       .protocol_max = BL_PROTOCOL_VERSION,
                       .job = x->config.job,
                       .incarnation = x->config.incarnation,
                       .view = x->config.view};
  send(x, i, &d, &msg, 0);
}

static bl_frame *encode(const bl_initial *x, uint32_t chunk) {
  const bl_chunk *c = &x->config.table->chunks[chunk];
  bl_frame *f = bl_frame_new(bl_codec_bound_bytes(&bl_codec_spec_exact, c->n_elems));
  if (f != NULL)
    f->size = bl_codec_encode_exact(x->config.values[c->tensor] + c->first, c->n_elems, BL_CODEC_REPLACE, f->data);
  return f;
}

/* One message of waiting chunks; false: none wait, or the window is full, or memory is short. */
static bool send_batch(bl_initial *x, uint32_t i) {
  shard *s = &x->shards[i];
  bl_msg msg = BL_MSG_INIT;
  bl_data_msg d = {.type = BL_MSG_PUSH};
  d.push = (bl_push){.job = x->config.job,
                     .view = x->config.view,
                     .incarnation = x->config.incarnation,
                     .clock = BL_CLOCK_INITIAL,
                     .request = ++x->request,
                     .initial = true};
  uint64_t bytes = 0;
  for (; s->next < x->config.table->n_chunks && d.push.n_chunks < BL_MSG_FRAMES_MAX; s->next++) {
    uint32_t c = s->next;
    if (x->config.shard_of_chunk[c] != i || x->chunks[c] != CHUNK_WAITS)
      continue;
    uint64_t size = chunk_bytes(x, c);
    if (bytes > 0 && bytes + size > BATCH_BYTES)
      break;
    if (s->sent_bytes > 0 && s->sent_bytes + size > WINDOW_BYTES)
      break;
    bl_frame *f = encode(x, c);
    if (f == NULL || bl_msg_add_frame(&msg, f) != BL_OK)
      break;
    d.push.chunks[d.push.n_chunks++] = c;
    x->chunks[c] = CHUNK_SENT;
    bytes += size;
    s->sent_bytes += size;
  }
  if (d.push.n_chunks == 0) {
    bl_msg_fini(&msg);
    return false;
  }
  send(x, i, &d, &msg, d.push.n_chunks);
  return true;
}

static void fill_window(bl_initial *x, uint32_t i) {
  while (send_batch(x, i))
    continue;
}

static void set_due(const bl_initial *x, shard *s, uint64_t now_ns) { s->due_ns = now_ns + s->backoff * x->config.retry_ns; }

/* All that is not acknowledged waits again. */
static void rewind_shard(bl_initial *x, uint32_t i) {
  for (uint32_t c = 0; c < x->config.table->n_chunks; c++)
    if (x->config.shard_of_chunk[c] == i && x->chunks[c] == CHUNK_SENT)
      x->chunks[c] = CHUNK_WAITS;
  x->shards[i].next = 0;
  x->shards[i].sent_bytes = 0;
}

static void begin_sending(bl_initial *x, uint32_t i, uint64_t now_ns) {
  shard *s = &x->shards[i];
  s->state = SHARD_SENDING;
  s->backoff = 1;
  fill_window(x, i);
  set_due(x, s, now_ns);
}

static void on_ack(bl_initial *x, uint32_t i, const bl_ack *a, uint64_t now_ns) {
  shard *s = &x->shards[i];
  for (uint32_t k = 0; k < a->n_chunks; k++) {
    uint32_t c = a->chunks[k];
    if (c >= x->config.table->n_chunks || x->config.shard_of_chunk[c] != i || x->chunks[c] == CHUNK_ACKNOWLEDGED)
      continue;
    s->sent_bytes -= x->chunks[c] == CHUNK_SENT ? chunk_bytes(x, c) : 0;
    x->chunks[c] = CHUNK_ACKNOWLEDGED;
    s->n_left--;
  }
  if (s->n_left == 0) {
    s->state = SHARD_DONE;
    return;
  }
  s->backoff = 1;
  fill_window(x, i);
  set_due(x, s, now_ns);
}

static void on_refuse(bl_initial *x, uint32_t i, const bl_refuse *r, uint64_t now_ns) {
  shard *s = &x->shards[i];
  switch (r->status) {
  case BL_EAGAIN: /* not open for sessions: it lacks values, or does not know the view yet */
    if (s->state == SHARD_HELLO && r->view == x->config.view)
      begin_sending(x, i, now_ns);
    return;
  case BL_ENOENT:
  case BL_EVIEW:
  case BL_ENOMEM:
    return; /* repeated when it is due */
  case BL_ECORRUPT:
    if (++s->n_corrupt < CORRUPT_MAX)
      return;
    break;
  default:
    break;
  }
  if (x->error.status == BL_OK)
    bl_fail(&x->error, r->status, "shard %u refuses the initial values: %.300s", i, r->text);
}

void bl_initial_on_msg(bl_initial *x, uint32_t shard_index, bl_msg *msg, uint64_t now_ns) {
  bl_data_msg d;
  bl_error ignored = BL_ERROR_INIT;
  shard *s = &x->shards[shard_index];
  if (bl_data_unpack(msg, &d, &ignored) != BL_OK || s->state == SHARD_DONE)
    return;
  if (d.type == BL_MSG_WELCOME && d.welcome.job == x->config.job)
    s->state = SHARD_DONE;
  else if (d.type == BL_MSG_ACK && d.ack.job == x->config.job && s->state == SHARD_SENDING)
    on_ack(x, shard_index, &d.ack, now_ns);
  else if (d.type == BL_MSG_REFUSE && d.refuse.job == x->config.job)
    on_refuse(x, shard_index, &d.refuse, now_ns);
}

uint64_t bl_initial_tick(bl_initial *x, uint64_t now_ns) {
  uint64_t next = UINT64_MAX;
  for (uint32_t i = 0; i < x->config.n_shards; i++) {
    shard *s = &x->shards[i];
    if (s->state == SHARD_DONE)
      continue;
    if (s->due_ns <= now_ns) {
      s->backoff = s->due_ns == 0 ? 1 : BL_MIN(s->backoff * 2, BACKOFF_MAX);
      if (s->state == SHARD_HELLO) {
        say_hello(x, i);
      } else {
        rewind_shard(x, i);
        fill_window(x, i);
      }
      set_due(x, s, now_ns);
    }
    next = BL_MIN(next, s->due_ns);
  }
  return next;
}

void bl_initial_set_view(bl_initial *x, uint64_t view, uint64_t now_ns) {
  if (view <= x->config.view)
    return;
  x->config.view = view;
  for (uint32_t i = 0; i < x->config.n_shards; i++)
    x->shards[i].due_ns = BL_MIN(x->shards[i].due_ns, now_ns);
}

bool bl_initial_is_done(const bl_initial *x) {
  for (uint32_t i = 0; i < x->config.n_shards; i++)
    if (x->shards[i].state != SHARD_DONE)
      return false;
  return true;
}

bl_status bl_initial_status(const bl_initial *x, bl_error *err) {
  if (x->error.status != BL_OK && err != NULL)
    *err = x->error;
  return x->error.status;
}
