/* SPDX-License-Identifier: Apache-2.0
 *
 * Prometheus text format (version 0.0.4), written by hand-over: a page function builds the text from the
 * numbers its daemon has. Names end in a unit or _total; promtool check metrics accepts the output.
 */
#ifndef BL_METRICS_METRICS_H
#define BL_METRICS_METRICS_H

#include "base/buf.h"

#include <stdint.h>

typedef enum bl_metric_kind { BL_METRIC_COUNTER = 1, BL_METRIC_GAUGE } bl_metric_kind;

/* "# HELP", "# TYPE" lines; once per name, before its samples. */
void bl_metrics_family(bl_buf *out, const char *name, bl_metric_kind kind, const char *help);
/* One sample. labels: NULL-terminated list of key, value, key, value (values are escaped). */
void bl_metrics_sample(bl_buf *out, const char *name, double value, const char *const *labels);
/* Both for a sample without labels. */
void bl_metrics_single(bl_buf *out, const char *name, bl_metric_kind kind, const char *help, double value);
/* Process-wide ones: ballast_build_info, process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds,
 * process_start_time_seconds. */
void bl_metrics_process(bl_buf *out, const char *program);

#endif
