/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker's pages: /healthz, /readyz, /status (JSON) and /metrics (Prometheus), from what the agent knows.
 * Format of /status: doc/status.md.
 */
#ifndef WK_STATUS_H
#define WK_STATUS_H

#include "agent.h"
#include "base/buf.h"
#include "http/http.h"

typedef struct wk_status_source {
  const wk_agent *agent;
  const wk_agent_config *config;
  uint64_t started_ns;
} wk_status_source;

/* arg of the pages is a wk_status_source. */
extern const bl_http_page wk_status_pages[];
extern const size_t wk_status_n_pages;

#endif
