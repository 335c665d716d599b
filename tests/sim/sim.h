/* SPDX-License-Identifier: Apache-2.0
 *
 * A cluster in one thread: simulated time and network around the real state machines. Nodes have sockets
 * (ROUTER or DEALER, as in net/socket.h), a tick, and may crash; the network delays, drops, duplicates,
 * reorders and cuts, all drawn from one seed, so that a failing run can be repeated.
 *
 * A node's callbacks may send, open sockets and crash nodes. Node and socket memory lives until sim_free.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "wire/transport.h"

typedef struct sim sim;
typedef struct sim_node sim_node;
typedef struct sim_socket sim_socket;

typedef struct sim_config {
  uint64_t seed;
  uint64_t delay_min_ns, delay_max_ns;
  uint32_t drop_per_1000, duplicate_per_1000;
  bool reorder; /* false: messages between two sockets stay in order */
} sim_config;

sim *sim_new(const sim_config *config);
void sim_free(sim *s);
uint64_t sim_now(const sim *s);
/* Replaces drop, duplicate, delay and order from now on. */
void sim_set_config(sim *s, const sim_config *config);

/* Returns the time of the next call; called after every message and at that time. */
typedef uint64_t sim_tick_fn(void *arg, uint64_t now_ns);
sim_node *sim_node_new(sim *s, const char *name, sim_tick_fn *tick, void *arg);
/* Its messages on the way still arrive elsewhere; nothing arrives here any more, and it ticks no more. */
void sim_node_crash(sim_node *n);
bool sim_node_is_alive(const sim_node *n);
/* A crashed node is there again, with the sockets that it had; what they see is the caller's. */
void sim_node_restart(sim_node *n);
/* The node stands still for that long: what arrives waits, and time goes on without it. */
void sim_node_pause(sim_node *n, uint64_t for_ns);
/* Ticks at the present time: after a change made from outside of its callbacks. */
void sim_node_wake(sim_node *n);
/* What is sent to and from the node goes through fn, which returns the head that arrives (a reference of its own):
 * a node that reads and writes less than the others. NULL: no more. */
typedef bl_frame *sim_filter_fn(void *arg, const bl_msg *msg);
void sim_node_set_filter(sim_node *n, sim_filter_fn *fn, void *arg);
/* Messages from a to b vanish. */
void sim_cut(sim *s, const sim_node *a, const sim_node *b, bool cut);

sim_socket *sim_router(sim_node *n, bl_on_msg_fn *on_msg, void *arg);
/* identity: as in bl_socket_config; unique per router. */
sim_socket *sim_dealer(sim_node *n, const char *identity, sim_socket *router, bl_on_msg_fn *on_msg, void *arg);
/* Two connected ends within a machine: nothing is lost, doubled or reordered, whatever the network does. */
typedef struct sim_end {
  sim_node *node;
  bl_on_msg_fn *on_msg;
  void *arg;
} sim_end;
void sim_pipe(const sim_end *a, const sim_end *b, sim_socket **ret_a, sim_socket **ret_b);
/* Nothing arrives here any more. */
void sim_socket_close(sim_socket *socket);
bl_transport *sim_transport(sim_socket *socket);

/* Runs until done returns true, or until limit_ns of simulated time from now are over (false), or until nothing
 * can happen any more (false). */
typedef bool sim_done_fn(void *arg);
bool sim_run(sim *s, sim_done_fn *done, void *arg, uint64_t limit_ns);
/* Numbers for scenarios, from the same seed. */
uint64_t sim_random_below(sim *s, uint64_t n);
/* Runs fn after delay_ns of simulated time. */
void sim_after(sim *s, uint64_t delay_ns, void (*fn)(void *arg), void *arg);

typedef struct sim_stats {
  uint64_t sent, delivered, dropped, duplicated;
} sim_stats;
sim_stats sim_get_stats(const sim *s);

#endif
