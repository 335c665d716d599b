/* SPDX-License-Identifier: Apache-2.0
 *
 * What benchmarks of the exchange share: one rank's session and one real shard thread, over sockets on
 * loopback. Everything that fails ends the program with a sentence. One thread, but for the shard's and the I/O
 * threads.
 */
#ifndef BENCH_LINK_H
#define BENCH_LINK_H

#include "client/session.h"
#include "net/socket.h"
#include "server/thread.h"
#include "tests/support/plan.h"

#include <stdbool.h>

typedef struct bench_link {
  bl_loop *loop;
  bl_net *net, *shard_net; /* two, as in two processes: each has its own I/O thread */
  srv_mailbox *reports;
  srv_thread *shard;
  Ballast__Control__JobPlan *plan;
  bl_tensor_table *table;
  uint32_t *shard_of_chunk;
  bl_socket *socket;
  bl_session *session;
  uint64_t next_tick_ns;
} bench_link;

void bench_need(bool ok, const char *what);

/* Until the shard has answered the session's hello and weights of version 0 are asked for. weights: an array
 * for each tensor that is not a table, borrowed until the end; NULL where all are. */
void bench_link_open(bench_link *l, const test_plan_options *options, float *const *weights);
/* Messages and timers, once; waits for them for at most wait_ms. */
void bench_link_serve(bench_link *l, int wait_ms);
void bench_link_close(bench_link *l);

/* For qsort of uint64_t. */
int bench_by_value(const void *a, const void *b);

#endif
