/* SPDX-License-Identifier: Apache-2.0 */
#include "client/auto.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "client/choice.h"
#include "client/link.h"
#include "codec/spec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ERROR_MAX 0.1
#define ERROR_MAX_SPARSE 0.98
#define ERROR_SLACK 1.15         /* what is in use may be so much above the budget */
#define FIRST_CLOCKS 20
#define EVERY_CLOCKS 20
#define HOLD_CLOCKS 60
#define HOLD_MAX 32              /* times hold_clocks */
#define BACK_SOON 16             /* times its hold: going back within that is going back and forth */
#define QUICK_FIRST_NS BL_NS_PER_S
#define QUICK_FIRST_CLOCKS 3
#define QUICK_EVERY_NS (10 * BL_NS_PER_S)
#define QUICK_EVERY_CLOCKS 5
#define GAIN_AT_ONCE 0.15        /* of a clock */
#define GAIN_IDLE 0.02           /* less is nothing: it does not add up */
#define LINK_CHANGED 2.0         /* a factor that is more than noise */
#define RECENT 24                /* clocks */
#define TRIALS_PER_CLOCK 16
#define TRIAL_EVERY_CLOCKS 25
#define TRIAL_WEIGHT 0.3
#define COST_WEIGHT 0.1
#define COST_WEIGHT_FAR 0.01     /* of a time that is several times the usual: something else ran meanwhile */
#define COST_FAR 4
#define COST_UNKNOWN_NS 1
#define COST_ELEMS_MIN 4096      /* of a frame: of smaller ones headers and calls show, too */
#define CALIBRATE_REPEATS 3
#define CALIBRATE_SEED UINT64_C(0x6175746f)

const char *const bl_auto_ladder[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX + 1] = {
    {"float32", "float16", "int8", "int4", "topk(10%, int8)", "topk(3%, int8)", "topk(3%, ternary)"},
    {"float32", "float16", "int8", "int4", "topk(20%, int8)", "topk(10%, int8)"},
};

/* The last values of something, for their median. */
typedef struct recent {
  double at[RECENT];
  uint32_t n, next;
} recent;

/* Of a candidate's cost: what has been measured, and is no longer a guess. */
typedef struct known {
  bool bytes, encode, decode;
} known;

typedef struct tensor {
  bl_auto_tensor config;
  bl_codec_cost fixed[BL_AUTO_DIRECTIONS]; /* of what is not chosen */
  uint8_t before[BL_AUTO_DIRECTIONS];      /* step before the last change */
  uint64_t changed[BL_AUTO_DIRECTIONS];    /* clock of it; 0: never */
  uint64_t hold[BL_AUTO_DIRECTIONS];
  char reason[BL_AUTO_DIRECTIONS][BL_AUTO_REASON_MAX];
} tensor;

struct bl_auto {
  bl_auto_config config;
  bl_codec_spec specs[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX];
  bl_choice_candidate ladder[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX];
  uint32_t n_ladder[BL_AUTO_DIRECTIONS];
  double calibrated[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX]; /* error; below 0: not known */
  known known[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX];
  tensor *tensors;
  /* What is tried: all of the ladder of pushes, and behind it what that of pulls has besides. */
  const bl_codec_spec *tried[2 * BL_AUTO_CANDIDATES_MAX];
  uint32_t n_tried, tried_as[BL_AUTO_DIRECTIONS][BL_AUTO_CANDIDATES_MAX];
  float *errors;            /* [n_tensors, n_tried]; below 0: not tried */
  uint8_t *plan, *best, *trial_plan; /* [2 * n_tensors] */
  bl_choice_tensor *problem; /* [n_tensors] */
  bl_clock_tensor *scratch;  /* [n_tensors] */
  bl_auto_decision *decisions; /* [2 * n_tensors] */
  uint32_t n_decisions, next_decision;
  uint8_t *frame;           /* of a trial */
  float *decoded;           /* [BL_AUTO_TRIAL_ELEMS_MAX] */
  /* trials */
  uint64_t next_trial, n_passes;
  uint32_t trials_left;
  /* this clock */
  uint64_t clock, begin_ns, push_ns, commit_ns;
  uint64_t encode_ns, encode_before_push_ns; /* until the commit */
  bool in_clock;
  /* clocks */
  bl_link link;
  recent compute, overlap, whole;
  uint64_t n_clocks, since_clocks, since_ns; /* since the last decision */
  bool decided;
  double gain;              /* that has added up */
  double up_then, down_then; /* at the last change */
  bl_auto_view view;
};

/* ---- small things ---- */

static void recent_put(recent *r, double v) {
  r->at[r->next] = v;
  r->next = (r->next + 1) % RECENT;
  r->n = BL_MIN(r->n + 1, RECENT);
}

static double recent_median(const recent *r) {
  double sorted[RECENT];
  for (uint32_t i = 0; i < r->n; i++) {
    uint32_t k = i;
    for (; k > 0 && sorted[k - 1] > r->at[i]; k--)
      sorted[k] = sorted[k - 1];
    sorted[k] = r->at[i];
  }
  return r->n > 0 ? sorted[r->n / 2] : 0;
}

static bool changed_by(double a, double b, double factor) { return a > b * factor || b > a * factor; }

static double density_of(const bl_codec_spec *s) { return s->codec->sparse ? s->density : 1; }

static float *error_of(const bl_auto *a, uint32_t t, uint32_t candidate) {
  return &a->errors[(size_t)t * a->n_tried + candidate];
}

static bool is_chosen(const bl_auto *a, uint32_t t, int d) {
  return a->tensors[t].config.chosen[d] && (d == BL_AUTO_PUSH || a->config.decides_pull);
}

/* ---- life ---- */

static bl_status take_ladder(bl_auto *a, int d, bl_error *err) {
  const bl_codec_spec *from = a->config.ladder[d];
  uint32_t n = 0;
  if (a->config.n_ladder[d] > BL_AUTO_CANDIDATES_MAX)
    return bl_fail(err, BL_EINVAL, "%u candidates; at most %d", a->config.n_ladder[d], BL_AUTO_CANDIDATES_MAX);
  for (uint32_t i = 0; i < a->config.n_ladder[d]; i++)
    a->specs[d][n++] = from[i];
  for (uint32_t i = 0; a->config.n_ladder[d] == 0 && bl_auto_ladder[d][i] != NULL; i++)
    if (bl_codec_spec_read(bl_auto_ladder[d][i], &a->specs[d][n], NULL) == BL_OK)
      n++;
  if (n == 0 || !a->specs[d][0].codec->exact)
    return bl_fail(err, BL_EINVAL, "the first candidate must be exact");
  a->n_ladder[d] = n;
  for (uint32_t i = 0; i < n; i++) {
    const bl_codec_spec *s = &a->specs[d][i];
    double bytes = (double)bl_codec_bound_bytes(s, BL_AUTO_TRIAL_ELEMS_MAX) / BL_AUTO_TRIAL_ELEMS_MAX;
    a->ladder[d][i] = (bl_choice_candidate){{bytes, COST_UNKNOWN_NS, COST_UNKNOWN_NS}, density_of(s)};
    a->calibrated[d][i] = s->codec->exact ? 0 : -1;
  }
  return BL_OK;
}

static void list_tried(bl_auto *a) {
  for (int d = 0; d < BL_AUTO_DIRECTIONS; d++) {
    for (uint32_t i = 0; i < a->n_ladder[d]; i++) {
      uint32_t k = 0;
      while (k < a->n_tried && !bl_codec_spec_equal(a->tried[k], &a->specs[d][i]))
        k++;
      if (k == a->n_tried)
        a->tried[a->n_tried++] = &a->specs[d][i];
      a->tried_as[d][i] = k;
    }
  }
}

static void take_tensors(bl_auto *a) {
  for (uint32_t t = 0; t < a->config.n_tensors; t++) {
    tensor *at = &a->tensors[t];
    at->config = a->config.tensors[t];
    uint32_t n = (uint32_t)BL_MIN(BL_MAX(at->config.n_elems, 1), BL_CODEC_ELEMS_MAX);
    for (int d = 0; d < BL_AUTO_DIRECTIONS; d++) {
      at->hold[d] = a->config.hold_clocks;
      if (!at->config.chosen[d])
        at->fixed[d].bytes = (double)bl_codec_bound_bytes(&at->config.spec[d], n) / n;
    }
    for (uint32_t i = 0; i < a->n_tried; i++)
      *error_of(a, t, i) = a->tried[i]->codec->exact ? 0 : -1;
  }
}

static bl_status allocate(bl_auto *a) {
  size_t n = BL_MAX(a->config.n_tensors, 1u), frame = 0;
  for (uint32_t i = 0; i < a->n_tried; i++)
    frame = BL_MAX(frame, bl_codec_bound_bytes(a->tried[i], BL_AUTO_TRIAL_ELEMS_MAX));
  a->tensors = bl_calloc(n, sizeof *a->tensors);
  a->errors = bl_calloc(n * a->n_tried, sizeof *a->errors);
  a->plan = bl_calloc(n, 2);
  a->best = bl_calloc(n, 2);
  a->trial_plan = bl_calloc(n, 2);
  a->problem = bl_calloc(n, sizeof *a->problem);
  a->scratch = bl_calloc(n, sizeof *a->scratch);
  a->decisions = bl_calloc(n, 2 * sizeof *a->decisions);
  a->frame = bl_calloc_aligned(frame, 1);
  a->decoded = bl_calloc_aligned(BL_AUTO_TRIAL_ELEMS_MAX, sizeof *a->decoded);
  bool all = a->tensors != NULL && a->errors != NULL && a->plan != NULL && a->best != NULL && a->trial_plan != NULL &&
             a->problem != NULL && a->scratch != NULL && a->decisions != NULL && a->frame != NULL && a->decoded != NULL;
  return all ? BL_OK : BL_ENOMEM;
}

static void set_defaults(bl_auto_config *c) {
  c->error_max = c->error_max > 0 ? c->error_max : ERROR_MAX;
  c->error_max_sparse = c->error_max_sparse > 0 ? c->error_max_sparse : ERROR_MAX_SPARSE;
  c->first_clocks = c->first_clocks > 0 ? c->first_clocks : FIRST_CLOCKS;
  c->every_clocks = c->every_clocks > 0 ? c->every_clocks : EVERY_CLOCKS;
  c->hold_clocks = c->hold_clocks > 0 ? c->hold_clocks : HOLD_CLOCKS;
  c->world = BL_MAX(c->world, 1u);
  c->n_shards = BL_MAX(c->n_shards, 1u);
}

bl_status bl_auto_new(const bl_auto_config *config, bl_auto **ret_auto, bl_error *err) {
  bl_auto *a = bl_calloc(1, sizeof *a);
  if (a == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for the choice of codecs");
  a->config = *config;
  set_defaults(&a->config);
  bl_status st = take_ladder(a, BL_AUTO_PUSH, err);
  if (st == BL_OK)
    st = take_ladder(a, BL_AUTO_PULL, err);
  if (st == BL_OK)
    list_tried(a);
  if (st == BL_OK && allocate(a) != BL_OK)
    st = bl_fail(err, BL_ENOMEM, "no memory to choose codecs for %u tensors", config->n_tensors);
  if (st != BL_OK) {
    bl_auto_free(a);
    return st;
  }
  take_tensors(a);
  a->config.tensors = NULL; /* borrowed for the call */
  *ret_auto = a;
  return BL_OK;
}

void bl_auto_free(bl_auto *a) {
  if (a == NULL)
    return;
  bl_free(a->tensors);
  bl_free(a->errors);
  bl_free(a->plan);
  bl_free(a->best);
  bl_free(a->trial_plan);
  bl_free(a->problem);
  bl_free(a->scratch);
  bl_free(a->decisions);
  bl_free_aligned(a->frame);
  bl_free_aligned(a->decoded);
  bl_free(a);
}

/* ---- speeds ---- */

static void cost_put(double *cost, bool *is_known, double v) {
  double weight = !*is_known ? 1 : v > *cost * COST_FAR ? COST_WEIGHT_FAR : COST_WEIGHT;
  *cost += weight * (v - *cost);
  *is_known = true;
}

void bl_auto_encoded(bl_auto *a, const bl_codec_spec *spec, uint64_t n_elems, uint64_t bytes, uint64_t ns) {
  if (a->in_clock && a->commit_ns == 0)
    a->encode_ns += ns;
  for (int d = 0; d < BL_AUTO_DIRECTIONS && n_elems >= COST_ELEMS_MIN; d++) {
    for (uint32_t i = 0; i < a->n_ladder[d]; i++) {
      if (!bl_codec_spec_equal(spec, &a->specs[d][i]))
        continue;
      bl_codec_cost *cost = &a->ladder[d][i].cost;
      cost_put(&cost->bytes, &a->known[d][i].bytes, (double)bytes / (double)n_elems);
      if (ns > 0)
        cost_put(&cost->encode_ns, &a->known[d][i].encode, (double)ns / (double)n_elems);
    }
  }
}

void bl_auto_decoded(bl_auto *a, const bl_codec_spec *spec, uint64_t n_elems, uint64_t ns) {
  for (int d = 0; d < BL_AUTO_DIRECTIONS && n_elems >= COST_ELEMS_MIN && ns > 0; d++)
    for (uint32_t i = 0; i < a->n_ladder[d]; i++)
      if (bl_codec_spec_equal(spec, &a->specs[d][i]))
        cost_put(&a->ladder[d][i].cost.decode_ns, &a->known[d][i].decode, (double)ns / (double)n_elems);
}

static void know(double *cost, bool *is_known, double v) {
  if (!(v >= 0))
    return;
  *cost = v;
  *is_known = true;
}

void bl_auto_know(bl_auto *a, const bl_codec_spec *spec, double bytes, double encode_ns, double decode_ns, double error) {
  for (int d = 0; d < BL_AUTO_DIRECTIONS; d++) {
    for (uint32_t i = 0; i < a->n_ladder[d]; i++) {
      if (!bl_codec_spec_equal(spec, &a->specs[d][i]))
        continue;
      known *k = &a->known[d][i];
      know(&a->ladder[d][i].cost.bytes, &k->bytes, bytes);
      know(&a->ladder[d][i].cost.encode_ns, &k->encode, encode_ns);
      know(&a->ladder[d][i].cost.decode_ns, &k->decode, decode_ns);
      a->calibrated[d][i] = error >= 0 ? error : a->calibrated[d][i];
    }
  }
}

static size_t encode(bl_auto *a, const bl_codec_spec *spec, uint64_t key, const float *x, float *residual, uint32_t n) {
  bl_encode e = {.spec = spec, .key = key};
  return bl_codec_encode(&e, x, residual, n, 0, a->frame);
}

static void decode(const bl_auto *a, size_t size, float *y) {
  bl_codec_view v = bl_codec_trusted(a->frame, size);
  v.codec->decode(&v, y);
}

/* Squared error over squared norm; below 0: of zeros, or of what is not finite. */
static double relative_error(const float *x, const float *y, uint32_t n) {
  double error = 0, all = 0;
  for (uint32_t i = 0; i < n; i++) {
    double e = (double)y[i] - (double)x[i];
    error += e * e;
    all += (double)x[i] * (double)x[i];
  }
  return all > 0 && isfinite(error) && isfinite(all) ? error / all : -1;
}

static void calibrate_one(bl_auto *a, const bl_codec_spec *spec, const float *x, float *residual, bl_auto_now_fn *now_ns,
                          void *arg) {
  const uint32_t n = BL_AUTO_TRIAL_ELEMS_MAX;
  uint64_t encode_ns = UINT64_MAX, decode_ns = UINT64_MAX;
  size_t size = encode(a, spec, 0, x, NULL, n);
  decode(a, size, a->decoded);
  double error = relative_error(x, a->decoded, n);
  memset(residual, 0, n * sizeof *residual);
  for (uint64_t r = 1; r <= CALIBRATE_REPEATS; r++) {
    uint64_t from = now_ns(arg);
    size = encode(a, spec, r, x, residual, n);
    uint64_t between = now_ns(arg);
    decode(a, size, a->decoded);
    uint64_t to = now_ns(arg);
    encode_ns = BL_MIN(encode_ns, between - from);
    decode_ns = BL_MIN(decode_ns, to - between);
  }
  bl_auto_know(a, spec, (double)size / n, (double)encode_ns / n, (double)decode_ns / n, error);
}

bl_status bl_auto_calibrate(bl_auto *a, bl_auto_now_fn *now_ns, void *arg) {
  float *x = bl_calloc_aligned(BL_AUTO_TRIAL_ELEMS_MAX, sizeof *x);
  float *residual = bl_calloc_aligned(BL_AUTO_TRIAL_ELEMS_MAX, sizeof *residual);
  bl_status st = x != NULL && residual != NULL ? BL_OK : BL_ENOMEM;
  for (uint32_t i = 0; st == BL_OK && i < BL_AUTO_TRIAL_ELEMS_MAX; i++)
    x[i] = bl_rng_normal(CALIBRATE_SEED, 0, i);
  for (uint32_t i = 0; st == BL_OK && i < a->n_tried; i++)
    calibrate_one(a, a->tried[i], x, residual, now_ns, arg);
  bl_free_aligned(x);
  bl_free_aligned(residual);
  return st;
}

/* ---- trials ---- */

static bool is_worth_a_trial(const bl_auto *a, uint32_t t, uint32_t candidate) {
  const bl_codec *c = a->tried[candidate]->codec;
  bool wanted = is_chosen(a, t, BL_AUTO_PUSH) || is_chosen(a, t, BL_AUTO_PULL);
  return wanted && a->tensors[t].config.n_elems > 0 && !c->exact && (!c->sparse || a->config.sparse);
}

bool bl_auto_next_trial(bl_auto *a, bl_auto_trial *ret_trial) {
  uint64_t all = (uint64_t)a->config.n_tensors * a->n_tried;
  while (a->trials_left > 0) {
    uint64_t at = a->next_trial++;
    uint32_t t = (uint32_t)(at / a->n_tried), k = (uint32_t)(at % a->n_tried);
    if (a->next_trial >= all) { /* once through: the rest another time */
      a->next_trial = 0;
      a->n_passes++;
      a->trials_left = 1;
    }
    if (at < all && is_worth_a_trial(a, t, k)) {
      uint64_t n_elems = a->tensors[t].config.n_elems, n = BL_MIN(n_elems, BL_AUTO_TRIAL_ELEMS_MAX);
      uint64_t first = n_elems > n ? (a->n_passes * UINT64_C(0x9e3779b97f4a7c15)) % (n_elems - n + 1) : 0;
      *ret_trial = (bl_auto_trial){t, k, a->tried[k], first, (uint32_t)n};
      a->trials_left--;
      return true;
    }
    a->trials_left -= at + 1 >= all; /* nothing was worth one behind the last */
  }
  return false;
}

void bl_auto_try(bl_auto *a, const bl_auto_trial *trial, uint64_t key, const float *x) {
  size_t size = encode(a, trial->spec, key, x, NULL, trial->n);
  decode(a, size, a->decoded);
  bl_auto_tried(a, trial, relative_error(x, a->decoded, trial->n), size);
}

void bl_auto_tried(bl_auto *a, const bl_auto_trial *trial, double error, uint64_t bytes) {
  if (!(error >= 0) || trial->tensor >= a->config.n_tensors || trial->candidate >= a->n_tried)
    return;
  float *e = error_of(a, trial->tensor, trial->candidate);
  *e = *e < 0 ? (float)error : *e + (float)TRIAL_WEIGHT * ((float)error - *e);
  if (trial->n == BL_AUTO_TRIAL_ELEMS_MAX) /* headers of small pieces say little of chunks */
    bl_auto_encoded(a, trial->spec, trial->n, bytes, 0);
}

/* ---- a clock ---- */

void bl_auto_round_trip(bl_auto *a, uint64_t ns) { bl_link_round_trip(&a->link, ns); }

void bl_auto_begin_clock(bl_auto *a, uint64_t clock, uint64_t now_ns) {
  bl_link_begin_clock(&a->link);
  a->clock = clock;
  a->begin_ns = now_ns;
  a->push_ns = a->commit_ns = a->encode_ns = a->encode_before_push_ns = 0;
  a->in_clock = true;
  a->trials_left = a->n_passes == 0 || clock % TRIAL_EVERY_CLOCKS == 0 ? TRIALS_PER_CLOCK : 0;
  if (a->since_ns == 0)
    a->since_ns = now_ns;
}

void bl_auto_push_sent(bl_auto *a, uint64_t bytes, uint64_t now_ns) {
  if (a->push_ns == 0) {
    a->push_ns = now_ns;
    a->encode_before_push_ns = a->encode_ns;
  }
  bl_link_sent(&a->link, bytes, now_ns);
}

void bl_auto_push_acked(bl_auto *a, uint64_t bytes, uint64_t now_ns) { bl_link_acked(&a->link, bytes, now_ns); }

void bl_auto_lost(bl_auto *a) { bl_link_lost(&a->link); }

void bl_auto_committed(bl_auto *a, uint64_t now_ns) {
  a->commit_ns = now_ns;
  bl_link_committed(&a->link, now_ns);
}

void bl_auto_pull_arrived(bl_auto *a, uint64_t bytes, uint64_t now_ns) {
  bl_link_arrived(&a->link, bytes, now_ns);
}

static double less(uint64_t a, uint64_t b) { return a > b ? (double)(a - b) : 0; }

static void take_clock(bl_auto *a, uint64_t now_ns) {
  recent_put(&a->compute, BL_MAX(less(a->commit_ns, a->begin_ns) - (double)a->encode_ns, 0));
  double overlap = a->push_ns != 0 && a->push_ns < a->commit_ns
                       ? less(a->commit_ns, a->push_ns) - less(a->encode_ns, a->encode_before_push_ns)
                       : 0;
  recent_put(&a->overlap, BL_MAX(overlap, 0));
  recent_put(&a->whole, less(now_ns, a->begin_ns));
}

/* ---- decisions ---- */

static bool is_due(const bl_auto *a, uint64_t now_ns) {
  uint64_t elapsed_ns = now_ns - a->since_ns;
  if (!a->decided)
    return a->since_clocks >= a->config.first_clocks ||
           (a->since_clocks >= QUICK_FIRST_CLOCKS && elapsed_ns >= QUICK_FIRST_NS && a->n_passes > 0);
  return a->since_clocks >= a->config.every_clocks ||
         (a->since_clocks >= QUICK_EVERY_CLOCKS && elapsed_ns >= QUICK_EVERY_NS);
}

/* What a tensor's gradient lost when it was tried; else what random numbers did; below 0: nobody knows. */
static double error_known(const bl_auto *a, uint32_t t, int d, uint32_t step) {
  double tried = *error_of(a, t, a->tried_as[d][step]);
  return tried >= 0 ? tried : a->calibrated[d][step];
}

static double budget(const bl_auto *a, int d, uint32_t step) {
  return a->specs[d][step].codec->sparse ? a->config.error_max_sparse : a->config.error_max;
}

static bool is_allowed(const bl_auto *a, uint32_t t, int d, uint32_t step) {
  if (a->specs[d][step].codec->sparse && !a->config.sparse)
    return false;
  double error = error_known(a, t, d, step), slack = a->plan[2 * t + (uint32_t)d] == step ? ERROR_SLACK : 1;
  return error >= 0 && error <= budget(a, d, step) * slack;
}

static bool link_has_changed(const bl_auto *a) {
  return changed_by(a->link.up, a->up_then, LINK_CHANGED) ||
         (a->config.decides_pull && changed_by(a->link.down, a->down_then, LINK_CHANGED));
}

static bool is_held(const bl_auto *a, uint32_t t, int d) {
  const tensor *at = &a->tensors[t];
  uint64_t hold = link_has_changed(a) ? a->config.hold_clocks : at->hold[d];
  return at->changed[d] > 0 && a->n_clocks < at->changed[d] + hold;
}

static void pose(bl_auto *a, bl_choice *c) {
  double up = a->link.up, down = a->link.down > 0 ? a->link.down : up;
  *c = (bl_choice){.conditions = {.compute_ns = recent_median(&a->compute),
                                  .overlap_ns = recent_median(&a->overlap),
                                  .latency_ns = a->link.latency_ns,
                                  .up_ns_per_byte = 1e9 / up,
                                  .down_ns_per_byte = 1e9 / down,
                                  .world = a->config.world,
                                  .n_shards = a->config.n_shards,
                                  .pull_ns = a->config.decides_pull ? -1 : 0}, /* in other_ns */
                   .tensors = a->problem,
                   .n_tensors = a->config.n_tensors,
                   .scratch = a->scratch};
  for (int d = 0; d < BL_AUTO_DIRECTIONS; d++) {
    c->ladder[d] = a->ladder[d];
    c->n_ladder[d] = a->n_ladder[d];
  }
  for (uint32_t t = 0; t < a->config.n_tensors; t++) {
    bl_choice_tensor *p = &a->problem[t];
    *p = (bl_choice_tensor){.n_elems = a->tensors[t].config.n_elems};
    for (int d = 0; d < BL_AUTO_DIRECTIONS; d++) {
      p->fixed[d] = is_chosen(a, t, d) ? NULL : &a->tensors[t].fixed[d];
      p->held[d] = is_held(a, t, d);
      p->now[d] = a->plan[2 * t + (uint32_t)d];
      for (uint32_t i = 0; i < a->n_ladder[d]; i++)
        p->allowed[d] |= (uint32_t)(i == 0 || is_allowed(a, t, d, i)) << i;
    }
  }
  a->view.chosen_ns = bl_choice_time(c, a->plan).total_ns;
  c->other_ns = BL_MAX(recent_median(&a->whole) - a->view.chosen_ns, 0);
  a->view.chosen_ns += c->other_ns;
}

/* Something in use has become too lossy for its tensor. */
static bool must_change(const bl_auto *a) {
  for (uint32_t t = 0; t < a->config.n_tensors; t++)
    for (int d = 0; d < BL_AUTO_DIRECTIONS; d++)
      if (a->problem[t].fixed[d] == NULL && !a->problem[t].held[d] &&
          (a->problem[t].allowed[d] & 1u << a->plan[2 * t + (uint32_t)d]) == 0)
        return true;
  return false;
}

/* The sentence. exact_ns, best_ns: of a clock with nothing lossy, and as it is planned. */
static void say_why(bl_auto *a, uint32_t t, int d, double exact_ns, double best_ns) {
  uint32_t step = a->best[2 * t + (uint32_t)d];
  char *out = a->tensors[t].reason[d], link[64];
  snprintf(link, sizeof link, "%.3g MB/s up, %.3g MB/s down", a->link.up / 1e6,
           (a->link.down > 0 ? a->link.down : a->link.up) / 1e6);
  if (step > 0)
    snprintf(out, BL_AUTO_REASON_MAX, "a clock takes %.3g ms, exact %.3g ms, at %s; squared error %.2g of %.2g allowed",
             best_ns / 1e6, exact_ns / 1e6, link, error_known(a, t, d, step), budget(a, d, step));
  else if (a->problem[t].allowed[d] == 1)
    snprintf(out, BL_AUTO_REASON_MAX, "every other codec errs by more than %.2g, or its error is not known yet",
             a->config.error_max);
  else
    snprintf(out, BL_AUTO_REASON_MAX, "exact: at %s, with a clock of %.3g ms, no other codec saves enough", link,
             best_ns / 1e6);
}

static void change(bl_auto *a, uint32_t t, int d, bool link_changed) {
  tensor *at = &a->tensors[t];
  uint8_t now = a->plan[2 * t + (uint32_t)d], next = a->best[2 * t + (uint32_t)d];
  bool back = at->changed[d] > 0 && next == at->before[d] && !link_changed &&
              a->n_clocks < at->changed[d] + BACK_SOON * at->hold[d];
  at->hold[d] = back ? BL_MIN(at->hold[d] * 2, (uint64_t)a->config.hold_clocks * HOLD_MAX) : a->config.hold_clocks;
  at->changed[d] = a->n_clocks;
  at->before[d] = now;
  a->plan[2 * t + (uint32_t)d] = next;
  a->decisions[a->n_decisions++] = (bl_auto_decision){.clock = a->clock + 1,
                                                      .tensor = t,
                                                      .direction = (bl_auto_direction)d,
                                                      .before = &a->specs[d][now],
                                                      .spec = &a->specs[d][next],
                                                      .reason = at->reason[d]};
  a->view.changes++;
}

/* a->best is to be what is in use. */
static void adopt(bl_auto *a, const bl_choice *c) {
  bool link_changed = link_has_changed(a);
  double best_ns = bl_choice_time(c, a->best).total_ns;
  for (uint32_t t = 0; t < a->config.n_tensors; t++) {
    for (int d = 0; d < BL_AUTO_DIRECTIONS; d++) {
      if (!is_chosen(a, t, d))
        continue;
      say_why(a, t, d, a->view.exact_ns, best_ns);
      if (a->plan[2 * t + (uint32_t)d] != a->best[2 * t + (uint32_t)d])
        change(a, t, d, link_changed);
    }
  }
  if (a->n_decisions > 0 || !a->decided) {
    a->up_then = a->link.up;
    a->down_then = a->link.down;
  }
  a->view.chosen_ns = best_ns;
  a->gain = 0;
}

static void decide(bl_auto *a) {
  bl_choice c;
  bl_link_settle(&a->link, a->clock, recent_median(&a->whole));
  if (a->link.up <= 0)
    return; /* asked again behind the next clock */
  pose(a, &c);
  memset(a->trial_plan, 0, 2 * (size_t)a->config.n_tensors);
  a->view.exact_ns = bl_choice_time(&c, a->trial_plan).total_ns;
  double price = bl_choice_price(&c, a->plan), best = bl_choice_search(&c, a->best, a->trial_plan);
  double gain = price / best - 1;
  a->gain = BL_MAX(a->gain + gain - GAIN_IDLE, 0);
  if (!a->decided || must_change(a) || gain >= GAIN_AT_ONCE || a->gain >= GAIN_AT_ONCE)
    adopt(a, &c);
  a->decided = true;
  a->since_clocks = 0;
  a->since_ns = 0;
}

/* Time that shards take to encode, and this rank to decode, what it pulls. Known where it chooses that. */
static double pull_codec_ns(const bl_auto *a) {
  double encode_ns = 0, decode_ns = 0;
  for (uint32_t t = 0; t < a->config.n_tensors; t++) {
    const bl_codec_cost *cost = &a->ladder[BL_AUTO_PULL][a->plan[2 * t + BL_AUTO_PULL]].cost;
    double elems = is_chosen(a, t, BL_AUTO_PULL) ? (double)a->tensors[t].config.n_elems : 0;
    encode_ns += cost->encode_ns * elems / a->config.n_shards;
    decode_ns += cost->decode_ns * elems;
  }
  return BL_MAX(encode_ns, decode_ns);
}

void bl_auto_end_clock(bl_auto *a, uint64_t now_ns) {
  a->n_decisions = a->next_decision = 0;
  if (!a->in_clock || a->commit_ns == 0)
    return;
  a->in_clock = false;
  bl_link_end_clock(&a->link, a->clock, pull_codec_ns(a));
  take_clock(a, now_ns);
  a->n_clocks++;
  a->since_clocks++;
  if (is_due(a, now_ns))
    decide(a);
}

/* ---- what follows ---- */

bool bl_auto_chooses(const bl_auto *a, uint32_t t, bl_auto_direction d) {
  BL_ASSERT(t < a->config.n_tensors);
  return is_chosen(a, t, d);
}

static const bl_codec_spec *spec_of(const bl_auto *a, uint32_t t, int d) {
  BL_ASSERT(t < a->config.n_tensors);
  const tensor *at = &a->tensors[t];
  return at->config.chosen[d] ? &a->specs[d][a->plan[2 * t + (uint32_t)d]] : &at->config.spec[d];
}

const bl_codec_spec *bl_auto_push_spec(const bl_auto *a, uint32_t t) { return spec_of(a, t, BL_AUTO_PUSH); }

const bl_codec_spec *bl_auto_pull_spec(const bl_auto *a, uint32_t t) { return spec_of(a, t, BL_AUTO_PULL); }

const char *bl_auto_reason(const bl_auto *a, uint32_t t, bl_auto_direction d) {
  BL_ASSERT(t < a->config.n_tensors);
  return a->tensors[t].reason[d];
}

const bl_auto_decision *bl_auto_next_decision(bl_auto *a) {
  return a->next_decision < a->n_decisions ? &a->decisions[a->next_decision++] : NULL;
}

bl_auto_view bl_auto_get_view(const bl_auto *a) {
  bl_auto_view v = a->view;
  v.up_bytes_per_s = a->link.up;
  v.down_bytes_per_s = a->link.down;
  v.latency_ns = a->link.latency_ns;
  v.compute_ns = recent_median(&a->compute);
  v.overlap_ns = recent_median(&a->overlap);
  v.clock_ns = recent_median(&a->whole);
  return v;
}
