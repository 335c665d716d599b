/* SPDX-License-Identifier: Apache-2.0
 *
 * ballast bench codec: how fast codecs encode, decode and sum on each kernel table, how small their frames are and what
 * they lose. What the figures mean stands in doc/performance.md.
 *
 * A pass is the chunks of one size, one after the other, as a rank or a shard goes through a tensor. Out of cache the passes
 * walk through memory that is twice the last-level cache for each array, so that nothing is read or written that is still
 * warm. In cache there is one chunk, and each pass encodes other numbers: the same memory, begun a few lines further.
 */
#include "base/alloc.h"
#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"
#include "base/str.h"
#include "cli/bench.h"
#include "codec/lowrank.h"
#include "codec/select.h"
#include "codec/spec.h"
#include "kernel/kernel.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SPECS_MAX 64
#define ROUNDS_DEFAULT 11
#define ROUNDS_MAX 999
#define ROUNDS_LEAST 3
#define ROUND_BYTES ((size_t)16 << 20) /* of float32 in a round at least, so that small sizes repeat */
#define ROUND_NS_MAX (BL_NS_PER_S)     /* all rounds of a measurement: slow ones get fewer */
#define SIZE_MIN 4096
#define SIZE_MAX_BYTES ((uint64_t)1 << 30)
#define CHUNK_BYTES ((size_t)BL_CODEC_ELEMS_MAX * sizeof(float))
#define N_PUSHES 8      /* frames in a sum */
#define SHIFTS 256      /* places that chunks in cache begin at */
#define SHIFT_ELEMS 16  /* a line of the cache */
#define SCALE 1e-3f     /* of the numbers */
#define MOMENTUM 0.9f

static const uint64_t sizes_default[] = {256u << 10, 16u << 20};

static const char *const specs_default[] = {
    "float32", "float16", "bfloat16", "int8", "int8(stochastic)", "int8(shared)", "int4", "int4(shared)", "sign", "ternary",
    "qsgd(4)", "natural", "topk(10%, int8)", "topk(1%)", "topk(1%, float16)", "topk(1%, int8)", "topk(1%, 2bit)",
    "topk(1%, ternary)", "topk(0.1%, ternary)", "threshold(0.00364)", "threshold(0.00364, 2bit)", "randomk(1%)",
    "randomk(1%, int8)", "lowrank(1)", "lowrank(4)", "lowrank(16)", "int8+zstd",
};

typedef struct codec_options {
  cli_common common;
  uint64_t size; /* 0: the default ones */
  bl_codec_spec specs[SPECS_MAX];
  size_t n_specs;
  const char *kernels; /* NULL: all tables */
  uint64_t rounds;
} codec_options;

/* The arrays of one size; the next place in each. */
typedef struct lab {
  bl_codec_spec spec;
  size_t n;        /* elements of a chunk */
  size_t n_chunks; /* in a pass */
  size_t n_places; /* chunks that x, residual, velocity and y have room for: a multiple of n_chunks */
  size_t n_slots;  /* frames: a multiple of N_PUSHES and of n_chunks */
  size_t slot_bytes, factor_elems;
  bool cached;
  float *x, *residual, *velocity, *y, *factors;
  uint8_t *frames, *exponents;
  size_t *frame_bytes;
  uint64_t pass; /* counts on for ever */
} lab;

typedef struct direction {
  const char *name;  /* in JSON */
  const char *label; /* for people */
  bool (*applies)(const lab *l);
  void (*prepare)(lab *l); /* not measured; may be NULL */
  void (*pass)(lab *l);
  unsigned copies; /* how often the numbers go through: as many memcpys are the yardstick */
} direction;

static size_t first_place(const lab *l) { return l->pass * l->n_chunks % l->n_places; }
static size_t slot(const lab *l, size_t chunk) { return l->cached ? 0 : (l->pass * l->n_chunks + chunk) % l->n_slots; }
static float *x_at(const lab *l, size_t place) { return l->x + place * l->n + (l->cached ? l->pass % SHIFTS * SHIFT_ELEMS : 0); }
static uint8_t *frame_at(const lab *l, size_t i) { return l->frames + i * l->slot_bytes; }

static bl_codec_view view_at(const lab *l, size_t i) { return bl_codec_trusted(frame_at(l, i), l->frame_bytes[i]); }

static bl_encode encoding(const lab *l, size_t key) { return (bl_encode){.spec = &l->spec, .key = bl_codec_key(1, 0, l->pass, (uint32_t)key)}; }

static void copy_pass(lab *l) {
  size_t first = first_place(l);
  for (size_t c = 0; c < l->n_chunks; c++)
    memcpy(l->y + (first + c) * l->n, x_at(l, first + c), l->n * sizeof(float));
}

static void encode_pass(lab *l) {
  size_t first = first_place(l);
  for (size_t c = 0; c < l->n_chunks; c++) {
    bl_encode e = encoding(l, c);
    size_t s = slot(l, c);
    l->frame_bytes[s] = bl_codec_encode(&e, x_at(l, first + c), NULL, (uint32_t)l->n, 0, frame_at(l, s));
  }
}

/* As a rank pushes: topk by the threshold of all chunks together, which is part of the work. */
static void encode_feedback(lab *l, bool momentum) {
  size_t first = first_place(l), at = first * l->n;
  bl_encode e = encoding(l, 0);
  bl_select_source source = {.x = x_at(l, first), .residual = l->residual + at, .velocity = momentum ? l->velocity + at : NULL,
                             .momentum = MOMENTUM, .n = l->n * l->n_chunks};
  if (l->spec.codec->id == BL_CODEC_TOPK)
    e.threshold = bl_select_sampled(&source, l->spec.density, e.key);
  for (size_t c = 0; c < l->n_chunks; c++) {
    size_t s = slot(l, c), place = first + c;
    e.key = bl_codec_key(1, 0, l->pass, (uint32_t)c);
    e.factor = l->factors != NULL ? l->factors + place * l->factor_elems : NULL;
    e.velocity = momentum ? l->velocity + place * l->n : NULL;
    e.momentum = MOMENTUM;
    l->frame_bytes[s] =
        bl_codec_encode(&e, x_at(l, place), l->residual + place * l->n, (uint32_t)l->n, 0, frame_at(l, s));
  }
}

static void feedback_pass(lab *l) { encode_feedback(l, false); }
static void momentum_pass(lab *l) { encode_feedback(l, true); }

static void check_pass(lab *l) {
  for (size_t c = 0; c < l->n_chunks; c++) {
    bl_codec_view v;
    size_t s = slot(l, c);
    BL_ASSERT(bl_codec_open(frame_at(l, s), l->frame_bytes[s], (uint32_t)l->n, &v, NULL) == BL_OK);
  }
}

static void decode_pass(lab *l) {
  size_t first = first_place(l);
  for (size_t c = 0; c < l->n_chunks; c++) {
    bl_codec_view v = view_at(l, slot(l, c));
    v.codec->decode(&v, l->y + (first + c) * l->n);
  }
}

static void accumulate_pass(lab *l) {
  size_t first = first_place(l);
  for (size_t c = 0; c < l->n_chunks; c++) {
    bl_codec_view v = view_at(l, slot(l, c));
    v.codec->accumulate(&v, 1, l->y + (first + c) * l->n);
  }
}

static void sum_pass(lab *l) {
  size_t first = first_place(l), n_sums = l->n_slots / N_PUSHES;
  bl_codec_view views[N_PUSHES];
  for (size_t c = 0; c < l->n_chunks; c++) {
    size_t s = (l->pass * l->n_chunks + c) % n_sums * N_PUSHES;
    for (size_t i = 0; i < N_PUSHES; i++)
      views[i] = view_at(l, s + i);
    bl_codec_sum(views, N_PUSHES, true, l->y + (first + c) * l->n);
  }
}

/* A frame in each slot. */
static void fill_slots(lab *l, const uint8_t *exponents) {
  for (size_t s = 0; s < l->n_slots; s++) {
    bl_encode e = encoding(l, s);
    e.exponents = exponents;
    l->frame_bytes[s] = bl_codec_encode(&e, x_at(l, s % l->n_places), NULL, (uint32_t)l->n, 0, frame_at(l, s));
  }
}

static void plain_frames(lab *l) { fill_slots(l, NULL); }

/* Scales that the ranks have agreed on, where the codec adds integers. */
static void pushed_frames(lab *l) {
  float largest = 0;
  for (size_t i = 0; i < l->n; i++)
    largest = fmaxf(largest, fabsf(l->x[i]));
  int exponent = (int)ceilf(log2f(largest / (l->spec.codec->id == BL_CODEC_INT4 ? 7.0f : 127.0f)));
  memset(l->exponents, exponent + 128, l->n);
  fill_slots(l, l->spec.shared ? l->exponents : NULL);
}

static void no_history(lab *l) {
  memset(l->residual, 0, l->n_places * l->n * sizeof(float));
  memset(l->velocity, 0, l->n_places * l->n * sizeof(float));
  if (l->factors != NULL)
    memset(l->factors, 0, l->n_places * l->factor_elems * sizeof(float));
}

static bool always(const lab *l) {
  (void)l;
  return true;
}
static bool loses_something(const lab *l) { return !bl_codec_spec_is_exact(&l->spec); }
static bool corrects_momentum(const lab *l) { return l->spec.codec->sparse; }

static const direction directions[] = {
    {"encode", "encode", always, NULL, encode_pass, 1},
    {"encode_feedback", "encode, error feedback", loses_something, no_history, feedback_pass, 1},
    {"encode_momentum", "encode, momentum correction", corrects_momentum, no_history, momentum_pass, 1},
    {"check", "check a received frame", always, plain_frames, check_pass, 1},
    {"decode", "decode", always, NULL, decode_pass, 1}, /* the frames of check */
    {"accumulate", "decode and add", always, NULL, accumulate_pass, 1},
    {"sum8", "sum of 8 frames", always, pushed_frames, sum_pass, N_PUSHES},
};

typedef struct quality {
  double bits_per_element, relative_error;
  double bits_per_kept, index_bits_per_kept, floor_bits_per_kept; /* sparse codecs; else 0 */
} quality;

static double log2_choose(double n, double k) { return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2); }

static double value_bits(bl_values kind) {
  static const double bits[BL_VALUES_COUNT] = {32, 16, 8, 2, 1};
  return bits[kind];
}

/* Of a pass without feedback; the floor is that of each chunk for itself, as frames are. */
static quality judge(lab *l) {
  double error = 0, whole = 0, bits = 0, kept = 0, floor_bits = 0, n = (double)(l->n * l->n_chunks);
  size_t first = first_place(l);
  encode_pass(l);
  for (size_t c = 0; c < l->n_chunks; c++) {
    const float *x = x_at(l, first + c);
    bl_codec_view v = view_at(l, slot(l, c));
    double before = kept;
    v.codec->decode(&v, l->y);
    for (size_t i = 0; i < l->n; i++) {
      double d = (double)x[i] - (double)l->y[i];
      error += d * d;
      whole += (double)x[i] * (double)x[i];
      kept += l->y[i] != 0;
    }
    bits += 8.0 * (double)l->frame_bytes[slot(l, c)];
    floor_bits += log2_choose((double)l->n, kept - before);
  }
  quality q = {.bits_per_element = bits / n, .relative_error = whole > 0 ? error / whole : 0};
  if (l->spec.codec->sparse && kept > 0) {
    q.bits_per_kept = bits / kept;
    q.index_bits_per_kept = (bits - 8.0 * BL_CODEC_HEADER_BYTES * (double)l->n_chunks) / kept - value_bits(l->spec.values);
    q.floor_bits_per_kept = floor_bits / kept;
  }
  return q;
}

typedef struct speed {
  bench_spread gbps, memcpy_gbps, multiple;
  size_t n_rounds;
} speed;

static uint64_t timed(lab *l, void (*pass)(lab *l), size_t times) {
  uint64_t start = bl_clock_cpu_ns();
  for (size_t i = 0; i < times; i++, l->pass++)
    pass(l);
  return BL_MAX(bl_clock_cpu_ns() - start, (uint64_t)1);
}

/* Codec and memcpy in turns within each round, each on the places that are next. */
static speed measure(lab *l, const direction *d, size_t rounds) {
  double gbps[ROUNDS_MAX], copy_gbps[ROUNDS_MAX], multiple[ROUNDS_MAX];
  size_t bytes = l->n * l->n_chunks * sizeof(float), times = BL_MAX(ROUND_BYTES / bytes, (size_t)1), n = 0;
  if (d->prepare != NULL)
    d->prepare(l);
  timed(l, d->pass, l->cached ? 2 : 1);
  uint64_t start = bl_clock_now_ns();
  for (; n < rounds && (n < ROUNDS_LEAST || bl_clock_now_ns() - start < ROUND_NS_MAX); n++) {
    double took = (double)timed(l, d->pass, times), copying = (double)timed(l, copy_pass, times);
    gbps[n] = (double)(d->copies * times * bytes) / took;
    copy_gbps[n] = (double)(times * bytes) / copying;
    multiple[n] = d->copies * copying / took;
  }
  return (speed){.gbps = bench_spread_of(gbps, n),
                 .memcpy_gbps = bench_spread_of(copy_gbps, n),
                 .multiple = bench_spread_of(multiple, n),
                 .n_rounds = n};
}

static void print_json(const lab *l, const direction *d, const char *spec, const speed *s, const quality *q) {
  json_t *value = json_pack(
      "{s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "bench", "codec", "codec", spec,
      "direction", d->name, "kernels", bl_kernels_get()->name, "bytes", (json_int_t)(l->n * l->n_chunks * sizeof(float)),
      "chunk_bytes", (json_int_t)(l->n * sizeof(float)), "cached", (int)l->cached, "rounds", (json_int_t)s->n_rounds, "gbps",
      s->gbps.median, "gbps_min", s->gbps.min, "gbps_max", s->gbps.max, "memcpy_gbps", s->memcpy_gbps.median, "memcpy_multiple",
      s->multiple.median, "memcpy_multiple_min", s->multiple.min, "memcpy_multiple_max", s->multiple.max, "bits_per_element",
      q->bits_per_element, "relative_error", q->relative_error);
  if (q->bits_per_kept > 0) {
    json_object_set_new(value, "bits_per_kept", json_real(q->bits_per_kept));
    json_object_set_new(value, "index_bits_per_kept", json_real(q->index_bits_per_kept));
    json_object_set_new(value, "floor_bits_per_kept", json_real(q->floor_bits_per_kept));
  }
  cli_print_json(value);
  json_decref(value);
}

static void print_row(const direction *d, const speed *s) {
  char spread[64];
  snprintf(spread, sizeof spread, "%.2f to %.2f", s->gbps.min, s->gbps.max);
  printf("  %-28s %8.2f  %-18s %6.2f  %.2f to %.2f\n", d->label, s->gbps.median, spread, s->multiple.median, s->multiple.min,
         s->multiple.max);
}

static void print_quality(const char *spec, const quality *q) {
  printf("%s: %.3f bits per element, relative squared error %.2g", spec, q->bits_per_element, q->relative_error);
  if (q->bits_per_kept > 0)
    printf("; %.2f bits per kept value, %.2f of them beside the value (floor of an index %.2f)", q->bits_per_kept, q->index_bits_per_kept,
           q->floor_bits_per_kept);
  putchar('\n');
}

static void run_spec(lab *l, const codec_options *o) {
  char text[BL_CODEC_TEXT_MAX];
  bl_codec_spec_write(&l->spec, text);
  quality q = judge(l);
  if (!o->common.json)
    print_quality(text, &q);
  for (size_t i = 0; i < BL_COUNT_OF(directions); i++) {
    const direction *d = &directions[i];
    if (!d->applies(l))
      continue;
    speed s = measure(l, d, o->rounds);
    if (o->common.json)
      print_json(l, d, text, &s, &q);
    else
      print_row(d, &s);
    fflush(stdout);
  }
}

static void lab_close(lab *l) {
  float *const arrays[] = {l->x, l->residual, l->velocity, l->y, l->factors};
  for (size_t i = 0; i < BL_COUNT_OF(arrays); i++)
    bl_free_aligned(arrays[i]);
  bl_free_aligned(l->frames);
  bl_free(l->exponents);
  bl_free(l->frame_bytes);
  *l = (lab){0};
}

/* Heavy tails, as gradients have them: products of two normal numbers. */
static void fill(float *x, size_t n) {
  uint64_t key = bl_rng_key(1, BL_RNG_DATA);
  for (size_t i = 0; i < n; i++)
    x[i] = SCALE * bl_rng_normal(key, 0, i) * bl_rng_normal(key, 1, i);
}

static size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

/* Everything but frames, which depend on the codec. */
static bl_status lab_open(lab *l, uint64_t bytes, bl_error *err) {
  size_t n = (size_t)bytes / sizeof(float);
  *l = (lab){.n = BL_MIN(n, BL_CODEC_ELEMS_MAX), .cached = bytes < bench_cache_bytes() / 16};
  l->n_chunks = n / l->n;
  l->n_places = l->cached ? 1 : round_up(2 * bench_cache_bytes() / (l->n * sizeof(float)) + 1, l->n_chunks);
  l->n_slots = l->cached ? N_PUSHES : round_up(BL_MAX(l->n_places, N_PUSHES * l->n_chunks), N_PUSHES * l->n_chunks);
  size_t elems = l->n_places * l->n, shifts = l->cached ? SHIFTS * SHIFT_ELEMS : 0;
  l->x = bl_calloc_aligned(elems + shifts, sizeof(float));
  l->residual = bl_calloc_aligned(elems, sizeof(float));
  l->velocity = bl_calloc_aligned(elems, sizeof(float));
  l->y = bl_calloc_aligned(elems, sizeof(float));
  l->exponents = bl_calloc(l->n, 1);
  l->frame_bytes = bl_calloc(l->n_slots, sizeof *l->frame_bytes);
  if (l->x == NULL || l->residual == NULL || l->velocity == NULL || l->y == NULL || l->exponents == NULL || l->frame_bytes == NULL)
    return bl_fail(err, BL_ENOMEM, "no memory for arrays of %zu MiB", elems * sizeof(float) >> 20);
  fill(l->x, elems + shifts);
  float *const arrays[] = {l->residual, l->velocity, l->y};
  for (size_t i = 0; i < BL_COUNT_OF(arrays); i++)
    memset(arrays[i], 0, elems * sizeof(float)); /* no page is touched for the first time while the clock runs */
  return BL_OK;
}

static bl_status lab_set_spec(lab *l, const bl_codec_spec *spec, bl_error *err) {
  bl_free_aligned(l->frames);
  bl_free_aligned(l->factors);
  l->factors = NULL;
  l->spec = *spec;
  l->slot_bytes = round_up(bl_codec_bound_bytes(spec, (uint32_t)l->n), 64);
  l->frames = bl_calloc_aligned(l->n_slots, l->slot_bytes);
  l->factor_elems = (size_t)bl_lowrank_columns((uint32_t)l->n) * spec->rank;
  if (spec->codec->id == BL_CODEC_LOWRANK)
    l->factors = bl_calloc_aligned(l->n_places * l->factor_elems, sizeof(float));
  if (l->frames == NULL || (spec->codec->id == BL_CODEC_LOWRANK && l->factors == NULL))
    return bl_fail(err, BL_ENOMEM, "no memory for %zu frames of up to %zu bytes", l->n_slots, l->slot_bytes);
  memset(l->frames, 0, l->n_slots * l->slot_bytes); /* as above */
  return BL_OK;
}

static void print_heading(const lab *l) {
  char size[40], chunk[40];
  printf("\n%s in chunks of %s, %s cache, kernels %s\n", bl_str_bytes(l->n * l->n_chunks * sizeof(float), size, sizeof size),
         bl_str_bytes(l->n * sizeof(float), chunk, sizeof chunk), l->cached ? "in" : "out of", bl_kernels_get()->name);
  printf("  %-28s %8s  %-18s %6s\n", "", "GB/s", "least to most", "times memcpy");
}

static bl_status run_size(uint64_t bytes, const codec_options *o, bl_error *err) {
  lab l;
  bl_status status = lab_open(&l, bytes, err);
  for (size_t t = 0; status == BL_OK && bl_kernels_at(t) != NULL; t++) {
    if (o->kernels != NULL && strcmp(o->kernels, bl_kernels_at(t)->name) != 0)
      continue;
    status = bl_kernels_force(bl_kernels_at(t)->name, err);
    if (status == BL_OK && !o->common.json)
      print_heading(&l);
    for (size_t i = 0; status == BL_OK && i < o->n_specs; i++) {
      status = lab_set_spec(&l, &o->specs[i], err);
      if (status == BL_OK)
        run_spec(&l, o);
    }
  }
  lab_close(&l);
  return status;
}

static const struct argp_option options[] = {
    {"size", 's', "SIZE", 0, "float32 numbers of one pass (default: 256KiB, in cache, and 16MiB, out of cache)", 0},
    {"codec", 'c', "SPEC", 0, "a codec as in job files, such as 'topk(1%, ternary)'; may be repeated (default: a list of all)", 0},
    {"kernels", 'k', "TABLE", 0, "scalar, avx2, avx512, or auto for the widest (default: all that this CPU has)", 0},
    {"rounds", 'n', "N", 0, "rounds of each measurement (default: 11; slow ones get fewer)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void add_spec(codec_options *o, const char *text, struct argp_state *state) {
  bl_error err = BL_ERROR_INIT;
  if (o->n_specs == SPECS_MAX)
    argp_error(state, "more than %d codecs", SPECS_MAX);
  else if (bl_codec_spec_read(text, &o->specs[o->n_specs], &err) != BL_OK)
    argp_error(state, "%s", err.text);
  else
    o->n_specs++;
}

static void set_size(codec_options *o, const char *text, struct argp_state *state) {
  uint64_t n;
  if (bl_str_to_bytes(text, &n) != BL_OK || n < SIZE_MIN || n > SIZE_MAX_BYTES || n % SIZE_MIN != 0 ||
      (n > CHUNK_BYTES && n % CHUNK_BYTES != 0))
    argp_error(state, "'%s' is no size: 4KiB to 1GiB, in whole 4KiB, above 1MiB in whole MiB", text);
  o->size = n;
}

static void set_kernels(codec_options *o, const char *name, struct argp_state *state) {
  bl_error err = BL_ERROR_INIT;
  if (bl_kernels_force(name, &err) != BL_OK)
    argp_error(state, "%s", err.text);
  o->kernels = bl_kernels_get()->name;
}

static error_t parse(int key, char *arg, struct argp_state *state) {
  codec_options *o = state->input;
  switch (key) {
  case 's':
    set_size(o, arg, state);
    return 0;
  case 'c':
    add_spec(o, arg, state);
    return 0;
  case 'k':
    set_kernels(o, arg, state);
    return 0;
  case 'n':
    if (bl_str_to_u64(arg, &o->rounds) != BL_OK || o->rounds == 0 || o->rounds > ROUNDS_MAX)
      argp_error(state, "'%s' is no number of rounds: 1 to %d", arg, ROUNDS_MAX);
    return 0;
  default:
    return ARGP_ERR_UNKNOWN;
  }
}

static void add_default_specs(codec_options *o) {
  for (size_t i = 0; i < BL_COUNT_OF(specs_default); i++) {
    bl_codec_spec *s = &o->specs[o->n_specs];
    BL_ASSERT(bl_codec_spec_read(specs_default[i], s, NULL) == BL_OK);
    if (!s->zstd || bl_codec_by_id(BL_CODEC_ZSTD) != NULL) /* the stage is optional */
      o->n_specs++;
  }
}

int cli_bench_codec(int argc, char **argv) {
  static codec_options o = {.common.local = true, .rounds = ROUNDS_DEFAULT};
  cli_parse(argc, argv, options, parse, NULL,
            "Measures codecs on one thread: GB/s of float32 (GB = 1e9 bytes, by CPU time), the median of the rounds with the "
            "least and the most, and as a multiple of memcpy, which is measured in turns with it; bits per element; of sparse codecs the "
            "bits per kept value beside the floor, log2 of the number of ways to choose them; and the squared error in relation to "
            "the numbers. With --json one object per line.\v"
            "The numbers are products of two normal ones: heavy tails, as gradients have them, and no structure that a low-rank "
            "codec could find.",
            &o, &o.common);
  bl_error err = BL_ERROR_INIT;
  bl_status status = BL_OK;
  if (o.n_specs == 0)
    add_default_specs(&o);
  bench_print_machine(o.common.json);
  for (size_t i = 0; status == BL_OK && i < (o.size != 0 ? 1 : BL_COUNT_OF(sizes_default)); i++)
    status = run_size(o.size != 0 ? o.size : sizes_default[i], &o, &err);
  return status == BL_OK ? BL_EXIT_OK : cli_fail(&err);
}
