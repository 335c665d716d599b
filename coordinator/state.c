/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/state.h"

#include "base/log.h"
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

static void note_store(co_state *st, bl_status status, const bl_error *err) {
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
  note_store(st, st->store->put_log(st->store, &record, &err), &err);
}

bool co_state_save(co_state *st, co_job *job) {
  if (!job->dirty)
    return true;
  co_job_sync_plan(job);
  co_job_scratch scratch;
  co_job_record record;
  bl_error err = BL_ERROR_INIT;
  bl_status status = co_job_to_record(job, &scratch, &record);
  if (status != BL_OK)
    bl_fail(&err, status, "job %" PRIu64 " cannot be packed for the store", job->id);
  else
    status = st->store->put_job(st->store, &record, &err);
  co_job_scratch_fini(&scratch);
  note_store(st, status, &err);
  job->dirty = status != BL_OK;
  if (status == BL_OK)
    job->stored_state = job->state;
  return !job->dirty;
}
