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

typedef struct bl_tensor {
  const char *name;            /* "dense1.weight", "dense1.bias" */
  uint64_t dims[BL_JOB_DIMS_MAX];
  uint32_t n_dims;
  uint64_t n_elems;
  bl_init_kind init;
  float init_scale;
  bool no_decay;               /* biases */
  bl_update_group group;
  uint32_t layer;              /* index into the model's layers */
} bl_tensor;

/* A fixed slice of a tensor, the unit of placement, framing, logging, de-duplication and repair. */
typedef struct bl_chunk {
  uint32_t tensor;
  uint32_t n_elems;   /* at most BL_CODEC_ELEMS_MAX */
  uint64_t first;     /* first element within the tensor */
} bl_chunk;

typedef struct bl_tensor_table {
  bl_arena arena;
  bl_tensor *tensors; /* in the order of the layers: forward order */
  uint32_t n_tensors;
  bl_chunk *chunks;   /* by tensor, then by position */
  uint32_t n_chunks;
  uint64_t chunk_elems;
  uint64_t n_elems;   /* over all tensors */
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

/* Fills elements [first, first + n) of a tensor with its initial values: element i is a function of
 * (seed, tensor name, i) only. */
void bl_tensor_init_values(const bl_tensor *t, uint64_t seed, uint64_t first, uint64_t n, float *out);

/* A sample's shape on its way through the layers. */
typedef struct bl_shape {
  uint64_t dims[BL_JOB_DIMS_MAX];
  size_t n_dims;
} bl_shape;

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
