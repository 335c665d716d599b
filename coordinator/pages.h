/* SPDX-License-Identifier: Apache-2.0
 *
 * The coordinator's HTTP pages: /, /status, /jobs, /jobs/N, /jobs/N/logs, /metrics, /healthz, /readyz.
 * Read only. Fields: doc/status.md. The page at / is coordinator/dashboard/index.html, built in.
 */
#ifndef CO_PAGES_H
#define CO_PAGES_H

#include "coordinator/core.h"
#include "http/http.h"

/* Their arg is the co_core. */
extern const bl_http_page co_pages[];
extern const size_t co_n_pages;

#endif
