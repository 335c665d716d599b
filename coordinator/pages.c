/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/pages.h"

#include "coordinator/dashboard_html.h"
#include "coordinator/history.h"
#include "coordinator/status.h"

#include "base/clock.h"
#include "base/str.h"
#include "metrics/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define JSON_TYPE "application/json"
#define TEXT_TYPE "text/plain; charset=utf-8"

static int of_status(bl_status status, bl_buf *out) {
  if (status == BL_OK) {
    bl_buf_add_byte(out, '\n');
    return 200;
  }
  bl_buf_clear(out);
  bl_buf_add_str(out, status == BL_ENOENT ? "{\"error\":\"there is no such job\"}\n"
                                          : "{\"error\":\"the answer is too large or memory is short\"}\n");
  return status == BL_ENOENT ? 404 : 500;
}

static int page_root(const char *path, const char *query, bl_buf *out, void *arg) {
  bl_buf_add_str(out, co_dashboard_html);
  return 200;
}

static int page_health(const char *path, const char *query, bl_buf *out, void *arg) {
  bl_buf_add_str(out, "ok\n");
  return 200;
}

static int page_ready(const char *path, const char *query, bl_buf *out, void *arg) {
  const co_state *st = co_core_state(arg);
  if (st->store_error[0] == '\0') {
    bl_buf_add_str(out, "ok\n");
    return 200;
  }
  bl_buf_printf(out, "the state cannot be stored: %s\n", st->store_error);
  return 503;
}

static int page_status(const char *path, const char *query, bl_buf *out, void *arg) {
  return of_status(co_status_cluster(co_core_state(arg), out), out);
}

/* Value of `key` in "a=1&b=x%2A", decoded, cut to size; "" when it is not there. */
static const char *parameter(const char *query, const char *key, char *out, size_t size) {
  size_t n = 0, key_bytes = strlen(key);
  out[0] = '\0';
  for (const char *at = query; at != NULL && *at != '\0'; at = strchr(at, '&'), at += at != NULL) {
    if (strncmp(at, key, key_bytes) != 0 || at[key_bytes] != '=')
      continue;
    for (const char *s = at + key_bytes + 1; *s != '\0' && *s != '&' && n + 1 < size; s++) {
      unsigned code;
      bool coded = *s == '%' && sscanf(s + 1, "%2x", &code) == 1 && code != 0 && s[2] != '\0';
      out[n++] = coded ? (char)code : *s == '+' ? ' ' : *s;
      s += coded ? 2 : 0;
    }
    out[n] = '\0';
    break;
  }
  return out;
}

static uint64_t number_parameter(const char *query, const char *key) {
  char text[32];
  uint64_t value = 0;
  return bl_str_to_u64(parameter(query, key, text, sizeof text), &value) == BL_OK ? value : 0;
}

static int page_jobs(const char *path, const char *query, bl_buf *out, void *arg) {
  const co_state *st = co_core_state(arg);
  char state[BL_CONTROL_NAME_BYTES_MAX + 1], name[BL_CONTROL_NAME_BYTES_MAX + 1], user[256], age[32];
  uint64_t age_ns = 0, limit = number_parameter(query, "limit");
  bl_error err = BL_ERROR_INIT;
  if (bl_str_to_ns(parameter(query, "since", age, sizeof age), &age_ns) != BL_OK || age_ns > st->wall_ns)
    age_ns = 0;
  co_query q = {.state = parameter(query, "state", state, sizeof state),
                .name = parameter(query, "name", name, sizeof name),
                .submitter = parameter(query, "user", user, sizeof user),
                .submitted_ns = age_ns > 0 ? st->wall_ns - age_ns : 0,
                .before = number_parameter(query, "before"),
                .limit = limit < CO_LIST_JOBS_MAX ? (uint32_t)limit : CO_LIST_JOBS_MAX};
  bl_status status = co_history_find(st, &q, out, &err);
  if (status != BL_EINVAL)
    return of_status(status, out);
  bl_buf_clear(out);
  bl_buf_add_str(out, "{\"error\":\"no job is ever in that state\"}\n");
  return 400;
}

/* since=N; 0 for anything else. */
static uint64_t since_of(const char *query) {
  uint64_t since = 0;
  if (bl_str_has_prefix(query, "since=") && bl_str_to_u64(query + strlen("since="), &since) != BL_OK)
    return 0;
  return since;
}

static int page_job(const char *path, const char *query, bl_buf *out, void *arg) {
  char id[32];
  const char *name = path + strlen("/jobs/"), *slash = strchr(name, '/');
  size_t n = slash != NULL ? (size_t)(slash - name) : strlen(name);
  uint64_t number = 0;
  if (n < sizeof id) {
    memcpy(id, name, n);
    id[n] = '\0';
    if (bl_str_to_u64(id, &number) != BL_OK)
      number = 0;
  }
  bool logs = slash != NULL && strcmp(slash, "/logs") == 0;
  const co_state *st = co_core_state(arg);
  co_job *old = NULL;
  const co_job *job = slash == NULL || logs ? co_history_job(st, number, &old) : NULL;
  bl_status status = job == NULL ? BL_ENOENT
                     : logs      ? co_status_logs(job, since_of(query), out)
                                 : co_status_job(st, job, out);
  co_job_free(old);
  return of_status(status, out);
}

static int page_metrics(const char *path, const char *query, bl_buf *out, void *arg) {
  co_core_stats stats = co_core_get_stats(arg);
  bl_metrics_process(out, "ballast-coordinator");
  co_status_metrics(co_core_state(arg), out);
  bl_metrics_single(out, "ballast_messages_total", BL_METRIC_COUNTER, "Control messages received.",
                    (double)stats.messages);
  bl_metrics_single(out, "ballast_messages_malformed_total", BL_METRIC_COUNTER,
                    "Control messages that made no sense.", (double)stats.malformed);
  bl_metrics_single(out, "ballast_messages_refused_total", BL_METRIC_COUNTER,
                    "Control messages refused by role, name or version.", (double)stats.refused);
  return 200;
}

const bl_http_page co_pages[] = {
    {"/", "text/html; charset=utf-8", page_root},
    {"/healthz", TEXT_TYPE, page_health},
    {"/readyz", TEXT_TYPE, page_ready},
    {"/status", JSON_TYPE, page_status},
    {"/jobs", JSON_TYPE, page_jobs},
    {"/jobs/*", JSON_TYPE, page_job},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", page_metrics},
};
const size_t co_n_pages = BL_COUNT_OF(co_pages);
