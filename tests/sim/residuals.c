/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies of files in a folder of this process.
 */
#include "residuals.h"

#include "base/buf.h"
#include "base/file.h"
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILE_BYTES_MAX (1u << 24)

static const char *dir;
static pid_t owner;

static const char *path_of(char out[160], uint64_t job, uint32_t rank, uint32_t incarnation) {
  snprintf(out, 160, "%s/run/%" PRIu64 ".%u.%u", dir, job, rank, incarnation);
  return out;
}

void sim_residuals_begin(void) {
  char run[160];
  if (dir == NULL || owner != getpid()) /* tests fork */
    dir = test_temp_dir();
  owner = getpid();
  snprintf(run, sizeof run, "%s/run", dir);
  if (bl_file_exists(run))
    ck_assert_ok(bl_file_remove_tree(run, NULL));
  ck_assert_ok(bl_file_make_dirs(run, 0700, NULL));
}

const char *sim_residuals(uint64_t job, uint32_t rank, uint32_t incarnation) {
  static char to[160];
  char from[160];
  bl_buf bytes = BL_BUF_INIT;
  path_of(to, job, rank, incarnation);
  for (uint32_t before = incarnation; before-- > 0;) {
    if (!bl_file_exists(path_of(from, job, rank, before)))
      continue;
    ck_assert_ok(bl_file_read(from, FILE_BYTES_MAX, &bytes, NULL));
    FILE *f = fopen(to, "w"); /* not through the library: nothing here needs to be on the disk */
    ck_assert(f != NULL && fwrite(bl_buf_str(&bytes), 1, bytes.size, f) == bytes.size && fclose(f) == 0);
    break;
  }
  bl_buf_fini(&bytes);
  return to;
}
