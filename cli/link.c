/* SPDX-License-Identifier: Apache-2.0
 *
 * One DEALER socket on a loop of its own; requests carry numbers, answers with another number are late
 * repeats and dropped.
 */
#include "cli/link.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "conf/cluster.h"
#include "daemon/security.h"
#include "wire/control.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REPEAT_NS (UINT64_C(1) * 1000000000)
#define SAY_WAITING_AFTER_NS (UINT64_C(2) * 1000000000)

struct cli_link {
  bl_loop *loop;
  bl_net *net;
  bl_socket *socket;
  bl_timer *wake;
  bl_cluster_conf *conf;
  char address[256];
  uint64_t next_request;
  Ballast__Control__Answer *answer; /* owned; to the request that is open */
  bl_error rejected;                /* the coordinator cannot read what this command sends */
};

static void on_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  cli_link *link = arg;
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_error err = BL_ERROR_INIT;
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    bl_log_warning("bad_answer", "reason=%s", BL_LOGQ(err.text));
    return;
  }
  if (type == BL_MSG_REJECTED) {
    const Ballast__Control__Rejected *r = (const Ballast__Control__Rejected *)m;
    bl_fail(&link->rejected, BL_EPROTO,
            "the coordinator at %s refuses the request: %.300s (it speaks protocol %u to %u, this command %d to %d)",
            link->address, r->text, r->protocol_min, r->protocol_max, BL_PROTOCOL_MIN, BL_PROTOCOL_VERSION);
  }
  Ballast__Control__Answer *answer = type == BL_MSG_ANSWER ? (Ballast__Control__Answer *)m : NULL;
  if (answer != NULL && answer->request == link->next_request && link->answer == NULL)
    link->answer = answer;
  else
    bl_control_free(m);
}

static void on_wake(void *arg) {}

/* Where the cluster is described: the option, the environment, the user's file, the system's file. */
static bl_status find_cluster(const char *cluster, char **ret_path, bl_error *err) {
  if (cluster == NULL)
    cluster = getenv("BALLAST_CLUSTER");
  if (cluster != NULL && cluster[0] != '\0') {
    *ret_path = bl_strdup(cluster);
    return *ret_path != NULL ? BL_OK : bl_fail(err, BL_ENOMEM, "no memory");
  }
  static const char *const places[] = {"~/.config/ballast/client.yaml", "/etc/ballast/cluster.yaml"};
  for (size_t i = 0; i < BL_COUNT_OF(places); i++) {
    char *path;
    if (bl_path_resolve("/", places[i], &path, NULL) != BL_OK)
      continue;
    if (bl_file_exists(path)) {
      *ret_path = path;
      return BL_OK;
    }
    bl_free(path);
  }
  return bl_fail(err, BL_ENOENT,
                 "no cluster: give --cluster FILE or --cluster tcp://host:7070, set BALLAST_CLUSTER, or write "
                 "~/.config/ballast/client.yaml or /etc/ballast/cluster.yaml ('ballast run' needs none)");
}

static bl_status read_conf(cli_link *link, const char *where, bl_error *err) {
  static bl_conf_errors errors;
  char override[300];
  const char *overrides[] = {override};
  size_t n_overrides = 0;
  if (bl_str_has_prefix(where, "tcp://")) {
    snprintf(override, sizeof override, "connect.coordinator=%s", where);
    n_overrides = 1;
    where = NULL;
  }
  errors.n = 0;
  bl_status status = bl_cluster_conf_read(where, overrides, n_overrides, &link->conf, &errors);
  if (status == BL_OK)
    return BL_OK;
  bl_buf text = BL_BUF_INIT;
  bl_conf_errors_print(&errors, where != NULL ? where : "--cluster", &text);
  bl_fail(err, status, "%s", bl_buf_str(&text));
  bl_buf_fini(&text);
  return status;
}

static bl_status connect_link(cli_link *link, bl_error *err) {
  char identity[48];
  snprintf(identity, sizeof identity, "cli.%ld.%llx", (long)getpid(), (unsigned long long)bl_clock_wall_ns());
  const bl_socket_config config = {.kind = BL_SOCKET_DEALER,
                                   .identity = identity,
                                   .server_key = link->conf->coordinator_key,
                                   .on_msg = on_msg,
                                   .arg = link};
  bl_status status = bl_daemon_open_net(link->conf, "client", &link->net, err);
  if (status == BL_OK)
    status = bl_socket_open(link->net, link->loop, &config, &link->socket, err);
  if (status == BL_OK)
    status = bl_socket_connect(link->socket, link->address, err);
  return status;
}

bl_status cli_link_open(const char *cluster, cli_link **ret_link, bl_error *err) {
  cli_link *link = bl_calloc(1, sizeof *link);
  if (link == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory");
  char *where = NULL;
  bl_status status = find_cluster(cluster, &where, err);
  if (status == BL_OK)
    status = read_conf(link, where, err);
  bl_free(where);
  if (status != BL_OK)
    goto fail;
  bl_str_copy(link->address, sizeof link->address, link->conf->coordinator);
  link->loop = bl_loop_new();
  if (link->loop == NULL || bl_timer_new(link->loop, on_wake, link, &link->wake) != BL_OK) {
    status = bl_fail(err, BL_ENOMEM, "no memory for the event loop");
    goto fail;
  }
  status = connect_link(link, err);
  if (status != BL_OK)
    goto fail;
  *ret_link = link;
  return BL_OK;
fail:
  cli_link_close(link);
  return status;
}

void cli_link_close(cli_link *link) {
  if (link == NULL)
    return;
  bl_socket_close(link->socket);
  bl_timer_close(link->wake);
  if (link->loop != NULL)
    bl_loop_free(link->loop);
  bl_net_free(link->net);
  bl_cluster_conf_free(link->conf);
  bl_control_free((ProtobufCMessage *)link->answer);
  bl_free(link);
}

const char *cli_link_address(const cli_link *link) { return link->address; }

/* Sends m (whose request field was set to link->next_request) until it is answered. */
static bl_status ask_again(cli_link *link, bl_msg_type type, const ProtobufCMessage *m, bl_error *err) {
  bl_control_free((ProtobufCMessage *)link->answer);
  link->answer = NULL;
  link->rejected.status = BL_OK;
  uint64_t start = bl_clock_now_ns(), next_send = start;
  bool said = false;
  while (link->answer == NULL) {
    uint64_t now = bl_clock_now_ns();
    if (now - start > CLI_ASK_TIMEOUT_NS)
      return bl_fail(err, BL_EUNREACHABLE, "the coordinator at %s does not answer (tried for %d s)", link->address,
                     (int)(CLI_ASK_TIMEOUT_NS / BL_NS_PER_S));
    if (!said && now - start > SAY_WAITING_AFTER_NS) {
      fprintf(stderr, "ballast: waiting for the coordinator at %s\n", link->address);
      said = true;
    }
    if (now >= next_send) {
      bl_msg msg = BL_MSG_INIT;
      bl_status status = bl_control_pack(type, m, &msg);
      if (status != BL_OK)
        return bl_fail(err, status, "cannot pack the request");
      (void)bl_transport_send(bl_socket_transport(link->socket), NULL, &msg); /* repeated below anyway */
      bl_msg_fini(&msg);
      next_send = now + REPEAT_NS;
    }
    bl_loop_run_once(link->loop, 100);
    if (link->rejected.status != BL_OK)
      return bl_fail(err, link->rejected.status, "%s", link->rejected.text);
  }
  if (link->answer->status != 0)
    return bl_fail(err, -(bl_status)link->answer->status, "%s", link->answer->text);
  return BL_OK;
}

/* A type of message that a coordinator does not know it drops without a word. So whether it knows one that came after
 * version 1 is asked first, in a message that all versions have. */
static bl_status speaks(cli_link *link, unsigned version, const char *what, bl_error *err) {
  Ballast__Control__Query query = BALLAST__CONTROL__QUERY__INIT;
  uint64_t request = link->next_request;
  query.request = link->next_request = UINT64_MAX; /* of no other request */
  query.what = bl_control_text("status");
  bl_status status = ask_again(link, BL_MSG_QUERY, &query.base, err);
  link->next_request = request;
  if (status != BL_OK)
    return status;
  json_t *root = json_loads(link->answer->json, 0, NULL);
  json_int_t theirs = json_integer_value(json_object_get(root, "protocol"));
  json_decref(root);
  if (theirs >= (json_int_t)version)
    return BL_OK;
  return bl_fail(err, BL_EPROTO, "the coordinator at %s speaks protocol %lld, and %s needs %u: upgrade it", link->address,
                 (long long)theirs, what, version);
}

static bl_status ask(cli_link *link, bl_msg_type type, const ProtobufCMessage *m, bl_error *err) {
  unsigned since = bl_msg_type_since(type);
  bl_status status = since > 1 ? speaks(link, since, bl_msg_type_name(type), err) : BL_OK;
  return status == BL_OK ? ask_again(link, type, m, err) : status;
}

static bl_status ask_json(cli_link *link, Ballast__Control__Query *query, json_t **ret_json, bl_error *err) {
  query->request = ++link->next_request;
  bl_status status = ask(link, BL_MSG_QUERY, &query->base, err);
  if (status != BL_OK)
    return status;
  json_error_t json_error;
  json_t *value = json_loads(link->answer->json, 0, &json_error);
  if (value == NULL)
    return bl_fail(err, BL_EPROTO, "the coordinator's answer is not JSON: %s", json_error.text);
  if (ret_json != NULL)
    *ret_json = value;
  else
    json_decref(value);
  return BL_OK;
}

bl_status cli_link_query(cli_link *link, const char *what, uint64_t job, uint64_t since, json_t **ret_json, bl_error *err) {
  Ballast__Control__Query query = BALLAST__CONTROL__QUERY__INIT;
  query.what = bl_control_text(what);
  query.job = job;
  query.since = since;
  return ask_json(link, &query, ret_json, err);
}

bl_status cli_link_find(cli_link *link, const cli_search *what, json_t **ret_json, bl_error *err) {
  Ballast__Control__Query query = BALLAST__CONTROL__QUERY__INIT;
  query.what = bl_control_text("jobs");
  query.job = what->before;
  query.state = bl_control_text(what->state != NULL ? what->state : "");
  query.name = bl_control_text(what->name != NULL ? what->name : "");
  query.submitter = bl_control_text(what->submitter != NULL ? what->submitter : "");
  query.submitted_ns = what->submitted_ns;
  query.limit = what->limit;
  /* An old coordinator would pass over the conditions and answer with every job. */
  bool conditions = query.state[0] != '\0' || query.name[0] != '\0' || query.submitter[0] != '\0' ||
                    query.submitted_ns != 0 || query.job != 0 || query.limit != 0;
  bl_status status = conditions ? speaks(link, 2, "a search", err) : BL_OK;
  return status != BL_OK ? status : ask_json(link, &query, ret_json, err);
}

bl_status cli_link_submit(cli_link *link, const char *job_text, const char *file, uint64_t *ret_job, bl_error *err,
                          char **ret_details) {
  Ballast__Control__Submit submit = BALLAST__CONTROL__SUBMIT__INIT;
  char token[64];
  snprintf(token, sizeof token, "%lx-%llx", (unsigned long)getpid(), (unsigned long long)bl_clock_wall_ns());
  const struct passwd *user = getpwuid(getuid());
  char *copies[] = {bl_strdup(job_text), bl_strdup(file), bl_strdup(user != NULL ? user->pw_name : "")};
  bl_status status = BL_ENOMEM;
  if (copies[0] == NULL || copies[1] == NULL || copies[2] == NULL) {
    bl_fail(err, status, "no memory");
    goto out;
  }
  submit.request = ++link->next_request;
  submit.token = token;
  submit.job_text = copies[0];
  submit.file = copies[1];
  submit.submitter = copies[2];
  status = ask(link, BL_MSG_SUBMIT, &submit.base, err);
  if (status == BL_OK)
    *ret_job = link->answer->job;
  else if (link->answer != NULL && ret_details != NULL)
    *ret_details = bl_strdup(link->answer->text);
out:
  for (size_t i = 0; i < BL_COUNT_OF(copies); i++)
    bl_free(copies[i]);
  return status;
}

bl_status cli_link_cancel(cli_link *link, uint64_t job, bl_error *err) {
  Ballast__Control__Cancel cancel = BALLAST__CONTROL__CANCEL__INIT;
  cancel.request = ++link->next_request;
  cancel.job = job;
  return ask(link, BL_MSG_CANCEL, &cancel.base, err);
}

bl_status cli_link_set_priority(cli_link *link, uint64_t job, int32_t priority, bl_error *err) {
  Ballast__Control__SetPriority m = BALLAST__CONTROL__SET_PRIORITY__INIT;
  m.request = ++link->next_request;
  m.job = job;
  m.priority = priority;
  return ask(link, BL_MSG_SET_PRIORITY, &m.base, err);
}

void cli_link_pause(cli_link *link, uint64_t ns, const volatile bool *stop) {
  uint64_t end = bl_clock_now_ns() + ns;
  for (uint64_t now = bl_clock_now_ns(); now < end && !(stop != NULL && *stop); now = bl_clock_now_ns())
    bl_loop_run_once(link->loop, (int)((end - now) / BL_NS_PER_MS) + 1);
}
