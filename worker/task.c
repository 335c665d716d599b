/* SPDX-License-Identifier: Apache-2.0
 *
 * Composition root of a task process: pipe, data, model, sockets, session, trainer, in the order of a rank's
 * life. Waiting is always one function that turns the loop until something it waits for has happened.
 */
#include "task.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"
#include "ckpt/safetensors.h"
#include "client/auto_job.h"
#include "client/feedback.h"
#include "client/initial.h"
#include "daemon/daemon.h"
#include "data/shuffle.h"
#include "job/plan.h"
#include "kernel/kernel.h"
#include "metrics_message.h"
#include "model_folder.h"
#include "net/keys.h"
#include "nn/gemm.h"
#include "pipe.h"
#include "train/local_steps.h"
#include "train/sparse_input.h"
#include "train/table_dump.h"
#include "traffic.h"
#include "train/trainer.h"
#include "wire/control.h"

#include <argp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_PERIOD_MS 500
#define TRAFFIC_PERIOD_NS (5 * BL_NS_PER_S)
#define START_WAIT_NS (60 * BL_NS_PER_S)
#define FLUSH_WAIT_NS (2 * BL_NS_PER_S)
#define SESSION_RETRY_NS BL_NS_PER_S
#define ROW_WAIT_NS BL_NS_PER_S
#define IDLE_MS 1000
#define RESIDUAL_PATH_MAX 4096
#define ROOTS_MAX 64

typedef struct task_options {
  const char *data_roots[ROOTS_MAX], *output_roots[ROOTS_MAX];
  size_t n_data_roots, n_output_roots;
  const char *key_file, *node, *log_level, *kernels, *state_dir;
} task_options;

typedef struct task task;

typedef struct shard_link {
  task *t;
  uint32_t index;
  bl_socket *socket;
} shard_link;

struct task {
  task_options options;
  bl_loop *loop;
  wk_pipe *pipe;
  bl_timer *status_timer;
  bl_signal *terminate;
  /* what the agent said */
  Ballast__Control__StartTask *start; /* owned */
  Ballast__Control__JobPlan *plan;    /* the newest; owned */
  uint64_t run_view;                  /* of RunTask; 0: not yet */
  bool comes_back; /* the rank, to this worker */
  bool stop, orphaned, done; /* done: the result is the agent's, whatever comes now */
  uint64_t acknowledged;
  Ballast__Control__ReportAck *news; /* the last acknowledgement with metrics over all ranks; owned, NULL before */
  bool metrics_to_write;
  uint32_t best_epoch; /* early stopping: of the last verdict; 0: none */
  bool save_best;      /* the weights here and now are the best so far */
  uint32_t save_epoch; /* save_every: after this epoch; 0: not now */
  /* what it is made of; owned */
  bl_job_spec *spec;
  wk_dataset *train, *test;
  wk_preprocess *pre;
  bl_tensor_table *table;
  wk_model *model;
  float **held; /* local steps with streams or overlap: the servers' weights; else NULL */
  bl_net *net;
  shard_link *shards;
  bl_transport **transports;
  uint32_t n_shards;
  uint32_t *shard_of_chunk;           /* of the plan that the session was made with */
  uint64_t *rank_samples;             /* the same; NULL where all ranks have the same data */
  bl_session *session;
  wk_trainer *trainer;
  bl_initial *initial;  /* rank 0, while it brings the initial values; owned */
  char *init_file;      /* rank 0: where they are; owned, NULL: from the seed */
  uint64_t epochs_done; /* that they have behind them, where the job resumes */
  uint64_t lease_report; /* number of the newest request for samples */
  uint64_t session_view, session_next_ns, started_ns;
  /* what it says */
  Ballast__Control__TaskState state;
  uint64_t report_sequence;
  const char *waits_for;
  uint64_t traffic_ns; /* when to say next what tensors travel as */
};

/* ---- speaking ----------------------------------------------------------------------------------------- */

static void say(task *t, bl_msg_type type, const ProtobufCMessage *m) {
  bl_msg msg = BL_MSG_INIT;
  bl_status status = bl_control_pack(type, m, &msg);
  if (status == BL_OK)
    status = wk_pipe_send(t->pipe, &msg);
  if (status != BL_OK)
    bl_log_warning("agent_unreached", "type=%s status=%s", bl_msg_type_name(type), bl_status_name(status));
  bl_msg_fini(&msg);
}

static void say_status(task *t, bl_status status, const char *text, bool retryable) {
  Ballast__Control__TaskStatus m = BALLAST__CONTROL__TASK_STATUS__INIT;
  char waits_for[256] = "";
  uint64_t lead[BL_LEAD_BUCKETS];
  wk_traffic traffic;
  if (t->start == NULL)
    return;
  m.job = t->plan->job;
  m.rank = t->start->rank;
  m.incarnation = t->start->incarnation;
  m.view = t->plan->view;
  m.state = t->state;
  m.status = (uint32_t)-status;
  m.text = (char *)text;
  m.retryable = retryable;
  if (t->waits_for != NULL)
    bl_str_copy(waits_for, sizeof waits_for, t->waits_for);
  if (t->trainer != NULL) {
    wk_progress p = wk_trainer_progress(t->trainer);
    bl_session_stats s = bl_session_get_stats(t->session);
    m.clock = p.clock;
    m.epoch = p.epoch;
    m.samples = p.samples;
    m.loss = p.loss;
    m.samples_per_second = p.samples_per_second;
    m.bytes_pushed = s.bytes_pushed;
    m.bytes_pulled = s.bytes_pulled;
    m.bytes_pushed_dense = s.bytes_pushed_dense;
    m.bytes_pulled_dense = s.bytes_pulled_dense;
    m.clocks_not_finite = p.clocks_not_finite;
    if (!bl_plan_in_step(t->plan)) {
      memcpy(lead, s.lead, sizeof lead);
      m.lead = lead;
      m.n_lead = BL_LEAD_BUCKETS;
    }
    uint64_t now_ns = bl_clock_now_ns();
    if (now_ns >= t->traffic_ns || t->state == BALLAST__CONTROL__TASK_STATE__TASK_DONE) {
      wk_traffic_take(&traffic, t->table, t->session, &m);
      t->traffic_ns = now_ns + TRAFFIC_PERIOD_NS;
    }
    if (t->state == BALLAST__CONTROL__TASK_STATE__TASK_RUNNING && t->waits_for == NULL)
      wk_trainer_waits_for(t->trainer, waits_for, sizeof waits_for);
  }
  m.waits_for = waits_for;
  say(t, BL_MSG_TASK_STATUS, &m.base);
}

static void set_state(task *t, Ballast__Control__TaskState state, const char *waits_for) {
  t->state = state;
  t->waits_for = waits_for;
  say_status(t, BL_OK, "", false);
}

static void on_status_timer(void *arg) { say_status(arg, BL_OK, "", false); }

/* Sets names and number, and sends. The caller has set one body. */
static void report(task *t, Ballast__Control__Report *m) {
  m->job = t->plan->job;
  m->rank = t->start->rank;
  m->incarnation = t->start->incarnation;
  m->sequence = ++t->report_sequence;
  say(t, BL_MSG_REPORT, &m->base);
}

/* ---- listening ---------------------------------------------------------------------------------------- */

static void take_plan(task *t, const Ballast__Control__JobPlan *plan) {
  if (t->plan != NULL && (plan->job != t->plan->job || plan->view < t->plan->view))
    return;
  Ballast__Control__JobPlan *copy = (Ballast__Control__JobPlan *)bl_control_copy(&plan->base);
  if (copy == NULL)
    return; /* an update is said again */
  bl_control_free(t->plan != NULL ? &t->plan->base : NULL);
  t->plan = copy;
}

/* What came before the newest request was answered is no news. */
static void take_leases(task *t, const Ballast__Control__ReportAck *ack) {
  wk_lease leases[WK_LEASES_MAX];
  if (t->trainer == NULL || ack->sequence < t->lease_report || (ack->n_leases == 0 && !ack->exhausted))
    return;
  uint32_t n = (uint32_t)BL_MIN(ack->n_leases, WK_LEASES_MAX);
  for (uint32_t i = 0; i < n; i++) {
    const Ballast__Control__Lease *l = ack->leases[i];
    leases[i] = (wk_lease){l->first_clock, l->per_clock, l->epoch, l->first, l->end};
  }
  wk_trainer_take_leases(t->trainer, leases, n, ack->exhausted);
}

/* Early stopping. What is best is written before the next clock begins (save_models). */
static void take_verdict(task *t, const Ballast__Control__EpochVerdict *v) {
  if (v == NULL || t->trainer == NULL || !wk_trainer_take_verdict(t->trainer, v->epoch, v->stop))
    return;
  t->best_epoch = v->best_epoch;
  t->save_best = v->best_epoch == v->epoch;
}

static void take_acknowledgement(task *t, const Ballast__Control__ReportAck *ack) {
  t->acknowledged = BL_MAX(t->acknowledged, ack->sequence);
  take_leases(t, ack);
  take_verdict(t, ack->verdict);
  if (ack->metrics_csv[0] == '\0')
    return;
  ProtobufCMessage *copy = bl_control_copy(&ack->base);
  if (copy == NULL)
    return; /* a model without metrics.csv is no reason to fail */
  bl_control_free(t->news != NULL ? &t->news->base : NULL);
  t->news = (Ballast__Control__ReportAck *)copy;
  t->metrics_to_write = true;
}

static void on_agent_msg(bl_msg *msg, void *arg) {
  task *t = arg;
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_error err = BL_ERROR_INIT;
  if (bl_control_unpack(msg, &type, &m, &err) != BL_OK) {
    bl_log_warning("message_refused", "from=agent reason=%s", BL_LOGQ(err.text));
    return;
  }
  switch (type) {
  case BL_MSG_START_TASK:
    if (t->start == NULL) {
      take_plan(t, ((Ballast__Control__StartTask *)m)->plan);
      if (t->plan != NULL) { /* without memory for it the wait for a start runs out, and another attempt follows */
        t->start = (Ballast__Control__StartTask *)m;
        m = NULL;
      }
    }
    break;
  case BL_MSG_RUN_TASK:
    t->run_view = BL_MAX(t->run_view, ((Ballast__Control__RunTask *)m)->view);
    break;
  case BL_MSG_UPDATE_TASK:
    take_plan(t, ((Ballast__Control__UpdateTask *)m)->plan);
    break;
  case BL_MSG_STOP_TASK:
    bl_log_info("task_stopping", "reason=%s", BL_LOGQ(((Ballast__Control__StopTask *)m)->reason));
    t->stop = true;
    t->comes_back = ((Ballast__Control__StopTask *)m)->comes_back;
    break;
  case BL_MSG_REPORT_ACK:
    take_acknowledgement(t, (const Ballast__Control__ReportAck *)m);
    break;
  default:
    bl_log_warning("message_refused", "from=agent type=%s", bl_msg_type_name(type));
  }
  bl_control_free(m);
}

static void on_agent_end(bl_status why, const char *text, void *arg) {
  task *t = arg;
  bl_log_error("agent_gone", "status=%s reason=%s", bl_status_name(why), BL_LOGQ(text));
  t->stop = t->orphaned = true;
}

static void on_terminate(int signum, void *arg) {
  bl_log_info("task_stopping", "signal=%d", signum);
  ((task *)arg)->stop = true;
}

/* True when ready(t) became true; false when the task must stop or the time is over. limit_ns 0: none (the
 * agent watches over this process, and its end ends the wait). */
static bool wait_for(task *t, bool (*ready)(const task *t), uint64_t limit_ns) {
  uint64_t end_ns = limit_ns > 0 ? bl_clock_now_ns() + limit_ns : UINT64_MAX;
  while (!ready(t)) {
    uint64_t now_ns = bl_clock_now_ns();
    if (t->stop || now_ns >= end_ns)
      return false;
    bl_loop_run_once(t->loop, (int)BL_MIN((end_ns - now_ns) / BL_NS_PER_MS + 1, IDLE_MS));
  }
  return true;
}

static bool has_start(const task *t) { return t->start != NULL; }
static bool may_run(const task *t) { return t->run_view > 0 && t->plan->view >= t->run_view; }
static bool all_acknowledged(const task *t) { return t->acknowledged >= t->report_sequence; }
static bool all_sent(const task *t) { return wk_pipe_unsent_bytes(t->pipe) == 0; }

/* ---- preparing ---------------------------------------------------------------------------------------- */

static bl_status read_job(task *t, bl_error *err) {
  bl_conf_errors *errors = bl_calloc(1, sizeof *errors);
  if (errors == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the job file");
  const char *text = t->start->job_text;
  bl_status status = bl_job_spec_parse(text, strlen(text), "job.yaml", "/", NULL, 0, &t->spec, errors);
  if (status != BL_OK)
    bl_fail(err, status, "the job file is not understood on %s: line %u: %s", t->options.node,
            errors->n > 0 ? errors->at[0].line : 0, errors->n > 0 ? errors->at[0].text : bl_status_name(status));
  bl_free(errors);
  return status;
}

/* path: absolute. The sentence names the setting that would have to change. */
static bl_status check_root(const task *t, const char *what, const char *path, const char *setting,
                            const char *const *roots, size_t n_roots, bl_error *err) {
  char *folded = NULL;
  bl_status status = bl_path_resolve("/", path, &folded, err);
  if (status != BL_OK)
    return status;
  bool below = false;
  char list[256] = "";
  for (size_t i = 0; i < n_roots; i++) {
    below |= bl_path_is_below(folded, roots[i]);
    size_t used = strlen(list);
    snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", roots[i]);
  }
  bl_free(folded);
  if (below)
    return BL_OK;
  return bl_fail(err, BL_EACCES, "%s %s lies outside the %s of worker %s (%s)", what, path, setting, t->options.node,
                 n_roots > 0 ? list : "none are set");
}

/* What is read may lie where data does or where models are written. */
static bl_status check_init_root(const task *t, bl_error *err) {
  const task_options *o = &t->options;
  const char *path = t->spec->init.path;
  if (check_root(t, "init_from", path, "worker.output_roots", o->output_roots, o->n_output_roots, NULL) == BL_OK)
    return BL_OK;
  return check_root(t, "init_from", path, "worker.data_roots", o->data_roots, o->n_data_roots, err);
}

static bl_status check_paths(const task *t, bl_error *err) {
  const task_options *o = &t->options;
  const bl_source_spec *sources[] = {&t->spec->data.train, &t->spec->data.test};
  bl_status status = BL_OK;
  for (size_t s = 0; s < BL_COUNT_OF(sources); s++) {
    for (size_t i = 0; i < sources[s]->n_paths && status == BL_OK; i++)
      status = check_root(t, "data file", sources[s]->paths[i], "worker.data_roots", o->data_roots, o->n_data_roots, err);
  }
  if (status == BL_OK && t->spec->output != NULL)
    status = check_root(t, "output folder", t->spec->output, "worker.output_roots", o->output_roots, o->n_output_roots,
                        err);
  if (status == BL_OK && t->spec->init.path != NULL)
    status = check_init_root(t, err);
  if (status == BL_OK && t->spec->output != NULL && t->start->rank == 0)
    status = wk_model_folder_check(t->spec->output, err);
  return status;
}

static bl_status load_data(task *t, bl_error *err) {
  uint64_t n_outputs = 0, n_inputs = 1;
  bl_status status = bl_model_output_size(&t->spec->model, &n_outputs, err);
  for (size_t i = 0; i < t->spec->model.n_input_dims; i++)
    n_inputs *= t->spec->model.input[i];
  if (status == BL_OK)
    status = wk_dataset_open_train(t->spec, n_inputs, (uint32_t)n_outputs, &t->train, &t->pre, err);
  if (status == BL_OK && t->spec->data.test.kind != BL_SOURCE_NONE)
    status = wk_dataset_open(&t->spec->data.test, t->pre, true, &t->test, err);
  return status;
}

/* A folder's weights, or the file itself. With early stopping a folder has two: to go on, the last are right. */
static bl_status find_init_file(task *t, bl_error *err) {
  const char *path = t->spec->init.path;
  char last[4200];
  snprintf(last, sizeof last, "%s/last.safetensors", path);
  bool folder = !bl_str_has_suffix(path, ".safetensors");
  if (folder && !(t->spec->init.resume && bl_file_exists(last)))
    snprintf(last, sizeof last, "%s/model.safetensors", path);
  t->init_file = bl_strdup(folder ? last : path);
  if (t->init_file == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a path");
  if (!bl_file_exists(t->init_file))
    return bl_fail(err, BL_ENOENT, "init_from: there is no %s on worker %s", t->init_file, t->options.node);
  return BL_OK;
}

/* Before any work: do they fit, and how far had they come. */
static bl_status check_init(task *t, bl_error *err) {
  if (t->spec->init.path == NULL || t->start->rank != 0)
    return BL_OK;
  bl_tensor_table *table = NULL;
  char epochs[32] = "";
  bl_status status = find_init_file(t, err);
  if (status == BL_OK)
    status = bl_tensor_table_of_model(&t->spec->model, t->spec->chunk_bytes, &table, err);
  for (uint32_t i = 0; status == BL_OK && i < table->n_tensors; i++)
    if (table->tensors[i].table)
      status = bl_fail(err, BL_EUNSUPPORTED, "init_from: tensor %s is a table, whose rows are made on the servers",
                       table->tensors[i].name);
  if (status == BL_OK && bl_safetensors_read(t->init_file, table, NULL, err) != BL_OK)
    status = bl_fail_prefix(err, err->status, "init_from");
  if (status == BL_OK && t->spec->init.resume)
    status = bl_safetensors_metadata(t->init_file, "epochs", epochs, sizeof epochs, err);
  if (status == BL_OK && t->spec->init.resume && bl_str_to_u64(epochs, &t->epochs_done) != BL_OK)
    status = bl_fail(err, BL_EINVAL, "init_from: %s does not say how many epochs it has behind it: it cannot be resumed",
                     t->init_file);
  bl_tensor_table_free(table);
  return status;
}

static void report_data(task *t) {
  uint64_t n = wk_dataset_get_info(t->train).n_samples;
  uint64_t fingerprints[2] = {wk_dataset_fingerprint(t->train), 0};
  Ballast__Control__DataReport data = BALLAST__CONTROL__DATA_REPORT__INIT;
  data.train_samples = wk_train_part(n, t->spec->data.validation);
  data.validation_samples = n - data.train_samples;
  data.epochs_done = t->epochs_done;
  if (t->test != NULL) {
    data.test_samples = wk_dataset_get_info(t->test).n_samples;
    fingerprints[1] = wk_dataset_fingerprint(t->test);
  }
  uint8_t bytes[16];
  memcpy(bytes, fingerprints, sizeof bytes);
  data.fingerprint = bl_checksum(bytes, sizeof bytes);
  char detail[128];
  snprintf(detail, sizeof detail, "training set %016" PRIx64 ", test set %016" PRIx64, fingerprints[0], fingerprints[1]);
  data.detail = detail;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.data = &data;
  report(t, &m);
}

static void on_shard_msg(const bl_peer *from, bl_msg *msg, void *arg) {
  (void)from;
  shard_link *link = arg;
  if (link->t->initial != NULL)
    bl_initial_on_msg(link->t->initial, link->index, msg, bl_clock_now_ns());
  else if (link->t->session != NULL) /* a shard that speaks before it is spoken to */
    bl_session_on_msg(link->t->session, link->index, msg, bl_clock_now_ns());
}

static bl_status open_net(task *t, bl_error *err) {
  bl_net_config config;
  memset(&config, 0, sizeof config);
  bl_status status = BL_OK;
  if (t->options.key_file != NULL)
    status = bl_keys_read(t->options.key_file, &config.keys, err);
  return status == BL_OK ? bl_net_new(&config, &t->net, err) : status;
}

static bl_status open_shard(task *t, uint32_t i, bl_error *err) {
  const Ballast__Control__ShardRef *ref = t->plan->shards[i];
  char identity[BL_PEER_ID_BYTES_MAX];
  snprintf(identity, sizeof identity, "j%" PRIu64 ".r%u.i%u", t->plan->job, t->start->rank, t->start->incarnation);
  t->shards[i] = (shard_link){t, i, NULL};
  bl_socket_config config = {.kind = BL_SOCKET_DEALER,
                             .identity = identity,
                             .server_key = ref->public_key[0] != '\0' ? ref->public_key : NULL,
                             .on_msg = on_shard_msg,
                             .arg = &t->shards[i]};
  bl_status status = bl_socket_open(t->net, t->loop, &config, &t->shards[i].socket, err);
  if (status == BL_OK)
    status = bl_socket_connect(t->shards[i].socket, ref->endpoint, err);
  if (status == BL_OK)
    t->transports[i] = bl_socket_transport(t->shards[i].socket);
  return status;
}

static bl_status connect_shards(task *t, bl_error *err) {
  bl_status status = open_net(t, err);
  if (status != BL_OK)
    return status;
  t->shards = bl_calloc(t->plan->n_shards, sizeof *t->shards);
  t->transports = bl_calloc(t->plan->n_shards, sizeof(bl_transport *));
  if (t->shards == NULL || t->transports == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for %zu shards", t->plan->n_shards);
  for (; t->n_shards < t->plan->n_shards && status == BL_OK; t->n_shards++)
    status = open_shard(t, t->n_shards, err);
  return status;
}

static uint64_t now_ns(void *arg) {
  (void)arg;
  return bl_clock_now_ns();
}

static bl_status make_session(task *t, bl_error *err) {
  t->shard_of_chunk = bl_malloc(t->plan->n_chunk_shards * sizeof *t->shard_of_chunk);
  if (t->shard_of_chunk == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the placement of %zu chunks", t->plan->n_chunk_shards);
  memcpy(t->shard_of_chunk, t->plan->chunk_shards, t->plan->n_chunk_shards * sizeof *t->shard_of_chunk);
  bl_auto_tensor *adapting = bl_calloc(t->table->n_tensors, sizeof *adapting);
  if (adapting == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the codecs of %u tensors", t->table->n_tensors);
  (void)bl_auto_tensors_of_job(t->spec, t->table, adapting);
  bl_session_config config = {.job = t->plan->job,
                              .rank = t->start->rank,
                              .world = t->plan->world,
                              .incarnation = t->start->incarnation,
                              .view = t->plan->view,
                              .seed = t->plan->seed,
                              .start_clock = t->plan->start_clock,
                              .epoch_clocks = t->plan->epoch_clocks,
                              .adapts = t->plan->adapts,
                              .adapting = adapting,
                              .takes_sparse = strcmp(t->plan->optimizer->name, "sgd") == 0,
                              .now_ns = now_ns,
                              .same_again = bl_plan_in_step(t->plan) && !bl_job_steps_have_state(t->spec),
                              .table = t->table,
                              .clip_global_norm = t->plan->clip_global_norm,
                              .shard_of_chunk = t->shard_of_chunk,
                              .n_shards = t->n_shards,
                              .shards = t->transports,
                              .caches_keys = t->plan->key_cache_bytes > 0,
                              .skips = t->plan->not_finite == BL_NOT_FINITE_SKIP,
                              .free_running = !bl_plan_in_step(t->plan),
                              .retry_ns = SESSION_RETRY_NS,
                              .weights = t->held != NULL ? t->held : wk_model_params(t->model)};
  char residuals[RESIDUAL_PATH_MAX];
  if (t->options.state_dir != NULL)
    (void)!bl_file_make_dirs(t->options.state_dir, 0755, NULL); /* then residuals are in memory, and the log says so */
  if (t->options.state_dir != NULL &&
      (size_t)snprintf(residuals, sizeof residuals, "%s/" BL_FEEDBACK_FILE_PREFIX "%" PRIu64 ".%u", t->options.state_dir, t->plan->job,
                       t->start->rank) < sizeof residuals)
    config.residual_path = residuals;
  bl_status status = bl_session_new(&config, &t->session, err);
  bl_free(adapting);
  t->session_view = t->plan->view;
  return status;
}

/* Between layers: what came in, what is to be repeated, a new view. */
static void serve(task *t, int wait_ms) {
  bl_loop_run_once(t->loop, wait_ms);
  uint64_t now_ns = bl_clock_now_ns();
  if (t->plan->view > t->session_view) {
    t->session_view = t->plan->view;
    bl_session_set_view(t->session, t->session_view, now_ns);
    t->session_next_ns = 0;
  }
  if (now_ns >= t->session_next_ns)
    t->session_next_ns = bl_session_tick(t->session, now_ns);
}

static void poll_of_trainer(void *arg) { serve(arg, 0); }

static void on_epoch(const wk_epoch_result *r, void *arg) {
  wk_metrics_message train, validation, test;
  wk_metrics_message_init(&train, &r->train, true);
  wk_metrics_message_init(&validation, &r->validation, true);
  wk_metrics_message_init(&test, &r->test, true);
  Ballast__Control__EpochReport epoch = BALLAST__CONTROL__EPOCH_REPORT__INIT;
  epoch.epoch = r->epoch;
  epoch.clock = r->clock;
  epoch.train = &train.m;
  epoch.validation = r->validation.n > 0 ? &validation.m : NULL;
  epoch.test = r->test.n > 0 ? &test.m : NULL;
  epoch.seconds = r->seconds;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.epoch = &epoch;
  report(arg, &m);
  wk_metrics_message_fini(&train);
  wk_metrics_message_fini(&validation);
  wk_metrics_message_fini(&test);
  task *t = arg;
  if (t->spec->save_every > 0 && r->epoch % t->spec->save_every == 0 && r->epoch < t->spec->epochs)
    t->save_epoch = r->epoch;
}

static void on_lease_wanted(uint64_t clock, double samples_per_second, void *arg) {
  task *t = arg;
  Ballast__Control__LeaseRequest lease = BALLAST__CONTROL__LEASE_REQUEST__INIT;
  lease.clock = clock;
  lease.samples_per_second = samples_per_second;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.lease = &lease;
  report(t, &m);
  t->lease_report = t->report_sequence;
}

static void on_moments_lost(uint64_t clock, void *arg) {
  task *t = arg;
  bl_log_warning("moments_lost", "job=%" PRIu64 " rank=%u clock=%" PRIu64 " reason=%s", t->plan->job, t->start->rank, clock,
                 BL_LOGQ("local steps: what the optimizer had accumulated, and the rank not exchanged yet, was lost with the task before"));
}

/* The table comes from the job file, which knows what belongs to which layer; the plan's, by which the shards
 * work, must be the same. */
static bl_status make_table(task *t, bl_error *err) {
  bl_tensor_table *planned = NULL;
  bl_status status = bl_tensor_table_of_job(t->spec, &t->table, err);
  if (status == BL_OK)
    status = bl_plan_table(t->plan, &planned, err);
  if (status != BL_OK)
    return status;
  bool same = planned->n_tensors == t->table->n_tensors && planned->n_chunks == t->table->n_chunks &&
              planned->chunk_elems == t->table->chunk_elems;
  for (uint32_t i = 0; same && i < planned->n_tensors; i++)
    same = strcmp(planned->tensors[i].name, t->table->tensors[i].name) == 0 &&
           planned->tensors[i].n_elems == t->table->tensors[i].n_elems &&
           planned->tensors[i].table == t->table->tensors[i].table;
  for (uint32_t i = 0; same && i < planned->n_tensors; i++) /* how they travel must be what the shards expect */
    t->table->tensors[i].policy = planned->tensors[i].policy;
  bl_tensor_table_free(planned);
  bl_tensor_table_set_streams(t->table, t->plan->streams, t->plan->clocks);
  return same ? bl_plan_check(t->plan, t->table, err)
              : bl_fail(err, BL_EMISMATCH, "the plan's tensors are not those of the job file: another version of Ballast?");
}

/* How many samples each rank has, where: local. The plan that says it may be replaced while the trainer works. */
static bl_status take_rank_samples(task *t, bl_error *err) {
  if (t->spec->data.where != BL_DATA_LOCAL)
    return BL_OK;
  if (t->plan->n_rank_samples != t->plan->world)
    return bl_fail(err, BL_EMISMATCH, "the plan does not say how many samples each rank has: another version of Ballast?");
  t->rank_samples = bl_malloc(t->plan->world * sizeof *t->rank_samples);
  if (t->rank_samples == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the samples of %u ranks", t->plan->world);
  memcpy(t->rank_samples, t->plan->rank_samples, t->plan->world * sizeof *t->rank_samples);
  return BL_OK;
}

static bl_status read_initial(task *t, bl_error *err) {
  float *const *params = wk_model_params(t->model);
  bl_status status = bl_safetensors_read(t->init_file, t->table, params, err);
  for (uint32_t i = 0; i < t->table->n_tensors && status == BL_OK; i++)
    if (!bl_kernels_get()->all_finite(params[i], t->table->tensors[i].n_elems))
      status = bl_fail(err, BL_ENOTFINITE, "%s: tensor %s holds a NaN or infinity", t->init_file, t->table->tensors[i].name);
  return status == BL_OK ? BL_OK : bl_fail_prefix(err, status, "init_from");
}

/* Rank 0 reads the weights that the job starts from, and the shards get them; then the session begins as any other. */
static bl_status bring_initial(task *t, bl_error *err) {
  if (!t->plan->initial || t->start->rank != 0)
    return BL_OK;
  bl_initial_config config = {.job = t->plan->job,
                              .incarnation = t->start->incarnation,
                              .view = t->plan->view,
                              .table = t->table,
                              .shard_of_chunk = t->shard_of_chunk,
                              .n_shards = t->n_shards,
                              .shards = t->transports,
                              .retry_ns = SESSION_RETRY_NS,
                              .values = wk_model_params(t->model)};
  bl_status status = read_initial(t, err);
  if (status == BL_OK)
    status = bl_initial_new(&config, &t->initial, err);
  t->waits_for = "the shards to take the initial weights";
  while (status == BL_OK && !t->stop && !bl_initial_is_done(t->initial)) {
    uint64_t now_ns = bl_clock_now_ns();
    bl_initial_set_view(t->initial, t->plan->view, now_ns);
    uint64_t next_ns = bl_initial_tick(t->initial, now_ns);
    bl_loop_run_once(t->loop, next_ns > now_ns ? (int)BL_MIN((next_ns - now_ns) / BL_NS_PER_MS + 1, IDLE_MS) : 0);
    status = bl_initial_status(t->initial, err);
  }
  t->waits_for = NULL;
  bl_initial_free(t->initial);
  t->initial = NULL;
  return status;
}

static bl_status build(task *t, bl_error *err) {
  bl_status status = make_table(t, err);
  if (status == BL_OK)
    status = take_rank_samples(t, err);
  if (status == BL_OK)
    status = wk_model_new(&t->spec->model, t->spec->loss, t->table, wk_trainer_batch_max(t->spec, t->plan->world), true,
                          &t->model, err);
  if (status == BL_OK && bl_job_holds_weights(t->spec) && (t->held = wk_held_weights_new(t->table)) == NULL)
    status = bl_fail(err, BL_ENOMEM, "no memory for the servers' weights beside the rank's own (streams, overlap)");
  if (status == BL_OK)
    status = connect_shards(t, err);
  if (status == BL_OK)
    status = make_session(t, err);
  if (status != BL_OK)
    return status;
  wk_trainer_config config = {.spec = t->spec,
                              .rank = t->start->rank,
                              .world = t->plan->world,
                              .in_step = bl_plan_in_step(t->plan),
                              .rank_samples = t->rank_samples,
                              .table = t->table,
                              .held = t->held,
                              .model = t->model,
                              .train = t->train,
                              .test = t->test,
                              .squared_error_factor = wk_preprocess_target_variance(t->pre),
                              .session = t->session,
                              .clips_locally = bl_plan_clips_locally(t->plan, t->table),
                              .start_clock = t->plan->start_clock,
                              .waits_for_verdict = t->spec->stop.metric != NULL,
                              .env = {now_ns, poll_of_trainer, on_epoch, on_lease_wanted, on_moments_lost, t}};
  status = bring_initial(t, err);
  return status == BL_OK && !t->stop ? wk_trainer_new(&config, &t->trainer, err) : status;
}

/* ---- working ------------------------------------------------------------------------------------------ */

/* Until a message comes or something is to be repeated. */
static void serve_waiting(task *t) {
  uint64_t now_ns = bl_clock_now_ns();
  /* What was sent last has its own time to be repeated. */
  t->session_next_ns = bl_session_tick(t->session, now_ns);
  uint64_t left_ms = t->session_next_ns > now_ns ? (t->session_next_ns - now_ns) / BL_NS_PER_MS + 1 : 0;
  serve(t, (int)BL_MIN(left_ms, IDLE_MS));
}

/* Epochs that lie before this job. Not what the folder says: it may be the one that is written to meanwhile. */
static uint64_t first_epochs(const task *t) {
  uint64_t per_epoch = t->plan->clocks / t->spec->epochs;
  return per_epoch > 0 ? t->plan->start_clock / per_epoch : 0;
}

/* What the coordinator has added up, into the output folder. The model is whole without these files: a failure is told,
 * not more. */
static void write_metrics(task *t) {
  if (!t->metrics_to_write || t->start->rank != 0 || t->spec->output == NULL)
    return;
  t->metrics_to_write = false;
  bl_error err = BL_ERROR_INIT;
  bl_status status = wk_model_folder_write_metrics(t->spec->output, t->news->metrics_csv, first_epochs(t), &err);
  for (size_t i = 0; i < t->news->n_files && status == BL_OK; i++)
    status = wk_model_folder_write_text(t->spec->output, t->news->files[i]->name, t->news->files[i]->text, &err);
  if (status != BL_OK)
    bl_log_warning("metrics_lost", "reason=%s", BL_LOGQ(err.text));
}

/* The epoch of the last row of metrics.csv; 0: it has none. */
static uint64_t epochs_told(const task *t) {
  const char *csv = t->news != NULL ? t->news->metrics_csv : "";
  uint64_t epoch = 0;
  for (const char *end; (end = strchr(csv, '\n')) != NULL && end[1] != '\0'; csv = end + 1)
    epoch = strtoull(end + 1, NULL, 10);
  return epoch;
}

/* A job that is stopped behind a save goes on from there, so its epochs should have their rows by then: the other ranks
 * are given a moment to finish theirs. Not longer: the coordinator may be away. */
static void wait_for_row(task *t, uint64_t epoch) {
  uint64_t end_ns = bl_clock_now_ns() + ROW_WAIT_NS;
  t->waits_for = "the other ranks to end the epoch that is to be saved";
  while (!t->stop && epochs_told(t) < epoch && bl_clock_now_ns() < end_ns)
    serve_waiting(t);
  t->waits_for = NULL;
  write_metrics(t);
}

static bool writes_output(const task *t) { return t->start->rank == 0 && t->spec->output != NULL; }

/* Reads the table of a sparse model from the shards. ret_tables: [n_tensors], all zero. */
static bl_status read_table(task *t, uint32_t tensor, bl_saved_rows *ret_tables, bl_error *err) {
  wk_table_dump dump;
  wk_table_dump_init(&dump, bl_table_width(&t->table->tensors[tensor]));
  uint64_t version = bl_session_weights_version(t->session);
  t->waits_for = "the rows of the table";
  bl_status status = bl_session_dump_rows(t->session, tensor, version, wk_table_dump_on_rows, &dump, bl_clock_now_ns());
  while (status == BL_OK && !t->stop && !bl_session_dump_is_done(t->session)) {
    serve_waiting(t);
    status = bl_session_status(t->session, err);
  }
  t->waits_for = NULL;
  if (status == BL_OK && !t->stop)
    status = wk_table_dump_finish(&dump, &ret_tables[tensor]);
  if (status == BL_ENOMEM)
    bl_fail(err, status, "no memory for the rows of %s", t->table->tensors[tensor].name);
  wk_table_dump_fini(&dump);
  return status;
}

/* Rank 0 reads the whole table, for the checksum and the folder; the others have not looked. */
static bl_status take_weights(task *t, bl_saved_rows *tables, uint64_t *ret_xxh3, bl_error *err) {
  uint32_t tensor = wk_sparse_tensor(t->table);
  bl_status status = BL_OK;
  *ret_xxh3 = 0;
  if (tensor != UINT32_MAX && t->start->rank != 0)
    return BL_OK;
  if (tensor != UINT32_MAX)
    status = read_table(t, tensor, tables, err);
  if (status != BL_OK || t->stop)
    return status;
  status = bl_weights_checksum_tables(t->table, wk_model_params(t->model), tables, ret_xxh3);
  return status == BL_OK ? BL_OK : bl_fail(err, status, "cannot compute the checksum of the weights");
}

/* [n_tensors], all zero; NULL: no memory. */
static bl_saved_rows *new_tables(const task *t) {
  return bl_calloc((size_t)t->table->n_tensors + 1, sizeof(bl_saved_rows));
}

static void free_tables(const task *t, bl_saved_rows *tables) {
  for (uint32_t i = 0; tables != NULL && i < t->table->n_tensors; i++)
    bl_saved_rows_fini(&tables[i]);
  bl_free(tables);
}

/* The model as it is now. tables: [n_tensors], all zero; they are filled, and in *ret_trained. The checksum is 0 where this
 * rank has not looked. BL_ECANCELLED: the task is to stop. */
static bl_status describe(task *t, bl_saved_rows *tables, wk_trained *ret_trained, bl_error *err) {
  const wk_epoch_result *last = wk_trainer_last_epoch(t->trainer);
  if (tables == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the weights");
  *ret_trained = (wk_trained){.spec = t->spec,
                              .pre = t->pre,
                              .table = t->table,
                              .params = wk_model_params(t->model),
                              .tables = tables,
                              .clocks = last->clock,
                              .epochs = last->epoch,
                              .job = t->plan->job};
  bl_status status = take_weights(t, tables, &ret_trained->weights_xxh3, err);
  return status == BL_OK && t->stop ? bl_fail(err, BL_ECANCELLED, "the task is being stopped") : status;
}

/* Between an epoch and the next: the best model so far, or every so many epochs the newest. A full disk costs no training:
 * the job goes on with what was saved before, and says so. */
static void save_models(task *t) {
  bool best = t->save_best, newest = t->save_epoch != 0;
  uint64_t epoch = t->save_epoch;
  bool stops = t->spec->stop.metric != NULL;
  t->save_best = false;
  t->save_epoch = 0;
  if ((!best && !newest) || !writes_output(t))
    return;
  wait_for_row(t, epoch);
  wk_trained trained;
  bl_error err = BL_ERROR_INIT;
  bl_saved_rows *tables = new_tables(t);
  bl_status status = describe(t, tables, &trained, &err);
  if (status == BL_OK && best)
    status = wk_model_folder_write(t->spec->output, &trained, &err);
  if (status == BL_OK && newest)
    status = stops ? wk_model_folder_write_last(t->spec->output, &trained, &err)
                   : wk_model_folder_write(t->spec->output, &trained, &err);
  free_tables(t, tables);
  if (status == BL_ECANCELLED)
    return;
  if (status != BL_OK)
    bl_log_error("model_not_saved", "epoch=%" PRIu64 " reason=%s", trained.epochs, BL_LOGQ(err.text));
  else
    bl_log_info("model_saved", "epoch=%" PRIu64 " best=%d output=%s", trained.epochs, best, BL_LOGQ(t->spec->output));
}

static bl_status train(task *t, bl_error *err) {
  wk_turn turn = WK_TURN_WORKED;
  while (!t->stop && turn != WK_TURN_DONE && turn != WK_TURN_FAILED) {
    if (turn == WK_TURN_WAITS)
      serve_waiting(t);
    else
      serve(t, 0);
    write_metrics(t);
    save_models(t);
    turn = wk_trainer_turn(t->trainer);
  }
  return turn == WK_TURN_FAILED ? wk_trainer_status(t->trainer, err) : BL_OK;
}

/* Microseconds of a mean clock by phase. */
static void log_phases(const wk_progress *p) {
  char text[256] = "";
  size_t used = 0;
  for (int i = 0; i < WK_PHASE_COUNT && p->samples > 0 && used < sizeof text; i++)
    used += (size_t)snprintf(text + used, sizeof text - used, " %s_us=%.0f", wk_phase_name((wk_phase)i),
                             (double)p->phase_ns[i] / 1e3 / (double)p->clocks);
  bl_log_info("trained", "clocks=%" PRIu64 "%s", p->clock, text);
}

/* The best epoch's model stands there since its verdict, unless rank 0 has moved to a machine that does not see it. */
static bool best_is_there(const task *t) {
  wk_saved saved;
  bl_error err = BL_ERROR_INIT;
  bl_status status = wk_model_folder_saved(t->spec->output, "model.safetensors", &saved, &err);
  if (status == BL_OK && saved.job == t->plan->job && saved.epochs == t->best_epoch)
    return true;
  bl_log_warning("best_model_lost", "epoch=%u reason=%s", t->best_epoch,
                 BL_LOGQ(status != BL_OK ? err.text : "the folder holds another epoch's"));
  return false;
}

static bl_status write_output(task *t, const wk_trained *trained, bl_error *err) {
  const char *dir = t->spec->output;
  if (t->spec->stop.metric == NULL) {
    bl_status status = wk_model_folder_write(dir, trained, err);
    if (status == BL_OK)
      wk_model_folder_drop_last(dir);
    return status;
  }
  bl_status status = wk_model_folder_write_last(dir, trained, err);
  if (status != BL_OK || (t->best_epoch != 0 && best_is_there(t)))
    return status;
  return wk_model_folder_write(dir, trained, err);
}

static bl_status finish(task *t, bl_error *err) {
  const wk_epoch_result *last = wk_trainer_last_epoch(t->trainer);
  wk_progress p = wk_trainer_progress(t->trainer);
  log_phases(&p);
  bl_session_stats s = bl_session_get_stats(t->session); /* of training: before a table is read */
  wk_trained trained;
  bl_saved_rows *tables = new_tables(t);
  bl_status status = describe(t, tables, &trained, err);
  bool writes = writes_output(t);
  if (status == BL_OK && writes)
    status = write_output(t, &trained, err);
  free_tables(t, tables);
  if (status != BL_OK)
    return status == BL_ECANCELLED ? BL_OK : status;
  wk_metrics_message train, validation, test;
  wk_metrics_message_init(&train, &last->train, false);
  wk_metrics_message_init(&validation, &last->validation, false);
  wk_metrics_message_init(&test, &last->test, false);
  Ballast__Control__DoneReport done = BALLAST__CONTROL__DONE_REPORT__INIT;
  done.clocks = p.clock;
  done.samples = p.samples;
  done.seconds = (double)(bl_clock_now_ns() - t->started_ns) / 1e9;
  done.weights_xxh3 = trained.weights_xxh3;
  done.output = writes ? (char *)t->spec->output : (char *)"";
  done.train = &train.m;
  done.validation = &validation.m;
  done.test = &test.m;
  done.bytes_pushed = s.bytes_pushed;
  done.bytes_pulled = s.bytes_pulled;
  done.bytes_pushed_dense = s.bytes_pushed_dense;
  done.bytes_pulled_dense = s.bytes_pulled_dense;
  Ballast__Control__Report m = BALLAST__CONTROL__REPORT__INIT;
  m.done = &done;
  report(t, &m);
  wk_metrics_message_fini(&train);
  wk_metrics_message_fini(&validation);
  wk_metrics_message_fini(&test);
  t->done = true;
  t->waits_for = "the coordinator to store the result";
  wait_for(t, all_acknowledged, 0);
  write_metrics(t);
  return BL_OK;
}

static bl_status live(task *t, bl_error *err) {
  if (!wait_for(t, has_start, START_WAIT_NS))
    return t->stop ? BL_OK : bl_fail(err, BL_ETIMEOUT, "the agent did not say what to do");
  set_state(t, BALLAST__CONTROL__TASK_STATE__TASK_LOADING, NULL);
  wk_gemm_set_threads(t->start->blas_threads > 0 ? t->start->blas_threads : 1);
  /* The job's table, or else what this worker is set to; the bits are the same. */
  const char *asked = t->start->kernel_table;
  bool job_asks = asked[0] != '\0' && strcmp(asked, "auto") != 0;
  bl_status status = bl_kernels_force(job_asks ? asked : t->options.kernels, err);
  if (status == BL_OK)
    status = read_job(t, err);
  if (status == BL_OK)
    status = check_paths(t, err);
  if (status == BL_OK)
    status = check_init(t, err);
  if (status == BL_OK)
    status = load_data(t, err);
  if (status != BL_OK)
    return status;
  report_data(t);
  set_state(t, BALLAST__CONTROL__TASK_STATE__TASK_READY, "all ranks to be ready");
  if (!wait_for(t, may_run, 0))
    return BL_OK;
  t->started_ns = bl_clock_now_ns();
  status = build(t, err);
  if (status != BL_OK)
    return status;
  set_state(t, BALLAST__CONTROL__TASK_STATE__TASK_RUNNING, NULL);
  status = train(t, err);
  if (status == BL_OK && !t->stop)
    status = finish(t, err);
  return status;
}

/* What another attempt on another machine, or a little later, may cure. */
static bool is_retryable(bl_status status) {
  return status == BL_ENOMEM || status == BL_EUNREACHABLE || status == BL_ETIMEOUT || status == BL_EINCARNATION;
}

/* ---- life --------------------------------------------------------------------------------------------- */

static bl_status open_ends(task *t, bl_error *err) {
  t->loop = bl_loop_new();
  if (t->loop == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for an event loop");
  bl_status status = wk_pipe_open(t->loop, WK_TASK_FD, on_agent_msg, on_agent_end, t, &t->pipe, err);
  if (status == BL_OK)
    status = bl_signal_new(t->loop, SIGTERM, on_terminate, t, &t->terminate);
  if (status == BL_OK)
    status = bl_timer_new(t->loop, on_status_timer, t, &t->status_timer);
  if (status == BL_OK)
    bl_timer_start(t->status_timer, STATUS_PERIOD_MS, STATUS_PERIOD_MS);
  return status;
}

static void task_fini(task *t) {
  wk_trainer_free(t->trainer);
  if (t->session != NULL && (t->done || (t->stop && !t->comes_back && !t->orphaned)))
    bl_session_remove_residuals(t->session);
  bl_session_free(t->session);
  bl_initial_free(t->initial);
  for (uint32_t i = 0; i < t->n_shards; i++)
    bl_socket_close(t->shards[i].socket);
  bl_control_free(t->news != NULL ? &t->news->base : NULL);
  bl_free(t->init_file);
  bl_free(t->shards);
  bl_free(t->transports);
  bl_free(t->shard_of_chunk);
  bl_free(t->rank_samples);
  bl_timer_close(t->status_timer);
  if (t->terminate != NULL)
    bl_signal_close(t->terminate);
  wk_pipe_close(t->pipe);
  if (t->loop != NULL)
    bl_loop_free(t->loop);
  if (t->net != NULL)
    bl_net_free(t->net);
  wk_model_free(t->model);
  if (t->held != NULL)
    wk_held_weights_free(t->held, t->table);
  bl_tensor_table_free(t->table);
  wk_dataset_free(t->train);
  wk_dataset_free(t->test);
  wk_preprocess_free(t->pre);
  bl_job_spec_free(t->spec);
  bl_control_free(t->plan != NULL ? &t->plan->base : NULL);
  bl_control_free(t->start != NULL ? &t->start->base : NULL);
}

static int end(task *t, bl_status status, const bl_error *err) {
  t->waits_for = NULL;
  t->state = status != BL_OK        ? BALLAST__CONTROL__TASK_STATE__TASK_FAILED
             : t->stop && !t->done  ? BALLAST__CONTROL__TASK_STATE__TASK_STOPPED
                             : BALLAST__CONTROL__TASK_STATE__TASK_DONE;
  if (status != BL_OK)
    bl_log_error("task_failed", "reason=%s", BL_LOGQ(err->text));
  if (t->pipe != NULL && !t->orphaned) {
    say_status(t, status, err->text, is_retryable(status));
    bool was_stopped = t->stop;
    t->stop = false;
    wait_for(t, all_sent, FLUSH_WAIT_NS);
    t->stop = was_stopped;
  }
  return status == BL_OK ? BL_EXIT_OK : BL_EXIT_FAILED;
}

enum { OPT_TASK = 256, OPT_DATA_ROOT, OPT_OUTPUT_ROOT, OPT_KEY_FILE, OPT_NODE, OPT_LOG_LEVEL, OPT_KERNELS, OPT_STATE_DIR };

static const struct argp_option option_table[] = {
    {"task", OPT_TASK, NULL, 0, NULL, 0},
    {"data-root", OPT_DATA_ROOT, "DIR", 0, NULL, 0},
    {"output-root", OPT_OUTPUT_ROOT, "DIR", 0, NULL, 0},
    {"key-file", OPT_KEY_FILE, "FILE", 0, NULL, 0},
    {"node", OPT_NODE, "NAME", 0, NULL, 0},
    {"log-level", OPT_LOG_LEVEL, "LEVEL", 0, NULL, 0},
    {"kernels", OPT_KERNELS, "NAME", 0, NULL, 0},
    {"state-dir", OPT_STATE_DIR, "DIR", 0, NULL, 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t add_root(struct argp_state *state, const char **roots, size_t *n, const char *root) {
  if (*n == ROOTS_MAX)
    argp_error(state, "more than %d roots", ROOTS_MAX);
  roots[(*n)++] = root;
  return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
  task_options *o = state->input;
  switch (key) {
  case OPT_TASK:
    return 0;
  case OPT_DATA_ROOT:
    return add_root(state, o->data_roots, &o->n_data_roots, arg);
  case OPT_OUTPUT_ROOT:
    return add_root(state, o->output_roots, &o->n_output_roots, arg);
  case OPT_KEY_FILE:
    o->key_file = arg;
    return 0;
  case OPT_NODE:
    o->node = arg;
    return 0;
  case OPT_LOG_LEVEL:
    o->log_level = arg;
    return 0;
  case OPT_KERNELS:
    o->kernels = arg;
    return 0;
  case OPT_STATE_DIR:
    o->state_dir = arg;
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

int wk_task_main(int argc, char **argv) {
  static const struct argp argp = {option_table, parse_option, NULL, "Internal mode: one rank of a job.", NULL, NULL, NULL};
  task t;
  memset(&t, 0, sizeof t);
  t.options.node = "?";
  t.options.kernels = "auto";
  argp_err_exit_status = BL_EXIT_USAGE;
  argp_parse(&argp, argc, argv, 0, NULL, &t.options);
  bl_log_level level = BL_LOG_INFO;
  if (t.options.log_level != NULL && bl_log_level_parse(t.options.log_level, &level) != BL_OK)
    level = BL_LOG_INFO;
  bl_log_init("ballast-task", level);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN); /* of the terminal's process group: the agent decides */
  bl_error err = BL_ERROR_INIT;
  bl_status status = open_ends(&t, &err);
  if (status == BL_OK)
    status = live(&t, &err);
  int code = end(&t, status, &err);
  task_fini(&t);
  return code;
}
