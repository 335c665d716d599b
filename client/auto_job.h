/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine of `compression: auto` for a job: what of its tensors is the engine's to choose. Pure.
 *
 * A tensor is, in a direction, when the job has the preset auto, the tensor is no table, no bias and not small
 * (compression.exact_below), it is trained, and no rule of the job names a codec for it there. Sparse codecs are candidates
 * where the job file could name them: with error feedback, and without a momentum on the servers.
 */
#ifndef BL_CLIENT_AUTO_JOB_H
#define BL_CLIENT_AUTO_JOB_H

#include "client/auto.h"
#include "job/policy.h"

/* Of the job's tensor table (or the plan's: the same tensors); out: [table->n_tensors]. Returns how many tensors have a
 * direction that is to be chosen. */
uint32_t bl_auto_tensors_of_job(const bl_job_spec *spec, const bl_tensor_table *table, bl_auto_tensor *out);
bool bl_auto_job_takes_sparse(const bl_job_spec *spec);

/* *ret_auto is NULL, with BL_OK, where there is nothing to choose. Rank 0 decides the pulls. BL_ENOMEM. */
BL_MUST_CHECK bl_status bl_auto_new_of_job(const bl_job_spec *spec, const bl_tensor_table *table, uint32_t rank,
                                           uint32_t n_shards, bl_auto **ret_auto, bl_error *err);

#endif
