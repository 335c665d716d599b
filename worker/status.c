/* SPDX-License-Identifier: Apache-2.0
 *
 * Status pages of the worker.
 */
#include "status.h"

#include "base/clock.h"
#include "base/str.h"
#include "metrics/metrics.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {
    [BALLAST__CONTROL__TASK_STATE__TASK_INVALID] = "invalid",   [BALLAST__CONTROL__TASK_STATE__TASK_STARTING] = "starting",
    [BALLAST__CONTROL__TASK_STATE__TASK_LOADING] = "loading",   [BALLAST__CONTROL__TASK_STATE__TASK_READY] = "ready",
    [BALLAST__CONTROL__TASK_STATE__TASK_RUNNING] = "running",   [BALLAST__CONTROL__TASK_STATE__TASK_DONE] = "done",
    [BALLAST__CONTROL__TASK_STATE__TASK_FAILED] = "failed",     [BALLAST__CONTROL__TASK_STATE__TASK_STOPPED] = "stopped",
};

static size_t slots_used(const wk_agent *a) {
  size_t n = 0;
  const Ballast__Control__TaskStatus *t;
  for (size_t i = 0; (t = wk_agent_task_at(a, i)) != NULL; i++)
    n += t->state < BALLAST__CONTROL__TASK_STATE__TASK_DONE;
  return n;
}

static int page_health(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path;
  (void)query;
  (void)arg;
  bl_buf_add_str(out, "ok\n");
  return 200;
}

/* One sentence; true when registered. */
static bool readiness(const wk_status_source *s, char *text, size_t size) {
  if (wk_agent_is_registered(s->agent)) {
    snprintf(text, size, "registered with %s", s->config->coordinator);
    return true;
  }
  bool for_good;
  const char *refusal = wk_agent_refusal(s->agent, &for_good);
  char since[32];
  bl_str_duration(wk_agent_silence_ns(s->agent, bl_clock_now_ns()), since, sizeof since);
  if (refusal[0] != '\0')
    snprintf(text, size, "refused by the coordinator at %s: %s", s->config->coordinator, refusal);
  else
    snprintf(text, size, "waits for the coordinator at %s: silent for %s", s->config->coordinator, since);
  return false;
}

static int page_ready(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path;
  (void)query;
  char text[768];
  bool ready = readiness(arg, text, sizeof text);
  bl_buf_printf(out, "%s\n", text);
  return ready ? 200 : 503;
}

static json_t *real(double v) {
  json_t *o = json_real(v); /* NULL: JSON has no NaN */
  return o != NULL ? o : json_null();
}

static json_t *tensor_json(const Ballast__Control__TensorTraffic *t) {
  return json_pack("{s:s, s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:o}", "name", t->name, "tensors",
                   (int)t->n_tensors, "push", t->codec_push, "pull", t->codec_pull, "reason", t->reason, "bytes_pushed",
                   (json_int_t)t->bytes_pushed, "bytes_pulled", (json_int_t)t->bytes_pulled, "bytes_pushed_dense",
                   (json_int_t)t->bytes_pushed_dense, "bytes_pulled_dense", (json_int_t)t->bytes_pulled_dense,
                   "residual_norm", real(t->residual_norm), "gradient_norm", real(t->gradient_norm), "residuals_lost",
                   (json_int_t)t->residuals_lost, "lost_norm", real(sqrt(t->lost_squared)));
}

static json_t *tensors_json(const Ballast__Control__TaskStatus *t) {
  json_t *list = json_array();
  for (size_t i = 0; i < t->n_traffic; i++)
    json_array_append_new(list, tensor_json(t->traffic[i]));
  return list;
}

static json_t *task_json(const Ballast__Control__TaskStatus *t) {
  return json_pack("{s:I, s:i, s:i, s:s, s:s, s:s, s:I, s:i, s:I, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o}", "job",
                   (json_int_t)t->job, "rank", (int)t->rank, "incarnation", (int)t->incarnation, "state",
                   state_names[t->state], "reason", t->text, "waits_for", t->waits_for, "clock", (json_int_t)t->clock,
                   "epoch", (int)t->epoch, "samples", (json_int_t)t->samples, "loss",
                   real(t->loss), "samples_per_second", real(t->samples_per_second), "view", (json_int_t)t->view, "bytes_pushed",
                   (json_int_t)t->bytes_pushed, "bytes_pulled", (json_int_t)t->bytes_pulled, "bytes_pushed_dense",
                   (json_int_t)t->bytes_pushed_dense, "bytes_pulled_dense", (json_int_t)t->bytes_pulled_dense, "tensors",
                   tensors_json(t));
}

static int page_status(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path;
  (void)query;
  const wk_status_source *s = arg;
  char text[768];
  bool ready = readiness(s, text, sizeof text);
  json_t *tasks = json_array();
  const Ballast__Control__TaskStatus *t;
  for (size_t i = 0; (t = wk_agent_task_at(s->agent, i)) != NULL; i++)
    json_array_append_new(tasks, task_json(t));
  wk_agent_stats n = wk_agent_get_stats(s->agent);
  json_t *root = json_pack(
      "{s:s, s:s, s:s, s:b, s:s, s:s, s:i, s:i, s:s, s:s, s:f, s:o, s:{s:I, s:I, s:I, s:I, s:I, s:I}}", "role", "worker",
      "name", s->config->name, "version", s->config->build, "registered", ready, "waits_for", ready ? "" : text, "coordinator",
      s->config->coordinator, "slots", (int)s->config->slots, "slots_used", (int)slots_used(s->agent), "blas_core",
      s->config->blas_core, "kernels", s->config->kernel_table, "uptime_s",
      (double)(bl_clock_now_ns() - s->started_ns) / 1e9, "tasks", tasks, "counters", "tasks_started",
      (json_int_t)n.tasks_started, "tasks_crashed", (json_int_t)n.tasks_crashed, "tasks_hung", (json_int_t)n.tasks_hung,
      "reports_dropped", (json_int_t)n.reports_dropped, "log_lines_dropped", (json_int_t)n.log_lines_dropped,
      "malformed", (json_int_t)n.malformed);
  char *dump = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
  json_decref(root);
  if (dump == NULL) {
    bl_buf_add_str(out, "{\"error\": \"no memory\"}\n");
    return 500;
  }
  bl_buf_printf(out, "%s\n", dump);
  free(dump);
  return 200;
}

static void task_metrics(bl_buf *out, const wk_agent *a) {
  static const struct {
    const char *name, *help;
    bl_metric_kind kind;
    size_t offset;
    bool real;
  } rows[] = {
      {"ballast_task_clock", "Clocks done by the task.", BL_METRIC_GAUGE, offsetof(Ballast__Control__TaskStatus, clock), false},
      {"ballast_task_samples_total", "Samples that the task trained on.", BL_METRIC_COUNTER,
       offsetof(Ballast__Control__TaskStatus, samples), false},
      {"ballast_task_samples_per_second", "Speed of the task.", BL_METRIC_GAUGE,
       offsetof(Ballast__Control__TaskStatus, samples_per_second), true},
      {"ballast_task_pushed_bytes_total", "Message bytes that the task pushed.", BL_METRIC_COUNTER,
       offsetof(Ballast__Control__TaskStatus, bytes_pushed), false},
      {"ballast_task_pulled_bytes_total", "Message bytes that the task pulled.", BL_METRIC_COUNTER,
       offsetof(Ballast__Control__TaskStatus, bytes_pulled), false},
  };
  for (size_t r = 0; r < BL_COUNT_OF(rows); r++) {
    bl_metrics_family(out, rows[r].name, rows[r].kind, rows[r].help);
    const Ballast__Control__TaskStatus *t;
    for (size_t i = 0; (t = wk_agent_task_at(a, i)) != NULL; i++) {
      char job[24], rank[16];
      snprintf(job, sizeof job, "%" PRIu64, t->job);
      snprintf(rank, sizeof rank, "%u", t->rank);
      const char *const labels[] = {"job", job, "rank", rank, NULL};
      const char *at = (const char *)t + rows[r].offset;
      uint64_t whole;
      double value;
      memcpy(&whole, at, sizeof whole);
      memcpy(&value, at, sizeof value);
      bl_metrics_sample(out, rows[r].name, rows[r].real ? value : (double)whole, labels);
    }
  }
}

typedef double tensor_number_fn(const Ballast__Control__TensorTraffic *t);
static double number_pushed(const Ballast__Control__TensorTraffic *t) { return (double)t->bytes_pushed; }
static double number_pulled(const Ballast__Control__TensorTraffic *t) { return (double)t->bytes_pulled; }
static double number_pushed_dense(const Ballast__Control__TensorTraffic *t) { return (double)t->bytes_pushed_dense; }
static double number_pulled_dense(const Ballast__Control__TensorTraffic *t) { return (double)t->bytes_pulled_dense; }
static double number_residual(const Ballast__Control__TensorTraffic *t) { return t->residual_norm; }
static double number_gradient(const Ballast__Control__TensorTraffic *t) { return t->gradient_norm; }
static double number_lost(const Ballast__Control__TensorTraffic *t) { return (double)t->residuals_lost; }

static void tensor_metrics(bl_buf *out, const wk_agent *a) {
  static const struct {
    const char *name, *help;
    bl_metric_kind kind;
    tensor_number_fn *fn;
  } rows[] = {
      {"ballast_tensor_pushed_bytes_total", "Frame bytes that the tensor was pushed as.", BL_METRIC_COUNTER, number_pushed},
      {"ballast_tensor_pulled_bytes_total", "Frame bytes that the tensor was pulled as.", BL_METRIC_COUNTER, number_pulled},
      {"ballast_tensor_pushed_dense_bytes_total", "What float32 would have been.", BL_METRIC_COUNTER, number_pushed_dense},
      {"ballast_tensor_pulled_dense_bytes_total", "What float32 would have been.", BL_METRIC_COUNTER, number_pulled_dense},
      {"ballast_tensor_residual_norm", "Of what the last clock's frames left out.", BL_METRIC_GAUGE, number_residual},
      {"ballast_tensor_gradient_norm", "Of the last clock's gradient.", BL_METRIC_GAUGE, number_gradient},
      {"ballast_tensor_residuals_lost_total", "Chunks whose residual was lost.", BL_METRIC_COUNTER, number_lost},
  };
  for (size_t r = 0; r < BL_COUNT_OF(rows); r++) {
    bl_metrics_family(out, rows[r].name, rows[r].kind, rows[r].help);
    const Ballast__Control__TaskStatus *t;
    for (size_t i = 0; (t = wk_agent_task_at(a, i)) != NULL; i++) {
      char job[24], rank[16];
      snprintf(job, sizeof job, "%" PRIu64, t->job);
      snprintf(rank, sizeof rank, "%u", t->rank);
      for (size_t k = 0; k < t->n_traffic; k++) {
        const char *const labels[] = {"job", job, "rank", rank, "tensor", t->traffic[k]->name, NULL};
        bl_metrics_sample(out, rows[r].name, rows[r].fn(t->traffic[k]), labels);
      }
    }
  }
}

static int page_metrics(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path;
  (void)query;
  const wk_status_source *s = arg;
  wk_agent_stats n = wk_agent_get_stats(s->agent);
  const struct {
    const char *name, *help;
    bl_metric_kind kind;
    double value;
  } rows[] = {
      {"ballast_worker_registered", "1 while registered with the coordinator.", BL_METRIC_GAUGE,
       wk_agent_is_registered(s->agent) ? 1 : 0},
      {"ballast_worker_slots", "Ranks that may run at once.", BL_METRIC_GAUGE, (double)s->config->slots},
      {"ballast_worker_slots_used", "Ranks that run.", BL_METRIC_GAUGE, (double)slots_used(s->agent)},
      {"ballast_worker_tasks_started_total", "Task processes started.", BL_METRIC_COUNTER, (double)n.tasks_started},
      {"ballast_worker_tasks_crashed_total", "Task processes that ended without a result.", BL_METRIC_COUNTER,
       (double)n.tasks_crashed},
      {"ballast_worker_tasks_hung_total", "Task processes killed because they said nothing.", BL_METRIC_COUNTER,
       (double)n.tasks_hung},
      {"ballast_worker_heartbeats_total", "Heartbeats sent.", BL_METRIC_COUNTER, (double)n.heartbeats},
      {"ballast_worker_reports_sent_total", "Reports sent, repeats included.", BL_METRIC_COUNTER,
       (double)n.reports_sent},
      {"ballast_worker_reports_dropped_total", "Reports given up for lack of room.", BL_METRIC_COUNTER,
       (double)n.reports_dropped},
      {"ballast_worker_log_lines_dropped_total", "Log lines of tasks given up.", BL_METRIC_COUNTER,
       (double)n.log_lines_dropped},
      {"ballast_worker_malformed_messages_total", "Messages refused.", BL_METRIC_COUNTER, (double)n.malformed},
  };
  for (size_t i = 0; i < BL_COUNT_OF(rows); i++)
    bl_metrics_single(out, rows[i].name, rows[i].kind, rows[i].help, rows[i].value);
  task_metrics(out, s->agent);
  tensor_metrics(out, s->agent);
  bl_metrics_process(out, "ballast-worker");
  return 200;
}

const bl_http_page wk_status_pages[] = {
    {"/healthz", "text/plain; charset=utf-8", page_health},
    {"/readyz", "text/plain; charset=utf-8", page_ready},
    {"/status", "application/json", page_status},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
};
const size_t wk_status_n_pages = BL_COUNT_OF(wk_status_pages);
