/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside of common/job: the parts of the job file that have files of their own, and what spec.c needs of them.
 * Every function collects mistakes in the reader; r->base is the bl_job_spec.
 */
#ifndef BL_JOB_SPEC_PARTS_H
#define BL_JOB_SPEC_PARTS_H

#include "conf/schema.h"
#include "job/spec.h"

#define BL_JOB_NAME_BYTES_MAX 64

/* Small letters, digits, '-' and '_'. */
bl_status bl_job_check_name(const char *s);
#define BL_JOB_NAME_ALLOWED                                                                                    \
  .check = bl_job_check_name, .max = BL_JOB_NAME_BYTES_MAX, .allowed_text = "small letters, digits, '-' and '_'"

/* spec_data.c: the section data */
#define BL_JOB_N_DATA_FIELDS 8
extern const bl_field bl_job_data_fields[BL_JOB_N_DATA_FIELDS];
/* Reads data.test with what data.train says as defaults, and checks the sources against each other. */
void bl_job_data_finish(bl_conf_reader *r, const bl_node *root);

/* spec_model.c: the section model */
#define BL_JOB_N_MODEL_FIELDS 2
extern const bl_field bl_job_model_fields[BL_JOB_N_MODEL_FIELDS];
/* Names, shapes, softmax, output against loss. */
void bl_job_model_finish(bl_conf_reader *r, const bl_node *root);

/* spec_rules.c: names and numbers that other modules' registries define */
void bl_job_read_optimizer(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_optimizer(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
void bl_job_read_schedule(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_schedule(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
void bl_job_read_sync(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_sync(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
/* A rule of a registry: its name, or one name with parameters; every parameter, given or default, goes to *ret_params. */
typedef struct bl_job_rule_info {
  const char *name; /* NULL: behind the last */
  const bl_param_info *params;
  size_t n_params;
} bl_job_rule_info;
typedef bl_job_rule_info bl_job_rule_at_fn(size_t i);
void bl_job_read_rule(bl_conf_reader *r, const bl_node *node, const char *what, bl_job_rule_at_fn *at, const char **ret_name,
                      bl_param **ret_params, size_t *ret_n);
void bl_job_write_rule(const char *name, const bl_param *params, size_t n, bl_buf *out);

/* spec_local.c: local steps and the outer optimizer */
#define BL_JOB_LOCAL_STEPS_DEFAULT 16
#define BL_JOB_LOCAL_STEPS_MAX 1000000
void bl_job_read_outer(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_outer(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
void bl_job_local_finish(bl_conf_reader *r, const bl_node *root);

/* spec_optim.c: parameter groups; rule, schedule and groups against each other and the model. */
#define BL_JOB_N_GROUP_FIELDS 4
extern const bl_field bl_job_group_fields[BL_JOB_N_GROUP_FIELDS];
void bl_job_read_groups(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_groups(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
void bl_job_optim_finish(bl_conf_reader *r, const bl_node *root);
/* spec_compression.c: how tensors travel; against optimizer, clipping and the model's tensors. */
#define BL_JOB_N_COMPRESSION_FIELDS 9
extern const bl_field bl_job_compression_fields[BL_JOB_N_COMPRESSION_FIELDS];
void bl_job_read_compression(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_compression(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
/* Behind bl_job_model_finish and bl_job_optim_finish. */
void bl_job_compression_finish(bl_conf_reader *r, const bl_node *root);
/* Does the section say no more than version 1 could: a codec for each direction? */
bool bl_job_compression_is_plain(const bl_compression_spec *c);

/* spec_train.c: metrics and early stopping against loss, model and data */
#define BL_JOB_N_INIT_FIELDS 3
extern const bl_field bl_job_init_fields[BL_JOB_N_INIT_FIELDS];
void bl_job_read_init(bl_conf_reader *r, const bl_field *f, const bl_node *node);
void bl_job_write_init(const bl_field *f, const void *base, unsigned indent, bl_buf *out);
#define BL_JOB_N_STOP_FIELDS 4
extern const bl_field bl_job_stop_fields[BL_JOB_N_STOP_FIELDS];
void bl_job_train_finish(bl_conf_reader *r, const bl_node *root);

#endif
