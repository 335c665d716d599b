/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast bench: what its subcommands share. One row per subcommand in cli/bench.c, one file each.
 *
 * A measurement is repeated in rounds, each beside a yardstick measured in the same round, so that what else the machine
 * does meets both; reported are the median, the least and the most. Every subcommand says first where it runs.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/cli.h"

#include <stddef.h>

cli_main_fn cli_bench_codec;

/* Median, least and most of the rounds. */
typedef struct bench_spread {
  double median, min, max;
} bench_spread;

/* Sorts the values. n: at least 1. */
bench_spread bench_spread_of(double *values, size_t n);

/* Bytes of the last-level cache, 256 MiB at most; 32 MiB where the system does not say. */
size_t bench_cache_bytes(void);

/* The first line: CPU, cores, caches, kernel tables, compiler, version, load. */
void bench_print_machine(bool json);

#endif
