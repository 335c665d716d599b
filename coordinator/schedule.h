/* SPDX-License-Identifier: Apache-2.0
 *
 * In which order jobs get what queue.c can give.
 *
 * Ranks that were lost come first: they hold up jobs that run. Then the queue, in this order:
 *   1. the higher priority;
 *   2. within one priority: jobs submitted longer ago than `queue_pass`, the oldest first;
 *   3. then jobs of the submitter whose jobs hold the fewest slots;
 *   4. then the older job.
 * A job that does not fit now lets others that fit pass, but only for `queue_pass` after its submission: then what
 * comes free is kept for it. With rule 2 no job waits for ever behind others of its priority. Nothing that runs is
 * taken away from a job.
 *
 * Pure on co_state.
 */
#ifndef CO_SCHEDULE_H
#define CO_SCHEDULE_H

#include "coordinator/state.h"

/* Gives slots to lost ranks, starts jobs, and says of all others what they wait for (`waits_for`, `place`). */
void co_schedule(co_state *st);

#endif
