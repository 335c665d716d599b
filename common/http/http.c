/* SPDX-License-Identifier: Apache-2.0
 *
 * libmicrohttpd driven from our loop: its epoll descriptor is one watched descriptor, its next time-out one
 * timer. We make the listening socket ourselves, so that errors name the address.
 *
 * Threads: the loop's. Lifetime: bl_http_close stops the daemon at once and frees when the loop has closed
 * watch and timer.
 */
#include "http/http.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HTTP_CONNECTIONS_MAX 64
#define HTTP_CONNECTIONS_PER_IP_MAX 32
#define HTTP_CONNECTION_TIMEOUT_S 10
#define HTTP_CONNECTION_MEMORY_BYTES 16384
#define HTTP_TOKEN_BYTES_MAX 256

struct bl_http {
  struct MHD_Daemon *daemon;
  bl_watch *watch;
  bl_timer *timer;
  const bl_http_page *pages;
  size_t n_pages;
  void *arg;
  char token[HTTP_TOKEN_BYTES_MAX + 1]; /* "" = none */
  uint16_t port;
};

/* Compares in time that depends on the lengths only. */
static bool token_matches(const char *want, const char *got) {
  size_t n = strlen(want);
  if (strlen(got) != n)
    return false;
  unsigned difference = 0;
  for (size_t i = 0; i < n; i++)
    difference |= (unsigned char)want[i] ^ (unsigned char)got[i];
  return difference == 0;
}

static const struct {
  const char *name, *value;
} security_headers[] = {
    {"X-Content-Type-Options", "nosniff"},
    {"X-Frame-Options", "DENY"},
    {"Referrer-Policy", "no-referrer"},
    {"Cache-Control", "no-store"},
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
     "connect-src 'self'"},
};

static enum MHD_Result reply(struct MHD_Connection *c, unsigned code, const char *type, bl_buf *body) {
  struct MHD_Response *r =
      MHD_create_response_from_buffer(body->size, body->data != NULL ? (void *)body->data : (void *)"", MHD_RESPMEM_MUST_COPY);
  bl_buf_fini(body);
  if (r == NULL)
    return MHD_NO;
  MHD_add_response_header(r, "Content-Type", type);
  for (size_t i = 0; i < BL_COUNT_OF(security_headers); i++)
    MHD_add_response_header(r, security_headers[i].name, security_headers[i].value);
  if (code == MHD_HTTP_UNAUTHORIZED)
    MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
  enum MHD_Result result = MHD_queue_response(c, code, r);
  MHD_destroy_response(r);
  return result;
}

static enum MHD_Result reply_text(struct MHD_Connection *c, unsigned code, const char *text) {
  bl_buf body = BL_BUF_INIT;
  bl_buf_add_str(&body, text);
  return reply(c, code, "text/plain; charset=utf-8", &body);
}

static bool page_matches(const bl_http_page *page, const char *url) {
  size_t n = strlen(page->path);
  if (n > 0 && page->path[n - 1] == '*')
    return strncmp(page->path, url, n - 1) == 0;
  return strcmp(page->path, url) == 0;
}

static enum MHD_Result add_to_query(void *arg, enum MHD_ValueKind kind, const char *key, const char *value) {
  bl_buf *query = arg;
  bl_buf_printf(query, "%s%s%s%s", query->size > 0 ? "&" : "", key, value != NULL ? "=" : "", value != NULL ? value : "");
  return MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state) {
  static int seen;
  bl_http *h = arg;
  bool known_method = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
  if (*state == NULL && known_method) { /* first call: headers only; answer at the second */
    *state = &seen;
    return MHD_YES;
  }
  if (*upload_size > 0) { /* a body on GET: read it away */
    *upload_size = 0;
    return MHD_YES;
  }
  if (!known_method)
    return reply_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "read-only: GET and HEAD\n");
  if (h->token[0] != '\0') {
    const char *auth = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    if (auth == NULL || strncmp(auth, "Bearer ", 7) != 0 || !token_matches(h->token, auth + 7))
      return reply_text(c, MHD_HTTP_UNAUTHORIZED, "bearer token required\n");
  }
  for (size_t i = 0; i < h->n_pages; i++) {
    if (!page_matches(&h->pages[i], url))
      continue;
    bl_buf body = BL_BUF_INIT, query = BL_BUF_INIT;
    MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, add_to_query, &query);
    int code = h->pages[i].fn(url, bl_buf_str(&query), &body, h->arg);
    bl_buf_fini(&query);
    if (body.failed) {
      bl_buf_fini(&body);
      return reply_text(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory for this page\n");
    }
    return reply(c, (unsigned)code, h->pages[i].content_type, &body);
  }
  return reply_text(c, MHD_HTTP_NOT_FOUND, "no such page\n");
}

/* Lets the library work, then asks when it wants to be called again. */
static void run_daemon(bl_http *h) {
  MHD_run(h->daemon);
  MHD_UNSIGNED_LONG_LONG timeout_ms;
  if (MHD_get_timeout(h->daemon, &timeout_ms) == MHD_YES)
    bl_timer_start(h->timer, timeout_ms, 0);
  else
    bl_timer_stop(h->timer);
}

static void on_readable(int events, void *arg) { run_daemon(arg); }
static void on_timer(void *arg) { run_daemon(arg); }

/* "127.0.0.1:7071", "[::1]:7071", "host:7071" */
static bl_status split_listen(const char *listen_text, char *host, size_t host_size, char *port, size_t port_size,
                              bl_error *err) {
  const char *colon = strrchr(listen_text, ':');
  if (colon == NULL || colon == listen_text)
    return bl_fail(err, BL_EINVAL, "HTTP address '%s': expected host:port", listen_text);
  size_t n = (size_t)(colon - listen_text);
  const char *start = listen_text;
  if (start[0] == '[' && start[n - 1] == ']') {
    start++;
    n -= 2;
  }
  uint64_t number;
  if (n >= host_size || bl_str_to_u64(colon + 1, &number) != BL_OK || number > 65535 || strlen(colon + 1) >= port_size)
    return bl_fail(err, BL_EINVAL, "HTTP address '%s': expected host:port with a port of 0 to 65535", listen_text);
  memcpy(host, start, n);
  host[n] = '\0';
  bl_str_copy(port, port_size, colon + 1);
  return BL_OK;
}

static bool is_loopback(const struct sockaddr *sa) {
  if (sa->sa_family == AF_INET)
    return (ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24) == 127;
  return sa->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

static bl_status open_listener(const char *listen_text, bool has_token, int *ret_fd, uint16_t *ret_port, bl_error *err) {
  char host[256], port[8];
  bl_status status = split_listen(listen_text, host, sizeof host, port, sizeof port, err);
  if (status != BL_OK)
    return status;
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  struct addrinfo *list;
  int e = getaddrinfo(host, port, &hints, &list);
  if (e != 0)
    return bl_fail(err, BL_EINVAL, "HTTP address '%s': %s", listen_text, gai_strerror(e));
  int fd = -1;
  if (!is_loopback(list->ai_addr) && !has_token) {
    status = bl_fail(err, BL_EACCES, "HTTP address '%s' is not loopback: set http_token_file, or listen on 127.0.0.1", listen_text);
    goto out;
  }
  fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int one = 1;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(fd, list->ai_addr, list->ai_addrlen) != 0 || listen(fd, 64) != 0) {
    status = bl_fail_errno(err, "cannot listen for HTTP on %s", listen_text);
    goto out;
  }
  struct sockaddr_storage bound;
  socklen_t size = sizeof bound;
  BL_ASSERT(getsockname(fd, (struct sockaddr *)&bound, &size) == 0);
  *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                : ((struct sockaddr_in *)&bound)->sin_port);
  *ret_fd = fd;
out:
  freeaddrinfo(list);
  if (status != BL_OK && fd >= 0)
    close(fd);
  return status;
}

bl_status bl_http_open(bl_loop *l, const char *listen_text, const char *token, const bl_http_page *pages, size_t n_pages,
                       void *arg, bl_http **ret_http, bl_error *err) {
  bl_http *h = bl_calloc(1, sizeof *h);
  if (h == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the status endpoint");
  h->pages = pages;
  h->n_pages = n_pages;
  h->arg = arg;
  int fd = -1;
  bl_status status;
  if (token != NULL && !bl_str_copy(h->token, sizeof h->token, token)) {
    status = bl_fail(err, BL_ELIMIT, "HTTP token is longer than %d bytes", HTTP_TOKEN_BYTES_MAX);
    goto fail;
  }
  status = open_listener(listen_text, h->token[0] != '\0', &fd, &h->port, err);
  if (status != BL_OK)
    goto fail;
  h->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, h, MHD_OPTION_LISTEN_SOCKET, fd,
                               MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
                               MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_PER_IP_MAX,
                               MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_CONNECTION_TIMEOUT_S,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_MEMORY_BYTES,
                               MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
  if (h->daemon == NULL) {
    close(fd);
    status = bl_fail(err, BL_EIO, "cannot start the HTTP server on %s", listen_text);
    goto fail;
  }
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
  BL_ASSERT(info != NULL);
  status = bl_timer_new(l, on_timer, h, &h->timer);
  if (status == BL_OK)
    status = bl_watch_new(l, info->epoll_fd, on_readable, h, &h->watch);
  if (status != BL_OK) {
    bl_fail(err, status, "cannot watch the HTTP server on %s", listen_text);
    goto fail;
  }
  bl_watch_start(h->watch, 1);
  run_daemon(h);
  *ret_http = h;
  return BL_OK;
fail:
  bl_http_close(h);
  return status;
}

uint16_t bl_http_port(const bl_http *h) { return h->port; }

void bl_http_close(bl_http *h) {
  if (h == NULL)
    return;
  bl_watch_close(h->watch);
  bl_timer_close(h->timer);
  if (h->daemon != NULL)
    MHD_stop_daemon(h->daemon);
  bl_free(h);
}
