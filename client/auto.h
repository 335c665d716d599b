/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine of `compression: auto`. From what a rank sees of its clocks it picks, for each tensor and direction, the
 * codec that makes the clock shortest within an error budget, and says why in a sentence.
 *
 * The rule, in the order of its steps:
 *   1. Candidates stand on a ladder from the least to the most lossy, one ladder per direction. One whose squared error
 *      (relative to the squared norm, measured on this tensor's gradient) is above the budget is out; sparse ones are
 *      held to a budget of their own, and are there only where the job's optimizer allows sparse pushes.
 *   2. A model of the clock (auto_model.h) has compute, the part of it that pushes overlap with, rates and latency of the
 *      link, and the speed of each codec here. It gives the time of a clock for any choice of codecs.
 *   3. The choice is the one of least time, where a lossier codec has to earn its place (3.5 % of the clock to leave the
 *      exact one, a little for each further step, less than 5 % in all): so of codecs whose transfer hides behind computing
 *      the least lossy stays, and a fast link ends at `none`.
 *   4. What is in use is left only when that is worth it: 15 % of the clock at once, or less that adds up over
 *      decisions in a row; and a tensor that goes back where it came from has to wait twice as long as before.
 *
 * Pure: no clock (callers say what time it is), no socket, no allocation behind bl_auto_new. Decisions are a function of
 * the calls. Does not know sessions or trainers. Threads: one.
 *
 * How a session and its trainer use it; every call is a line where the thing happens:
 *
 *   bl_auto_new, bl_auto_calibrate                  at the start (calibrate takes about 5 ms)
 *   bl_auto_round_trip(a, ns)                       hello -> welcome, and whatever else is small and answered at once
 *   each clock:
 *     bl_auto_begin_clock(a, clock, now)            the weights are there, computing begins
 *     bl_auto_push_spec(a, tensor)                  what to encode with; does not change within a clock
 *     bl_auto_encoded(a, spec, elems, bytes, ns)    behind bl_codec_encode
 *     bl_auto_push_sent(a, bytes, now)              a push message has been handed to the transport
 *     bl_auto_push_acked(a, bytes, now)             the same bytes are acknowledged, at once or in parts
 *     while bl_auto_next_trial(a, &trial): bl_auto_try(a, &trial, grad of trial.tensor + trial.first, ...)
 *                                                   any time the gradient is there; or leave it: it comes again
 *     bl_auto_committed(a, now)                     the rank has nothing more to compute or to send
 *     bl_auto_pull_arrived(a, bytes, now)           a message with weights
 *     bl_auto_decoded(a, spec, elems, ns)           behind decode or accumulate
 *     bl_auto_end_clock(a, now)                     the weights of the next clock are complete: decisions fall here
 *     while ((d = bl_auto_next_decision(a)) != NULL) log `ev=codec_chosen`
 *   rank 0's commit carries bl_auto_pull_spec(a, tensor) where it has changed
 */
#ifndef BL_CLIENT_AUTO_H
#define BL_CLIENT_AUTO_H

#include "codec/codec.h"

typedef struct bl_auto bl_auto;

#define BL_AUTO_CANDIDATES_MAX 16 /* of one direction */
#define BL_AUTO_REASON_MAX 200    /* with its 0 */
#define BL_AUTO_TRIAL_ELEMS_MAX 16384u

typedef enum bl_auto_direction { BL_AUTO_PUSH = 0, BL_AUTO_PULL = 1, BL_AUTO_DIRECTIONS = 2 } bl_auto_direction;

typedef struct bl_auto_tensor {
  uint64_t n_elems;
  bool chosen[BL_AUTO_DIRECTIONS];          /* auto's to choose; else, and until the first decision, it travels as: */
  bl_codec_spec spec[BL_AUTO_DIRECTIONS];
} bl_auto_tensor;

typedef struct bl_auto_config {
  const bl_auto_tensor *tensors; /* [n_tensors], copied; in the order of the table (forward order) */
  uint32_t n_tensors;
  uint32_t world, n_shards;
  bool decides_pull;             /* rank 0: pull frames are encoded once, for all ranks */
  bool sparse;                   /* the job's optimizer allows sparse pushes (momentum corrected on the worker, or none) */
  /* Ladders, least lossy first, the first exact; copied. n 0: bl_auto_ladder's, those whose codecs there are. */
  const bl_codec_spec *ladder[BL_AUTO_DIRECTIONS];
  uint32_t n_ladder[BL_AUTO_DIRECTIONS];
  /* 0: the default in brackets. */
  double error_max;              /* relative squared error of a frame that carries all elements (0.1) */
  double error_max_sparse;       /* of a sparse one: what error feedback has to bring in later (0.98) */
  uint32_t first_clocks;         /* clocks before the first decision (20); 3 when they take longer than a second */
  uint32_t every_clocks;         /* between decisions (20) */
  uint32_t hold_clocks;          /* a tensor's codec is not changed again before (60) */
} bl_auto_config;

/* One decision. Pointers stand until the next bl_auto_end_clock. */
typedef struct bl_auto_decision {
  uint64_t clock;                /* from which on it holds */
  uint32_t tensor;
  bl_auto_direction direction;
  const bl_codec_spec *before, *spec;
  const char *reason;
} bl_auto_decision;

/* The specs of the default ladder as texts (codec/spec.h), NULL behind the last. */
extern const char *const bl_auto_ladder[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX + 1];

/* BL_EINVAL: a ladder that does not begin with an exact codec, or too long. BL_ENOMEM. */
BL_MUST_CHECK bl_status bl_auto_new(const bl_auto_config *config, bl_auto **ret_auto, bl_error *err);
void bl_auto_free(bl_auto *a);

/* ---- speeds of codecs ---- */

typedef uint64_t bl_auto_now_fn(void *arg);
/* What somebody else has measured of a candidate, per element; below 0: not known. */
void bl_auto_know(bl_auto *a, const bl_codec_spec *spec, double bytes, double encode_ns, double decode_ns, double error);
/* Times encode and decode of every candidate on a buffer of normally distributed numbers, so that the first decision
 * has speeds, sizes and errors to go by; what is measured while running takes their place. BL_ENOMEM: nothing is known yet, and
 * each codec is taken for a slow one (1 ns) until it has been used.
 * Cost: about 1 ms per candidate. */
BL_MUST_CHECK bl_status bl_auto_calibrate(bl_auto *a, bl_auto_now_fn *now_ns, void *arg);
/* A frame (or several of one spec together) has been encoded or decoded. ns 0: not timed. Specs that are on no ladder
 * and frames of fewer than 4096 elements teach nothing; their time still counts as encoding. */
void bl_auto_encoded(bl_auto *a, const bl_codec_spec *spec, uint64_t n_elems, uint64_t bytes, uint64_t ns);
void bl_auto_decoded(bl_auto *a, const bl_codec_spec *spec, uint64_t n_elems, uint64_t ns);

/* ---- errors of codecs: trial encodes of pieces of the gradient ---- */

typedef struct bl_auto_trial {
  uint32_t tensor, candidate; /* the engine's number of it */
  const bl_codec_spec *spec;
  uint64_t first;             /* elements [first, first + n) of the tensor; n: at most BL_AUTO_TRIAL_ELEMS_MAX */
  uint32_t n;
} bl_auto_trial;

/* The next trial that is due in this clock; false: none. At most 16 in a clock, in few clocks. */
bool bl_auto_next_trial(bl_auto *a, bl_auto_trial *ret_trial);
/* Does it: encodes x [trial->n] and compares. Scratch is the engine's own. */
void bl_auto_try(bl_auto *a, const bl_auto_trial *trial, uint64_t key, const float *x);
/* For those who encode themselves. error: sum of squares of (decoded - x) over that of x; bytes: of the frame. */
void bl_auto_tried(bl_auto *a, const bl_auto_trial *trial, double error, uint64_t bytes);

/* ---- what happens in a clock ---- */

void bl_auto_round_trip(bl_auto *a, uint64_t ns);
void bl_auto_begin_clock(bl_auto *a, uint64_t clock, uint64_t now_ns);
/* Bytes of messages. What was sent and is sent again counts again; in a new view: bl_auto_lost. */
void bl_auto_push_sent(bl_auto *a, uint64_t bytes, uint64_t now_ns);
void bl_auto_push_acked(bl_auto *a, uint64_t bytes, uint64_t now_ns);
/* A repeat or a new view: what is in flight says nothing about the link. */
void bl_auto_lost(bl_auto *a);
void bl_auto_committed(bl_auto *a, uint64_t now_ns);
void bl_auto_pull_arrived(bl_auto *a, uint64_t bytes, uint64_t now_ns);
void bl_auto_end_clock(bl_auto *a, uint64_t now_ns);

/* ---- what follows ---- */

/* Is it the engine's to choose, of this rank? Pulls only where it decides them. */
bool bl_auto_chooses(const bl_auto *a, uint32_t tensor, bl_auto_direction direction);
/* Never NULL; stand until bl_auto_free, equal specs by equal pointers. Of tensors that are not auto's: the config's. */
const bl_codec_spec *bl_auto_push_spec(const bl_auto *a, uint32_t tensor);
const bl_codec_spec *bl_auto_pull_spec(const bl_auto *a, uint32_t tensor);
/* Why, as a sentence; "" before the first decision and where there is nothing to decide. */
const char *bl_auto_reason(const bl_auto *a, uint32_t tensor, bl_auto_direction direction);
/* Decisions of the last bl_auto_end_clock, one by one; NULL: no more. */
const bl_auto_decision *bl_auto_next_decision(bl_auto *a);

/* What the engine believes, for the status page and tests. 0: not known yet. */
typedef struct bl_auto_view {
  double up_bytes_per_s, down_bytes_per_s, latency_ns, compute_ns, overlap_ns;
  double clock_ns;    /* measured */
  double chosen_ns;   /* the model's time of a clock with what is chosen, and with everything exact */
  double exact_ns;
  uint64_t changes;   /* decisions so far */
} bl_auto_view;
bl_auto_view bl_auto_get_view(const bl_auto *a);

#endif
