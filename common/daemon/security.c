/* SPDX-License-Identifier: Apache-2.0
 *
 * See security.h.
 */
#include "daemon/security.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/str.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_FILE_BYTES_MAX 512

bl_status bl_daemon_node_name(const char *given, const char *role, char *out, size_t size, bl_error *err) {
  char host[65];
  if (given != NULL) {
    if (!bl_str_copy(out, size, given))
      return bl_fail(err, BL_ELIMIT, "node name '%s' is longer than %zu bytes", given, size - 1);
    return BL_OK;
  }
  if (gethostname(host, sizeof host) != 0)
    return bl_fail_errno(err, "cannot find this machine's host name; give --name");
  host[sizeof host - 1] = '\0';
  host[strcspn(host, ".")] = '\0';
  if ((size_t)snprintf(out, size, "%s-%s", host, role) >= size)
    return bl_fail(err, BL_ELIMIT, "host name '%s' is too long for a node name; give --name", host);
  return BL_OK;
}

/* Replaces %r by the role. */
static bl_status key_path(const char *pattern, const char *role, bl_buf *out) {
  for (const char *p = pattern; *p != '\0'; p++) {
    if (p[0] == '%' && p[1] == 'r') {
      bl_buf_add_str(out, role);
      p++;
    } else {
      bl_buf_add_byte(out, (uint8_t)*p);
    }
  }
  return out->failed ? BL_ENOMEM : BL_OK;
}

bl_status bl_daemon_key_path(const bl_cluster_conf *conf, const char *role, char **ret_path, bl_error *err) {
  *ret_path = NULL;
  if (conf->security.key_file == NULL)
    return BL_OK;
  bl_buf pattern = BL_BUF_INIT;
  bl_status status = key_path(conf->security.key_file, role, &pattern);
  if (status == BL_OK)
    status = bl_path_resolve(NULL, bl_buf_str(&pattern), ret_path, err);
  bl_buf_fini(&pattern);
  return status;
}

bl_status bl_daemon_read_keys(const bl_cluster_conf *conf, const char *role, bl_keypair *ret_keys, bl_error *err) {
  char *path = NULL;
  bl_status status = bl_daemon_key_path(conf, role, &path, err);
  if (status == BL_OK && path == NULL)
    *ret_keys = (bl_keypair){{0}, {0}};
  else if (status == BL_OK)
    status = bl_keys_read(path, ret_keys, err);
  bl_free(path);
  return status;
}

bl_status bl_daemon_check_coordinator(const bl_cluster_conf *conf, bl_error *err) {
  char host[256];
  const char *from = strstr(conf->coordinator, "://");
  bl_str_copy(host, sizeof host, from != NULL ? from + 3 : conf->coordinator);
  char *colon = strrchr(host, ':');
  if (colon != NULL)
    *colon = '\0';
  size_t n = strlen(host);
  if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
    memmove(host, host + 1, n - 2);
    host[n - 2] = '\0';
  }
  bool keys = conf->security.key_file != NULL && conf->coordinator_key != NULL;
  if (keys || conf->security.insecure || bl_host_is_loopback(host))
    return BL_OK;
  return bl_fail(err, BL_EACCES,
                 "refusing to speak without keys to the coordinator at %s, which is not on this machine: set "
                 "security.key_file and the coordinator's public key (see 'ballast keygen'), or write insecure: true",
                 conf->coordinator);
}

bl_status bl_daemon_open_net(const bl_cluster_conf *conf, const char *role, bl_net **ret_net, bl_error *err) {
  bl_net_config config = {0};
  bl_allow_entry *allow = NULL;
  bl_status status = bl_daemon_read_keys(conf, role, &config.keys, err);
  if (status == BL_OK && conf->security.key_file != NULL && conf->security.allow_file != NULL)
    status = bl_allow_read(conf->security.allow_file, &allow, &config.n_allow, err);
  config.allow = allow;
  if (status == BL_OK)
    status = bl_net_new(&config, ret_net, err);
  bl_free(allow);
  sodium_memzero(&config.keys, sizeof config.keys);
  return status;
}

bl_status bl_daemon_reload_allow(const bl_cluster_conf *conf, bl_net *net, bl_error *err) {
  if (conf->security.key_file == NULL || conf->security.allow_file == NULL)
    return BL_OK;
  bl_allow_entry *allow = NULL;
  size_t n = 0;
  bl_status status = bl_allow_read(conf->security.allow_file, &allow, &n, err);
  if (status == BL_OK && bl_net_set_allow(net, allow, n) != BL_OK)
    status = bl_fail(err, BL_ENOMEM, "no memory for the list of allowed peers");
  bl_free(allow);
  return status;
}

bl_status bl_daemon_check_listen(const bl_cluster_conf *conf, const bl_listen_conf *net, bl_error *err) {
  if (conf->security.insecure || (conf->security.key_file != NULL && conf->security.allow_file != NULL))
    return BL_OK;
  for (size_t i = 0; i < net->n_listen; i++) {
    if (!bl_host_is_loopback(net->listen[i]))
      return bl_fail(err, BL_EACCES,
                     "refusing to listen on %s without keys: set security.key_file and security.allow_file (see 'ballast "
                     "keygen'), listen on 127.0.0.1, or write insecure: true",
                     net->listen[i]);
  }
  return BL_OK;
}

static bool means_all_interfaces(const char *host) {
  return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

void bl_daemon_advertised_host(const bl_listen_conf *net, char *out, size_t size) {
  char host[256] = "127.0.0.1";
  if (net->advertise != NULL) {
    bl_str_copy(host, sizeof host, net->advertise);
  } else if (net->n_listen > 0 && !means_all_interfaces(net->listen[0])) {
    bl_str_copy(host, sizeof host, net->listen[0]);
  } else if (net->n_listen > 0) {
    gethostname(host, sizeof host);
    host[sizeof host - 1] = '\0';
  }
  snprintf(out, size, strchr(host, ':') != NULL ? "[%s]" : "%s", host);
}

void bl_daemon_http_url(const bl_listen_conf *net, unsigned port, char *out, size_t size) {
  char host[256];
  const char *colon = strrchr(net->http_listen, ':');
  size_t n = colon != NULL ? (size_t)(colon - net->http_listen) : strlen(net->http_listen);
  bool brackets = n >= 2 && net->http_listen[0] == '[' && net->http_listen[n - 1] == ']';
  snprintf(host, sizeof host, "%.*s", (int)(brackets ? n - 2 : n), net->http_listen + brackets);
  bl_listen_conf as_listen = {.listen = {host}, .n_listen = 1};
  if (means_all_interfaces(host))
    as_listen.advertise = net->advertise;
  char advertised[300];
  bl_daemon_advertised_host(&as_listen, advertised, sizeof advertised);
  snprintf(out, size, "http://%s:%u", advertised, port);
}

bl_status bl_daemon_read_token(const bl_listen_conf *net, char *out, size_t size, bl_error *err) {
  out[0] = '\0';
  if (net->http_token_file == NULL)
    return BL_OK;
  bl_buf text = BL_BUF_INIT;
  bl_status status = bl_file_read(net->http_token_file, TOKEN_FILE_BYTES_MAX, &text, err);
  if (status == BL_OK) {
    size_t n = strcspn(bl_buf_str(&text), "\r\n");
    if (n < 16 || n >= size)
      status = bl_fail(err, BL_EINVAL, "%s: a token has 16 to %zu characters on one line", net->http_token_file, size - 1);
    else
      bl_str_copy(out, n + 1 < size ? n + 1 : size, bl_buf_str(&text));
  }
  bl_buf_fini(&text);
  return status;
}
