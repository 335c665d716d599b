/* SPDX-License-Identifier: Apache-2.0
 *
 * What a job gets: gives queued jobs slots and shards, and lost ranks new slots. What cannot be given becomes a
 * sentence in the job's `waits_for`. In which order jobs are asked is schedule.c's matter. Pure on co_state.
 */
#ifndef CO_QUEUE_H
#define CO_QUEUE_H

#include "coordinator/state.h"

/* Ranks without a slot get one, on the workers with the fewest ranks of the job, then the most free slots.
 * All or none. False: *why says what is missing ("job 7 waits for ..."), *ret_blocks whether the end of
 * other jobs will give it what it lacks, so that it stands in the queue behind them. */
bool co_queue_give_slots(co_state *st, co_job *job, bool *ret_blocks, bl_buf *why);

/* The workers and their slots at one moment: taken once for a whole queue, and again after each start. */
typedef struct co_survey co_survey;
co_survey *co_survey_new(const co_state *st); /* NULL: no memory */
void co_survey_free(co_survey *s);            /* accepts NULL */
/* False: some nodes are too old for the job, which is then looked at by itself. */
bool co_survey_is_for(const co_survey *s, const co_job *job);
/* Whether a queued job may find its slots now; and whether it would if nothing else ran. */
bool co_survey_has_room(const co_survey *s, const co_job *job);
bool co_survey_could_have_room(const co_survey *s, const co_job *job);

/* Slots for all ranks, and a placement on the live servers, for a queued job. On success the job has both and is
 * dirty, and the survey is out of date. */
bool co_queue_start(co_state *st, co_survey *s, co_job *job, bool *ret_blocks, bl_buf *why);

/* One OpenBLAS core type for all ranks: the workers' own when they agree, else one that every x86-64 machine
 * of the last decade has. Kernels of different types give different bits. */
#define CO_BLAS_CORE_COMMON "Haswell"
void co_queue_choose_blas_core(const co_state *st, co_job *job);

/* Slots that ranks of active jobs and leftover tasks take, per node: [st->members.n], owned by the caller.
 * NULL: no memory. One pass over the ranks, however many nodes there are. */
uint32_t *co_queue_slots_used(const co_state *st);
/* Server memory promised to active jobs on a server. */
uint64_t co_queue_reserved_bytes(const co_state *st, const co_node *node);

#endif
