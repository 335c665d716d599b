/* SPDX-License-Identifier: Apache-2.0
 *
 * Hosts and endpoints as libzmq wants them. "localhost" is 127.0.0.1 on both sides: resolved, it may be ::1
 * here and 127.0.0.1 there.
 */
#include "net/net_internal.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* libzmq takes only numeric addresses and interface names for binding. */
bl_status bl_net_numeric_host(const char *host, char *out, size_t size, bl_error *err) {
  struct in_addr v4;
  struct in6_addr v6;
  if (strcmp(host, "*") == 0 || inet_pton(AF_INET, host, &v4) == 1)
    return bl_str_copy(out, size, host) ? BL_OK : bl_fail(err, BL_EINVAL, "address %s is too long", host);
  if (inet_pton(AF_INET6, host, &v6) == 1) {
    snprintf(out, size, "[%s]", host);
    return BL_OK;
  }
  if (strcasecmp(host, "localhost") == 0)
    return bl_str_copy(out, size, "127.0.0.1") ? BL_OK : BL_EINVAL;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list = NULL;
  int rc = getaddrinfo(host, NULL, &hints, &list);
  char text[NI_MAXHOST] = "";
  if (rc == 0)
    rc = getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
  if (rc != 0)
    bl_fail(err, BL_EINVAL, "cannot listen on %s: %s", host, gai_strerror(rc));
  else
    snprintf(out, size, strchr(text, ':') != NULL ? "[%s]" : "%s", text);
  if (list != NULL)
    freeaddrinfo(list);
  return rc == 0 ? BL_OK : BL_EINVAL;
}

bl_status bl_net_normal_endpoint(const char *endpoint, char *out, size_t size, bl_error *err) {
  static const char by_name[] = "tcp://localhost:", by_number[] = "tcp://127.0.0.1:";
  _Static_assert(sizeof by_name == sizeof by_number, "one is written over the other");
  if (!bl_str_has_prefix(endpoint, "tcp://"))
    return bl_fail(err, BL_EINVAL, "endpoint %s does not begin with tcp://", endpoint);
  if (!bl_str_copy(out, size, endpoint))
    return bl_fail(err, BL_EINVAL, "endpoint of %zu bytes, limit %zu", strlen(endpoint), size - 1);
  if (strncasecmp(out, by_name, sizeof by_name - 1) == 0)
    memcpy(out, by_number, sizeof by_number - 1);
  return BL_OK;
}
