/* SPDX-License-Identifier: Apache-2.0
 *
 * Data-plane headers: the Protocol Buffers encoding of proto/data.proto, written and read by one pair of
 * functions that walk a table of fields per message.
 *
 * protobuf-c would allocate for every repeated field and every text of every push; the tables below read
 * straight into the caller's struct. The subset is small: varints, one float, one text, packed lists. Unknown
 * fields are skipped, so that a newer peer may add some; a known field of another wire type is refused.
 */
#include "wire/data.h"

#include "base/le.h"
#include "base/num.h"
#include "wire/control.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

/* Heads fit in one of these unless a message names some hundred chunks at versions of many digits. */
#define HEAD_POOL_BYTES 2048
#define HEAD_POOL_KEEP_MAX 512
#define VARINT_BYTES_MAX 10
#define FIELDS_MAX 16

typedef enum field_kind {
  FIELD_U32 = 1,
  FIELD_U64,
  FIELD_BOOL,
  FIELD_STATUS, /* bl_status in memory, its magnitude on the wire */
  FIELD_FLOAT,
  FIELD_TEXT,
  FIELD_U32_LIST,
  FIELD_U64_LIST,
  FIELD_F64_LIST,
} field_kind;

typedef struct field {
  uint8_t number; /* of data.proto */
  uint8_t kind;
  uint16_t offset;       /* in bl_data_msg */
  uint16_t count_offset; /* lists: where their uint32_t count stands; lists of one message share it */
} field;

typedef bl_status check_fn(const bl_data_msg *d, bl_error *err);

typedef struct message {
  const field *fields;
  size_t n_fields;
  size_t end; /* of the message's member within bl_data_msg */
  check_fn *check;
  uint16_t n_frames_offset; /* in bl_data_msg: where the number of raw frames stands; 0: none follow */
} message;

#define AT(member) (uint16_t) offsetof(bl_data_msg, member)

static const field hello_fields[] = {
    {1, FIELD_U32, AT(hello.protocol_min), 0}, {2, FIELD_U32, AT(hello.protocol_max), 0},
    {3, FIELD_U64, AT(hello.job), 0},          {4, FIELD_U32, AT(hello.rank), 0},
    {5, FIELD_U32, AT(hello.incarnation), 0},  {6, FIELD_U64, AT(hello.view), 0},
};
static const field welcome_fields[] = {
    {1, FIELD_U32, AT(welcome.protocol), 0},     {2, FIELD_U64, AT(welcome.job), 0},
    {3, FIELD_U32, AT(welcome.rank), 0},         {4, FIELD_U64, AT(welcome.view), 0},
    {5, FIELD_U64, AT(welcome.clock), 0},        {6, FIELD_U64, AT(welcome.oldest), 0},
    {7, FIELD_U64, AT(welcome.window_bytes), 0}, {8, FIELD_U32, AT(welcome.shard), 0},
};
static const field push_fields[] = {
    {1, FIELD_U64, AT(push.job), 0},
    {2, FIELD_U64, AT(push.view), 0},
    {3, FIELD_U32, AT(push.rank), 0},
    {4, FIELD_U32, AT(push.incarnation), 0},
    {5, FIELD_U64, AT(push.clock), 0},
    {6, FIELD_U64, AT(push.request), 0},
    {7, FIELD_U32_LIST, AT(push.chunks), AT(push.n_chunks)},
    {8, FIELD_BOOL, AT(push.answer), 0},
    {10, FIELD_BOOL, AT(push.initial), 0},
};
static const field commit_fields[] = {
    {1, FIELD_U64, AT(commit.job), 0},        {2, FIELD_U64, AT(commit.view), 0},
    {3, FIELD_U32, AT(commit.rank), 0},       {4, FIELD_U32, AT(commit.incarnation), 0},
    {5, FIELD_U64, AT(commit.clock), 0},      {6, FIELD_U64, AT(commit.request), 0},
    {7, FIELD_FLOAT, AT(commit.scale), 0},    {8, FIELD_BOOL, AT(commit.not_finite), 0},
    {9, FIELD_U64, AT(commit.n_samples), 0},  {10, FIELD_U32, AT(commit.n_chunks), 0},
    {11, FIELD_BOOL, AT(commit.finished), 0},
    {14, FIELD_BOOL, AT(commit.answer), 0},   {15, FIELD_U32, AT(commit.n_choices), 0},
};
static const field ack_fields[] = {
    {1, FIELD_U64, AT(ack.job), 0},
    {2, FIELD_U32, AT(ack.rank), 0},
    {3, FIELD_U64, AT(ack.clock), 0},
    {4, FIELD_U64, AT(ack.request), 0},
    {5, FIELD_U32_LIST, AT(ack.chunks), AT(ack.n_chunks)},
    {6, FIELD_BOOL, AT(ack.commit), 0},
    {7, FIELD_U32, AT(ack.applied_incarnation), 0},
};
static const field pull_fields[] = {
    {1, FIELD_U64, AT(pull.job), 0},
    {2, FIELD_U64, AT(pull.view), 0},
    {3, FIELD_U32, AT(pull.rank), 0},
    {4, FIELD_U32, AT(pull.incarnation), 0},
    {5, FIELD_U64, AT(pull.have), 0},
    {6, FIELD_U64, AT(pull.want), 0},
    {7, FIELD_U64, AT(pull.request), 0},
    {8, FIELD_U32_LIST, AT(pull.chunks), AT(pull.n_chunks)},
    {9, FIELD_BOOL, AT(pull.have_nothing), 0},
    {12, FIELD_BOOL, AT(pull.average), 0},
};
static const field frames_fields[] = {
    {1, FIELD_U64, AT(frames.job), 0},
    {2, FIELD_U32, AT(frames.rank), 0},
    {3, FIELD_U64, AT(frames.version), 0},
    {4, FIELD_U64, AT(frames.request), 0},
    {5, FIELD_U32_LIST, AT(frames.chunks), AT(frames.n_chunks)},
    {6, FIELD_U64_LIST, AT(frames.from), AT(frames.n_chunks)},
    {7, FIELD_U64_LIST, AT(frames.to), AT(frames.n_chunks)},
    {8, FIELD_U64, AT(frames.gate), 0},
    {9, FIELD_U64, AT(frames.slowest), 0},
    {12, FIELD_BOOL, AT(frames.average), 0},
    {15, FIELD_BOOL, AT(frames.skipped), 0},
};
static const field ask_norms_fields[] = {
    {1, FIELD_U64, AT(ask_norms.job), 0},         {2, FIELD_U64, AT(ask_norms.view), 0},
    {3, FIELD_U32, AT(ask_norms.rank), 0},        {4, FIELD_U32, AT(ask_norms.incarnation), 0},
    {5, FIELD_U64, AT(ask_norms.clock), 0},       {6, FIELD_U64, AT(ask_norms.request), 0},
    {7, FIELD_U32, AT(ask_norms.first), 0},
};
static const field norms_fields[] = {
    {1, FIELD_U64, AT(norms.job), 0},
    {2, FIELD_U32, AT(norms.rank), 0},
    {3, FIELD_U64, AT(norms.clock), 0},
    {4, FIELD_U64, AT(norms.request), 0},
    {5, FIELD_U32_LIST, AT(norms.chunks), AT(norms.n_chunks)},
    {6, FIELD_F64_LIST, AT(norms.squares), AT(norms.n_chunks)},
};
static const field pull_rows_fields[] = {
    {1, FIELD_U64, AT(pull_rows.job), 0},
    {2, FIELD_U64, AT(pull_rows.view), 0},
    {3, FIELD_U32, AT(pull_rows.rank), 0},
    {4, FIELD_U32, AT(pull_rows.incarnation), 0},
    {5, FIELD_U64, AT(pull_rows.want), 0},
    {6, FIELD_U64, AT(pull_rows.request), 0},
    {7, FIELD_U32_LIST, AT(pull_rows.chunks), AT(pull_rows.n_chunks)},
};
static const field need_keys_fields[] = {
    {1, FIELD_U64, AT(need_keys.job), 0},
    {2, FIELD_U32, AT(need_keys.rank), 0},
    {3, FIELD_U64, AT(need_keys.request), 0},
    {4, FIELD_BOOL, AT(need_keys.push), 0},
    {5, FIELD_U32_LIST, AT(need_keys.chunks), AT(need_keys.n_chunks)},
};
static const field dump_rows_fields[] = {
    {1, FIELD_U64, AT(dump_rows.job), 0},     {2, FIELD_U64, AT(dump_rows.view), 0},
    {3, FIELD_U32, AT(dump_rows.rank), 0},    {4, FIELD_U32, AT(dump_rows.incarnation), 0},
    {5, FIELD_U64, AT(dump_rows.version), 0}, {6, FIELD_U64, AT(dump_rows.request), 0},
    {7, FIELD_U32, AT(dump_rows.chunk), 0},   {8, FIELD_U64, AT(dump_rows.from), 0},
};
static const field dumped_rows_fields[] = {
    {1, FIELD_U64, AT(dumped_rows.job), 0},      {2, FIELD_U32, AT(dumped_rows.rank), 0},
    {3, FIELD_U64, AT(dumped_rows.version), 0},  {4, FIELD_U64, AT(dumped_rows.request), 0},
    {5, FIELD_U32, AT(dumped_rows.chunk), 0},    {6, FIELD_U64, AT(dumped_rows.from), 0},
    {7, FIELD_U64, AT(dumped_rows.next), 0},     {8, FIELD_U32, AT(dumped_rows.n_frames), 0},
    {9, FIELD_BOOL, AT(dumped_rows.last), 0},
};
static const field refuse_fields[] = {
    {1, FIELD_U64, AT(refuse.job), 0},          {2, FIELD_U32, AT(refuse.rank), 0},
    {3, FIELD_U64, AT(refuse.request), 0},      {4, FIELD_STATUS, AT(refuse.status), 0},
    {5, FIELD_U64, AT(refuse.view), 0},         {6, FIELD_U64, AT(refuse.clock), 0},
    {7, FIELD_TEXT, AT(refuse.text), 0},        {8, FIELD_U32, AT(refuse.protocol_min), 0},
    {9, FIELD_U32, AT(refuse.protocol_max), 0}, {10, FIELD_U32, AT(refuse.chunk), 0},
};

/* ---- checks: what can be said without state ---- */

static bl_status check_rank(uint32_t rank, bl_error *err) {
  if (rank >= BL_CONTROL_RANKS_MAX)
    return bl_fail(err, BL_EPROTO, "rank %" PRIu32 ", limit %d", rank, BL_CONTROL_RANKS_MAX - 1);
  return BL_OK;
}

/* Ids below the limit; each at least step above the one before. */
static bl_status check_chunks(const uint32_t *chunks, uint32_t n, uint32_t n_min, uint32_t step, bl_error *err) {
  if (n < n_min)
    return bl_fail(err, BL_EPROTO, "names no chunk");
  for (uint32_t i = 0; i < n; i++) {
    if (chunks[i] >= BL_CONTROL_CHUNKS_MAX)
      return bl_fail(err, BL_EPROTO, "chunk %" PRIu32 ", limit %u", chunks[i], BL_CONTROL_CHUNKS_MAX - 1);
    if (i > 0 && chunks[i] < chunks[i - 1] + step)
      return bl_fail(err, BL_EPROTO, "chunk %" PRIu32 " stands behind chunk %" PRIu32, chunks[i], chunks[i - 1]);
  }
  return BL_OK;
}

static bl_status check_hello(const bl_data_msg *d, bl_error *err) {
  const bl_hello *m = &d->hello;
  if (m->protocol_min == 0 || m->protocol_min > m->protocol_max)
    return bl_fail(err, BL_EPROTO, "protocol versions %" PRIu32 " to %" PRIu32 " are no range", m->protocol_min,
                   m->protocol_max);
  return check_rank(m->rank, err);
}

static bl_status check_welcome(const bl_data_msg *d, bl_error *err) {
  const bl_welcome *m = &d->welcome;
  if (m->oldest > m->clock)
    return bl_fail(err, BL_EPROTO, "oldest version %" PRIu64 " is above the clock %" PRIu64, m->oldest, m->clock);
  return check_rank(m->rank, err);
}

static bl_status check_push(const bl_data_msg *d, bl_error *err) {
  bl_status st = check_rank(d->push.rank, err);
  return st != BL_OK ? st : check_chunks(d->push.chunks, d->push.n_chunks, 1, 1, err);
}

static bl_status check_commit(const bl_data_msg *d, bl_error *err) {
  const bl_commit *m = &d->commit;
  if (!(m->scale >= 0.0f && m->scale <= 1.0f)) /* NaN fails too */
    return bl_fail(err, BL_EPROTO, "scale %g is outside 0 to 1", (double)m->scale);
  if (m->n_chunks > BL_CONTROL_CHUNKS_MAX)
    return bl_fail(err, BL_EPROTO, "%" PRIu32 " chunks, limit %u", m->n_chunks, BL_CONTROL_CHUNKS_MAX);
  if (m->n_choices > 1)
    return bl_fail(err, BL_EPROTO, "%" PRIu32 " frames of choices, at most one is allowed", m->n_choices);
  if (m->finished && (m->n_chunks > 0 || m->not_finite))
    return bl_fail(err, BL_EPROTO, "a rank that has finished brings %" PRIu32 " chunks%s", m->n_chunks,
                   m->not_finite ? " and a NaN" : "");
  return check_rank(m->rank, err);
}

static bl_status check_ack(const bl_data_msg *d, bl_error *err) {
  bl_status st = check_rank(d->ack.rank, err);
  return st != BL_OK ? st : check_chunks(d->ack.chunks, d->ack.n_chunks, 0, 1, err);
}

static bl_status check_pull(const bl_data_msg *d, bl_error *err) {
  bl_status st = check_rank(d->pull.rank, err);
  return st != BL_OK ? st : check_chunks(d->pull.chunks, d->pull.n_chunks, 1, 1, err);
}

static bl_status check_frames(const bl_data_msg *d, bl_error *err) {
  const bl_frames *m = &d->frames;
  bl_status st = check_rank(m->rank, err);
  if (st == BL_OK)
    st = check_chunks(m->chunks, m->n_chunks, 0, 0, err);
  for (uint32_t i = 0; st == BL_OK && i < m->n_chunks; i++)
    if (m->from[i] > m->to[i] || m->to[i] > m->version)
      st = bl_fail(err, BL_EPROTO, "frame %" PRIu32 " goes from version %" PRIu64 " to %" PRIu64 " of %" PRIu64, i,
                   m->from[i], m->to[i], m->version);
  return st;
}

static bl_status check_pull_rows(const bl_data_msg *d, bl_error *err) {
  bl_status st = check_rank(d->pull_rows.rank, err);
  return st != BL_OK ? st : check_chunks(d->pull_rows.chunks, d->pull_rows.n_chunks, 0, 1, err);
}

static bl_status check_need_keys(const bl_data_msg *d, bl_error *err) {
  bl_status st = check_rank(d->need_keys.rank, err);
  return st != BL_OK ? st : check_chunks(d->need_keys.chunks, d->need_keys.n_chunks, 1, 1, err);
}

static bl_status check_dump_rows(const bl_data_msg *d, bl_error *err) {
  bl_status st = check_rank(d->dump_rows.rank, err);
  return st != BL_OK ? st : check_chunks(&d->dump_rows.chunk, 1, 1, 1, err);
}

static bl_status check_dumped_rows(const bl_data_msg *d, bl_error *err) {
  const bl_dumped_rows *m = &d->dumped_rows;
  if (m->n_frames > 1 || m->from > m->next || (!m->last && m->from == m->next))
    return bl_fail(err, BL_EPROTO, "%" PRIu32 " frames for the rows from %" PRIu64 " to %" PRIu64, m->n_frames, m->from,
                   m->next);
  bl_status st = check_rank(m->rank, err);
  return st != BL_OK ? st : check_chunks(&m->chunk, 1, 1, 1, err);
}

static bl_status check_ask_norms(const bl_data_msg *d, bl_error *err) { return check_rank(d->ask_norms.rank, err); }

static bl_status check_norms(const bl_data_msg *d, bl_error *err) {
  const bl_norms *m = &d->norms;
  bl_status st = check_rank(m->rank, err);
  if (st == BL_OK)
    st = check_chunks(m->chunks, m->n_chunks, 1, 1, err);
  for (uint32_t i = 0; st == BL_OK && i < m->n_chunks; i++)
    if (m->squares[i] < 0)
      st = bl_fail(err, BL_EPROTO, "the sum of squares of chunk %" PRIu32 " is %g", m->chunks[i], m->squares[i]);
  return st;
}

static bl_status check_refuse(const bl_data_msg *d, bl_error *err) {
  if (d->refuse.status == BL_OK)
    return bl_fail(err, BL_EPROTO, "carries no status");
  return check_rank(d->refuse.rank, err);
}

#define MESSAGE(name, n_frames_at)                                                                           \
  {name##_fields, BL_COUNT_OF(name##_fields), offsetof(bl_data_msg, name) + sizeof(bl_##name), check_##name, \
   n_frames_at}

static const message messages[] = {
    [BL_MSG_HELLO] = MESSAGE(hello, 0),
    [BL_MSG_WELCOME] = MESSAGE(welcome, 0),
    [BL_MSG_PUSH] = MESSAGE(push, AT(push.n_chunks)),
    [BL_MSG_COMMIT] = MESSAGE(commit, AT(commit.n_choices)),
    [BL_MSG_ACK] = MESSAGE(ack, 0),
    [BL_MSG_PULL] = MESSAGE(pull, 0),
    [BL_MSG_FRAMES] = MESSAGE(frames, AT(frames.n_chunks)),
    [BL_MSG_REFUSE] = MESSAGE(refuse, 0),
    [BL_MSG_PULL_ROWS] = MESSAGE(pull_rows, AT(pull_rows.n_chunks)),
    [BL_MSG_NEED_KEYS] = MESSAGE(need_keys, 0),
    [BL_MSG_DUMP_ROWS] = MESSAGE(dump_rows, 0),
    [BL_MSG_DUMPED_ROWS] = MESSAGE(dumped_rows, AT(dumped_rows.n_frames)),
    [BL_MSG_NORMS] = MESSAGE(norms, 0),
    [BL_MSG_ASK_NORMS] = MESSAGE(ask_norms, 0),
};

static const message *message_of(bl_msg_type type) {
  return (unsigned)type < BL_COUNT_OF(messages) && messages[type].fields != NULL ? &messages[type] : NULL;
}

static uint32_t n_frames_expected(const message *m, const bl_data_msg *d) {
  uint32_t n = 0;
  if (m->n_frames_offset != 0)
    memcpy(&n, (const uint8_t *)d + m->n_frames_offset, sizeof n);
  return n;
}

/* ---- writing ---- */

static unsigned varint_bytes(uint64_t v) {
  unsigned n = 1;
  for (; v >= 0x80; v >>= 7)
    n++;
  return n;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v) {
  for (; v >= 0x80; v >>= 7)
    *p++ = (uint8_t)(v | 0x80);
  *p++ = (uint8_t)v;
  return p;
}

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static uint8_t *put_tag(uint8_t *p, const field *f, unsigned wire) {
  return put_varint(p, (uint64_t)f->number << 3 | wire);
}

static uint64_t list_at(const field *f, const void *list, uint32_t i) {
  return f->kind == FIELD_U32_LIST ? ((const uint32_t *)list)[i] : ((const uint64_t *)list)[i];
}

static uint32_t list_count(const field *f, const bl_data_msg *d) {
  uint32_t n;
  memcpy(&n, (const uint8_t *)d + f->count_offset, sizeof n);
  return n;
}

/* Value of a varint field as it stands on the wire. */
static uint64_t scalar_of(const field *f, const void *at) {
  switch (f->kind) {
  case FIELD_U32:
    return *(const uint32_t *)at;
  case FIELD_BOOL:
    return *(const bool *)at;
  case FIELD_STATUS:
    return (uint64_t)(-(int64_t) * (const bl_status *)at);
  default:
    return *(const uint64_t *)at;
  }
}

static uint8_t *put_doubles(uint8_t *p, const field *f, const double *list, uint32_t n) {
  if (n == 0)
    return p;
  p = put_varint(put_tag(p, f, WIRE_BYTES), (uint64_t)n * sizeof *list);
  for (uint32_t i = 0; i < n; i++, p += sizeof *list) {
    uint64_t bits;
    memcpy(&bits, &list[i], sizeof bits);
    bl_le_put64(p, bits);
  }
  return p;
}

static uint8_t *put_field(uint8_t *p, const field *f, const bl_data_msg *d) {
  const void *at = (const uint8_t *)d + f->offset;
  if (f->kind == FIELD_F64_LIST)
    return put_doubles(p, f, at, list_count(f, d));
  if (f->kind == FIELD_U32_LIST || f->kind == FIELD_U64_LIST) {
    uint32_t n = list_count(f, d);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
      bytes += varint_bytes(list_at(f, at, i));
    if (n == 0)
      return p;
    p = put_varint(put_tag(p, f, WIRE_BYTES), bytes);
    for (uint32_t i = 0; i < n; i++)
      p = put_varint(p, list_at(f, at, i));
    return p;
  }
  if (f->kind == FIELD_TEXT) {
    size_t n = strnlen(at, sizeof d->refuse.text - 1);
    if (n == 0)
      return p;
    p = put_varint(put_tag(p, f, WIRE_BYTES), n);
    memcpy(p, at, n);
    return p + n;
  }
  if (f->kind == FIELD_FLOAT) {
    uint32_t bits;
    memcpy(&bits, at, sizeof bits);
    if (bits == 0)
      return p;
    p = put_tag(p, f, WIRE_32);
    bl_le_put32(p, bits);
    return p + sizeof bits;
  }
  uint64_t v = scalar_of(f, at);
  return v == 0 ? p : put_varint(put_tag(p, f, WIRE_VARINT), v); /* proto3 leaves out what is 0 */
}

/* No field takes more than this. */
static size_t field_bytes_max(const field *f, const bl_data_msg *d) {
  size_t head = 2 + VARINT_BYTES_MAX;
  switch (f->kind) {
  case FIELD_U32_LIST:
    return head + (size_t)list_count(f, d) * 5;
  case FIELD_U64_LIST:
  case FIELD_F64_LIST:
    return head + (size_t)list_count(f, d) * VARINT_BYTES_MAX;
  case FIELD_TEXT:
    return head + sizeof d->refuse.text;
  default:
    return head;
  }
}

/* Heads of one size for the whole process: steady pushing and pulling allocates nothing. Never freed. */
static bl_frame_pool *head_pool;
static void head_pool_init(void) { head_pool = bl_frame_pool_new(HEAD_POOL_BYTES, HEAD_POOL_KEEP_MAX); }

static bl_frame *head_take(size_t bytes) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, head_pool_init);
  return bytes <= HEAD_POOL_BYTES && head_pool != NULL ? bl_frame_pool_take(head_pool) : bl_frame_new(bytes);
}

bl_status bl_data_pack(const bl_data_msg *d, uint32_t n_frames, bl_msg *msg) {
  const message *m = message_of(d->type);
  BL_ASSERT(m != NULL && msg->head == NULL);
  size_t bytes = BL_MSG_PREAMBLE_BYTES;
  for (size_t i = 0; i < m->n_fields; i++) {
    if (m->fields[i].count_offset != 0)
      BL_ASSERT(list_count(&m->fields[i], d) <= BL_MSG_FRAMES_MAX);
    bytes += field_bytes_max(&m->fields[i], d);
  }
  BL_ASSERT(n_frames == n_frames_expected(m, d));
  bl_frame *head = head_take(bytes);
  if (head == NULL)
    return BL_ENOMEM;
  uint8_t *p = head->data;
  bl_msg_put_preamble(p, d->type, n_frames);
  p += BL_MSG_PREAMBLE_BYTES;
  for (size_t i = 0; i < m->n_fields; i++)
    p = put_field(p, &m->fields[i], d);
  head->size = (size_t)(p - head->data);
  msg->head = head;
  return BL_OK;
}

/* ---- reading ---- */

typedef struct reader {
  const uint8_t *at, *end;
} reader;

/* False: cut off, or longer than 64 bits. */
static bool get_varint(reader *r, uint64_t *ret_v) {
  uint64_t v = 0;
  for (unsigned shift = 0; shift < 64 && r->at < r->end; shift += 7) {
    uint8_t byte = *r->at++;
    if (shift == 63 && byte > 1)
      return false;
    v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) {
      *ret_v = v;
      return true;
    }
  }
  return false;
}

static bool get_bytes(reader *r, uint64_t n, reader *ret_part) {
  if (n > (uint64_t)(r->end - r->at))
    return false;
  *ret_part = (reader){r->at, r->at + n};
  r->at += n;
  return true;
}

static bl_status store_scalar(const field *f, uint64_t v, void *at, bl_error *err) {
  switch (f->kind) {
  case FIELD_U32:
    if (v > UINT32_MAX)
      return bl_fail(err, BL_EPROTO, "field %u is %" PRIu64 ", limit 4294967295", f->number, v);
    *(uint32_t *)at = (uint32_t)v;
    return BL_OK;
  case FIELD_BOOL:
    *(bool *)at = v != 0;
    return BL_OK;
  case FIELD_STATUS:
    if (v > (uint64_t)-BL_STATUS_LAST)
      return bl_fail(err, BL_EPROTO, "unknown status %" PRIu64, v);
    *(bl_status *)at = (bl_status)(-(int)v);
    return BL_OK;
  default:
    *(uint64_t *)at = v;
    return BL_OK;
  }
}

static bl_status store_list_item(const field *f, uint64_t v, void *list, uint32_t *n, bl_error *err) {
  if (*n >= BL_MSG_FRAMES_MAX)
    return bl_fail(err, BL_EPROTO, "field %u has more than %d entries", f->number, BL_MSG_FRAMES_MAX);
  if (f->kind == FIELD_U32_LIST && v > UINT32_MAX)
    return bl_fail(err, BL_EPROTO, "field %u holds %" PRIu64 ", limit 4294967295", f->number, v);
  if (f->kind == FIELD_U32_LIST)
    ((uint32_t *)list)[(*n)++] = (uint32_t)v;
  else
    ((uint64_t *)list)[(*n)++] = v;
  return BL_OK;
}

static bl_status store_text(const field *f, reader part, char *at, size_t size, bl_error *err) {
  size_t n = (size_t)(part.end - part.at);
  if (n >= size)
    return bl_fail(err, BL_EPROTO, "text of %zu bytes, limit %zu", n, size - 1);
  for (size_t i = 0; i < n; i++)
    at[i] = part.at[i] >= 0x20 && part.at[i] < 0x7f ? (char)part.at[i] : '?';
  memset(at + n, 0, size - n); /* a longer text may have stood there: the last one of a field counts */
  return BL_OK;
}

/* A value in its wire form. */
typedef struct value {
  unsigned wire;
  uint64_t v;  /* varint, 32 and 64 bits */
  reader part; /* bytes */
} value;

static bool get_value(reader *r, unsigned wire, value *ret_value) {
  value x = {.wire = wire};
  reader fixed;
  switch (wire) {
  case WIRE_VARINT:
    if (!get_varint(r, &x.v))
      return false;
    break;
  case WIRE_64:
    if (!get_bytes(r, 8, &fixed))
      return false;
    x.v = bl_le_get64(fixed.at);
    break;
  case WIRE_32:
    if (!get_bytes(r, 4, &fixed))
      return false;
    x.v = bl_le_get32(fixed.at);
    break;
  case WIRE_BYTES:
    if (!get_varint(r, &x.v) || !get_bytes(r, x.v, &x.part))
      return false;
    break;
  default: /* groups */
    return false;
  }
  *ret_value = x;
  return true;
}

/* Packed: 8 bytes each. */
static bl_status store_doubles(const field *f, const value *x, double *list, uint32_t *n, bl_error *err) {
  size_t bytes = (size_t)(x->part.end - x->part.at);
  if (bytes % sizeof *list != 0 || bytes / sizeof *list > BL_MSG_FRAMES_MAX - *n)
    return bl_fail(err, BL_EPROTO, "field %u has %zu bytes, allowed are up to %d numbers of 8", f->number, bytes,
                   BL_MSG_FRAMES_MAX);
  for (const uint8_t *at = x->part.at; at < x->part.end; at += sizeof *list) {
    uint64_t bits = bl_le_get64(at);
    memcpy(&list[(*n)++], &bits, sizeof bits);
  }
  return BL_OK;
}

static bl_status store_list(const field *f, const value *x, void *list, uint32_t *n, bl_error *err) {
  if (x->wire == WIRE_VARINT) /* unpacked: the other form that a reader must accept */
    return store_list_item(f, x->v, list, n, err);
  bl_status st = BL_OK;
  for (reader r = x->part; st == BL_OK && r.at < r.end;) {
    uint64_t v;
    if (!get_varint(&r, &v))
      return bl_fail(err, BL_EPROTO, "field %u is cut off", f->number);
    st = store_list_item(f, v, list, n, err);
  }
  return st;
}

static bl_status store_field(const field *f, const value *x, bl_data_msg *d, uint32_t *n, bl_error *err) {
  static const uint8_t wire_of_kind[] = {
      [FIELD_U32] = WIRE_VARINT,     [FIELD_U64] = WIRE_VARINT, [FIELD_BOOL] = WIRE_VARINT,
      [FIELD_STATUS] = WIRE_VARINT,  [FIELD_FLOAT] = WIRE_32,   [FIELD_TEXT] = WIRE_BYTES,
      [FIELD_U32_LIST] = WIRE_BYTES, [FIELD_U64_LIST] = WIRE_BYTES, [FIELD_F64_LIST] = WIRE_BYTES,
  };
  bool is_list = f->kind == FIELD_U32_LIST || f->kind == FIELD_U64_LIST;
  if (x->wire != wire_of_kind[f->kind] && !(is_list && x->wire == WIRE_VARINT))
    return bl_fail(err, BL_EPROTO, "field %u has wire type %u, expected %u", f->number, x->wire,
                   wire_of_kind[f->kind]);
  void *at = (uint8_t *)d + f->offset;
  if (f->kind == FIELD_F64_LIST)
    return store_doubles(f, x, at, n, err);
  if (is_list)
    return store_list(f, x, at, n, err);
  if (f->kind == FIELD_TEXT)
    return store_text(f, x->part, at, sizeof d->refuse.text, err);
  if (f->kind == FIELD_FLOAT) {
    uint32_t bits = (uint32_t)x->v;
    memcpy(at, &bits, sizeof bits);
    return BL_OK;
  }
  return store_scalar(f, x->v, at, err);
}

static const field *field_of(const message *m, uint64_t number) {
  for (size_t i = 0; i < m->n_fields; i++)
    if (m->fields[i].number == number)
      return &m->fields[i];
  return NULL;
}

static bl_status read_fields(const message *m, reader r, bl_data_msg *d, bl_error *err) {
  uint32_t counts[FIELDS_MAX] = {0}; /* per field: lists of one message must agree in length */
  while (r.at < r.end) {
    uint64_t tag;
    value x;
    if (!get_varint(&r, &tag) || tag >> 3 == 0 || !get_value(&r, (unsigned)(tag & 7), &x))
      return bl_fail(err, BL_EPROTO, "header is cut off or no Protocol Buffers message");
    const field *f = field_of(m, tag >> 3);
    if (f == NULL)
      continue;
    bl_status st = store_field(f, &x, d, &counts[f - m->fields], err);
    if (st != BL_OK)
      return st;
  }
  const field *first = NULL;
  for (size_t i = 0; i < m->n_fields; i++) {
    const field *f = &m->fields[i];
    if (f->count_offset == 0)
      continue;
    if (first != NULL && counts[i] != counts[first - m->fields])
      return bl_fail(err, BL_EPROTO, "field %u has %" PRIu32 " entries, field %u has %" PRIu32, f->number, counts[i],
                     first->number, counts[first - m->fields]);
    first = f;
    memcpy((uint8_t *)d + f->count_offset, &counts[i], sizeof counts[i]);
  }
  return BL_OK;
}

bl_status bl_data_unpack(const bl_msg *msg, bl_data_msg *d, bl_error *err) {
  bl_msg_type type;
  bl_status st = bl_msg_check(msg, &type, err);
  if (st != BL_OK)
    return st;
  const message *m = message_of(type);
  if (m == NULL)
    return bl_fail(err, BL_EPROTO, "%s is no message of the data plane", bl_msg_type_name(type));
  memset(d, 0, m->end);
  d->type = type;
  reader r = {msg->head->data + BL_MSG_PREAMBLE_BYTES, msg->head->data + msg->head->size};
  st = read_fields(m, r, d, err);
  if (st == BL_OK)
    st = m->check(d, err);
  if (st == BL_OK && msg->n_frames != n_frames_expected(m, d))
    st = bl_fail(err, BL_EPROTO, "%" PRIu32 " frames for %" PRIu32 " chunks", msg->n_frames, n_frames_expected(m, d));
  return st == BL_OK ? BL_OK : bl_fail_prefix(err, st, "%s", bl_msg_type_name(type));
}
