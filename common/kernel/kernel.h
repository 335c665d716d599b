/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels: the inner loops over float32 arrays. One const table per instruction set, chosen once at start
 * by what the CPU has, or forced by name (environment BALLAST_KERNELS=scalar|avx2|avx512, or the setting
 * `kernels`). Every table gives the same bits: no fused multiply-add, a written order for reductions, and
 * the scalar table is the definition. Tests compare bit for bit over edge lengths and extremes.
 *
 * Shapes: plain arrays of n elements, any alignment, n may be 0; arrays do not overlap unless they are the
 * same. NaN and infinity pass through arithmetic as IEEE 754 says. Threads: any.
 */
#ifndef BL_KERNEL_KERNEL_H
#define BL_KERNEL_KERNEL_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Numbers an Adam step needs, prepared once per clock. See optim/adam.c for the equations. */
typedef struct bl_adam_args {
  float lr, beta1, beta2, eps;
  float correction1, correction2; /* 1 / (1 - beta^t) */
  float weight_decay;             /* adam, amsgrad, yogi: L2 added to the gradient; the others: of the weight; 0: none */
} bl_adam_args;

typedef struct bl_ftrl_args {
  float lr, beta, l1, l2; /* lr above 0; see optim/ftrl.c */
} bl_ftrl_args;

struct bl_quant_kernels;  /* kernel/quant.h: dense codecs */
struct bl_sparse_kernels; /* kernel/sparse.h: sparse codecs */
struct bl_lowrank_kernels; /* kernel/lowrank.h: the low-rank codec */

typedef struct bl_kernels {
  const char *name;
  const struct bl_quant_kernels *quant;
  const struct bl_sparse_kernels *sparse;
  const struct bl_lowrank_kernels *lowrank;
  void (*add)(float *y, const float *x, size_t n);                       /* y += x */
  void (*axpy)(float *y, const float *x, float a, size_t n);             /* y += a * x: round(a*x), then round(+) */
  void (*sub)(float *y, const float *a, const float *b, size_t n);       /* y = a - b */
  void (*scale)(float *y, float a, size_t n);                            /* y *= a */
  void (*clip)(float *y, float limit, size_t n);                         /* y = min(max(y, -limit), limit); NaN stays */
  void (*f32_to_f16)(uint16_t *out, const float *x, size_t n);           /* nearest even, saturating; NaN and Inf kept */
  void (*f16_to_f32)(float *out, const uint16_t *x, size_t n);
  void (*f16_add)(float *y, const uint16_t *x, size_t n);                /* y += float(x) */
  void (*f16_axpy)(float *y, const uint16_t *x, float a, size_t n);
  /* Error feedback: sum = x + residual, out = f16(sum), residual = sum - float(out), or 0 where sum is not finite. */
  void (*f16_feedback)(uint16_t *out, const float *x, float *residual, size_t n);
  bool (*all_finite)(const float *x, size_t n);
  /* Sum of squares in double: 16 interleaved partial sums (lane i takes elements i mod 16), added pairwise
   * 8, 4, 2, 1 apart; same bits on every table. */
  double (*sum_squares)(const float *x, size_t n);
  /* Optimizer steps; g is the aggregated gradient, w the weights; m, v state. */
  void (*sgd)(float *w, const float *g, float lr, float weight_decay, size_t n);
  void (*momentum)(float *w, float *m, const float *g, float lr, float mu, float weight_decay, size_t n);
  void (*adam)(float *w, float *m, float *v, const float *g, const bl_adam_args *args, size_t n);
  void (*nesterov)(float *w, float *m, const float *g, float lr, float mu, float weight_decay, size_t n);
  void (*adagrad)(float *w, float *s, const float *g, float lr, float initial, float eps, float weight_decay, size_t n);
  void (*rmsprop)(float *w, float *v, const float *g, float lr, float rho, float eps, float weight_decay, size_t n);
  void (*adamw)(float *w, float *m, float *v, const float *g, const bl_adam_args *args, size_t n);
  void (*amsgrad)(float *w, float *m, float *v, float *top, const float *g, const bl_adam_args *args, size_t n);
  void (*yogi)(float *w, float *m, float *v, const float *g, const bl_adam_args *args, size_t n);
  void (*ftrl)(float *w, float *z, float *s, const float *g, const bl_ftrl_args *args, size_t n);
  /* Two halves of a step for rules that need a norm between them: the moments without decay, then the
   * direction u = m^ / (sqrt(v^) + eps) + weight_decay * w. */
  void (*adam_moments)(float *m, float *v, const float *g, const bl_adam_args *args, size_t n);
  void (*adam_direction)(float *u, const float *w, const float *m, const float *v, const bl_adam_args *args, size_t n);
  void (*average)(float *y, const float *x, float part, size_t n); /* y += part * (x - y): three roundings */
} bl_kernels;

/* The table in use. Chosen at the first call (BALLAST_KERNELS, then CPU), the same for ever after unless
 * bl_kernels_force is called. */
const bl_kernels *bl_kernels_get(void);
/* "auto" or a table's name. BL_ENOENT: not built in; BL_EUNSUPPORTED: this CPU cannot. Call before threads start. */
BL_MUST_CHECK bl_status bl_kernels_force(const char *name, bl_error *err);
/* Tables this CPU can run, for tests: the ith, NULL behind the last; 0 is scalar. */
const bl_kernels *bl_kernels_at(size_t i);

#endif
