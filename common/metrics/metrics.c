/* SPDX-License-Identifier: Apache-2.0
 *
 * Prometheus text exposition, and the facts about this process from /proc/self.
 */
#include "metrics/metrics.h"

#include "base/clock.h"
#include "base/file.h"
#include "config.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kind_names[] = {[BL_METRIC_COUNTER] = "counter", [BL_METRIC_GAUGE] = "gauge"};

void bl_metrics_family(bl_buf *out, const char *name, bl_metric_kind kind, const char *help) {
  bl_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind_names[kind]);
}

static void add_label_value(bl_buf *out, const char *value) {
  for (const char *p = value; *p != '\0'; p++) {
    if (*p == '\n')
      bl_buf_add_str(out, "\\n");
    else if (*p == '"' || *p == '\\')
      bl_buf_printf(out, "\\%c", *p);
    else
      bl_buf_add_byte(out, (uint8_t)*p);
  }
}

void bl_metrics_sample(bl_buf *out, const char *name, double value, const char *const *labels) {
  bl_buf_add_str(out, name);
  for (size_t i = 0; labels != NULL && labels[i] != NULL; i += 2) {
    bl_buf_printf(out, "%s%s=\"", i == 0 ? "{" : ",", labels[i]);
    add_label_value(out, labels[i + 1]);
    bl_buf_add_byte(out, '"');
  }
  if (labels != NULL && labels[0] != NULL)
    bl_buf_add_byte(out, '}');
  bl_buf_printf(out, " %.17g\n", value);
}

void bl_metrics_single(bl_buf *out, const char *name, bl_metric_kind kind, const char *help, double value) {
  bl_metrics_family(out, name, kind, help);
  bl_metrics_sample(out, name, value, NULL);
}

/* Number of entries in /proc/self/fd, without the one that reading it opens. */
static double count_open_fds(void) {
  DIR *dir = opendir("/proc/self/fd");
  if (dir == NULL)
    return 0;
  double n = -3; /* ".", ".." and the directory itself */
  while (readdir(dir) != NULL)
    n++;
  closedir(dir);
  return n;
}

static double resident_bytes(void) {
  bl_buf text = BL_BUF_INIT;
  double pages = 0;
  if (bl_file_read("/proc/self/statm", 4096, &text, NULL) == BL_OK)
    (void)sscanf(bl_buf_str(&text), "%*s %lf", &pages);
  bl_buf_fini(&text);
  return pages * (double)sysconf(_SC_PAGESIZE);
}

static double start_time_seconds(void) {
  static double start;
  if (start == 0)
    start = (double)bl_clock_wall_ns() / 1e9 - (double)bl_clock_cpu_ns() / 1e9;
  return start;
}

void bl_metrics_process(bl_buf *out, const char *program) {
  bl_metrics_family(out, "ballast_build_info", BL_METRIC_GAUGE, "Version of the running program.");
  bl_metrics_sample(out, "ballast_build_info", 1,
                    (const char *const[]){"program", program, "version", PACKAGE_VERSION, NULL});
  bl_metrics_single(out, "process_resident_memory_bytes", BL_METRIC_GAUGE, "Resident memory.", resident_bytes());
  bl_metrics_single(out, "process_cpu_seconds_total", BL_METRIC_COUNTER, "User and system CPU time.",
                    (double)bl_clock_cpu_ns() / 1e9);
  bl_metrics_single(out, "process_open_fds", BL_METRIC_GAUGE, "Open file descriptors.", count_open_fds());
  bl_metrics_single(out, "process_start_time_seconds", BL_METRIC_GAUGE,
                    "Start of the process since the Unix epoch.", start_time_seconds());
}
