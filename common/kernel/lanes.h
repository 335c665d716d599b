/* SPDX-License-Identifier: Apache-2.0
 *
 * The loops of the wide tables, written once over a vector of LANES floats. The file of an instruction set
 * defines the vector type and its operations, includes this header once, and names the table:
 *
 *   LANES, vec, v_load v_store v_set v_add v_sub v_mul v_div v_sqrt, v_clip(x, low, high) with NaN kept,
 *   v_max(a, b) = a > b ? a : b, v_copy_sign(size, sign), v_zero_within(x, judged, limit),
 *   v_if_less(a, b, x, y) = a < b ? x : y,
 *   vec_half, v_load_half v_store_half v_from_half, v_to_half (saturating), v_to_half_plain, v_all_within(x, limit), v_all_finite,
 *   v_zero_unless_finite(x, judged), wide_sum_squares, TABLE, TABLE_NAME, TABLE_SPARSE, QUANT (its table of quant.h), LOWRANK_TABLE
 *
 * The operations and their order are those of scalar.c, and what does not fill a vector is done by it.
 * No fused multiply-add anywhere: it would round once where the definition rounds twice.
 */
#ifndef LANES
#error "included by the file of an instruction set, which says what a vector is"
#endif

static void add(float *y, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_add(v_load(y + i), v_load(x + i)));
  bl_kernels_scalar.add(y + i, x + i, n - i);
}

static void axpy(float *y, const float *x, float a, size_t n) {
  const vec va = v_set(a);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_add(v_load(y + i), v_mul(va, v_load(x + i))));
  bl_kernels_scalar.axpy(y + i, x + i, a, n - i);
}

static void sub(float *y, const float *a, const float *b, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_sub(v_load(a + i), v_load(b + i)));
  bl_kernels_scalar.sub(y + i, a + i, b + i, n - i);
}

static void scale(float *y, float a, size_t n) {
  const vec va = v_set(a);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_mul(v_load(y + i), va));
  bl_kernels_scalar.scale(y + i, a, n - i);
}

static void clip(float *y, float limit, size_t n) {
  const vec low = v_set(-limit), high = v_set(limit);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_clip(v_load(y + i), low, high));
  bl_kernels_scalar.clip(y + i, limit, n - i);
}

/* What needs no saturation, which is everything in most arrays, is one instruction. */
static inline vec_half v_to_half_or(vec x) {
  return __builtin_expect(v_all_within(x, 65504.0f), 1) ? v_to_half_plain(x) : v_to_half(x);
}

static void f32_to_f16(uint16_t *out, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store_half(out + i, v_to_half_or(v_load(x + i)));
  bl_kernels_scalar.f32_to_f16(out + i, x + i, n - i);
}

static void f16_to_f32(float *out, const uint16_t *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(out + i, v_from_half(v_load_half(x + i)));
  bl_kernels_scalar.f16_to_f32(out + i, x + i, n - i);
}

static void f16_add(float *y, const uint16_t *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_add(v_load(y + i), v_from_half(v_load_half(x + i))));
  bl_kernels_scalar.f16_add(y + i, x + i, n - i);
}

static void f16_axpy(float *y, const uint16_t *x, float a, size_t n) {
  const vec va = v_set(a);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_add(v_load(y + i), v_mul(va, v_from_half(v_load_half(x + i)))));
  bl_kernels_scalar.f16_axpy(y + i, x + i, a, n - i);
}

static void f16_feedback(uint16_t *out, const float *x, float *residual, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec sum = v_add(v_load(x + i), v_load(residual + i));
    vec_half h = v_to_half_or(sum);
    v_store_half(out + i, h);
    v_store(residual + i, v_zero_unless_finite(v_sub(sum, v_from_half(h)), sum));
  }
  bl_kernels_scalar.f16_feedback(out + i, x + i, residual + i, n - i);
}

static bool all_finite(const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    if (!v_all_finite(v_load(x + i)))
      return false;
  }
  return bl_kernels_scalar.all_finite(x + i, n - i);
}

/* wide_sum_squares fills the lanes from a multiple of BL_SUM_LANES elements. */
static double sum_squares(const float *x0, size_t n) {
  double p[BL_SUM_LANES];
  size_t whole = n - n % BL_SUM_LANES;
  wide_sum_squares(p, x0, whole);
  const bl_loose_float *x = x0;
  for (size_t i = whole; i < n; i++)
    p[i - whole] += (double)x[i] * (double)x[i];
  return bl_sum_lanes(p);
}

static inline vec v_decayed(vec g, vec w, vec weight_decay, bool decays) {
  return decays ? v_add(g, v_mul(weight_decay, w)) : g;
}

static void sgd(float *w, const float *g, float lr, float weight_decay, size_t n) {
  const vec vlr = v_set(lr), vwd = v_set(weight_decay);
  const bool decays = weight_decay != 0;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    v_store(w + i, v_sub(x, v_mul(vlr, v_decayed(v_load(g + i), x, vwd, decays))));
  }
  bl_kernels_scalar.sgd(w + i, g + i, lr, weight_decay, n - i);
}

static void momentum(float *w, float *m, const float *g, float lr, float mu, float weight_decay, size_t n) {
  const vec vlr = v_set(lr), vmu = v_set(mu), vwd = v_set(weight_decay);
  const bool decays = weight_decay != 0;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    vec k = v_add(v_mul(vmu, v_load(m + i)), v_decayed(v_load(g + i), x, vwd, decays));
    v_store(m + i, k);
    v_store(w + i, v_sub(x, v_mul(vlr, k)));
  }
  bl_kernels_scalar.momentum(w + i, m + i, g + i, lr, mu, weight_decay, n - i);
}

static void adam(float *w, float *m, float *v, const float *g, const bl_adam_args *a, size_t n) {
  const vec lr = v_set(a->lr), eps = v_set(a->eps), wd = v_set(a->weight_decay);
  const vec beta1 = v_set(a->beta1), rest1 = v_set(1.0f - a->beta1), c1 = v_set(a->correction1);
  const vec beta2 = v_set(a->beta2), rest2 = v_set(1.0f - a->beta2), c2 = v_set(a->correction2);
  const bool decays = a->weight_decay != 0;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    vec d = v_decayed(v_load(g + i), x, wd, decays);
    vec k = v_add(v_mul(beta1, v_load(m + i)), v_mul(rest1, d));
    vec q = v_add(v_mul(beta2, v_load(v + i)), v_mul(v_mul(rest2, d), d));
    vec divisor = v_add(v_sqrt(v_mul(q, c2)), eps);
    v_store(m + i, k);
    v_store(v + i, q);
    v_store(w + i, v_sub(x, v_div(v_mul(lr, v_mul(k, c1)), divisor)));
  }
  bl_kernels_scalar.adam(w + i, m + i, v + i, g + i, a, n - i);
}

static void nesterov(float *w, float *m, const float *g, float lr, float mu, float weight_decay, size_t n) {
  const vec vlr = v_set(lr), vmu = v_set(mu), vwd = v_set(weight_decay);
  const bool decays = weight_decay != 0;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    vec d = v_decayed(v_load(g + i), x, vwd, decays);
    vec k = v_add(v_mul(vmu, v_load(m + i)), d);
    v_store(m + i, k);
    v_store(w + i, v_sub(x, v_mul(vlr, v_add(d, v_mul(vmu, k)))));
  }
  bl_kernels_scalar.nesterov(w + i, m + i, g + i, lr, mu, weight_decay, n - i);
}

static void adagrad(float *w, float *s, const float *g, float lr, float initial, float eps, float weight_decay,
                    size_t n) {
  const vec vlr = v_set(lr), vinitial = v_set(initial), veps = v_set(eps), vwd = v_set(weight_decay);
  const bool decays = weight_decay != 0;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    vec d = v_decayed(v_load(g + i), x, vwd, decays);
    vec q = v_add(v_load(s + i), v_mul(d, d));
    v_store(s + i, q);
    v_store(w + i, v_sub(x, v_div(v_mul(vlr, d), v_add(v_sqrt(v_add(q, vinitial)), veps))));
  }
  bl_kernels_scalar.adagrad(w + i, s + i, g + i, lr, initial, eps, weight_decay, n - i);
}

static void rmsprop(float *w, float *v, const float *g, float lr, float rho, float eps, float weight_decay, size_t n) {
  const vec vlr = v_set(lr), vrho = v_set(rho), rest = v_set(1.0f - rho), veps = v_set(eps), vwd = v_set(weight_decay);
  const bool decays = weight_decay != 0;
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    vec d = v_decayed(v_load(g + i), x, vwd, decays);
    vec q = v_add(v_mul(vrho, v_load(v + i)), v_mul(v_mul(rest, d), d));
    v_store(v + i, q);
    v_store(w + i, v_sub(x, v_div(v_mul(vlr, d), v_add(v_sqrt(q), veps))));
  }
  bl_kernels_scalar.rmsprop(w + i, v + i, g + i, lr, rho, eps, weight_decay, n - i);
}

/* An Adam step's numbers as vectors. */
typedef struct adam_vecs {
  vec lr, eps, wd, beta1, rest1, c1, beta2, rest2, c2;
  bool decays;
} adam_vecs;

static inline adam_vecs v_adam(const bl_adam_args *a) {
  return (adam_vecs){
      .lr = v_set(a->lr),
      .eps = v_set(a->eps),
      .wd = v_set(a->weight_decay),
      .beta1 = v_set(a->beta1),
      .rest1 = v_set(1.0f - a->beta1),
      .c1 = v_set(a->correction1),
      .beta2 = v_set(a->beta2),
      .rest2 = v_set(1.0f - a->beta2),
      .c2 = v_set(a->correction2),
      .decays = a->weight_decay != 0,
  };
}

static inline vec v_first_moment(const float *m, vec d, const adam_vecs *a) {
  return v_add(v_mul(a->beta1, v_load(m)), v_mul(a->rest1, d));
}

static inline vec v_second_moment(const float *v, vec d, const adam_vecs *a) {
  return v_add(v_mul(a->beta2, v_load(v)), v_mul(v_mul(a->rest2, d), d));
}

static inline vec v_direction(vec x, vec k, vec q, const adam_vecs *a) {
  vec u = v_div(v_mul(k, a->c1), v_add(v_sqrt(v_mul(q, a->c2)), a->eps));
  return v_decayed(u, x, a->wd, a->decays);
}

static void adam_moments(float *m, float *v, const float *g, const bl_adam_args *args, size_t n) {
  const adam_vecs a = v_adam(args);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec d = v_load(g + i);
    v_store(m + i, v_first_moment(m + i, d, &a));
    v_store(v + i, v_second_moment(v + i, d, &a));
  }
  bl_kernels_scalar.adam_moments(m + i, v + i, g + i, args, n - i);
}

static void adam_direction(float *u, const float *w, const float *m, const float *v, const bl_adam_args *args,
                           size_t n) {
  const adam_vecs a = v_adam(args);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(u + i, v_direction(v_load(w + i), v_load(m + i), v_load(v + i), &a));
  bl_kernels_scalar.adam_direction(u + i, w + i, m + i, v + i, args, n - i);
}

static void adamw(float *w, float *m, float *v, const float *g, const bl_adam_args *args, size_t n) {
  const adam_vecs a = v_adam(args);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i), d = v_load(g + i);
    vec k = v_first_moment(m + i, d, &a), q = v_second_moment(v + i, d, &a);
    v_store(m + i, k);
    v_store(v + i, q);
    v_store(w + i, v_sub(x, v_mul(a.lr, v_direction(x, k, q, &a))));
  }
  bl_kernels_scalar.adamw(w + i, m + i, v + i, g + i, args, n - i);
}

static void amsgrad(float *w, float *m, float *v, float *top, const float *g, const bl_adam_args *args, size_t n) {
  const adam_vecs a = v_adam(args);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i);
    vec d = v_decayed(v_load(g + i), x, a.wd, a.decays);
    vec k = v_first_moment(m + i, d, &a), q = v_second_moment(v + i, d, &a);
    vec t = v_max(q, v_load(top + i));
    v_store(m + i, k);
    v_store(v + i, q);
    v_store(top + i, t);
    v_store(w + i, v_sub(x, v_div(v_mul(a.lr, v_mul(k, a.c1)), v_add(v_sqrt(v_mul(t, a.c2)), a.eps))));
  }
  bl_kernels_scalar.amsgrad(w + i, m + i, v + i, top + i, g + i, args, n - i);
}

static void yogi(float *w, float *m, float *v, const float *g, const bl_adam_args *args, size_t n) {
  const adam_vecs a = v_adam(args);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec x = v_load(w + i), before = v_load(v + i);
    vec d = v_decayed(v_load(g + i), x, a.wd, a.decays);
    vec square = v_mul(d, d), part = v_mul(v_mul(a.rest2, d), d);
    vec k = v_first_moment(m + i, d, &a);
    vec q = v_if_less(before, square, v_add(before, part), v_if_less(square, before, v_sub(before, part), before));
    v_store(m + i, k);
    v_store(v + i, q);
    v_store(w + i, v_sub(x, v_div(v_mul(a.lr, v_mul(k, a.c1)), v_add(v_sqrt(v_mul(q, a.c2)), a.eps))));
  }
  bl_kernels_scalar.yogi(w + i, m + i, v + i, g + i, args, n - i);
}

static void ftrl(float *w, float *z, float *s, const float *g, const bl_ftrl_args *a, size_t n) {
  const vec lr = v_set(a->lr), beta = v_set(a->beta), l1 = v_set(a->l1), l2 = v_set(a->l2);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec d = v_load(g + i), before = v_load(s + i);
    vec sum = v_add(before, v_mul(d, d)), root = v_sqrt(sum);
    vec sigma = v_div(v_sub(root, v_sqrt(before)), lr);
    vec k = v_add(v_load(z + i), v_sub(d, v_mul(sigma, v_load(w + i))));
    vec x = v_div(v_sub(v_copy_sign(l1, k), k), v_add(v_div(v_add(beta, root), lr), l2));
    v_store(z + i, k);
    v_store(s + i, sum);
    v_store(w + i, v_zero_within(x, k, l1));
  }
  bl_kernels_scalar.ftrl(w + i, z + i, s + i, g + i, a, n - i);
}

static void average(float *y, const float *x, float part, size_t n) {
  const vec vp = v_set(part);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec old = v_load(y + i);
    v_store(y + i, v_add(old, v_mul(vp, v_sub(v_load(x + i), old))));
  }
  bl_kernels_scalar.average(y + i, x + i, part, n - i);
}

const bl_kernels TABLE = {
    .name = TABLE_NAME,
    .quant = &QUANT,
    .sparse = &TABLE_SPARSE,
    .lowrank = &LOWRANK_TABLE,
    .add = add,
    .axpy = axpy,
    .sub = sub,
    .scale = scale,
    .clip = clip,
    .f32_to_f16 = f32_to_f16,
    .f16_to_f32 = f16_to_f32,
    .f16_add = f16_add,
    .f16_axpy = f16_axpy,
    .f16_feedback = f16_feedback,
    .all_finite = all_finite,
    .sum_squares = sum_squares,
    .sgd = sgd,
    .momentum = momentum,
    .adam = adam,
    .nesterov = nesterov,
    .adagrad = adagrad,
    .rmsprop = rmsprop,
    .adamw = adamw,
    .amsgrad = amsgrad,
    .yogi = yogi,
    .ftrl = ftrl,
    .adam_moments = adam_moments,
    .adam_direction = adam_direction,
    .average = average,
};
