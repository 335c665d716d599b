/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the tests: suite runner, temporary folders, data sets that may be absent.
 */
#ifndef TESTS_SUPPORT_H
#define TESTS_SUPPORT_H

#include "base/status.h"

#include <check.h>
#include <stdbool.h>
#include <stdint.h>

/* Runs the suites; returns the exit status for main. */
int test_run(Suite *const *suites, size_t n);

/* Fresh folder, removed when the process ends. Static storage, one per call (at most 16 per test). */
const char *test_temp_dir(void);

/* Path of a file of the real data sets kept beside the source tree ("fashion-mnist/..."), or NULL with a
 * printed reason when it is absent. Static storage. */
const char *test_data_path(const char *relative);

/* Path below the source tree, from BL_TOP_SRCDIR. Static storage. */
const char *test_source_path(const char *relative);

#define ck_assert_status(expr, expected)                                                                     \
  do {                                                                                                       \
    bl_status got_ = (expr);                                                                                 \
    ck_assert_msg(got_ == (expected), "%s is %s, expected %s", #expr, bl_status_name(got_),                  \
                  bl_status_name(expected));                                                                 \
  } while (0)
#define ck_assert_ok(expr) ck_assert_status(expr, BL_OK)
/* With a bl_error variable: prints its text. */
#define ck_assert_ok_err(expr, err)                                                                          \
  do {                                                                                                       \
    bl_status got_ = (expr);                                                                                 \
    ck_assert_msg(got_ == BL_OK, "%s is %s: %s", #expr, bl_status_name(got_), (err).text);                   \
  } while (0)

#endif
