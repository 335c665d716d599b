/* SPDX-License-Identifier: Apache-2.0
 *
 * metrics.csv in the folder of a trained model: one row per epoch, over all ranks, from the coordinator's history.
 * The command writes it, because no rank knows the others' numbers; so it is there when the folder is on this
 * machine.
 */
#ifndef CLI_METRICS_CSV_H
#define CLI_METRICS_CSV_H

#include "base/status.h"

#include <jansson.h>

/* job: as cli_follow returns it. Nothing to do (BL_OK) when it has no model folder here. */
BL_MUST_CHECK bl_status cli_write_metrics_csv(const json_t *job, bl_error *err);

#endif
