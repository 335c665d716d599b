/* SPDX-License-Identifier: Apache-2.0
 *
 * Leases on the wire and in the store.
 */
#include "coordinator/grants.h"

#include <string.h>

bool co_job_has_ledger(const co_job *job) { return !bl_sync_in_step(job->spec->sync) && !co_job_is_local(job); }

static bl_status need_ledger(co_job *job) {
  if (!co_job_has_ledger(job) || !job->data_agreed || job->train_samples == 0 || job->open == NULL)
    return BL_ESTATE;
  if (job->ledger != NULL)
    return BL_OK;
  const bl_job_spec *spec = job->spec;
  uint64_t per_epoch = bl_job_clocks(job->train_samples, bl_job_clock_samples(spec), 1);
  co_ledger_config config = {.n_train = job->train_samples,
                             .clock_samples = bl_job_clock_samples(spec),
                             .epochs = spec->epochs,
                             .start_epoch = job->open->plan->start_clock / per_epoch,
                             .start_clock = job->open->plan->start_clock,
                             .world = job->n_ranks,
                             .adapts = strcmp(spec->sync, "ssp") == 0};
  job->ledger = co_ledger_new(&config);
  return job->ledger != NULL ? BL_OK : BL_ENOMEM;
}

bl_status co_grants_plan(co_job *job, const Ballast__Control__Report *request, co_ledger_entry *ret_entry) {
  bool works = job->state == CO_JOB_RUNNING || job->state == CO_JOB_RECOVERING;
  bl_status status = works ? need_ledger(job) : BL_ESTATE;
  if (status == BL_OK)
    co_ledger_plan(job->ledger, request->rank, request->lease->clock, request->lease->samples_per_second, ret_entry);
  return status;
}

static size_t leases_to_wire(const co_lease *leases, uint32_t n, Ballast__Control__Lease *out,
                             Ballast__Control__Lease **list) {
  for (uint32_t i = 0; i < n; i++) {
    ballast__control__lease__init(&out[i]);
    out[i].first_clock = leases[i].first_clock;
    out[i].per_clock = leases[i].per_clock;
    out[i].epoch = leases[i].epoch;
    out[i].first = leases[i].first;
    out[i].end = leases[i].end;
    list[i] = &out[i];
  }
  return n;
}

bl_status co_grants_pack(const Ballast__Control__Report *request, const co_ledger_entry *entry, bl_msg *ret_msg) {
  Ballast__Control__Report report = BALLAST__CONTROL__REPORT__INIT;
  Ballast__Control__LeaseRequest lease = BALLAST__CONTROL__LEASE_REQUEST__INIT;
  co_grants_ack scratch;
  lease.clock = request->lease->clock;
  lease.samples_per_second = entry->rate;
  lease.n_leases = leases_to_wire(entry->leases, entry->n_leases, scratch.leases, scratch.list);
  lease.leases = scratch.list;
  lease.epoch = entry->epoch;
  lease.position = entry->position;
  report.job = request->job;
  report.rank = request->rank;
  report.incarnation = request->incarnation;
  report.sequence = request->sequence;
  report.lease = &lease;
  return bl_control_pack(BL_MSG_REPORT, &report.base, ret_msg);
}

bl_status co_grants_restore(co_job *job, const Ballast__Control__Report *stored) {
  const Ballast__Control__LeaseRequest *m = stored->lease;
  co_ledger_entry e = {.rate = m->samples_per_second, .epoch = m->epoch, .position = m->position};
  bl_status status = need_ledger(job);
  if (status != BL_OK)
    return status;
  if (m->n_leases > CO_LEASES_MAX)
    return BL_ECORRUPT;
  for (size_t i = 0; i < m->n_leases; i++) {
    const Ballast__Control__Lease *l = m->leases[i];
    e.leases[e.n_leases++] = (co_lease){l->first_clock, l->per_clock, l->epoch, l->first, l->end};
  }
  return co_ledger_apply(job->ledger, stored->rank, &e);
}

void co_grants_add(const co_job *job, uint32_t rank, co_grants_ack *scratch, Ballast__Control__ReportAck *ack) {
  if (job->ledger == NULL)
    return;
  const co_lease *leases;
  uint32_t n = co_ledger_leases(job->ledger, rank, &leases);
  ack->n_leases = leases_to_wire(leases, n, scratch->leases, scratch->list);
  ack->leases = scratch->list;
  ack->exhausted = co_ledger_is_exhausted(job->ledger);
}
