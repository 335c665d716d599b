/* SPDX-License-Identifier: Apache-2.0
 *
 * Status pages of the server.
 */
#include "server/pages.h"

#include "base/clock.h"
#include "kernel/kernel.h"
#include "metrics/metrics.h"
#include "server/server.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static int page_health(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path, (void)query, (void)arg;
  bl_buf_add_str(out, "ok\n");
  return 200;
}

static int page_ready(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path, (void)query;
  char why[384];
  srv_view v = srv_server_view(arg);
  srv_node_waits_for(v.node, why, sizeof why, bl_clock_now_ns());
  bl_buf_printf(out, "%s\n", why[0] != '\0' ? why : "ready");
  return why[0] != '\0' ? 503 : 200;
}

static const char *const state_names[] = {
    [BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_INVALID] = "invalid",
    [BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPENING] = "opening",
    [BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_OPEN] = "open",
    [BALLAST__CONTROL__SHARD_JOB_STATE__SHARD_JOB_FAILED] = "failed",
};

static json_t *jobs_json(const srv_view *v) {
  json_t *list = json_array();
  Ballast__Control__ServerJobStatus s;
  for (size_t i = 0; srv_node_job_at(v->node, i, &s); i++)
    json_array_append_new(list, json_pack("{s:I, s:I, s:s, s:s, s:I, s:I, s:I}", "job", (json_int_t)s.job, "view",
                                          (json_int_t)s.view, "state", state_names[s.state], "reason", s.text,
                                          "clock_min", (json_int_t)s.clock_min, "clock_max", (json_int_t)s.clock_max,
                                          "memory_bytes", (json_int_t)s.memory_bytes));
  return list;
}

/* Numbers of a shard: one row for the JSON page and the metric alike. */
typedef struct shard_number {
  const char *key;    /* in /status */
  const char *metric;
  bl_metric_kind kind;
  const char *help;
  size_t offset;      /* of a uint64_t in srv_shard_stats */
} shard_number;

#define NUMBER(field, metric, kind, help) {#field, "ballast_shard_" metric, kind, help, offsetof(srv_shard_stats, field)}
static const shard_number numbers[] = {
    NUMBER(messages, "messages_total", BL_METRIC_COUNTER, "Messages received from workers."),
    NUMBER(malformed, "malformed_total", BL_METRIC_COUNTER, "Messages that are not of the protocol."),
    NUMBER(refusals, "refusals_total", BL_METRIC_COUNTER, "Requests answered with a refusal."),
    NUMBER(pushes, "pushes_total", BL_METRIC_COUNTER, "Chunks of gradients applied."),
    NUMBER(repeats, "repeats_total", BL_METRIC_COUNTER, "Pushes and commits acknowledged again without effect."),
    NUMBER(commits, "commits_total", BL_METRIC_COUNTER, "Commits applied."),
    NUMBER(not_finite, "not_finite_total", BL_METRIC_COUNTER, "Commits of gradients that hold a NaN or infinity."),
    NUMBER(pulls, "pulls_total", BL_METRIC_COUNTER, "Pull requests."),
    NUMBER(frames_sent, "frames_sent_total", BL_METRIC_COUNTER, "Frames of weights sent."),
    NUMBER(bytes_pushed, "pushed_bytes_total", BL_METRIC_COUNTER, "Bytes of push messages received."),
    NUMBER(key_bytes, "key_bytes_total", BL_METRIC_COUNTER, "Bytes of tables' keys received."),
    NUMBER(key_bytes_saved, "key_bytes_saved_total", BL_METRIC_COUNTER, "Bytes of keys that a checksum stood for."),
    NUMBER(bytes_pulled, "pulled_bytes_total", BL_METRIC_COUNTER, "Bytes of weights sent."),
    NUMBER(log_last, "log_entries_total", BL_METRIC_COUNTER, "Entries of the update log."),
    NUMBER(log_bytes, "log_bytes", BL_METRIC_GAUGE, "Bytes of log entries that are not safe yet."),
    NUMBER(held_bytes, "held_bytes", BL_METRIC_GAUGE, "Bytes of pushes held until their turn."),
    NUMBER(memory_bytes, "memory_bytes", BL_METRIC_GAUGE, "Memory of the jobs' weights and state."),
};

static uint64_t number(const srv_shard_stats *s, const shard_number *n) {
  return *(const uint64_t *)((const char *)s + n->offset);
}

static json_t *shards_json(const srv_view *v) {
  json_t *list = json_array();
  for (uint32_t i = 0; i < v->n_shards; i++) {
    json_t *o = json_pack("{s:i, s:s, s:i}", "shard", (int)i, "endpoint", v->endpoints[i], "jobs",
                          (int)v->shards[i].n_jobs);
    for (size_t k = 0; k < BL_COUNT_OF(numbers); k++)
      json_object_set_new(o, numbers[k].key, json_integer((json_int_t)number(&v->shards[i], &numbers[k])));
    json_array_append_new(list, o);
  }
  return list;
}

static int page_status(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path, (void)query;
  char why[384];
  srv_view v = srv_server_view(arg);
  srv_node_waits_for(v.node, why, sizeof why, bl_clock_now_ns());
  json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:I, s:I, s:o, s:o}", "program", "ballast-server", "name", v.name,
                        "coordinator", v.coordinator, "registered", srv_node_is_registered(v.node), "waits_for", why,
                        "kernels", bl_kernels_get()->name, "memory_bytes", (json_int_t)v.memory_bytes,
                        "refused_handshakes", (json_int_t)v.refused_handshakes, "shards", shards_json(&v), "jobs",
                        jobs_json(&v));
  char *text = o != NULL ? json_dumps(o, JSON_INDENT(2)) : NULL;
  json_decref(o);
  if (text == NULL)
    return 500;
  bl_buf_printf(out, "%s\n", text);
  free(text);
  return 200;
}

static int page_metrics(const char *path, const char *query, bl_buf *out, void *arg) {
  (void)path, (void)query;
  srv_view v = srv_server_view(arg);
  bl_metrics_process(out, "ballast-server");
  bl_metrics_single(out, "ballast_server_registered", BL_METRIC_GAUGE, "1 while the coordinator knows this server.",
                    srv_node_is_registered(v.node));
  bl_metrics_single(out, "ballast_server_memory_limit_bytes", BL_METRIC_GAUGE, "Memory that jobs may use.",
                    (double)v.memory_bytes);
  bl_metrics_single(out, "ballast_server_refused_handshakes_total", BL_METRIC_COUNTER,
                    "Connections with a wrong key or none.", (double)v.refused_handshakes);
  for (size_t k = 0; k < BL_COUNT_OF(numbers); k++) {
    bl_metrics_family(out, numbers[k].metric, numbers[k].kind, numbers[k].help);
    for (uint32_t i = 0; i < v.n_shards; i++) {
      char shard[16];
      snprintf(shard, sizeof shard, "%u", i);
      bl_metrics_sample(out, numbers[k].metric, (double)number(&v.shards[i], &numbers[k]),
                        (const char *const[]){"shard", shard, NULL});
    }
  }
  return 200;
}

const bl_http_page srv_pages[] = {
    {"/healthz", "text/plain; charset=utf-8", page_health},
    {"/readyz", "text/plain; charset=utf-8", page_ready},
    {"/status", "application/json", page_status},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
};
const size_t srv_n_pages = BL_COUNT_OF(srv_pages);
