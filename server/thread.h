/* SPDX-License-Identifier: Apache-2.0
 *
 * A shard at work: one thread, one loop, one ROUTER socket, one srv_shard. Orders come in and reports go out by
 * mailbox.
 */
#ifndef SRV_THREAD_H
#define SRV_THREAD_H

#include "conf/cluster.h"
#include "net/socket.h"
#include "server/mailbox.h"
#include "server/shard.h"

/* What the shard says about itself, on change and when asked. One block, freed with bl_free. */
typedef struct srv_report {
  srv_letter letter;
  uint32_t shard;
  srv_shard_stats stats;
  bl_socket_stats socket;
  size_t n_infos;
  srv_shard_job_info infos[];
} srv_report;

typedef struct srv_thread srv_thread;

typedef struct srv_thread_config {
  bl_net *net;
  const char *const *listen; /* addresses; borrowed for the call */
  size_t n_listen;
  uint16_t port;             /* of the first address; 0: any. All addresses get the same one. */
  bool secured;              /* with keys: only workers may speak */
  srv_shard_config shard;    /* transport and tap are set here */
  srv_mailbox *reports;      /* borrowed; letters are srv_report */
} srv_thread_config;

/* Binds, then starts the thread. *ret_port: the one bound. */
BL_MUST_CHECK bl_status srv_thread_start(const srv_thread_config *config, srv_thread **ret_thread,
                                         uint16_t *ret_port, bl_error *err);
/* Stops and joins. NULL allowed. */
void srv_thread_stop(srv_thread *t);

/* Any thread. plan: taken, whatever is returned; BL_ENOMEM: the shard was not told. */
BL_MUST_CHECK bl_status srv_thread_open_job(srv_thread *t, Ballast__Control__JobPlan *plan);
void srv_thread_close_job(srv_thread *t, uint64_t job);
void srv_thread_ask_report(srv_thread *t);

#endif
