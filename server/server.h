/* SPDX-License-Identifier: Apache-2.0
 *
 * The server daemon put together: shards on their threads, the control socket, status pages. Built, started
 * and taken down in that order; one object, one loop (the main thread's).
 */
#ifndef SRV_SERVER_H
#define SRV_SERVER_H

#include "conf/cluster.h"
#include "loop/loop.h"
#include "net/socket.h"
#include "server/node.h"
#include "server/thread.h"

typedef struct srv_server srv_server;

typedef struct srv_server_config {
  const bl_cluster_conf *conf; /* borrowed for the server's life */
  const char *name;            /* node name; NULL: conf's, or the host's */
  bl_loop *loop;
  bl_loop_fn *on_rejected;     /* the coordinator will not have this server: see srv_server_rejected */
  void *arg;
} srv_server_config;

/* Errors are sentences for the operator: addresses in use, public addresses without keys, unreadable keys. */
BL_MUST_CHECK bl_status srv_server_new(const srv_server_config *config, srv_server **ret_server, bl_error *err);
/* Stops the shards, then closes everything; the loop has to turn once more for its close callbacks. */
/* Reads the list of allowed keys again (SIGHUP); says in the log what came of it. */
void srv_server_reload(srv_server *s);
void srv_server_free(srv_server *s);

/* Bound addresses as JSON: {"name": ..., "shards": ["tcp://127.0.0.1:7100"], "http": "127.0.0.1:7080"}. */
BL_MUST_CHECK bl_status srv_server_write_addresses(const srv_server *s, const char *path, bl_error *err);
const char *srv_server_rejected(const srv_server *s); /* NULL: it is not */

/* What the pages show. */
typedef struct srv_view {
  const char *name, *coordinator, *http;
  const srv_node *node;
  uint32_t n_shards;
  const char *const *endpoints;
  const srv_shard_stats *shards;   /* [n_shards], as last reported */
  const bl_socket_stats *sockets;
  uint64_t refused_handshakes, memory_bytes;
} srv_view;
srv_view srv_server_view(const srv_server *s);

#endif
