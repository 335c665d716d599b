/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows of tables: their frames, the store of a bucket, lists of keys, and sessions with shards over a queue.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/le.h"
#include "base/num.h"
#include "base/rng.h"
#include "client/session.h"
#include "server/keys.h"
#include "server/shard.h"
#include "server/table.h"
#include "tests/support/plan.h"
#include "tests/support/frames.h"
#include "tests/support/support.h"
#include "wire/rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- row frames ---------------------------------------------------------------------------------------- */

/* Encodes keys; returns their bytes. */
static uint32_t put_keys(const uint64_t *keys, uint32_t n, uint8_t *out) {
  uint8_t *p = out;
  uint64_t prev = UINT64_MAX;
  for (uint32_t i = 0; i < n; prev = keys[i++])
    p = bl_rows_put_key(p, prev, keys[i]);
  return (uint32_t)(p - out);
}

/* A frame of keys and, unless 0, so many bytes of "numbers". */
static size_t put_frame(const uint64_t *keys, uint32_t n, uint32_t width, bool with_keys, uint32_t n_numbers,
                        uint8_t *out) {
  uint8_t bytes[256];
  uint32_t key_bytes = put_keys(keys, n, bytes);
  bl_rows_id id = bl_rows_id_of(bytes, key_bytes, n, width);
  uint8_t *p = bl_rows_put(out, &id, with_keys ? bytes : NULL, key_bytes, n_numbers > 0);
  memset(p, 7, n_numbers);
  return (size_t)(p - out) + n_numbers;
}

static const uint64_t some_keys[] = {3, 5, 305};

START_TEST(row_frame_is_as_its_header_says) {
  static const uint8_t example[] = {0x01, 0x01, 0,    0,    3,    0,    0,    0,    1,    0,
                                    0,    0,    4,    0,    0,    0,    0x03, 0xad, 0x9c, 0x3a,
                                    0xdd, 0x1b, 0x3d, 0x36, 0x03, 0x01, 0xab, 0x02};
  uint8_t frame[64];
  char hex[3 * sizeof frame + 1] = "";
  size_t n = put_frame(some_keys, 3, 1, true, 0, frame);
  for (size_t i = 0; i < n; i++)
    snprintf(hex + 3 * i, 4, "%02x ", frame[i]);
  ck_assert_msg(n == sizeof example && memcmp(frame, example, n) == 0, "%s", hex);
}
END_TEST

START_TEST(row_frame_comes_back_as_it_was) {
  static const uint64_t keys[] = {0, 1, 127, 128, 16511, 16512, UINT64_C(1) << 39, (UINT64_C(1) << 40) - 1};
  uint8_t frame[256];
  for (unsigned form = 1; form < 4; form++) {
    size_t n = put_frame(keys, BL_COUNT_OF(keys), 4, (form & 1) != 0, (form & 2) != 0 ? 9 : 0, frame);
    bl_rows_view v;
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_rows_open(frame, n, 4, 8, UINT64_C(1) << 40, &v, &err), err);
    ck_assert_uint_eq(v.id.n_rows, BL_COUNT_OF(keys));
    ck_assert_int_eq(v.keys != NULL, (form & 1) != 0);
    ck_assert_uint_eq(v.numbers_bytes, (form & 2) != 0 ? 9 : 0);
    bl_rows_reader r = bl_rows_read(v.keys);
    for (size_t i = 0; v.keys != NULL && i < BL_COUNT_OF(keys); i++)
      ck_assert_uint_eq(bl_rows_next(&r), keys[i]);
  }
}
END_TEST

START_TEST(damaged_row_frame_is_refused) {
  uint8_t frame[256], bad[256];
  bl_rows_view v;
  size_t n = put_frame(some_keys, 3, 1, true, 0, frame);
  for (size_t cut = 0; cut < n; cut++) {
    memcpy(bad, frame, cut);
    uint8_t *exact = bl_malloc(BL_MAX(cut, 1)); /* so that a step too far is found */
    memcpy(exact, frame, cut);
    ck_assert_int_ne(bl_rows_open(exact, cut, 1, 8, 400, &v, NULL), BL_OK);
    bl_free(exact);
  }
  for (size_t bit = 0; bit < n * 8; bit++) {
    memcpy(bad, frame, n);
    bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
    bl_error err = BL_ERROR_INIT;
    ck_assert_msg(bl_rows_open(bad, n, 1, 8, 400, &v, &err) != BL_OK, "bit %zu", bit);
    ck_assert_str_ne(err.text, "");
  }
}
END_TEST

/* One byte of a good frame changed, or its keys; the checksum made right. */
static const struct {
  size_t at;
  uint8_t value;
  bl_status status;
  const char *says;
} hostile_frames[] = {
    {0, 2, BL_EUNSUPPORTED, "version 2"},  {1, 0x81, BL_ECORRUPT, "flags 0x81"},
    {2, 1, BL_ECORRUPT, "reserved"},       {4, 0, BL_ELIMIT, "0 rows"},
    {4, 9, BL_ELIMIT, "9 rows"},           {4, 2, BL_ECORRUPT, "behind the last"},
    {4, 4, BL_ECORRUPT, "cut off"},        {8, 2, BL_EMISMATCH, "2 numbers per row"},
    {12, 5, BL_ECORRUPT, "does not fit"},  {12, 0, BL_ECORRUPT, "does not fit"},
    {1, 3, BL_ECORRUPT, "does not fit"},   {1, 0, BL_ECORRUPT, "does not fit"},
    {24, 0x7f, BL_ECORRUPT, "keys below"}, {27, 0x00, BL_ECORRUPT, "shortest form"},
    {27, 0x82, BL_ECORRUPT, "cut off"},    {16, 0, BL_ECORRUPT, "checksum"},
};

START_TEST(hostile_row_frame_is_refused_with_a_sentence) {
  uint8_t frame[64];
  size_t n = put_frame(some_keys, 3, 1, true, 0, frame);
  frame[hostile_frames[_i].at] = hostile_frames[_i].value;
  if (hostile_frames[_i].at >= BL_ROWS_HEADER_BYTES) {
    bl_rows_id id = bl_rows_id_of(frame + BL_ROWS_HEADER_BYTES, 4, 3, 1);
    bl_le_put64(frame + 16, id.checksum);
  }
  bl_rows_view v;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_rows_open(frame, n, 1, 8, 310, &v, &err), hostile_frames[_i].status);
  ck_assert_msg(strstr(err.text, hostile_frames[_i].says) != NULL, "%s", err.text);
}
END_TEST

/* ---- the store of a bucket ----------------------------------------------------------------------------- */

#define N_RUNS 20000

START_TEST(rows_are_found_and_stay_where_they_are) {
  static const uint32_t widths[] = {1, 5, 700};
  uint32_t width = widths[_i], n = width > 100 ? 2000 : N_RUNS;
  srv_table t;
  srv_table_init(&t, width, 2);
  float **records = bl_calloc(n, sizeof *records);
  for (uint32_t i = 0; i < n; i++) {
    uint64_t run = ((uint64_t)i * 7919) % N_RUNS * 1000003; /* all different, in no order */
    ck_assert_uint_eq(srv_table_find(&t, run), SRV_NO_ROW);
    ck_assert_uint_ge(srv_table_bytes_for(&t, i + 1), t.bytes);
    uint64_t promised = srv_table_bytes_for(&t, i + 1);
    bool migrates = t.old.cells != NULL;
    ck_assert_ok(srv_table_reserve(&t, i + 1));
    ck_assert(migrates || t.bytes == promised);
    ck_assert_uint_eq(srv_table_add(&t, run), i);
    records[i] = srv_table_record(&t, i);
    ck_assert_uint_eq(srv_table_mark(records[i]), 0);
    srv_table_set_mark(records[i], i);
    bool zero = true;
    for (uint32_t k = 0; k < width * 3; k++) {
      zero &= k < width || records[i][1 + k] == 0;
      records[i][1 + k] = (float)i;
    }
    ck_assert(zero);
  }
  for (uint32_t i = 0; i < n; i++) {
    uint64_t run = ((uint64_t)i * 7919) % N_RUNS * 1000003;
    ck_assert_uint_eq(srv_table_find(&t, run), i);
    ck_assert_ptr_eq(srv_table_record(&t, i), records[i]);
    ck_assert_uint_eq(srv_table_mark(records[i]), i);
    ck_assert(records[i][1] == (float)i && records[i][width * 3] == (float)i);
  }
  ck_assert_uint_eq(srv_table_find(&t, 1), SRV_NO_ROW);
  uint64_t *sorted = srv_table_sorted(&t);
  for (uint32_t i = 0; i < n; i++) {
    ck_assert(i == 0 || srv_table_run_of(sorted[i]) > srv_table_run_of(sorted[i - 1]));
    ck_assert_uint_eq(srv_table_find(&t, srv_table_run_of(sorted[i])), srv_table_slot_of(sorted[i]));
  }
  ck_assert_uint_lt(t.bytes, 3 * (uint64_t)n * (t.stride * sizeof(float) + 16) + 8192);
  bl_free(sorted);
  bl_free(records);
  srv_table_fini(&t);
}
END_TEST

START_TEST(many_rows_reserved_at_once_lose_none) {
  srv_table t;
  srv_table_init(&t, 1, 0);
  for (uint32_t i = 0, n = 1; i < 30000; i++) {
    if (i + 1 > n)
      ck_assert_ok(srv_table_reserve(&t, n = n * 3 + 5)); /* beyond the next size, while cells still move */
    else
      ck_assert_ok(srv_table_reserve(&t, n));
    srv_table_add(&t, (UINT64_C(1) << 40) - 1 - i);
    ck_assert_uint_eq(srv_table_find(&t, (UINT64_C(1) << 40) - 1 - i / 2), i / 2);
  }
  ck_assert_status(srv_table_reserve(&t, SRV_TABLE_ROWS_MAX + 1), BL_ELIMIT);
  srv_table_fini(&t);
}
END_TEST

START_TEST(store_without_memory_stays_as_it_is) {
  uint64_t live = bl_alloc_get_stats().live_blocks;
  srv_table t;
  srv_table_init(&t, 3, 1);
  for (uint32_t i = 0; i < 3000; i++) {
    uint64_t before = t.bytes;
    bl_alloc_fail_after(1);
    bl_status st = srv_table_reserve(&t, i + 1);
    bl_alloc_fail_after(0);
    ck_assert(st == BL_OK || (st == BL_ENOMEM && t.bytes == before));
    if (i > 0)
      ck_assert_uint_eq(srv_table_find(&t, i - 1), i - 1);
    ck_assert_ok(srv_table_reserve(&t, i + 1));
    srv_table_add(&t, i);
  }
  srv_table_fini(&t);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
}
END_TEST

/* ---- lists of keys ------------------------------------------------------------------------------------- */

static bl_rows_view view_of(const uint64_t *keys, uint32_t n, uint8_t *bytes) {
  bl_rows_view v = {.key_bytes = put_keys(keys, n, bytes), .keys = bytes};
  v.id = bl_rows_id_of(bytes, v.key_bytes, n, 1);
  return v;
}

START_TEST(list_longest_out_of_use_is_let_go) {
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bl_frame_pools pools;
  srv_key_cache c;
  ck_assert_ok(bl_frame_pools_init(&pools, 4096, 8));
  srv_key_cache_init(&c, 4096);
  uint8_t bytes[4][64];
  bl_rows_view v[4];
  for (uint64_t i = 0; i < 4; i++) {
    uint64_t keys[] = {i, 100 + i, 200};
    v[i] = view_of(keys, 3, bytes[i]);
  }
  for (uint32_t i = 0; i < 3; i++)
    srv_keys_unref(srv_keys_take(&c, &pools, 1, 9, &v[i]));
  c.bytes_max = c.bytes + 10;
  srv_keys *held = srv_keys_find(&c, 1, 9, &v[0].id); /* in use again, and held */
  ck_assert_ptr_nonnull(held);
  ck_assert_ptr_null(srv_keys_find(&c, 2, 9, &v[0].id)); /* another rank's */
  ck_assert_ptr_null(srv_keys_find(&c, 1, 8, &v[0].id));
  bl_rows_id other = v[0].id;
  other.n_rows = 4;
  ck_assert_ptr_null(srv_keys_find(&c, 1, 9, &other));
  srv_keys_unref(srv_keys_take(&c, &pools, 1, 9, &v[3]));
  ck_assert_ptr_null(srv_keys_find(&c, 1, 9, &v[1].id));
  srv_keys *again = srv_keys_take(&c, &pools, 1, 9, &v[0]);
  ck_assert_ptr_eq(again, held);
  srv_keys_unref(again);
  srv_key_cache_fini(&c);
  bl_rows_reader r = bl_rows_read(held->keys); /* whoever holds it has it for as long as he wants */
  ck_assert_uint_eq(bl_rows_next(&r), 0);
  ck_assert_uint_eq(c.bytes_live, held->bytes);
  srv_keys_unref(held);
  bl_frame_pools_fini(&pools);
  ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
}
END_TEST

START_TEST(cache_of_no_bytes_keeps_nothing) {
  bl_frame_pools pools;
  srv_key_cache c;
  uint8_t bytes[64];
  ck_assert_ok(bl_frame_pools_init(&pools, 4096, 8));
  srv_key_cache_init(&c, 0);
  bl_rows_view v = view_of(some_keys, 3, bytes);
  srv_keys_unref(srv_keys_take(&c, &pools, 1, 9, &v));
  ck_assert_ptr_null(srv_keys_find(&c, 1, 9, &v.id));
  ck_assert_uint_eq(c.bytes_live, 0);
  srv_key_cache_fini(&c);
  bl_frame_pools_fini(&pools);
}
END_TEST

/* ---- sessions and shards ------------------------------------------------------------------------------- */

#define MS BL_NS_PER_MS
#define QUEUE_MAX 256
#define SHARDS_MAX 2
#define RANKS_MAX 2
#define ROWS 1000
#define TABLE 1 /* behind a bias */

typedef struct line {
  bl_transport transport;
  bl_msg queue[QUEUE_MAX];
  uint32_t first, n;
} line;

static bl_status put(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  line *l = (line *)t;
  (void)to;
  ck_assert_uint_lt(l->n, QUEUE_MAX);
  bl_msg *slot = &l->queue[(l->first + l->n++) % QUEUE_MAX];
  *slot = (bl_msg)BL_MSG_INIT;
  bl_msg_move(slot, msg);
  return BL_OK;
}

static bool take(line *l, bl_msg *msg) {
  if (l->n == 0)
    return false;
  *msg = l->queue[l->first];
  l->first = (l->first + 1) % QUEUE_MAX;
  l->n--;
  return true;
}

typedef struct side { /* a rank */
  line up[SHARDS_MAX];
  bl_transport *transports[SHARDS_MAX];
  bl_session *session;
  float bias[7], grad[7];
  float *weights[3];
} side;

typedef struct bench {
  Ballast__Control__JobPlan *plan;
  bl_tensor_table *table;
  srv_shard *shards[SHARDS_MAX];
  line down[SHARDS_MAX]; /* to whom: by the rank in the message's peer */
  side ranks[RANKS_MAX];
  uint32_t n_shards, world;
} bench;

/* Answers go to the rank whose message or turn it is: shards are given one transport, and peers are numbered.
 */
static bench *routed;
static size_t damage_bit = SIZE_MAX; /* of the first frame of row answers; beyond: none */
static void damage(bl_msg *msg) {
  bl_frame *f = msg->n_frames > 0 ? msg->frames[0] : NULL;
  if (f == NULL || damage_bit / 8 >= f->size)
    return;
  msg->frames[0] = bl_frame_copy(f->data, f->size);
  msg->frames[0]->data[damage_bit / 8] ^= (uint8_t)(1u << damage_bit % 8);
  bl_frame_unref(f);
}

static bl_status route(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  (void)t;
  bl_session *s = routed->ranks[to->id[0] - '0'].session;
  uint32_t shard = (uint32_t)((line *)t - routed->down);
  damage(msg);
  if (s != NULL)
    bl_session_on_msg(s, shard, msg, MS);
  bl_msg_fini(msg);
  return BL_OK;
}

static const uint64_t bias_elems[] = {7};
static const test_table tables[] = {{ROWS, 2}};

static test_plan_options options_of(uint32_t world, uint32_t n_shards) {
  return (test_plan_options){.job = 7,
                             .world = world,
                             .n_shards = n_shards,
                             .tensor_elems = bias_elems,
                             .n_tensors = 1,
                             .tables = tables,
                             .n_tables = 1,
                             .chunk_elems = 512,
                             .key_cache_bytes = 1 << 20};
}

static void session_start(bench *b, uint32_t r) {
  side *s = &b->ranks[r];
  for (uint32_t i = 0; i < b->n_shards; i++) {
    s->up[i].transport.send = put;
    s->transports[i] = &s->up[i].transport;
  }
  s->weights[0] = s->bias;
  bl_session_config config = {.job = 7,
                              .rank = r,
                              .world = b->world,
                              .incarnation = b->plan->incarnations[r],
                              .view = b->plan->view,
                              .table = b->table,
                              .shard_of_chunk = b->plan->chunk_shards,
                              .n_shards = b->n_shards,
                              .shards = s->transports,
                              .caches_keys = true,
                              .retry_ns = 100 * MS,
                              .weights = s->weights};
  ck_assert_ok(bl_session_new(&config, &s->session, NULL));
}

static bench *bench_new(const test_plan_options *o, const srv_shard_config *over) {
  static const char *const names[] = {"s0", "s1"};
  bench *b = routed = calloc(1, sizeof *b);
  ck_assert_ptr_nonnull(b);
  b->plan = test_plan_new(o);
  b->n_shards = o->n_shards;
  b->world = o->world;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(bl_plan_table(b->plan, &b->table, &err), err);
  for (uint32_t i = 0; i < b->n_shards; i++) {
    b->down[i].transport.send = route;
    srv_shard_config config = {.server = names[i],
                               .window_bytes = 1 << 20,
                               .hold_bytes_max = 1 << 24,
                               .log_bytes_max = 1 << 20,
                               .memory_bytes_max = over != NULL ? over->memory_bytes_max : 0,
                               .transport = &b->down[i].transport};
    ck_assert_ok(srv_shard_new(&config, &b->shards[i], NULL));
    ck_assert_ok_err(srv_shard_open_job(b->shards[i], b->plan, &err), err);
    while (srv_shard_tick(b->shards[i], MS) == MS)
      ;
  }
  for (uint32_t r = 0; r < b->world; r++)
    session_start(b, r);
  return b;
}

static void bench_free(bench *b) {
  bl_msg m;
  for (uint32_t r = 0; r < b->world; r++) {
    bl_session_free(b->ranks[r].session);
    for (uint32_t i = 0; i < b->n_shards; i++)
      while (take(&b->ranks[r].up[i], &m))
        bl_msg_fini(&m);
  }
  for (uint32_t i = 0; i < b->n_shards; i++)
    srv_shard_free(b->shards[i]);
  bl_tensor_table_free(b->table);
  bl_control_free(&b->plan->base);
  free(b);
}

static bl_peer peer_of(uint32_t r) {
  return (bl_peer){.id = {(uint8_t)('0' + r)}, .id_size = 1};
}

static void carry(bench *b) {
  for (bool any = true; any;) {
    any = false;
    for (uint32_t k = 0; k < b->world * b->n_shards; k++) {
      uint32_t r = k % b->world, i = k / b->world;
      bl_peer peer = peer_of(r);
      bl_msg m;
      while (take(&b->ranks[r].up[i], &m)) {
        any = true;
        srv_shard_on_msg(b->shards[i], &peer, &m, MS);
        bl_msg_fini(&m);
      }
      while (srv_shard_tick(b->shards[i], MS) == MS)
        ;
    }
  }
}

static void begin(bench *b) {
  for (uint32_t r = 0; r < b->world; r++)
    bl_session_start(b->ranks[r].session, MS);
  carry(b);
  for (uint32_t r = 0; r < b->world; r++)
    bl_session_pull(b->ranks[r].session, bl_session_clock(b->ranks[r].session), MS);
  carry(b);
}

static void assert_well(const bench *b) {
  for (uint32_t r = 0; r < b->world; r++) {
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(bl_session_status(b->ranks[r].session, &err), err);
  }
}

/* Every third row from r on; a rank's list of a clock. */
static uint32_t list_of(uint32_t first, uint64_t *rows) {
  uint32_t n = 0;
  for (uint64_t row = first; row < ROWS; row += 3)
    rows[n++] = row;
  return n;
}

static void pull(bench *b, uint32_t r, uint64_t version, const uint64_t *rows, uint32_t n, float *values) {
  bl_session_pull_rows(b->ranks[r].session, TABLE, version, rows, n, values, MS);
  carry(b);
}

/* A whole clock of one rank with a gradient of ones for these rows. */
static void push(bench *b, uint32_t r, const uint64_t *rows, uint32_t n) {
  static float ones[2 * ROWS];
  for (uint32_t i = 0; i < 2 * ROWS; i++)
    ones[i] = 1;
  bl_session_push_rows(b->ranks[r].session, TABLE, rows, n, ones, MS);
  bl_session_push(b->ranks[r].session, 0, b->ranks[r].grad, MS);
  bl_session_commit(b->ranks[r].session, 1, true, 1, MS);
  carry(b);
}

static float initial(const bench *b, uint64_t row, uint32_t k) {
  float v;
  bl_tensor_init_values(&b->table->tensors[TABLE], b->plan->seed, row * 2 + k, 1, &v);
  return v;
}

START_TEST(keys_go_out_once_for_pull_and_push) {
  test_plan_options o = options_of(1, 2);
  bench *b = bench_new(&o, NULL);
  uint64_t rows[ROWS];
  float values[2 * ROWS];
  uint32_t n = list_of(0, rows);
  begin(b);
  for (uint64_t clock = 0; clock < 3; clock++) {
    pull(b, 0, clock, rows, n, values);
    ck_assert(bl_session_rows_ready(b->ranks[0].session, TABLE));
    for (uint32_t i = 0; i < 2 * n; i++) {
      float want = initial(b, rows[i / 2], i % 2);
      for (uint64_t k = 0; k < clock; k++)
        want -= 0.1f;
      ck_assert_float_eq(values[i], want);
    }
    push(b, 0, rows, n);
    ck_assert_uint_eq(bl_session_clock(b->ranks[0].session), clock + 1);
  }
  assert_well(b);
  bl_session_stats s = bl_session_get_stats(b->ranks[0].session);
  ck_assert_uint_ge(s.keys_sent_bytes, n);
  ck_assert_uint_le(s.keys_sent_bytes, 2 * n);
  ck_assert_uint_eq(s.keys_saved_bytes, 5 * s.keys_sent_bytes);
  ck_assert_uint_eq(s.rows_pulled, 3 * n);
  ck_assert_uint_eq(s.rows_pushed, 3 * n);
  ck_assert_uint_eq(s.bytes_pulled_dense,
                    (3 * n * 2 + 4 * 7) * sizeof(float)); /* and the bias, once at the start */
  ck_assert_uint_eq(s.bytes_pushed_dense, 3 * (n * 2 + 7) * sizeof(float));
  srv_shard_stats a, c;
  srv_shard_get_stats(b->shards[0], &a);
  srv_shard_get_stats(b->shards[1], &c);
  ck_assert_uint_eq(a.key_bytes + c.key_bytes, s.keys_sent_bytes);
  ck_assert_uint_eq(a.key_bytes_saved + c.key_bytes_saved, s.keys_saved_bytes);
  srv_shard_job_info info[2];
  for (uint32_t i = 0; i < 2; i++)
    ck_assert_ok(srv_shard_job_status(b->shards[i], 7, &info[i]));
  ck_assert_uint_eq(info[0].table_rows + info[1].table_rows, n);
  ck_assert_uint_eq(info[0].key_bytes + info[1].key_bytes, s.keys_sent_bytes);
  bench_free(b);
}
END_TEST

START_TEST(list_that_the_shard_has_let_go_is_sent_again) {
  test_plan_options o = options_of(1, 1);
  o.key_cache_bytes = 1; /* nothing fits in */
  bench *b = bench_new(&o, NULL);
  uint64_t rows[ROWS];
  float values[2 * ROWS];
  uint32_t n = list_of(1, rows);
  begin(b);
  for (uint64_t clock = 0; clock < 2; clock++) {
    pull(b, 0, clock, rows, n, values);
    ck_assert(bl_session_rows_ready(b->ranks[0].session, TABLE));
    ck_assert_float_eq(values[0], clock == 0 ? initial(b, 1, 0) : initial(b, 1, 0) - 0.1f);
    push(b, 0, rows, n);
  }
  assert_well(b);
  ck_assert_uint_eq(bl_session_clock(b->ranks[0].session), 2); /* without a retry: time stood still */
  bench_free(b);
}
END_TEST

static void count_rows(const uint64_t *rows, uint32_t n, const float *values, void *arg) {
  (void)values;
  uint64_t *sum = arg;
  for (uint32_t i = 0; i < n; i++) {
    ck_assert(i == 0 || rows[i] > rows[i - 1]);
    sum[0]++;
    sum[1] += rows[i];
  }
}

START_TEST(rows_are_made_by_pushes_only) {
  test_plan_options o = options_of(1, 2);
  o.key_cache_bytes = 0; /* which would count too */
  bench *b = bench_new(&o, NULL);
  uint64_t rows[ROWS], few[] = {5, 77, 998}, sum[2] = {0, 0};
  float values[2 * ROWS];
  srv_shard_job_info before, after;
  begin(b);
  ck_assert_ok(srv_shard_job_status(b->shards[0], 7, &before));
  pull(b, 0, 0, rows, list_of(0, rows), values);
  ck_assert_ok(srv_shard_job_status(b->shards[0], 7, &after));
  ck_assert_uint_eq(before.memory_bytes, after.memory_bytes);
  ck_assert_ok(bl_session_dump_rows(b->ranks[0].session, TABLE, 0, count_rows, sum, MS));
  carry(b);
  ck_assert(bl_session_dump_is_done(b->ranks[0].session));
  ck_assert_uint_eq(sum[0], 0);
  push(b, 0, few, 3);
  ck_assert_ok(srv_shard_job_status(b->shards[0], 7, &after));
  ck_assert_uint_gt(after.memory_bytes, before.memory_bytes);
  ck_assert_ok(bl_session_dump_rows(b->ranks[0].session, TABLE, 1, count_rows, sum, MS));
  carry(b);
  ck_assert(bl_session_dump_is_done(b->ranks[0].session));
  ck_assert_uint_eq(sum[0], 3);
  ck_assert_uint_eq(sum[1], 5 + 77 + 998);
  assert_well(b);
  bench_free(b);
}
END_TEST

START_TEST(version_before_is_there_until_the_next_step) {
  test_plan_options o = options_of(2, 1);
  bench *b = bench_new(&o, NULL);
  uint64_t a[] = {5, 77}, c[] = {77, 200}, all[] = {5, 6, 77, 200};
  float v[8];
  begin(b);
  push(b, 0, a, 2);
  push(b, 1, c, 2);
  ck_assert_uint_eq(bl_session_clock(b->ranks[0].session), 1);
  push(b, 0, a, 1); /* clock 1 is open: rows made in it do not show */
  b->plan->view++;
  b->plan->incarnations[1]++;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(srv_shard_open_job(b->shards[0], b->plan, &err), err);
  bl_session_free(b->ranks[1].session);
  session_start(b, 1);
  bl_session_set_view(b->ranks[0].session, b->plan->view, MS);
  bl_session_start(b->ranks[1].session, MS);
  carry(b);
  pull(b, 1, 0, all, 4, v);
  ck_assert(bl_session_rows_ready(b->ranks[1].session, TABLE));
  for (uint32_t i = 0; i < 8; i++)
    ck_assert_float_eq(v[i], initial(b, all[i / 2], i % 2));
  pull(b, 1, 1, all, 4, v);
  ck_assert_float_eq(v[0], initial(b, 5, 0) - 0.1f);
  ck_assert_float_eq(v[2], initial(b, 6, 0));
  ck_assert_float_eq(v[4], initial(b, 77, 0) - 0.2f);
  ck_assert_float_eq(v[6], initial(b, 200, 0) - 0.1f);
  assert_well(b);
  bench_free(b);
}
END_TEST

START_TEST(answer_to_another_list_is_passed_over) {
  test_plan_options o = options_of(1, 1);
  bench *b = bench_new(&o, NULL);
  uint64_t first[] = {8, 12}, second[] = {9, 13}; /* as many rows of each bucket: only the keys differ */
  float v[4] = {0}, w[4];
  begin(b);
  const bl_tensor *t = &b->table->tensors[TABLE];
  for (uint32_t i = 0; i < 2; i++)
    while (bl_table_bucket(t, second[i]) != bl_table_bucket(t, first[i]))
      second[i]++;
  ck_assert_uint_lt(second[0], second[1]);
  bl_session_pull_rows(b->ranks[0].session, TABLE, 0, first, 2, v, MS);
  bl_peer peer = peer_of(0);
  bl_msg m;
  ck_assert(take(&b->ranks[0].up[0], &m));
  bl_session_pull_rows(b->ranks[0].session, TABLE, 0, second, 2, w, MS); /* the first is given up */
  srv_shard_on_msg(b->shards[0], &peer, &m, MS);
  while (srv_shard_tick(b->shards[0], MS) == MS) /* and answered all the same */
    ;
  bl_msg_fini(&m);
  ck_assert(!bl_session_rows_ready(b->ranks[0].session, TABLE));
  ck_assert_float_eq(v[0], 0);
  carry(b);
  ck_assert(bl_session_rows_ready(b->ranks[0].session, TABLE));
  for (uint32_t i = 0; i < 4; i++)
    ck_assert_float_eq(w[i], initial(b, second[i / 2], i % 2));
  assert_well(b);
  bench_free(b);
}
END_TEST

START_TEST(damaged_answers_are_not_taken_and_asked_for_again) {
  for (size_t bit = 0; bit < (BL_ROWS_HEADER_BYTES + BL_CODEC_HEADER_BYTES + 4 * sizeof(float)) * 8; bit += 3) {
    test_plan_options o = options_of(1, 1);
    bench *b = bench_new(&o, NULL);
    const bl_tensor *t = &b->table->tensors[TABLE];
    uint64_t rows[] = {bl_table_row(t, 1, 0), bl_table_row(t, 1, 5)};
    float v[4] = {0, 0, 0, 0};
    begin(b);
    damage_bit = bit;
    pull(b, 0, 0, rows, 2, v);
    damage_bit = SIZE_MAX;
    ck_assert_msg(!bl_session_rows_ready(b->ranks[0].session, TABLE), "bit %zu", bit);
    for (uint32_t i = 0; i < 4; i++)
      ck_assert_float_eq(v[i], 0);
    bl_session_tick(b->ranks[0].session, 1000 * MS);
    carry(b);
    ck_assert(bl_session_rows_ready(b->ranks[0].session, TABLE));
    for (uint32_t i = 0; i < 4; i++)
      ck_assert_float_eq(v[i], initial(b, rows[i / 2], i % 2));
    assert_well(b);
    bench_free(b);
  }
}
END_TEST

START_TEST(table_beyond_its_memory_ends_the_job_with_a_sentence) {
  test_plan_options o = options_of(1, 1);
  srv_shard_config over = {.memory_bytes_max = 4000};
  bench *b = bench_new(&o, &over);
  uint64_t rows[ROWS];
  begin(b);
  push(b, 0, rows, list_of(0, rows));
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_session_status(b->ranks[0].session, &err), BL_ELIMIT);
  ck_assert_msg(strstr(err.text, "table 't1'") != NULL && strstr(err.text, "4000") != NULL, "%s", err.text);
  bench_free(b);
}
END_TEST

START_TEST(nan_in_a_row_fails_the_job) {
  test_plan_options o = options_of(1, 1);
  bench *b = bench_new(&o, NULL);
  uint64_t rows[] = {3};
  float nan[] = {1, NAN};
  begin(b);
  bl_session_push_rows(b->ranks[0].session, TABLE, rows, 1, nan, MS);
  bl_session_push(b->ranks[0].session, 0, b->ranks[0].grad, MS);
  bl_session_commit(b->ranks[0].session, 1, true, 1, MS);
  carry(b);
  srv_shard_job_info info;
  ck_assert_ok(srv_shard_job_status(b->shards[0], 7, &info));
  ck_assert_int_eq(info.status, BL_ENOTFINITE);
  ck_assert_msg(strstr(info.text, "'t1'") != NULL, "%s", info.text);
  bench_free(b);
}
END_TEST

START_TEST(rows_of_a_skipped_clock_stay_what_they_were) {
  test_plan_options o = options_of(2, 1);
  o.not_finite = BL_NOT_FINITE_SKIP;
  bench *b = bench_new(&o, NULL);
  uint64_t a[] = {5, 77}, c[] = {77, 200}, all[] = {5, 77, 200};
  float v[6], nan[] = {1, NAN, 2, INFINITY};
  begin(b);
  push(b, 0, a, 2);
  push(b, 1, c, 2);
  push(b, 0, a, 2);
  bl_session_push_rows(b->ranks[1].session, TABLE, c, 2, nan, MS);
  bl_session_push(b->ranks[1].session, 0, b->ranks[1].grad, MS);
  bl_session_commit(b->ranks[1].session, 1, false, 1, MS);
  carry(b);
  ck_assert_uint_eq(bl_session_clock(b->ranks[0].session), 2);
  for (uint32_t step = 1; step <= 2; step++) { /* rows that were touched for nothing can be touched again */
    pull(b, 0, bl_session_clock(b->ranks[0].session), all, 3, v);
    ck_assert_float_eq_tol(v[0], initial(b, 5, 0) - 0.1f * (float)step, 1e-6f);
    ck_assert_float_eq_tol(v[2], initial(b, 77, 0) - 0.2f * (float)step, 1e-6f);
    ck_assert_float_eq_tol(v[5], initial(b, 200, 1) - 0.1f * (float)step, 1e-6f);
    push(b, 0, a, 2);
    push(b, 1, c, 2);
  }
  assert_well(b);
  bench_free(b);
}
END_TEST

START_TEST(too_many_rows_of_a_bucket_are_named) {
  static const test_table large[] = {{UINT64_C(1) << 40, 8}};
  test_plan_options o = options_of(1, 1);
  o.tables = large;
  o.chunk_elems = 16; /* two rows in a frame */
  bench *b = bench_new(&o, NULL);
  const bl_tensor *t = &b->table->tensors[TABLE];
  ck_assert_uint_eq(t->n_chunks, BL_TABLE_BUCKETS_MAX);
  uint64_t rows[3];
  float v[24];
  for (uint64_t run = 0; run < 3; run++)
    rows[run] = bl_table_row(t, 9, run << 20);
  begin(b);
  pull(b, 0, 0, rows, 2, v);
  ck_assert(bl_session_rows_ready(b->ranks[0].session, TABLE));
  assert_well(b);
  pull(b, 0, 0, rows, 3, v);
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(bl_session_status(b->ranks[0].session, &err), BL_ELIMIT);
  ck_assert_msg(strstr(err.text, "3 rows of one bucket") != NULL, "%s", err.text);
  bench_free(b);
}
END_TEST

/* ---- hostile workers ----------------------------------------------------------------------------------- */

static bl_data_msg answer; /* the last one that a shard gave */
static bl_status catch_answer(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  (void)t, (void)to;
  ck_assert_ok(bl_data_unpack(msg, &answer, NULL));
  bl_msg_fini(msg);
  return BL_OK;
}

static void say(bench *b, const bl_data_msg *d, bl_frame *frame) {
  bl_msg m = BL_MSG_INIT;
  bl_peer peer = peer_of(0);
  if (frame != NULL)
    ck_assert_ok(bl_msg_add_frame(&m, frame));
  ck_assert_ok(bl_data_pack(d, m.n_frames, &m));
  memset(&answer, 0, sizeof answer);
  srv_shard_on_msg(b->shards[0], &peer, &m, MS);
  while (srv_shard_tick(b->shards[0], MS) == MS)
    ;
  bl_msg_fini(&m);
}

static bl_frame *row_frame(const bench *b, uint64_t n_rows, bool keys, bool numbers) {
  uint64_t runs[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  bl_codec_spec spec;
  ck_assert_ok(bl_codec_spec_read(b->plan->codec_push, &spec, NULL));
  float ones[16] = {1, 1, 1, 1};
  uint8_t bytes[256];
  bl_frame *f = bl_frame_new(512);
  uint32_t key_bytes = put_keys(runs, (uint32_t)n_rows, bytes);
  bl_rows_id id = bl_rows_id_of(bytes, key_bytes, (uint32_t)n_rows, 2);
  uint8_t *p = bl_rows_put(f->data, &id, keys ? bytes : NULL, key_bytes, numbers);
  f->size = (size_t)(p - f->data) + (numbers ? bl_codec_encode(&(bl_encode){.spec = &spec}, ones, NULL, (uint32_t)n_rows * 2, 0, p) : 0);
  return f;
}

static bench *hostile_bench(void) {
  test_plan_options o = options_of(1, 1);
  bench *b = bench_new(&o, NULL);
  b->down[0].transport.send = catch_answer;
  return b;
}

static bl_data_msg push_of(uint32_t chunk) {
  bl_data_msg d = {.type = BL_MSG_PUSH};
  d.push = (bl_push){.job = 7, .view = 1, .incarnation = 1, .request = 1, .n_chunks = 1, .chunks = {chunk}};
  return d;
}

static bl_data_msg pull_rows_of(uint32_t chunk) {
  bl_data_msg d = {.type = BL_MSG_PULL_ROWS};
  d.pull_rows =
      (bl_pull_rows){.job = 7, .view = 1, .incarnation = 1, .request = 1, .n_chunks = 1, .chunks = {chunk}};
  return d;
}

static bl_data_msg commit_of(uint32_t n_chunks) {
  bl_data_msg d = {.type = BL_MSG_COMMIT};
  d.commit = (bl_commit){.job = 7, .view = 1, .incarnation = 1, .request = 1, .scale = 1, .n_chunks = n_chunks};
  return d;
}

#define ASSERT_REFUSED(expected, says)                                                                         \
  do {                                                                                                         \
    ck_assert_msg(answer.type == BL_MSG_REFUSE && answer.refuse.status == (expected) &&                        \
                      strstr(answer.refuse.text, says) != NULL,                                                \
                  "%s: %s", bl_msg_type_name(answer.type), answer.refuse.text);                                \
  } while (0)

START_TEST(shard_refuses_what_makes_no_sense_of_a_table) {
  bench *b = hostile_bench();
  bl_data_msg d = push_of(1);
  say(b, &d, row_frame(b, 3, true, false));
  ASSERT_REFUSED(BL_EINVAL, "without numbers");
  say(b, &d, bl_frame_copy("x", 1));
  ASSERT_REFUSED(BL_ECORRUPT, "shorter than its header");
  bl_frame *f = row_frame(b, 3, true, true);
  f->data[f->size - 1] ^= 1;
  say(b, &d, f);
  ASSERT_REFUSED(BL_ECORRUPT, "checksum");
  say(b, &d, row_frame(b, 3, false, true));
  ck_assert_int_eq(answer.type, BL_MSG_NEED_KEYS);
  ck_assert(answer.need_keys.push && answer.need_keys.n_chunks == 1 && answer.need_keys.chunks[0] == 1);
  d = pull_rows_of(1);
  say(b, &d, row_frame(b, 3, false, false));
  ck_assert(answer.type == BL_MSG_NEED_KEYS && !answer.need_keys.push);
  say(b, &d, row_frame(b, 3, true, true));
  ASSERT_REFUSED(BL_EINVAL, "with numbers");
  d = pull_rows_of(0);
  say(b, &d, row_frame(b, 3, true, false));
  ASSERT_REFUSED(BL_EINVAL, "not of a table");
  d = (bl_data_msg){.type = BL_MSG_PULL};
  d.pull = (bl_pull){.job = 7, .view = 1, .incarnation = 1, .request = 1, .n_chunks = 1, .chunks = {1}};
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EINVAL, "of a table");
  d = (bl_data_msg){.type = BL_MSG_DUMP_ROWS};
  d.dump_rows = (bl_dump_rows){.job = 7, .view = 1, .incarnation = 1, .request = 1, .chunk = 0};
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EINVAL, "no table's");
  d.dump_rows.chunk = 1;
  d.dump_rows.from = UINT64_MAX;
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EINVAL, "no table's");
  d.dump_rows.from = 0;
  d.dump_rows.version = 9;
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EAGAIN, "version 9");
  bench_free(b);
}
END_TEST

START_TEST(commit_and_pushed_buckets_must_agree) {
  bench *b = hostile_bench();
  bl_data_msg d = commit_of(0);
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EMISMATCH, "counts 0 chunks"); /* the bias is pushed always */
  d = commit_of(b->table->n_chunks + 1);
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EMISMATCH, "this shard has");
  for (uint32_t chunk = 1; chunk < 3; chunk++) {
    d = push_of(chunk);
    say(b, &d, row_frame(b, 2, true, true));
    ck_assert_int_eq(answer.type, BL_MSG_ACK);
  }
  d = commit_of(1);
  say(b, &d, NULL);
  ASSERT_REFUSED(BL_EMISMATCH, "counts 0 buckets, 2 are here");
  d = commit_of(3);
  say(b, &d, NULL);
  ck_assert_int_eq(answer.type, BL_MSG_ACK);
  d = push_of(3);
  say(b, &d, row_frame(b, 2, true, true)); /* three chunks, but the bias is not among them */
  ASSERT_REFUSED(BL_EMISMATCH, "counts 2 buckets");
  bench_free(b);
}
END_TEST

START_TEST(push_behind_a_full_commit_is_refused) {
  test_plan_options o = options_of(2, 1);
  bench *b = bench_new(&o, NULL);
  b->down[0].transport.send = catch_answer;
  float zeros[7] = {0};
  bl_frame *bias = test_frame("float32", zeros, 7, 0);
  bl_data_msg d = push_of(0);
  say(b, &d, bias);
  d = push_of(1);
  say(b, &d, row_frame(b, 2, true, true));
  d = commit_of(2);
  say(b, &d, NULL);
  d = push_of(2);
  say(b, &d, row_frame(b, 2, true, true));
  ASSERT_REFUSED(BL_EMISMATCH, "counts 1 buckets");
  bench_free(b);
}
END_TEST

START_TEST(damaged_row_frames_change_nothing_on_a_shard) {
  bench *b = hostile_bench();
  uint64_t before = srv_shard_state_checksum(b->shards[0]);
  bl_data_msg d = push_of(1);
  bl_frame *good = row_frame(b, 5, true, true);
  for (size_t cut = 0; cut < good->size; cut++) {
    say(b, &d, bl_frame_copy(good->data, cut));
    ck_assert_int_eq(answer.type, BL_MSG_REFUSE);
  }
  for (size_t bit = 0; bit < good->size * 8; bit++) {
    bl_frame *bad = bl_frame_copy(good->data, good->size);
    bad->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    say(b, &d, bad);
    ck_assert_msg(answer.type == BL_MSG_REFUSE, "bit %zu", bit);
  }
  bl_frame_unref(good);
  ck_assert_uint_eq(srv_shard_state_checksum(b->shards[0]), before);
  bench_free(b);
}
END_TEST

/* ---- memory -------------------------------------------------------------------------------------------- */

START_TEST(opening_and_joining_survive_the_loss_of_any_allocation) {
  test_plan_options o = options_of(2, 1);
  Ballast__Control__JobPlan *plan = test_plan_new(&o);
  bl_tensor_table *table;
  ck_assert_ok(bl_plan_table(plan, &table, NULL));
  line up = {.transport.send = put};
  bl_transport *transports[] = {&up.transport};
  float bias[7];
  float *weights[] = {bias, NULL};
  bl_session_config config = {.job = 7,
                              .world = 2,
                              .incarnation = 1,
                              .view = 1,
                              .table = table,
                              .shard_of_chunk = plan->chunk_shards,
                              .n_shards = 1,
                              .shards = transports,
                              .weights = weights};
  uint64_t live = bl_alloc_get_stats().live_blocks;
  for (uint64_t n = 1, done = 0; done < 2; n++) {
    srv_shard_config shard = {.server = "s0", .window_bytes = 1, .log_bytes_max = 1};
    srv_shard *s = NULL;
    bl_session *session = NULL;
    ck_assert_ok(srv_shard_new(&shard, &s, NULL));
    bl_alloc_fail_after(n);
    bl_status opened = srv_shard_open_job(s, plan, NULL);
    bl_alloc_fail_after(n);
    bl_status joined = bl_session_new(&config, &session, NULL);
    bl_alloc_fail_after(0);
    ck_assert(opened == BL_OK || opened == BL_ENOMEM);
    ck_assert(joined == BL_OK || joined == BL_ENOMEM);
    done = (opened == BL_OK) + (joined == BL_OK);
    bl_session_free(session);
    srv_shard_free(s);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
  }
  bl_tensor_table_free(table);
  bl_control_free(&plan->base);
}
END_TEST

START_TEST(push_without_memory_is_refused_and_comes_in_later) {
  uint32_t n_refused = 0;
  for (uint64_t n = 1;; n++) {
    bench *b = hostile_bench();
    bl_data_msg d = push_of(1);
    bl_frame *f = row_frame(b, 5, true, true);
    bl_peer peer = peer_of(0);
    bl_msg m = BL_MSG_INIT;
    ck_assert_ok(bl_msg_add_frame(&m, f));
    ck_assert_ok(bl_data_pack(&d, 1, &m));
    memset(&answer, 0, sizeof answer);
    bl_alloc_fail_after(n);
    srv_shard_on_msg(b->shards[0], &peer, &m, MS);
    bl_alloc_fail_after(0);
    bool refused = answer.type != BL_MSG_ACK;
    n_refused += refused;
    srv_shard_on_msg(b->shards[0], &peer, &m, MS);
    ck_assert_int_eq(answer.type, BL_MSG_ACK);
    bl_msg_fini(&m);
    bench_free(b);
    if (!refused)
      break;
  }
  ck_assert_uint_gt(n_refused, 3);
}
END_TEST

START_TEST(steady_exchange_of_rows_allocates_nothing) {
  test_plan_options o = options_of(1, 2);
  o.clocks = 100;
  bench *b = bench_new(&o, NULL);
  uint64_t rows[ROWS], calls = 0;
  float values[2 * ROWS];
  begin(b);
  for (uint64_t clock = 0; clock < 12; clock++) {
    if (clock == 6)
      calls = bl_alloc_get_stats().total_calls;
    uint32_t n = list_of((uint32_t)clock % 3, rows);
    pull(b, 0, clock, rows, n, values);
    ck_assert(bl_session_rows_ready(b->ranks[0].session, TABLE));
    push(b, 0, rows, n);
  }
  assert_well(b);
  ck_assert_uint_eq(bl_alloc_get_stats().total_calls, calls);
  bench_free(b);
}
END_TEST

int main(void) {
  Suite *s = suite_create("rows");
  TCase *tc = tcase_create("frames");
  tcase_add_test(tc, row_frame_is_as_its_header_says);
  tcase_add_test(tc, row_frame_comes_back_as_it_was);
  tcase_add_test(tc, damaged_row_frame_is_refused);
  tcase_add_loop_test(tc, hostile_row_frame_is_refused_with_a_sentence, 0, BL_COUNT_OF(hostile_frames));
  suite_add_tcase(s, tc);
  tc = tcase_create("store");
  tcase_add_loop_test(tc, rows_are_found_and_stay_where_they_are, 0, 3);
  tcase_add_test(tc, many_rows_reserved_at_once_lose_none);
  tcase_add_test(tc, store_without_memory_stays_as_it_is);
  tcase_add_test(tc, list_longest_out_of_use_is_let_go);
  tcase_add_test(tc, cache_of_no_bytes_keeps_nothing);
  suite_add_tcase(s, tc);
  tc = tcase_create("exchange");
  tcase_set_timeout(tc, 60);
  tcase_add_test(tc, keys_go_out_once_for_pull_and_push);
  tcase_add_test(tc, list_that_the_shard_has_let_go_is_sent_again);
  tcase_add_test(tc, rows_are_made_by_pushes_only);
  tcase_add_test(tc, version_before_is_there_until_the_next_step);
  tcase_add_test(tc, answer_to_another_list_is_passed_over);
  tcase_add_test(tc, damaged_answers_are_not_taken_and_asked_for_again);
  tcase_add_test(tc, table_beyond_its_memory_ends_the_job_with_a_sentence);
  tcase_add_test(tc, nan_in_a_row_fails_the_job);
  tcase_add_test(tc, rows_of_a_skipped_clock_stay_what_they_were);
  tcase_add_test(tc, too_many_rows_of_a_bucket_are_named);
  tcase_add_test(tc, shard_refuses_what_makes_no_sense_of_a_table);
  tcase_add_test(tc, commit_and_pushed_buckets_must_agree);
  tcase_add_test(tc, push_behind_a_full_commit_is_refused);
  tcase_add_test(tc, damaged_row_frames_change_nothing_on_a_shard);
  tcase_add_test(tc, opening_and_joining_survive_the_loss_of_any_allocation);
  tcase_add_test(tc, push_without_memory_is_refused_and_comes_in_later);
  tcase_add_test(tc, steady_exchange_of_rows_allocates_nothing);
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
