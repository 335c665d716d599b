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
  tcase_add_test(t, one_file_serves_one_coordinator);
  tcase_add_test(t, a_foreign_damaged_or_newer_file_is_refused_by_name);
  suite_add_tcase(s, t);
  return test_run(&s, 1);
}
