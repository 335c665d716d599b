/* SPDX-License-Identifier: Apache-2.0
 *
 * What a job costs, from its file alone: memory, traffic, arithmetic. Pure.
 */
#ifndef BL_JOB_ESTIMATE_H
#define BL_JOB_ESTIMATE_H

#include "job/tensors.h"

typedef struct bl_job_estimate {
  uint64_t n_weights;
  uint32_t n_tensors, n_chunks;
  uint64_t server_bytes;          /* over all servers: weights, accumulators, optimizer state, frames; without tables */
  uint64_t worker_bytes_per_rank; /* weights, gradients, activations; without the data set */
  uint64_t batch_per_rank;        /* the largest part */
  uint64_t push_bytes_per_clock;  /* frames of all ranks together, as bl_frame_bytes_expected */
  uint64_t pull_bytes_per_clock;
  double flops_per_sample;        /* forward and backward; without a sparse layer, whose work is that of its inputs */
  /* A sparse layer's table: what depends on how many rows the data touches. */
  uint64_t table_rows;            /* at most; 0: no table */
  uint64_t server_bytes_per_row;  /* that exists */
  uint64_t worker_bytes_per_row;  /* of a rank's batch */
  uint64_t push_bytes_per_row, pull_bytes_per_row; /* of a rank's batch, keys included */
} bl_job_estimate;

/* A frame of n numbers of a tensor, behind a warm-up: exact for codecs without indices; the expectation for the others, but
 * the bound for threshold, whose numbers decide. columns: of the tensor (bl_tensor_columns). Without what a zstd stage
 * saves. */
uint64_t bl_frame_bytes_expected(const bl_codec_spec *spec, uint32_t n, uint32_t columns);

BL_MUST_CHECK bl_status bl_job_estimate_make(const bl_job_spec *spec, bl_job_estimate *ret_estimate, bl_error *err);

#endif
