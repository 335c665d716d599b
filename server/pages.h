/* SPDX-License-Identifier: Apache-2.0
 *
 * Status pages of the server: /healthz, /readyz, /status (JSON), /metrics (Prometheus). Page functions take
 * a srv_server as arg.
 */
#ifndef SRV_PAGES_H
#define SRV_PAGES_H

#include "http/http.h"

extern const bl_http_page srv_pages[];
extern const size_t srv_n_pages;

#endif
