/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of cluster.yaml and the checks that one row cannot say. Two values depend on the machine
 * (server.memory, worker.slots): the file says "auto", the struct holds the number.
 */
#include "conf/cluster.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/num.h"
#include "base/str.h"
#include "conf/schema.h"

#include <string.h>
#include <unistd.h>

#define CONF_ARENA_BYTES_MAX ((size_t)8 << 20)
#define HOST_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%"
#define NAME_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
#define SHARDS_MAX 64 /* the documented port range of a server: 7100 to 7163 */

/* ---- what texts may look like ---- */

static bl_status check_host(const char *s) {
  return s[0] != '\0' && strlen(s) <= 253 && strspn(s, HOST_CHARS) == strlen(s) ? BL_OK : BL_EINVAL;
}

static bl_status check_name(const char *s) {
  return s[0] != '\0' && s[0] != '-' && strspn(s, NAME_CHARS) == strlen(s) ? BL_OK : BL_EINVAL;
}

static bl_status check_absolute(const char *s) {
  return s[0] == '/' ? BL_OK : BL_EINVAL;
}

/* "host:port" or "[v6]:port". */
static bl_status check_address(const char *s) {
  const char *colon = strrchr(s, ':');
  uint64_t port;
  char host[256];
  if (colon == NULL || colon == s || bl_str_to_u64(colon + 1, &port) != BL_OK || port > UINT16_MAX)
    return BL_EINVAL;
  size_t n = (size_t)(colon - s);
  bool bracketed = n > 2 && s[0] == '[' && s[n - 1] == ']';
  if (bracketed) {
    s++;
    n -= 2;
  }
  if (n >= sizeof host || (!bracketed && memchr(s, ':', n) != NULL))
    return BL_EINVAL;
  memcpy(host, s, n);
  host[n] = '\0';
  return check_host(host);
}

static bl_status check_http(const char *s) {
  return s[0] == '\0' ? BL_OK : check_address(s);
}

static bl_status check_endpoint(const char *s) {
  return bl_str_has_prefix(s, "tcp://") && !bl_str_has_suffix(s, ":0") ? check_address(s + 6) : BL_EINVAL;
}

/* Z85: 40 printable characters carry a 32-byte key. */
static bl_status check_key(const char *s) {
  static const char z85[] =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
  return strlen(s) == 40 && strspn(s, z85) == 40 ? BL_OK : BL_EINVAL;
}

/* ---- listen: an array inside of the struct ---- */

static void read_listen(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  bl_listen_conf *net = (bl_listen_conf *)(void *)((char *)r->base + f->offset);
  const char *const *items;
  size_t n;
  if (!bl_node_to_list(r, node, &items, &n))
    return;
  if (n == 0 || n > BL_CLUSTER_LISTEN_MAX) {
    bl_conf_errors_add_field(r->errors, node, "%zu addresses; allowed: 1 to %d", n, BL_CLUSTER_LISTEN_MAX);
    return;
  }
  for (size_t i = 0; i < n; i++) {
    if (check_host(items[i]) != BL_OK)
      bl_conf_errors_add_field(r->errors, node,
                               "'%.60s' is no host name or address (IPv6 without brackets, the "
                               "port stands in its own field)",
                               items[i]);
    net->listen[i] = items[i];
  }
  net->n_listen = n;
}

static void write_listen(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  const bl_listen_conf *net = (const bl_listen_conf *)(const void *)((const char *)base + f->offset);
  (void)indent;
  bl_buf_add_byte(out, ' ');
  bl_yaml_add_list(out, net->listen, net->n_listen);
  bl_buf_add_byte(out, '\n');
}

/* ---- tables ---- */

#define AT(member) .offset = offsetof(bl_cluster_conf, member)
#define HOST_ALLOWED .check = check_host, .allowed_text = "a host name or address"
#define NAME_ALLOWED .check = check_name, .max = 64, .allowed_text = "letters, digits, '.', '-' and '_'"
#define PATH_ALLOWED .check = check_absolute, .allowed_text = "an absolute path", .max = 4000

/* clang-format off */
static const bl_field connect_fields[] = {
    {.name = "coordinator", .type = BL_FIELD_TEXT, AT(coordinator), .default_text = "tcp://127.0.0.1:7070",
     .check = check_endpoint, .allowed_text = "tcp://HOST:PORT, with an IPv6 address in brackets",
     .doc = "Where servers, workers and the command reach the coordinator: tcp://HOST:PORT."},
    {.name = "coordinator_key", .type = BL_FIELD_TEXT, AT(coordinator_key), .check = check_key,
     .allowed_text = "the 40 characters that 'ballast keygen' printed",
     .example = "\"40 characters printed by ballast keygen\"",
     .doc = "Public key of the coordinator. Needed as soon as anything listens beyond loopback."},
};

static const bl_field security_fields[] = {
    {.name = "insecure", .type = BL_FIELD_BOOL, AT(security.insecure), .default_text = "false",
     .doc = "true: public addresses without keys are allowed. Only for closed laboratory networks."},
    {.name = "key_file", .type = BL_FIELD_TEXT, AT(security.key_file), PATH_ALLOWED,
     .example = "/etc/ballast/keys/%r.key",
     .doc = "Secret key, made by 'ballast keygen'; %r: coordinator, server, worker or client. Without: no encryption."},
    {.name = "allow_file", .type = BL_FIELD_TEXT, AT(security.allow_file), PATH_ALLOWED,
     .example = "/etc/ballast/allow",
     .doc = "Public keys of the peers that may connect, each with its role."},
};

#define LISTEN_FIELDS(section)                                                                               \
  {.name = "listen", .type = BL_FIELD_CUSTOM, AT(section.net), .default_text = "127.0.0.1",                  \
   .read = read_listen, .write = write_listen,                                                               \
   .doc = "Addresses or host names to listen on, at most 8. \"0.0.0.0\": every IPv4 address; \"::\":\n"      \
          "every IPv6 and IPv4 address, so not both."},                                                        \
      {.name = "advertise", .type = BL_FIELD_TEXT, AT(section.net.advertise), HOST_ALLOWED,                  \
       .example = "node1.example.org",                                                                       \
       .doc = "Host name or address that the others use. Without it: the first of listen, or the host\n"     \
              "name when that means all interfaces."}

#define HTTP_FIELDS(section, address)                                                                        \
  {.name = "http", .type = BL_FIELD_TEXT, AT(section.net.http_listen), .default_text = address,              \
   .check = check_http, .allowed_text = "HOST:PORT, or \"\" for none",                                       \
   .doc = "Address of the status pages (/status, /metrics, /healthz, /readyz); \"\" switches them off."},    \
      {.name = "http_token_file", .type = BL_FIELD_TEXT, AT(section.net.http_token_file), PATH_ALLOWED,      \
       .example = "/etc/ballast/http.token",                                                                 \
       .doc = "File with the bearer token that the status pages ask for. Required off loopback."}

static const bl_field coordinator_fields[] = {
    LISTEN_FIELDS(co),
    {.name = "port", .type = BL_FIELD_U16, AT(co.net.port), .default_text = "7070",
     .doc = "Control port. 0: any free one."},
    HTTP_FIELDS(co, "127.0.0.1:7071"),
    {.name = "state_dir", .type = BL_FIELD_TEXT, AT(co.state_dir), PATH_ALLOWED,
     .default_text = "/var/lib/ballast/coordinator", .doc = "Folder of the job and history database."},
    {.name = "heartbeat", .type = BL_FIELD_NS, AT(co.heartbeat_ns), .default_text = "500 ms", .min = 50000000,
     .max = UINT64_C(60000000000), .doc = "How often nodes report."},
    {.name = "lease", .type = BL_FIELD_NS, AT(co.lease_ns), .default_text = "3 s", .min = 200000000,
     .max = UINT64_C(600000000000),
     .doc = "A node that has not reported for this long counts as dead. At least three heartbeats."},
    {.name = "history_jobs_max", .type = BL_FIELD_U64, AT(co.history_jobs_max), .default_text = "1000",
     .min = 1,
     .max = 1000000, .doc = "Ended jobs that are remembered; the oldest are forgotten."},
    {.name = "queue_pass", .type = BL_FIELD_NS, AT(co.queue_pass_ns), .default_text = "5 min",
     .max = UINT64_C(1000000000) * 86400 * 365,
     .doc = "A job that waits for slots may be passed by smaller ones for this long after it was submitted;\n"
            "then what comes free is kept for it. 0 s: never."},
};

#define NODE_FIELDS(section)                                                                                 \
  {.name = "name", .type = BL_FIELD_TEXT, AT(section.name), NAME_ALLOWED, .example = "node1",                \
   .doc = "Name of this node, unique in the cluster, and that of its key. Without it: HOST-server or HOST-worker."},            \
      {.name = "host", .type = BL_FIELD_TEXT, AT(section.host), NAME_ALLOWED, .example = "machine1",         \
       .doc = "Machine that the node stands on, for placement. Without it: the host name."},                 \
      {.name = "rack", .type = BL_FIELD_TEXT, AT(section.rack), NAME_ALLOWED, .example = "rack1",            \
       .doc = "Rack of the machine, for placement."}

static const bl_field server_fields[] = {
    LISTEN_FIELDS(server),
    {.name = "port", .type = BL_FIELD_U16, AT(server.net.port), .default_text = "7100",
     .doc = "Port of the first shard; shard i listens on port + i. 0: any free ones."},
    HTTP_FIELDS(server, "127.0.0.1:7080"),
    NODE_FIELDS(server),
    {.name = "shards", .type = BL_FIELD_U32, AT(server.shards), .default_text = "1", .min = 1,
     .max = SHARDS_MAX,
     .doc = "Shards of this server: each is a thread with its own port and its own part of the weights."},
    {.name = "memory", .type = BL_FIELD_BYTES, AT(server.memory_bytes),
     .count_offset = offsetof(bl_cluster_conf, server.memory_auto), .has_auto = true, .default_text = "auto",
     .min = 1u << 20,
     .doc = "Memory for jobs, over all shards; more is refused at submission. auto: half of the machine's."},
    {.name = "state_dir", .type = BL_FIELD_TEXT, AT(server.state_dir), PATH_ALLOWED,
     .default_text = "/var/lib/ballast/server", .doc = "Folder for what the server keeps over a restart."},
    {.name = "log_bytes_max", .type = BL_FIELD_BYTES, AT(server.log_bytes_max), .default_text = "256 MiB",
     .min = 1u << 20, .doc = "Update log kept in memory, per shard."},
    {.name = "window", .type = BL_FIELD_BYTES, AT(server.window_bytes), .default_text = "8 MiB",
     .min = 2u << 20,
     .max = UINT64_C(1) << 31, .doc = "Bytes that one session may have on the way to a shard."},
    {.name = "hold_bytes_max", .type = BL_FIELD_BYTES, AT(server.hold_bytes_max), .default_text = "256 MiB",
     .min = 2u << 20, .doc = "Early frames held per job and shard; beyond it workers keep theirs."},
};

static const bl_field worker_fields[] = {
    HTTP_FIELDS(worker, "127.0.0.1:7090"),
    NODE_FIELDS(worker),
    {.name = "slots", .type = BL_FIELD_U32, AT(worker.slots),
     .count_offset = offsetof(bl_cluster_conf, worker.slots_auto), .has_auto = true, .default_text = "auto",
     .min = 1,
     .max = 1024, .doc = "Tasks that may run at once. auto: the number of CPUs."},
    {.name = "data_roots", .type = BL_FIELD_LIST, AT(worker.data_roots),
     .count_offset = offsetof(bl_cluster_conf, worker.n_data_roots), .check = check_absolute,
     .allowed_text = "absolute paths", .max = 64,
     .doc = "Folders below which jobs may read data. Empty: none."},
    {.name = "output_roots", .type = BL_FIELD_LIST, AT(worker.output_roots),
     .count_offset = offsetof(bl_cluster_conf, worker.n_output_roots), .check = check_absolute,
     .allowed_text = "absolute paths", .max = 64,
     .doc = "Folders below which jobs may write their models. Empty: none."},
    {.name = "state_dir", .type = BL_FIELD_TEXT, AT(worker.state_dir), PATH_ALLOWED,
     .default_text = "/var/lib/ballast/worker", .doc = "Folder for the logs of tasks, and for what their lossy pushes have left out so far."},
};
/* clang-format on */

static const bl_word log_levels[] = {{"error", 0}, {"warning", 1}, {"info", 2}, {"debug", 3}};
static const bl_word kernel_tables[] = {{"auto", 0}, {"scalar", 1}, {"avx2", 2}, {"avx512", 3}};

/* A text that must be one of a field's words: the struct keeps the word itself. */
static void read_word(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  int value = -1;
  bl_field row = *f;
  row.type = BL_FIELD_ENUM;
  row.offset = 0;
  bl_conf_reader inner = *r;
  inner.base = &value;
  if (node->kind != BL_NODE_SCALAR) {
    row.type = BL_FIELD_TEXT; /* says that a word belongs here */
    bl_schema_read_value(&inner, &row, node);
    return;
  }
  bl_schema_read_value(&inner, &row, node);
  if (value >= 0)
    *(const char **)(void *)((char *)r->base + f->offset) = bl_word_name(f->words, f->n_words, value);
}

static void write_word(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  (void)indent;
  bl_buf_printf(out, " %s\n", *(const char *const *)(const void *)((const char *)base + f->offset));
}

/* clang-format off */
static const bl_field cluster_fields[] = {
    {.name = "connect", .type = BL_FIELD_SECTION, BL_FIELDS(connect_fields),
     .doc = "Where the coordinator is."},
    {.name = "security", .type = BL_FIELD_SECTION, BL_FIELDS(security_fields),
     .doc = "Encryption and who may connect. Everything on loopback works without."},
    {.name = "coordinator", .type = BL_FIELD_SECTION, BL_FIELDS(coordinator_fields),
     .doc = "ballast-coordinator."},
    {.name = "server", .type = BL_FIELD_SECTION, BL_FIELDS(server_fields), .doc = "ballast-server."},
    {.name = "worker", .type = BL_FIELD_SECTION, BL_FIELDS(worker_fields), .doc = "ballast-worker."},
    {.name = "log_level", .type = BL_FIELD_CUSTOM, AT(log_level), .default_text = "info", BL_WORDS(log_levels),
     .read = read_word, .write = write_word, .doc = "error, warning, info or debug."},
    {.name = "kernels", .type = BL_FIELD_CUSTOM, AT(kernels), .default_text = "auto", BL_WORDS(kernel_tables),
     .read = read_word, .write = write_word,
     .doc = "Instruction set of the inner loops: auto, scalar, avx2 or avx512. All give the same bits."},
};
/* clang-format on */

const bl_field *bl_cluster_conf_fields(size_t *ret_n) {
  *ret_n = BL_COUNT_OF(cluster_fields);
  return cluster_fields;
}

/* ---- reading ---- */

static void fill_from_machine(bl_cluster_conf *c) {
  long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE),
       cpus = sysconf(_SC_NPROCESSORS_ONLN);
  if (c->server.memory_auto)
    c->server.memory_bytes =
        pages > 0 && page_bytes > 0 ? (uint64_t)pages / 2 * (uint64_t)page_bytes : UINT64_C(1) << 30;
  if (c->worker.slots_auto)
    c->worker.slots = cpus > 0 ? (uint32_t)BL_MIN(cpus, 1024) : 1;
}

static void check_together(bl_conf_reader *r, const bl_node *root, const bl_cluster_conf *c) {
  const bl_node *lease = bl_node_find(root, "coordinator.lease");
  if (lease == NULL)
    lease = bl_node_find(root, "coordinator.heartbeat");
  if (c->co.lease_ns < 3 * c->co.heartbeat_ns) {
    char a[32], b[32];
    bl_conf_errors_add(r->errors, lease, "field 'coordinator.lease': %s is shorter than three heartbeats of %s",
                       bl_str_duration(c->co.lease_ns, a, sizeof a),
                       bl_str_duration(c->co.heartbeat_ns, b, sizeof b));
  }
  if (c->server.net.port != 0 && (uint32_t)c->server.net.port + c->server.shards - 1 > UINT16_MAX) {
    const bl_node *port = bl_node_find(root, "server.port");
    bl_conf_errors_add(r->errors, port != NULL ? port : bl_node_find(root, "server.shards"),
                       "field 'server.port': %u shards from port %u on reach beyond port 65535",
                       c->server.shards, c->server.net.port);
  }
  const bl_node *allow = bl_node_find(root, "security.allow_file");
  if (c->security.allow_file != NULL && c->security.key_file == NULL)
    bl_conf_errors_add(r->errors, allow, "field 'security.allow_file': needs security.key_file too");
}

static bl_status parse_doc(const bl_doc *doc, const char *file, bl_cluster_conf **ret_conf,
                           bl_conf_errors *errors) {
  bl_cluster_conf *c = bl_calloc(1, sizeof *c);
  if (c == NULL)
    return BL_ENOMEM;
  bl_arena_init(&c->arena, CONF_ARENA_BYTES_MAX);
  bl_conf_reader r = {.arena = &c->arena, .errors = errors, .base = c};
  bl_schema_read(&r, cluster_fields, BL_COUNT_OF(cluster_fields), doc->root);
  check_together(&r, doc->root, c);
  fill_from_machine(c);
  if (file != NULL)
    c->file = bl_conf_text(&r, file);
  bl_status status = r.no_memory ? BL_ENOMEM : errors->n > 0 ? BL_EINVAL : BL_OK;
  if (status != BL_OK)
    bl_cluster_conf_free(c);
  else
    *ret_conf = c;
  return status;
}

bl_status bl_cluster_conf_parse(const char *text, size_t size, const char *file, const char *const *overrides,
                                size_t n_overrides, bl_cluster_conf **ret_conf, bl_conf_errors *errors) {
  bl_conf_errors local = {.n = 0};
  bl_doc *doc = NULL;
  if (errors == NULL)
    errors = &local;
  errors->n = 0;
  bl_status status = bl_doc_parse(text, size, &doc, errors);
  if (status != BL_OK)
    return status;
  status = bl_doc_override(doc, overrides, n_overrides, errors);
  if (status != BL_ENOMEM) /* mistakes in overrides do not hide those of the file */
    status = parse_doc(doc, file, ret_conf, errors);
  bl_doc_free(doc);
  bl_conf_errors_sort(errors);
  return status;
}

bl_status bl_cluster_conf_read(const char *path, const char *const *overrides, size_t n_overrides,
                               bl_cluster_conf **ret_conf, bl_conf_errors *errors) {
  if (path == NULL)
    return bl_cluster_conf_parse("", 0, NULL, overrides, n_overrides, ret_conf, errors);
  bl_buf text = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  bl_status status = bl_file_read(path, BL_CLUSTER_BYTES_MAX, &text, &err);
  if (status == BL_OK) {
    status =
        bl_cluster_conf_parse(bl_buf_str(&text), text.size, path, overrides, n_overrides, ret_conf, errors);
  } else if (errors != NULL) {
    errors->n = 0;
    bl_conf_errors_add(errors, NULL, "%s", err.text);
  }
  bl_buf_fini(&text);
  return status;
}

void bl_cluster_conf_free(bl_cluster_conf *conf) {
  if (conf == NULL)
    return;
  bl_arena_fini(&conf->arena);
  bl_free(conf);
}

void bl_cluster_conf_dump(const bl_cluster_conf *conf, bl_buf *out) {
  bl_buf_add_str(
      out, "# Configuration of a Ballast cluster: one file, the same on all machines. Every field stands here\n"
           "# with its default; a field that is left out takes it. Check: any daemon with --check.\n");
  bl_schema_dump(cluster_fields, BL_COUNT_OF(cluster_fields), conf, 0, true, out);
}
