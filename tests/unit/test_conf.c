/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "base/file.h"
#include "conf/cluster.h"
#include "conf/doc.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bl_conf_errors errors;

static bl_cluster_conf *parse(const char *text, const char *set) {
  bl_cluster_conf *c = NULL;
  bl_status status = bl_cluster_conf_parse(text, strlen(text), "cluster.yaml", &set, set != NULL, &c, &errors);
  ck_assert_msg(status == BL_OK, "%s: %s", text, errors.n > 0 ? errors.at[0].text : bl_status_name(status));
  return c;
}

START_TEST(committed_file_equals_the_dump_of_the_defaults) {
  bl_cluster_conf *c;
  bl_buf dump = BL_BUF_INIT, file = BL_BUF_INIT;
  bl_error err;
  ck_assert_ok(bl_cluster_conf_read(NULL, NULL, 0, &c, &errors));
  bl_cluster_conf_dump(c, &dump);
  if (getenv("BALLAST_TEST_UPDATE") != NULL)
    ck_assert_ok(bl_file_write_atomic(test_source_path("conf/cluster.yaml"), dump.data, dump.size, 0644, &err));
  ck_assert_ok_err(bl_file_read(test_source_path("conf/cluster.yaml"), 1 << 20, &file, &err), err);
  ck_assert_str_eq(bl_buf_str(&file), bl_buf_str(&dump));
  bl_cluster_conf_free(c);
  ck_assert_ok(bl_cluster_conf_read(test_source_path("conf/cluster.yaml"), NULL, 0, &c, &errors));
  ck_assert(c->server.memory_auto);
  ck_assert_uint_gt(c->server.memory_bytes, 0);
  ck_assert_uint_gt(c->worker.slots, 0);
  bl_cluster_conf_free(c);
  bl_buf_fini(&dump);
  bl_buf_fini(&file);
}
END_TEST

START_TEST(values_reach_their_fields) {
  bl_cluster_conf *c = parse("connect: {coordinator: 'tcp://[fe80::1%eth0]:7000'}\n"
                             "coordinator: {listen: [\"::1\", 127.0.0.1], port: 0, lease: 5 s}\n"
                             "server: {shards: 4, memory: 8 GiB, name: s1}\n"
                             "worker: {data_roots: [/a, /b], slots: 3, http: ''}\n",
                             "server.shards=2");
  ck_assert_str_eq(c->coordinator, "tcp://[fe80::1%eth0]:7000");
  ck_assert_uint_eq(c->co.net.n_listen, 2);
  ck_assert_str_eq(c->co.net.listen[0], "::1");
  ck_assert_uint_eq(c->co.net.port, 0);
  ck_assert_uint_eq(c->co.lease_ns, UINT64_C(5000000000));
  ck_assert_uint_eq(c->server.shards, 2);
  ck_assert_uint_eq(c->server.memory_bytes, UINT64_C(8) << 30);
  ck_assert_str_eq(c->server.name, "s1");
  ck_assert_uint_eq(c->worker.n_data_roots, 2);
  ck_assert_str_eq(c->worker.data_roots[1], "/b");
  ck_assert_uint_eq(c->worker.slots, 3);
  ck_assert_str_eq(c->worker.net.http_listen, "");
  ck_assert_ptr_null(c->security.key_file);
  bl_buf dump = BL_BUF_INIT, again = BL_BUF_INIT;
  bl_cluster_conf_dump(c, &dump);
  bl_cluster_conf_free(c);
  c = parse(bl_buf_str(&dump), NULL);
  bl_cluster_conf_dump(c, &again);
  ck_assert_str_eq(bl_buf_str(&dump), bl_buf_str(&again));
  bl_cluster_conf_free(c);
  bl_buf_fini(&dump);
  bl_buf_fini(&again);
}
END_TEST

int main(void) {
  Suite *s = suite_create("conf");
  TCase *tc = tcase_create("cluster");
  tcase_add_test(tc, committed_file_equals_the_dump_of_the_defaults);
  tcase_add_test(tc, values_reach_their_fields);
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
