/* SPDX-License-Identifier: Apache-2.0
 *
 * From a model to its tensors and chunks: names, shapes, initial values, slices. Pure functions of the job
 * file: the same on coordinator, servers and workers, whatever the size of the cluster.
 */
#ifndef BL_JOB_TENSORS_H
#define BL_JOB_TENSORS_H

#include "job/spec.h"

#define BL_JOB_CHUNKS_MAX (1u << 24)
#define BL_JOB_ELEMS_MAX (UINT64_C(1) << 44) /* of one model: 64 TiB of float32 */
#define BL_TABLE_ROWS_MAX (UINT64_C(1) << 40)
#define BL_TABLE_BUCKETS_MAX 4096 /* chunks of one table */
#define BL_TABLE_FRAME_ROWS_MAX (1u << 17) /* of one chunk in one message: its keys must fit in beside the numbers */

typedef struct bl_tensor {
  const char *name;            /* "dense1.weight", "dense1.bias" */
  uint64_t dims[BL_JOB_DIMS_MAX];
  uint32_t n_dims;
  uint64_t n_elems;
  bl_init_kind init;
  float init_scale;
  bool no_decay;               /* biases */
  bool table;                  /* dims are [rows, width]; rows are made at first touch, on the shards only */
  bl_update_group group;
  bl_tensor_policy policy;     /* of a model's own table (no job): exact */
  uint32_t layer;              /* index into the model's layers */
  uint32_t stream;             /* which part of the model it belongs to; set by bl_tensor_table_set_streams */
  /* Set by bl_tensor_table_of_list: */
  uint32_t first_chunk, n_chunks;
  uint32_t bucket_bits;        /* tables: log2 of n_chunks */
} bl_tensor;

/* A fixed slice of a tensor, the unit of placement, framing, logging, de-duplication and repair.
 *
 * Of a table it is a bucket of rows: every run of n_chunks rows that begins at a multiple of n_chunks has one
 * row in each bucket, turned by a hash of the run's number (bl_table_bucket). So buckets are of one size
 * whatever the rows that a job uses have in common, and a row's bucket depends on the table's shape alone. */
typedef struct bl_chunk {
  uint32_t tensor;
  uint32_t n_elems;   /* at most BL_CODEC_ELEMS_MAX; of a bucket: as if all its rows were there, or that limit */
  uint64_t first;     /* first element within the tensor; of a bucket: its number */
} bl_chunk;

typedef struct bl_tensor_table {
  bl_arena arena;
  bl_tensor *tensors; /* in the order of the layers: forward order */
  uint32_t n_tensors;
  bl_chunk *chunks;   /* by tensor, then by position */
  uint32_t n_chunks;
  uint64_t chunk_elems;
  uint64_t n_elems;   /* over all tensors */
  uint32_t n_streams; /* parts that are exchanged in turn; 0, 1: everything in every clock */
  uint64_t n_clocks;  /* with streams: of the job */
  uint64_t n_placed;  /* over all chunks: less than n_elems only where a table has more rows than buckets can hold */
} bl_tensor_table;

/* Which update of a tensor it is, with what its group says. clock, step: as in bl_optim_at. */
static inline bl_optim_at bl_tensor_optim_at(const bl_tensor *t, uint64_t clock, uint64_t step) {
  bl_optim_at at = bl_optim_at_clock(clock, t->no_decay);
  at.step = step;
  if (t->group.set) {
    at.lr_scale = t->group.lr_scale;
    if (t->group.weight_decay >= 0) /* a group's word counts for biases too */
      at.weight_decay = t->group.weight_decay;
  }
  return at;
}

/* The tensors of a model without chunks; they live in the arena. Dense weight: [inputs, units] row-major, so that y = x W + b. BL_EINVAL names layer and shapes. */
BL_MUST_CHECK bl_status bl_model_tensors(const bl_model_spec *model, bl_arena *arena, bl_tensor **ret_tensors,
                                         uint32_t *ret_n, bl_error *err);
/* The group that holds for a tensor of this name; NULL: none. */
const bl_group_spec *bl_job_group_of(const bl_job_spec *spec, const char *tensor);
/* The tables of a job's tensors, groups included, and of a model's. */
BL_MUST_CHECK bl_status bl_tensor_table_of_job(const bl_job_spec *spec, bl_tensor_table **ret_table, bl_error *err);
BL_MUST_CHECK bl_status bl_tensor_table_of_model(const bl_model_spec *model, uint64_t chunk_bytes,
                                                 bl_tensor_table **ret_table, bl_error *err);
/* The same from explicit tensors (a received plan). The array is copied. */
BL_MUST_CHECK bl_status bl_tensor_table_of_list(const bl_tensor *tensors, uint32_t n, uint64_t chunk_elems,
                                                bl_tensor_table **ret_table, bl_error *err);
void bl_tensor_table_free(bl_tensor_table *t);
/* Is any tensor a table of rows? */
bool bl_tensor_table_has_tables(const bl_tensor_table *t);
/* Are the weights of every tensor pulled as they are? */
bool bl_tensor_table_pulls_exactly(const bl_tensor_table *t);
/* Largest frame of a chunk in one direction, whatever is in it. */
size_t bl_tensor_table_frame_bytes_max(const bl_tensor_table *t, bool push);

/* Of a tensor as a matrix of dims[0] rows; 0: it has one dimension. */
static inline uint32_t bl_tensor_columns(const bl_tensor *t) {
  return t->n_dims > 1 ? (uint32_t)(t->n_elems / t->dims[0]) : 0;
}

/* ---- streams ----
 * Of a model whose parts are exchanged in turn, part c mod n_streams is in clock c, and in the last clock of the job all are. A
 * part is a run of tensors; parts have about the same number of elements, and none is empty where there are tensors enough.
 * Both ends derive this from the plan, so nothing about it travels. */
void bl_tensor_table_set_streams(bl_tensor_table *t, uint32_t n_streams, uint64_t n_clocks);

/* Is the tensor exchanged in this clock? */
static inline bool bl_tensor_in_clock(const bl_tensor_table *t, uint32_t tensor, uint64_t clock) {
  return t->n_streams <= 1 || clock % t->n_streams == t->tensors[tensor].stream || clock + 1 == t->n_clocks;
}

/* In how many of the clocks before this one it was; without streams the clock itself. */
uint64_t bl_tensor_exchanges(const bl_tensor_table *t, uint32_t tensor, uint64_t clock);
/* The clock behind its last exchange before this one; 0: there was none. Without streams the clock itself. */
uint64_t bl_tensor_exchanged(const bl_tensor_table *t, uint32_t tensor, uint64_t clock);

/* ---- tables ---- */

static inline uint64_t bl_table_rows(const bl_tensor *t) { return t->dims[0]; }
static inline uint32_t bl_table_width(const bl_tensor *t) { return (uint32_t)t->dims[1]; }

/* Rows [k * n_chunks, (k + 1) * n_chunks) are run k. A row is known within its bucket by the number of its run. */
static inline uint64_t bl_table_run(const bl_tensor *t, uint64_t row) { return row >> t->bucket_bits; }

static inline uint32_t bl_table_turn(const bl_tensor *t, uint64_t run) {
  return (uint32_t)(((run ^ (run >> 31)) * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (t->n_chunks - 1);
}

/* Number of the row's bucket, row < rows. */
static inline uint32_t bl_table_bucket(const bl_tensor *t, uint64_t row) {
  return ((uint32_t)row + bl_table_turn(t, bl_table_run(t, row))) & (t->n_chunks - 1);
}

/* The row of a run that lies in a bucket. */
static inline uint64_t bl_table_row(const bl_tensor *t, uint32_t bucket, uint64_t run) {
  return run << t->bucket_bits | ((bucket - bl_table_turn(t, run)) & (t->n_chunks - 1));
}

/* Runs with a row in this bucket are those below this number: the last run may be short. */
static inline uint64_t bl_table_runs(const bl_tensor *t, uint32_t bucket) {
  uint64_t whole = t->dims[0] >> t->bucket_bits;
  return whole + (bl_table_row(t, bucket, whole) < t->dims[0]);
}

/* Rows that one frame of a table's chunk may carry. */
static inline uint32_t bl_table_frame_rows_max(const bl_tensor_table *table, uint32_t tensor) {
  uint64_t n = table->chunk_elems / table->tensors[tensor].dims[1];
  return n < BL_TABLE_FRAME_ROWS_MAX ? (uint32_t)n : BL_TABLE_FRAME_ROWS_MAX;
}

/* Fills elements [first, first + n) of a tensor with its initial values: element i is a function of
 * (seed, tensor name, i) only. */
void bl_tensor_init_values(const bl_tensor *t, uint64_t seed, uint64_t first, uint64_t n, float *out);

/* A sample's shape on its way through the layers. */
typedef struct bl_shape {
  uint64_t dims[BL_JOB_DIMS_MAX];
  size_t n_dims;
} bl_shape;

/* dense, sparse */
bool bl_layer_has_weights(bl_layer_kind kind);

/* The shape behind a layer. BL_EINVAL when the layer does not take the shape; the text names both. */
BL_MUST_CHECK bl_status bl_layer_step(const bl_layer_spec *layer, bl_shape *shape, bl_error *err);

/* Size of the model's output (last layer) and its shape check against input and loss live in the parser. */
BL_MUST_CHECK bl_status bl_model_output_size(const bl_model_spec *model, uint64_t *ret_units, bl_error *err);

/* Total clocks of a job: epochs * ceil(train_samples / batch). */
uint64_t bl_job_clocks(uint64_t train_samples, uint64_t batch, uint64_t epochs);
/* The same where every rank has samples of its own (data.where: local): in each clock a rank takes batch / n_ranks
 * of them, and the rank with the most sets the number of clocks. With epochs = 1: clocks of an epoch.
 * batch: a multiple of n_ranks. */
uint64_t bl_job_clocks_local(const uint64_t *rank_samples, size_t n_ranks, uint64_t batch, uint64_t epochs);

#endif
