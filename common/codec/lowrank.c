/* SPDX-License-Identifier: Apache-2.0
 *
 * lowrank: two thin factors P [rows, rank] and Q [columns, rank] of the chunk as a matrix M, so that M is about P Q^T.
 *
 * Source: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization",
 * NeurIPS 2019, arXiv:1905.13727, algorithm 1: one step of the subspace iteration, begun where the last one ended.
 *
 *   M = x + residual,  P = orthonormal(M Q),  Q = M^T P,  residual = M - P Q^T
 *
 * Unlike there the factors are not averaged before they are multiplied: each frame is a matrix of its own and a sum of
 * frames may have a higher rank, so that workers need not share Q, and a frame means the same whoever else has sent one.
 *
 * Payload when the codec parameter (the rank r, 1 to 32) is not 0, with rows = ceil(n / columns), r at most rows and
 * columns, and r * (rows + columns) < n:
 *
 *   offset         size
 *   0              4                 columns, 1 to n
 *   4              r                 exponent of each vector of Q: biased as in float32, 1 to 246
 *   4+r            2 * r * rows      P: r vectors of rows float16, magnitudes at most 1
 *   4+r+2*r*rows   2 * r * columns   Q: r vectors of columns float16, magnitudes at most 2, each times 2^(exponent - 127)
 *
 * Chunks for which r * (rows + columns) >= n, such as biases, are not worth two factors: parameter 0, and the payload is
 * the n float32 values as in float32, exact.
 *
 * Example, 0 to 15 as a matrix of 4 x 4, rank 1, to replace what is there (drawn from key 0):
 *
 *   0d 01 0100 10000000 8b6fd16b6146d90f 04000000 84 a52e31355d38213a 6d37263895380439
 *
 * float16 is enough: P and Q are what is left of a matrix after dropping most of it, and their rounding (2^-12 of the
 * largest part) is far below that; it goes to the residual with the rest. It buys twice the rank for the same bytes.
 *
 * Every step is a kernel that gives the same bits on every table, so a follower or a server on another CPU holds the
 * same numbers. Vectors that are zero, or that repeat others, become zero in P and in Q; a zero vector of the warm start is
 * drawn from the key again. A chunk with numbers that are not finite, or whose norm is 2^119 and more, gives zero factors;
 * finite numbers stay in the residual, the others become 0 there. The warm start holds Q with each vector scaled by a
 * power of two to a norm in [1, 2).
 */
#include "codec/lowrank.h"

#include "base/le.h"
#include "base/num.h"
#include "base/rng.h"
#include "codec/codecs.h"
#include "kernel/kernel.h"
#include "kernel/lowrank.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { OFF_COLUMNS = 0, OFF_EXPONENTS = 4 };

#define BIAS 127
#define EXPONENT_MIN 1
#define EXPONENT_MAX 246       /* 32 products of 1 * 2 * 2^119 are finite */
#define P_BITS_MAX 0x3c00u     /* 1 in float16 */
#define Q_BITS_MAX 0x4000u     /* 2 */
#define DEPENDENT 0x1p-14      /* what is left of a vector of norm 1 to 2 beside the others, when it is rounding only */
#define BLOCK_ROWS 64          /* rows whose vectors of P are unpacked at a time */
#define TILE_FLOATS 8192       /* of Q unpacked at a time: fits into the first-level cache */
#define TILE_PAD 16            /* between its vectors: at powers of two apart they would evict each other */
#define BLOCK_FLOATS 8192      /* of the matrix read at a time, so that the second use finds it in the cache */
/* The factors are made as float32 behind where they are written as float16, so that one can follow the other. */
#define WORK_OFFSET (OFF_EXPONENTS + BL_LOWRANK_RANK_MAX)

_Static_assert(BL_LOWRANK_RANK_MAX <= BL_LOWRANK_MAX, "the kernels take every rank of the codec");

typedef struct shape {
  uint32_t n, columns, rows, rank; /* rank 0: plain values */
} shape;

uint32_t bl_lowrank_columns(uint32_t n) {
  uint32_t c = (uint32_t)sqrt((double)n);
  return c + (c * (uint64_t)c < n);
}

static bool worth_it(const shape *s) { return (uint64_t)s->rank * ((uint64_t)s->rows + s->columns) < s->n; }

static shape shape_of(const bl_encode *e, uint32_t n) {
  shape s = {.n = n, .columns = e->columns == 0 || e->columns >= n ? bl_lowrank_columns(n) : e->columns};
  s.rows = n == 0 ? 0 : (uint32_t)bl_div_up_u64(n, s.columns);
  s.rank = BL_MIN(BL_MIN(BL_MAX(e->spec->rank, 1u), (uint32_t)BL_LOWRANK_RANK_MAX), BL_MIN(s.rows, s.columns));
  s.rank = worth_it(&s) ? s.rank : 0;
  return s;
}

static size_t factor_elems(const shape *s) { return (size_t)s->rank * ((size_t)s->rows + s->columns); }
static size_t payload_bytes(const shape *s) { return OFF_EXPONENTS + s->rank + factor_elems(s) * sizeof(uint16_t); }

/* Rows [first, end) as the kernels take them: whole rows, and the last one, which may be shorter. */
static uint32_t last_columns(const shape *s) { return s->n - (s->rows - 1) * s->columns; }
static uint32_t whole_rows(const shape *s, uint32_t end) { return end < s->rows || last_columns(s) == s->columns ? end : end - 1; }

static bl_status check_plain(const bl_codec_view *v, bl_error *err) { return bl_codec_expect(v, (size_t)v->n * sizeof(float), err); }

static bl_status check_halves(const bl_codec_view *v, const uint8_t *p, size_t n, uint16_t limit, bl_error *err) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t bits = bl_le_get16(p + 2 * i) & 0x7fffu;
    largest = BL_MAX(largest, bits);
  }
  if (largest <= limit)
    return BL_OK;
  return bl_fail(err, BL_ECORRUPT, "%s frame has a factor of float16 bits 0x%04" PRIx32 ", at most 0x%04x is allowed", v->codec->name,
                 largest, limit);
}

static bl_status check_exponents(const bl_codec_view *v, bl_error *err) {
  for (uint32_t k = 0; k < v->parameter; k++) {
    uint32_t exponent = v->payload[OFF_EXPONENTS + k];
    if (exponent < EXPONENT_MIN || exponent > EXPONENT_MAX)
      return bl_fail(err, BL_ECORRUPT, "%s frame has exponent %" PRIu32 ", allowed: %d to %d", v->codec->name, exponent,
                     EXPONENT_MIN, EXPONENT_MAX);
  }
  return BL_OK;
}

static bl_status check_shape(const bl_codec_view *v, shape *ret_s, bl_error *err) {
  if (v->parameter > BL_LOWRANK_RANK_MAX)
    return bl_fail(err, BL_ECORRUPT, "%s frame has parameter %" PRIu32 ", which is no rank: 1 to %d", v->codec->name, v->parameter,
                   BL_LOWRANK_RANK_MAX);
  if (v->payload_bytes < OFF_EXPONENTS)
    return bl_codec_expect(v, OFF_EXPONENTS, err);
  shape s = {.n = v->n, .columns = bl_le_get32(v->payload + OFF_COLUMNS), .rank = v->parameter};
  s.rows = s.columns == 0 ? 0 : (uint32_t)bl_div_up_u64(s.n, s.columns);
  if (s.columns == 0 || s.columns > s.n || s.rank > BL_MIN(s.rows, s.columns) || !worth_it(&s))
    return bl_fail(err, BL_ECORRUPT, "%s frame of %" PRIu32 " elements has %" PRIu32 " columns, which does not go with rank %" PRIu32,
                   v->codec->name, s.n, s.columns, s.rank);
  *ret_s = s;
  return BL_OK;
}

static bl_status check(const bl_codec_view *v, bl_error *err) {
  if (v->parameter == 0)
    return check_plain(v, err);
  shape s = {0};
  bl_status status = check_shape(v, &s, err);
  if (status == BL_OK)
    status = bl_codec_expect(v, payload_bytes(&s), err);
  if (status == BL_OK)
    status = check_exponents(v, err);
  const uint8_t *p = v->payload + OFF_EXPONENTS + s.rank;
  if (status == BL_OK)
    status = check_halves(v, p, (size_t)s.rank * s.rows, P_BITS_MAX, err);
  if (status == BL_OK)
    status = check_halves(v, p + (size_t)s.rank * s.rows * sizeof(uint16_t), (size_t)s.rank * s.columns, Q_BITS_MAX, err);
  return status;
}

/* The columns are not known here, and the factors are made in the frame as float32. */
static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  (void)spec;
  return BL_CODEC_HEADER_BYTES + WORK_OFFSET + (size_t)n * sizeof(float);
}

static shape trusted_shape(const bl_codec_view *v) {
  shape s = {.n = v->n, .columns = bl_le_get32(v->payload + OFF_COLUMNS), .rank = v->parameter};
  s.rows = (uint32_t)bl_div_up_u64(s.n, s.columns);
  return s;
}

/* Rows of P as float32, each vector times its scale: a power of two, so that nothing is rounded but denormals. */
static void unpack_p(const bl_codec_view *v, const shape *s, uint32_t first, uint32_t n_rows, float p[][BLOCK_ROWS]) {
  const bl_kernels *kernels = bl_kernels_get();
  const uint8_t *halves = v->payload + OFF_EXPONENTS + s->rank;
  for (uint32_t k = 0; k < s->rank; k++) {
    kernels->f16_to_f32(p[k], (const uint16_t *)(const void *)(halves + ((size_t)k * s->rows + first) * sizeof(uint16_t)), n_rows);
    kernels->scale(p[k], ldexpf(1, (int)v->payload[OFF_EXPONENTS + k] - BIAS), n_rows);
  }
}

static void unpack_q(const bl_codec_view *v, const shape *s, uint32_t first, uint32_t n_columns, float *q, size_t q_stride) {
  const uint8_t *halves = v->payload + OFF_EXPONENTS + s->rank + (size_t)s->rank * s->rows * sizeof(uint16_t);
  for (uint32_t k = 0; k < s->rank; k++)
    bl_kernels_get()->f16_to_f32(q + k * q_stride,
                                 (const uint16_t *)(const void *)(halves + ((size_t)k * s->columns + first) * sizeof(uint16_t)), n_columns);
}

/* y (op)= the product, of rows [first, end), at most BLOCK_ROWS. y: the whole chunk. */
static void expand_block(const bl_codec_view *v, const shape *s, uint32_t first, uint32_t end, bl_lowrank_op op, float scale,
                         float *y) {
  const bl_lowrank_kernels *kernels = bl_kernels_get()->lowrank;
  float p[BL_LOWRANK_RANK_MAX][BLOCK_ROWS], q[TILE_FLOATS + BL_LOWRANK_RANK_MAX * TILE_PAD];
  uint32_t tile = BL_MIN(s->columns, TILE_FLOATS / s->rank / 64 * 64), q_stride = tile + TILE_PAD, whole = whole_rows(s, end);
  unpack_p(v, s, first, end - first, p);
  for (uint32_t j = 0; j < s->columns; j += tile) {
    uint32_t n = BL_MIN(tile, s->columns - j);
    float *at = y + (size_t)first * s->columns + j;
    unpack_q(v, s, j, n, q, q_stride);
    kernels->expand(at, s->columns, whole - first, n, p[0], BLOCK_ROWS, q, q_stride, s->rank, op, scale);
    if (whole < end && j < last_columns(s))
      kernels->expand(at + (size_t)(whole - first) * s->columns, s->columns, 1, BL_MIN(n, last_columns(s) - j), p[0] + (whole - first),
                      BLOCK_ROWS, q, q_stride, s->rank, op, scale);
  }
}

static void expand(const bl_codec_view *v, bl_lowrank_op op, float scale, float *y) {
  shape s = trusted_shape(v);
  for (uint32_t i = 0; i < s.rows; i += BLOCK_ROWS)
    expand_block(v, &s, i, BL_MIN(i + BLOCK_ROWS, s.rows), op, scale, y);
}

static void decode(const bl_codec_view *v, float *y) {
  if (v->parameter == 0)
    memcpy(y, v->payload, v->payload_bytes);
  else
    expand(v, BL_LOWRANK_STORE, 1, y);
}

static void accumulate(const bl_codec_view *v, float scale, float *y) {
  const float *plain = (const float *)(const void *)v->payload; /* kernels take any alignment */
  if (v->parameter == 0 && scale == 1.0f)
    bl_kernels_get()->add(y, plain, v->n);
  else if (v->parameter == 0)
    bl_kernels_get()->axpy(y, plain, scale, v->n);
  else
    expand(v, scale == 1.0f ? BL_LOWRANK_ADD : BL_LOWRANK_ADD_PART, scale, y);
}

static bool are_alike(const bl_codec_view *views, uint32_t n_views) {
  for (uint32_t i = 0; i < n_views; i++)
    if (views[i].parameter == 0 || trusted_shape(&views[i]).columns != trusted_shape(&views[0]).columns)
      return false;
  return true;
}

/* Block after block of the sum, which stays in the cache for all frames. */
static void sum(const bl_codec_view *views, uint32_t n_views, bool store, float *y) {
  if (!are_alike(views, n_views)) {
    for (uint32_t i = 0; i < n_views; i++, store = false) {
      if (store)
        decode(&views[i], y);
      else
        accumulate(&views[i], 1, y);
    }
    return;
  }
  uint32_t rows = trusted_shape(&views[0]).rows;
  for (uint32_t first = 0; first < rows; first += BLOCK_ROWS)
    for (uint32_t i = 0; i < n_views; i++) {
      shape s = trusted_shape(&views[i]);
      expand_block(&views[i], &s, first, BL_MIN(first + BLOCK_ROWS, rows), store && i == 0 ? BL_LOWRANK_STORE : BL_LOWRANK_ADD, 1, y);
    }
}

static double norm_of(const float *x, size_t n) { return sqrt(bl_kernels_get()->sum_squares(x, n)); }

/* x *= 2^exponent, also where that power is no float32. */
static void shift(float *x, int exponent, size_t n) {
  for (int step; exponent != 0; exponent -= step) {
    step = BL_MAX(-100, BL_MIN(100, exponent));
    bl_kernels_get()->scale(x, ldexpf(1, step), n);
  }
}

/* A power of two takes the norm of x into [1, 2); the exponent taken out. The norm is finite and above 0. */
static int normalise(float *x, double norm, size_t n) {
  int exponent = ilogb(norm);
  shift(x, -exponent, n);
  return exponent;
}

/* Numbers in [-1, 1), never all zero. */
static void draw(float *x, uint64_t key, uint32_t k, uint32_t n) {
  for (uint32_t i = 0; i < n; i += 4) {
    bl_rng_block b = bl_rng_philox(key, k, i);
    for (uint32_t l = 0; l < 4 && i + l < n; l++) {
      float u = (float)(b.v[l] >> 8 | 1u) * 0x1p-23f - 1.0f;
      memcpy(x + i + l, &u, sizeof u);
    }
  }
}

/* The vectors to begin with: the last ones where there are any, each with a norm that neither overflows nor vanishes. */
static void begin(const bl_encode *e, const shape *s, float *q) {
  for (uint32_t k = 0; k < s->rank; k++, q += s->columns) {
    double norm = 0;
    if (e->factor != NULL) {
      memcpy(q, e->factor + (size_t)k * s->columns, (size_t)s->columns * sizeof *q);
      norm = norm_of(q, s->columns);
    }
    if (!(norm > 0 && isfinite(norm))) {
      draw(q, e->key, k, s->columns);
      norm = norm_of(q, s->columns);
    }
    normalise(q, norm, s->columns);
  }
}

/* P = M Q. With a residual it becomes M on the way, block after block. */
static void project(const shape *s, const float *x, float *residual, const float *q, float *p) {
  const bl_kernels *kernels = bl_kernels_get();
  uint32_t block = BL_MAX(4u, BLOCK_FLOATS / s->columns / 4 * 4);
  for (uint32_t i = 0; i < s->rows; i += block) {
    uint32_t end = BL_MIN(i + block, s->rows), whole = whole_rows(s, end);
    size_t first = (size_t)i * s->columns, last = BL_MIN((size_t)end * s->columns, s->n), at_whole = (size_t)whole * s->columns;
    const float *m = residual != NULL ? residual : x;
    if (residual != NULL)
      kernels->add(residual + first, x + first, last - first);
    kernels->lowrank->project(p + i, s->rows, m + first, s->columns, whole - i, s->columns, q, s->columns, s->rank);
    if (whole < end)
      kernels->lowrank->project(p + whole, s->rows, m + at_whole, s->columns, 1, last_columns(s), q, s->columns, s->rank);
  }
}

/* Q = M^T P. */
static void gather(const shape *s, const float *m, const float *p, float *q) {
  const bl_lowrank_kernels *kernels = bl_kernels_get()->lowrank;
  uint32_t block = BL_MAX(16u, BLOCK_FLOATS / s->columns);
  memset(q, 0, (size_t)s->rank * s->columns * sizeof *q);
  for (uint32_t i = 0; i < s->rows; i += block) {
    uint32_t end = BL_MIN(i + block, s->rows), whole = whole_rows(s, end);
    kernels->gather(q, s->columns, m + (size_t)i * s->columns, s->columns, whole - i, s->columns, p + i, s->rows, s->rank);
    if (whole < end)
      kernels->gather(q, s->columns, m + (size_t)whole * s->columns, s->columns, 1, last_columns(s), p + whole, s->rows, s->rank);
  }
}

/* x minus its parts along the vectors before it, which are orthonormal or zero. Twice is enough: what rounding left of
 * them the first time is gone. */
static void take_out(float *x, const float *before, uint32_t n_before, size_t n) {
  const bl_lowrank_kernels *kernels = bl_kernels_get()->lowrank;
  float parts[BL_LOWRANK_RANK_MAX];
  for (int times = 0; times < 2; times++) {
    kernels->project(parts, 1, x, n, 1, n, before, n, n_before);
    kernels->expand(x, n, 1, n, parts, 1, before, n, n_before, BL_LOWRANK_SUBTRACT, 1);
  }
}

/* Gram-Schmidt. False: the numbers are not finite. */
static bool orthonormalise(const shape *s, float *p) {
  size_t n = s->rows;
  for (uint32_t k = 0; k < s->rank; k++) {
    float *x = p + k * n;
    double norm = norm_of(x, n);
    if (!isfinite(norm))
      return false;
    if (norm == 0)
      continue;
    normalise(x, norm, n);
    if (k > 0)
      take_out(x, p, k, n);
    norm = norm_of(x, n);
    if (norm < DEPENDENT)
      memset(x, 0, n * sizeof *x);
    else
      bl_kernels_get()->scale(x, (float)(1 / norm), n);
  }
  return true;
}

/* Scales the vectors of Q for float16. False: one is too large. */
static bool take_exponents(const shape *s, float *q, uint8_t *exponents) {
  for (uint32_t k = 0; k < s->rank; k++, q += s->columns) {
    double norm = norm_of(q, s->columns);
    if (!(norm < 0x1p119))
      return false;
    int exponent = norm > 0 ? BL_MAX(ilogb(norm), EXPONENT_MIN - BIAS) : 0;
    shift(q, -exponent, s->columns);
    exponents[k] = (uint8_t)(exponent + BIAS);
  }
  return true;
}

/* float32 at from, float16 at to, which lies before it. */
static void pack(uint8_t *to, const float *from, size_t n) {
  uint16_t halves[256];
  for (size_t i = 0, part; i < n; i += part) {
    part = BL_MIN(n - i, BL_COUNT_OF(halves));
    bl_kernels_get()->f32_to_f16(halves, from + i, part);
    memcpy(to + i * sizeof(uint16_t), halves, part * sizeof(uint16_t));
  }
}

static void keep_finite(float *x, size_t n) {
  for (size_t i = 0; i < n; i++) {
    float v;
    memcpy(&v, x + i, sizeof v);
    if (!isfinite(v))
      memset(x + i, 0, sizeof v);
  }
}

static size_t encode_plain(const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  size_t bytes = (size_t)n * sizeof(float);
  uint8_t *payload = out + BL_CODEC_HEADER_BYTES;
  memcpy(payload, x, bytes);
  if (residual != NULL) {
    bl_kernels_get()->add((float *)(void *)payload, residual, n);
    memset(residual, 0, bytes);
  }
  return bl_codec_seal(out, BL_CODEC_LOWRANK, flags, 0, n, bytes);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  shape s = shape_of(e, n);
  if (s.rank == 0)
    return encode_plain(x, residual, n, flags, out);
  uint8_t *payload = out + BL_CODEC_HEADER_BYTES, *exponents = payload + OFF_EXPONENTS;
  float *p = (float *)(void *)(payload + WORK_OFFSET), *q = p + (size_t)s.rank * s.rows; /* kernels take any alignment */
  begin(e, &s, q);
  project(&s, x, residual, q, p);
  bool fits = orthonormalise(&s, p);
  if (fits)
    gather(&s, residual != NULL ? residual : x, p, q);
  fits = fits && take_exponents(&s, q, exponents);
  if (!fits) {
    memset(p, 0, factor_elems(&s) * sizeof *p);
    memset(exponents, BIAS, s.rank);
  }
  if (e->factor != NULL)
    memcpy(e->factor, q, (size_t)s.rank * s.columns * sizeof *q);
  pack(exponents + s.rank, p, factor_elems(&s));
  bl_le_put32(payload + OFF_COLUMNS, s.columns);
  size_t size = bl_codec_seal(out, BL_CODEC_LOWRANK, flags, (uint16_t)s.rank, n, payload_bytes(&s));
  if (residual != NULL && fits) { /* the frame itself, so that both ends multiply the same numbers */
    bl_codec_view v = bl_codec_trusted(out, size);
    expand(&v, BL_LOWRANK_SUBTRACT, 1, residual);
  } else if (residual != NULL) {
    keep_finite(residual, n);
  }
  return size;
}

const bl_codec bl_codec_lowrank = {
    .id = BL_CODEC_LOWRANK,
    .name = "lowrank",
    .check = check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = decode,
    .accumulate = accumulate,
    .sum = sum,
};
