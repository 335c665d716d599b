/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "coordinator/status.h"

#include "coordinator/lifecycle.h"
#include "coordinator/queue.h"
#include "coordinator/traffic.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/num.h"
#include "metrics/metrics.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a number: more than any of them deserves, fewer than noise. */
#define REAL_DIGITS 9

/* ---- JSON helpers: a failed allocation leaves a field out and shows in the end as a missing document ----- */

static void put(json_t *o, const char *key, json_t *value) {
  if (json_object_set_new(o, key, value) != 0)
    json_object_set_new(o, key, json_null());
}

static void put_str(json_t *o, const char *key, const char *s) {
  put(o, key, json_string(s));
}
static void put_int(json_t *o, const char *key, uint64_t v) {
  put(o, key, json_integer((json_int_t)v));
}
/* NaN and infinity have no JSON: null. */
static void put_num(json_t *o, const char *key, double v) {
  put(o, key, isfinite(v) ? json_real(v) : json_null());
}

static void put_hex(json_t *o, const char *key, uint64_t v) {
  char text[17];
  snprintf(text, sizeof text, "%016" PRIx64, v);
  put_str(o, key, text);
}

/* null before it happened. */
static void put_time(json_t *o, const char *key, uint64_t wall_ns) {
  char text[32];
  bl_clock_format_utc(wall_ns, text, sizeof text);
  put(o, key, wall_ns != 0 ? json_string(text) : json_null());
}

static bl_status finish(json_t *o, bl_buf *out) {
  char *text = o != NULL ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(REAL_DIGITS)) : NULL;
  json_decref(o);
  if (text == NULL)
    return BL_ENOMEM;
  size_t n = strlen(text);
  bl_status status = n <= BL_CONTROL_JSON_BYTES_MAX ? BL_OK : BL_ELIMIT;
  if (status == BL_OK) {
    bl_buf_add(out, text, n);
    status = out->failed ? BL_ENOMEM : BL_OK;
  }
  free(text);
  return status;
}

/* ---- nodes ------------------------------------------------------------------------------------------ */

static const char *node_state(const co_node *node) {
  if (!node->alive)
    return "missing";
  return node->hb != NULL && node->hb->draining ? "draining" : "alive";
}

static void put_server(json_t *o, const co_state *st, const co_node *node) {
  json_t *shards = json_array();
  for (size_t i = 0; i < node->reg->n_shard_endpoints; i++)
    json_array_append_new(shards, json_string(node->reg->shard_endpoints[i]));
  put(o, "shards", shards);
  put_int(o, "memory_bytes", node->reg->memory_bytes);
  put_int(o, "memory_reserved_bytes", co_queue_reserved_bytes(st, node));
  put_int(o, "memory_used_bytes", node->hb != NULL ? node->hb->memory_used_bytes : 0);
}

static void put_worker(json_t *o, const co_node *node, uint32_t slots_used) {
  put_int(o, "slots", node->reg->slots);
  put_int(o, "slots_used", slots_used);
  put_int(o, "cores", node->reg->cores);
  put_str(o, "blas_core", node->reg->blas_core);
}

static json_t *node_json(const co_state *st, const co_node *node, uint32_t slots_used) {
  json_t *o = json_object();
  put_str(o, "name", node->reg->name);
  put_str(o, "role", bl_role_name((bl_role)node->reg->role));
  put_str(o, "state", node_state(node));
  put_num(o, "heard_s", (double)(st->now_ns - node->heard_ns) / 1e9);
  put_int(o, "incarnation", node->reg->incarnation);
  put_str(o, "host", node->reg->host);
  put_str(o, "rack", node->reg->rack);
  put_str(o, "build", node->reg->build);
  put_int(o, "protocol", node->reg->protocol_max);
  put_str(o, "kernel_table", node->reg->kernel_table);
  put_str(o, "status_url", node->reg->status_url);
  if (co_node_is(node, BL_ROLE_SERVER))
    put_server(o, st, node);
  else
    put_worker(o, node, slots_used);
  return o;
}

/* ---- jobs ------------------------------------------------------------------------------------------- */

static bool has_classes(const co_job *job) {
  return job->spec->loss != BL_LOSS_SQUARED;
}

/* Mean loss, and what the loss kind calls accuracy; null without samples. */
static void put_metrics(json_t *o, const co_job *job, const char *prefix, const co_metrics *m) {
  char key[128];
  double n = (double)m->n;
  snprintf(key, sizeof key, "%s_loss", prefix);
  put_num(o, key, m->n > 0 ? m->loss_sum / n : NAN);
  snprintf(key, sizeof key, "%s_accuracy", prefix);
  put_num(o, key, m->n > 0 && has_classes(job) ? (double)m->correct / n : NAN);
  snprintf(key, sizeof key, "%s_rmse", prefix);
  put_num(o, key, m->n > 0 && !has_classes(job) ? sqrt(m->squared_error_sum / n) : NAN);
  if (strcmp(prefix, "train") == 0)
    return; /* what `metrics` asks for is measured where nothing is learned */
  co_metric_value more[CO_METRIC_NAMES_MAX];
  for (size_t i = 0, k = co_metrics_values(job->spec, m, more); i < k; i++) {
    snprintf(key, sizeof key, "%s_%s", prefix, more[i].name);
    put_num(o, key, more[i].value);
  }
}

/* Rows: the true class, columns: the predicted one; null before it is known. */
static void put_confusion(json_t *o, const co_job *job, const char *key, const co_metrics *m) {
  uint32_t classes = co_job_classes(job);
  if (!job->spec->measure.confusion)
    return;
  json_t *rows = json_array(), *row = NULL;
  for (uint32_t cell = 0, i = 0; cell < classes * classes; cell++) {
    if (cell % classes == 0)
      json_array_append_new(rows, row = json_array());
    bool here = i < m->confusion.n && m->confusion.at[i] == cell;
    json_array_append_new(row, json_integer(here ? (json_int_t)m->confusion.a[i] : 0));
    i += here;
  }
  put(o, key, m->confusion.n > 0 ? rows : json_null());
  if (m->confusion.n == 0)
    json_decref(rows);
}

/* What the tasks report now, over all ranks. */
typedef struct progress {
  uint64_t clock, samples, bytes_pushed, bytes_pulled, bytes_pushed_dense, bytes_pulled_dense;
  uint32_t epoch;
  double samples_per_second, loss_sum;
  uint32_t n_losses;
} progress;

/* Ranks that run free have clocks of their own: the job's is its share of the work, by the samples that are handed out. */
static uint64_t free_clock(const co_job *job, uint64_t clock_sum) {
  if (job->ledger == NULL)
    return clock_sum / job->n_ranks;
  return job->open->plan->start_clock + co_ledger_handed(job->ledger) / bl_job_clock_samples(job->spec);
}

static progress progress_of(const co_state *st, const co_job *job) {
  progress p = {.clock = UINT64_MAX};
  uint64_t clock_sum = 0;
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const Ballast__Control__TaskStatus *t = co_rank_task(st, job, i);
    if (t == NULL || job->ranks[i].done != NULL)
      continue;
    p.clock = BL_MIN(p.clock, t->clock);
    clock_sum += t->clock;
    p.epoch = BL_MAX(p.epoch, t->epoch);
    p.samples += t->samples;
    p.bytes_pushed += t->bytes_pushed;
    p.bytes_pulled += t->bytes_pulled;
    p.bytes_pushed_dense += t->bytes_pushed_dense;
    p.bytes_pulled_dense += t->bytes_pulled_dense;
    if (t->state == BALLAST__CONTROL__TASK_STATE__TASK_RUNNING) {
      p.samples_per_second += t->samples_per_second;
      p.loss_sum += t->loss;
      p.n_losses++;
    }
  }
  if (!bl_sync_in_step(job->spec->sync))
    p.clock = free_clock(job, clock_sum);
  if (p.clock == UINT64_MAX)
    p.clock = job->n_epochs > 0 ? job->epochs[job->n_epochs - 1].clock : 0;
  return p;
}

static uint64_t clocks_of(const co_job *job) {
  return job->open != NULL ? job->open->plan->clocks : 0;
}

static void put_progress(json_t *o, const co_state *st, const co_job *job) {
  progress p = progress_of(st, job);
  co_result result;
  bool finished = co_job_result(job, &result);
  uint64_t clocks = clocks_of(job), clock = finished ? result.clocks : BL_MIN(p.clock, clocks);
  uint32_t closed = BL_MAX(co_job_closed_epochs(job), co_job_first_epochs(job));
  put_int(o, "clock", clock);
  put_int(o, "clocks", clocks);
  put_int(o, "epoch", closed); /* complete ones */
  put_int(o, "epochs", co_job_epochs(job));
  if (co_stopping_is_asked(job->spec))
    put(o, "best_epoch", job->stopping.best_epoch > 0 ? json_integer(job->stopping.best_epoch) : json_null());
  put_int(o, "clocks_skipped", job->clocks_skipped);
  put_num(o, "samples_per_second", finished ? result.samples_per_second : p.samples_per_second);
  put_num(o, "loss", p.n_losses > 0 ? p.loss_sum / p.n_losses : NAN);
  double per_clock = (double)bl_job_clock_samples(job->spec);
  if (co_job_is_local(job) && clocks > 0) /* not every rank has a part in every clock */
    per_clock = (double)job->train_samples * (double)job->spec->epochs / (double)clocks;
  double left = (double)(clocks - clock) * per_clock;
  put_num(o, "eta_s",
          job->state == CO_JOB_RUNNING && p.samples_per_second > 0 ? left / p.samples_per_second : NAN);
  static const co_metrics none = {0};
  const co_epoch *last = closed > 0 && closed <= job->n_epochs ? &job->epochs[closed - 1] : NULL;
  put_metrics(o, job, "train", last != NULL ? &last->train : &none);
  put_metrics(o, job, "validation", last != NULL ? &last->validation : &none);
  put_metrics(o, job, "test", finished ? &result.test : last != NULL ? &last->test : &none);
}

/* Of the numbers behind validation_ and test_ that the job asks for. */
static json_t *metric_names(const co_job *job) {
  static const co_metrics none = {0};
  co_metric_value values[CO_METRIC_NAMES_MAX];
  json_t *list = json_array();
  for (size_t i = 0, n = co_metrics_values(job->spec, &none, values); i < n; i++)
    json_array_append_new(list, json_string(values[i].name));
  return list;
}

/* Fields that a list of jobs shows. */
static json_t *summary_json(const co_state *st, const co_job *job) {
  json_t *o = json_object();
  put_int(o, "job", job->id);
  put_str(o, "name", job->spec->name);
  put_str(o, "state", co_job_state_name(job->stored_state));
  put_str(o, "phase", co_job_phase_name(job->stored_state));
  put_str(o, "reason", job->reason);
  put_str(o, "waits_for", job->waits_for);
  put_int(o, "place", job->place);
  put(o, "priority", json_integer(job->priority));
  put_str(o, "submitter", job->submitter);
  put_str(o, "file", job->file);
  put_int(o, "ranks", job->n_ranks);
  put_str(o, "sync", job->spec->sync);
  put(o, "metrics", metric_names(job));
  put_int(o, "view", job->view);
  put_time(o, "submitted", job->submitted_wall_ns);
  put_time(o, "started", job->started_wall_ns);
  put_time(o, "running", job->running_wall_ns);
  put_time(o, "finished", job->finished_wall_ns);
  put_progress(o, st, job);
  return o;
}

static const char *const task_states[] = {
    [BALLAST__CONTROL__TASK_STATE__TASK_INVALID] = "unknown",
    [BALLAST__CONTROL__TASK_STATE__TASK_STARTING] = "starting",
    [BALLAST__CONTROL__TASK_STATE__TASK_LOADING] = "loading",
    [BALLAST__CONTROL__TASK_STATE__TASK_READY] = "ready",
    [BALLAST__CONTROL__TASK_STATE__TASK_RUNNING] = "running",
    [BALLAST__CONTROL__TASK_STATE__TASK_DONE] = "done",
    [BALLAST__CONTROL__TASK_STATE__TASK_FAILED] = "failed",
    [BALLAST__CONTROL__TASK_STATE__TASK_STOPPED] = "stopped",
};

static const char *rank_state(const co_rank *r, const Ballast__Control__TaskStatus *t) {
  if (r->done != NULL)
    return "done";
  if (!co_rank_has_slot(r))
    return "waiting";
  return t != NULL && (size_t)t->state < BL_COUNT_OF(task_states) ? task_states[t->state] : "unknown";
}

/* Clocks begun by how far they were ahead of the slowest rank's. */
static json_t *lead_json(const Ballast__Control__TaskStatus *t) {
  static const char *const keys[] = {"0", "1", "2", "3", "4", "5-8", "9-16", "17-32", "33+"};
  json_t *o = json_object();
  for (size_t i = 0; i < t->n_lead && i < BL_COUNT_OF(keys); i++)
    put_int(o, keys[i], t->lead[i]);
  return o;
}

static json_t *rank_json(const co_state *st, const co_job *job, uint32_t rank) {
  const co_rank *r = &job->ranks[rank];
  const Ballast__Control__TaskStatus *t = co_rank_task(st, job, rank);
  json_t *o = json_object();
  put_int(o, "rank", rank);
  put_str(o, "node", r->node);
  put_int(o, "incarnation", r->incarnation);
  put_int(o, "crashes", r->crashes);
  put_str(o, "state", rank_state(r, t));
  put_str(o, "waits_for", t != NULL ? t->waits_for : "");
  put_int(o, "clock", t != NULL ? t->clock : 0);
  put_int(o, "samples", t != NULL ? t->samples : 0);
  put_int(o, "view", t != NULL ? t->view : 0);
  put_num(o, "loss", t != NULL ? t->loss : NAN);
  put_num(o, "samples_per_second", t != NULL ? t->samples_per_second : 0);
  put_int(o, "bytes_pushed", t != NULL ? t->bytes_pushed : 0);
  put_int(o, "bytes_pulled", t != NULL ? t->bytes_pulled : 0);
  put_int(o, "clocks_not_finite", t != NULL ? t->clocks_not_finite : 0);
  if (t != NULL && t->n_lead > 0)
    put(o, "lead", lead_json(t));
  return o;
}

static json_t *job_server_json(const co_state *st, const co_job *job, const co_server_use *use) {
  static const char *const states[] = {"unknown", "opening", "open", "failed"};
  const co_node *node = co_state_live(st, use->name, use->incarnation);
  const Ballast__Control__ServerJobStatus *s = node != NULL ? co_node_job(node, job->id) : NULL;
  json_t *o = json_object();
  put_str(o, "node", use->name);
  put_str(o, "state", s != NULL && (size_t)s->state < BL_COUNT_OF(states) ? states[s->state] : "unknown");
  put_int(o, "view", s != NULL ? s->view : 0);
  put_int(o, "clock", s != NULL ? s->clock_min : 0);
  put_int(o, "memory_bytes", s != NULL ? s->memory_bytes : 0);
  put_int(o, "clocks_skipped", s != NULL ? s->clocks_skipped : 0);
  if (bl_tensor_table_has_tables(job->table)) {
    put_int(o, "table_rows", s != NULL ? s->table_rows : 0);
    put_int(o, "key_bytes", s != NULL ? s->key_bytes : 0);
    put_int(o, "key_bytes_saved", s != NULL ? s->key_bytes_saved : 0);
  }
  return o;
}

/* As a share of the other; null while there is nothing to compare with. */
static void put_ratio(json_t *o, const char *key, double of, double whole) {
  put_num(o, key, whole > 0 ? of / whole : NAN);
}

static json_t *tensors_json(const co_job *job) {
  co_traffic tensors[BL_CONTROL_TRAFFIC_MAX];
  json_t *list = json_array();
  for (size_t i = 0, n = co_traffic_sum(job, tensors); i < n; i++) {
    const co_traffic *t = &tensors[i];
    json_t *o = json_object();
    put_str(o, "name", t->name);
    if (t->name[0] == '\0')
      put_int(o, "tensors", t->n_tensors);
    put_int(o, "ranks", t->n_ranks);
    put_str(o, "push", t->push);
    put_str(o, "pull", t->pull);
    put_str(o, "reason", t->reason);
    put_int(o, "bytes_pushed", t->bytes_pushed);
    put_int(o, "bytes_pulled", t->bytes_pulled);
    put_int(o, "bytes_pushed_dense", t->bytes_pushed_dense);
    put_int(o, "bytes_pulled_dense", t->bytes_pulled_dense);
    put_ratio(o, "push_factor", (double)t->bytes_pushed_dense, (double)t->bytes_pushed);
    put_ratio(o, "pull_factor", (double)t->bytes_pulled_dense, (double)t->bytes_pulled);
    put_num(o, "residual_norm", sqrt(t->residual_squared));
    put_ratio(o, "residual_ratio", sqrt(t->residual_squared), sqrt(t->gradient_squared));
    put_int(o, "residuals_lost", t->residuals_lost);
    put_num(o, "lost_norm", sqrt(t->lost_squared));
    json_array_append_new(list, o);
  }
  return list;
}

static json_t *epochs_json(const co_job *job) {
  json_t *list = json_array();
  for (uint32_t e = co_job_first_epochs(job); e < co_job_closed_epochs(job); e++) {
    const co_epoch *epoch = &job->epochs[e];
    json_t *o = json_object();
    put_int(o, "epoch", e + 1);
    put_int(o, "clock", epoch->clock);
    put_num(o, "seconds", epoch->seconds);
    put_int(o, "samples", epoch->train.n);
    put_metrics(o, job, "train", &epoch->train);
    put_metrics(o, job, "validation", &epoch->validation);
    put_metrics(o, job, "test", &epoch->test);
    json_array_append_new(list, o);
  }
  return list;
}

static json_t *result_json(const co_job *job) {
  co_result r;
  if (!co_job_result(job, &r))
    return json_null();
  json_t *o = json_object();
  put_int(o, "job", job->id);
  /* The result stands once all ranks have delivered; what is left is cleaning up. */
  put_str(o, "state", job->state == CO_JOB_FINISHING ? "done" : co_job_state_name(job->state));
  put_str(o, "reason", job->reason);
  put_int(o, "clocks", r.clocks);
  put_int(o, "epochs", r.epochs);
  put_int(o, "samples", r.samples);
  put_num(o, "seconds", r.seconds);
  put_num(o, "samples_per_second", r.samples_per_second);
  put_metrics(o, job, "train", &r.train);
  put_metrics(o, job, "validation", &r.validation);
  put_metrics(o, job, "test", &r.test);
  put_confusion(o, job, "validation_confusion", &r.validation);
  put_confusion(o, job, "test_confusion", &r.test);
  put_int(o, "bytes_pushed", r.bytes_pushed);
  put_int(o, "bytes_pulled", r.bytes_pulled);
  put_int(o, "bytes_pushed_dense", r.bytes_pushed_dense);
  put_int(o, "bytes_pulled_dense", r.bytes_pulled_dense);
  put_hex(o, "weights_xxh3", r.weights_xxh3);
  put_str(o, "output", r.output);
  if (co_stopping_is_asked(job->spec)) {
    put(o, "best_epoch", r.best_epoch > 0 ? json_integer(r.best_epoch) : json_null());
    put(o, "stopped_early", json_boolean(r.stopped_early));
  }
  return o;
}

bl_status co_status_job(const co_state *st, const co_job *job, bl_buf *out) {
  json_t *o = summary_json(st, job);
  put_str(o, "status", bl_status_name(job->status));
  put_str(o, "blas_core", job->blas_core);
  put_int(o, "parameters", job->table->n_elems);
  put_int(o, "server_bytes", co_job_server_bytes(job));
  put_int(o, "train_samples", job->train_samples);
  put_int(o, "validation_samples", job->validation_samples);
  put_int(o, "test_samples", job->test_samples);
  put_hex(o, "data_fingerprint", job->fingerprint);
  json_t *ranks = json_array(), *servers = json_array();
  for (uint32_t i = 0; i < job->n_ranks; i++)
    json_array_append_new(ranks, rank_json(st, job, i));
  for (uint32_t i = 0; i < job->n_servers; i++)
    json_array_append_new(servers, job_server_json(st, job, &job->servers[i]));
  put(o, "rank_states", ranks);
  put(o, "server_states", servers);
  put(o, "tensors", tensors_json(job));
  put(o, "history", epochs_json(job));
  put(o, "result", result_json(job));
  put_int(o, "protocol", job->protocol);
  put_str(o, "text", job->text);
  return finish(o, out);
}

static json_t *jobs_json(const co_state *st) {
  json_t *list = json_array();
  for (size_t i = 0; i < st->n_jobs; i++)
    json_array_append_new(list, summary_json(st, st->jobs[i]));
  return list;
}

bl_status co_status_summary(const co_state *st, const co_job *job, bl_buf *out) {
  return finish(summary_json(st, job), out);
}

bl_status co_status_cluster(const co_state *st, bl_buf *out) {
  uint32_t *slots_used = co_queue_slots_used(st);
  if (slots_used == NULL)
    return BL_ENOMEM;
  json_t *o = json_object(), *nodes = json_array();
  for (size_t i = 0; i < st->members.n; i++)
    json_array_append_new(nodes, node_json(st, st->members.nodes[i], slots_used[i]));
  bl_free(slots_used);
  put_str(o, "role", "coordinator");
  put_str(o, "version", PACKAGE_VERSION);
  put_int(o, "protocol", st->protocol_max);
  put_int(o, "incarnation", st->incarnation);
  put_time(o, "time", st->wall_ns);
  put_num(o, "uptime_s", (double)(st->now_ns - st->started_ns) / 1e9);
  put_num(o, "lease_s", (double)st->lease_ns / 1e9);
  put_str(o, "store_error", st->store_error);
  put(o, "nodes", nodes);
  put(o, "jobs", jobs_json(st));
  return finish(o, out);
}

bl_status co_status_logs(const co_job *job, uint64_t since, bl_buf *out) {
  static const char *const levels[BL_LOG_COUNT] = {"?", "debug", "info", "warning", "error"};
  json_t *o = json_object(), *lines = json_array();
  for (uint32_t i = 0; i < job->n_log; i++) {
    const co_log_line *line = co_job_log_at(job, i);
    if (line->number <= since)
      continue;
    json_t *l = json_object();
    put_int(l, "number", line->number);
    put_time(l, "time", line->wall_ns);
    put_str(l, "level", line->level < BL_LOG_COUNT ? levels[line->level] : "?");
    put(l, "rank", line->rank != CO_LOG_RANK_NONE ? json_integer(line->rank) : json_null());
    put_str(l, "text", line->text);
    json_array_append_new(lines, l);
  }
  put_int(o, "job", job->id);
  put_str(o, "state", co_job_state_name(job->stored_state));
  put_int(o, "last", job->log_number);
  put(o, "lines", lines);
  return finish(o, out);
}

/* ---- metrics.csv ------------------------------------------------------------------------------------ */

/* An empty field where there is nothing to say. */
static void put_csv(bl_buf *out, bool known, double value) {
  if (known && isfinite(value))
    bl_buf_printf(out, ",%.9g", value);
  else
    bl_buf_add_str(out, ",");
}

static void put_csv_more(bl_buf *out, const co_job *job, const co_metrics *m) {
  co_metric_value values[CO_METRIC_NAMES_MAX];
  for (size_t i = 0, n = co_metrics_values(job->spec, m, values); i < n; i++)
    put_csv(out, true, values[i].value);
}

static void put_csv_metrics(bl_buf *out, const co_job *job, const co_metrics *m) {
  double n = (double)m->n;
  put_csv(out, m->n > 0, m->loss_sum / n);
  put_csv(out, m->n > 0 && has_classes(job), (double)m->correct / n);
  put_csv(out, m->n > 0 && !has_classes(job), sqrt(m->squared_error_sum / n));
}

void co_status_metrics_csv(const co_job *job, bl_buf *out) {
  co_result result;
  bool finished = co_job_result(job, &result);
  bl_buf_add_str(out, "epoch,clock,seconds,samples");
  static const char *const sets[] = {"train", "validation", "test"};
  for (size_t i = 0; i < BL_COUNT_OF(sets); i++)
    bl_buf_printf(out, ",%s_loss,%s_accuracy,%s_rmse", sets[i], sets[i], sets[i]);
  for (size_t i = 1; i < BL_COUNT_OF(sets); i++) {
    static const co_metrics none = {0};
    co_metric_value values[CO_METRIC_NAMES_MAX];
    for (size_t k = 0, n = co_metrics_values(job->spec, &none, values); k < n; k++)
      bl_buf_printf(out, ",%s_%s", sets[i], values[k].name);
  }
  bl_buf_add_str(out, "\n");
  for (uint32_t e = co_job_first_epochs(job), n = co_job_closed_epochs(job); e < n; e++) {
    const co_epoch *epoch = &job->epochs[e];
    bl_buf_printf(out, "%u,%" PRIu64 ",%.3f,%" PRIu64, e + 1, epoch->clock, epoch->seconds, epoch->train.n);
    put_csv_metrics(out, job, &epoch->train);
    put_csv_metrics(out, job, &epoch->validation);
    const co_metrics *test = finished && e + 1 == n && result.best_epoch == 0 ? &result.test : &epoch->test;
    put_csv_metrics(out, job, test);
    put_csv_more(out, job, &epoch->validation);
    put_csv_more(out, job, test);
    bl_buf_add_str(out, "\n");
  }
}

/* A row per true class, a column per predicted one, with their numbers. */
bool co_status_confusion_csv(const co_job *job, const co_metrics *m, bl_buf *out) {
  uint32_t classes = co_job_classes(job);
  if (!job->spec->measure.confusion || m->confusion.n == 0)
    return false;
  bl_buf_add_str(out, "true");
  for (uint32_t p = 0; p < classes; p++)
    bl_buf_printf(out, ",%u", p);
  for (uint32_t cell = 0, i = 0; cell < classes * classes; cell++) {
    if (cell % classes == 0)
      bl_buf_printf(out, "\n%u", cell / classes);
    bool here = i < m->confusion.n && m->confusion.at[i] == cell;
    bl_buf_printf(out, ",%" PRIu64, here ? m->confusion.a[i] : 0);
    i += here;
  }
  bl_buf_add_str(out, "\n");
  return true;
}

/* ---- metrics ---------------------------------------------------------------------------------------- */

static void node_metrics(const co_state *st, bl_buf *out) {
  bl_metrics_family(out, "ballast_node_up", BL_METRIC_GAUGE, "1 while the node's lease holds.");
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *n = st->members.nodes[i];
    const char *labels[] = {"node", n->reg->name, "role", bl_role_name((bl_role)n->reg->role), NULL};
    bl_metrics_sample(out, "ballast_node_up", n->alive ? 1 : 0, labels);
  }
  uint64_t slots = 0, used = 0, bytes = 0, reserved = 0;
  uint32_t *slots_used = co_queue_slots_used(st);
  for (size_t i = 0; i < st->members.n; i++) {
    const co_node *n = st->members.nodes[i];
    if (!n->alive)
      continue;
    if (co_node_is(n, BL_ROLE_WORKER)) {
      slots += n->reg->slots;
      used += slots_used != NULL ? slots_used[i] : 0;
    } else {
      bytes += n->reg->memory_bytes;
      reserved += co_queue_reserved_bytes(st, n);
    }
  }
  bl_free(slots_used);
  bl_metrics_single(out, "ballast_worker_slots", BL_METRIC_GAUGE, "Slots of all live workers.", (double)slots);
  bl_metrics_single(out, "ballast_worker_slots_used", BL_METRIC_GAUGE, "Slots that carry a rank.",
                    (double)used);
  bl_metrics_single(out, "ballast_server_memory_bytes", BL_METRIC_GAUGE, "Memory for jobs of all live servers.",
                    (double)bytes);
  bl_metrics_single(out, "ballast_server_memory_reserved_bytes", BL_METRIC_GAUGE, "Memory promised to jobs.",
                    (double)reserved);
}

typedef double job_number_fn(const co_job *job, const progress *p);
static double number_clock(const co_job *job, const progress *p) {
  return (void)job, (double)p->clock;
}
static double number_clocks(const co_job *job, const progress *p) {
  return (void)p, (double)clocks_of(job);
}
static double number_speed(const co_job *job, const progress *p) {
  return (void)job, p->samples_per_second;
}
static double number_view(const co_job *job, const progress *p) {
  return (void)p, (double)job->view;
}

static double number_pushed(const co_job *job, const progress *p) {
  return (void)job, (double)p->bytes_pushed;
}
static double number_pulled(const co_job *job, const progress *p) {
  return (void)job, (double)p->bytes_pulled;
}
static double number_pushed_dense(const co_job *job, const progress *p) {
  return (void)job, (double)p->bytes_pushed_dense;
}
static double number_pulled_dense(const co_job *job, const progress *p) {
  return (void)job, (double)p->bytes_pulled_dense;
}
static double number_residuals_lost(const co_job *job, const progress *p) {
  co_traffic tensors[BL_CONTROL_TRAFFIC_MAX];
  uint64_t lost = 0;
  for (size_t i = 0, n = co_traffic_sum(job, tensors); i < n; i++)
    lost += tensors[i].residuals_lost;
  return (void)p, (double)lost;
}

static void job_metrics(const co_state *st, bl_buf *out) {
  static const struct {
    const char *name, *help;
    job_number_fn *fn;
  } numbers[] = {
      {"ballast_job_clock", "Clock of the slowest rank.", number_clock},
      {"ballast_job_clocks", "Clocks of the whole job; 0 before the data is known.", number_clocks},
      {"ballast_job_samples_per_second", "Samples per second over all ranks.", number_speed},
      {"ballast_job_view", "Number of the job's present view.", number_view},
      {"ballast_job_pushed_bytes", "Message bytes pushed by the tasks that run now.", number_pushed},
      {"ballast_job_pulled_bytes", "Message bytes pulled by the tasks that run now.", number_pulled},
      {"ballast_job_pushed_dense_bytes", "What float32 would have been of what was pushed.", number_pushed_dense},
      {"ballast_job_pulled_dense_bytes", "What float32 would have been of what was pulled.", number_pulled_dense},
      {"ballast_job_residuals_lost", "Chunks whose residual was lost.", number_residuals_lost},
  };
  bl_metrics_family(out, "ballast_jobs", BL_METRIC_GAUGE, "Jobs by phase.");
  for (co_job_state s = CO_JOB_QUEUED; s < CO_JOB_STATE_COUNT; s++) {
    double n = 0;
    for (size_t i = 0; i < st->n_jobs; i++)
      n += st->jobs[i]->stored_state == s;
    const char *labels[] = {"phase", co_job_phase_name(s), NULL};
    bl_metrics_sample(out, "ballast_jobs", n, labels);
  }
  for (size_t k = 0; k < BL_COUNT_OF(numbers); k++) {
    bl_metrics_family(out, numbers[k].name, BL_METRIC_GAUGE, numbers[k].help);
    for (size_t i = 0; i < st->n_jobs; i++) {
      const co_job *job = st->jobs[i];
      if (!co_job_state_is_active(job->state))
        continue;
      char id[24];
      snprintf(id, sizeof id, "%" PRIu64, job->id);
      const char *labels[] = {"job", id, "name", job->spec->name, NULL};
      progress p = progress_of(st, job);
      bl_metrics_sample(out, numbers[k].name, numbers[k].fn(job, &p), labels);
    }
  }
}

void co_status_metrics(const co_state *st, bl_buf *out) {
  node_metrics(st, out);
  job_metrics(st, out);
  bl_metrics_single(out, "ballast_store_ok", BL_METRIC_GAUGE, "1 while the coordinator can write its state.",
                    st->store_error[0] == '\0' ? 1 : 0);
  bl_metrics_single(out, "ballast_uptime_seconds", BL_METRIC_GAUGE, "Time since the coordinator started.",
                    (double)(st->now_ns - st->started_ns) / 1e9);
}
