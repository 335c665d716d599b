/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/schedule.h"

#include "coordinator/lifecycle.h"
#include "coordinator/queue.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- order ------------------------------------------------------------------------------------------ */

typedef struct entry {
  co_job *job;
  uint64_t held; /* slots of the submitter's active jobs */
  bool due;      /* waits longer than others may pass it */
} entry;

static bool is_due(const co_state *st, const co_job *job) {
  return st->wall_ns >= job->submitted_wall_ns && st->wall_ns - job->submitted_wall_ns >= st->queue_pass_ns;
}

static int by_order(const void *pa, const void *pb) {
  const entry *a = pa, *b = pb;
  if (a->job->priority != b->job->priority)
    return a->job->priority > b->job->priority ? -1 : 1;
  if (a->due != b->due)
    return a->due ? -1 : 1;
  if (!a->due && a->held != b->held)
    return a->held < b->held ? -1 : 1;
  return a->job->id < b->job->id ? -1 : a->job->id > b->job->id;
}

static size_t collect(const co_state *st, bool active, entry *out) {
  size_t n = 0;
  for (size_t i = 0; i < st->n_jobs; i++) {
    co_job *job = st->jobs[i];
    if (active ? co_job_state_is_active(job->state) : job->state == CO_JOB_QUEUED)
      out[n++] = (entry){.job = job, .due = is_due(st, job)};
  }
  return n;
}

/* Active jobs are few beside a long queue. */
static void count_held(entry *queued, size_t n, const entry *active, size_t n_active) {
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < n_active; k++)
      if (strcmp(queued[i].job->submitter, active[k].job->submitter) == 0)
        queued[i].held += active[k].job->n_ranks;
}

/* ---- sentences -------------------------------------------------------------------------------------- */

static void say(co_job *job, bl_buf *why) {
  bl_str_copy(job->waits_for, sizeof job->waits_for, bl_buf_str(why));
  bl_buf_clear(why);
}

static void add_place(uint32_t place, bl_buf *why) {
  static const char *const words[] = {"",      "first",   "second", "third", "fourth", "fifth",
                                      "sixth", "seventh", "eighth", "ninth", "tenth"};
  if (place < BL_COUNT_OF(words))
    bl_buf_printf(why, "%s in the queue", words[place]);
  else
    bl_buf_printf(why, "number %" PRIu32 " in the queue", place);
}

/* ahead: whoever stands directly before it, and why that is so when it is not plainly older. */
static void say_place(const entry *e, const entry *ahead, const co_job *kept_for, bl_buf *why) {
  bl_buf_printf(why, "job %" PRIu64 " is ", e->job->id);
  add_place(e->job->place, why);
  bl_buf_printf(why, " behind job %" PRIu64, ahead->job->id);
  if (ahead->job->priority != e->job->priority)
    bl_buf_printf(why, " (priority %d)", ahead->job->priority);
  else if (ahead->job->id > e->job->id)
    bl_buf_printf(why, " (%s holds %" PRIu64 " slot%s, %s %" PRIu64 ")", ahead->job->submitter, ahead->held,
                  ahead->held == 1 ? "" : "s", e->job->submitter, e->held);
  if (kept_for != NULL)
    bl_buf_printf(why, "; slots that come free are kept for job %" PRIu64, kept_for->id);
}

/* ---- the queue -------------------------------------------------------------------------------------- */

typedef struct line {
  co_state *st;
  entry *entries; /* borrowed */
  size_t n;
  co_survey *survey; /* owned */
  uint32_t n_waiting;     /* that others' ends will help */
  const entry *last;      /* of those */
  const co_job *kept_for; /* nobody passes this one any more */
  bl_buf why;
} line;

static bool take_stock(line *l) {
  co_survey_free(l->survey);
  l->survey = co_survey_new(l->st);
  return l->survey != NULL;
}

/* Whoever has just started may have been the one with the fewest slots. */
static void after_start(line *l, size_t at) {
  const co_job *job = l->entries[at].job;
  for (size_t i = at + 1; i < l->n; i++)
    if (strcmp(l->entries[i].job->submitter, job->submitter) == 0)
      l->entries[i].held += job->n_ranks;
  qsort(l->entries + at + 1, l->n - at - 1, sizeof *l->entries, by_order);
  take_stock(l);
}

static void stand_in_line(line *l, const entry *e, bool has_sentence) {
  e->job->place = ++l->n_waiting;
  if (!has_sentence)
    say_place(e, l->last, l->kept_for, &l->why);
  if (l->kept_for == NULL && e->due)
    l->kept_for = e->job;
  l->last = e;
}

static void start_or_wait(line *l, size_t at) {
  const entry *e = &l->entries[at];
  co_job *job = e->job;
  bool could = co_survey_could_have_room(l->survey, job), blocks = could, started = false;
  /* The first in line is asked in any case: its sentence says what is missing. So is who lacks more than time. */
  bool asked = l->n_waiting == 0 || !could ||
               (l->kept_for == NULL && (co_survey_has_room(l->survey, job) || !co_survey_is_for(l->survey, job)));
  job->place = 0;
  if (asked)
    started = co_queue_start(l->st, l->survey, job, &blocks, &l->why);
  if (started) {
    if (co_lifecycle_apply(l->st, job, CO_EV_PLACED, BL_OK, "") != BL_OK)
      bl_log_error("bug", "bug=placed_outside_queue job=%" PRIu64, job->id);
    co_lifecycle_waits_for(l->st, job, &l->why);
  } else if (blocks && could) {
    stand_in_line(l, e, asked);
  }
  say(job, &l->why);
  if (started)
    after_start(l, at);
}

static void run_queue(co_state *st, entry *entries, const entry *active, size_t n_active) {
  line l = {.st = st, .entries = entries, .n = collect(st, false, entries), .why = BL_BUF_INIT};
  count_held(entries, l.n, active, n_active);
  qsort(entries, l.n, sizeof *entries, by_order);
  if (l.n > 0)
    take_stock(&l);
  for (size_t i = 0; i < l.n && l.survey != NULL; i++) /* without memory: at the next tick */
    start_or_wait(&l, i);
  co_survey_free(l.survey);
  bl_buf_fini(&l.why);
}

/* ---- lost ranks ------------------------------------------------------------------------------------- */

static void replace_lost(co_state *st, entry *active, size_t n) {
  bl_buf why = BL_BUF_INIT;
  qsort(active, n, sizeof *active, by_order);
  for (size_t i = 0; i < n; i++) {
    co_job *job = active[i].job;
    bool blocks;
    job->place = 0;
    if (job->state == CO_JOB_FINISHING || co_queue_give_slots(st, job, &blocks, &why))
      co_lifecycle_waits_for(st, job, &why);
    say(job, &why);
  }
  bl_buf_fini(&why);
}

void co_schedule(co_state *st) {
  entry *entries = bl_calloc(BL_MAX(st->n_jobs, 1), sizeof *entries);
  if (entries == NULL)
    return; /* at the next tick */
  size_t n_active = collect(st, true, entries);
  replace_lost(st, entries, n_active);
  run_queue(st, entries + n_active, entries, n_active);
  bl_free(entries);
}
