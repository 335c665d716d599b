/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of the job file, the checks across its fields, and paths. Sections data and model have files of
 * their own, and so have the fields that belong to registries.
 */
#include "job/spec.h"

#include "base/alloc.h"
#include "base/file.h"
#include "base/num.h"
#include "base/str.h"
#include "codec/codec.h"
#include "job/spec_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPEC_ARENA_BYTES_MAX ((size_t)64 << 20)
#define SPEC_BYTES_MAX BL_DOC_BYTES_MAX
#define PATH_BYTES_MAX 4000

bl_status bl_job_check_name(const char *s) {
  return s[0] != '\0' && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(s) ? BL_OK : BL_EINVAL;
}

/* ---- tables ---- */

#define AT(member) .offset = offsetof(bl_job_spec, member)

static void read_priority(bl_conf_reader *r, const bl_field *f, const bl_node *node) {
  int64_t value = 0;
  char what[80];
  if (node->kind != BL_NODE_SCALAR || bl_str_to_i64(node->text, &value) != BL_OK || value < -BL_JOB_PRIORITY_MAX ||
      value > BL_JOB_PRIORITY_MAX) {
    bl_conf_errors_add_field(r->errors, node, "%s is not allowed here; write a whole number from -%d to %d",
                             bl_node_describe(node, what, sizeof what), BL_JOB_PRIORITY_MAX, BL_JOB_PRIORITY_MAX);
    return;
  }
  ((bl_job_spec *)r->base)->priority = (int32_t)value;
}

static void write_priority(const bl_field *f, const void *base, unsigned indent, bl_buf *out) {
  bl_buf_printf(out, " %d\n", ((const bl_job_spec *)base)->priority);
}

/* clang-format off */
static const bl_word losses[] = {
    {"softmax_cross_entropy", BL_LOSS_SOFTMAX_CROSS_ENTROPY},
    {"sigmoid_cross_entropy", BL_LOSS_SIGMOID_CROSS_ENTROPY},
    {"squared", BL_LOSS_SQUARED},
};

static const bl_word not_finite_words[] = {
    {"fail", BL_NOT_FINITE_FAIL},
    {"skip_clock", BL_NOT_FINITE_SKIP},
    {"clip", BL_NOT_FINITE_CLIP},
};

static const bl_field clip_fields[] = {
    {.name = "value", .type = BL_FIELD_DOUBLE, AT(clip_value), .default_text = "0", .real_max = 1e30,
     .doc = "Every number of the gradient is cut to [-value, value]. 0: off."},
    {.name = "norm", .type = BL_FIELD_DOUBLE, AT(clip_norm), .default_text = "0", .real_max = 1e30,
     .doc = "Each rank's gradient is scaled down so that its length is at most this. 0: off."},
    {.name = "global_norm", .type = BL_FIELD_DOUBLE, AT(clip_global_norm), .since = 2, .default_text = "0", .real_max = 1e30,
     .doc = "The sum of all ranks' gradients is scaled down so that its length is at most this. 0: off."},
};

static const bl_field average_fields[] = {
    {.name = "ema", .type = BL_FIELD_DOUBLE, AT(average_ema), .since = 2, .default_text = "0", .real_max = 1, .real_max_open = true,
     .doc = "Exponential moving average: what an update leaves of it, such as 0.999. 0: off."},
};

static const bl_field key_fields[] = {
    {.name = "cache", .type = BL_FIELD_BYTES, AT(key_cache_bytes), .default_text = "64 MiB",
     .max = BL_JOB_KEY_CACHE_BYTES_MAX,
     .doc = "Lists of rows that a shard remembers, so that a checksum stands for one that it was sent before. 0: off."},
};

static const bl_field worker_fields[] = {
    {.name = "min", .type = BL_FIELD_U32, AT(workers_min), .default_text = "1", .min = 1,
     .max = BL_JOB_RANKS_MAX,
     .doc = "The job waits while fewer workers than this are there."},
};

static const bl_field job_fields[] = {
    {.name = "name", .type = BL_FIELD_TEXT, AT(name), .required = true, BL_JOB_NAME_ALLOWED,
     .doc = "Name of the job."},
    {.name = "seed", .type = BL_FIELD_U64, AT(seed), .default_text = "1",
     .doc = "All that is random in the job is a function of this number."},
    {.name = "data", .type = BL_FIELD_SECTION, BL_FIELDS(bl_job_data_fields),
     .doc = "Where samples come from and what is done to them."},
    {.name = "model", .type = BL_FIELD_SECTION, BL_FIELDS(bl_job_model_fields), .doc = "The network."},
    {.name = "loss", .type = BL_FIELD_ENUM, AT(loss), .required = true, BL_WORDS(losses),
     .doc = "What is made small: softmax_cross_entropy, sigmoid_cross_entropy or squared."},
    {.name = "init_from", .type = BL_FIELD_CUSTOM, .since = 2, BL_FIELDS(bl_job_init_fields), .read = bl_job_read_init,
     .write = bl_job_write_init,
     .doc = "Initial weights from a model folder or a safetensors file: its path, or {path: ...}, {job: N}."},
    {.name = "optimizer", .type = BL_FIELD_CUSTOM, .required = true, .read = bl_job_read_optimizer,
     .write = bl_job_write_optimizer, .doc = "Update rule: its name, or {NAME: {parameter: value}}."},
    {.name = "schedule", .type = BL_FIELD_CUSTOM, .default_text = "constant", .read = bl_job_read_schedule,
     .write = bl_job_write_schedule,
     .doc = "How the learning rate changes: its name, or {NAME: {parameter: value}}."},
    {.name = "groups", .type = BL_FIELD_CUSTOM, .since = 2, .read = bl_job_read_groups,
     .write = bl_job_write_groups, BL_FIELDS(bl_job_group_fields),
     .doc = "Tensors, by their names, whose updates differ. The first group that matches holds."},
    {.name = "clip", .type = BL_FIELD_SECTION, BL_FIELDS(clip_fields), .doc = "Limits on the gradient."},
    {.name = "not_finite", .type = BL_FIELD_ENUM, AT(not_finite), .since = 2, .default_text = "fail", BL_WORDS(not_finite_words),
     .doc = "What a gradient with a NaN or infinity does: fail the job, skip_clock or clip."},
    {.name = "average", .type = BL_FIELD_SECTION, .since = 2, BL_FIELDS(average_fields),
     .doc = "An average of the weights over the updates, which is evaluated and saved in their place."},
    {.name = "batch", .type = BL_FIELD_U64, AT(batch), .required = true, .min = 1,
     .max = BL_JOB_CLOCK_SAMPLES_MAX, .doc = "Samples of one clock, over all ranks."},
    {.name = "accumulate", .type = BL_FIELD_U32, AT(accumulate), .since = 2, .default_text = "1", .min = 1,
     .max = BL_JOB_ACCUMULATE_MAX,
     .doc = "A clock is made of so many batches: their gradients are added, then exchanged once."},
    {.name = "epochs", .type = BL_FIELD_U64, AT(epochs), .required = true, .min = 1, .max = 1000000,
     .doc = "Passes over the training set."},
    {.name = "ranks", .type = BL_FIELD_U32, AT(ranks), .default_text = "1", .min = 1, .max = BL_JOB_RANKS_MAX,
     .doc = "Parts that a batch is divided into. Fixed for the job: it belongs to the mathematics."},
    {.name = "workers", .type = BL_FIELD_SECTION, BL_FIELDS(worker_fields),
     .doc = "Workers that carry the ranks."},
    {.name = "sync", .type = BL_FIELD_CUSTOM, .default_text = "bsp", .read = bl_job_read_sync,
     .write = bl_job_write_sync, .doc = "How ranks are kept in step: bsp (all finish a clock before it is applied), ssp: {staleness: N} (a rank "
            "may be N clocks ahead of the slowest), asp (nobody waits) or local: {steps: N} (each rank takes N steps by itself, then "
            "the differences are averaged)."},
    {.name = "outer", .type = BL_FIELD_CUSTOM, .since = 2, .default_text = "average", .read = bl_job_read_outer,
     .write = bl_job_write_outer,
     .doc = "With sync local: what the servers do with the differences: average, nesterov, adam or yogi, or {NAME: {parameter: value}}."},
    {.name = "compression", .type = BL_FIELD_CUSTOM, .default_text = "none", BL_FIELDS(bl_job_compression_fields),
     .read = bl_job_read_compression, .write = bl_job_write_compression,
     .doc = "What travels: a preset (none, safe, balanced, extreme, auto), a codec, or a mapping of both and more."},
    {.name = "chunk", .type = BL_FIELD_BYTES, AT(chunk_bytes), .default_text = "1 MiB", .min = 4096,
     .max = BL_CODEC_ELEMS_MAX * sizeof(float), .multiple_of = 4096,
     .doc = "Size of a chunk of the model, counted as float32."},
    {.name = "keys", .type = BL_FIELD_SECTION, .since = 2, BL_FIELDS(key_fields), .doc = "Keys of the rows of tables."},
    {.name = "priority", .type = BL_FIELD_CUSTOM, .since = 2, .default_text = "0", .read = read_priority, .write = write_priority,
     .doc = "Place in the queue, from -100 to 100: of jobs that wait, those with a higher number go first."},
    {.name = "metrics", .type = BL_FIELD_LIST, .since = 2, .offset = offsetof(bl_job_spec, metrics),
     .count_offset = offsetof(bl_job_spec, n_metrics), .max = BL_JOB_METRICS_MAX,
     .doc = "What is measured beside loss and accuracy: top5, auc, log_loss, confusion."},
    {.name = "early_stopping", .type = BL_FIELD_SECTION, .since = 2, BL_FIELDS(bl_job_stop_fields),
     .doc = "Ends the job when a metric no longer gets better, and keeps the best model."},
    {.name = "task_retries", .type = BL_FIELD_U32, AT(task_retries), .default_text = "3", .max = 1000,
     .doc = "How often a crashed task is started again."},
    {.name = "blas_threads", .type = BL_FIELD_U32, AT(blas_threads), .default_text = "1", .min = 1, .max = 256,
     .doc = "Threads of a task's matrix products."},
    {.name = "save_every", .type = BL_FIELD_U64, .since = 2, AT(save_every), .default_text = "0", .max = 1000000,
     .doc = "The model is written to the output folder after every so many epochs, not only at the end. 0: only at the end."},
    {.name = "output", .type = BL_FIELD_TEXT, AT(output), .max = PATH_BYTES_MAX,
     .doc = "Folder for the job file, metrics.csv and model.safetensors. Left out: nothing is written."},
};
/* clang-format on */

const bl_field *bl_job_spec_fields(size_t *ret_n) {
  *ret_n = BL_COUNT_OF(job_fields);
  return job_fields;
}

/* ---- reading ---- */

static const char *resolved(bl_conf_reader *r, const char *base_dir, const char *path, const bl_node *node) {
  char *absolute = NULL;
  bl_error err = BL_ERROR_INIT;
  bl_status status = bl_path_resolve(base_dir, path, &absolute, &err);
  if (status == BL_ENOMEM)
    r->no_memory = true;
  else if (status != BL_OK)
    bl_conf_errors_add_field(r->errors, node, "%s", err.text);
  const char *copy = status == BL_OK ? bl_conf_text(r, absolute) : path;
  bl_free(absolute);
  return copy;
}

static void resolve_source(bl_conf_reader *r, const char *base_dir, const bl_node *node, bl_source_spec *s) {
  const char **paths = bl_arena_array(r->arena, s->n_paths + 1, sizeof *paths);
  if (paths == NULL) {
    r->no_memory = true;
    return;
  }
  for (size_t i = 0; i < s->n_paths; i++)
    paths[i] = resolved(r, base_dir, s->paths[i], node);
  s->paths = paths;
}

static void resolve_paths(bl_conf_reader *r, const bl_node *root, const char *base_dir) {
  bl_job_spec *spec = r->base;
  resolve_source(r, base_dir, bl_node_find(root, "data.train"), &spec->data.train);
  resolve_source(r, base_dir, bl_node_find(root, "data.test"), &spec->data.test);
  if (spec->output != NULL)
    spec->output = resolved(r, base_dir, spec->output, bl_node_find(root, "output"));
  if (spec->init.path != NULL)
    spec->init.path = resolved(r, base_dir, spec->init.path, bl_node_find(root, "init_from"));
}

/* Numbers against each other. The field that can best be changed is the one that is named. */
static void check_together(bl_conf_reader *r, const bl_node *root) {
  const bl_job_spec *s = r->base;
  const bl_node *ranks = bl_node_get(root, "ranks"), *min = bl_node_find(root, "workers.min");
  if (s->batch != 0 && s->ranks > s->batch)
    bl_conf_errors_add_field(r->errors, ranks, "%u ranks cannot share a batch of %" PRIu64 " samples", s->ranks,
                             s->batch);
  if (s->batch * s->accumulate > BL_JOB_CLOCK_SAMPLES_MAX)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "accumulate"),
                             "%u batches of %" PRIu64 " samples are more than the %u that a clock may have", s->accumulate,
                             s->batch, BL_JOB_CLOCK_SAMPLES_MAX);
  if (s->local_steps > 0 && s->batch > BL_JOB_CLOCK_SAMPLES_MAX / s->local_steps)
    bl_conf_errors_add_field(r->errors, bl_node_get(root, "sync"),
                             "%u steps of %" PRIu64 " samples are more than the %u that a round may have", s->local_steps, s->batch,
                             BL_JOB_CLOCK_SAMPLES_MAX);
  if (min != NULL && s->workers_min > s->ranks)
    bl_conf_errors_add_field(r->errors, min, "%u workers cannot share %u ranks", s->workers_min, s->ranks);
}

static bl_status parse_doc(const bl_doc *doc, const char *file, const char *base_dir, bl_job_spec **ret_spec,
                           bl_conf_errors *errors) {
  bl_job_spec *spec = bl_calloc(1, sizeof *spec);
  if (spec == NULL)
    return BL_ENOMEM;
  bl_arena_init(&spec->arena, SPEC_ARENA_BYTES_MAX);
  bl_conf_reader r = {.arena = &spec->arena, .errors = errors, .base = spec};
  bl_schema_read(&r, job_fields, BL_COUNT_OF(job_fields), doc->root);
  bl_job_data_finish(&r, doc->root);
  bl_job_model_finish(&r, doc->root);
  bl_job_optim_finish(&r, doc->root);
  bl_job_compression_finish(&r, doc->root);
  bl_job_train_finish(&r, doc->root);
  bl_job_local_finish(&r, doc->root);
  check_together(&r, doc->root);
  resolve_paths(&r, doc->root, base_dir);
  spec->file = bl_conf_text(&r, file);
  bl_status status = r.no_memory ? BL_ENOMEM : errors->n > 0 ? BL_EINVAL : BL_OK;
  if (status == BL_OK)
    *ret_spec = spec;
  else
    bl_job_spec_free(spec);
  return status;
}

bl_status bl_job_spec_parse(const char *text, size_t size, const char *file, const char *base_dir,
                            const char *const *overrides, size_t n_overrides, bl_job_spec **ret_spec,
                            bl_conf_errors *errors) {
  bl_conf_errors local;
  bl_doc *doc = NULL;
  if (errors == NULL)
    errors = &local;
  errors->n = 0;
  bl_status status = bl_doc_parse(text, size, &doc, errors);
  if (status != BL_OK)
    return status;
  status = bl_doc_override(doc, overrides, n_overrides, errors);
  if (status != BL_ENOMEM) /* mistakes in overrides do not hide those of the file */
    status = parse_doc(doc, file, base_dir, ret_spec, errors);
  bl_doc_free(doc);
  bl_conf_errors_sort(errors);
  return status;
}

/* Absolute folder of a file, owned by the caller. */
static bl_status folder_of(const char *path, char **ret_dir, bl_error *err) {
  char *dir = bl_path_dir(path);
  char *cwd = getcwd(NULL, 0);
  bl_status status = BL_ENOMEM;
  if (cwd == NULL)
    status = bl_fail_errno(err, "cannot find the present folder");
  else if (dir != NULL)
    status = bl_path_resolve(cwd, dir, ret_dir, err);
  free(cwd);
  bl_free(dir);
  return status;
}

bl_status bl_job_spec_read(const char *path, const char *const *overrides, size_t n_overrides,
                           bl_job_spec **ret_spec, bl_conf_errors *errors) {
  bl_buf text = BL_BUF_INIT;
  bl_error err = BL_ERROR_INIT;
  char *dir = NULL;
  bl_status status = bl_file_read(path, SPEC_BYTES_MAX, &text, &err);
  if (status == BL_OK)
    status = folder_of(path, &dir, &err);
  if (status == BL_OK) {
    status =
        bl_job_spec_parse(bl_buf_str(&text), text.size, path, dir, overrides, n_overrides, ret_spec, errors);
  } else if (errors != NULL) {
    errors->n = 0;
    bl_conf_errors_add(errors, NULL, "%s", err.text);
  }
  bl_free(dir);
  bl_buf_fini(&text);
  return status;
}

void bl_job_spec_free(bl_job_spec *spec) {
  if (spec == NULL)
    return;
  bl_arena_fini(&spec->arena);
  bl_free(spec);
}

uint64_t bl_job_clock_samples(const bl_job_spec *spec) {
  return spec->batch * BL_MAX(spec->accumulate, 1) * BL_MAX(spec->local_steps, 1);
}

void bl_job_spec_dump(const bl_job_spec *spec, bl_buf *out) {
  bl_schema_dump(job_fields, BL_COUNT_OF(job_fields), spec, 0, false, out);
}
