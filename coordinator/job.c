/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/job.h"

#include "coordinator/grants.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/num.h"
#include "base/str.h"
#include "codec/spec.h"
#include "job/protocol.h"
#include "place/place.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bl_status co_job_new(uint64_t id, const char *text, size_t text_bytes, const char *file, const char *token,
                     const char *submitter, co_job **ret_job, bl_buf *mistakes) {
  bl_conf_errors *errors = bl_calloc(1, sizeof *errors);
  co_job *job = bl_calloc(1, sizeof *job);
  bl_status status = BL_ENOMEM;
  if (errors == NULL || job == NULL)
    goto fail;
  /* Paths were made absolute by the command; a relative one has no meaning here and fails on the worker. */
  status = bl_job_spec_parse(text, text_bytes, file, "/", NULL, 0, &job->spec, errors);
  if (status != BL_OK) {
    bl_conf_errors_print(errors, file, mistakes);
    goto fail;
  }
  bl_error err = BL_ERROR_INIT;
  status = bl_tensor_table_of_job(job->spec, &job->table, &err);
  if (status != BL_OK) {
    bl_buf_printf(mistakes, "%s: %s\n", file, err.text);
    goto fail;
  }
  status = BL_ENOMEM;
  job->id = id;
  job->state = CO_JOB_QUEUED;
  job->text = bl_strndup(text, text_bytes);
  job->file = bl_strdup(file);
  job->token = bl_strdup(token);
  job->submitter = bl_strdup(submitter);
  job->protocol = bl_job_spec_protocol(job->spec, job->protocol_for, sizeof job->protocol_for);
  job->priority = job->spec->priority;
  job->n_ranks = job->spec->ranks;
  job->ranks = bl_calloc(job->n_ranks, sizeof *job->ranks);
  if (job->text == NULL || job->file == NULL || job->token == NULL || job->submitter == NULL ||
      job->ranks == NULL)
    goto fail;
  bl_free(errors);
  *ret_job = job;
  return BL_OK;
fail:
  bl_free(errors);
  co_job_free(job);
  return status;
}

static void free_report(Ballast__Control__Report **report) {
  if (*report != NULL)
    bl_control_free(&(*report)->base);
  *report = NULL;
}

static void rank_epochs_free(co_rank_epoch *ranks, uint32_t n) {
  for (uint32_t r = 0; ranks != NULL && r < n; r++) {
    co_metrics_fini(&ranks[r].train);
    co_metrics_fini(&ranks[r].validation);
    co_metrics_fini(&ranks[r].test);
  }
  bl_free(ranks);
}

static void epoch_fini(co_job *job, co_epoch *epoch) {
  rank_epochs_free(epoch->ranks, job->n_ranks);
  co_metrics_fini(&epoch->train);
  co_metrics_fini(&epoch->validation);
  co_metrics_fini(&epoch->test);
}

void co_job_free(co_job *job) {
  if (job == NULL)
    return;
  co_job_unplace(job);
  for (uint32_t i = 0; job->ranks != NULL && i < job->n_ranks; i++) {
    free_report(&job->ranks[i].data);
    free_report(&job->ranks[i].done);
    bl_control_free(job->ranks[i].traffic != NULL ? &job->ranks[i].traffic->base : NULL);
  }
  for (uint32_t i = 0; i < job->n_epochs; i++)
    epoch_fini(job, &job->epochs[i]);
  for (uint32_t i = 0; i < job->n_log; i++)
    bl_free(job->log[i].text);
  co_ledger_free(job->ledger);
  bl_free(job->epochs);
  bl_free(job->log);
  bl_free(job->ranks);
  bl_tensor_table_free(job->table);
  bl_job_spec_free(job->spec);
  bl_free(job->text);
  bl_free(job->file);
  bl_free(job->token);
  bl_free(job->submitter);
  bl_free(job);
}

uint64_t co_job_bytes_per_elem(const co_job *job) {
  const bl_optim_rule *rule = bl_optim_rule_by_name(bl_job_server_rule(job->spec).name);
  uint32_t n_slots = rule != NULL ? rule->n_slots : BL_OPTIM_SLOTS_MAX;
  return bl_place_bytes_per_elem(n_slots + (job->spec->average_ema > 0), bl_tensor_table_pulls_exactly(job->table) && !job->spec->compression.adapts);
}

uint64_t co_job_server_bytes(const co_job *job) {
  return job->table->n_placed * co_job_bytes_per_elem(job);
}

/* ---- plan ------------------------------------------------------------------------------------------- */

/* Strings of the plan are borrowed from job and shards; bl_control_copy then makes the owned one. */
typedef struct plan_parts {
  bl_arena arena;
  Ballast__Control__OpenJob open;
  Ballast__Control__JobPlan plan;
  Ballast__Control__Rule optimizer, schedule;
} plan_parts;

static bl_status plan_rule(bl_arena *a, Ballast__Control__Rule *rule, const char *name, const bl_param *params,
                           size_t n) {
  ballast__control__rule__init(rule);
  rule->name = (char *)name;
  Ballast__Control__KeyValue *values = bl_arena_array(a, BL_MAX(n, 1), sizeof *values);
  rule->params = bl_arena_array(a, BL_MAX(n, 1), sizeof *rule->params);
  if (values == NULL || rule->params == NULL)
    return BL_ENOMEM;
  for (size_t i = 0; i < n; i++) {
    ballast__control__key_value__init(&values[i]);
    values[i].key = (char *)params[i].key;
    values[i].value = params[i].value;
    rule->params[i] = &values[i];
  }
  rule->n_params = n;
  return BL_OK;
}

static char *codec_text(bl_arena *a, const bl_codec_spec *spec) {
  char text[BL_CODEC_TEXT_MAX];
  return bl_arena_strdup(a, bl_codec_spec_write(spec, text));
}

/* A tensor's codecs, where they are not the job's. */
static bl_status plan_policy(plan_parts *p, const bl_tensor_policy *policy, const bl_compression_spec *of_job,
                             Ballast__Control__Tensor *to) {
  if (!bl_codec_spec_equal(&policy->push, &of_job->push))
    to->codec_push = codec_text(&p->arena, &policy->push);
  if (!bl_codec_spec_equal(&policy->pull, &of_job->pull))
    to->codec_pull = codec_text(&p->arena, &policy->pull);
  p->plan.feedback |= policy->feedback;
  return to->codec_push != NULL && to->codec_pull != NULL ? BL_OK : BL_ENOMEM;
}

static bl_status plan_tensors(plan_parts *p, const bl_job_spec *spec, const bl_tensor_table *table) {
  bl_status st = BL_OK;
  Ballast__Control__Tensor *tensors = bl_arena_array(&p->arena, table->n_tensors, sizeof *tensors);
  p->plan.tensors = bl_arena_array(&p->arena, table->n_tensors, sizeof *p->plan.tensors);
  if (tensors == NULL || p->plan.tensors == NULL)
    return BL_ENOMEM;
  for (uint32_t i = 0; st == BL_OK && i < table->n_tensors; i++) {
    const bl_tensor *from = &table->tensors[i];
    Ballast__Control__Tensor *to = &tensors[i];
    ballast__control__tensor__init(to);
    to->name = (char *)from->name;
    to->dims = (uint64_t *)from->dims;
    to->n_dims = from->n_dims;
    to->init = (uint32_t)from->init;
    to->init_scale = from->init_scale;
    to->no_decay = from->no_decay;
    to->table = from->table;
    bl_update_group group = bl_job_server_group(spec, from->group);
    to->grouped = group.set;
    to->lr_scale = group.lr_scale;
    to->weight_decay = group.weight_decay;
    to->frozen = group.frozen;
    p->plan.tensors[i] = to;
    st = plan_policy(p, &from->policy, &spec->compression, to);
  }
  p->plan.n_tensors = table->n_tensors;
  return st;
}

/* Only shards that hold a chunk are part of the job, numbered in the order given. */
static bl_status plan_shards(plan_parts *p, const co_shard *shards, size_t n_shards,
                             const uint32_t *shard_of_chunk, uint32_t n_chunks) {
  uint32_t *number = bl_arena_array(&p->arena, n_shards, sizeof *number);
  Ballast__Control__ShardRef *refs = bl_arena_array(&p->arena, n_shards, sizeof *refs);
  p->plan.shards = bl_arena_array(&p->arena, n_shards, sizeof *p->plan.shards);
  p->plan.chunk_shards = bl_arena_array(&p->arena, BL_MAX(n_chunks, 1), sizeof(uint32_t));
  if (number == NULL || refs == NULL || p->plan.shards == NULL || p->plan.chunk_shards == NULL)
    return BL_ENOMEM;
  for (uint32_t c = 0; c < n_chunks; c++)
    number[shard_of_chunk[c]] = 1;
  for (size_t i = 0; i < n_shards; i++) {
    if (number[i] == 0)
      continue;
    Ballast__Control__ShardRef *ref = &refs[p->plan.n_shards];
    ballast__control__shard_ref__init(ref);
    ref->server = (char *)shards[i].server;
    ref->index = shards[i].index;
    ref->endpoint = (char *)shards[i].endpoint;
    ref->public_key = (char *)shards[i].public_key;
    p->plan.shards[p->plan.n_shards] = ref;
    number[i] = (uint32_t)p->plan.n_shards++;
  }
  for (uint32_t c = 0; c < n_chunks; c++)
    p->plan.chunk_shards[c] = number[shard_of_chunk[c]];
  p->plan.n_chunk_shards = n_chunks;
  return BL_OK;
}

static bl_status plan_numbers(plan_parts *p, const co_job *job) {
  const bl_job_spec *spec = job->spec;
  Ballast__Control__JobPlan *plan = &p->plan;
  ballast__control__open_job__init(&p->open);
  ballast__control__job_plan__init(plan);
  p->open.plan = plan;
  plan->job = job->id;
  plan->name = (char *)spec->name;
  plan->seed = spec->seed;
  plan->world = job->n_ranks;
  plan->n_incarnations = job->n_ranks;
  plan->incarnations = bl_arena_array(&p->arena, job->n_ranks, sizeof(uint32_t));
  plan->chunk_elems = job->table->chunk_elems;
  bool steps_here = spec->local_steps == 0; /* else gradients stay on the workers, and what is said about them */
  plan->clip_value = steps_here ? spec->clip_value : 0;
  plan->initial = spec->init.path != NULL;
  plan->clip_norm = steps_here ? spec->clip_norm : 0;
  plan->clip_global_norm = spec->clip_global_norm;
  plan->average_ema = spec->average_ema;
  plan->sync = (char *)spec->sync;
  plan->staleness = spec->staleness;
  plan->streams = spec->local_steps > 0 && spec->outer.streams > 1 ? spec->outer.streams : 0;
  plan->key_cache_bytes = bl_tensor_table_has_tables(job->table) ? spec->key_cache_bytes : 0;
  plan->clock_samples = bl_job_clock_samples(spec);
  plan->codec_push = codec_text(&p->arena, &spec->compression.push);
  plan->codec_pull = codec_text(&p->arena, &spec->compression.pull);
  plan->momentum_correction = spec->compression.momentum_correction;
  plan->warmup_epochs = spec->compression.warmup_epochs;
  plan->not_finite = (uint32_t)spec->not_finite;
  plan->adapts = spec->compression.adapts;
  plan->optimizer = &p->optimizer;
  plan->schedule = &p->schedule;
  bl_job_rule rule = bl_job_server_rule(spec), schedule = bl_job_server_schedule(spec);
  bl_status status = plan_rule(&p->arena, &p->optimizer, rule.name, rule.params, rule.n_params);
  if (status == BL_OK)
    status = plan_rule(&p->arena, &p->schedule, schedule.name, schedule.params, schedule.n_params);
  return plan->incarnations != NULL && plan->codec_push != NULL && plan->codec_pull != NULL ? status : BL_ENOMEM;
}

/* The servers behind the plan's shards, each once. */
static bl_status servers_of_plan(const Ballast__Control__JobPlan *plan, const co_shard *shards, size_t n_shards,
                                 co_server_use **ret_servers, uint32_t *ret_n) {
  co_server_use *servers = bl_calloc(BL_MAX(plan->n_shards, 1), sizeof *servers);
  if (servers == NULL)
    return BL_ENOMEM;
  uint32_t n = 0;
  for (size_t i = 0; i < plan->n_shards; i++) {
    uint32_t k = 0;
    while (k < n && strcmp(servers[k].name, plan->shards[i]->server) != 0)
      k++;
    if (k < n)
      continue;
    bl_str_copy(servers[n].name, sizeof servers[n].name, plan->shards[i]->server);
    for (size_t s = 0; s < n_shards; s++)
      if (strcmp(shards[s].server, servers[n].name) == 0)
        servers[n].incarnation = shards[s].server_incarnation;
    n++;
  }
  *ret_servers = servers;
  *ret_n = n;
  return BL_OK;
}

static bl_status choose_shards(const co_job *job, const co_shard *shards, size_t n_shards,
                               uint32_t *shard_of_chunk, bl_error *err) {
  uint64_t *load = bl_calloc(BL_MAX(n_shards, 1), sizeof *load);
  uint64_t *capacity = bl_calloc(BL_MAX(n_shards, 1), sizeof *capacity);
  bl_status status = BL_ENOMEM;
  if (load != NULL && capacity != NULL) {
    for (size_t i = 0; i < n_shards; i++) {
      load[i] = shards[i].load_bytes;
      capacity[i] = shards[i].capacity_bytes;
    }
    status =
        bl_place_chunks(job->table, co_job_bytes_per_elem(job), load, capacity, n_shards, shard_of_chunk, err);
  }
  bl_free(load);
  bl_free(capacity);
  return status;
}

bl_status co_job_place(co_job *job, co_shard *shards, size_t n_shards, bl_error *err) {
  plan_parts parts;
  memset(&parts, 0, sizeof parts);
  bl_arena_init(&parts.arena, 0);
  Ballast__Control__OpenJob *open = NULL;
  co_server_use *servers = NULL;
  uint32_t n_servers = 0;
  uint32_t *shard_of_chunk =
      bl_arena_array(&parts.arena, BL_MAX(job->table->n_chunks, 1), sizeof *shard_of_chunk);
  bl_status status = shard_of_chunk != NULL ? BL_OK : BL_ENOMEM;
  if (status == BL_OK)
    status = choose_shards(job, shards, n_shards, shard_of_chunk, err);
  if (status == BL_OK)
    status = plan_numbers(&parts, job);
  if (status == BL_OK)
    status = plan_tensors(&parts, job->spec, job->table);
  if (status == BL_OK)
    status = plan_shards(&parts, shards, n_shards, shard_of_chunk, job->table->n_chunks);
  if (status == BL_OK)
    status = servers_of_plan(&parts.plan, shards, n_shards, &servers, &n_servers);
  if (status == BL_OK) {
    open = (Ballast__Control__OpenJob *)bl_control_copy(&parts.open.base);
    status = open != NULL ? BL_OK : BL_ENOMEM;
  }
  bl_arena_fini(&parts.arena);
  if (status != BL_OK) {
    bl_free(servers);
    if (status == BL_ENOMEM)
      return bl_fail(err, BL_ENOMEM, "no memory for the plan of job %" PRIu64, job->id);
    return status;
  }
  co_job_unplace(job);
  job->open = open;
  job->servers = servers;
  job->n_servers = n_servers;
  job->dirty = true;
  return BL_OK;
}

void co_job_unplace(co_job *job) {
  if (job->open != NULL)
    bl_control_free(&job->open->base);
  bl_free(job->servers);
  job->open = NULL;
  job->servers = NULL;
  job->n_servers = 0;
}

bool co_job_plan_is_complete(const co_job *job) {
  return job->open != NULL && job->open->plan->clocks > 0;
}

void co_job_next_view(co_job *job) {
  BL_ASSERT(co_job_plan_is_complete(job));
  job->view++;
  job->dirty = true;
}

void co_job_sync_plan(co_job *job) {
  if (job->open == NULL)
    return;
  job->open->plan->view = co_job_plan_is_complete(job) ? job->view : 0;
  for (uint32_t i = 0; i < job->n_ranks; i++)
    job->open->plan->incarnations[i] = job->ranks[i].incarnation;
}

uint64_t co_job_shard_load(const co_job *job, const char *server, uint32_t index) {
  if (job->open == NULL)
    return 0;
  const Ballast__Control__JobPlan *plan = job->open->plan;
  uint64_t elems = 0;
  for (size_t s = 0; s < plan->n_shards; s++) {
    if (plan->shards[s]->index != index || strcmp(plan->shards[s]->server, server) != 0)
      continue;
    for (size_t c = 0; c < plan->n_chunk_shards && c < job->table->n_chunks; c++)
      if (plan->chunk_shards[c] == s)
        elems += job->table->chunks[c].n_elems;
  }
  return elems * co_job_bytes_per_elem(job);
}

void co_job_reset_rank(co_job *job, uint32_t rank) {
  co_rank *r = &job->ranks[rank];
  free_report(&r->data);
  free_report(&r->done);
  co_rank next = {.incarnation = r->incarnation + 1, .crashes = r->crashes, .last_epoch = r->last_epoch};
  if (co_job_is_local(job))
    bl_str_copy(next.node, sizeof next.node, r->node);
  *r = next;
  job->dirty = true;
}

bool co_rank_has_slot(const co_rank *rank) { return rank->node[0] != '\0' && rank->node_incarnation != 0; }
bool co_rank_is_bound(const co_rank *rank) { return rank->node[0] != '\0' && rank->node_incarnation == 0; }
bool co_job_is_local(const co_job *job) { return job->spec->data.where == BL_DATA_LOCAL; }

uint32_t co_job_classes(const co_job *job) {
  uint64_t outputs = 0;
  if (job->spec->loss == BL_LOSS_SQUARED || bl_model_output_size(&job->spec->model, &outputs, NULL) != BL_OK)
    return 0;
  return job->spec->loss == BL_LOSS_SIGMOID_CROSS_ENTROPY ? 2 : (uint32_t)outputs;
}

void co_job_unbind_rank(co_job *job, uint32_t rank) {
  job->ranks[rank].node[0] = '\0';
  job->ranks[rank].node_incarnation = 0;
  job->dirty = true;
}

bl_status co_job_plan_rank_samples(co_job *job) {
  Ballast__Control__OpenJob open = *job->open;
  Ballast__Control__JobPlan plan = *job->open->plan;
  uint64_t *samples = bl_calloc(job->n_ranks, sizeof *samples);
  if (samples == NULL)
    return BL_ENOMEM;
  for (uint32_t i = 0; i < job->n_ranks; i++)
    samples[i] = job->ranks[i].data->data->train_samples;
  plan.rank_samples = samples;
  plan.n_rank_samples = job->n_ranks;
  open.plan = &plan;
  Ballast__Control__OpenJob *copy = (Ballast__Control__OpenJob *)bl_control_copy(&open.base);
  bl_free(samples);
  if (copy == NULL)
    return BL_ENOMEM;
  bl_control_free(&job->open->base);
  job->open = copy;
  job->dirty = true;
  return BL_OK;
}

/* ---- reports ---------------------------------------------------------------------------------------- */

co_report_kind co_report_kind_of(const Ballast__Control__Report *report) {
  return report->data != NULL    ? CO_REPORT_DATA
         : report->epoch != NULL ? CO_REPORT_EPOCH
         : report->done != NULL  ? CO_REPORT_DONE
         : report->lease != NULL ? CO_REPORT_LEASE
                                 : (co_report_kind)0;
}

/* Counts that there is no memory for are left out. */
static co_metrics metrics_of(const Ballast__Control__Metrics *m) {
  co_metrics metrics;
  if (co_metrics_from(m, &metrics) != BL_OK)
    bl_log_warning("metric_left_out", "reason=memory");
  return metrics;
}

static void metrics_add(co_metrics *sum, const co_metrics *m) {
  if (co_metrics_add(sum, m) != BL_OK)
    bl_log_warning("metric_left_out", "reason=memory");
}

static void drop_confusion(co_epoch *epoch) {
  co_metrics_drop_confusion(&epoch->validation);
  co_metrics_drop_confusion(&epoch->test);
}

/* Of confusion matrices the last epoch's are kept, with early stopping the best one's. */
static void close_epoch(co_job *job, uint32_t index) {
  co_epoch *epoch = &job->epochs[index];
  co_metrics_close(&epoch->train);
  co_metrics_close(&epoch->validation);
  co_metrics_close(&epoch->test);
  bool judged = co_stopping_is_asked(job->spec); /* judge_epochs keeps the best one's */
  if (index > 0 && !judged)
    drop_confusion(&job->epochs[index - 1]);
  if (index + 1 < job->n_epochs && job->epochs[index + 1].closed && !judged)
    drop_confusion(epoch);
  rank_epochs_free(epoch->ranks, job->n_ranks);
  epoch->ranks = NULL;
  epoch->closed = true;
}

/* Sums of the epochs that every rank has reported or passed. A rank that was replaced may have passed an
 * epoch without a report: its part is missing in the sums, and n tells. */
static void close_epochs(co_job *job) {
  uint32_t passed = UINT32_MAX;
  for (uint32_t r = 0; r < job->n_ranks; r++)
    passed = BL_MIN(passed, job->ranks[r].last_epoch);
  for (uint32_t e = job->n_epochs; e-- > 0;) {
    co_epoch *epoch = &job->epochs[e];
    if (e + 1 > passed)
      continue;
    if (epoch->closed)
      break;
    for (uint32_t r = 0; epoch->ranks != NULL && r < job->n_ranks; r++) {
      const co_rank_epoch *part = &epoch->ranks[r];
      metrics_add(&epoch->train, &part->train);
      metrics_add(&epoch->validation, &part->validation);
      metrics_add(&epoch->test, &part->test);
      epoch->seconds = BL_MAX(epoch->seconds, part->seconds);
      epoch->clock = BL_MAX(epoch->clock, part->clock);
    }
    close_epoch(job, e);
  }
}

uint32_t co_job_closed_epochs(const co_job *job) {
  uint32_t n = job->n_epochs;
  while (n > 0 && !job->epochs[n - 1].closed)
    n--;
  return n;
}

/* In the order of the epochs: whichever are complete now. */
static void judge_epochs(co_job *job) {
  uint32_t closed = co_job_closed_epochs(job);
  while (co_stopping_is_asked(job->spec) && job->stopping.n_seen < closed) {
    uint32_t epoch = job->stopping.n_seen + 1, best = job->stopping.best_epoch;
    co_epoch *e = &job->epochs[epoch - 1];
    co_stopping_judge(&job->stopping, job->spec, epoch, co_job_first_epochs(job) + 1, &e->train, &e->validation);
    if (job->stopping.best_epoch != epoch)
      drop_confusion(e);
    else if (best > 0)
      drop_confusion(&job->epochs[best - 1]);
  }
}

bool co_job_verdict(const co_job *job, uint32_t epoch, bool *ret_stop, uint32_t *ret_best) {
  if (job->stopping.n_seen < epoch)
    return false;
  *ret_stop = epoch == co_job_epochs(job);
  *ret_best = job->stopping.best_epoch;
  return true;
}

uint32_t co_job_first_epochs(const co_job *job) {
  if (job->open == NULL || job->open->plan->clocks == 0)
    return 0;
  return (uint32_t)(job->open->plan->start_clock / (job->open->plan->clocks / job->spec->epochs));
}

uint32_t co_job_epochs(const co_job *job) {
  return job->stopping.stop_epoch != 0 ? job->stopping.stop_epoch : (uint32_t)job->spec->epochs;
}

static bl_status grow_epochs(co_job *job, uint32_t epoch) {
  /* Epochs may be missing in between: agents that were lost with what they had not delivered. */
  if (epoch == 0 || epoch > job->spec->epochs)
    return BL_EINVAL;
  if (epoch > job->epochs_capacity) {
    uint32_t capacity = BL_MAX(BL_MAX(16, epoch), 2 * job->epochs_capacity);
    co_epoch *epochs = bl_realloc_array(job->epochs, capacity, sizeof *epochs);
    if (epochs == NULL)
      return BL_ENOMEM;
    job->epochs = epochs;
    job->epochs_capacity = capacity;
  }
  while (job->n_epochs < epoch)
    memset(&job->epochs[job->n_epochs++], 0, sizeof *job->epochs);
  co_epoch *e = &job->epochs[epoch - 1];
  if (e->ranks == NULL && !e->closed)
    e->ranks = bl_calloc(job->n_ranks, sizeof *e->ranks);
  return e->ranks != NULL || e->closed ? BL_OK : BL_ENOMEM;
}

static bl_status take_epoch(co_job *job, uint32_t rank, const Ballast__Control__EpochReport *report) {
  bl_status status = grow_epochs(job, report->epoch);
  if (status != BL_OK)
    return status;
  co_epoch *epoch = &job->epochs[report->epoch - 1];
  /* The first report of an epoch stands: another incarnation repeats the same work. */
  if (!epoch->closed && !epoch->ranks[rank].reported)
    epoch->ranks[rank] = (co_rank_epoch){true,
                                         metrics_of(report->train),
                                         metrics_of(report->validation),
                                         metrics_of(report->test),
                                         report->seconds,
                                         report->clock};
  job->ranks[rank].last_epoch = BL_MAX(job->ranks[rank].last_epoch, report->epoch);
  close_epochs(job);
  judge_epochs(job);
  return BL_OK;
}

bl_status co_job_take_report(co_job *job, Ballast__Control__Report *report, bool *ret_taken) {
  if (report->rank >= job->n_ranks)
    return BL_EINVAL;
  co_rank *r = &job->ranks[report->rank];
  Ballast__Control__Report **slot = report->data != NULL ? &r->data : report->done != NULL ? &r->done : NULL;
  *ret_taken = false;
  if (slot == NULL)
    return report->epoch != NULL ? take_epoch(job, report->rank, report->epoch) : BL_EINVAL;
  free_report(slot);
  *slot = report;
  *ret_taken = true;
  return BL_OK;
}

/* ---- log -------------------------------------------------------------------------------------------- */

bl_status co_job_add_log(co_job *job, uint64_t number, uint64_t wall_ns, uint32_t level, uint32_t rank,
                         const char *text) {
  char *copy = bl_strdup(text);
  if (copy == NULL)
    return BL_ENOMEM;
  if (job->log == NULL && (job->log = bl_calloc(CO_LOG_LINES_MAX, sizeof *job->log)) == NULL) {
    bl_free(copy);
    return BL_ENOMEM;
  }
  uint32_t at = (job->log_first + job->n_log) % CO_LOG_LINES_MAX;
  if (job->n_log == CO_LOG_LINES_MAX) {
    bl_free(job->log[at].text);
    job->log_first = (job->log_first + 1) % CO_LOG_LINES_MAX;
  } else {
    job->n_log++;
  }
  job->log[at] = (co_log_line){number, wall_ns, level, rank, copy};
  job->log_number = number;
  return BL_OK;
}

const co_log_line *co_job_log_at(const co_job *job, uint32_t i) {
  BL_ASSERT(i < job->n_log);
  return &job->log[(job->log_first + i) % CO_LOG_LINES_MAX];
}

/* ---- store ------------------------------------------------------------------------------------------ */

bl_status co_job_to_record(const co_job *job, co_job_scratch *scratch, co_job_record *ret_record) {
  memset(scratch, 0, sizeof *scratch);
  scratch->ranks = bl_calloc(BL_MAX(job->n_ranks, 1), sizeof *scratch->ranks);
  scratch->servers = bl_calloc(BL_MAX(job->n_servers, 1), sizeof *scratch->servers);
  if (scratch->ranks == NULL || scratch->servers == NULL)
    return BL_ENOMEM;
  if (job->open != NULL) {
    bl_status status = bl_control_pack(BL_MSG_OPEN_JOB, &job->open->base, &scratch->plan);
    if (status != BL_OK)
      return status;
  }
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    const co_rank *r = &job->ranks[i];
    scratch->ranks[i] = (co_rank_record){r->incarnation, r->node, r->node_incarnation, r->crashes, r->sequence};
  }
  for (uint32_t i = 0; i < job->n_servers; i++)
    scratch->servers[i] = (co_server_record){job->servers[i].name, job->servers[i].incarnation};
  *ret_record = (co_job_record){
      .id = job->id,
      .token = job->token,
      .file = job->file,
      .submitter = job->submitter,
      .text = job->text,
      .phase = co_job_phase_name(job->state),
      .reason = job->reason,
      .status = job->status,
      .view = job->view,
      .plan = scratch->plan.head != NULL ? scratch->plan.head->data : NULL,
      .plan_bytes = scratch->plan.head != NULL ? scratch->plan.head->size : 0,
      .blas_core = job->blas_core,
      .data_agreed = job->data_agreed,
      .train_samples = job->train_samples,
      .validation_samples = job->validation_samples,
      .test_samples = job->test_samples,
      .fingerprint = job->fingerprint,
      .submitted_wall_ns = job->submitted_wall_ns,
      .started_wall_ns = job->started_wall_ns,
      .running_wall_ns = job->running_wall_ns,
      .finished_wall_ns = job->finished_wall_ns,
      .ranks = scratch->ranks,
      .n_ranks = job->n_ranks,
      .servers = scratch->servers,
      .n_servers = job->n_servers,
      .priority = job->priority,
      .name = job->spec->name,
      .state = co_job_state_name(job->state),
      .summary = "",
  };
  return BL_OK;
}

void co_job_scratch_fini(co_job_scratch *scratch) {
  bl_free(scratch->ranks);
  bl_free(scratch->servers);
  bl_msg_fini(&scratch->plan);
}

/* A stored message head back into its struct. */
static bl_status unpack_stored(const uint8_t *data, size_t size, bl_msg_type want, ProtobufCMessage **ret_m,
                               bl_error *err) {
  bl_msg msg = BL_MSG_INIT;
  msg.head = bl_frame_copy(data, size);
  if (msg.head == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for a stored message");
  bl_msg_type type;
  ProtobufCMessage *m = NULL;
  bl_status status = bl_control_unpack(&msg, &type, &m, err);
  bl_msg_fini(&msg);
  if (status != BL_OK)
    return status;
  if (type != want) {
    bl_control_free(m);
    return bl_fail(err, BL_ECORRUPT, "a stored message is a %s where a %s belongs", bl_msg_type_name(type),
                   bl_msg_type_name(want));
  }
  *ret_m = m;
  return BL_OK;
}

static bl_status restore_plan(co_job *job, const co_job_record *r, bl_error *err) {
  if (r->plan == NULL)
    return BL_OK;
  ProtobufCMessage *m;
  bl_status status = unpack_stored(r->plan, r->plan_bytes, BL_MSG_OPEN_JOB, &m, err);
  if (status != BL_OK)
    return status;
  job->open = (Ballast__Control__OpenJob *)m;
  if (job->open->plan == NULL || job->open->plan->n_incarnations != job->n_ranks)
    return bl_fail(err, BL_ECORRUPT, "the stored plan of job %" PRIu64 " is for another number of ranks",
                   r->id);
  if (co_job_is_local(job) && r->data_agreed && job->open->plan->n_rank_samples != job->n_ranks)
    return bl_fail(err, BL_ECORRUPT, "the stored plan of job %" PRIu64 " does not say how many samples each rank has",
                   r->id);
  return BL_OK;
}

static bl_status restore_members(co_job *job, const co_job_record *r, bl_error *err) {
  if (r->n_ranks != job->n_ranks)
    return bl_fail(err, BL_ECORRUPT, "job %" PRIu64 " is stored with %u ranks, its text says %u", r->id,
                   r->n_ranks, job->n_ranks);
  for (uint32_t i = 0; i < r->n_ranks; i++) {
    co_rank *rank = &job->ranks[i];
    rank->incarnation = r->ranks[i].incarnation;
    rank->node_incarnation = r->ranks[i].node_incarnation;
    rank->crashes = r->ranks[i].crashes;
    rank->sequence = r->ranks[i].sequence;
    bl_str_copy(rank->node, sizeof rank->node, r->ranks[i].node);
  }
  if (r->n_servers == 0)
    return BL_OK;
  job->servers = bl_calloc(r->n_servers, sizeof *job->servers);
  if (job->servers == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for job %" PRIu64, r->id);
  job->n_servers = r->n_servers;
  for (uint32_t i = 0; i < r->n_servers; i++) {
    bl_str_copy(job->servers[i].name, sizeof job->servers[i].name, r->servers[i].name);
    job->servers[i].incarnation = r->servers[i].incarnation;
  }
  return BL_OK;
}

bl_status co_job_from_record(const co_job_record *r, co_job **ret_job, bl_error *err) {
  bl_buf mistakes = BL_BUF_INIT;
  co_job *job = NULL;
  bl_status status =
      co_job_new(r->id, r->text, strlen(r->text), r->file, r->token, r->submitter, &job, &mistakes);
  if (status != BL_OK) {
    bl_fail(err, status, "job %" PRIu64 " is stored with a text that is refused now: %.300s", r->id,
            bl_buf_str(&mistakes));
    goto fail;
  }
  job->state = job->stored_state = co_job_phase_by_name(r->phase);
  if (job->state == CO_JOB_INVALID) {
    status = bl_fail(err, BL_ECORRUPT, "job %" PRIu64 " is stored in the unknown state '%s'", r->id, r->phase);
    goto fail;
  }
  status = restore_members(job, r, err);
  if (status == BL_OK)
    status = restore_plan(job, r, err);
  if (status != BL_OK)
    goto fail;
  job->told_end = co_job_state_is_terminal(job->state);
  job->priority = r->priority;
  job->status = (bl_status)r->status;
  bl_str_copy(job->reason, sizeof job->reason, r->reason);
  bl_str_copy(job->blas_core, sizeof job->blas_core, r->blas_core);
  job->view = r->view;
  job->data_agreed = r->data_agreed;
  job->train_samples = r->train_samples;
  job->validation_samples = r->validation_samples;
  job->test_samples = r->test_samples;
  job->fingerprint = r->fingerprint;
  job->submitted_wall_ns = r->submitted_wall_ns;
  job->started_wall_ns = r->started_wall_ns;
  job->running_wall_ns = r->running_wall_ns;
  job->finished_wall_ns = r->finished_wall_ns;
  bl_buf_fini(&mistakes);
  *ret_job = job;
  return BL_OK;
fail:
  bl_buf_fini(&mistakes);
  co_job_free(job);
  return status;
}

/* One that cannot be used must not keep the coordinator from its other jobs. */
static bl_status restore_lease(co_job *job, const Ballast__Control__Report *report) {
  bl_status status = co_grants_restore(job, report);
  if (status == BL_OK || status == BL_ENOMEM)
    return status;
  bl_log_warning("lease_ignored", "job=%" PRIu64 " rank=%u status=%s", job->id, report->rank, bl_status_name(status));
  return BL_OK;
}

bl_status co_job_restore_report(co_job *job, const co_report_record *r) {
  if (r->rank >= job->n_ranks)
    return BL_ECORRUPT;
  /* Data and results count for the incarnation that sent them; epochs for whoever did them first, leases for the
   * rank. */
  bool of_rank = r->kind == CO_REPORT_EPOCH || r->kind == CO_REPORT_LEASE;
  if (!of_rank && r->incarnation != job->ranks[r->rank].incarnation)
    return BL_OK;
  ProtobufCMessage *m;
  bl_status status = unpack_stored(r->message, r->message_bytes, BL_MSG_REPORT, &m, NULL);
  if (status != BL_OK)
    return status;
  bool taken = false;
  Ballast__Control__Report *report = (Ballast__Control__Report *)m;
  status = report->lease != NULL ? restore_lease(job, report) : co_job_take_report(job, report, &taken);
  if (status != BL_OK || !taken)
    bl_control_free(m);
  return status;
}

/* ---- result ----------------------------------------------------------------------------------------- */

static double seconds_of(const co_job *job) {
  double seconds = 0;
  bool replaced = false;
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    seconds = BL_MAX(seconds, job->ranks[i].done->done->seconds);
    replaced = replaced || job->ranks[i].incarnation > 1;
  }
  /* A replaced rank counts only its own time: then the wall clock is the better witness. */
  if ((replaced || seconds <= 0) && job->finished_wall_ns > job->running_wall_ns && job->running_wall_ns > 0)
    seconds = (double)(job->finished_wall_ns - job->running_wall_ns) / 1e9;
  return seconds;
}

/* What the last epoch has beyond sums: the results are of the same evaluation. */
static void borrow_counts(const co_job *job, co_result *r) {
  const co_epoch *best = r->best_epoch > 0 && r->best_epoch <= job->n_epochs ? &job->epochs[r->best_epoch - 1] : NULL;
  if (best != NULL) { /* the model that is kept is that epoch's */
    r->train = best->train;
    r->validation = best->validation;
    r->test = best->test;
    return;
  }
  const co_epoch *last = job->n_epochs > 0 ? &job->epochs[job->n_epochs - 1] : NULL;
  if (last == NULL || !last->closed)
    return;
  if (r->validation.n == 0 || last->validation.n == r->validation.n)
    r->validation = last->validation;
  if (r->test.n == 0 || last->test.n == r->test.n)
    r->test = last->test;
}

bool co_job_result(const co_job *job, co_result *ret_result) {
  co_result result = {.output = ""};
  for (uint32_t i = 0; i < job->n_ranks; i++) {
    if (job->ranks[i].done == NULL)
      return false;
    const Ballast__Control__DoneReport *done = job->ranks[i].done->done;
    co_metrics train = metrics_of(done->train), validation = metrics_of(done->validation),
               test = metrics_of(done->test);
    /* Only the epochs' counts are used. */
    co_metrics_fini(&train);
    co_metrics_fini(&validation);
    co_metrics_fini(&test);
    metrics_add(&result.train, &train);
    metrics_add(&result.validation, &validation);
    metrics_add(&result.test, &test);
    result.clocks = BL_MAX(result.clocks, done->clocks);
    result.bytes_pushed += done->bytes_pushed;
    result.bytes_pulled += done->bytes_pulled;
    result.bytes_pushed_dense += done->bytes_pushed_dense;
    result.bytes_pulled_dense += done->bytes_pulled_dense;
    if (result.weights_xxh3 == 0)
      result.weights_xxh3 = done->weights_xxh3;
    if (result.output[0] == '\0')
      result.output = done->output;
  }
  if (result.train.n == 0 && job->n_epochs > 0 && job->epochs[job->n_epochs - 1].closed)
    result.train = job->epochs[job->n_epochs - 1].train;
  if (!bl_sync_in_step(job->spec->sync)) /* every rank has a count of its own */
    result.clocks = job->open->plan->clocks;
  result.best_epoch = job->stopping.best_epoch;
  result.stopped_early = job->stopping.stop_epoch != 0;
  borrow_counts(job, &result);
  result.epochs = co_job_epochs(job);
  /* Every sample of an epoch is used exactly once, whoever was replaced meanwhile. */
  result.samples = job->train_samples * (co_job_epochs(job) - co_job_first_epochs(job));
  result.seconds = seconds_of(job);
  result.samples_per_second = result.seconds > 0 ? (double)result.samples / result.seconds : 0;
  *ret_result = result;
  return true;
}
