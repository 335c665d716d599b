/* SPDX-License-Identifier: Apache-2.0
 *
 * A task process: one rank of one job, `ballast-worker --task`, an internal mode. It is started by the agent
 * with a socketpair on descriptor 3 (worker/pipe.h) and lives no longer than that:
 *
 *   StartTask ->, load data, <- Report data, RunTask ->, train, <- Report epoch ..., write the model (rank 0),
 *   <- Report done, ReportAck ->, <- TaskStatus done, exit 0
 *
 * A TaskStatus goes out twice a second from the loop that works. Failures are a TaskStatus with a sentence,
 * then exit 1. OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS must stand in the environment: BLAS reads them before
 * main.
 *
 * Threads: one, which owns a loop, and turns it between layers.
 */
#ifndef WK_TASK_H
#define WK_TASK_H

#include "base/status.h"

#define WK_TASK_FD 3

/* argv: --task [--data-root DIR]... [--output-root DIR]... [--key-file FILE] [--node NAME]
 * [--log-level LEVEL] [--kernels NAME]. Returns the exit code. */
int wk_task_main(int argc, char **argv);

#endif
