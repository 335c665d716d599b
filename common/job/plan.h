/* SPDX-License-Identifier: Apache-2.0
 *
 * From a received job plan (proto/control.proto, JobPlan) to the values that shards and sessions work
 * with: tensor table (codecs included), optimizer. Everything is checked here, so that a plan with nonsense in it is
 * a sentence and not a crash.
 */
#ifndef BL_JOB_PLAN_H
#define BL_JOB_PLAN_H

#include "codec/codec.h"
#include "job/tensors.h"
#include "optim/optim.h"
#include "wire/control.h"

/* Checks counts and ranges that the rest relies on: world and incarnations, at least one shard, every
 * chunk on an existing shard. table: of this plan. */
BL_MUST_CHECK bl_status bl_plan_check(const Ballast__Control__JobPlan *plan, const bl_tensor_table *table,
                                      bl_error *err);
/* *ret_table is owned by the caller. */
BL_MUST_CHECK bl_status bl_plan_table(const Ballast__Control__JobPlan *plan, bl_tensor_table **ret_table,
                                      bl_error *err);
BL_MUST_CHECK bl_status bl_plan_optim(const Ballast__Control__JobPlan *plan, bl_optim *ret_optim, bl_error *err);

/* The epoch, from 0, that a clock belongs to, for a warm-up (job/policy.h). */
uint64_t bl_plan_epoch(const Ballast__Control__JobPlan *plan, uint64_t clock);
/* Are gradients clipped by the workers, before anything of them is accumulated, so that the scale of a commit is 1? Else
 * the shards scale by it (clip_norm): the norm is known when most of a gradient is on its way. */
bool bl_plan_clips_locally(const Ballast__Control__JobPlan *plan, const bl_tensor_table *table);

/* In step (bsp, local) all ranks work on one clock; otherwise (ssp, asp) every rank runs on a clock of its own. */
bool bl_plan_in_step(const Ballast__Control__JobPlan *plan);

#endif
