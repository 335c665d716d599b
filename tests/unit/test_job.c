/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/file.h"
#include "conf/doc.h"
#include "job/spec.h"
#include "job/tensors.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <string.h>

static bl_conf_errors errors;

static const char *const examples[] = {"fashion-mlp", "a9a-logistic", "housing-regression", "seed-text", "digits"};

START_TEST(every_example_is_read_and_comes_back_from_its_dump) {
  char path[200];
  snprintf(path, sizeof path, "conf/jobs/%s.yaml", examples[_i]);
  bl_job_spec *spec = NULL, *copy = NULL;
  bl_status status = bl_job_spec_read(test_source_path(path), NULL, 0, &spec, &errors);
  ck_assert_msg(status == BL_OK, "%s:%u: %s", path, errors.at[0].line, errors.at[0].text);
  ck_assert_str_eq(spec->name, examples[_i]);
  bl_buf dump = BL_BUF_INIT, again = BL_BUF_INIT;
  bl_job_spec_dump(spec, &dump);
  status = bl_job_spec_parse(bl_buf_str(&dump), dump.size, "dump", "/nowhere", NULL, 0, &copy, &errors);
  ck_assert_msg(status == BL_OK, "%u: %s in\n%s", errors.at[0].line, errors.at[0].text, bl_buf_str(&dump));
  bl_job_spec_dump(copy, &again);
  ck_assert_str_eq(bl_buf_str(&dump), bl_buf_str(&again));
  bl_job_spec_free(spec);
  bl_job_spec_free(copy);
  bl_buf_fini(&dump);
  bl_buf_fini(&again);
}
END_TEST

int main(void) {
  Suite *s = suite_create("job");
  TCase *tc = tcase_create("spec");
  tcase_add_loop_test(tc, every_example_is_read_and_comes_back_from_its_dump, 0, BL_COUNT_OF(examples));
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
