/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/memory_store.h"

#include "base/alloc.h"
#include "base/arena.h"

#include <fnmatch.h>
#include <string.h>

/* Everything in one growing list of records, each with its own arena; loads sort by scanning. */
typedef enum entry_kind { ENTRY_JOB = 1, ENTRY_REPORT, ENTRY_LOG } entry_kind;

typedef struct entry {
  entry_kind kind;
  bl_arena arena;
  co_job_record job;
  co_rank_record *ranks; /* of job, writable */
  co_report_record report;
  co_log_record log;
} entry;

typedef struct memory_store {
  co_store base;
  entry **entries;
  size_t n, capacity;
  uint64_t last_job, puts, puts_max, refused;
  bool failing, forgetful;
} memory_store;

static void entry_free(entry *e) {
  bl_arena_fini(&e->arena);
  bl_free(e);
}

static entry *entry_new(memory_store *m, entry_kind kind) {
  if (m->n == m->capacity) {
    m->capacity = m->capacity == 0 ? 64 : 2 * m->capacity;
    m->entries = bl_realloc_array(m->entries, m->capacity, sizeof(entry *));
    BL_ASSERT(m->entries != NULL);
  }
  entry *e = bl_calloc(1, sizeof *e);
  BL_ASSERT(e != NULL);
  e->kind = kind;
  bl_arena_init(&e->arena, 0);
  m->entries[m->n++] = e;
  m->puts++;
  return e;
}

static void entry_remove(memory_store *m, size_t i) {
  entry_free(m->entries[i]);
  memmove(m->entries + i, m->entries + i + 1, (m->n - i - 1) * sizeof(entry *));
  m->n--;
}

static entry *find_job(const memory_store *m, uint64_t id) {
  for (size_t i = 0; i < m->n; i++)
    if (m->entries[i]->kind == ENTRY_JOB && m->entries[i]->job.id == id)
      return m->entries[i];
  return NULL;
}

static bool must_refuse(memory_store *m) {
  bool refuses = m->failing || (m->puts_max > 0 && m->puts >= m->puts_max);
  m->refused += refuses;
  return refuses;
}

static bl_status refuse(bl_error *err) {
  return bl_fail(err, BL_EIO, "the store was told to fail");
}

static void *copy(bl_arena *a, const void *data, size_t size) {
  if (data == NULL)
    return NULL;
  void *p = bl_arena_alloc(a, size == 0 ? 1 : size);
  BL_ASSERT(p != NULL);
  memcpy(p, data, size);
  return p;
}

static const char *copy_text(bl_arena *a, const char *s) {
  return copy(a, s, strlen(s) + 1);
}

static bl_status put_job(co_store *s, const co_job_record *r, bl_error *err) {
  memory_store *m = (memory_store *)s;
  if (must_refuse(m))
    return refuse(err);
  if (m->forgetful)
    return BL_OK;
  for (size_t i = 0; i < m->n; i++)
    if (m->entries[i]->kind == ENTRY_JOB && m->entries[i]->job.id == r->id) {
      entry_remove(m, i);
      break;
    }
  entry *e = entry_new(m, ENTRY_JOB);
  bl_arena *a = &e->arena;
  e->job = *r;
  e->job.token = copy_text(a, r->token);
  e->job.file = copy_text(a, r->file);
  e->job.submitter = copy_text(a, r->submitter);
  e->job.text = copy_text(a, r->text);
  e->job.phase = copy_text(a, r->phase);
  e->job.reason = copy_text(a, r->reason);
  e->job.blas_core = copy_text(a, r->blas_core);
  e->job.plan = copy(a, r->plan, r->plan_bytes);
  e->job.name = copy_text(a, r->name);
  e->job.state = copy_text(a, r->state);
  e->job.summary = copy_text(a, r->summary);
  e->job.ranks = e->ranks = copy(a, r->ranks, r->n_ranks * sizeof *r->ranks);
  co_server_record *servers = copy(a, r->servers, r->n_servers * sizeof *r->servers);
  for (uint32_t i = 0; i < r->n_ranks; i++)
    e->ranks[i].node = copy_text(a, r->ranks[i].node);
  for (uint32_t i = 0; i < r->n_servers; i++)
    servers[i].name = copy_text(a, r->servers[i].name);
  e->job.servers = servers;
  if (r->id > m->last_job)
    m->last_job = r->id;
  return BL_OK;
}

static void move_sequence(memory_store *m, uint64_t job, uint32_t rank, uint32_t incarnation,
                          uint64_t sequence) {
  entry *e = find_job(m, job);
  if (e != NULL && rank < e->job.n_ranks && e->ranks[rank].incarnation == incarnation)
    e->ranks[rank].sequence = sequence;
}

static bool same_report(const co_report_record *a, const co_report_record *b) {
  return a->job == b->job && a->rank == b->rank && a->kind == b->kind && a->epoch == b->epoch;
}

static bl_status put_report(co_store *s, const co_report_record *r, bl_error *err) {
  memory_store *m = (memory_store *)s;
  if (must_refuse(m))
    return refuse(err);
  move_sequence(m, r->job, r->rank, r->incarnation, r->sequence);
  for (size_t i = 0; i < m->n; i++)
    if (m->entries[i]->kind == ENTRY_REPORT && same_report(&m->entries[i]->report, r)) {
      if (r->kind == CO_REPORT_EPOCH)
        return BL_OK;
      entry_remove(m, i);
      break;
    }
  entry *e = entry_new(m, ENTRY_REPORT);
  e->report = *r;
  e->report.message = copy(&e->arena, r->message, r->message_bytes);
  return BL_OK;
}

static bl_status put_log(co_store *s, const co_log_record *r, bl_error *err) {
  memory_store *m = (memory_store *)s;
  if (must_refuse(m))
    return refuse(err);
  entry *e = entry_new(m, ENTRY_LOG);
  e->log = *r;
  e->log.text = copy_text(&e->arena, r->text);
  if (r->sequence != 0)
    move_sequence(m, r->job, r->rank, r->incarnation, r->sequence);
  for (size_t i = 0; i < m->n; i++) {
    const co_log_record *old = &m->entries[i]->log;
    if (m->entries[i]->kind == ENTRY_LOG && old->job == r->job && old->number + CO_LOG_LINES_MAX <= r->number) {
      entry_remove(m, i);
      break; /* lines come one by one, so at most one is too old */
    }
  }
  return BL_OK;
}

static bl_status delete_job(co_store *s, uint64_t job, bl_error *err) {
  memory_store *m = (memory_store *)s;
  if (must_refuse(m))
    return refuse(err);
  for (size_t i = m->n; i-- > 0;) {
    const entry *e = m->entries[i];
    uint64_t owner = e->kind == ENTRY_JOB ? e->job.id : e->kind == ENTRY_REPORT ? e->report.job : e->log.job;
    if (owner == job)
      entry_remove(m, i);
  }
  return BL_OK;
}

static bool has_ended(const co_job_record *r) {
  return strcmp(r->phase, "done") == 0 || strcmp(r->phase, "failed") == 0 || strcmp(r->phase, "cancelled") == 0;
}

/* Which jobs a load is about: one, or those that have not ended and the newest of the others. */
typedef struct wanted {
  uint64_t only, ended_max;
} wanted;

static bool is_wanted(const memory_store *m, const wanted *w, uint64_t id) {
  const entry *e = find_job(m, id);
  if (w->only != 0)
    return w->only == id;
  if (e == NULL || !has_ended(&e->job))
    return e != NULL;
  uint64_t newer = 0;
  for (size_t i = 0; i < m->n; i++)
    newer += m->entries[i]->kind == ENTRY_JOB && m->entries[i]->job.id > id && has_ended(&m->entries[i]->job);
  return newer < w->ended_max;
}

static bl_status load_jobs(memory_store *m, const wanted *w, const co_store_visitor *v, void *arg) {
  bl_status status = BL_OK;
  for (uint64_t id = 1; status == BL_OK && id <= m->last_job; id++) {
    const entry *e = find_job(m, id);
    if (e != NULL && is_wanted(m, w, id))
      status = v->on_job(&e->job, arg);
  }
  return status;
}

static bl_status load_wanted(memory_store *m, const wanted *w, const co_store_visitor *v, void *arg, bl_error *err) {
  bl_status status = load_jobs(m, w, v, arg);
  /* Reports and lines stand in the order in which they came, which is one that the contract allows within
   * an epoch number; kinds in turn. */
  for (co_report_kind kind = CO_REPORT_DATA; kind <= CO_REPORT_LEASE; kind++)
    for (size_t i = 0; status == BL_OK && i < m->n; i++)
      if (m->entries[i]->kind == ENTRY_REPORT && m->entries[i]->report.kind == kind &&
          is_wanted(m, w, m->entries[i]->report.job))
        status = v->on_report(&m->entries[i]->report, arg);
  for (size_t i = 0; status == BL_OK && i < m->n; i++)
    if (m->entries[i]->kind == ENTRY_LOG && is_wanted(m, w, m->entries[i]->log.job))
      status = v->on_log(&m->entries[i]->log, arg);
  if (status != BL_OK && err != NULL && err->status == BL_OK)
    bl_fail(err, status, "the memory store cannot be read");
  return status;
}

static bl_status load(co_store *s, uint64_t ended_max, const co_store_visitor *v, void *arg, bl_error *err) {
  return load_wanted((memory_store *)s, &(wanted){.ended_max = ended_max}, v, arg, err);
}

static bl_status load_job(co_store *s, uint64_t job, const co_store_visitor *v, void *arg, bl_error *err) {
  if (find_job((memory_store *)s, job) == NULL)
    return bl_fail(err, BL_ENOENT, "there is no job %llu", (unsigned long long)job);
  return load_wanted((memory_store *)s, &(wanted){.only = job}, v, arg, err);
}

static bool word_is_in(const char *words, const char *word) {
  size_t n = strlen(word);
  for (const char *at = words; (at = strstr(at, word)) != NULL; at += n)
    if ((at == words || at[-1] == ',') && (at[n] == '\0' || at[n] == ','))
      return true;
  return false;
}

static bool fits(const co_job_record *r, const co_search *what) {
  return (what->states[0] == '\0' || word_is_in(what->states, r->state)) &&
         (what->name[0] == '\0' || fnmatch(what->name, r->name, 0) == 0) &&
         (what->submitter[0] == '\0' || strcmp(what->submitter, r->submitter) == 0) &&
         r->submitted_wall_ns >= what->submitted_ns && (what->before == 0 || r->id < what->before);
}

static bl_status find(co_store *s, const co_search *what, co_found_fn *fn, void *arg, bl_error *err) {
  memory_store *m = (memory_store *)s;
  bl_status status = BL_OK;
  uint32_t n = 0;
  for (uint64_t id = m->last_job; status == BL_OK && id > 0 && n < what->limit; id--) {
    const entry *e = find_job(m, id);
    if (e == NULL || !fits(&e->job, what))
      continue;
    n++;
    status = fn(id, e->job.summary, arg);
  }
  return status == BL_OK ? BL_OK : bl_fail(err, status, "too many results");
}

static bl_status find_token(co_store *s, const char *token, uint64_t *ret_job, bl_error *err) {
  (void)err;
  memory_store *m = (memory_store *)s;
  *ret_job = 0;
  for (size_t i = 0; i < m->n; i++)
    if (m->entries[i]->kind == ENTRY_JOB && strcmp(m->entries[i]->job.token, token) == 0)
      *ret_job = m->entries[i]->job.id;
  return BL_OK;
}

static bl_status trim(co_store *s, uint64_t keep, uint32_t *ret_deleted, bl_error *err) {
  memory_store *m = (memory_store *)s;
  if (must_refuse(m))
    return refuse(err);
  *ret_deleted = 0;
  for (uint64_t id = 1; id <= m->last_job && *ret_deleted < CO_STORE_TRIM_MAX; id++) {
    const entry *e = find_job(m, id);
    if (e == NULL || !has_ended(&e->job) || is_wanted(m, &(wanted){.ended_max = keep}, id))
      continue;
    bl_status status = delete_job(s, id, err);
    if (status != BL_OK)
      return status;
    ++*ret_deleted;
  }
  return BL_OK;
}

static bl_status last_job(co_store *s, uint64_t *ret_id, bl_error *err) {
  (void)err;
  *ret_id = ((memory_store *)s)->last_job;
  return BL_OK;
}

static void close_store(co_store *s) {
  memory_store *m = (memory_store *)s;
  for (size_t i = 0; i < m->n; i++)
    entry_free(m->entries[i]);
  bl_free(m->entries);
  bl_free(m);
}

co_store *memory_store_new(void) {
  memory_store *m = bl_calloc(1, sizeof *m);
  if (m == NULL)
    return NULL;
  m->base = (co_store){put_job, put_report, put_log, delete_job, load, load_job, find, find_token, trim, last_job, close_store};
  return &m->base;
}

void memory_store_set_failing(co_store *s, bool failing) {
  ((memory_store *)s)->failing = failing;
}
void memory_store_set_puts_max(co_store *s, uint64_t puts_max) {
  ((memory_store *)s)->puts_max = puts_max;
}
uint64_t memory_store_refused(const co_store *s) {
  return ((const memory_store *)s)->refused;
}
void memory_store_set_forgetful(co_store *s, bool forgetful) {
  ((memory_store *)s)->forgetful = forgetful;
}
uint64_t memory_store_puts(const co_store *s) {
  return ((const memory_store *)s)->puts;
}

const co_job_record *memory_store_job(const co_store *s, uint64_t id) {
  const entry *e = find_job((const memory_store *)s, id);
  return e != NULL ? &e->job : NULL;
}
