/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast-worker: three programs in one, so that BLAS is linked once. Without a mode it is the agent, a daemon;
 * `--task` is one rank of a job, started by the agent (worker/task.h); `--predict` applies a trained model
 * (worker/predict.h) and is what `ballast predict` becomes.
 *
 * This file is the composition root of the agent: loop, control socket, launcher, core, status pages.
 */
#include "agent.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"
#include "client/feedback.h"
#include "daemon/daemon.h"
#include "daemon/security.h"
#include "kernel/kernel.h"
#include "launcher.h"
#include "measure.h"
#include "nn/gemm.h"
#include "predict.h"
#include "status.h"
#include "task.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROLE "worker"
#define STOP_LIMIT_NS (15 * BL_NS_PER_S)
#define TICK_MS_MAX 1000
#define TASK_ARGS_MAX 280
#define RESIDUALS_KEPT_S (7 * 24 * 3600) /* of ranks that went on elsewhere */

static const char doc[] =
    "Agent of a machine that computes: runs one process per rank that the coordinator places here.\v"
    "Modes: `ballast-worker --predict --help` applies a trained model; --task and --measure are internal.";

typedef struct worker {
  bl_daemon_args args;
  bl_loop *loop;
  bl_daemon *daemon;
  bl_net *net;
  bl_socket *socket;
  bl_timer *timer;
  bl_http *http;
  wk_processes *processes;
  wk_agent *agent;
  wk_agent_config config;
  wk_status_source pages;
  const char *task_args[TASK_ARGS_MAX + 1];
  char *key_path; /* owned; NULL: no keys */
  char public_key[BL_KEY_Z85_BYTES];
  char name[65], host[65], status_url[300];
  uint64_t stop_by_ns; /* 0: not stopping */
  bool was_registered;
  int exit_code;
} worker;

/* ---- events ------------------------------------------------------------------------------------------- */

static void on_timer(void *arg);

/* After every event: what is due, and when to come back. */
static void turn(worker *w) {
  uint64_t now_ns = bl_clock_now_ns();
  uint64_t next_ns = wk_agent_tick(w->agent, now_ns);
  bool registered = wk_agent_is_registered(w->agent), for_good = false;
  if (registered && !w->was_registered)
    bl_daemon_status(w->daemon, "registered with %s", w->config.coordinator);
  w->was_registered = registered;
  const char *refusal = wk_agent_refusal(w->agent, &for_good);
  if (for_good && w->stop_by_ns == 0) {
    bl_log_error("refused_for_good", "reason=%s", BL_LOGQ(refusal));
    w->exit_code = BL_EXIT_FAILED;
    bl_loop_stop(w->loop);
    return;
  }
  if (w->stop_by_ns > 0) {
    if (wk_agent_n_processes(w->agent) == 0 || now_ns >= w->stop_by_ns)
      bl_loop_stop(w->loop);
    next_ns = BL_MIN(next_ns, w->stop_by_ns);
  }
  uint64_t wait_ms = next_ns > now_ns ? (next_ns - now_ns) / BL_NS_PER_MS + 1 : 1;
  bl_timer_start(w->timer, BL_MIN(wait_ms, TICK_MS_MAX), 0);
}

static void on_timer(void *arg) { turn(arg); }

static void on_coordinator_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  worker *w = arg;
  wk_agent_on_msg(w->agent, msg, bl_clock_now_ns());
  turn(w);
}

static void on_task_msg(uint64_t process, bl_msg *msg, void *arg) {
  worker *w = arg;
  wk_agent_on_task_msg(w->agent, process, msg, bl_clock_now_ns());
  turn(w);
}

/* Kept for the report of a crash, sent to the coordinator, and shown in this daemon's own log. */
static void on_task_output(uint64_t process, const char *bytes, size_t size, void *arg) {
  worker *w = arg;
  ssize_t unused = write(STDERR_FILENO, bytes, size);
  (void)unused;
  wk_agent_on_task_output(w->agent, process, bytes, size, bl_clock_now_ns(), bl_clock_wall_ns());
  turn(w);
}

static void on_task_exit(uint64_t process, int64_t code, int signum, void *arg) {
  worker *w = arg;
  wk_agent_on_task_exit(w->agent, process, code, signum, bl_clock_now_ns());
  turn(w);
}

static void on_stop(void *arg) {
  worker *w = arg;
  w->stop_by_ns = bl_clock_now_ns() + STOP_LIMIT_NS;
  wk_agent_stop(w->agent, "the worker is being stopped", bl_clock_now_ns());
  turn(w);
}

/* ---- building ----------------------------------------------------------------------------------------- */

static void add_task_arg(worker *w, size_t *n, const char *option, const char *value) {
  if (*n + 2 > TASK_ARGS_MAX)
    return;
  w->task_args[(*n)++] = option;
  w->task_args[(*n)++] = value;
}

static void make_task_args(worker *w) {
  const bl_cluster_conf *conf = w->args.conf;
  size_t n = 0;
  add_task_arg(w, &n, "--node", w->name);
  add_task_arg(w, &n, "--log-level", conf->log_level);
  add_task_arg(w, &n, "--kernels", conf->kernels);
  if (w->key_path != NULL)
    add_task_arg(w, &n, "--key-file", w->key_path);
  if (conf->worker.state_dir != NULL)
    add_task_arg(w, &n, "--state-dir", conf->worker.state_dir);
  for (size_t i = 0; i < conf->worker.n_data_roots; i++)
    add_task_arg(w, &n, "--data-root", conf->worker.data_roots[i]);
  for (size_t i = 0; i < conf->worker.n_output_roots; i++)
    add_task_arg(w, &n, "--output-root", conf->worker.output_roots[i]);
  w->task_args[n] = NULL;
}

static bl_status make_names(worker *w, bl_error *err) {
  const bl_cluster_conf *conf = w->args.conf;
  if (gethostname(w->host, sizeof w->host - 1) != 0)
    bl_str_copy(w->host, sizeof w->host, "localhost");
  if (conf->worker.host != NULL)
    bl_str_copy(w->host, sizeof w->host, conf->worker.host);
  const char *given = w->args.name != NULL ? w->args.name : conf->worker.name;
  return bl_daemon_node_name(given, ROLE, w->name, sizeof w->name, err);
}

static bl_status open_http(worker *w, bl_error *err) {
  const bl_listen_conf *net = &w->args.conf->worker.net;
  if (net->http_listen == NULL || net->http_listen[0] == '\0')
    return BL_OK;
  char token[BL_DAEMON_TOKEN_BYTES_MAX];
  bl_status status = bl_daemon_read_token(net, token, sizeof token, err);
  if (status == BL_OK)
    status = bl_http_open(w->loop, net->http_listen, token[0] != '\0' ? token : NULL, wk_status_pages,
                          wk_status_n_pages, &w->pages, &w->http, err);
  if (status != BL_OK)
    return status;
  bl_daemon_http_url(net, bl_http_port(w->http), w->status_url, sizeof w->status_url);
  return BL_OK;
}

static bl_status open_control(worker *w, bl_error *err) {
  const bl_cluster_conf *conf = w->args.conf;
  bl_keypair keys;
  memset(&keys, 0, sizeof keys);
  bl_status status = bl_daemon_check_coordinator(conf, err);
  if (status == BL_OK)
    status = bl_daemon_key_path(conf, ROLE, &w->key_path, err);
  if (status == BL_OK && w->key_path != NULL)
    status = bl_keys_read(w->key_path, &keys, err);
  bl_str_copy(w->public_key, sizeof w->public_key, keys.public_key);
  memset(&keys, 0, sizeof keys);
  if (status == BL_OK)
    status = bl_daemon_open_net(conf, ROLE, &w->net, err);
  bl_socket_config socket = {.kind = BL_SOCKET_DEALER,
                             .identity = w->name,
                             .server_key = w->key_path != NULL ? conf->coordinator_key : NULL,
                             .on_msg = on_coordinator_msg,
                             .arg = w};
  /* A name longer than an identity goes without one: the coordinator knows nodes by what they register as. */
  if (strlen(w->name) > BL_PEER_ID_BYTES_MAX)
    socket.identity = NULL;
  if (status == BL_OK)
    status = bl_socket_open(w->net, w->loop, &socket, &w->socket, err);
  return status == BL_OK ? bl_socket_connect(w->socket, conf->coordinator, err) : status;
}

static bl_status make_agent(worker *w, bl_error *err) {
  const bl_cluster_conf *conf = w->args.conf;
  wk_launcher_events events = {on_task_msg, on_task_output, on_task_exit, w};
  uint32_t n_swept = conf->worker.state_dir != NULL ? bl_feedback_sweep(conf->worker.state_dir, RESIDUALS_KEPT_S) : 0;
  if (n_swept > 0)
    bl_log_info("residuals_swept", "files=%u", n_swept);
  make_task_args(w);
  bl_status status = wk_processes_new(w->loop, w->task_args, &events, &w->processes, err);
  if (status != BL_OK)
    return status;
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  /* What tasks are started with; this process computes nothing itself. */
  const char *blas_core = wk_gemm_core_choice() != NULL ? wk_gemm_core_choice() : wk_gemm_core_name();
  w->config = (wk_agent_config){.name = w->name,
                                .host = w->host,
                                .rack = conf->worker.rack != NULL ? conf->worker.rack : "",
                                .incarnation = bl_clock_wall_ns(),
                                .build = bl_version_string(),
                                .blas_core = blas_core,
                                .kernel_table = bl_kernels_get()->name,
                                .status_url = w->status_url,
                                .public_key = w->public_key,
                                .slots = conf->worker.slots,
                                .cores = cores > 0 ? (uint32_t)cores : 1,
                                .coordinator = conf->coordinator,
                                .transport = bl_socket_transport(w->socket),
                                .launcher = wk_processes_launcher(w->processes)};
  status = wk_agent_new(&w->config, &w->agent, err);
  w->pages = (wk_status_source){w->agent, &w->config, bl_clock_now_ns()};
  return status;
}

static bl_status write_address_file(const worker *w, bl_error *err) {
  if (w->args.address_file == NULL)
    return BL_OK;
  json_t *o = json_pack("{s:s, s:s, s:i}", "name", w->name, "http", w->status_url, "pid", (int)getpid());
  char *text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
  json_decref(o);
  if (text == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the address file");
  bl_status status = bl_file_write_atomic(w->args.address_file, text, strlen(text), 0644, err);
  free(text);
  return status;
}

static bl_status start(worker *w, bl_error *err) {
  w->loop = bl_loop_new();
  if (w->loop == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for an event loop");
  bl_status status = make_names(w, err);
  if (status == BL_OK)
    status = bl_kernels_force(w->args.conf->kernels, err);
  if (status == BL_OK)
    status = bl_daemon_new(w->loop, on_stop, NULL, w, &w->daemon, err);
  if (status == BL_OK)
    status = bl_timer_new(w->loop, on_timer, w, &w->timer);
  if (status == BL_OK)
    status = open_http(w, err);
  if (status == BL_OK)
    status = open_control(w, err);
  if (status == BL_OK)
    status = make_agent(w, err);
  return status == BL_OK ? write_address_file(w, err) : status;
}

static void worker_fini(worker *w) {
  if (w->http != NULL)
    bl_http_close(w->http);
  wk_processes_free(w->processes);
  wk_agent_free(w->agent);
  bl_socket_close(w->socket);
  bl_timer_close(w->timer);
  bl_daemon_free(w->daemon);
  if (w->loop != NULL)
    bl_loop_free(w->loop);
  if (w->net != NULL)
    bl_net_free(w->net);
  bl_free(w->key_path);
  bl_daemon_args_fini(&w->args);
}

int main(int argc, char **argv) {
  bl_net_tune_process();
  if (argc > 1 && strcmp(argv[1], "--task") == 0)
    return wk_task_main(argc, argv);
  if (argc > 1 && strcmp(argv[1], "--predict") == 0)
    return wk_predict_main(argc, argv);
  if (argc > 1 && strcmp(argv[1], "--measure") == 0)
    return wk_measure_main();
  worker w;
  memset(&w, 0, sizeof w);
  if (!bl_daemon_parse(argc, argv, "ballast-worker", doc, &w.args))
    return w.args.exit_code;
  bl_error err = BL_ERROR_INIT;
  if (start(&w, &err) != BL_OK) {
    bl_log_error("start_failed", "reason=%s", BL_LOGQ(err.text));
    w.exit_code = bl_daemon_start_exit_code(err.status);
  } else {
    bl_log_info("started", "name=%s slots=%u coordinator=%s http=%s blas=%s kernels=%s", w.name, w.config.slots,
                w.config.coordinator, w.status_url, w.config.blas_core, w.config.kernel_table);
    bl_daemon_ready(w.daemon);
    turn(&w);
    bl_loop_run(w.loop);
    bl_log_info("stopped", "code=%d", w.exit_code);
  }
  worker_fini(&w);
  return w.exit_code;
}
