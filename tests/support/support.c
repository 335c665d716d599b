/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/support.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

int test_run(Suite *const *suites, size_t n) {
  SRunner *runner = srunner_create(suites[0]);
  for (size_t i = 1; i < n; i++)
    srunner_add_suite(runner, suites[i]);
  srunner_run_all(runner, CK_ENV);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static char temp_dirs[16][64];
static size_t n_temp_dirs;
static pid_t temp_owner;

static void remove_temp_dirs(void) {
  if (temp_owner != getpid())
    return;
  for (size_t i = 0; i < n_temp_dirs; i++) {
    if (bl_file_remove_tree(temp_dirs[i], NULL) != BL_OK)
      fprintf(stderr, "cannot remove %s\n", temp_dirs[i]);
  }
}

const char *test_temp_dir(void) {
  BL_ASSERT(n_temp_dirs < BL_COUNT_OF(temp_dirs));
  char *dir = temp_dirs[n_temp_dirs++];
  snprintf(dir, sizeof temp_dirs[0], "/tmp/ballast-test-XXXXXX");
  BL_ASSERT(mkdtemp(dir) != NULL);
  if (temp_owner != getpid()) {
    temp_owner = getpid();
    atexit(remove_temp_dirs);
  }
  return dir;
}

static const char *top_srcdir(void) {
  const char *top = getenv("BL_TOP_SRCDIR");
  return top != NULL ? top : ".";
}

const char *test_source_path(const char *relative) {
  static char paths[16][4096];
  static unsigned next;
  char *path = paths[next++ % 16];
  snprintf(path, sizeof paths[0], "%s/%s", top_srcdir(), relative);
  return path;
}

const char *test_data_path(const char *relative) {
  static char paths[16][4096];
  static unsigned next;
  char *path = paths[next++ % 16];
  const char *root = getenv("BALLAST_TEST_DATA");
  if (root != NULL)
    snprintf(path, sizeof paths[0], "%s/%s", root, relative);
  else
    snprintf(path, sizeof paths[0], "%s/../shared/data/%s", top_srcdir(), relative);
  if (bl_file_exists(path))
    return path;
  printf("skipped: %s is absent (set BALLAST_TEST_DATA to the folder of the data sets)\n", path);
  return NULL;
}
