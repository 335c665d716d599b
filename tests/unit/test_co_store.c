/* SPDX-License-Identifier: Apache-2.0
 *
 * Both stores, SQLite and memory, against one contract.
 */
#include "base/file.h"
#include "base/num.h"
#include "tests/support/memory_store.h"
#include "tests/support/support.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static char path[128];

static co_store *open_store(void) {
  co_store *s = NULL;
  bl_error err = BL_ERROR_INIT;
  if (path[0] == '\0')
    snprintf(path, sizeof path, "%s/state.db", test_temp_dir());
  ck_assert_ok_err(co_store_sqlite_open(path, &s, &err), err);
  return s;
}

static void set_up(void) {
  path[0] = '\0';
}
static void tear_down(void) {}

/* i = 0: SQLite, 1: memory. */
static co_store *store_of(int i) {
  co_store *s = i == 0 ? open_store() : memory_store_new();
  ck_assert_ptr_nonnull(s);
  return s;
}

/* SQLite is closed and opened again: what is read comes from the file. */
static co_store *reopened(int i, co_store *s) {
  if (i != 0)
    return s;
  s->close(s);
  return open_store();
}

static const co_rank_record two_ranks[] = {{3, "w1", UINT64_MAX, 2, 9}, {1, "", 0, 0, 0}};
static const co_server_record one_server[] = {{"s1", UINT64_C(1) << 63}};

static co_job_record record(uint64_t id) {
  return (co_job_record){.id = id,
                         .token = "tok",
                         .file = "a.yaml",
                         .submitter = "me",
                         .text = "name: x\n",
                         .phase = "running",
                         .reason = "",
                         .status = -3,
                         .view = UINT64_MAX,
                         .plan = (const uint8_t *)"pl\0n",
                         .plan_bytes = 4,
                         .blas_core = "Haswell",
                         .data_agreed = true,
                         .train_samples = 1,
                         .validation_samples = 2,
                         .test_samples = 3,
                         .fingerprint = UINT64_MAX - 1,
                         .submitted_wall_ns = 4,
                         .started_wall_ns = 5,
                         .running_wall_ns = 6,
                         .finished_wall_ns = 7,
                         .ranks = two_ranks,
                         .n_ranks = 2,
                         .servers = one_server,
                         .n_servers = 1,
                         .priority = -7,
                         .name = "x",
                         .state = "running",
                         .summary = ""};
}

typedef struct seen {
  unsigned jobs, reports, logs;
  uint64_t first_log, last_log, sequence, view;
  uint32_t report_incarnation[4];
  char text[64];
} seen;

static bl_status on_job(const co_job_record *r, void *arg) {
  seen *s = arg;
  co_job_record want = record(r->id);
  s->jobs++;
  s->sequence = r->ranks[0].sequence;
  s->view = r->view;
  ck_assert_str_eq(r->token, want.token);
  ck_assert_str_eq(r->text, want.text);
  ck_assert_str_eq(r->phase, want.phase);
  ck_assert_int_eq(r->status, want.status);
  ck_assert_uint_eq(r->plan_bytes, want.plan_bytes);
  ck_assert_mem_eq(r->plan, want.plan, want.plan_bytes);
  ck_assert(r->data_agreed);
  ck_assert_uint_eq(r->fingerprint, want.fingerprint);
  ck_assert_uint_eq(r->finished_wall_ns, want.finished_wall_ns);
  ck_assert_uint_eq(r->n_ranks, 2);
  ck_assert_uint_eq(r->ranks[0].node_incarnation, UINT64_MAX);
  ck_assert_str_eq(r->ranks[0].node, "w1");
  ck_assert_str_eq(r->ranks[1].node, "");
  ck_assert_int_eq(r->priority, -7);
  ck_assert_uint_eq(r->n_servers, 1);
  ck_assert_uint_eq(r->servers[0].incarnation, UINT64_C(1) << 63);
  return BL_OK;
}

static bl_status on_report(const co_report_record *r, void *arg) {
  seen *s = arg;
  ck_assert_uint_eq(r->message_bytes, 3);
  s->report_incarnation[r->kind] = r->incarnation;
  s->reports++;
  return BL_OK;
}

static bl_status on_log(const co_log_record *r, void *arg) {
  seen *s = arg;
  s->first_log = s->logs++ == 0 ? r->number : s->first_log;
  s->last_log = r->number;
  snprintf(s->text, sizeof s->text, "%s", r->text);
  return BL_OK;
}

static seen load(co_store *s) {
  static const co_store_visitor v = {on_job, on_report, on_log};
  seen all = {0};
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(s->load(s, UINT64_MAX, &v, &all, &err), err);
  return all;
}

START_TEST(jobs_come_back_as_they_were_put) {
  co_store *s = store_of(_i);
  co_job_record r = record(7);
  bl_error err = BL_ERROR_INIT;
  r.view = 1;
  ck_assert_ok_err(s->put_job(s, &r, &err), err);
  r.view = UINT64_MAX;
  ck_assert_ok_err(s->put_job(s, &r, &err), err);
  s = reopened(_i, s);
  seen all = load(s);
  ck_assert_uint_eq(all.jobs, 1);
  ck_assert_uint_eq(all.view, UINT64_MAX);
  s->close(s);
}
END_TEST

START_TEST(reports_move_the_sequence_and_first_epochs_stand) {
  co_store *s = store_of(_i);
  co_job_record r = record(1);
  ck_assert_ok(s->put_job(s, &r, NULL));
  for (uint32_t inc = 3; inc <= 4; inc++)
    for (co_report_kind kind = CO_REPORT_DATA; kind <= CO_REPORT_DONE; kind++) {
      co_report_record report = {1, 0, inc, 10 + kind, kind, kind == CO_REPORT_EPOCH, (const uint8_t *)"abc",
                                 3};
      ck_assert_ok(s->put_report(s, &report, NULL));
    }
  s = reopened(_i, s);
  seen all = load(s);
  ck_assert_uint_eq(all.reports, 3);
  ck_assert_uint_eq(all.sequence, 13); /* rank 0 is in incarnation 3: the others' reports do not count */
  ck_assert_uint_eq(all.report_incarnation[CO_REPORT_DATA], 4);
  ck_assert_uint_eq(all.report_incarnation[CO_REPORT_EPOCH], 3);
  ck_assert_uint_eq(all.report_incarnation[CO_REPORT_DONE], 4);
  s->close(s);
}
END_TEST

START_TEST(log_lines_are_bounded_and_ids_are_never_used_again) {
  co_store *s = store_of(_i);
  co_job_record r = record(5);
  ck_assert_ok(s->put_job(s, &r, NULL));
  co_log_record line = {.job = 5, .level = 2, .rank = CO_LOG_RANK_NONE, .text = "häßlich 'quoted'"};
  const uint64_t lines[] = {1, 2, CO_LOG_LINES_MAX + 1};
  for (size_t i = 0; i < BL_COUNT_OF(lines); i++) {
    line.number = lines[i];
    ck_assert_ok(s->put_log(s, &line, NULL));
  }
  s = reopened(_i, s);
  seen all = load(s);
  ck_assert_uint_eq(all.first_log, 2);
  ck_assert_uint_eq(all.last_log, CO_LOG_LINES_MAX + 1);
  ck_assert_str_eq(all.text, line.text);
  ck_assert_ok(s->delete_job(s, 5, NULL));
  s = reopened(_i, s);
  all = load(s);
  ck_assert_uint_eq(all.jobs + all.logs + all.reports, 0);
  uint64_t last = 0;
  ck_assert_ok(s->last_job(s, &last, NULL));
  ck_assert_uint_eq(last, 5);
  s->close(s);
}
END_TEST

/* ---- search and history ---- */

static void put_named(co_store *s, uint64_t id, const char *name, const char *submitter, const char *phase) {
  static char token[16], summary[32];
  co_job_record r = record(id);
  snprintf(token, sizeof token, "tok%d", (int)id);
  snprintf(summary, sizeof summary, "{\"job\":%d}", (int)id);
  r.token = token;
  r.name = name;
  r.submitter = submitter;
  r.phase = r.state = phase;
  r.submitted_wall_ns = id * 100;
  r.summary = strcmp(phase, "running") == 0 || strcmp(phase, "queued") == 0 ? "" : summary;
  bl_error err = BL_ERROR_INIT;
  ck_assert_ok_err(s->put_job(s, &r, &err), err);
}

/* Ends: 1 3 4 6; the others do not. */
static void put_six(co_store *s) {
  put_named(s, 1, "mnist-a", "ann", "queued");
  put_named(s, 1, "mnist-a", "ann", "done"); /* only the last put counts */
  put_named(s, 2, "mnist-b", "bob", "running");
  put_named(s, 3, "digits", "ann", "failed");
  put_named(s, 4, "mnist-a2", "ann", "done");
  put_named(s, 5, "digits", "bob", "queued");
  put_named(s, 6, "digits", "bob", "cancelled");
}

static bl_status on_found(uint64_t id, const char *summary, void *arg) {
  char *out = arg, want[32];
  size_t n = strlen(out);
  snprintf(want, sizeof want, "{\"job\":%d}", (int)id);
  ck_assert_str_eq(summary, id == 2 || id == 5 ? "" : want);
  snprintf(out + n, 64 - n, "%s%d", n > 0 ? " " : "", (int)id);
  return BL_OK;
}

static const struct {
  co_search what;
  const char *found;
} searches[] = {
    {{"", "", "", 0, 0, 100}, "6 5 4 3 2 1"},
    {{"", "", "", 0, 0, 2}, "6 5"},
    {{"", "", "", 0, 5, 2}, "4 3"},
    {{"", "", "", 401, 0, 100}, "6 5"},
    {{"done", "", "", 0, 0, 100}, "4 1"},
    {{"failed,cancelled", "", "", 0, 0, 100}, "6 3"},
    {{"fail", "", "", 0, 0, 100}, ""},
    {{"", "mnist-*", "", 0, 0, 100}, "4 2 1"},
    {{"", "mnist-?", "", 0, 0, 100}, "2 1"},
    {{"", "MNIST-*", "", 0, 0, 100}, ""},
    {{"", "x' OR 1=1 --", "", 0, 0, 100}, ""},
    {{"", "digits", "bob", 0, 0, 100}, "6 5"},
    {{"queued", "digits", "bob", 500, 6, 1}, "5"},
};

START_TEST(jobs_are_found_by_what_is_known_of_them) {
  for (int i = 0; i < 2; i++) {
    co_store *s = store_of(i);
    put_six(s);
    s = reopened(i, s);
    char found[64] = "";
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(s->find(s, &searches[_i].what, on_found, found, &err), err);
    ck_assert_str_eq(found, searches[_i].found);
    s->close(s);
  }
}
END_TEST

static bl_status count_job(const co_job_record *r, void *arg) {
  uint64_t *ids = arg;
  *ids = *ids * 10 + r->id;
  return BL_OK;
}
static bl_status ignore_report(const co_report_record *r, void *arg) { return (void)r, (void)arg, BL_OK; }
static bl_status count_log(const co_log_record *r, void *arg) {
  uint64_t *ids = arg;
  *ids = *ids * 10 + 9;
  return (void)r, BL_OK;
}
static const co_store_visitor counting = {count_job, ignore_report, count_log};

/* A 9 is a log line; each job has one. */
START_TEST(a_load_brings_what_has_not_ended_and_the_newest_that_have) {
  co_store *s = store_of(_i);
  put_six(s);
  for (uint64_t id = 1; id <= 6; id++) {
    co_log_record line = {.job = id, .number = 1, .level = 2, .rank = CO_LOG_RANK_NONE, .text = "x"};
    ck_assert_ok(s->put_log(s, &line, NULL));
  }
  s = reopened(_i, s);
  static const struct {
    uint64_t ended_max, ids;
  } loads[] = {{0, 2599}, {1, 256999}, {2, 24569999}, {UINT64_MAX, UINT64_C(123456999999)}};
  uint64_t ids;
  for (size_t i = 0; i < BL_COUNT_OF(loads); i++) {
    ids = 0;
    bl_error err = BL_ERROR_INIT;
    ck_assert_ok_err(s->load(s, loads[i].ended_max, &counting, &ids, &err), err);
    ck_assert_uint_eq(ids, loads[i].ids);
  }
  ids = 0;
  ck_assert_ok(s->load_job(s, 3, &counting, &ids, NULL));
  ck_assert_uint_eq(ids, 39);
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(s->load_job(s, 7, &counting, &ids, &err), BL_ENOENT);
  ck_assert_str_eq(err.text, "there is no job 7");
  uint64_t job = 77;
  ck_assert_ok(s->find_token(s, "tok4", &job, NULL));
  ck_assert_uint_eq(job, 4);
  ck_assert_ok(s->find_token(s, "tok9", &job, NULL));
  ck_assert_uint_eq(job, 0);
  s->close(s);
}
END_TEST

START_TEST(trimming_forgets_the_oldest_that_have_ended) {
  co_store *s = store_of(_i);
  put_six(s);
  uint32_t deleted = 99;
  ck_assert_ok(s->trim(s, 4, &deleted, NULL));
  ck_assert_uint_eq(deleted, 0);
  ck_assert_ok(s->trim(s, 1, &deleted, NULL));
  ck_assert_uint_eq(deleted, 3);
  s = reopened(_i, s);
  char found[64] = "";
  ck_assert_ok(s->find(s, &searches[0].what, on_found, found, NULL));
  ck_assert_str_eq(found, "6 5 2");
  for (uint64_t id = 7; id < 7 + CO_STORE_TRIM_MAX + 5; id++)
    put_named(s, id, "x", "ann", "done");
  ck_assert_ok(s->trim(s, 3, &deleted, NULL));
  ck_assert_uint_eq(deleted, CO_STORE_TRIM_MAX); /* not all at once */
  ck_assert_ok(s->trim(s, 3, &deleted, NULL));
  ck_assert_uint_eq(deleted, 3);
  s->close(s);
}
END_TEST

/* As a program of schema version 1 left it: without priorities, without anything to search by. */
static void back_to_version_1(void) {
  static const char sql[] = "DROP TABLE search; DROP TABLE summary; DROP INDEX job_by_token;"
                            "ALTER TABLE job DROP COLUMN priority; PRAGMA user_version = 1;"
                            "UPDATE job SET text = 'name: mnist-a' || char(10) || 'seed: 1' || char(10) WHERE id = 1;"
                            "UPDATE job SET phase = 'opening' WHERE id = 2;";
  sqlite3 *db;
  ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
  char *text = NULL;
  ck_assert_msg(sqlite3_exec(db, sql, NULL, NULL, &text) == SQLITE_OK, "%s", text);
  sqlite3_close(db);
}

static bl_status on_bare_found(uint64_t id, const char *summary, void *arg) {
  ck_assert_str_eq(summary, "");
  *(uint64_t *)arg = *(uint64_t *)arg * 10 + id;
  return BL_OK;
}

START_TEST(a_file_of_the_schema_before_is_brought_up_once) {
  co_store *s = open_store();
  put_six(s);
  s->close(s);
  back_to_version_1();
  for (int i = 0; i < 2; i++) {
    s = open_store();
    static const co_search by_name = {"", "mnist-*", "", 0, 0, 100}, starting = {"starting", "", "", 0, 0, 100};
    uint64_t ids = 0;
    ck_assert_ok(s->find(s, &by_name, on_bare_found, &ids, NULL));
    ck_assert_uint_eq(ids, 1);
    ids = 0;
    ck_assert_ok(s->find(s, &starting, on_bare_found, &ids, NULL));
    ck_assert_uint_eq(ids, 2);
    uint64_t loaded = 0;
    ck_assert_ok(s->load(s, UINT64_MAX, &counting, &loaded, NULL));
    ck_assert_uint_eq(loaded, 123456);
    s->close(s);
  }
}
END_TEST

START_TEST(a_foreign_damaged_or_newer_file_is_refused_by_name) {
  static const struct {
    const char *sql;
    bl_status status;
  } cases[] = {
      {"CREATE TABLE other(x); ", BL_ECORRUPT},
      {NULL, BL_ECORRUPT}, /* not a database at all */
      {"PRAGMA application_id=1114403700; PRAGMA user_version=99; CREATE TABLE job(id);", BL_EUNSUPPORTED},
  };
  for (size_t i = 0; i < BL_COUNT_OF(cases); i++) {
    char file[160];
    snprintf(file, sizeof file, "%s/x.db", test_temp_dir());
    if (cases[i].sql == NULL) {
      static char junk[4096];
      memset(junk, 'x', sizeof junk);
      ck_assert_ok(bl_file_write_atomic(file, junk, sizeof junk, 0644, NULL));
    } else {
      sqlite3 *db;
      ck_assert_int_eq(sqlite3_open(file, &db), SQLITE_OK);
      ck_assert_int_eq(sqlite3_exec(db, cases[i].sql, NULL, NULL, NULL), SQLITE_OK);
      sqlite3_close(db);
    }
    co_store *s = NULL;
    bl_error err = BL_ERROR_INIT;
    ck_assert_status(co_store_sqlite_open(file, &s, &err), cases[i].status);
    ck_assert_ptr_null(s);
    ck_assert_msg(strstr(err.text, file) != NULL, "%s", err.text);
  }
}
END_TEST

START_TEST(one_file_serves_one_coordinator) {
  co_store *s = open_store(), *other = NULL;
  bl_error err = BL_ERROR_INIT;
  ck_assert_status(co_store_sqlite_open(path, &other, &err), BL_EEXIST);
  ck_assert_ptr_nonnull(strstr(err.text, "another coordinator uses it"));
  s->close(s);
  s = open_store();
  s->close(s);
}
END_TEST

int main(void) {
  Suite *s = suite_create("co_store");
  TCase *t = tcase_create("store");
  tcase_add_checked_fixture(t, set_up, tear_down);
  tcase_add_loop_test(t, jobs_come_back_as_they_were_put, 0, 2);
  tcase_add_loop_test(t, reports_move_the_sequence_and_first_epochs_stand, 0, 2);
  tcase_add_loop_test(t, log_lines_are_bounded_and_ids_are_never_used_again, 0, 2);
  tcase_add_loop_test(t, jobs_are_found_by_what_is_known_of_them, 0, (int)BL_COUNT_OF(searches));
  tcase_add_loop_test(t, a_load_brings_what_has_not_ended_and_the_newest_that_have, 0, 2);
  tcase_add_loop_test(t, trimming_forgets_the_oldest_that_have_ended, 0, 2);
  tcase_add_test(t, a_file_of_the_schema_before_is_brought_up_once);
  tcase_add_test(t, one_file_serves_one_coordinator);
  tcase_add_test(t, a_foreign_damaged_or_newer_file_is_refused_by_name);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
