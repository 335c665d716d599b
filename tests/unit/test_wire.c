/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames, the message preamble, data-plane headers against protobuf-c's own reading of data.proto, control
 * messages and their limits, and both under truncation and bit flips.
 */
#include "base/alloc.h"
#include "base/file.h"
#include "base/le.h"
#include "base/log.h"
#include "codec/codec.h"
#include "proto/data.pb-c.h"
#include "tests/support/frames.h"
#include "tests/support/support.h"
#include "wire/control.h"
#include "wire/data.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Generated structs hold char *, the samples literals. */
#ifdef __clang__
#pragma GCC diagnostic ignored "-Wincompatible-pointer-types-discards-qualifiers"
#else
#pragma GCC diagnostic ignored "-Wdiscarded-qualifiers"
#endif

/* ---- frames ---- */

START_TEST(pool_gives_the_same_memory_again) {
  bl_frame_pool *p = bl_frame_pool_new(4096, 2);
  bl_frame *f = bl_frame_pool_take(p);
  ck_assert_uint_eq(f->size, 4096);
  f->size = 10;
  bl_frame_unref(f);
  uint64_t calls = bl_alloc_get_stats().total_calls;
  bl_frame *g = bl_frame_pool_take(p);
  ck_assert_ptr_eq(f, g);
  ck_assert_uint_eq(g->size, 4096);
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls, calls);
  bl_frame_unref(g);
  bl_frame_pool_free(p);
}
END_TEST

START_TEST(pool_outlives_its_owner_until_the_last_frame_is_back) {
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_frame_pool *p = bl_frame_pool_new(64, 8);
  bl_frame *a = bl_frame_pool_take(p), *b = bl_frame_pool_take(p);
  bl_frame_unref(a);
  bl_frame_pool_free(p);
  memset(b->data, 7, 64);
  bl_frame_ref(b);
  bl_frame_unref(b);
  bl_frame_unref(b);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
}
END_TEST

typedef struct hand_over {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bl_frame *slot;
  bool done;
} hand_over;

static void *give_back_thread(void *arg) {
  hand_over *h = arg;
  pthread_mutex_lock(&h->lock);
  while (!h->done || h->slot != NULL) {
    if (h->slot != NULL) {
      bl_frame_unref(h->slot);
      h->slot = NULL;
      pthread_cond_signal(&h->changed);
    } else
      pthread_cond_wait(&h->changed, &h->lock);
  }
  pthread_mutex_unlock(&h->lock);
  return NULL;
}

START_TEST(frames_come_back_from_another_thread) {
  hand_over h = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, false};
  bl_frame_pool *p = bl_frame_pool_new(256, 16);
  pthread_t t;
  ck_assert_int_eq(pthread_create(&t, NULL, give_back_thread, &h), 0);
  for (int i = 0; i < 10000; i++) {
    bl_frame *f = bl_frame_pool_take(p);
    f->data[0] = (uint8_t)i;
    pthread_mutex_lock(&h.lock);
    while (h.slot != NULL)
      pthread_cond_wait(&h.changed, &h.lock);
    h.slot = f;
    pthread_cond_signal(&h.changed);
    pthread_mutex_unlock(&h.lock);
  }
  pthread_mutex_lock(&h.lock);
  h.done = true;
  pthread_cond_signal(&h.changed);
  pthread_mutex_unlock(&h.lock);
  pthread_join(t, NULL);
  bl_frame_pool_free(p);
}
END_TEST

/* ---- preamble ---- */

static bl_msg msg_of(const void *bytes, size_t n) {
  bl_msg m = BL_MSG_INIT;
  m.head = bl_frame_copy(bytes, n);
  return m;
}

static const struct {
  const char *what;
  uint8_t bytes[8];
  size_t n;
  const char *text;
} bad_preambles[] = {
    {"empty", {0}, 0, "shorter than its preamble"},
    {"seven bytes", {'B', 'L', 1, 0, 5, 0, 0}, 7, "shorter than its preamble"},
    {"magic", {'P', 'S', 1, 0, 5, 0, 0, 0}, 8, "50 53"},
    {"version 0", {'B', 'L', 0, 0, 5, 0, 0, 0}, 8, "version 0"},
    {"version 9", {'B', 'L', 9, 0, 5, 0, 0, 0}, 8, "version 9, this program speaks 1 to 2"},
    {"reserved", {'B', 'L', 1, 1, 5, 0, 0, 0}, 8, "reserved"},
    {"type 0", {'B', 'L', 1, 0, 0, 0, 0, 0}, 8, "type 0"},
    {"type in a gap", {'B', 'L', 1, 0, 31, 0, 0, 0}, 8, "type 31"},
    {"type above all", {'B', 'L', 1, 0, 255, 255, 0, 0}, 8, "type 65535"},
    {"frames that do not follow", {'B', 'L', 1, 0, 5, 0, 1, 0}, 8, "announces 1 frames, 0 follow"},
    {"too many frames", {'B', 'L', 1, 0, 5, 0, 255, 255}, 8, "announces 65535"},
};

START_TEST(preamble_that_is_wrong_is_refused_with_a_reason) {
  bl_msg m = msg_of(bad_preambles[_i].bytes, bad_preambles[_i].n);
  bl_msg_type type;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_msg_check(&m, &type, &err), BL_EPROTO);
  ck_assert_msg(strstr(err.text, bad_preambles[_i].text) != NULL, "%s: %s", bad_preambles[_i].what, err.text);
  bl_msg_fini(&m);
}
END_TEST

/* So that a peer of any version can say which ones it speaks. */
START_TEST(messages_by_which_versions_meet_have_version_1_for_ever) {
  static const bl_msg_type types[] = {BL_MSG_HELLO,  BL_MSG_REFUSE, BL_MSG_REGISTER, BL_MSG_REJECTED,
                                      BL_MSG_SUBMIT, BL_MSG_CANCEL, BL_MSG_QUERY,    BL_MSG_ANSWER};
  bl_error err = BL_ERROR_INIT;
  uint8_t bytes[BL_MSG_PREAMBLE_BYTES];
  bl_msg_type type;
  bl_msg_put_preamble(bytes, types[_i], 0);
  ck_assert_uint_eq(bytes[2], 1);
  bl_msg m = msg_of(bytes, sizeof bytes);
  ck_assert_ok(bl_msg_check(&m, &type, &err));
  m.head->data[2] = 2;
  ck_assert_status(bl_msg_check(&m, &type, &err), BL_EPROTO);
  ck_assert_ptr_nonnull(strstr(err.text, "spoken in version 1 for ever"));
  bl_msg_fini(&m);
}
END_TEST

START_TEST(frame_above_its_limit_is_refused) {
  bl_msg m = msg_of("BL\1\0\3\0\1\0", 8);
  bl_frame *f = bl_frame_new(BL_MSG_FRAME_BYTES_MAX + 1);
  ck_assert_ok(bl_msg_add_frame(&m, f));
  bl_msg_type type;
  ck_assert_status(bl_msg_check(&m, &type, NULL), BL_EPROTO);
  f->size--;
  ck_assert_ok(bl_msg_check(&m, &type, NULL));
  ck_assert_int_eq(type, BL_MSG_PUSH);
  ck_assert_uint_eq(bl_msg_bytes(&m), 8 + BL_MSG_FRAME_BYTES_MAX);
  bl_msg to = BL_MSG_INIT;
  bl_msg_move(&to, &m);
  ck_assert_ptr_null(m.head);
  bl_msg_fini(&m);
  bl_msg_fini(&to);
}
END_TEST

START_TEST(message_holds_no_more_frames_than_its_limit) {
  bl_msg m = BL_MSG_INIT;
  bl_frame *f = bl_frame_new(1);
  for (int i = 0; i < BL_MSG_FRAMES_MAX; i++)
    ck_assert_ok(bl_msg_add_frame(&m, bl_frame_ref(f)));
  ck_assert_status(bl_msg_add_frame(&m, f), BL_ELIMIT);
  bl_msg_fini(&m);
  ck_assert_uint_eq(atomic_load(&f->refs), 1);
  bl_frame_unref(f);
}
END_TEST

/* ---- data plane ---- */

/* The next line's bytes from an example in doc/protocol.md (what stands before the ';'). Returns the line behind, NULL
 * at the end of the block. */
static const char *example_line(const char *at, uint8_t *out, size_t *n) {
  const char *end = strchr(at, '\n');
  ck_assert_ptr_nonnull(end);
  if (strncmp(at, "```", 3) == 0)
    return NULL;
  for (; at < end && *at != ';'; at++) {
    unsigned byte;
    if (*at == ' ' || *at == '-')
      continue;
    ck_assert_int_eq(sscanf(at, "%2x", &byte), 1);
    out[(*n)++] = (uint8_t)byte;
    at++;
  }
  return end + 1;
}

static void assert_is_the_example(const char *name, const bl_msg *m) {
  uint8_t want[512], got[512];
  size_t n_want = 0, n_got = 0;
  bl_buf text = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  char fence[40];
  snprintf(fence, sizeof fence, "\n```hex %s\n", name);
  ck_assert_ok_err(bl_file_read(test_source_path("doc/protocol.md"), 1 << 20, &text, &err), err);
  const char *at = strstr(bl_buf_str(&text), fence);
  ck_assert_msg(at != NULL, "no example '%s'", name);
  for (at += strlen(fence); at != NULL;)
    at = example_line(at, want, &n_want);
  bl_buf_fini(&text);
  for (uint32_t i = 0; i <= m->n_frames; i++) {
    const bl_frame *part = i == 0 ? m->head : m->frames[i - 1];
    memcpy(got + n_got, part->data, part->size);
    n_got += part->size;
  }
  char hex[3 * sizeof got + 1] = "";
  for (size_t i = 0; i < n_got; i++)
    snprintf(hex + 3 * i, 4, "%02x ", got[i]);
  ck_assert_msg(n_want == n_got && memcmp(want, got, n_got) == 0, "'%s' in doc/protocol.md is not what is sent: %s", name,
                hex);
}

START_TEST(examples_in_the_documentation_are_what_is_sent) {
  static bl_data_msg d;
  bl_msg m = BL_MSG_INIT;
  const float x[] = {1, -2};
  d = (bl_data_msg){.type = BL_MSG_PUSH};
  d.push = (bl_push){.job = 7, .view = 2, .rank = 1, .incarnation = 1, .clock = 3, .request = 9, .answer = true,
                     .n_chunks = 1, .chunks = {4}};
  bl_frame *f = test_frame("float16", x, 2, 0);
  ck_assert_ok(bl_msg_add_frame(&m, f));
  ck_assert_ok(bl_data_pack(&d, 1, &m));
  assert_is_the_example("push", &m);
  bl_msg_fini(&m);
  d = (bl_data_msg){.type = BL_MSG_HELLO};
  d.hello = (bl_hello){.protocol_min = 2, .protocol_max = 2, .job = 7, .rank = 1, .incarnation = 1, .view = 2};
  ck_assert_ok(bl_data_pack(&d, 0, &m));
  assert_is_the_example("hello", &m);
  bl_msg_fini(&m);
  d = (bl_data_msg){.type = BL_MSG_REFUSE};
  d.refuse = (bl_refuse){.job = 7, .rank = 1, .status = BL_EPROTO, .text = "no", .protocol_min = 1, .protocol_max = 1};
  ck_assert_ok(bl_data_pack(&d, 0, &m));
  assert_is_the_example("refuse", &m);
  bl_msg_fini(&m);
}
END_TEST

/* Samples with every field set and lists of a few entries; big: all at their limits. */
static void data_sample(bl_msg_type type, bool big, bl_data_msg *d) {
  memset(d, 0, sizeof *d);
  d->type = type;
  uint32_t n = big ? BL_MSG_FRAMES_MAX : 3, rank = big ? BL_CONTROL_RANKS_MAX - 1 : 3;
  uint64_t huge = big ? UINT64_MAX : 300;
  uint32_t chunks[BL_MSG_FRAMES_MAX];
  for (uint32_t i = 0; i < n; i++)
    chunks[i] = big ? BL_CONTROL_CHUNKS_MAX - n + i : i * 100;
  switch (type) {
  case BL_MSG_HELLO:
    d->hello = (bl_hello){1, 2, huge, rank, 7, huge};
    break;
  case BL_MSG_WELCOME:
    d->welcome = (bl_welcome){1, huge, rank, huge, huge, huge - 1, huge, 9};
    break;
  case BL_MSG_PUSH:
    d->push = (bl_push){.job = huge, .view = 2, .rank = rank, .incarnation = 4, .clock = huge, .request = 9,
                        .answer = true, .n_chunks = n};
    memcpy(d->push.chunks, chunks, n * sizeof *chunks);
    break;
  case BL_MSG_COMMIT:
    d->commit = (bl_commit){huge, 2, rank, 4, 5, 6, 0.75f, true, huge, n, false, true};
    if (big) { /* the end of a free running rank */
      d->commit.finished = true;
      d->commit.not_finite = false;
      d->commit.n_chunks = 0;
    }
    break;
  case BL_MSG_ACK:
    d->ack = (bl_ack){.job = huge, .rank = rank, .clock = 3, .request = 4, .commit = true,
                      .applied_incarnation = UINT32_MAX, .n_chunks = n};
    memcpy(d->ack.chunks, chunks, n * sizeof *chunks);
    break;
  case BL_MSG_PULL:
    d->pull = (bl_pull){.job = huge, .view = 2, .rank = rank, .incarnation = 4, .have = 5, .want = huge,
                        .request = 7, .have_nothing = true, .average = true, .n_chunks = n};
    memcpy(d->pull.chunks, chunks, n * sizeof *chunks);
    break;
  case BL_MSG_FRAMES:
    d->frames = (bl_frames){.job = huge, .rank = rank, .version = huge, .request = 7, .n_chunks = n, .gate = big ? huge : 0, .slowest = big ? huge : 0};
    memcpy(d->frames.chunks, chunks, n * sizeof *chunks);
    d->frames.chunks[1] = d->frames.chunks[0]; /* a chunk may come twice */
    for (uint32_t i = 0; i < n; i++) {
      d->frames.from[i] = i == 0 ? 0 : huge - 1;
      d->frames.to[i] = huge;
    }
    break;
  case BL_MSG_PULL_ROWS:
    d->pull_rows = (bl_pull_rows){.job = huge, .view = 2, .rank = rank, .incarnation = 4, .want = huge, .request = 7,
                                  .n_chunks = n};
    memcpy(d->pull_rows.chunks, chunks, n * sizeof *chunks);
    break;
  case BL_MSG_NEED_KEYS:
    d->need_keys = (bl_need_keys){.job = huge, .rank = rank, .request = 7, .push = true, .n_chunks = n};
    memcpy(d->need_keys.chunks, chunks, n * sizeof *chunks);
    break;
  case BL_MSG_DUMP_ROWS:
    d->dump_rows = (bl_dump_rows){huge, 2, rank, 4, huge, 7, chunks[n - 1], huge};
    break;
  case BL_MSG_DUMPED_ROWS:
    d->dumped_rows = (bl_dumped_rows){huge, rank, huge, 7, chunks[n - 1], 5, huge, big, true};
    break;
  case BL_MSG_ASK_NORMS:
    d->ask_norms = (bl_ask_norms){huge, 2, rank, 4, huge, 6, 7};
    break;
  case BL_MSG_NORMS:
    d->norms = (bl_norms){.job = huge, .rank = rank, .clock = huge, .request = 7, .n_chunks = n};
    memcpy(d->norms.chunks, chunks, n * sizeof *chunks);
    for (uint32_t i = 0; i < n; i++)
      d->norms.squares[i] = i == 0 ? 0 : i == 1 ? 0x1.fffffffffffffp+1023 : 1.0 / i;
    break;
  default:
    d->refuse = (bl_refuse){.job = huge, .rank = rank, .request = 3, .status = BL_EVIEW, .view = 9, .clock = 8,
                            .protocol_min = 1, .protocol_max = 4};
    memset(d->refuse.text, 'x', big ? 255 : 20);
  }
}

static uint32_t data_frames(const bl_data_msg *d) {
  switch (d->type) {
  case BL_MSG_PUSH:
    return d->push.n_chunks;
  case BL_MSG_FRAMES:
    return d->frames.n_chunks;
  case BL_MSG_PULL_ROWS:
    return d->pull_rows.n_chunks;
  case BL_MSG_DUMPED_ROWS:
    return d->dumped_rows.n_frames;
  default:
    return 0;
  }
}

static bl_msg data_packed(const bl_data_msg *d) {
  bl_msg m = BL_MSG_INIT;
  ck_assert_ok(bl_data_pack(d, data_frames(d), &m));
  for (uint32_t i = 0; i < data_frames(d); i++)
    ck_assert_ok(bl_msg_add_frame(&m, bl_frame_copy("frame", 5)));
  return m;
}

START_TEST(data_messages_come_back_as_they_were) {
  for (int big = 0; big <= 1; big++) {
    bl_data_msg in, out;
    data_sample((bl_msg_type)_i, big, &in);
    bl_msg m = data_packed(&in);
    bl_error err = BL_ERROR_INIT;
    memset(&out, 0, sizeof out);
    ck_assert_ok_err(bl_data_unpack(&m, &out, &err), err);
    /* Lists are compared up to their count: both structs were zeroed. */
    ck_assert_mem_eq(&in, &out, sizeof in);
    bl_msg_fini(&m);
  }
}
END_TEST

/* What protobuf-c reads from our bytes and packs again must be our bytes. */
START_TEST(data_messages_are_those_of_the_schema) {
  static const ProtobufCMessageDescriptor *const descriptors[] = {
      [BL_MSG_HELLO] = &ballast__data__hello__descriptor,   [BL_MSG_WELCOME] = &ballast__data__welcome__descriptor,
      [BL_MSG_PUSH] = &ballast__data__push__descriptor,     [BL_MSG_COMMIT] = &ballast__data__commit__descriptor,
      [BL_MSG_ACK] = &ballast__data__ack__descriptor,       [BL_MSG_PULL] = &ballast__data__pull__descriptor,
      [BL_MSG_FRAMES] = &ballast__data__frames__descriptor, [BL_MSG_REFUSE] = &ballast__data__refuse__descriptor,
      [BL_MSG_PULL_ROWS] = &ballast__data__pull_rows__descriptor,
      [BL_MSG_NEED_KEYS] = &ballast__data__need_keys__descriptor,
      [BL_MSG_DUMP_ROWS] = &ballast__data__dump_rows__descriptor,
      [BL_MSG_DUMPED_ROWS] = &ballast__data__dumped_rows__descriptor,
      [BL_MSG_NORMS] = &ballast__data__norms__descriptor,   [BL_MSG_ASK_NORMS] = &ballast__data__ask_norms__descriptor,
  };
  for (int big = 0; big <= 1; big++) {
    bl_data_msg in;
    data_sample((bl_msg_type)_i, big, &in);
    bl_msg m = data_packed(&in);
    const uint8_t *bytes = m.head->data + 8;
    size_t n = m.head->size - 8;
    ProtobufCMessage *pb = protobuf_c_message_unpack(descriptors[_i], NULL, n, bytes);
    ck_assert_ptr_nonnull(pb);
    ck_assert_uint_eq(pb->n_unknown_fields, 0);
    ck_assert_uint_eq(protobuf_c_message_get_packed_size(pb), n);
    uint8_t *again = malloc(n);
    protobuf_c_message_pack(pb, again);
    ck_assert_mem_eq(again, bytes, n);
    free(again);
    protobuf_c_message_free_unpacked(pb, NULL);
    bl_msg_fini(&m);
  }
}
END_TEST

START_TEST(values_stand_in_the_fields_that_the_schema_names) {
  bl_data_msg in;
  data_sample(BL_MSG_COMMIT, false, &in);
  bl_msg m = data_packed(&in);
  Ballast__Data__Commit *c = ballast__data__commit__unpack(NULL, m.head->size - 8, m.head->data + 8);
  ck_assert_uint_eq(c->job, 300);
  ck_assert_uint_eq(c->rank, 3);
  ck_assert_uint_eq(c->incarnation, 4);
  ck_assert_float_eq(c->scale, 0.75f);
  ck_assert(c->not_finite);
  ck_assert_uint_eq(c->n_samples, 300);
  ck_assert_uint_eq(c->n_chunks, 3);
  ballast__data__commit__free_unpacked(c, NULL);
  bl_msg_fini(&m);
}
END_TEST

/* Whatever the bytes: refused, or within the limits that the header promises. */
static void unpack_hostile(const uint8_t *bytes, size_t n, uint32_t n_frames) {
  bl_msg m = msg_of(bytes, n);
  for (uint32_t i = 0; i < n_frames; i++)
    ck_assert_ok(bl_msg_add_frame(&m, bl_frame_copy("", 0)));
  static bl_data_msg d;
  bl_error err = BL_ERROR_INIT;
  bl_status st = bl_data_unpack(&m, &d, &err);
  if (st != BL_OK) {
    ck_assert(st == BL_EPROTO && err.status == st && err.text[0] != '\0');
  } else if (d.type == BL_MSG_PUSH || d.type == BL_MSG_FRAMES || d.type == BL_MSG_PULL_ROWS ||
             d.type == BL_MSG_DUMPED_ROWS) {
    ck_assert_uint_eq(data_frames(&d), n_frames);
  } else if (d.type == BL_MSG_COMMIT) {
    ck_assert(d.commit.scale >= 0 && d.commit.scale <= 1);
  } else if (d.type == BL_MSG_REFUSE) {
    ck_assert_uint_lt(strlen(d.refuse.text), sizeof d.refuse.text);
  }
  bl_msg_fini(&m);
}

START_TEST(damaged_data_messages_are_refused_or_within_limits) {
  bl_data_msg in;
  data_sample((bl_msg_type)_i, false, &in);
  bl_msg m = data_packed(&in);
  uint8_t bytes[512];
  size_t n = m.head->size;
  ck_assert_uint_le(n, sizeof bytes);
  for (size_t cut = 0; cut < n; cut++)
    unpack_hostile(m.head->data, cut, m.n_frames);
  for (size_t bit = 0; bit < n * 8; bit++) {
    memcpy(bytes, m.head->data, n);
    bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    unpack_hostile(bytes, n, m.n_frames);
  }
  bl_msg_fini(&m);
}
END_TEST

#define PUSH_HEAD 'B', 'L', 1, 0, BL_MSG_PUSH, 0, 1, 0
#define COMMIT_HEAD 'B', 'L', 1, 0, BL_MSG_COMMIT, 0, 0, 0
#define FRAMES_HEAD 'B', 'L', 1, 0, BL_MSG_FRAMES, 0, 1, 0
#define DUMPED_HEAD 'B', 'L', 2, 0, BL_MSG_DUMPED_ROWS, 0, 0, 0
static const struct {
  const char *text;
  uint8_t bytes[32];
  size_t n;
} hostile_data[] = {
    {"names no chunk", {PUSH_HEAD}, 8},
    {"frames for 2 chunks", {PUSH_HEAD, 0x3a, 2, 1, 2}, 12},
    {"chunk 1 stands behind chunk 1", {PUSH_HEAD, 0x3a, 2, 1, 1}, 12},
    {"chunk 1 stands behind chunk 2", {PUSH_HEAD, 0x38, 2, 0x38, 1}, 12},
    {"limit 1048575", {PUSH_HEAD, 0x3a, 3, 0x80, 0x80, 0x40}, 13},
    {"is cut off", {PUSH_HEAD, 0x3a, 1, 0x80}, 11},
    {"is cut off", {PUSH_HEAD, 0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 19},
    {"is cut off", {PUSH_HEAD, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}, 19},
    {"rank 4096", {PUSH_HEAD, 0x18, 0x80, 0x20, 0x3a, 1, 1}, 14},
    {"field 3", {PUSH_HEAD, 0x18, 0xff, 0xff, 0xff, 0xff, 0x7f}, 14},
    {"wire type 5", {PUSH_HEAD, 0x0d, 1, 2, 3, 4}, 13},
    {"is cut off", {PUSH_HEAD, 0x0b, 0x0c}, 10},   /* groups */
    {"is cut off", {PUSH_HEAD, 0x00, 0x01}, 10},   /* field 0 */
    {"scale 2", {COMMIT_HEAD, 0x3d, 0, 0, 0, 0x40}, 13},
    {"scale -", {COMMIT_HEAD, 0x3d, 0, 0, 0x80, 0xbf}, 13},
    {"scale", {COMMIT_HEAD, 0x3d, 0, 0, 0xc0, 0x7f}, 13},
    {"limit 1048576", {COMMIT_HEAD, 0x50, 0xff, 0xff, 0xff, 0xff, 0xf}, 14},
    {"finished brings 3 chunks", {COMMIT_HEAD, 0x50, 3, 0x58, 1}, 12},
    {"and a NaN", {COMMIT_HEAD, 0x40, 1, 0x58, 1}, 12},
    {"2 frames for the rows", {DUMPED_HEAD, 0x28, 1, 0x40, 2, 0x48, 1}, 14},
    {"from 5 to 4", {DUMPED_HEAD, 0x30, 5, 0x38, 4, 0x48, 1}, 14},
    {"from 5 to 5", {DUMPED_HEAD, 0x30, 5, 0x38, 5}, 12},
    {"limit 1048575", {DUMPED_HEAD, 0x28, 0x80, 0x80, 0x40, 0x48, 1}, 14},
    {"entries", {FRAMES_HEAD, 0x2a, 1, 1}, 11},
    {"from version 5 to 4", {FRAMES_HEAD, 0x18, 9, 0x2a, 1, 1, 0x32, 1, 5, 0x3a, 1, 4}, 19},
    {"to 9 of 8", {FRAMES_HEAD, 0x18, 8, 0x2a, 1, 1, 0x32, 1, 5, 0x3a, 1, 9}, 19},
    {"5 bytes", {'B', 'L', 2, 0, BL_MSG_NORMS, 0, 0, 0, 0x32, 5, 1, 2, 3, 4, 5}, 15},
    {"entries", {'B', 'L', 2, 0, BL_MSG_NORMS, 0, 0, 0, 0x2a, 1, 1}, 11},
    {"names no chunk", {'B', 'L', 2, 0, BL_MSG_NORMS, 0, 0, 0}, 8},
    {"wire type 0", {'B', 'L', 2, 0, BL_MSG_NORMS, 0, 0, 0, 0x30, 1}, 10},
    {"squares of chunk 1 is -2", {'B', 'L', 2, 0, BL_MSG_NORMS, 0, 0, 0, 0x2a, 1, 1, 0x32, 8, 0, 0, 0, 0, 0, 0, 0, 0xc0}, 21},
    {"no range", {'B', 'L', 1, 0, BL_MSG_HELLO, 0, 0, 0, 8, 2, 16, 1}, 12},
    {"above the clock", {'B', 'L', 1, 0, BL_MSG_WELCOME, 0, 0, 0, 0x28, 1, 0x30, 2}, 12},
    {"carries no status", {'B', 'L', 1, 0, BL_MSG_REFUSE, 0, 0, 0}, 8},
    {"unknown status 99", {'B', 'L', 1, 0, BL_MSG_REFUSE, 0, 0, 0, 0x20, 99}, 10},
    {"no message of the data plane", {'B', 'L', 1, 0, BL_MSG_CANCEL, 0, 0, 0}, 8},
};

START_TEST(hostile_data_messages_are_refused_with_a_reason) {
  bl_msg m = msg_of(hostile_data[_i].bytes, hostile_data[_i].n);
  for (int i = 0; i < hostile_data[_i].bytes[6]; i++)
    ck_assert_ok(bl_msg_add_frame(&m, bl_frame_copy("", 0)));
  bl_data_msg d;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_data_unpack(&m, &d, &err), BL_EPROTO);
  ck_assert_msg(strstr(err.text, hostile_data[_i].text) != NULL, "expected '%s', got: %s", hostile_data[_i].text,
                err.text);
  bl_msg_fini(&m);
}
END_TEST

START_TEST(more_chunks_than_the_limit_are_refused) {
  uint8_t bytes[8 + 3 + 257] = {'B', 'L', 1, 0, BL_MSG_PULL, 0, 0, 0, 0x42, 0x81, 0x02};
  bl_msg m = msg_of(bytes, sizeof bytes);
  bl_data_msg d;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_data_unpack(&m, &d, &err), BL_EPROTO);
  ck_assert_ptr_nonnull(strstr(err.text, "more than 256"));
  bl_msg_fini(&m);
}
END_TEST

START_TEST(unknown_fields_are_passed_over) {
  static const uint8_t bytes[] = {COMMIT_HEAD, 0x08, 5,                   /* job 5 */
                                  0xf8, 0x07, 0x96, 0x01,                 /* 127: varint */
                                  0xfa, 0x07, 0x02, 'h', 'i',             /* 127: bytes */
                                  0xfd, 0x07, 1, 2, 3, 4,                 /* 127: 32 bits */
                                  0xf9, 0x07, 1, 2, 3, 4, 5, 6, 7, 8};    /* 127: 64 bits */
  bl_msg m = msg_of(bytes, sizeof bytes);
  bl_data_msg d;
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert_uint_eq(d.commit.job, 5);
  bl_msg_fini(&m);
}
END_TEST

START_TEST(text_of_a_refusal_becomes_printable) {
  static const uint8_t bytes[] = {'B', 'L', 1, 0, BL_MSG_REFUSE, 0, 0, 0, 0x20, 1, 0x3a, 4, 'a', '\n', 0xff, 'b'};
  bl_msg m = msg_of(bytes, sizeof bytes);
  bl_data_msg d;
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert_str_eq(d.refuse.text, "a??b");
  bl_msg_fini(&m);
}
END_TEST

START_TEST(steady_packing_and_unpacking_allocates_nothing) {
  bl_data_msg in, out;
  data_sample(BL_MSG_ACK, true, &in);
  uint64_t calls = 0;
  for (int i = 0; i < 100; i++) {
    bl_msg m = BL_MSG_INIT;
    ck_assert_ok(bl_data_pack(&in, 0, &m));
    ck_assert_ok(bl_data_unpack(&m, &out, NULL));
    bl_msg_fini(&m);
    if (i == 0)
      calls = bl_alloc_get_stats().total_calls;
  }
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls, calls);
}
END_TEST

/* ---- control plane ---- */

/* A valid message of any type, in static memory: tests spoil single fields of it. */
static struct {
  Ballast__Control__Tensor tensors[2], *tensor_list[2];
  Ballast__Control__ShardRef shards[2], *shard_list[2];
  Ballast__Control__KeyValue param, *param_list[1];
  Ballast__Control__Rule optimizer, schedule;
  Ballast__Control__TaskStatus task, *task_list[1];
  Ballast__Control__ServerJobStatus job, *job_list[1];
  Ballast__Control__JobPlan plan;
  uint64_t dims[2][2];
  uint32_t incarnations[2], chunk_shards[4];
  uint64_t rank_samples[2];
  char *endpoints[2];
  Ballast__Control__DataReport data;
  Ballast__Control__EpochReport epoch;
  Ballast__Control__Metrics metrics;
  Ballast__Control__DoneReport done;
  Ballast__Control__LogLine log;
} x;

static union {
  ProtobufCMessage base;
  Ballast__Control__Register reg;
  Ballast__Control__Registered registered;
  Ballast__Control__Reregister reregister;
  Ballast__Control__Rejected rejected;
  Ballast__Control__Heartbeat heartbeat;
  Ballast__Control__HeartbeatAck heartbeat_ack;
  Ballast__Control__OpenJob open_job;
  Ballast__Control__CloseJob close_job;
  Ballast__Control__StartTask start_task;
  Ballast__Control__RunTask run_task;
  Ballast__Control__StopTask stop_task;
  Ballast__Control__UpdateTask update_task;
  Ballast__Control__Report report;
  Ballast__Control__ReportAck report_ack;
  Ballast__Control__TaskHello task_hello;
  Ballast__Control__TaskStatus task_status;
  Ballast__Control__Submit submit;
  Ballast__Control__Cancel cancel;
  Ballast__Control__SetPriority set_priority;
  Ballast__Control__Query query;
  Ballast__Control__Answer answer;
} u;

static void fill_plan(void) {
  static char *const names[] = {"dense1.weight", "dense1.bias"};
  for (int i = 0; i < 2; i++) {
    ballast__control__tensor__init(&x.tensors[i]);
    x.dims[i][0] = i == 0 ? 100 : 10;
    x.dims[i][1] = 10;
    x.tensors[i].name = names[i];
    x.tensors[i].dims = x.dims[i];
    x.tensors[i].n_dims = i == 0 ? 2 : 1;
    x.tensors[i].init = 2;
    x.tensors[i].init_scale = 0.5f;
    x.tensor_list[i] = &x.tensors[i];
    ballast__control__shard_ref__init(&x.shards[i]);
    x.shards[i].server = "s1";
    x.shards[i].index = (uint32_t)i;
    x.shards[i].endpoint = "tcp://127.0.0.1:7000";
    x.shard_list[i] = &x.shards[i];
    x.incarnations[i] = (uint32_t)i + 1;
  }
  ballast__control__key_value__init(&x.param);
  x.param.key = "rate";
  x.param.value = 0.1;
  x.param_list[0] = &x.param;
  ballast__control__rule__init(&x.optimizer);
  x.optimizer.name = "sgd";
  x.optimizer.params = x.param_list;
  x.optimizer.n_params = 1;
  ballast__control__rule__init(&x.schedule);
  x.schedule.name = "constant";
  ballast__control__job_plan__init(&x.plan);
  x.plan.job = 7;
  x.plan.name = "a job";
  x.plan.world = 2;
  x.plan.incarnations = x.incarnations;
  x.plan.n_incarnations = 2;
  x.plan.tensors = x.tensor_list;
  x.plan.n_tensors = 2;
  x.plan.chunk_elems = 400; /* 1000 and 10 elements: 3 chunks and 1 */
  x.plan.shards = x.shard_list;
  x.plan.n_shards = 2;
  x.chunk_shards[1] = 1;
  x.chunk_shards[3] = 1;
  x.plan.chunk_shards = x.chunk_shards;
  x.plan.n_chunk_shards = 4;
  x.plan.optimizer = &x.optimizer;
  x.plan.schedule = &x.schedule;
  x.plan.sync = "bsp";
  x.plan.codec_push = "float32";
  x.plan.codec_pull = "topk(0.03, ternary)";
  x.plan.clocks = 100;
  x.rank_samples[0] = 90;
  x.rank_samples[1] = UINT64_MAX;
  x.plan.rank_samples = x.rank_samples;
  x.plan.n_rank_samples = 2;
}

static void fill_status(Ballast__Control__TaskStatus *t) {
  ballast__control__task_status__init(t);
  t->job = 7;
  t->rank = 1;
  t->state = BALLAST__CONTROL__TASK_STATE__TASK_RUNNING;
  t->text = "h\xc3\xa4lt"; /* UTF-8 */
  t->loss = 0.25;
}

static void fill_report_bodies(void) {
  ballast__control__data_report__init(&x.data);
  ballast__control__epoch_report__init(&x.epoch);
  ballast__control__metrics__init(&x.metrics);
  x.epoch.train = &x.metrics;
  ballast__control__done_report__init(&x.done);
  ballast__control__log_line__init(&x.log);
  x.log.level = BL_LOG_INFO;
}

static void fill_node(bl_msg_type type) {
  fill_status(&x.task);
  x.task_list[0] = &x.task;
  ballast__control__server_job_status__init(&x.job);
  x.job.state = BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN;
  x.job_list[0] = &x.job;
  if (type == BL_MSG_REGISTER) {
    ballast__control__register__init(&u.reg);
    u.reg.protocol_min = u.reg.protocol_max = 1;
    u.reg.role = BALLAST__CONTROL__ROLE__ROLE_SERVER;
    u.reg.name = "s1";
    x.endpoints[0] = x.endpoints[1] = "tcp://[::1]:7000";
    u.reg.shard_endpoints = x.endpoints;
    u.reg.n_shard_endpoints = 2;
    u.reg.public_key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
  } else {
    ballast__control__heartbeat__init(&u.heartbeat);
    u.heartbeat.name = "w1";
    u.heartbeat.tasks = x.task_list;
    u.heartbeat.n_tasks = 1;
    u.heartbeat.jobs = x.job_list;
    u.heartbeat.n_jobs = 1;
  }
}

static void fill_task(bl_msg_type type) {
  fill_plan();
  if (type == BL_MSG_OPEN_JOB) {
    ballast__control__open_job__init(&u.open_job);
    u.open_job.plan = &x.plan;
  } else if (type == BL_MSG_START_TASK) {
    ballast__control__start_task__init(&u.start_task);
    u.start_task.plan = &x.plan;
    u.start_task.rank = 1;
    u.start_task.incarnation = 2;
    u.start_task.job_text = "name: a\n";
  } else {
    ballast__control__update_task__init(&u.update_task);
    u.update_task.plan = &x.plan;
    u.update_task.incarnation = 1;
  }
}

static ProtobufCMessage *control_sample(bl_msg_type type) {
  memset(&u, 0, sizeof u);
  fill_report_bodies();
  switch (type) {
  case BL_MSG_REGISTER:
  case BL_MSG_HEARTBEAT:
    fill_node(type);
    break;
  case BL_MSG_OPEN_JOB:
  case BL_MSG_START_TASK:
  case BL_MSG_UPDATE_TASK:
    fill_task(type);
    break;
  case BL_MSG_REGISTERED:
    ballast__control__registered__init(&u.registered);
    u.registered.name = "w1";
    break;
  case BL_MSG_REREGISTER:
    ballast__control__reregister__init(&u.reregister);
    u.reregister.reason = "restart";
    break;
  case BL_MSG_REJECTED:
    ballast__control__rejected__init(&u.rejected);
    u.rejected.status = (uint32_t)-BL_EEXIST;
    break;
  case BL_MSG_HEARTBEAT_ACK:
    ballast__control__heartbeat_ack__init(&u.heartbeat_ack);
    break;
  case BL_MSG_CLOSE_JOB:
    ballast__control__close_job__init(&u.close_job);
    break;
  case BL_MSG_RUN_TASK:
    ballast__control__run_task__init(&u.run_task);
    break;
  case BL_MSG_STOP_TASK:
    ballast__control__stop_task__init(&u.stop_task);
    break;
  case BL_MSG_REPORT:
    ballast__control__report__init(&u.report);
    u.report.sequence = 1;
    u.report.epoch = &x.epoch;
    break;
  case BL_MSG_REPORT_ACK:
    ballast__control__report_ack__init(&u.report_ack);
    break;
  case BL_MSG_TASK_HELLO:
    ballast__control__task_hello__init(&u.task_hello);
    break;
  case BL_MSG_TASK_STATUS:
    fill_status(&u.task_status);
    break;
  case BL_MSG_SUBMIT:
    ballast__control__submit__init(&u.submit);
    u.submit.token = "4f2a";
    u.submit.job_text = "name: a\n";
    break;
  case BL_MSG_CANCEL:
    ballast__control__cancel__init(&u.cancel);
    break;
  case BL_MSG_SET_PRIORITY:
    ballast__control__set_priority__init(&u.set_priority);
    u.set_priority.priority = -7;
    break;
  case BL_MSG_QUERY:
    ballast__control__query__init(&u.query);
    u.query.what = "status";
    u.query.name = "mnist-*";
    u.query.limit = 20;
    break;
  case BL_MSG_ANSWER:
    ballast__control__answer__init(&u.answer);
    u.answer.json = "{}";
    break;
  default:
    return NULL;
  }
  return &u.base;
}

/* Packs without our checks, as a hostile peer would. */
static bl_msg control_raw(bl_msg_type type, const ProtobufCMessage *pb) {
  bl_msg m = BL_MSG_INIT;
  m.head = bl_frame_new(8 + protobuf_c_message_get_packed_size(pb));
  memcpy(m.head->data, "BL\1\0", 4);
  bl_le_put16(m.head->data + 4, (uint16_t)type);
  bl_le_put16(m.head->data + 6, 0);
  protobuf_c_message_pack(pb, m.head->data + 8);
  return m;
}

START_TEST(control_messages_come_back_as_they_were) {
  ProtobufCMessage *in = control_sample((bl_msg_type)_i);
  if (strcmp(bl_msg_type_name((bl_msg_type)_i), "?") == 0 || _i < BL_MSG_REGISTER) {
    ck_assert_ptr_null(in);
    return;
  }
  ck_assert_ptr_nonnull(in); /* every named type has a sample here */
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_msg m = BL_MSG_INIT, again = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack((bl_msg_type)_i, in, &m));
  bl_msg_type type;
  ProtobufCMessage *out;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_control_unpack(&m, &type, &out, &err), err);
  ck_assert_int_eq((int)type, _i);
  ProtobufCMessage *copy = bl_control_copy(out);
  ck_assert_ptr_nonnull(copy);
  bl_control_free(out);
  ck_assert_ok(bl_control_pack(type, copy, &again));
  ck_assert_uint_eq(again.head->size, m.head->size);
  ck_assert_mem_eq(again.head->data, m.head->data, m.head->size);
  bl_control_free(copy);
  bl_msg_fini(&m);
  bl_msg_fini(&again);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
}
END_TEST

static char long_name[66], long_text[BL_CONTROL_TEXT_BYTES_MAX + 2];
static void spoil_name(void) { u.reg.name = "a b"; }
static void spoil_name_empty(void) { u.reg.name = ""; }
static void spoil_name_long(void) { u.reg.name = memset(long_name, 'a', 65); }
static void spoil_utf8(void) { u.submit.job_text = "a\xc0\x80"; }
static void spoil_utf8_surrogate(void) { u.submit.job_text = "\xed\xa0\x80"; }
static void spoil_utf8_cut(void) { u.submit.job_text = "\xe2\x82"; }
static void spoil_text_long(void) { u.reg.host = memset(long_text, 'a', BL_CONTROL_TEXT_BYTES_MAX + 1); }
static void spoil_role(void) { u.reg.role = (Ballast__Control__Role)77; }
static void spoil_role_zero(void) { u.reg.role = BALLAST__CONTROL__ROLE__ROLE_INVALID; }
static void spoil_protocol(void) { u.reg.protocol_min = 3; }
static void spoil_key(void) { u.reg.public_key = "short"; }
static void spoil_slots(void) { u.reg.slots = BL_CONTROL_RANKS_MAX + 1; }
static void spoil_endpoint(void) { x.endpoints[1] = ""; }
static void spoil_task_state(void) { x.task.state = BALLAST__CONTROL__TASK_STATE__TASK_INVALID; }
static void spoil_task_rank(void) { x.task.rank = BL_CONTROL_RANKS_MAX; }
static void spoil_task_status(void) { x.task.status = 1 - BL_STATUS_LAST; }
static Ballast__Control__TensorTraffic traffic, *traffic_list[BL_CONTROL_TRAFFIC_MAX + 1];
static void tell_traffic(void) {
  ballast__control__tensor_traffic__init(&traffic);
  for (size_t i = 0; i < BL_COUNT_OF(traffic_list); i++)
    traffic_list[i] = &traffic;
  x.task.traffic = traffic_list;
  x.task.n_traffic = 1;
}
static void spoil_traffic_count(void) {
  tell_traffic();
  x.task.n_traffic = BL_CONTROL_TRAFFIC_MAX + 1;
}
static void spoil_traffic_codec(void) {
  tell_traffic();
  traffic.codec_pull = memset(long_text, 'a', BL_CONTROL_NAME_BYTES_MAX + 1);
  long_text[BL_CONTROL_NAME_BYTES_MAX + 1] = '\0';
}
static void spoil_traffic_reason(void) {
  tell_traffic();
  traffic.reason = memset(long_text, 'a', BL_CONTROL_REASON_BYTES_MAX + 1);
  long_text[BL_CONTROL_REASON_BYTES_MAX + 1] = '\0';
}
static void spoil_traffic_norm(void) {
  tell_traffic();
  traffic.residual_norm = NAN;
}
static void spoil_traffic_lost(void) {
  tell_traffic();
  traffic.lost_squared = -1;
}
static void spoil_plan_missing(void) { u.open_job.plan = NULL; }
static void spoil_plan_world(void) { x.plan.world = 3; }
static void spoil_plan_world_zero(void) { x.plan.world = 0; }
static void spoil_plan_chunk(void) { x.chunk_shards[2] = 2; }
static void spoil_plan_chunks(void) { x.plan.n_chunk_shards = 3; }
static void spoil_plan_chunk_elems(void) { x.plan.chunk_elems = 0; }
static void spoil_plan_dims(void) { x.dims[0][0] = x.dims[0][1] = UINT64_C(1) << 33; }
static void spoil_plan_dim_zero(void) { x.dims[0][0] = 0; }
static void spoil_plan_sum(void) {
  x.plan.chunk_elems = 1;
  x.dims[0][0] = x.dims[1][0] = UINT64_MAX;
  x.tensors[0].n_dims = x.tensors[1].n_dims = 1;
}
static void spoil_plan_shards(void) { x.plan.n_shards = 0; }
static void spoil_plan_optimizer(void) { x.plan.optimizer = NULL; }
static void spoil_plan_param(void) { x.param.value = NAN; }
static void spoil_plan_clip(void) { x.plan.clip_norm = -1; }
static void spoil_plan_codec(void) { x.plan.codec_push = ""; }
static void spoil_plan_start(void) { x.plan.start_clock = 101; }
static void spoil_plan_samples(void) { x.plan.n_rank_samples = 1; }
static void spoil_plan_no_sample(void) { x.rank_samples[1] = 0; }
static void spoil_plan_init(void) { x.tensors[1].init = 9; }
static void spoil_start_rank(void) { u.start_task.rank = 2; }
static void spoil_start_incarnation(void) { u.start_task.incarnation = 5; }
static void spoil_report_none(void) { u.report.epoch = NULL; }
static void spoil_report_two(void) { u.report.log = &x.log; }
static void spoil_report_log(void) {
  u.report.epoch = NULL;
  u.report.log = &x.log;
  x.log.level = 9;
}

static const struct {
  bl_msg_type type;
  void (*spoil)(void);
  const char *text;
} spoilt_control[] = {
    {BL_MSG_REGISTER, spoil_name, "name may only hold"},
    {BL_MSG_REGISTER, spoil_name_empty, "name has 0 bytes"},
    {BL_MSG_REGISTER, spoil_name_long, "name has 65 bytes"},
    {BL_MSG_SUBMIT, spoil_utf8, "job_text is not UTF-8"},
    {BL_MSG_SUBMIT, spoil_utf8_surrogate, "job_text is not UTF-8"},
    {BL_MSG_SUBMIT, spoil_utf8_cut, "job_text is not UTF-8"},
    {BL_MSG_REGISTER, spoil_text_long, "host has 4097 bytes"},
    {BL_MSG_REGISTER, spoil_role, "role is 77"},
    {BL_MSG_REGISTER, spoil_role_zero, "role is 0"},
    {BL_MSG_REGISTER, spoil_protocol, "no range"},
    {BL_MSG_REGISTER, spoil_key, "public_key is no public key"},
    {BL_MSG_REGISTER, spoil_slots, "slots is 4097"},
    {BL_MSG_REGISTER, spoil_endpoint, "shard_endpoints has 0 bytes"},
    {BL_MSG_HEARTBEAT, spoil_task_state, "tasks: state is 0"},
    {BL_MSG_HEARTBEAT, spoil_task_rank, "rank is 4096"},
    {BL_MSG_HEARTBEAT, spoil_task_status, "status is 22"},
    {BL_MSG_HEARTBEAT, spoil_traffic_count, "traffic has 66 entries"},
    {BL_MSG_HEARTBEAT, spoil_traffic_codec, "codec_pull has 65 bytes"},
    {BL_MSG_HEARTBEAT, spoil_traffic_reason, "reason has 256 bytes"},
    {BL_MSG_HEARTBEAT, spoil_traffic_norm, "residual_norm is nan"},
    {BL_MSG_HEARTBEAT, spoil_traffic_lost, "lost_squared is -1"},
    {BL_MSG_OPEN_JOB, spoil_plan_missing, "plan is missing"},
    {BL_MSG_OPEN_JOB, spoil_plan_world, "2 incarnations for 3 ranks"},
    {BL_MSG_OPEN_JOB, spoil_plan_world_zero, "world is 0"},
    {BL_MSG_OPEN_JOB, spoil_plan_chunk, "chunk 2 is on shard 2 of 2"},
    {BL_MSG_OPEN_JOB, spoil_plan_chunks, "places 3 chunks, the tensors have 4"},
    {BL_MSG_OPEN_JOB, spoil_plan_chunk_elems, "chunk_elems is 0"},
    {BL_MSG_OPEN_JOB, spoil_plan_dims, "too many elements"},
    {BL_MSG_OPEN_JOB, spoil_plan_dim_zero, "dimension of 0"},
    {BL_MSG_OPEN_JOB, spoil_plan_sum, "too many elements"},
    {BL_MSG_OPEN_JOB, spoil_plan_shards, "shards has 0 entries"},
    {BL_MSG_OPEN_JOB, spoil_plan_optimizer, "optimizer is missing"},
    {BL_MSG_OPEN_JOB, spoil_plan_param, "value is nan"},
    {BL_MSG_OPEN_JOB, spoil_plan_clip, "clip_norm is -1"},
    {BL_MSG_OPEN_JOB, spoil_plan_codec, "codec_push has 0 bytes"},
    {BL_MSG_OPEN_JOB, spoil_plan_start, "start_clock 101"},
    {BL_MSG_OPEN_JOB, spoil_plan_samples, "1 rank_samples for 2 ranks"},
    {BL_MSG_OPEN_JOB, spoil_plan_no_sample, "rank_samples is 0"},
    {BL_MSG_OPEN_JOB, spoil_plan_init, "init is 9"},
    {BL_MSG_START_TASK, spoil_start_rank, "rank 2 of 2"},
    {BL_MSG_START_TASK, spoil_start_incarnation, "incarnation 5 of rank 1, the plan has 2"},
    {BL_MSG_REPORT, spoil_report_none, "0 bodies"},
    {BL_MSG_REPORT, spoil_report_two, "2 bodies"},
    {BL_MSG_REPORT, spoil_report_log, "level is 9"},
};

START_TEST(control_message_with_one_bad_field_is_refused_on_both_sides) {
  ProtobufCMessage *pb = control_sample(spoilt_control[_i].type);
  spoilt_control[_i].spoil();
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_msg m = control_raw(spoilt_control[_i].type, pb);
  bl_msg_type type;
  ProtobufCMessage *out;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_control_unpack(&m, &type, &out, &err), BL_EINVAL);
  ck_assert_msg(strstr(err.text, spoilt_control[_i].text) != NULL, "expected '%s', got: %s", spoilt_control[_i].text,
                err.text);
  bl_msg_fini(&m);
  ck_assert_status(bl_control_pack(spoilt_control[_i].type, pb, &m), BL_EINVAL);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
}
END_TEST

static void unpack_control_hostile(const uint8_t *bytes, size_t n) {
  bl_msg m = msg_of(bytes, n), again = BL_MSG_INIT;
  bl_msg_type type;
  ProtobufCMessage *out;
  bl_error err = BL_ERROR_INIT;
  bl_status st = bl_control_unpack(&m, &type, &out, &err);
  ck_assert(st == BL_OK || st == BL_EPROTO || st == BL_EINVAL);
  if (st == BL_OK) { /* then it is one that we could have sent ourselves */
    ck_assert_ok(bl_control_pack(type, out, &again));
    bl_control_free(out);
  } else
    ck_assert(err.text[0] != '\0');
  bl_msg_fini(&m);
  bl_msg_fini(&again);
}

START_TEST(damaged_control_messages_are_refused_or_valid) {
  ProtobufCMessage *in = control_sample((bl_msg_type)_i);
  if (in == NULL)
    return;
  bl_msg m = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack((bl_msg_type)_i, in, &m));
  size_t n = m.head->size;
  uint8_t bytes[1024];
  ck_assert_uint_le(n, sizeof bytes);
  for (size_t cut = 0; cut < n; cut++)
    unpack_control_hostile(m.head->data, cut);
  for (size_t bit = 0; bit < n * 8; bit++) {
    memcpy(bytes, m.head->data, n);
    bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    unpack_control_hostile(bytes, n);
  }
  bl_msg_fini(&m);
}
END_TEST

START_TEST(header_that_asks_for_gigabytes_is_refused) {
  /* Four million empty TaskStatus in 8 MiB. */
  bl_msg m = BL_MSG_INIT;
  m.head = bl_frame_new(BL_MSG_HEADER_BYTES_MAX);
  memcpy(m.head->data, "BL\1\0", 4);
  bl_le_put16(m.head->data + 4, BL_MSG_HEARTBEAT);
  bl_le_put16(m.head->data + 6, 0);
  for (size_t i = 8; i < m.head->size; i += 2) {
    m.head->data[i] = 0x22;
    m.head->data[i + 1] = 0;
  }
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_msg_type type;
  ProtobufCMessage *out;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_control_unpack(&m, &type, &out, &err), BL_EPROTO);
  ck_assert_ptr_nonnull(strstr(err.text, "bytes of memory"));
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  bl_msg_fini(&m);
}
END_TEST

START_TEST(shortage_of_memory_is_told_from_bad_bytes) {
  bl_msg m = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(BL_MSG_START_TASK, control_sample(BL_MSG_START_TASK), &m));
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_msg_type type;
  ProtobufCMessage *out;
  bl_status st;
  uint64_t nth = 0;
  do {
    bl_alloc_fail_after(++nth);
    st = bl_control_unpack(&m, &type, &out, NULL);
    bl_alloc_fail_after(0);
    ck_assert(st == BL_OK || st == BL_ENOMEM);
  } while (st != BL_OK);
  ck_assert_uint_gt(nth, 10);
  bl_control_free(out);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  bl_msg_fini(&m);
}
END_TEST

START_TEST(unknown_control_fields_are_passed_over_and_not_passed_on) {
  bl_msg m = BL_MSG_INIT, again = BL_MSG_INIT, more;
  bl_msg_type type;
  ProtobufCMessage *out;
  ck_assert_ok(bl_control_pack(BL_MSG_HEARTBEAT, control_sample(BL_MSG_HEARTBEAT), &m));
  more = (bl_msg)BL_MSG_INIT;
  more.head = bl_frame_new(m.head->size + 5);
  memcpy(more.head->data, m.head->data, m.head->size);
  memcpy(more.head->data + m.head->size, "\xfa\x07\x02hi", 5);
  ck_assert_ok(bl_control_unpack(&more, &type, &out, NULL));
  ck_assert_ok(bl_control_pack(type, out, &again));
  ck_assert_uint_eq(again.head->size, m.head->size);
  ck_assert_mem_eq(again.head->data, m.head->data, m.head->size);
  bl_control_free(out);
  bl_msg_fini(&m);
  bl_msg_fini(&more);
  bl_msg_fini(&again);
}
END_TEST

START_TEST(sentence_cut_within_a_character_arrives) {
  control_sample(BL_MSG_HEARTBEAT);
  x.task.text = "h\xc3\xa4lt \xff\xe2\x82";
  bl_msg m = BL_MSG_INIT;
  bl_msg_type type;
  ProtobufCMessage *out;
  ck_assert_ok(bl_control_pack(BL_MSG_HEARTBEAT, &u.base, &m));
  ck_assert_ok(bl_control_unpack(&m, &type, &out, NULL));
  ck_assert_str_eq(((Ballast__Control__Heartbeat *)out)->tasks[0]->text, "h\xc3\xa4lt ???");
  bl_control_free(out);
  bl_msg_fini(&m);
}
END_TEST

START_TEST(loss_that_is_no_number_can_be_reported) {
  control_sample(BL_MSG_HEARTBEAT);
  x.task.loss = NAN;
  bl_msg m = BL_MSG_INIT;
  ck_assert_ok(bl_control_pack(BL_MSG_HEARTBEAT, &u.base, &m));
  bl_msg_fini(&m);
}
END_TEST

int main(void) {
  Suite *s = suite_create("wire");
  TCase *frames = tcase_create("frames");
  tcase_add_test(frames, pool_gives_the_same_memory_again);
  tcase_add_test(frames, pool_outlives_its_owner_until_the_last_frame_is_back);
  tcase_add_test(frames, frames_come_back_from_another_thread);
  tcase_add_loop_test(frames, messages_by_which_versions_meet_have_version_1_for_ever, 0, 8);
  tcase_add_loop_test(frames, preamble_that_is_wrong_is_refused_with_a_reason, 0, BL_COUNT_OF(bad_preambles));
  tcase_add_test(frames, frame_above_its_limit_is_refused);
  tcase_add_test(frames, message_holds_no_more_frames_than_its_limit);
  TCase *data = tcase_create("data");
  tcase_add_test(data, examples_in_the_documentation_are_what_is_sent);
  tcase_add_loop_test(data, data_messages_come_back_as_they_were, BL_MSG_HELLO, BL_MSG_REFUSE + 1);
  tcase_add_loop_test(data, data_messages_come_back_as_they_were, BL_MSG_PULL_ROWS, BL_MSG_ASK_NORMS + 1);
  tcase_add_loop_test(data, data_messages_are_those_of_the_schema, BL_MSG_HELLO, BL_MSG_REFUSE + 1);
  tcase_add_loop_test(data, data_messages_are_those_of_the_schema, BL_MSG_PULL_ROWS, BL_MSG_ASK_NORMS + 1);
  tcase_add_test(data, values_stand_in_the_fields_that_the_schema_names);
  tcase_add_loop_test(data, damaged_data_messages_are_refused_or_within_limits, BL_MSG_HELLO, BL_MSG_REFUSE + 1);
  tcase_add_loop_test(data, damaged_data_messages_are_refused_or_within_limits, BL_MSG_PULL_ROWS, BL_MSG_ASK_NORMS + 1);
  tcase_add_loop_test(data, hostile_data_messages_are_refused_with_a_reason, 0, BL_COUNT_OF(hostile_data));
  tcase_add_test(data, more_chunks_than_the_limit_are_refused);
  tcase_add_test(data, unknown_fields_are_passed_over);
  tcase_add_test(data, text_of_a_refusal_becomes_printable);
  tcase_add_test(data, steady_packing_and_unpacking_allocates_nothing);
  TCase *control = tcase_create("control");
  tcase_set_timeout(control, 20);
  tcase_add_loop_test(control, control_messages_come_back_as_they_were, 0, BL_MSG_TYPE_END);
  tcase_add_loop_test(control, control_message_with_one_bad_field_is_refused_on_both_sides, 0,
                      BL_COUNT_OF(spoilt_control));
  tcase_add_loop_test(control, damaged_control_messages_are_refused_or_valid, 0, BL_MSG_TYPE_END);
  tcase_add_test(control, header_that_asks_for_gigabytes_is_refused);
  tcase_add_test(control, shortage_of_memory_is_told_from_bad_bytes);
  tcase_add_test(control, unknown_control_fields_are_passed_over_and_not_passed_on);
  tcase_add_test(control, sentence_cut_within_a_character_arrives);
  tcase_add_test(control, loss_that_is_no_number_can_be_reported);
  suite_add_tcase(s, frames);
  suite_add_tcase(s, data);
  suite_add_tcase(s, control);
  return test_run(&s, 1);
}
