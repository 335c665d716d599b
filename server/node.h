/* SPDX-License-Identifier: Apache-2.0
 *
 * The server as the coordinator sees it: registers, reports in heartbeats what its shards hold, opens and
 * closes jobs on them as told. A state machine without sockets, clocks and threads; shards are reached
 * through callbacks and report back with srv_node_on_report.
 *
 * Threads: one (the main one).
 */
#ifndef SRV_NODE_H
#define SRV_NODE_H

#include "server/shard.h"

#define SRV_SHARDS_MAX 64 /* per server: ports 7100 to 7163 */

typedef struct srv_node srv_node;

typedef struct srv_node_config {
  const char *name, *build, *host, *rack, *kernel_table, *status_url, *public_key; /* borrowed; NULL: "" */
  const char *address;             /* of the coordinator, for people */
  uint64_t incarnation;            /* wall-clock nanoseconds at the start of the process */
  const char *const *endpoints;    /* [n_shards], as advertised; borrowed */
  uint32_t n_shards;
  uint64_t memory_bytes;
  uint32_t protocol_max;           /* 0: all that this program speaks; see bl_protocol_max */
  uint64_t heartbeat_ns, lease_ns; /* until the coordinator says otherwise */
  bl_transport *coordinator;       /* borrowed */
  /* plan: the callee's whatever it returns; freed with bl_control_free. BL_ENOMEM: the shard was not told. */
  bl_status (*open_job)(void *arg, uint32_t shard, Ballast__Control__JobPlan *plan);
  void (*close_job)(void *arg, uint32_t shard, uint64_t job);
  void *arg;
} srv_node_config;

BL_MUST_CHECK bl_status srv_node_new(const srv_node_config *config, srv_node **ret_node, bl_error *err);
void srv_node_free(srv_node *n);

/* From the coordinator. What is malformed is counted and logged. */
void srv_node_on_msg(srv_node *n, bl_msg *msg, uint64_t now_ns);
uint64_t srv_node_tick(srv_node *n, uint64_t now_ns);
/* All jobs of a shard as they are now. */
void srv_node_on_report(srv_node *n, uint32_t shard, const srv_shard_job_info *infos, size_t n_infos,
                        uint64_t now_ns);

bool srv_node_is_registered(const srv_node *n);
/* The coordinator refused this node for good: the reason; NULL otherwise. */
const char *srv_node_rejected(const srv_node *n);
/* The ith job; false behind the last. For status pages. */
bool srv_node_job_at(const srv_node *n, size_t i, Ballast__Control__ServerJobStatus *ret_status);
/* "" when all is well, else a sentence. */
const char *srv_node_waits_for(const srv_node *n, char *out, size_t size, uint64_t now_ns);

#endif
