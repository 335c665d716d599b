/* SPDX-License-Identifier: Apache-2.0
 *
 * Read-only HTTP status endpoint on the daemon's own loop (libmicrohttpd through its epoll descriptor).
 * GET and HEAD only. Optional bearer token. Limits on connections and time per connection.
 * The only includer of microhttpd.h is http/.
 */
#ifndef BL_HTTP_HTTP_H
#define BL_HTTP_HTTP_H

#include "base/buf.h"
#include "loop/loop.h"

typedef struct bl_http bl_http;

/* Fills *out; returns the HTTP status code. query: text behind '?' or "". */
typedef int bl_http_page_fn(const char *path, const char *query, bl_buf *out, void *arg);

typedef struct bl_http_page {
  const char *path;         /* "/status"; a trailing '*' matches any rest */
  const char *content_type;
  bl_http_page_fn *fn;
} bl_http_page;

/* listen: "127.0.0.1:7071", "[::1]:0". pages: borrowed. token NULL: none; a listen address off loopback
 * without a token is refused. */
BL_MUST_CHECK bl_status bl_http_open(bl_loop *l, const char *listen, const char *token, const bl_http_page *pages,
                                     size_t n_pages, void *arg, bl_http **ret_http, bl_error *err);
uint16_t bl_http_port(const bl_http *h);
void bl_http_close(bl_http *h);

#endif
