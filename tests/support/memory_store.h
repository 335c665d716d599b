/* SPDX-License-Identifier: Apache-2.0
 *
 * A coordinator's store in memory, for tests and the simulator: outlives the core that writes to it, and can
 * be told to fail.
 */
#ifndef TESTS_MEMORY_STORE_H
#define TESTS_MEMORY_STORE_H

#include "coordinator/store.h"

co_store *memory_store_new(void) BL_MUST_CHECK;
/* While set, every put fails with BL_EIO and changes nothing. */
void memory_store_set_failing(co_store *s, bool failing);
/* Only so many puts succeed, counted from the store's making; 0: all do. What the disk has when a machine dies. */
void memory_store_set_puts_max(co_store *s, uint64_t puts_max);
/* Puts that were refused so far. */
uint64_t memory_store_refused(const co_store *s);
/* While set, put_job says BL_OK and writes nothing: a disk that lies. */
void memory_store_set_forgetful(co_store *s, bool forgetful);
/* Puts that succeeded so far. */
uint64_t memory_store_puts(const co_store *s);
/* Record of a job as last put, NULL: none. Borrowed until the next put. */
const co_job_record *memory_store_job(const co_store *s, uint64_t id);

#endif
