/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/history.h"

#include "coordinator/status.h"

#include "base/alloc.h"
#include "base/num.h"

#include <inttypes.h>
#include <string.h>

/* ---- load ------------------------------------------------------------------------------------------- */

/* Into the state, or as a single job beside it. */
typedef struct loader {
  co_state *st;    /* NULL: the single one */
  co_job *single;  /* owned */
  bl_error *err;
} loader;

static co_job *job_of(const loader *l, uint64_t id) {
  return l->st != NULL ? co_state_job(l->st, id) : l->single;
}

static bl_status on_stored_job(const co_job_record *r, void *arg) {
  loader *l = arg;
  co_job *job;
  bl_status status = co_job_from_record(r, &job, l->err);
  if (status != BL_OK)
    return status;
  if (l->st == NULL) {
    l->single = job;
    return BL_OK;
  }
  status = co_state_add(l->st, job);
  if (status != BL_OK)
    co_job_free(job);
  return status;
}

static bl_status on_stored_report(const co_report_record *r, void *arg) {
  co_job *job = job_of(arg, r->job);
  bl_status status = job != NULL ? co_job_restore_report(job, r) : BL_OK;
  /* One that made no sense when it came makes none now. */
  return status == BL_EINVAL ? BL_OK : status;
}

static bl_status on_stored_log(const co_log_record *r, void *arg) {
  co_job *job = job_of(arg, r->job);
  return job != NULL ? co_job_add_log(job, r->number, r->wall_ns, r->level, r->rank, r->text) : BL_OK;
}

static const co_store_visitor visitor = {on_stored_job, on_stored_report, on_stored_log};

bl_status co_history_load(co_state *st, bl_error *err) {
  loader l = {.st = st, .err = err};
  uint64_t last = 0;
  bl_status status = st->store->load(st->store, CO_ENDED_IN_MEMORY, &visitor, &l, err);
  if (status == BL_OK)
    status = st->store->last_job(st->store, &last, err);
  st->next_job = last + 1;
  st->history_grew = true; /* the limit may be lower than it was */
  return status;
}

const co_job *co_history_job(const co_state *st, uint64_t id, co_job **ret_owned) {
  *ret_owned = NULL;
  const co_job *job = co_state_job(st, id);
  if (job != NULL || id == 0 || id >= st->next_job)
    return job;
  bl_error err = BL_ERROR_INIT;
  loader l = {.err = &err};
  if (st->store->load_job(st->store, id, &visitor, &l, &err) != BL_OK) {
    co_job_free(l.single);
    return NULL;
  }
  *ret_owned = l.single;
  return l.single;
}

bl_status co_history_token(const co_state *st, const char *token, uint64_t *ret_job, bl_error *err) {
  for (size_t i = st->n_jobs; i-- > 0;)
    if (strcmp(st->jobs[i]->token, token) == 0) {
      *ret_job = st->jobs[i]->id;
      return BL_OK;
    }
  return st->store->find_token(st->store, token, ret_job, err);
}

/* ---- forgetting ------------------------------------------------------------------------------------- */

static void keep_in_memory(co_state *st, uint64_t ended_max) {
  size_t ended = 0, kept = 0;
  for (size_t i = 0; i < st->n_jobs; i++)
    ended += co_job_state_is_terminal(st->jobs[i]->state);
  for (size_t i = 0; i < st->n_jobs; i++) {
    co_job *job = st->jobs[i];
    if (ended > ended_max && co_job_state_is_terminal(job->state) && !job->dirty) {
      ended--;
      co_job_free(job);
    } else {
      st->jobs[kept++] = job;
    }
  }
  st->n_jobs = kept;
}

void co_history_sweep(co_state *st, uint64_t jobs_max) {
  if (!st->history_grew)
    return;
  bl_error err = BL_ERROR_INIT;
  uint32_t deleted = 0;
  bl_status status = st->store->trim(st->store, jobs_max, &deleted, &err);
  co_state_note_store(st, status, &err);
  if (status != BL_OK)
    return; /* tried again */
  st->history_grew = deleted == CO_STORE_TRIM_MAX;
  keep_in_memory(st, BL_MIN(CO_ENDED_IN_MEMORY, jobs_max));
}

/* ---- search ----------------------------------------------------------------------------------------- */

#define STATES_BYTES_MAX 256u
#define LIST_BYTES_MAX (BL_CONTROL_JSON_BYTES_MAX / 2) /* of a list's summaries: the rest is another list */

static bool is_state(const char *word, size_t n) {
  for (co_job_state s = CO_JOB_QUEUED; s < CO_JOB_STATE_COUNT; s++)
    if (strlen(co_job_state_name(s)) == n && memcmp(co_job_state_name(s), word, n) == 0)
      return true;
  return false;
}

/* Words for several states written out. out: [STATES_BYTES_MAX]. */
static bl_status states_of(const char *query, char *out, bl_error *err) {
  static const char *const groups[][2] = {{"active", "starting,running,recovering,finishing"},
                                          {"ended", "done,failed,cancelled"}};
  bl_buf text = BL_BUF_INIT;
  for (const char *word = query; *word != '\0';) {
    size_t n = strcspn(word, ",");
    const char *group = NULL;
    for (size_t i = 0; i < BL_COUNT_OF(groups); i++)
      if (strlen(groups[i][0]) == n && memcmp(groups[i][0], word, n) == 0)
        group = groups[i][1];
    if (group == NULL && !is_state(word, n)) {
      bl_buf_fini(&text);
      return bl_fail(err, BL_EINVAL,
                     "no job is ever '%.*s': states are queued, starting, running, recovering, finishing, done, failed,"
                     " cancelled; 'active' and 'ended' stand for several",
                     (int)BL_MIN(n, 40), word);
    }
    bl_buf_printf(&text, "%s%.*s", text.size > 0 ? "," : "", group != NULL ? 200 : (int)n, group != NULL ? group : word);
    word += n + (word[n] == ',');
  }
  bool fits = !text.failed && text.size < STATES_BYTES_MAX;
  if (fits)
    memcpy(out, bl_buf_str(&text), text.size + 1);
  bl_buf_fini(&text);
  return fits ? BL_OK : bl_fail(err, BL_EINVAL, "too many states are asked for");
}

typedef struct found_job {
  uint64_t id;
  char *summary; /* owned; "": to be made */
} found_job;

typedef struct finding {
  found_job *jobs; /* owned, [limit] */
  uint32_t n, limit;
  size_t bytes;
  bool more;
} finding;

static bl_status on_found(uint64_t id, const char *summary, void *arg) {
  finding *f = arg;
  if (f->n == f->limit || f->bytes > LIST_BYTES_MAX) {
    f->more = true;
    return BL_OK;
  }
  char *copy = bl_strdup(summary);
  if (copy == NULL)
    return BL_ENOMEM;
  f->bytes += strlen(copy);
  f->jobs[f->n++] = (found_job){id, copy};
  return BL_OK;
}

/* What is in memory is told as it is now. */
static bl_status add_summary(const co_state *st, const found_job *f, bl_buf *out) {
  if (co_state_job(st, f->id) == NULL && f->summary[0] != '\0') {
    bl_buf_add_str(out, f->summary);
    return BL_OK;
  }
  co_job *owned;
  const co_job *job = co_history_job(st, f->id, &owned);
  bl_status status = job != NULL ? co_status_summary(st, job, out) : BL_ENOENT;
  co_job_free(owned);
  return status;
}

static bl_status add_list(const co_state *st, const finding *f, bl_buf *out) {
  bool first = true;
  bl_buf_add_str(out, "{\"jobs\":[");
  for (uint32_t i = f->n; i-- > 0;) {
    size_t before = out->size;
    if (!first)
      bl_buf_add_byte(out, ',');
    bl_status status = add_summary(st, &f->jobs[i], out);
    if (status == BL_ENOENT) /* one that a newer program stored, or that is damaged: the others are still told */
      out->size = before;
    else if (status != BL_OK)
      return status;
    else
      first = false;
  }
  bl_buf_printf(out, "],\"more\":%s}", f->more ? "true" : "false");
  return out->failed ? BL_ENOMEM : out->size > BL_CONTROL_JSON_BYTES_MAX ? BL_ELIMIT : BL_OK;
}

bl_status co_history_find(const co_state *st, const co_query *q, bl_buf *out, bl_error *err) {
  char states[STATES_BYTES_MAX];
  bl_status status = states_of(q->state, states, err);
  if (status != BL_OK)
    return status;
  finding f = {.limit = BL_MIN(q->limit > 0 ? q->limit : CO_LIST_JOBS_DEFAULT, CO_LIST_JOBS_MAX)};
  f.jobs = bl_calloc(f.limit, sizeof *f.jobs);
  if (f.jobs == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a list of jobs");
  co_search what = {states, q->name, q->submitter, q->submitted_ns, q->before, f.limit + 1};
  status = st->store->find(st->store, &what, on_found, &f, err);
  if (status == BL_OK) {
    status = add_list(st, &f, out);
    if (status != BL_OK)
      bl_fail(err, status, "the list is too long or memory is short: ask for fewer jobs");
  }
  for (uint32_t i = 0; i < f.n; i++)
    bl_free(f.jobs[i].summary);
  bl_free(f.jobs);
  return status;
}
