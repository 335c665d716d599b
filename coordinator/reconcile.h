/* SPDX-License-Identifier: Apache-2.0
 *
 * What nodes should run against what they report: differences become messages, each repeated no sooner than
 * CO_RESEND_NS until the heartbeat shows its effect. All of them are idempotent.
 *
 * Nothing is sent about a job that is dirty, that is, not yet in the store.
 */
#ifndef CO_RECONCILE_H
#define CO_RECONCILE_H

#include "coordinator/state.h"

#define CO_RESEND_NS UINT64_C(1000000000)

/* OpenJob to the servers, StartTask, UpdateTask and RunTask to the workers of an active job. */
void co_reconcile_job(co_state *st, co_job *job, bl_transport *out);
/* CloseJob and StopTask for what a node reports and nobody wants. */
void co_reconcile_node(co_state *st, co_node *node, bl_transport *out);

#endif
