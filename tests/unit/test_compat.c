/* SPDX-License-Identifier: Apache-2.0
 *
 * Versions: what version 1 sent and stored (tests/golden, made by its own code) is read with the same meaning, and what
 * is said to programs of version 1 is still what they said themselves.
 */
#include "base/file.h"
#include "base/alloc.h"
#include "base/le.h"
#include "base/num.h"
#include "coordinator/core.h"
#include "conf/schema.h"
#include "job/protocol.h"
#include "tests/support/golden.h"
#include "tests/support/support.h"

#include <inttypes.h>
#include <jansson.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- messages ---- */

static char names[GOLDEN_FILES_MAX][GOLDEN_NAME_BYTES_MAX];
static const char *wire_1(void) { return test_source_path("tests/golden/wire-1"); }

static void printed(const ProtobufCMessage *m, bl_buf *out) { pbtext_print(m, out); }

static void text_of_file(const ProtobufCMessageDescriptor *d, const char *name, bl_buf *out) {
  bl_buf text = BL_BUF_INIT;
  golden_read(wire_1(), name, ".txt", &text);
  ProtobufCMessage *m = pbtext_parse(d, bl_buf_str(&text));
  ck_assert_msg(m != NULL, "%s.txt names what today's schema does not have", name);
  printed(m, out);
  protobuf_c_message_free_unpacked(m, NULL);
  bl_buf_fini(&text);
}

static void assert_means(const char *name, const bl_buf *want, const ProtobufCMessage *m) {
  bl_buf got = BL_BUF_INIT;
  printed(m, &got);
  ck_assert_msg(strcmp(bl_buf_str(want), bl_buf_str(&got)) == 0, "%s means\n%s, it meant\n%s", name, bl_buf_str(&got),
                bl_buf_str(want));
  bl_buf_fini(&got);
}

static void assert_same_bytes(const char *name, const bl_msg *want, const bl_msg *got) {
  ck_assert_msg(got->head->size == want->head->size &&
                    memcmp(got->head->data, want->head->data, want->head->size) == 0 && got->n_frames == want->n_frames,
                "%s is packed otherwise than version 1 did", name);
}

static void check_control(const char *name, const bl_msg *golden, const bl_buf *want) {
  bl_msg_type type;
  ProtobufCMessage *m;
  bl_error err = BL_ERROR_INIT;
  bl_msg again = BL_MSG_INIT;
  ck_assert_ok_err(bl_control_unpack(golden, &type, &m, &err), err);
  ck_assert_int_eq(type, golden_type(name));
  assert_means(name, want, m);
  ck_assert_ok(bl_control_pack(type, m, &again));
  assert_same_bytes(name, golden, &again);
  bl_msg_fini(&again);
  bl_control_free(m);
}

static void check_data(const char *name, const bl_msg *golden, const bl_buf *want) {
  static bl_data_msg d;
  bl_error err = BL_ERROR_INIT;
  bl_msg again = BL_MSG_INIT;
  ck_assert_ok_err(bl_data_unpack(golden, &d, &err), err);
  ck_assert_int_eq(d.type, golden_type(name));
  for (uint32_t i = 0; i < golden->n_frames; i++)
    ck_assert_ok(bl_msg_add_frame(&again, bl_frame_ref(golden->frames[i])));
  ck_assert_ok(bl_data_pack(&d, golden->n_frames, &again));
  assert_same_bytes(name, golden, &again);
  ProtobufCMessage *m = protobuf_c_message_unpack(pbtext_descriptor(d.type), NULL, golden->head->size - 8,
                                                  golden->head->data + 8);
  ck_assert_ptr_nonnull(m);
  assert_means(name, want, m);
  protobuf_c_message_free_unpacked(m, NULL);
  bl_msg_fini(&again);
}

START_TEST(messages_of_version_1_are_read_and_packed_as_they_were) {
  size_t n = golden_list(wire_1(), ".hex", names);
  ck_assert_uint_ge(n, 40);
  for (size_t i = 0; i < n; i++) {
    bl_msg golden = BL_MSG_INIT;
    bl_buf want = BL_BUF_INIT;
    golden_msg_of_hex(wire_1(), names[i], &golden);
    ck_assert_uint_eq(golden.head->data[2], 1);
    text_of_file(pbtext_descriptor(golden_type(names[i])), names[i], &want);
    if (golden_type(names[i]) < BL_MSG_REGISTER)
      check_data(names[i], &golden, &want);
    else
      check_control(names[i], &golden, &want);
    bl_buf_fini(&want);
    bl_msg_fini(&golden);
  }
}
END_TEST

START_TEST(every_type_of_version_1_has_a_golden_message) {
  size_t n = golden_list(wire_1(), ".hex", names);
  for (int type = 1; type < BL_MSG_TYPE_END; type++) {
    if (strcmp(bl_msg_type_name((bl_msg_type)type), "?") == 0 || bl_msg_type_since((unsigned)type) != 1)
      continue;
    size_t i = 0;
    while (i < n && golden_type(names[i]) != (bl_msg_type)type)
      i++;
    ck_assert_msg(i < n, "no golden message of type %s", bl_msg_type_name((bl_msg_type)type));
  }
}
END_TEST

/* The values where our programs look for them: what packs and unpacks by one table could have them exchanged. */
START_TEST(fields_of_version_1_reach_their_places) {
  static bl_data_msg d;
  bl_msg m = BL_MSG_INIT;
  golden_msg_of_hex(wire_1(), "push", &m);
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert(d.push.job == 7 && d.push.view == 2 && d.push.rank == 1 && d.push.incarnation == 3 && d.push.clock == 12);
  ck_assert(d.push.request == 90 && d.push.answer && d.push.n_chunks == 3 && d.push.chunks[2] == 300);
  bl_msg_fini(&m);
  golden_msg_of_hex(wire_1(), "commit", &m);
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert(d.commit.request == 91 && d.commit.scale == 0.75f && !d.commit.not_finite && d.commit.n_samples == 32);
  ck_assert(d.commit.n_chunks == 3);
  bl_msg_fini(&m);
  golden_msg_of_hex(wire_1(), "welcome", &m);
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert(d.welcome.protocol == 1 && d.welcome.clock == 12 && d.welcome.oldest == 11 && d.welcome.shard == 1);
  ck_assert_uint_eq(d.welcome.window_bytes, 16 << 20);
  bl_msg_fini(&m);
  golden_msg_of_hex(wire_1(), "pull", &m);
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert(d.pull.have == 12 && d.pull.want == 13 && !d.pull.have_nothing && d.pull.chunks[1] == 2);
  bl_msg_fini(&m);
  golden_msg_of_hex(wire_1(), "frames", &m);
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert(d.frames.version == 13 && d.frames.from[1] == 12 && d.frames.to[0] == 12 && d.frames.chunks[2] == 2);
  bl_msg_fini(&m);
  golden_msg_of_hex(wire_1(), "refuse", &m);
  ck_assert_ok(bl_data_unpack(&m, &d, NULL));
  ck_assert_int_eq(d.refuse.status, BL_EVIEW);
  ck_assert(d.refuse.view == 3 && d.refuse.clock == 12);
  ck_assert_str_eq(d.refuse.text, "view 2 is over, the present one is 3");
  bl_msg_fini(&m);
}
END_TEST

/* Numbers are pinned: a field may be added, but not removed, renumbered, retyped or renamed. */
START_TEST(the_schema_of_version_1_is_still_there) {
  bl_buf then = BL_BUF_INIT, now = BL_BUF_INIT;
  golden_read(wire_1(), "schema", "", &then);
  pbtext_schema(&now);
  char *line, *rest = bl_buf_take_str(&then);
  unsigned n = 0;
  for (char *at = rest; (line = strsep(&at, "\n")) != NULL; n++) {
    char whole[256];
    snprintf(whole, sizeof whole, "%s\n", line);
    ck_assert_msg(line[0] == '\0' || strstr(bl_buf_str(&now), whole) != NULL, "gone or changed: %s", line);
  }
  ck_assert_uint_gt(n, 250);
  bl_free(rest);
  bl_buf_fini(&now);
}
END_TEST

/* ---- the version in the preamble ---- */

static bl_status check_bytes(unsigned version, unsigned type, bl_error *err) {
  uint8_t bytes[BL_MSG_PREAMBLE_BYTES] = {'B', 'L', (uint8_t)version};
  bl_msg_type got;
  bl_msg m = BL_MSG_INIT;
  bl_le_put16(bytes + 4, (uint16_t)type);
  m.head = bl_frame_copy(bytes, sizeof bytes);
  bl_status status = bl_msg_check(&m, &got, err);
  bl_msg_fini(&m);
  return status;
}

START_TEST(a_type_is_sent_in_the_version_that_it_came_with) {
  for (unsigned type = 1; type < BL_MSG_TYPE_END; type++) {
    uint8_t bytes[BL_MSG_PREAMBLE_BYTES];
    unsigned since = bl_msg_type_since(type);
    if (strcmp(bl_msg_type_name((bl_msg_type)type), "?") == 0)
      continue;
    ck_assert_msg(since >= 1 && since <= BL_PROTOCOL_VERSION, "type %u is in no block of a version", type);
    bl_msg_put_preamble(bytes, (bl_msg_type)type, 0);
    ck_assert_uint_eq(bytes[2], since);
    ck_assert_ok(check_bytes(since, type, NULL));
    ck_assert_status(check_bytes(since == 1 ? 2 : 1, type, NULL), BL_EPROTO);
  }
}
END_TEST

START_TEST(what_a_later_version_says_is_refused_with_a_sentence) {
  static const struct {
    unsigned version, type;
    const char *text;
  } cases[] = {
      {3, BL_MSG_PUSH, "message of protocol version 3, this program speaks 1 to 2"},
      {3, 30, "message of protocol version 3, this program speaks 1 to 2"},
      {255, BL_MSG_QUERY, "message of protocol version 255"},
      {0, BL_MSG_PUSH, "message of protocol version 0"},
      {2, BL_MSG_HEARTBEAT, "heartbeat of protocol version 2: it is spoken in version 1 for ever"},
      {2, 31, "unknown message type 31"},
      {1, 200, "unknown message type 200"},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    bl_error err = BL_ERROR_INIT;
    ck_assert_status(check_bytes(cases[i].version, cases[i].type, &err), BL_EPROTO);
    ck_assert_msg(strstr(err.text, cases[i].text) != NULL, "%s", err.text);
  }
}
END_TEST

/* ---- job files ---- */

START_TEST(jobs_of_version_1_are_submitted_as_version_1_reads_them) {
  const char *folder = test_source_path("tests/golden/jobs-1");
  size_t n = golden_list(folder, ".yaml", names);
  ck_assert_uint_ge(n, 8);
  for (size_t i = 0; i < n; i++) {
    bl_buf want = BL_BUF_INIT, got = BL_BUF_INIT;
    bl_error err = BL_ERROR_INIT;
    golden_read(folder, names[i], ".normal", &want);
    ck_assert_ok_err(golden_job_normal(folder, names[i], &got, &err), err);
    ck_assert_msg(strcmp(bl_buf_str(&want), bl_buf_str(&got)) == 0,
                  "%s: programs of version 1 do not know this (mark what is new with .since):\n%s", names[i],
                  bl_buf_str(&got));
    bl_buf_fini(&want);
    bl_buf_fini(&got);
  }
}
END_TEST

static bl_job_spec *spec_of(const char *text, const char *const *sets, size_t n_sets) {
  static bl_conf_errors errors;
  bl_job_spec *spec = NULL;
  bl_status status = bl_job_spec_parse(text, strlen(text), "job.yaml", "/", sets, n_sets, &spec, &errors);
  ck_assert_msg(status == BL_OK, "%s", errors.n > 0 ? errors.at[0].text : "");
  return spec;
}

START_TEST(jobs_of_version_1_need_version_1) {
  const char *folder = test_source_path("tests/golden/jobs-1");
  size_t n = golden_list(folder, ".normal", names);
  for (size_t i = 0; i < n; i++) {
    bl_buf text = BL_BUF_INIT;
    char what[64];
    golden_read(folder, names[i], ".normal", &text);
    bl_job_spec *spec = spec_of(bl_buf_str(&text), NULL, 0);
    ck_assert_msg(bl_job_spec_protocol(spec, what, sizeof what) == 1, "%s needs more than 1, for %s", names[i], what);
    ck_assert_str_eq(what, "");
    bl_job_spec_free(spec);
    bl_buf_fini(&text);
  }
}
END_TEST

static const char plain_job[] = "name: x\ndata: {train: {libsvm: /a}}\nmodel: {input: [4], layers: [dense 2]}\n"
                                "loss: softmax_cross_entropy\noptimizer: {sgd: {lr: 0.1}}\nbatch: 8\nepochs: 1\n";

/* Today's registries against the table of old words: a rule that is new and is not seen as new would be trained by old
 * nodes as something else. */
START_TEST(every_rule_that_version_1_did_not_have_needs_version_2) {
  char text[128], what[64];
  for (size_t i = 0; bl_optim_rule_at(i) != NULL; i++) {
    const char *name = bl_optim_rule_at(i)->name;
    snprintf(text, sizeof text, "optimizer=%s", name);
    bl_job_spec *spec = spec_of(plain_job, (const char *const[]){text}, 1);
    uint32_t want = strcmp(name, "sgd") == 0 || strcmp(name, "momentum") == 0 || strcmp(name, "adam") == 0 ? 1 : 2;
    ck_assert_msg(bl_job_spec_protocol(spec, what, sizeof what) == want, "%s", name);
    bl_job_spec_free(spec);
  }
  bl_job_spec *spec = spec_of(plain_job, NULL, 0);
  spec->sync = "ssp";
  ck_assert_uint_eq(bl_job_spec_protocol(spec, what, sizeof what), 2);
  ck_assert_str_eq(what, "sync: ssp");
  spec->sync = "bsp";
  spec->data.train.kind = (bl_source_kind)(BL_SOURCE_LIBSVM + 1);
  ck_assert_uint_eq(bl_job_spec_protocol(spec, what, sizeof what), 2);
  bl_job_spec_free(spec);
}
END_TEST

/* Every field below a table, as "data.train". */
static void check_since(const bl_field *fields, size_t n, const char *prefix, const char *old) {
  for (size_t i = 0; i < n; i++) {
    char path[128], line[140];
    snprintf(path, sizeof path, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", fields[i].name);
    snprintf(line, sizeof line, "\n%s\n", path);
    bool is_old = strstr(old, line) != NULL;
    ck_assert_msg(is_old || fields[i].since > 1, "the field '%s' is new: say .since = %d", path, BL_PROTOCOL_VERSION);
    ck_assert_msg(!is_old || fields[i].since <= 1, "the field '%s' was there in version 1", path);
    if (is_old) /* below a new one all is new */
      check_since(fields[i].fields, fields[i].fields != NULL ? fields[i].n_fields : 0, path, old);
  }
}

START_TEST(every_new_field_of_the_job_file_says_so) {
  bl_buf old = BL_BUF_INIT;
  size_t n;
  const bl_field *fields = bl_job_spec_fields(&n);
  golden_read(test_source_path("tests/golden/jobs-1"), "fields", "", &old);
  check_since(fields, n, "", bl_buf_str(&old));
  bl_buf_fini(&old);
}
END_TEST

typedef struct toy {
  uint64_t old, number;
  double real;
  const char *text;
  bool custom;
} toy;

static void read_custom(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  ((toy *)r->base)->custom = strcmp(node->text, "on") == 0;
}
static void write_custom(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  bl_buf_printf(out, " %s\n", ((const toy *)base)->custom ? "on" : "off");
}

static const bl_field toy_section[] = {
    {.name = "real", .type = BL_FIELD_DOUBLE, .offset = offsetof(toy, real), .default_text = "0.5"},
};
static const bl_field toy_fields[] = {
    {.name = "old", .type = BL_FIELD_U64, .offset = offsetof(toy, old), .default_text = "7"},
    {.name = "number", .type = BL_FIELD_U64, .offset = offsetof(toy, number), .default_text = "3", .since = 2},
    {.name = "section", .type = BL_FIELD_SECTION, BL_FIELDS(toy_section), .since = 3},
    {.name = "text", .type = BL_FIELD_TEXT, .offset = offsetof(toy, text), .since = 2},
    {.name = "custom", .type = BL_FIELD_CUSTOM, .read = read_custom, .write = write_custom, .default_text = "off", .since = 2},
};

static void assert_toy(const toy *t, const char *dump, unsigned want_since, const char *want_field) {
  bl_buf out = BL_BUF_INIT;
  unsigned since = 1;
  bl_schema_dump(toy_fields, BL_COUNT_OF(toy_fields), t, 0, false, &out);
  ck_assert_str_eq(bl_buf_str(&out), dump);
  const bl_field *newest = bl_schema_newest(toy_fields, BL_COUNT_OF(toy_fields), t, &since);
  ck_assert_uint_eq(since, want_since);
  ck_assert_str_eq(newest != NULL ? newest->name : "", want_field);
  bl_buf_fini(&out);
}

START_TEST(fields_of_later_versions_are_left_out_at_their_defaults) {
  toy t = {.old = 7, .number = 3, .real = 0.5};
  assert_toy(&t, "old: 7\n", 1, "");
  t.number = 4;
  assert_toy(&t, "old: 7\nnumber: 4\n", 2, "number");
  t = (toy){.old = 1, .number = 3, .real = 0.5, .custom = true};
  assert_toy(&t, "old: 1\ncustom: on\n", 2, "custom");
  t = (toy){.old = 1, .number = 4, .real = 0.25, .text = "x"};
  assert_toy(&t, "old: 1\nnumber: 4\nsection:\n  real: 0.25\ntext: x\n", 3, "section");
}
END_TEST

/* ---- codec frames ---- */

START_TEST(frames_of_version_1_are_made_as_they_were) {
  bl_buf want = BL_BUF_INIT, got = BL_BUF_INIT;
  golden_read(test_source_path("tests/golden"), "codec-1.txt", "", &want);
  golden_codec_frames(&got);
  ck_assert_str_eq(bl_buf_str(&got), bl_buf_str(&want));
  bl_buf_fini(&want);
  bl_buf_fini(&got);
}
END_TEST

/* ---- the store ---- */

typedef struct asker {
  bl_transport transport; /* first */
  bl_buf json;
} asker;

static bl_status take_answer(bl_transport *t, const bl_peer *to, bl_msg *msg) {
  (void)to;
  bl_msg_type type;
  ProtobufCMessage *m;
  ck_assert_ok(bl_control_unpack(msg, &type, &m, NULL));
  if (type == BL_MSG_ANSWER) {
    ck_assert_uint_eq(((Ballast__Control__Answer *)m)->status, 0);
    bl_buf_clear(&((asker *)t)->json);
    bl_buf_add_str(&((asker *)t)->json, ((Ballast__Control__Answer *)m)->json);
  }
  bl_control_free(m);
  bl_msg_fini(msg);
  return BL_OK;
}

static json_t *ask(co_core *core, asker *a, uint64_t job) {
  Ballast__Control__Query q = BALLAST__CONTROL__QUERY__INIT;
  bl_peer from = {.id = {1}, .id_size = 1};
  bl_msg msg = BL_MSG_INIT;
  q.request = 1;
  q.what = (char *)"job";
  q.job = job;
  ck_assert_ok(bl_control_pack(BL_MSG_QUERY, &q.base, &msg));
  co_core_on_msg(core, &from, &msg, 2);
  bl_msg_fini(&msg);
  json_t *answer = json_loads(bl_buf_str(&a->json), 0, NULL);
  ck_assert_ptr_nonnull(answer);
  return answer;
}

/* Members that do not hang on the moment. */
static void assert_same_job(json_t *want, json_t *got) {
  static const char *const fields[] = {"job",         "name",         "state",          "reason",          "submitter",
                                       "file",        "ranks",        "view",           "submitted",       "started",
                                       "running",     "finished",     "clocks",         "train_samples",   "test_samples",
                                       "blas_core",   "result",       "data_fingerprint", "text",          "parameters",
                                       "history",     "train_loss",   "train_accuracy", "validation_loss"};
  const size_t n_moving = 4; /* the last ones, of a job that was asked about and then went on */
  bool running = strcmp(json_string_value(json_object_get(want, "state")), "running") == 0;
  for (size_t i = 0; i < BL_COUNT_OF(fields) - (running ? n_moving : 0); i++) {
    json_t *a = json_object_get(want, fields[i]), *b = json_object_get(got, fields[i]);
    /* What a newer program adds within a member is its own; of the rest every member is compared. */
    bool equal = json_is_object(a) ? true : json_is_array(a) ? json_array_size(a) == json_array_size(b) : json_equal(a, b);
    const char *key;
    json_t *value;
    json_object_foreach(a, key, value) equal = equal && json_equal(value, json_object_get(b, key));
    for (size_t k = 0; equal && k < json_array_size(a); k++)
      json_object_foreach(json_array_get(a, k), key, value) equal =
          equal && (strcmp(key, "seconds") == 0 || json_equal(value, json_object_get(json_array_get(b, k), key)));
    char *x = json_dumps(a, JSON_ENCODE_ANY), *y = json_dumps(b, JSON_ENCODE_ANY);
    ck_assert_msg(equal, "job %s: %s was %.300s and is %.300s", json_string_value(json_object_get(want, "name")),
                  fields[i], x, y != NULL ? y : "absent");
    free(x);
    free(y);
  }
}

static void make_store(const char *path) {
  bl_buf sql = BL_BUF_INIT;
  sqlite3 *db;
  char *why = NULL;
  golden_read(test_source_path("tests/golden"), "store-1.sql", "", &sql);
  ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
  ck_assert_msg(sqlite3_exec(db, bl_buf_str(&sql), NULL, NULL, &why) == SQLITE_OK, "%s", why);
  sqlite3_close(db);
  bl_buf_fini(&sql);
}

static void compare_store(const char *path) {
  asker a = {.transport = {.send = take_answer}};
  co_store *store;
  co_core *core;
  json_error_t why;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(co_store_sqlite_open(path, &store, &err), err);
  co_core_config config = {.incarnation = 9, .heartbeat_ns = 500000000, .lease_ns = 3000000000, .history_jobs_max = 1000,
                           .transport = &a.transport, .store = store};
  ck_assert_ok_err(co_core_new(&config, 1, UINT64_C(1800000000000000000), &core, &err), err);
  json_t *jobs = json_load_file(test_source_path("tests/golden/store-1.json"), 0, &why);
  ck_assert_msg(json_array_size(jobs) == 5, "%s", why.text);
  for (size_t i = 0; i < 5; i++) {
    json_t *got = ask(core, &a, i + 1);
    assert_same_job(json_array_get(jobs, i), got);
    json_decref(got);
  }
  json_decref(jobs);
  co_core_free(core);
  store->close(store);
  bl_buf_fini(&a.json);
}

static int number_in(const char *path, const char *sql) {
  sqlite3 *db;
  sqlite3_stmt *st;
  ck_assert_int_eq(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
  ck_assert_int_eq(sqlite3_step(st), SQLITE_ROW);
  int n = sqlite3_column_int(st, 0);
  sqlite3_finalize(st);
  sqlite3_close(db);
  return n;
}

/* A store that was brought up to date has left the file of version 1 beside it, whole. */
static void check_copy(const char *path) {
  char copy[200];
  snprintf(copy, sizeof copy, "%s.v1.bak", path);
  bool changed = number_in(path, "PRAGMA user_version") != 1;
  ck_assert_int_eq(bl_file_exists(copy), changed);
  if (!changed)
    return;
  ck_assert_int_eq(number_in(copy, "PRAGMA user_version"), 1);
  ck_assert_int_eq(number_in(copy, "PRAGMA application_id"), 1114403700);
  ck_assert_int_eq(number_in(copy, "SELECT count(*) FROM job"), 5);
  ck_assert_int_eq(number_in(copy, "SELECT count(*) FROM report"), number_in(path, "SELECT count(*) FROM report"));
  snprintf(copy, sizeof copy, "%s.v1.bak.new", path);
  ck_assert(!bl_file_exists(copy));
}

START_TEST(a_store_of_version_1_gives_the_same_jobs) {
  char path[160];
  snprintf(path, sizeof path, "%s/coordinator.db", test_temp_dir());
  make_store(path);
  compare_store(path);
  check_copy(path);
  compare_store(path); /* what the first start has made of it */
}
END_TEST

/* No copy, no change: a disk that is full leaves a database that the old program reads. */
START_TEST(a_store_that_cannot_be_copied_stays_as_it_is) {
  char path[160], copy[200];
  co_store *store = NULL;
  bl_error err = BL_ERROR_INIT;
  snprintf(path, sizeof path, "%s/coordinator.db", test_temp_dir());
  snprintf(copy, sizeof copy, "%s.v1.bak.new/x", path); /* a folder stands where the copy would be */
  make_store(path);
  ck_assert_ok(bl_file_make_dirs(copy, 0755, NULL));
  bl_status status = co_store_sqlite_open(path, &store, &err);
  if (status == BL_OK) { /* today's schema is the first one still: nothing to copy */
    store->close(store);
    ck_assert_int_eq(number_in(path, "PRAGMA user_version"), 1);
    return;
  }
  ck_assert_msg(strstr(err.text, path) != NULL, "%s", err.text);
  ck_assert_int_eq(number_in(path, "PRAGMA user_version"), 1);
}
END_TEST

int main(void) {
  Suite *s = suite_create("compat");
  TCase *t = tcase_create("golden");
  tcase_add_test(t, messages_of_version_1_are_read_and_packed_as_they_were);
  tcase_add_test(t, every_type_of_version_1_has_a_golden_message);
  tcase_add_test(t, fields_of_version_1_reach_their_places);
  tcase_add_test(t, the_schema_of_version_1_is_still_there);
  tcase_add_test(t, a_type_is_sent_in_the_version_that_it_came_with);
  tcase_add_test(t, what_a_later_version_says_is_refused_with_a_sentence);
  tcase_add_test(t, jobs_of_version_1_are_submitted_as_version_1_reads_them);
  tcase_add_test(t, jobs_of_version_1_need_version_1);
  tcase_add_test(t, every_rule_that_version_1_did_not_have_needs_version_2);
  tcase_add_test(t, every_new_field_of_the_job_file_says_so);
  tcase_add_test(t, fields_of_later_versions_are_left_out_at_their_defaults);
  tcase_add_test(t, frames_of_version_1_are_made_as_they_were);
  tcase_add_test(t, a_store_of_version_1_gives_the_same_jobs);
  tcase_add_test(t, a_store_that_cannot_be_copied_stays_as_it_is);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
