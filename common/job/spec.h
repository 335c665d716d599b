/* SPDX-License-Identifier: Apache-2.0
 *
 * A job file as a checked struct. Reading it reports every mistake at once, each with file, line, field,
 * value, what is allowed and the nearest right name. Reference for users: doc/job-file.md.
 *
 * Everything in a bl_job_spec lives in its arena and is read-only after parsing. Paths are absolute: they
 * are resolved against the job file's folder by bl_job_spec_read (so by the command, before submission).
 */
#ifndef BL_JOB_SPEC_H
#define BL_JOB_SPEC_H

#include "base/arena.h"
#include "base/buf.h"
#include "codec/codec.h"
#include "conf/errors.h"
#include "optim/optim.h"

#include <stdbool.h>
#include <stdint.h>

#define BL_JOB_LAYERS_MAX 1024
#define BL_JOB_DIMS_MAX 4
#define BL_JOB_RANKS_MAX 4096
#define BL_JOB_GROUPS_MAX 256
#define BL_JOB_INPUTS_MAX UINT32_MAX                /* values of a sample */
#define BL_JOB_SPARSE_INPUTS_MAX (UINT64_C(1) << 40) /* the same before a sparse layer */
#define BL_JOB_HASH_BITS_MAX 40
#define BL_JOB_CLOCK_SAMPLES_MAX (1u << 30)
#define BL_JOB_ACCUMULATE_MAX 65536
#define BL_JOB_KEY_CACHE_BYTES_MAX (UINT64_C(64) << 30)
#define BL_JOB_METRICS_MAX 8
#define BL_JOB_TOP_MAX 1000
#define BL_JOB_CONFUSION_CLASSES_MAX 256

typedef enum bl_data_where { BL_DATA_SHARED = 1, BL_DATA_LOCAL /* every rank has files of its own */ } bl_data_where;
typedef enum bl_source_kind { BL_SOURCE_NONE = 0, BL_SOURCE_IDX, BL_SOURCE_CSV, BL_SOURCE_LIBSVM, BL_SOURCE_NPY } bl_source_kind;
typedef enum bl_missing { BL_MISSING_ERROR = 1, BL_MISSING_MEAN, BL_MISSING_ZERO, BL_MISSING_SKIP } bl_missing;
typedef enum bl_normalize { BL_NORMALIZE_NONE = 1, BL_NORMALIZE_UNIT /* bytes / 255 */, BL_NORMALIZE_STANDARD /* per column mean 0, deviation 1, from the training set */ } bl_normalize;
typedef enum bl_loss_kind { BL_LOSS_SOFTMAX_CROSS_ENTROPY = 1, BL_LOSS_SIGMOID_CROSS_ENTROPY, BL_LOSS_SQUARED, BL_LOSS_COUNT } bl_loss_kind;
typedef enum bl_layer_kind { BL_LAYER_DENSE = 1, BL_LAYER_ACTIVATION, BL_LAYER_DROPOUT, BL_LAYER_FLATTEN, BL_LAYER_SPARSE, BL_LAYER_COUNT } bl_layer_kind;
typedef enum bl_activation { BL_ACT_NONE = 0, BL_ACT_RELU, BL_ACT_LEAKY_RELU, BL_ACT_TANH, BL_ACT_SIGMOID, BL_ACT_GELU, BL_ACT_SOFTMAX, BL_ACT_COUNT } bl_activation;
/* Numbers are pinned: they travel in the plan. scale: half-width of the uniform, or standard deviation. */
typedef enum bl_init_kind { BL_INIT_ZERO = 1, BL_INIT_UNIFORM = 2, BL_INIT_NORMAL = 3, BL_INIT_CONSTANT = 4 } bl_init_kind;
typedef enum bl_weight_init { BL_WINIT_AUTO = 0 /* He for relu-like, Xavier otherwise */, BL_WINIT_HE, BL_WINIT_XAVIER, BL_WINIT_ZERO } bl_weight_init;

/* Where samples come from. idx: [inputs, labels]; npy: [inputs, targets]; csv and libsvm: one or more files read as one. */
typedef struct bl_source_spec {
  bl_source_kind kind;
  const char *const *paths; /* [n_paths], absolute */
  size_t n_paths;
  /* csv */
  bool header;                       /* first line holds names */
  char delimiter;                    /* ',' */
  const char *target;                /* column name, or number from 0 as text */
  const char *const *columns;        /* inputs by name; NULL: all but the target */
  size_t n_columns;
  const char *const *categorical;    /* columns turned into one-hot inputs */
  size_t n_categorical;
  bl_missing missing;
  uint32_t hash_bits;                /* categories become one of 2^bits slots; 0: one-hot inputs */
  uint64_t hash_seed;
  /* libsvm */
  uint64_t features;                 /* number of inputs; 0: the model's input size */
} bl_source_spec;

typedef struct bl_data_spec {
  bl_data_where where;
  bl_source_spec train, test;
  double validation;     /* fraction of the training set, the LAST samples before shuffling; 0: none */
  bool progressive;      /* every batch is evaluated before it is trained on: that is the validation */
  bool shuffle;          /* keyed permutation per epoch; default true */
  bl_normalize normalize; /* of inputs; default unit for idx bytes, standard for csv, none for libsvm and npy */
  bool standardize_target; /* squared loss: train on (y - mean) / deviation, report in the file's units */
} bl_data_spec;

typedef struct bl_layer_spec {
  bl_layer_kind kind;
  const char *name;       /* unique in the model; default "dense1", "dense2", ... counted per kind */
  uint32_t units;         /* dense, sparse */
  bl_activation activation; /* dense, sparse (fused) and activation layers */
  bool bias;              /* dense, sparse; default true */
  bl_weight_init init;
  double rate;            /* dropout */
  unsigned line;          /* in the job file */
} bl_layer_spec;

typedef struct bl_model_spec {
  uint64_t input[BL_JOB_DIMS_MAX];
  size_t n_input_dims;
  bl_layer_spec *layers;  /* [n_layers] */
  size_t n_layers;
} bl_model_spec;

#define BL_JOB_PRIORITY_MAX 100 /* and -100 the least */
/* What is measured beside loss and accuracy. */
typedef struct bl_metrics_spec {
  uint32_t top_k;  /* the right class is among the k best; 0: not asked for */
  bool auc;        /* two classes */
  bool log_loss;   /* the loss by its usual name: of the class losses, without extras */
  bool confusion;
} bl_metrics_spec;

/* Where training starts. */
typedef struct bl_init_spec {
  const char *path; /* absolute: a model folder or a safetensors file; NULL: from the seed */
  uint64_t job;     /* its output folder; 0: not given. The coordinator makes a path of it */
  bool resume;      /* goes on behind the epochs that the folder's training has done */
} bl_init_spec;

typedef enum bl_stop_mode { BL_STOP_AUTO = 0 /* only while reading */, BL_STOP_MIN, BL_STOP_MAX } bl_stop_mode;

/* Early stopping. */
typedef struct bl_stop_spec {
  const char *metric; /* "validation_loss"; NULL: off */
  uint32_t patience;  /* epochs without a better one */
  double min_delta;
  bl_stop_mode mode;  /* which of two values is better */
} bl_stop_spec;

/* What a parameter group says about the updates of a tensor. All zero: no group. */
typedef struct bl_update_group {
  bool set;
  double lr_scale;     /* factor on the learning rate */
  double weight_decay; /* in place of the optimizer's; BL_OPTIM_DECAY_OF_RULE: not given */
  bool frozen;         /* never changed */
} bl_update_group;

/* How a tensor travels: job/policy.h makes it. */
typedef struct bl_tensor_policy {
  bl_codec_spec push, pull;
  bool feedback;          /* what a frame of a push leaves out is kept by the worker and sent with a later one; pulls
                             always have it */
  float momentum;         /* pushed is u = momentum * u + gradient, kept by the worker, of exact tensors too, since the
                             servers then have no momentum; 0: the gradient */
  uint32_t warmup_epochs; /* in which both directions keep more than their density */
} bl_tensor_policy;

/* What the servers do with the differences that ranks bring back from their local steps. */
typedef struct bl_outer_spec {
  const char *rule;       /* "average", "nesterov", "adam", "yogi" */
  bl_param *params;
  size_t n_params;
  uint32_t streams;       /* parts of the model, one of which is exchanged in a round; 1: all of it in every round */
  uint32_t overlap;       /* steps of the next round that are taken while the exchange is under way */
  double mix;             /* with overlap: what a rank keeps of its own weights when the servers' arrive */
} bl_outer_spec;

#define BL_JOB_STREAMS_MAX 1024
#define BL_JOB_COMPRESSION_RULES_MAX 256
#define BL_JOB_EXACT_BELOW 1024 /* elements; default */
#define BL_JOB_WARMUP_EPOCHS_MAX 1000

typedef enum bl_tensor_kind { BL_KIND_ANY = 0, BL_KIND_WEIGHT, BL_KIND_BIAS /* and what normalisation learns */ } bl_tensor_kind;

/* A codec for some tensors; a direction whose codec is NULL is as without the rule. */
typedef struct bl_compression_rule {
  const char *match;             /* pattern of tensor names, bl_str_glob; NULL: any */
  uint64_t elems_min, elems_max; /* both may be met */
  bl_tensor_kind kind;
  bl_codec_spec push, pull;
  unsigned line;                 /* in the job file */
} bl_compression_rule;

/* What the job file says about compression, with the preset's part written out. */
typedef struct bl_compression_spec {
  const char *preset;        /* for people; NULL: none */
  bool adapts;               /* preset auto: codecs are chosen while the job runs */
  bl_codec_spec push, pull;  /* of tensors that nothing below says otherwise of */
  uint64_t exact_below;      /* tensors with fewer elements, and biases of any size, travel as `small`; 0: as the others */
  bl_codec_spec small;       /* never in a direction that is exact for the others */
  bool feedback;             /* lossy pushes have error feedback */
  double momentum_correction;
  uint32_t warmup_epochs;
  bl_compression_rule *rules; /* [n_rules]; the first that holds for a tensor decides */
  size_t n_rules;
} bl_compression_spec;

typedef struct bl_group_spec {
  const char *match;   /* pattern of tensor names, bl_str_glob */
  bl_update_group says;
  unsigned line;       /* in the job file */
} bl_group_spec;

/* What becomes of a clock whose gradient holds a NaN or an infinity. Numbers are pinned: they travel in the plan. */
typedef enum bl_not_finite {
  BL_NOT_FINITE_FAIL = 0,   /* the job fails */
  BL_NOT_FINITE_SKIP = 1,   /* nothing of that clock is applied; of free running ranks: of that rank's clock */
  BL_NOT_FINITE_CLIP = 2,   /* NaN becomes 0, the rest is cut to BL_JOB_FINITE_MAX */
  BL_NOT_FINITE_COUNT
} bl_not_finite;

#define BL_JOB_FINITE_MAX 1e4f        /* far above any gradient that trains, and a number in float16 */
#define BL_JOB_NOT_FINITE_ROW_MAX 100 /* of a rank's clocks in a row, after which the job fails all the same */

typedef struct bl_job_spec {
  bl_arena arena;
  const char *file;       /* path as given, for messages */
  const char *name;
  uint64_t seed;
  bl_data_spec data;
  bl_model_spec model;
  bl_loss_kind loss;
  const char *optimizer;  /* rule name, checked against optim's registry */
  bl_param *optimizer_params;
  size_t n_optimizer_params;
  const char *schedule;   /* "constant" */
  bl_param *schedule_params;
  size_t n_schedule_params;
  bl_group_spec *groups;  /* [n_groups]; the first that matches a tensor's name holds for it */
  size_t n_groups;
  double clip_value, clip_norm, clip_global_norm; /* 0: off */
  bl_not_finite not_finite;
  double average_ema;     /* decay of the average of weights that is evaluated and saved; 0: none */
  uint64_t key_cache_bytes;     /* of tables: lists of keys that a shard remembers; 0: off */
  uint64_t batch;         /* global */
  uint32_t accumulate;    /* batches of one clock; default 1 */
  uint64_t epochs;
  uint32_t ranks;
  uint32_t workers_min;   /* waits below; default 1 */
  const char *sync;       /* "bsp", "ssp", "asp", "local" */
  uint32_t staleness;     /* ssp */
  uint32_t local_steps;   /* local: of every rank in a round, which is a clock; 0: not local */
  bl_outer_spec outer;    /* local */
  bl_compression_spec compression;
  uint64_t chunk_bytes;   /* of float32; default 1 MiB; multiple of 4 KiB */
  int32_t priority;       /* in the queue: higher goes first; default 0 */
  const char *const *metrics; /* [n_metrics] as written: top5, auc, log_loss, confusion */
  size_t n_metrics;
  bl_metrics_spec measure;    /* the same */
  bl_stop_spec stop;
  bl_init_spec init;
  uint32_t task_retries;  /* how often a crashed task is started again; default 3 */
  uint32_t blas_threads;  /* default 1 */
  uint64_t save_every;    /* epochs; 0: only at the end */
  const char *output;     /* absolute folder or NULL */
} bl_job_spec;

/* Its first layer is sparse: samples stay sparse, its weight is a table. */
bool bl_model_is_sparse(const bl_model_spec *model);

/* Parses text. base_dir: absolute folder for relative paths. overrides: "a.b=value" strings (--set), applied
 * to the document before the checks. *ret_spec is owned by the caller. BL_EINVAL with all mistakes in *errors. */
BL_MUST_CHECK bl_status bl_job_spec_parse(const char *text, size_t size, const char *file, const char *base_dir,
                                          const char *const *overrides, size_t n_overrides, bl_job_spec **ret_spec,
                                          bl_conf_errors *errors);
BL_MUST_CHECK bl_status bl_job_spec_read(const char *path, const char *const *overrides, size_t n_overrides,
                                         bl_job_spec **ret_spec, bl_conf_errors *errors);
void bl_job_spec_free(bl_job_spec *spec);

/* The whole spec as YAML with every default written out and absolute paths: parsing it again gives an equal
 * spec. Fields that came after version 1 of the protocol are left out at their defaults, so that a job which uses
 * none of them can be read by programs of version 1. What is submitted, stored, and put beside a trained model. */
void bl_job_spec_dump(const bl_job_spec *spec, bl_buf *out);

/* Samples of a full clock over all ranks: batch * accumulate, or of a round of local steps batch * steps. */
uint64_t bl_job_clock_samples(const bl_job_spec *spec);

/* All ranks work on one clock (bsp, local), or every rank runs on a clock of its own (ssp, asp). */
bool bl_sync_in_step(const char *sync);

/* A rule of the registries of optim with its parameters; borrowed from the spec. */
typedef struct bl_job_rule {
  const char *name;
  const bl_param *params;
  size_t n_params;
} bl_job_rule;

/* What the shards step by: the job's optimizer and schedule, or with local steps the outer optimizer at a constant rate. */
bl_job_rule bl_job_server_rule(const bl_job_spec *spec);
bl_job_rule bl_job_server_schedule(const bl_job_spec *spec);
/* Ranks go on with weights of their own while the servers' are elsewhere: streams or overlap. */
bool bl_job_holds_weights(const bl_job_spec *spec);
/* The optimizer of the ranks accumulates something from round to round: a rank's steps are not a function of the weights
 * and the clock alone. */
bool bl_job_steps_have_state(const bl_job_spec *spec);
/* What of a tensor's group they are told: with local steps the rest is the workers'. */
bl_update_group bl_job_server_group(const bl_job_spec *spec, bl_update_group group);

/* The table behind it, for the tests of the documentation. */
struct bl_field;
const struct bl_field *bl_job_spec_fields(size_t *ret_n);

#endif
