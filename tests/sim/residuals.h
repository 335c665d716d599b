/* SPDX-License-Identifier: Apache-2.0
 *
 * Files of residuals in simulated runs. What a rank's life has left in its file by now is what the next one finds, as if all
 * lives were on one machine; lives that go on as ghosts keep theirs.
 */
#ifndef TESTS_SIM_RESIDUALS_H
#define TESTS_SIM_RESIDUALS_H

#include <stdint.h>

/* Before a run: nothing of the one before is left. */
void sim_residuals_begin(void);
/* The file of a rank's new incarnation. Stands until the next call. */
const char *sim_residuals(uint64_t job, uint32_t rank, uint32_t incarnation);

#endif
