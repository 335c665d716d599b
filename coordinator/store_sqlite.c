/* SPDX-License-Identifier: Apache-2.0
 *
 * The store in one SQLite file: write-ahead log, synchronous=FULL, so that a commit that returned survives
 * power loss; locked as long as it is open, so that no two coordinators work on one state. The schema's version
 * stands in user_version; "Blst" in application_id says the file is ours. Unsigned 64-bit numbers are kept as
 * the signed ones of the same bits.
 */
#include "coordinator/store.h"

#include "base/alloc.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/num.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SCHEMA_VERSION 2
#define APPLICATION_ID 0x426c7374 /* "Blst" */
#define BUSY_MS 500

/* Version 1. What came later is in upgrades[], which a new file goes through too. */
static const char schema[] =
    "CREATE TABLE job(id INTEGER PRIMARY KEY, token TEXT NOT NULL, file TEXT NOT NULL, submitter TEXT NOT NULL,"
    " text TEXT NOT NULL, phase TEXT NOT NULL, reason TEXT NOT NULL, status INTEGER NOT NULL, view INTEGER NOT "
    "NULL,"
    " plan BLOB, blas_core TEXT NOT NULL, data_agreed INTEGER NOT NULL, train INTEGER NOT NULL,"
    " validation INTEGER NOT NULL, test INTEGER NOT NULL, fingerprint INTEGER NOT NULL, submitted INTEGER NOT "
    "NULL,"
    " started INTEGER NOT NULL, running INTEGER NOT NULL, finished INTEGER NOT NULL) STRICT;"
    "CREATE TABLE rank(job INTEGER NOT NULL REFERENCES job(id) ON DELETE CASCADE, rank INTEGER NOT NULL,"
    " incarnation INTEGER NOT NULL, node TEXT NOT NULL, node_incarnation INTEGER NOT NULL, crashes INTEGER NOT "
    "NULL,"
    " sequence INTEGER NOT NULL, PRIMARY KEY(job, rank)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE server(job INTEGER NOT NULL REFERENCES job(id) ON DELETE CASCADE, name TEXT NOT NULL,"
    " incarnation INTEGER NOT NULL, PRIMARY KEY(job, name)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE report(job INTEGER NOT NULL REFERENCES job(id) ON DELETE CASCADE, rank INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, epoch INTEGER NOT NULL, incarnation INTEGER NOT NULL, sequence INTEGER NOT NULL,"
    " message BLOB NOT NULL, PRIMARY KEY(job, rank, kind, epoch)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE log(job INTEGER NOT NULL REFERENCES job(id) ON DELETE CASCADE, number INTEGER NOT NULL,"
    " wall INTEGER NOT NULL, level INTEGER NOT NULL, rank INTEGER NOT NULL, text TEXT NOT NULL,"
    " PRIMARY KEY(job, number)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE last(id INTEGER PRIMARY KEY CHECK(id = 1), job INTEGER NOT NULL) STRICT;"
    "INSERT INTO last VALUES(1, 0);";

/* upgrades[v]: from version v to v + 1. A normalised job file begins with its name. */
static const char *const upgrades[SCHEMA_VERSION] = {
    [1] = "ALTER TABLE job ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;"
          "CREATE INDEX job_by_token ON job(token);"
          "CREATE TABLE search(job INTEGER PRIMARY KEY REFERENCES job(id) ON DELETE CASCADE, state TEXT NOT NULL,"
          " name TEXT NOT NULL, submitter TEXT NOT NULL, submitted INTEGER NOT NULL) STRICT;"
          "CREATE INDEX search_by_state ON search(state);"
          "CREATE TABLE summary(job INTEGER PRIMARY KEY REFERENCES job(id) ON DELETE CASCADE, text TEXT NOT NULL) STRICT;"
          "INSERT INTO search SELECT id,"
          " CASE WHEN phase IN ('loading', 'opening') THEN 'starting' ELSE phase END,"
          " CASE WHEN text LIKE 'name: %' THEN trim(substr(text, 7, instr(text, char(10)) - 7), char(34, 39)) ELSE '' END,"
          " submitter, submitted FROM job;",
};

typedef enum statement {
  ST_BEGIN,
  ST_COMMIT,
  ST_ROLLBACK,
  ST_PUT_JOB,
  ST_LAST_JOB,
  ST_DROP_RANKS,
  ST_PUT_RANK,
  ST_DROP_SERVERS,
  ST_PUT_SERVER,
  ST_PUT_REPORT,
  ST_SEQUENCE,
  ST_PUT_LOG,
  ST_TRIM_LOG,
  ST_DELETE_JOB,
  ST_LOAD_RANKS,
  ST_LOAD_SERVERS,
  ST_LOAD_JOBS, /* these three: of jobs that have not ended and the ?1 newest others */
  ST_LOAD_REPORTS,
  ST_LOAD_LOGS,
  ST_LOAD_JOB, /* these three: of job ?1 */
  ST_LOAD_JOB_REPORTS,
  ST_LOAD_JOB_LOGS,
  ST_GET_LAST,
  ST_PUT_SEARCH,
  ST_PUT_SUMMARY,
  ST_FIND,
  ST_FIND_TOKEN,
  ST_TRIM,
  ST_COUNT
} statement;

#define ENDED "('done', 'failed', 'cancelled')"
#define TO_LOAD                                                                                              \
  " IN (SELECT job FROM search WHERE state NOT IN " ENDED " UNION ALL SELECT * FROM"                         \
  " (SELECT job FROM search WHERE state IN " ENDED " ORDER BY job DESC LIMIT ?1))"
#define REPORT_COLUMNS "job, rank, kind, epoch, incarnation, sequence, message"
#define LOG_COLUMNS "job, number, wall, level, rank, text"

static const char *const statements[ST_COUNT] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ROLLBACK] = "ROLLBACK",
    [ST_PUT_JOB] =
        "INSERT INTO job VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21)"
        " ON CONFLICT(id) DO UPDATE SET token=?2, file=?3, submitter=?4, text=?5, phase=?6, reason=?7,"
        " status=?8, view=?9, plan=?10, blas_core=?11, data_agreed=?12, train=?13, validation=?14, test=?15,"
        " fingerprint=?16, submitted=?17, started=?18, running=?19, finished=?20, priority=?21",
    [ST_LAST_JOB] = "UPDATE last SET job = max(job, ?1)",
    [ST_DROP_RANKS] = "DELETE FROM rank WHERE job = ?1",
    [ST_PUT_RANK] = "INSERT INTO rank VALUES(?1,?2,?3,?4,?5,?6,?7)",
    [ST_DROP_SERVERS] = "DELETE FROM server WHERE job = ?1",
    [ST_PUT_SERVER] = "INSERT INTO server VALUES(?1,?2,?3)",
    [ST_PUT_REPORT] =
        "INSERT INTO report VALUES(?1,?2,?3,?4,?5,?6,?7) ON CONFLICT(job, rank, kind, epoch) DO UPDATE"
        " SET incarnation=?5, sequence=?6, message=?7 WHERE ?3 <> 2",
    [ST_SEQUENCE] = "UPDATE rank SET sequence = ?4 WHERE job = ?1 AND rank = ?2 AND incarnation = ?3",
    [ST_PUT_LOG] = "INSERT OR REPLACE INTO log VALUES(?1,?2,?3,?4,?5,?6)",
    [ST_TRIM_LOG] = "DELETE FROM log WHERE job = ?1 AND number <= ?2",
    [ST_DELETE_JOB] = "DELETE FROM job WHERE id = ?1",
    [ST_LOAD_JOBS] = "SELECT * FROM job WHERE id" TO_LOAD " ORDER BY id",
    [ST_LOAD_JOB] = "SELECT * FROM job WHERE id = ?1",
    [ST_LOAD_RANKS] =
        "SELECT rank, incarnation, node, node_incarnation, crashes, sequence FROM rank WHERE job = ?1"
        " ORDER BY rank",
    [ST_LOAD_SERVERS] = "SELECT name, incarnation FROM server WHERE job = ?1 ORDER BY name",
    [ST_LOAD_REPORTS] = "SELECT " REPORT_COLUMNS " FROM report WHERE job" TO_LOAD " ORDER BY job, kind, epoch, rank",
    [ST_LOAD_JOB_REPORTS] = "SELECT " REPORT_COLUMNS " FROM report WHERE job = ?1 ORDER BY kind, epoch, rank",
    [ST_LOAD_LOGS] = "SELECT " LOG_COLUMNS " FROM log WHERE job" TO_LOAD " ORDER BY job, number",
    [ST_LOAD_JOB_LOGS] = "SELECT " LOG_COLUMNS " FROM log WHERE job = ?1 ORDER BY number",
    [ST_GET_LAST] = "SELECT job FROM last",
    [ST_PUT_SEARCH] = "INSERT OR REPLACE INTO search VALUES(?1,?2,?3,?4,?5)",
    [ST_PUT_SUMMARY] = "INSERT OR REPLACE INTO summary VALUES(?1,?2)",
    /* A row of `search` is short: walking past a thousand that do not fit costs less than a page of job files. */
    [ST_FIND] = "SELECT search.job, coalesce(summary.text, '') FROM search LEFT JOIN summary ON summary.job = search.job"
                " WHERE (?1 = '' OR instr(',' || ?1 || ',', ',' || state || ',') > 0)"
                " AND (?2 = '' OR name GLOB ?2) AND (?3 = '' OR submitter = ?3) AND submitted >= ?4"
                " AND (?5 = 0 OR search.job < ?5) ORDER BY search.job DESC LIMIT ?6",
    [ST_FIND_TOKEN] = "SELECT id FROM job WHERE token = ?1",
    [ST_TRIM] = "DELETE FROM job WHERE id IN (SELECT job FROM (SELECT job FROM search WHERE state IN " ENDED
                " ORDER BY job DESC LIMIT -1 OFFSET ?1) ORDER BY job LIMIT ?2)",
};
_Static_assert(CO_REPORT_EPOCH == 2, "ST_PUT_REPORT names the kind by its number");

typedef struct sqlite_store {
  co_store base;
  sqlite3 *db;
  sqlite3_stmt *st[ST_COUNT];
  char *path;
} sqlite_store;

/* ---- small steps ------------------------------------------------------------------------------------ */

static bl_status fail_sqlite(const sqlite_store *s, const char *what, bl_error *err) {
  int code = sqlite3_errcode(s->db);
  if (code == SQLITE_BUSY)
    return bl_fail(err, BL_EEXIST, "cannot %s %s: another coordinator uses it", what, s->path);
  bl_status status = code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? BL_ECORRUPT
                     : code == SQLITE_NOMEM                          ? BL_ENOMEM
                                                                     : BL_EIO;
  return bl_fail(err, status, "cannot %s %s: %s", what, s->path, sqlite3_errmsg(s->db));
}

/* Arguments of a statement by one letter each: i int64, u uint64, s text, b blob (pointer, size). */
static void bind(sqlite3_stmt *st, const char *types, va_list args) {
  for (int i = 1; *types != '\0'; types++, i++) {
    if (*types == 's') {
      sqlite3_bind_text(st, i, va_arg(args, const char *), -1, SQLITE_STATIC);
    } else if (*types == 'b') {
      const void *data = va_arg(args, const void *);
      size_t size = va_arg(args, size_t);
      sqlite3_bind_blob64(st, i, data, size, SQLITE_STATIC);
    } else {
      sqlite3_bind_int64(st, i, *types == 'u' ? (sqlite3_int64)va_arg(args, uint64_t) : va_arg(args, int64_t));
    }
  }
}

static void bind_all(sqlite3_stmt *st, const char *types, ...) {
  va_list args;
  va_start(args, types);
  bind(st, types, args);
  va_end(args);
}

/* Runs a statement that gives no rows. A failed bind shows as a constraint that the step violates. */
static bl_status run(sqlite_store *s, statement which, bl_error *err, const char *types, ...) {
  sqlite3_stmt *st = s->st[which];
  va_list args;
  va_start(args, types);
  bind(st, types, args);
  va_end(args);
  int rc = sqlite3_step(st);
  bl_status status = rc == SQLITE_DONE || rc == SQLITE_ROW ? BL_OK : fail_sqlite(s, "write to", err);
  sqlite3_reset(st);
  sqlite3_clear_bindings(st);
  return status;
}

static bl_status begin(sqlite_store *s, bl_error *err) {
  return run(s, ST_BEGIN, err, "");
}

/* Commits when all went well, else takes everything back. */
static bl_status end(sqlite_store *s, bl_status status, bl_error *err) {
  if (status == BL_OK)
    status = run(s, ST_COMMIT, err, "");
  if (status != BL_OK && !sqlite3_get_autocommit(s->db) && run(s, ST_ROLLBACK, NULL, "") != BL_OK)
    return status; /* the next BEGIN fails and says so */
  return status;
}

/* ---- puts ------------------------------------------------------------------------------------------- */

static bl_status put_members(sqlite_store *s, const co_job_record *r, bl_error *err) {
  bl_status status = run(s, ST_DROP_RANKS, err, "u", r->id);
  for (uint32_t i = 0; status == BL_OK && i < r->n_ranks; i++)
    status = run(s, ST_PUT_RANK, err, "uuusuuu", r->id, (uint64_t)i, (uint64_t)r->ranks[i].incarnation,
                 r->ranks[i].node, r->ranks[i].node_incarnation, (uint64_t)r->ranks[i].crashes,
                 r->ranks[i].sequence);
  if (status == BL_OK)
    status = run(s, ST_DROP_SERVERS, err, "u", r->id);
  for (uint32_t i = 0; status == BL_OK && i < r->n_servers; i++)
    status = run(s, ST_PUT_SERVER, err, "usu", r->id, r->servers[i].name, r->servers[i].incarnation);
  return status;
}

static bl_status put_search(sqlite_store *s, const co_job_record *r, bl_error *err) {
  bl_status status =
      run(s, ST_PUT_SEARCH, err, "usssu", r->id, r->state, r->name, r->submitter, r->submitted_wall_ns);
  if (status == BL_OK && r->summary[0] != '\0')
    status = run(s, ST_PUT_SUMMARY, err, "us", r->id, r->summary);
  return status;
}

static bl_status put_job(co_store *base, const co_job_record *r, bl_error *err) {
  sqlite_store *s = (sqlite_store *)base;
  bl_status status = begin(s, err);
  if (status != BL_OK)
    return status;
  status =
      run(s, ST_PUT_JOB, err, "ussssssiubsuuuuuuuuui", r->id, r->token, r->file, r->submitter, r->text, r->phase,
          r->reason, (int64_t)r->status, r->view, r->plan, r->plan_bytes, r->blas_core,
          (uint64_t)r->data_agreed, r->train_samples, r->validation_samples, r->test_samples, r->fingerprint,
          r->submitted_wall_ns, r->started_wall_ns, r->running_wall_ns, r->finished_wall_ns, (int64_t)r->priority);
  if (status == BL_OK)
    status = put_members(s, r, err);
  if (status == BL_OK)
    status = put_search(s, r, err);
  if (status == BL_OK)
    status = run(s, ST_LAST_JOB, err, "u", r->id);
  return end(s, status, err);
}

static bl_status move_sequence(sqlite_store *s, uint64_t job, uint32_t rank, uint32_t incarnation,
                               uint64_t sequence, bl_error *err) {
  return run(s, ST_SEQUENCE, err, "uuuu", job, (uint64_t)rank, (uint64_t)incarnation, sequence);
}

static bl_status put_report(co_store *base, const co_report_record *r, bl_error *err) {
  sqlite_store *s = (sqlite_store *)base;
  bl_status status = begin(s, err);
  if (status != BL_OK)
    return status;
  status = run(s, ST_PUT_REPORT, err, "uuuuuub", r->job, (uint64_t)r->rank, (uint64_t)r->kind,
               (uint64_t)r->epoch, (uint64_t)r->incarnation, r->sequence, r->message, r->message_bytes);
  if (status == BL_OK)
    status = move_sequence(s, r->job, r->rank, r->incarnation, r->sequence, err);
  return end(s, status, err);
}

static bl_status put_log(co_store *base, const co_log_record *r, bl_error *err) {
  sqlite_store *s = (sqlite_store *)base;
  bl_status status = begin(s, err);
  if (status != BL_OK)
    return status;
  status = run(s, ST_PUT_LOG, err, "uuuuus", r->job, r->number, r->wall_ns, (uint64_t)r->level,
               (uint64_t)r->rank, r->text);
  if (status == BL_OK && r->number > CO_LOG_LINES_MAX)
    status = run(s, ST_TRIM_LOG, err, "uu", r->job, r->number - CO_LOG_LINES_MAX);
  if (status == BL_OK && r->sequence != 0)
    status = move_sequence(s, r->job, r->rank, r->incarnation, r->sequence, err);
  return end(s, status, err);
}

static bl_status delete_job(co_store *base, uint64_t job, bl_error *err) {
  return run((sqlite_store *)base, ST_DELETE_JOB, err, "u", job);
}

/* ---- load ------------------------------------------------------------------------------------------- */

static uint64_t column_u64(sqlite3_stmt *st, int i) {
  return (uint64_t)sqlite3_column_int64(st, i);
}
static uint32_t column_u32(sqlite3_stmt *st, int i) {
  return (uint32_t)sqlite3_column_int64(st, i);
}
static const char *column_text(sqlite3_stmt *st, int i) {
  const unsigned char *text = sqlite3_column_text(st, i);
  return text != NULL ? (const char *)text : "";
}

/* Calls fn for each row; fn's failure ends it. */
typedef bl_status row_fn(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err);
static bl_status each_row(sqlite_store *s, statement which, row_fn *fn, void *arg, bl_error *err) {
  bl_status status = BL_OK;
  int rc = SQLITE_DONE;
  while (status == BL_OK && (rc = sqlite3_step(s->st[which])) == SQLITE_ROW)
    status = fn(s, s->st[which], arg, err);
  if (status == BL_OK && rc != SQLITE_DONE)
    status = fail_sqlite(s, "read", err);
  sqlite3_reset(s->st[which]);
  sqlite3_clear_bindings(s->st[which]);
  return status;
}

typedef struct members {
  bl_arena *arena;
  co_rank_record *ranks;
  co_server_record *servers;
  uint32_t n_ranks, n_servers, capacity;
} members;

#define MEMBERS_MAX 4096u

static bl_status on_rank_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  members *m = arg;
  if (m->n_ranks == MEMBERS_MAX || column_u32(st, 0) != m->n_ranks)
    return bl_fail(err, BL_ECORRUPT, "%s: the ranks of a job are not numbered 0, 1, 2...", s->path);
  const char *node = bl_arena_strdup(m->arena, column_text(st, 2));
  if (node == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to read %s", s->path);
  m->ranks[m->n_ranks++] =
      (co_rank_record){column_u32(st, 1), node, column_u64(st, 3), column_u32(st, 4), column_u64(st, 5)};
  return BL_OK;
}

static bl_status on_server_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  members *m = arg;
  const char *name = bl_arena_strdup(m->arena, column_text(st, 0));
  if (m->n_servers == MEMBERS_MAX || name == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory to read the servers of a job in %s", s->path);
  m->servers[m->n_servers++] = (co_server_record){name, column_u64(st, 1)};
  return BL_OK;
}

typedef struct load_args {
  const co_store_visitor *visitor;
  void *arg;
  uint64_t n_jobs;
} load_args;

static bl_status on_job_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  load_args *a = arg;
  bl_arena arena;
  bl_arena_init(&arena, 0);
  members m = {.arena = &arena};
  m.ranks = bl_arena_array(&arena, MEMBERS_MAX, sizeof *m.ranks);
  m.servers = bl_arena_array(&arena, MEMBERS_MAX, sizeof *m.servers);
  bl_status status =
      m.ranks != NULL && m.servers != NULL ? BL_OK : bl_fail(err, BL_ENOMEM, "no memory to read %s", s->path);
  uint64_t id = column_u64(st, 0);
  if (status == BL_OK) {
    sqlite3_bind_int64(s->st[ST_LOAD_RANKS], 1, (sqlite3_int64)id);
    status = each_row(s, ST_LOAD_RANKS, on_rank_row, &m, err);
  }
  if (status == BL_OK) {
    sqlite3_bind_int64(s->st[ST_LOAD_SERVERS], 1, (sqlite3_int64)id);
    status = each_row(s, ST_LOAD_SERVERS, on_server_row, &m, err);
  }
  if (status == BL_OK) {
    co_job_record r = {.id = id,
                       .token = column_text(st, 1),
                       .file = column_text(st, 2),
                       .submitter = column_text(st, 3),
                       .text = column_text(st, 4),
                       .phase = column_text(st, 5),
                       .reason = column_text(st, 6),
                       .status = (int)sqlite3_column_int64(st, 7),
                       .view = column_u64(st, 8),
                       .plan = sqlite3_column_blob(st, 9),
                       .plan_bytes = (size_t)sqlite3_column_bytes(st, 9),
                       .blas_core = column_text(st, 10),
                       .data_agreed = sqlite3_column_int64(st, 11) != 0,
                       .train_samples = column_u64(st, 12),
                       .validation_samples = column_u64(st, 13),
                       .test_samples = column_u64(st, 14),
                       .fingerprint = column_u64(st, 15),
                       .submitted_wall_ns = column_u64(st, 16),
                       .started_wall_ns = column_u64(st, 17),
                       .running_wall_ns = column_u64(st, 18),
                       .finished_wall_ns = column_u64(st, 19),
                       .ranks = m.ranks,
                       .n_ranks = m.n_ranks,
                       .servers = m.servers,
                       .n_servers = m.n_servers,
                       .priority = (int32_t)sqlite3_column_int64(st, 20),
                       .name = "",
                       .state = "",
                       .summary = ""};
    a->n_jobs++;
    status = a->visitor->on_job(&r, a->arg);
  }
  bl_arena_fini(&arena);
  return status;
}

static bl_status on_report_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  const load_args *a = arg;
  co_report_record r = {.job = column_u64(st, 0),
                        .rank = column_u32(st, 1),
                        .kind = (co_report_kind)column_u32(st, 2),
                        .epoch = column_u32(st, 3),
                        .incarnation = column_u32(st, 4),
                        .sequence = column_u64(st, 5),
                        .message = sqlite3_column_blob(st, 6),
                        .message_bytes = (size_t)sqlite3_column_bytes(st, 6)};
  if (r.message == NULL)
    return bl_fail(err, BL_ECORRUPT, "%s: a report of job %" PRIu64 " is empty", s->path, r.job);
  bl_status status = a->visitor->on_report(&r, a->arg);
  if (status != BL_OK)
    bl_fail(err, status, "%s: a report of job %" PRIu64 ", rank %u cannot be read", s->path, r.job, r.rank);
  return status;
}

static bl_status on_log_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  (void)s;
  (void)err;
  const load_args *a = arg;
  co_log_record r = {.job = column_u64(st, 0),
                     .number = column_u64(st, 1),
                     .wall_ns = column_u64(st, 2),
                     .level = column_u32(st, 3),
                     .rank = column_u32(st, 4),
                     .text = column_text(st, 5)};
  return a->visitor->on_log(&r, a->arg);
}

/* jobs, reports, logs: three statements with the same argument. */
static bl_status load_three(sqlite_store *s, statement jobs, uint64_t argument, load_args *a, bl_error *err) {
  static row_fn *const fns[] = {on_job_row, on_report_row, on_log_row};
  bl_status status = BL_OK;
  for (size_t i = 0; status == BL_OK && i < BL_COUNT_OF(fns); i++) {
    statement which = (statement)((size_t)jobs + i);
    bind_all(s->st[which], "u", argument);
    status = each_row(s, which, fns[i], a, err);
  }
  return status;
}
_Static_assert(ST_LOAD_REPORTS == ST_LOAD_JOBS + 1 && ST_LOAD_LOGS == ST_LOAD_JOBS + 2 &&
                   ST_LOAD_JOB_REPORTS == ST_LOAD_JOB + 1 && ST_LOAD_JOB_LOGS == ST_LOAD_JOB + 2,
               "load_three counts them");

static bl_status load(co_store *base, uint64_t ended_max, const co_store_visitor *v, void *arg, bl_error *err) {
  load_args a = {.visitor = v, .arg = arg};
  return load_three((sqlite_store *)base, ST_LOAD_JOBS, BL_MIN(ended_max, (uint64_t)INT64_MAX), &a, err);
}

static bl_status load_job(co_store *base, uint64_t job, const co_store_visitor *v, void *arg, bl_error *err) {
  load_args a = {.visitor = v, .arg = arg};
  bl_status status = load_three((sqlite_store *)base, ST_LOAD_JOB, job, &a, err);
  if (status == BL_OK && a.n_jobs == 0)
    return bl_fail(err, BL_ENOENT, "there is no job %" PRIu64, job);
  return status;
}

/* ---- search ----------------------------------------------------------------------------------------- */

typedef struct find_args {
  co_found_fn *fn;
  void *arg;
} find_args;

static bl_status on_found_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  const find_args *a = arg;
  bl_status status = a->fn(column_u64(st, 0), column_text(st, 1), a->arg);
  return status == BL_OK ? BL_OK : bl_fail(err, status, "a search in %s has too many results", s->path);
}

static bl_status find(co_store *base, const co_search *what, co_found_fn *fn, void *arg, bl_error *err) {
  sqlite_store *s = (sqlite_store *)base;
  find_args a = {fn, arg};
  bind_all(s->st[ST_FIND], "sssuuu", what->states, what->name, what->submitter, what->submitted_ns,
           BL_MIN(what->before, (uint64_t)INT64_MAX), (uint64_t)what->limit);
  return each_row(s, ST_FIND, on_found_row, &a, err);
}

static bl_status on_token_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  (void)s;
  (void)err;
  *(uint64_t *)arg = column_u64(st, 0);
  return BL_OK;
}

static bl_status find_token(co_store *base, const char *token, uint64_t *ret_job, bl_error *err) {
  sqlite_store *s = (sqlite_store *)base;
  uint64_t job = 0;
  bind_all(s->st[ST_FIND_TOKEN], "s", token);
  bl_status status = each_row(s, ST_FIND_TOKEN, on_token_row, &job, err);
  if (status == BL_OK)
    *ret_job = job;
  return status;
}

static bl_status trim(co_store *base, uint64_t keep, uint32_t *ret_deleted, bl_error *err) {
  sqlite_store *s = (sqlite_store *)base;
  bl_status status = run(s, ST_TRIM, err, "uu", BL_MIN(keep, (uint64_t)INT64_MAX), (uint64_t)CO_STORE_TRIM_MAX);
  if (status == BL_OK)
    *ret_deleted = (uint32_t)sqlite3_changes(s->db);
  return status;
}

static bl_status on_last_row(sqlite_store *s, sqlite3_stmt *st, void *arg, bl_error *err) {
  (void)s;
  (void)err;
  *(uint64_t *)arg = column_u64(st, 0);
  return BL_OK;
}

static bl_status last_job(co_store *base, uint64_t *ret_id, bl_error *err) {
  return each_row((sqlite_store *)base, ST_GET_LAST, on_last_row, ret_id, err);
}

/* ---- open and close --------------------------------------------------------------------------------- */

static void close_store(co_store *base) {
  sqlite_store *s = (sqlite_store *)base;
  if (s == NULL)
    return;
  for (size_t i = 0; i < ST_COUNT; i++)
    sqlite3_finalize(s->st[i]);
  sqlite3_close(s->db);
  bl_free(s->path);
  bl_free(s);
}

static bl_status execute(sqlite_store *s, const char *sql, bl_error *err) {
  return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? BL_OK : fail_sqlite(s, "set up", err);
}

static bl_status get_pragma(sqlite_store *s, const char *sql, int64_t *ret_value, bl_error *err) {
  sqlite3_stmt *st = NULL;
  bl_status status = BL_OK;
  if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) != SQLITE_OK || sqlite3_step(st) != SQLITE_ROW)
    status = fail_sqlite(s, "open", err);
  else
    *ret_value = sqlite3_column_int64(st, 0);
  sqlite3_finalize(st);
  return status;
}

/* ---- the copy of an older file ---- */

static bl_status sync_path(const char *path, int flags) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
  int rc = fd >= 0 ? fsync(fd) : -1;
  if (fd >= 0)
    close(fd);
  return rc == 0 ? BL_OK : BL_EIO;
}

static bl_status vacuum_into(sqlite_store *s, const char *path, bl_error *err) {
  sqlite3_stmt *st = NULL;
  bl_status status = BL_OK;
  if (sqlite3_prepare_v2(s->db, "VACUUM INTO ?1", -1, &st, NULL) != SQLITE_OK ||
      sqlite3_bind_text(st, 1, path, -1, SQLITE_STATIC) != SQLITE_OK || sqlite3_step(st) != SQLITE_DONE)
    status = fail_sqlite(s, "copy", err);
  sqlite3_finalize(st);
  return status;
}

/* Before the schema is changed for good: what the older program can still read, as PATH.vN.bak, complete and on the disk
 * before anything else happens. One of the same version from an earlier try is replaced. */
static bl_status keep_a_copy(sqlite_store *s, int64_t version, bl_error *err) {
  bl_buf copy = BL_BUF_INIT, partial = BL_BUF_INIT;
  char *dir = bl_path_dir(s->path);
  bl_buf_printf(&copy, "%s.v%" PRId64 ".bak", s->path, version);
  bl_buf_printf(&partial, "%s.new", bl_buf_str(&copy));
  bl_status status = dir != NULL ? BL_OK : bl_fail(err, BL_ENOMEM, "no memory to copy %s", s->path);
  (void)!unlink(bl_buf_str(&partial)); /* of a try that was cut short */
  if (status == BL_OK)
    status = vacuum_into(s, bl_buf_str(&partial), err);
  if (status == BL_OK && (sync_path(bl_buf_str(&partial), 0) != BL_OK ||
                          rename(bl_buf_str(&partial), bl_buf_str(&copy)) != 0 || sync_path(dir, O_DIRECTORY) != BL_OK))
    status = bl_fail_errno(err, "cannot keep a copy of %s as %s", s->path, bl_buf_str(&copy));
  if (status != BL_OK)
    (void)!unlink(bl_buf_str(&partial));
  bl_free(dir);
  bl_buf_fini(&copy);
  bl_buf_fini(&partial);
  return status;
}

/* Each step whole or not at all: a program that is stopped within goes on from there at its next start. */
static bl_status upgrade(sqlite_store *s, int64_t version, bl_error *err) {
  bl_status status = version >= 1 ? BL_OK : bl_fail(err, BL_ECORRUPT, "%s has schema version %" PRId64, s->path, version);
  for (; status == BL_OK && version < SCHEMA_VERSION; version++) {
    char sql[4096];
    int n = snprintf(sql, sizeof sql, "BEGIN; %s PRAGMA user_version=%" PRId64 "; COMMIT;", upgrades[version], version + 1);
    BL_ASSERT(n > 0 && (size_t)n < sizeof sql);
    status = execute(s, sql, err);
  }
  return status;
}

/* An empty file becomes ours; one of a newer version or of another program is left alone. */
static bl_status set_up_schema(sqlite_store *s, bl_error *err) {
  int64_t version = 0, application = 0, tables = 0;
  bl_status status = get_pragma(s, "PRAGMA user_version", &version, err);
  if (status == BL_OK)
    status = get_pragma(s, "PRAGMA application_id", &application, err);
  if (status == BL_OK)
    status = get_pragma(s, "SELECT count(*) FROM sqlite_master", &tables, err);
  if (status != BL_OK)
    return status;
  if (tables == 0) {
    char sql[sizeof schema + 128];
    snprintf(sql, sizeof sql, "BEGIN; %s PRAGMA application_id=%d; PRAGMA user_version=1; COMMIT;", schema,
             APPLICATION_ID);
    status = execute(s, sql, err);
    return status == BL_OK ? upgrade(s, 1, err) : status;
  }
  if (application != APPLICATION_ID)
    return bl_fail(err, BL_ECORRUPT, "%s is a database of another program", s->path);
  if (version > SCHEMA_VERSION)
    return bl_fail(err, BL_EUNSUPPORTED,
                   "%s has schema version %" PRId64 ", this program reads up to %d: it is older than"
                   " the one that wrote it",
                   s->path, version, SCHEMA_VERSION);
  status = version >= 1 && version < SCHEMA_VERSION ? keep_a_copy(s, version, err) : BL_OK;
  return status == BL_OK ? upgrade(s, version, err) : status;
}

bl_status co_store_sqlite_open(const char *path, co_store **ret_store, bl_error *err) {
  sqlite_store *s = bl_calloc(1, sizeof *s);
  bl_status status = BL_OK;
  if (s == NULL || (s->path = bl_strdup(path)) == NULL) {
    status = bl_fail(err, BL_ENOMEM, "no memory to open %s", path);
    goto fail;
  }
  s->base = (co_store){put_job, put_report, put_log, delete_job, load, load_job, find, find_token, trim, last_job, close_store};
  if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
      SQLITE_OK) {
    status = fail_sqlite(s, "open", err);
    goto fail;
  }
  sqlite3_busy_timeout(s->db, BUSY_MS);
  status = execute(s,
                   "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                   " PRAGMA foreign_keys=ON;",
                   err);
  if (status == BL_OK)
    status = set_up_schema(s, err);
  for (size_t i = 0; status == BL_OK && i < ST_COUNT; i++)
    if (sqlite3_prepare_v3(s->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &s->st[i], NULL) != SQLITE_OK)
      status = fail_sqlite(s, "read the schema of", err);
  if (status != BL_OK)
    goto fail;
  *ret_store = &s->base;
  return BL_OK;
fail:
  if (s != NULL)
    close_store(&s->base);
  return status;
}
