/* SPDX-License-Identifier: Apache-2.0
 *
 * clock_gettime behind three getters.
 */
#include "base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t read_ns(clockid_t id) {
  struct timespec t;
  BL_ASSERT(clock_gettime(id, &t) == 0);
  return (uint64_t)t.tv_sec * BL_NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t bl_clock_now_ns(void) { return read_ns(CLOCK_MONOTONIC) + 1; }

uint64_t bl_clock_wall_ns(void) { return read_ns(CLOCK_REALTIME); }

uint64_t bl_clock_cpu_ns(void) { return read_ns(CLOCK_PROCESS_CPUTIME_ID); }

void bl_clock_format_utc(uint64_t wall_ns, char *out, size_t size) {
  time_t seconds = (time_t)(wall_ns / BL_NS_PER_S);
  struct tm tm;
  gmtime_r(&seconds, &tm);
  snprintf(out, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
           tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(wall_ns % BL_NS_PER_S / BL_NS_PER_MS));
}
