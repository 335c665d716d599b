/* SPDX-License-Identifier: Apache-2.0
 *
 * Local steps: the part of an optimizer's work that a rank does by itself between two exchanges. Owns what the rank
 * accumulates meanwhile (the moments of the job's optimizer, which go on from round to round) and the weights that the
 * round began with; the model's own arrays are the weights that the steps change. Knows nothing of data, sessions or rounds
 * of other ranks.
 *
 *   begin_round                     the model holds the weights of the round
 *   step, step, ...                 each by the gradients that backward has left in the model
 *   end_round(tensor, part)         difference(tensor) is what is to be pushed
 *   merge(tensor)                   the servers' new weights are there
 *
 * The difference is `part * (weights of the round - weights after the steps)`, the sign of a gradient: a server that goes
 * one whole step (lr 1) against the sum over the ranks has averaged their weights, if the parts add up to 1.
 *
 * Two ways of keeping weights. Plain: pulls go into the model, so end_round gives it the round's weights back (those of a lossy
 * codec are added to what the worker holds), and merge has nothing to do. With `held` weights (streams, overlap) pulls go
 * there, and the model is the rank's own: a tensor's difference is to held, whatever number of rounds ago that came; end_round leaves
 * the model as it is, and merge takes from both, mix * own + (1 - mix) * servers'. For evaluation the two change places.
 *
 * Numbers: element by element, or by kernels that are the same on every table, chunk by chunk as on the servers (lamb
 * measures a chunk), so the bits depend on the job alone.
 *
 * The moments are the rank's only state that its successor cannot compute again. They are lost with the process: the next
 * incarnation begins with zeros (wk_local_steps_has_state says whether there was anything to lose). Threads: one.
 * Source: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
 * Algorithm 1 (ClientUpdate); moments kept over rounds as in Douillard et al., "DiLoCo", 2023, Algorithm 1.
 */
#ifndef WK_TRAIN_LOCAL_STEPS_H
#define WK_TRAIN_LOCAL_STEPS_H

#include "job/tensors.h"
#include "optim/optim.h"

typedef struct wk_local_steps {
  const bl_tensor_table *table;           /* borrowed, as the next two */
  float *const *params, *const *grads;    /* [n_tensors], of the model */
  bl_optim optim;
  float clip_value;                       /* 0: off, as the next */
  double clip_norm;
  float *const *held;                     /* [n_tensors], borrowed: the servers' weights; NULL: they are the model's */
  float mix;                              /* with held */
  bool shown;                             /* held and the model's have changed places */
  float *start;                           /* [n_elems], owned: the round's weights (plain); from end_round the difference */
  float *slots[BL_OPTIM_SLOTS_MAX];       /* [n_elems] each, owned: the moments */
  uint64_t *first_elem;                   /* [n_tensors], owned: where a tensor begins in them */
  uint64_t n_updates;                     /* since the moments were zero */
  bool mends;                             /* not_finite: clip */
  uint32_t not_finite_tensor;             /* in the last step; n_tensors: none */
} wk_local_steps;

/* n_steps: of the job, for the schedule. held: NULL, or wk_held_weights_new's. BL_ENOMEM, or what bl_optim_init says. */
BL_MUST_CHECK bl_status wk_local_steps_init(wk_local_steps *l, const bl_job_spec *spec, const bl_tensor_table *table,
                                            float *const *params, float *const *grads, float *const *held, uint64_t n_steps,
                                            bl_error *err);
/* Also of one that is all zero. */
void wk_local_steps_fini(wk_local_steps *l);

void wk_local_steps_begin_round(wk_local_steps *l);
/* place: of the step in the schedule, from 0. False: a gradient holds a NaN or infinity, and nothing was changed (unless the
 * job's not_finite is clip: then it is mended). Gradients may be scaled and cut in place. */
bool wk_local_steps_step(wk_local_steps *l, uint64_t place);
void wk_local_steps_end_round(wk_local_steps *l, uint32_t tensor, double part);
/* Until the next begin_round; with held until the tensor's next end_round. */
float *wk_local_steps_difference(const wk_local_steps *l, uint32_t tensor);
void wk_local_steps_merge(wk_local_steps *l, uint32_t tensor);

/* All of the servers' weights are there for the first time: the model takes them. */
void wk_local_steps_start(wk_local_steps *l);
/* The model holds the servers' weights, or its own again; both may be called when it is so already. */
void wk_local_steps_show_held(wk_local_steps *l, bool show);

/* Arrays like a model's. NULL: no memory. */
float **wk_held_weights_new(const bl_tensor_table *table);
void wk_held_weights_free(float **held, const bl_tensor_table *table);

/* Something of the rounds before is only here. */
bool wk_local_steps_has_state(const wk_local_steps *l);
/* Name of a tensor whose gradient was not finite in the last step; NULL: none. */
const char *wk_local_steps_not_finite(const wk_local_steps *l);

#endif
