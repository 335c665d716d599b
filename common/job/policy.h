/* SPDX-License-Identifier: Apache-2.0
 *
 * How a tensor travels: from the job's section `compression`, or a plan, to its bl_tensor_policy. Pure.
 *
 * Tables of rows are exact, or float16, bfloat16 or int8 without error feedback: who would keep a residual for rows that
 * come and go? They have no momentum on the workers for the same reason.
 */
#ifndef BL_JOB_POLICY_H
#define BL_JOB_POLICY_H

#include "job/tensors.h"

/* How a tensor of the job travels. In a job's section each direction has the codec of the first rule that holds for the
 * tensor and names one; else, for small tensors and biases, that of `small`; else the job's. */
bl_tensor_policy bl_job_policy_of(const bl_job_spec *spec, const bl_tensor *tensor);
/* The rule that holds for it; NULL: none. */
const bl_compression_rule *bl_job_compression_rule_of(const bl_job_spec *spec, const bl_tensor *tensor);

/* What follows from both codecs and the job's numbers. */
bl_tensor_policy bl_tensor_policy_make(const bl_codec_spec *push, const bl_codec_spec *pull, bool table, bool feedback,
                                       double momentum, uint32_t warmup_epochs);

/* Can rows of a table travel like that? */
bool bl_codec_takes_rows(const bl_codec_spec *spec);
/* Has it a density, which the warm-up changes? */
bool bl_codec_has_density(const bl_codec_spec *spec);

/* Density in epoch 0, 1, ...: 1/4, 1/16, 1/64, ... during the warm-up as long as that is more, then `density`.
 * Source: Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression", ICLR 2018, section 3.3. */
float bl_density_at(float density, uint32_t warmup_epochs, uint64_t epoch);
/* The codec with its density of an epoch; one without a density as it is. */
bl_codec_spec bl_codec_spec_at(const bl_codec_spec *spec, uint32_t warmup_epochs, uint64_t epoch);

#endif
