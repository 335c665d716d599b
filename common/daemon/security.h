/* SPDX-License-Identifier: Apache-2.0
 *
 * From cluster.yaml to a node's name, its keys and its sockets' context: the same for all programs.
 */
#ifndef BL_DAEMON_SECURITY_H
#define BL_DAEMON_SECURITY_H

#include "conf/cluster.h"
#include "net/keys.h"

#define BL_DAEMON_TOKEN_BYTES_MAX 256 /* of a bearer token, with NUL */

/* Name of a node: the one given, else "<host name>-<role>". out: at least 64 bytes. */
BL_MUST_CHECK bl_status bl_daemon_node_name(const char *given, const char *role, char *out, size_t size, bl_error *err);

/* Path of this program's secret key file, absolute; *ret_path is owned by the caller, NULL without keys. */
BL_MUST_CHECK bl_status bl_daemon_key_path(const bl_cluster_conf *conf, const char *role, char **ret_path, bl_error *err);

/* BL_EACCES with a sentence when the coordinator is not on this machine, there are no keys to show and to expect,
 * and security.insecure does not say that this is meant. */
BL_MUST_CHECK bl_status bl_daemon_check_coordinator(const bl_cluster_conf *conf, bl_error *err);

/* The keys in that file; empty without one. */
BL_MUST_CHECK bl_status bl_daemon_read_keys(const bl_cluster_conf *conf, const char *role, bl_keypair *ret_keys, bl_error *err);

/* The ZeroMQ context with this program's keys (security.key_file, where %r stands for the role) and the list of
 * allowed peers. Without a key file: no CURVE. role: "coordinator", "server", "worker" or "client". */
BL_MUST_CHECK bl_status bl_daemon_open_net(const bl_cluster_conf *conf, const char *role, bl_net **ret_net, bl_error *err);

/* Reads the list of allowed peers again (SIGHUP). */
BL_MUST_CHECK bl_status bl_daemon_reload_allow(const bl_cluster_conf *conf, bl_net *net, bl_error *err);

/* BL_EACCES with a sentence when an address to listen on is not loopback, there are no keys, and
 * security.insecure is not set. */
BL_MUST_CHECK bl_status bl_daemon_check_listen(const bl_cluster_conf *conf, const bl_listen_conf *net, bl_error *err);

/* Host that peers shall use for a listening socket: advertise, else the first listen address, else this
 * machine's name when that means all interfaces. IPv6 addresses come with brackets. */
void bl_daemon_advertised_host(const bl_listen_conf *net, char *out, size_t size);

/* URL of the status pages that listen on http_listen and this port: the host that stands there, or, when that means
 * all interfaces, advertise or this machine's name. */
void bl_daemon_http_url(const bl_listen_conf *net, unsigned port, char *out, size_t size);

/* Content of http_token_file without the line end; "" when none is set. */
BL_MUST_CHECK bl_status bl_daemon_read_token(const bl_listen_conf *net, char *out, size_t size, bl_error *err);

#endif
