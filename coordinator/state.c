/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/state.h"

#include "coordinator/status.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

co_job *co_state_job(const co_state *st, uint64_t id) {
  size_t first = 0, end = st->n_jobs;
  while (first < end) {
    size_t mid = first + (end - first) / 2;
    if (st->jobs[mid]->id == id)
      return st->jobs[mid];
    if (st->jobs[mid]->id < id)
      first = mid + 1;
    else
      end = mid;
  }
  return NULL;
}

bl_status co_state_add(co_state *st, co_job *job) {
  if (st->n_jobs == st->jobs_capacity) {
    size_t capacity = BL_MAX(16, 2 * st->jobs_capacity);
    co_job **jobs = bl_realloc_array(st->jobs, capacity, sizeof(co_job *));
    if (jobs == NULL)
      return BL_ENOMEM;
    st->jobs = jobs;
    st->jobs_capacity = capacity;
  }
  st->jobs[st->n_jobs++] = job;
  return BL_OK;
}

co_node *co_state_live(const co_state *st, const char *name, uint64_t incarnation) {
  co_node *node = co_membership_find(&st->members, name);
  return node != NULL && node->alive && node->reg->incarnation == incarnation ? node : NULL;
}

bool co_state_node_is_lost(const co_state *st, const char *name, uint64_t incarnation) {
  const co_node *node = co_membership_find(&st->members, name);
  if (node != NULL)
    return !node->alive || node->reg->incarnation != incarnation;
  return st->now_ns - st->started_ns > CO_RESTART_GRACE_LEASES * st->lease_ns;
}

co_node *co_state_holder(const co_state *st, uint64_t job) {
  for (size_t i = 0; i < st->members.n; i++) {
    co_node *node = st->members.nodes[i];
    if (!node->alive || node->hb == NULL)
      continue;
    if (co_node_job(node, job) != NULL)
      return node;
    for (size_t t = 0; t < node->hb->n_tasks; t++)
      if (node->hb->tasks[t]->job == job)
        return node;
  }
  return NULL;
}

void co_state_note_store(co_state *st, bl_status status, const bl_error *err) {
  if (status == BL_OK) {
    st->store_error[0] = '\0';
    return;
  }
  if (strcmp(st->store_error, err->text) != 0)
    bl_log_error("store_failed", "error=%s", BL_LOGQ(err->text));
  bl_str_copy(st->store_error, sizeof st->store_error, err->text);
}

void co_state_log(co_state *st, co_job *job, uint32_t level, const char *fmt, ...) {
  char text[1024];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  bl_log((bl_log_level)level, "job", "job=%" PRIu64 " text=%s", job->id, BL_LOGQ(text));
  if (co_job_add_log(job, job->log_number + 1, st->wall_ns, level, CO_LOG_RANK_NONE, text) != BL_OK)
    return;
  co_log_record record = {.job = job->id,
                          .number = job->log_number,
                          .wall_ns = st->wall_ns,
                          .level = level,
                          .rank = CO_LOG_RANK_NONE,
                          .text = text};
  bl_error err = BL_ERROR_INIT;
  co_state_note_store(st, st->store->put_log(st->store, &record, &err), &err);
}

/* What lists will show of it from now on. Without memory for it the store keeps none: it is made when asked for. */
static void summarise_end(const co_state *st, co_job *job, bl_buf *summary) {
  if (!co_job_state_is_terminal(job->state))
    return;
  co_job_state before = job->stored_state;
  job->stored_state = job->state; /* as it will be once this is stored */
  if (co_status_summary(st, job, summary) != BL_OK)
    bl_buf_clear(summary);
  job->stored_state = before;
}

bool co_state_save(co_state *st, co_job *job) {
  if (!job->dirty)
    return true;
  co_job_sync_plan(job);
  co_job_scratch scratch;
  co_job_record record;
  bl_buf summary = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  bl_status status = co_job_to_record(job, &scratch, &record);
  if (status != BL_OK) {
    bl_fail(&err, status, "job %" PRIu64 " cannot be packed for the store", job->id);
  } else {
    summarise_end(st, job, &summary);
    record.summary = bl_buf_str(&summary);
    status = st->store->put_job(st->store, &record, &err);
    st->history_grew |= status == BL_OK && co_job_state_is_terminal(job->state);
  }
  bl_buf_fini(&summary);
  co_job_scratch_fini(&scratch);
  co_state_note_store(st, status, &err);
  job->dirty = status != BL_OK;
  if (status == BL_OK)
    job->stored_state = job->state;
  return !job->dirty;
}
