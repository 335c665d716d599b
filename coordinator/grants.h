/* SPDX-License-Identifier: Apache-2.0
 *
 * The ledger in messages: a rank's request becomes a stored report with the answer in it, an acknowledgement
 * carries what the rank has. Pure, but for the job's ledger.
 */
#ifndef CO_GRANTS_H
#define CO_GRANTS_H

#include "coordinator/job.h"

/* Ranks of this job get their samples from a ledger: sync other than bsp, and data that all share. */
bool co_job_has_ledger(const co_job *job);

/* The answer to a request of a running job's rank; changes nothing but that the ledger is there. BL_ESTATE: this job
 * has no ledger, or does not run; BL_ENOMEM. */
BL_MUST_CHECK bl_status co_grants_plan(co_job *job, const Ballast__Control__Report *request,
                                       co_ledger_entry *ret_entry);
/* Request and answer as one message, for the store. */
BL_MUST_CHECK bl_status co_grants_pack(const Ballast__Control__Report *request, const co_ledger_entry *entry,
                                       bl_msg *ret_msg);
/* A stored one. BL_ESTATE, BL_EINVAL, BL_ECORRUPT: it does not fit the job; nothing changed. */
BL_MUST_CHECK bl_status co_grants_restore(co_job *job, const Ballast__Control__Report *stored);

/* The leases of a rank, into an acknowledgement to it. */
typedef struct co_grants_ack {
  Ballast__Control__Lease leases[CO_LEASES_MAX], *list[CO_LEASES_MAX];
} co_grants_ack;
void co_grants_add(const co_job *job, uint32_t rank, co_grants_ack *scratch, Ballast__Control__ReportAck *ack);

#endif
