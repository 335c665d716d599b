/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast bench: table of its subcommands, and where they run.
 */
#include "cli/bench.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/num.h"
#include "base/str.h"
#include "kernel/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CACHE_BYTES_UNKNOWN ((size_t)32 << 20)
#define CACHE_BYTES_MAX ((size_t)256 << 20) /* arrays are a multiple of it */
#define CACHE_LEVELS_MAX 8
#define CPUINFO_BYTES_MAX ((size_t)4 << 20)

static const struct {
  const char *name, *doc;
  cli_main_fn *main;
} benches[] = {
    {"codec", "encode, decode and sum frames of each codec, beside memcpy", cli_bench_codec},
};

static void print_help(FILE *out) {
  fputs("Usage: ballast bench WHAT [OPTION...]\nMeasure this machine.\n\n", out);
  for (size_t i = 0; i < BL_COUNT_OF(benches); i++)
    fprintf(out, "  %-9s %s\n", benches[i].name, benches[i].doc);
  fputs("\n'ballast bench WHAT --help' explains a measurement.\n", out);
}

int cli_bench(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return BL_EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
    print_help(stdout);
    return BL_EXIT_OK;
  }
  const char *names[BL_COUNT_OF(benches)];
  for (size_t i = 0; i < BL_COUNT_OF(benches); i++) {
    names[i] = benches[i].name;
    if (strcmp(argv[1], benches[i].name) != 0)
      continue;
    char name[64];
    snprintf(name, sizeof name, "ballast bench %s", benches[i].name);
    argv[1] = name; /* argp shows it in messages */
    return benches[i].main(argc - 1, argv + 1);
  }
  const char *near = bl_str_nearest(argv[1], names, BL_COUNT_OF(benches));
  fprintf(stderr, "ballast bench: nothing is called '%s'%s%s%s; 'ballast bench --help' lists what there is\n", argv[1],
          near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
  return BL_EXIT_USAGE;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

bench_spread bench_spread_of(double *values, size_t n) {
  qsort(values, n, sizeof values[0], compare_doubles);
  double median = n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
  return (bench_spread){.median = median, .min = values[0], .max = values[n - 1]};
}

/* "32768K" of one level, or 0. */
static size_t level_bytes(int index) {
  char path[96];
  bl_buf text = BL_BUF_INIT;
  uint64_t bytes = 0;
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
  if (bl_file_read(path, 64, &text, NULL) == BL_OK) {
    unsigned long long kib;
    if (sscanf(bl_buf_str(&text), "%lluK", &kib) == 1)
      bytes = kib << 10;
  }
  bl_buf_fini(&text);
  return (size_t)bytes;
}

/* What the kernel says of the first processor: what CPUID says may be a whole package that a virtual machine has a part
 * of. */
size_t bench_cache_bytes(void) {
  static size_t largest;
  for (int index = 0; largest == 0 && index < CACHE_LEVELS_MAX; index++)
    largest = BL_MAX(largest, level_bytes(CACHE_LEVELS_MAX - 1 - index));
  if (largest == 0)
    largest = CACHE_BYTES_UNKNOWN;
  return BL_MIN(largest, CACHE_BYTES_MAX);
}

/* "model name : ..." of the first processor, or the name of its architecture. */
static void cpu_model(char *out, size_t size) {
  bl_buf text = BL_BUF_INIT;
  bl_str_copy(out, size, sizeof(void *) == 8 ? "a 64-bit processor" : "a processor");
  if (bl_file_read("/proc/cpuinfo", CPUINFO_BYTES_MAX, &text, NULL) == BL_OK) {
    const char *at = strstr(bl_buf_str(&text), "model name");
    at = at != NULL ? strchr(at, ':') : NULL;
    if (at != NULL) {
      at += 1 + strspn(at + 1, " \t");
      snprintf(out, size, "%.*s", (int)strcspn(at, "\n"), at);
    }
  }
  bl_buf_fini(&text);
}

static const char *compiler(void) {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "another compiler";
#endif
}

void bench_print_machine(bool json) {
  char model[128], cache[40];
  double load[1] = {0};
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  cpu_model(model, sizeof model);
  if (getloadavg(load, 1) != 1)
    load[0] = 0;
  json_t *tables = json_array();
  for (size_t t = 0; bl_kernels_at(t) != NULL; t++)
    json_array_append_new(tables, json_string(bl_kernels_at(t)->name));
  if (json) {
    json_t *value = json_pack("{s:s, s:s, s:I, s:I, s:O, s:s, s:s, s:f}", "bench", "machine", "cpu", model, "cores",
                              (json_int_t)cores, "cache_bytes", (json_int_t)bench_cache_bytes(), "kernels", tables, "compiler",
                              compiler(), "version", bl_version_string(), "load", load[0]);
    cli_print_json(value);
    json_decref(value);
  } else {
    printf("%s, %ld cores, %s of last-level cache, load %.1f; kernels", model, cores,
           bl_str_bytes(bench_cache_bytes(), cache, sizeof cache), load[0]);
    for (size_t t = 0; bl_kernels_at(t) != NULL; t++)
      printf(" %s", bl_kernels_at(t)->name);
    printf("; %s, %s\n", bl_version_string(), compiler());
  }
  json_decref(tables);
}
