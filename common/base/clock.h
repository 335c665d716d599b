/* SPDX-License-Identifier: Apache-2.0
 *
 * The only reader of time. Decisions are made by code that takes `now_ns` as an argument; only
 * composition roots and I/O shells call these. Units: nanoseconds. Any thread.
 */
#ifndef BL_BASE_CLOCK_H
#define BL_BASE_CLOCK_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define BL_NS_PER_US UINT64_C(1000)
#define BL_NS_PER_MS UINT64_C(1000000)
#define BL_NS_PER_S UINT64_C(1000000000)

uint64_t bl_clock_now_ns(void);  /* monotonic, arbitrary origin, never 0 */
uint64_t bl_clock_wall_ns(void); /* since 1970-01-01 UTC */
uint64_t bl_clock_cpu_ns(void);  /* CPU time of this process */

/* "2026-01-02T03:04:05.678Z"; size at least 25. */
void bl_clock_format_utc(uint64_t wall_ns, char *out, size_t size);

#endif
