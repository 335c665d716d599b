/* SPDX-License-Identifier: Apache-2.0
 *
 * What the coordinator knows as JSON and as metrics: the text of /status and of answers to queries. Every field
 * is documented in doc/status.md. The only user of jansson in the coordinator.
 */
#ifndef CO_STATUS_H
#define CO_STATUS_H

#include "base/buf.h"
#include "coordinator/state.h"

/* Appends a JSON text. BL_ENOMEM, BL_ELIMIT (longer than an answer may be). */
BL_MUST_CHECK bl_status co_status_cluster(const co_state *st, bl_buf *out);
/* One job as lists show it. */
BL_MUST_CHECK bl_status co_status_summary(const co_state *st, const co_job *job, bl_buf *out);
BL_MUST_CHECK bl_status co_status_job(const co_state *st, const co_job *job, bl_buf *out);
/* Lines with a number above `since`. */
BL_MUST_CHECK bl_status co_status_logs(const co_job *job, uint64_t since, bl_buf *out);

/* Epochs of a job over all ranks: a line of names, then a row per complete epoch; the test columns of the last row
 * are those of the finished model. */
void co_status_metrics_csv(const co_job *job, bl_buf *out);
/* False, and nothing added: the job does not ask for it, or there is none yet. */
bool co_status_confusion_csv(const co_job *job, const co_metrics *m, bl_buf *out);

/* Prometheus text about nodes, slots and jobs. */
void co_status_metrics(const co_state *st, bl_buf *out);

#endif
