/* SPDX-License-Identifier: Apache-2.0
 *
 * The nodes of the cluster: who registered, in which incarnation, when last heard, what they report.
 * A node whose lease is over stays listed as missing, so that its name can stand in sentences.
 *
 * Pure: time comes in as an argument, nothing is sent from here. Received messages are kept as they came;
 * whoever reads a node reads `reg` and `hb`.
 */
#ifndef CO_MEMBERSHIP_H
#define CO_MEMBERSHIP_H

#include "wire/control.h"
#include "wire/transport.h"

#define CO_NODES_MAX 4096u

typedef struct co_node {
  Ballast__Control__Register *reg; /* owned, never NULL */
  Ballast__Control__Heartbeat *hb; /* owned; the last one of this incarnation, NULL before the first */
  bl_peer peer;
  bool alive;
  uint64_t heard_ns;
  uint64_t cleanup_sent_ns; /* reconcile: last StopTask or CloseJob for what nobody wants; 0: none */
} co_node;

typedef struct co_membership {
  co_node **nodes; /* owned, by name */
  size_t n, capacity;
} co_membership;

void co_membership_init(co_membership *m);
void co_membership_fini(co_membership *m);

/* Position in `nodes`; n: not known. */
size_t co_membership_index(const co_membership *m, const char *name);
/* NULL: not known. */
co_node *co_membership_find(const co_membership *m, const char *name);
co_node *co_membership_find_peer(const co_membership *m, const bl_peer *peer);
bool co_node_is(const co_node *node, bl_role role); /* registered in this role, dead or alive */

/* A registration under a new name, by the known process again, or by its successor (higher incarnation).
 * reg: taken on success. BL_EEXIST: the name belongs to a process that started later or has another role;
 * BL_ELIMIT: too many nodes; BL_EINVAL: not a registration that makes sense. */
BL_MUST_CHECK bl_status co_membership_register(co_membership *m, const bl_peer *peer,
                                               Ballast__Control__Register *reg, uint64_t now_ns,
                                               co_node **ret_node, bl_error *err);

/* hb: taken on success. BL_ENOENT: no such node or incarnation: it has to register. BL_ESTATE: older than one
 * already seen (a late duplicate), dropped. */
BL_MUST_CHECK bl_status co_membership_heartbeat(co_membership *m, const bl_peer *peer,
                                                Ballast__Control__Heartbeat *hb, uint64_t now_ns,
                                                co_node **ret_node);

/* Marks nodes not heard for lease_ns as missing; returns how many it newly marked. */
size_t co_membership_expire(co_membership *m, uint64_t now_ns, uint64_t lease_ns);

/* Entries of the last heartbeat; NULL: not in it. */
const Ballast__Control__TaskStatus *co_node_task(const co_node *node, uint64_t job, uint32_t rank,
                                                 uint32_t incarnation);
const Ballast__Control__ServerJobStatus *co_node_job(const co_node *node, uint64_t job);

#endif
