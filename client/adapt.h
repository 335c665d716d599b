/* SPDX-License-Identifier: Apache-2.0
 *
 * A session that adapts: what its engine (client/auto.h) is told of each clock, and what comes of its choices. Every function
 * accepts NULL, the session of a job that does not adapt, and does nothing then.
 *
 * Pushes follow the choice from the next clock on. Pulls are the shards': rank 0's commits carry what it has chosen since
 * the last (job/choices.h), all of it in the first commit of a process, since those before may have chosen otherwise.
 *
 * Threads: one.
 */
#ifndef BL_CLIENT_ADAPT_H
#define BL_CLIENT_ADAPT_H

#include "client/auto.h"
#include "job/tensors.h"
#include "wire/frame.h"

typedef struct bl_adapt bl_adapt;

typedef struct bl_adapt_config {
  const bl_tensor_table *table; /* borrowed */
  const bl_auto_tensor *tensors; /* [table->n_tensors], borrowed for the call: what is to be chosen (client/auto_job.h); NULL:
                                    all that is dense and trained */
  uint32_t rank, world, n_shards;
  bool sparse;                  /* the job's optimizer allows sparse pushes */
  bl_auto_now_fn *now_ns;       /* NULL: codecs are not timed; simulations have no such time */
  void *now_arg;
} bl_adapt_config;

BL_MUST_CHECK bl_status bl_adapt_new(const bl_adapt_config *config, bl_adapt **ret, bl_error *err);
void bl_adapt_free(bl_adapt *a);
/* Largest frame of a chunk of n elements that a choice may lead to. */
size_t bl_adapt_frame_bytes_max(const bl_adapt *a, uint32_t n);

/* NULL: as the job says. */
const bl_codec_spec *bl_adapt_push_spec(const bl_adapt *a, uint32_t tensor);
const bl_codec_spec *bl_adapt_pull_spec(const bl_adapt *a, uint32_t tensor);
/* Of the push, or of the pull where only that has one; "" when nothing was decided. */
const char *bl_adapt_reason(const bl_adapt *a, uint32_t tensor);

uint64_t bl_adapt_now(const bl_adapt *a); /* for the two below; 0: not timed */
void bl_adapt_encoded(bl_adapt *a, const bl_codec_spec *spec, uint64_t n_elems, uint64_t bytes, uint64_t since_ns);
void bl_adapt_decoded(bl_adapt *a, uint32_t tensor, uint64_t n_elems, uint64_t since_ns);

void bl_adapt_begin_clock(bl_adapt *a, uint64_t clock, uint64_t now_ns);
void bl_adapt_sent(bl_adapt *a, uint64_t bytes, uint64_t now_ns);
void bl_adapt_acked(bl_adapt *a, uint64_t bytes, uint64_t now_ns);
void bl_adapt_lost(bl_adapt *a);
/* Nothing more to compute or to send. grads: [n_tensors], for trials of other codecs; NULL where there is none. */
void bl_adapt_committed(bl_adapt *a, const float *const *grads, uint64_t key, uint64_t now_ns);
void bl_adapt_arrived(bl_adapt *a, uint64_t bytes, uint64_t now_ns);
/* Decisions fall here, and are logged. */
void bl_adapt_end_clock(bl_adapt *a, uint64_t now_ns);

/* What the commits of this clock carry, as a frame; NULL: nothing, or no memory (then with a later one). Borrowed until
 * the next bl_adapt_end_clock. */
bl_frame *bl_adapt_choices(bl_adapt *a);

#endif
