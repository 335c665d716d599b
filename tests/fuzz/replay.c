/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a fuzz target over its corpus, tests/fuzz/corpus/<target>/, so that `make check` covers it with any
 * compiler: every file as it is, cut short, and with single bits flipped, always the same ones.
 *
 * Built with libFuzzer (--enable-fuzzers), the same program fuzzes when it has arguments, and without any it
 * replays the corpus.
 */
#include "config.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/rng.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX (4u << 20)
#define CUTS_MAX 256
#define FLIPS_MAX 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* "…/fuzz_job_spec" -> the folder of job_spec's corpus. */
static const char *corpus_dir(const char *program) {
  static char path[4096];
  const char *top = getenv("BL_TOP_SRCDIR"), *slash = strrchr(program, '/');
  const char *name = slash != NULL ? slash + 1 : program;
  if (strncmp(name, "fuzz_", 5) == 0)
    name += 5;
  snprintf(path, sizeof path, "%s/tests/fuzz/corpus/%s", top != NULL ? top : ".", name);
  return path;
}

#ifdef BL_ENABLE_FUZZERS

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  static char *replaced[4];
  if (*argc > 1)
    return 0;
  replaced[0] = (*argv)[0];
  replaced[1] = (char *)"-runs=0";
  replaced[2] = (char *)corpus_dir((*argv)[0]);
  *argc = 3;
  *argv = replaced;
  return 0;
}

#else

/* A copy of exactly the size, so that a sanitizer sees the first byte read behind it. */
static void run_copy(const uint8_t *data, size_t size, size_t flip_bit) {
  uint8_t *copy = malloc(size > 0 ? size : 1);
  if (copy == NULL)
    abort();
  memcpy(copy, data, size);
  if (flip_bit / 8 < size)
    copy[flip_bit / 8] ^= (uint8_t)(1u << flip_bit % 8);
  LLVMFuzzerTestOneInput(copy, size);
  free(copy);
}

static void replay(const uint8_t *data, size_t size) {
  run_copy(data, size, SIZE_MAX);
  size_t step = size / CUTS_MAX + 1;
  for (size_t cut = 0; cut < size; cut += step)
    run_copy(data, cut, SIZE_MAX);
  for (uint64_t i = 0; size > 0 && i < FLIPS_MAX; i++)
    run_copy(data, size, (size_t)bl_rng_below(size, 0, i, size * 8));
}

int main(int argc, char **argv) {
  (void)argc;
  const char *dir_path = corpus_dir(argv[0]);
  DIR *dir = opendir(dir_path);
  unsigned n = 0;
  if (dir == NULL) {
    fprintf(stderr, "no corpus at %s\n", dir_path);
    return 1;
  }
  for (struct dirent *e; (e = readdir(dir)) != NULL;) {
    char path[8192];
    bl_buf data = BL_BUF_INIT;
    bl_error err = BL_ERROR_INIT;
    if (e->d_name[0] == '.')
      continue;
    snprintf(path, sizeof path, "%s/%s", dir_path, e->d_name);
    if (bl_file_read(path, FILE_BYTES_MAX, &data, &err) != BL_OK) {
      fprintf(stderr, "%s\n", err.text);
      return 1;
    }
    replay((const uint8_t *)bl_buf_str(&data), data.size);
    bl_buf_fini(&data);
    n++;
  }
  closedir(dir);
  printf("%u files of %s, whole, cut and flipped\n", n, dir_path);
  return n > 0 ? 0 : 1;
}

#endif
