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

/* ---- mistakes ---- */

static const struct {
  const char *text;
  unsigned line;
  const char *says;
} mistakes[] = {
    {"conect: {}\n", 1, "'conect': there is no such field; did you mean 'connect'?"},
    {"server:\n  shard: 2\n", 2, "'server.shard': there is no such field; did you mean 'shards'?"},
    {"server: 3\n", 1, "'3' is not allowed here; write a mapping"},
    {"server: {shards: 0}\n", 1, "0 is out of range; allowed: 1 to 64"},
    {"server: {shards: two}\n", 1, "'two' is not allowed here; write a whole number"},
    {"server: {shards: [1]}\n", 1, "a list is not allowed here"},
    {"server: {port: 65536}\n", 1, "65536 is out of range; allowed: 0 to 65535"},
    {"server: {port: 65530, shards: 10}\n", 1, "10 shards from port 65530 on reach beyond port 65535"},
    {"server: {memory: 1 KiB}\n", 1, "1 KiB is too small; the least is 1 MiB"},
    {"server: {memory: lots}\n", 1, "write a size such as"},
    {"server: {name: 'a b'}\n", 1, "'a b' is not allowed; write letters, digits"},
    {"server: {name: -a}\n", 1, "write letters, digits"},
    {"server: {state_dir: lib}\n", 1, "'lib' is not allowed; write an absolute path"},
    {"coordinator: {lease: 3}\n", 1, "write a time with its unit"},
    {"coordinator: {lease: 1 s}\n", 1, "1.0 s is shorter than three heartbeats of 500 ms"},
    {"coordinator:\n  heartbeat: 2 s\n", 2, "3.0 s is shorter than three heartbeats of 2.0 s"},
    {"coordinator: {heartbeat: 2 h}\n", 1, "2 h is out of range; allowed: 50 ms to 1 min"},
    {"coordinator: {listen: []}\n", 1, "0 addresses; allowed: 1 to 8"},
    {"coordinator: {listen: [a, b, c, d, e, f, g, h, i]}\n", 1, "9 addresses; allowed: 1 to 8"},
    {"coordinator: {listen: '[::1]'}\n", 1, "is no host name or address"},
    {"coordinator: {listen: {a: b}}\n", 1, "a mapping is not allowed here"},
    {"coordinator: {http: 7071}\n", 1, "write HOST:PORT"},
    {"coordinator: {http: '::1:7071'}\n", 1, "write HOST:PORT"},
    {"coordinator: {http: 'localhost:70710'}\n", 1, "write HOST:PORT"},
    {"connect: {coordinator: 'localhost:7070'}\n", 1, "write tcp://HOST:PORT"},
    {"connect: {coordinator: 'tcp://localhost'}\n", 1, "write tcp://HOST:PORT"},
    {"connect: {coordinator: 'tcp://localhost:0'}\n", 1, "write tcp://HOST:PORT"},
    {"connect: {coordinator_key: short}\n", 1, "the 40 characters"},
    {"security: {insecure: yes}\n", 1, "'yes' is not allowed here; write true or false"},
    {"security: {allow_file: /a}\n", 1, "needs security.key_file too"},
    {"worker: {data_roots: [/a, b]}\n", 1, "'b' is not allowed; write absolute paths"},
    {"worker: {slots: 5000}\n", 1, "5000 is out of range; allowed: 1 to 1024"},
    {"log_level: inof\n", 1, "'inof' is not known; did you mean 'info'?"},
    {"kernels: sse9\n", 1, "(allowed: auto, scalar, avx2, avx512)"},
    {"kernels: [scalar]\n", 1, "a list is not allowed here"},
    /* YAML itself */
    {"a: [1\n", 2, "not valid YAML"},
    {"a: 1\n b: 2\n", 2, "not valid YAML"},
    {"log_level: *x\n", 1, "aliases"},
    {"log_level: &x info\n", 1, "anchors"},
    {"server: &x {}\n", 1, "anchors"},
    {"log_level: !!str info\n", 1, "tags"},
    {"? [a]\n: b\n", 1, "a field name must be a word"},
    {"- a\n", 1, "must hold fields"},
    {"text\n", 1, "must hold fields"},
    {"log_level: info\n---\nkernels: auto\n", 2, "second document"},
    {"log_level: info\nlog_level: debug\n", 2, "first given in line 1"},
    {"log_level: |\n  info\n", 1, "must stand on one line"},
    {"log_level: \"\\u2028\"\n", 1, "control character"},
    {"log_level: \"\\x9f\"\n", 1, "control character"},
    {"\xff\xfe: 1\n", 1, "not valid YAML"},
};

static bool says(unsigned line, const char *part) {
  for (size_t i = 0; i < errors.n; i++) {
    if (errors.at[i].line == line && strstr(errors.at[i].text, part) != NULL)
      return true;
  }
  return false;
}

START_TEST(mistake_is_named_with_its_line) {
  bl_cluster_conf *c = NULL;
  const char *text = mistakes[_i].text;
  ck_assert_status(bl_cluster_conf_parse(text, strlen(text), "c.yaml", NULL, 0, &c, &errors), BL_EINVAL);
  ck_assert_ptr_null(c);
  ck_assert_msg(says(mistakes[_i].line, mistakes[_i].says), "%s: expected '%s' in line %u; first of %zu is %u: %s", text,
                mistakes[_i].says, mistakes[_i].line, errors.n, errors.at[0].line, errors.at[0].text);
}
END_TEST

START_TEST(all_mistakes_of_file_and_overrides_come_at_once) {
  static const char text[] = "server: {shards: 0, nam: x}\nworker: {slots: -1}\n";
  static const char *const set[] = {"log_level=loud", "server.memory=1 KiB", "nonsense"};
  bl_cluster_conf *c = NULL;
  bl_buf out = BL_BUF_INIT;
  ck_assert_status(bl_cluster_conf_parse(text, strlen(text), "c.yaml", set, 3, &c, &errors), BL_EINVAL);
  ck_assert_uint_eq(errors.n, 6);
  bl_conf_errors_print(&errors, "c.yaml", &out);
  ck_assert_ptr_nonnull(strstr(bl_buf_str(&out), "c.yaml:2: field 'worker.slots'"));
  ck_assert_ptr_nonnull(strstr(bl_buf_str(&out), "\n--set server.memory: field 'server.memory': 1 KiB is too small"));
  bl_buf_fini(&out);
}
END_TEST

/* ---- limits ---- */

static bl_status parse_doc(const bl_buf *text) {
  bl_doc *doc = NULL;
  errors.n = 0;
  bl_status status = bl_doc_parse(bl_buf_str(text), text->size, &doc, &errors);
  bl_doc_free(doc);
  return status;
}

START_TEST(limits_of_documents_are_exact) {
  bl_buf text = BL_BUF_INIT;
  for (int over = 0; over <= 1; over++) { /* depth: the mapping at the top is the first level */
    bl_buf_clear(&text);
    bl_buf_add_str(&text, "a: ");
    for (int i = 1; i < BL_DOC_DEPTH_MAX + over; i++)
      bl_buf_add_byte(&text, '[');
    for (int i = 1; i < BL_DOC_DEPTH_MAX + over; i++)
      bl_buf_add_byte(&text, ']');
    ck_assert_status(parse_doc(&text), over ? BL_EINVAL : BL_OK);
  }
  ck_assert_ptr_nonnull(strstr(errors.at[0].text, "deeper than 32 levels"));
  for (int over = 0; over <= 1; over++) { /* the mapping, the list, its items */
    bl_buf_clear(&text);
    bl_buf_add_str(&text, "a: [");
    for (int i = 0; i < BL_DOC_NODES_MAX - 2 + over; i++)
      bl_buf_add_str(&text, "1,");
    bl_buf_add_str(&text, "]");
    ck_assert_status(parse_doc(&text), over ? BL_EINVAL : BL_OK);
  }
  ck_assert_ptr_nonnull(strstr(errors.at[0].text, "more than 100000 values"));
  for (int over = 0; over <= 1; over++) {
    bl_buf_clear(&text);
    bl_buf_add_str(&text, "a: 1 #");
    while (text.size < (size_t)BL_DOC_BYTES_MAX + (size_t)over)
      bl_buf_add_byte(&text, 'x');
    ck_assert_status(parse_doc(&text), over ? BL_EINVAL : BL_OK);
  }
  ck_assert_ptr_nonnull(strstr(errors.at[0].text, "at most 1048576"));
  bl_buf_clear(&text);
  for (int i = 0; i <= BL_DOC_KEYS_MAX; i++)
    bl_buf_printf(&text, "k%d: 1\n", i);
  ck_assert_status(parse_doc(&text), BL_OK); /* noted; the rest is read */
  ck_assert_uint_eq(errors.n, 1);
  ck_assert_ptr_nonnull(strstr(errors.at[0].text, "more than 256 fields"));
  bl_buf_fini(&text);
}
END_TEST

START_TEST(paths_of_nodes_are_as_a_person_writes_them) {
  static const char text[] = "a:\n  b: [x, {c: 1}]\n";
  bl_doc *doc;
  char path[64];
  ck_assert_ok(bl_doc_parse(text, strlen(text), &doc, NULL));
  const bl_node *b = bl_node_find(doc->root, "a.b");
  ck_assert_ptr_nonnull(b);
  ck_assert_str_eq(bl_node_path(bl_node_get(b->last, "c"), path, sizeof path), "a.b[1].c");
  ck_assert_str_eq(bl_node_path(bl_node_get(b->last, "c"), path, 5), "a.b[");
  ck_assert_ptr_null(bl_node_find(doc->root, "a.x"));
  ck_assert_ptr_null(bl_node_find(doc->root, "a.b.c"));
  bl_doc_free(doc);
}
END_TEST

START_TEST(missing_file_is_a_sentence) {
  bl_cluster_conf *c = NULL;
  ck_assert_status(bl_cluster_conf_read("/nonexistent/c.yaml", NULL, 0, &c, &errors), BL_ENOENT);
  ck_assert_uint_eq(errors.n, 1);
  ck_assert_ptr_nonnull(strstr(errors.at[0].text, "/nonexistent/c.yaml"));
}
END_TEST

START_TEST(reading_survives_the_loss_of_any_allocation) {
  static const char text[] = "server: {name: a, listen: [x, y]}\nworker: {data_roots: [/a]}\n";
  static const char *const set[] = {"server.memory=1 GiB"};
  uint64_t live = bl_alloc_get_stats().live_blocks;
  bool done = false;
  for (uint64_t n = 1; !done; n++) {
    bl_cluster_conf *c = NULL;
    bl_alloc_fail_after(n);
    bl_status status = bl_cluster_conf_parse(text, strlen(text), "c", set, 1, &c, &errors);
    bl_alloc_fail_after(0);
    done = status == BL_OK;
    ck_assert_msg(done || status == BL_ENOMEM, "%s", bl_status_name(status));
    ck_assert(done == (c != NULL));
    bl_cluster_conf_free(c);
    ck_assert_uint_eq(bl_alloc_get_stats().live_blocks, live);
    ck_assert_uint_lt(n, 10000);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("conf");
  TCase *tc = tcase_create("cluster");
  tcase_add_test(tc, committed_file_equals_the_dump_of_the_defaults);
  tcase_add_test(tc, values_reach_their_fields);
  tcase_add_loop_test(tc, mistake_is_named_with_its_line, 0, BL_COUNT_OF(mistakes));
  tcase_add_test(tc, all_mistakes_of_file_and_overrides_come_at_once);
  tcase_add_test(tc, missing_file_is_a_sentence);
  tcase_add_test(tc, reading_survives_the_loss_of_any_allocation);
  suite_add_tcase(s, tc);
  tc = tcase_create("doc");
  tcase_add_test(tc, limits_of_documents_are_exact);
  tcase_add_test(tc, paths_of_nodes_are_as_a_person_writes_them);
  suite_add_tcase(s, tc);
  return test_run(&s, 1);
}
