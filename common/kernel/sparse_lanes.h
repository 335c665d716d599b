/* SPDX-License-Identifier: Apache-2.0
 *
 * The wide loops of the sparse codecs' kernels, written once over a vector of LANES floats. The file of an instruction
 * set defines the operations, includes this header once, and names the table:
 *
 *   LANES, vec, v_load v_store v_set v_add v_mul, v_zero_unless_finite(x), v_store_size(out, x): magnitudes as patterns,
 *   vec_range, v_range(least), v_in_range(x, range): bit i for lane i, v_list(list, at, first, x, mask): lists the masked
 *   lanes of x, elements `first` on, from entry `at`, and may write BL_SPARSE_SLACK entries whatever the mask,
 *   v_signs(x), v_reaching(x, limit), v_with_signs(magnitude, bits), put_bits(out, bits), get_bits(in),
 *   wide_sum_magnitudes, TABLE
 *
 * What does not fill a vector is done by the scalar table.
 */
#ifndef LANES
#error "included by the file of an instruction set, which says what a vector is"
#endif

/* Lists behind `count` entries, those that are beyond the limit to be overwritten by the next. */
static inline uint32_t list_picked(const bl_sparse_list *list, uint32_t count, uint32_t first, vec x, unsigned mask) {
  v_list(list, count < list->max ? count : list->max, first, x, mask);
  return count + (uint32_t)__builtin_popcount(mask);
}

/* Where the scalar table goes on. */
static bl_sparse_list rest_of(const bl_sparse_list *list, uint32_t count) {
  uint32_t at = count < list->max ? count : list->max;
  return (bl_sparse_list){list->index + at, list->value + at, list->max - at};
}

static uint32_t add_rest(const bl_sparse_list *rest, uint32_t count, uint32_t more, uint32_t first) {
  for (uint32_t i = 0; i < more && i < rest->max; i++)
    rest->index[i] += first;
  return count + more;
}

static uint32_t select_plain(const float *x, uint32_t n, uint32_t least, const bl_sparse_list *list) {
  const vec_range range = v_range(least);
  uint32_t i = 0, count = 0;
  for (; i + LANES <= n; i += LANES) {
    vec v = v_load(x + i);
    count = list_picked(list, count, i, v, v_in_range(v, range));
  }
  bl_sparse_list rest = rest_of(list, count);
  return add_rest(&rest, count, bl_sparse_kernels_scalar.select(x + i, n - i, least, &rest), i);
}

static uint32_t select_feedback(const float *x, float *residual, uint32_t n, uint32_t least, const bl_sparse_list *list) {
  const vec_range range = v_range(least);
  uint32_t i = 0, count = 0;
  for (; i + LANES <= n; i += LANES) {
    vec v = v_zero_unless_finite(v_add(v_load(x + i), v_load(residual + i)));
    v_store(residual + i, v);
    count = list_picked(list, count, i, v, v_in_range(v, range));
  }
  bl_sparse_list rest = rest_of(list, count);
  return add_rest(&rest, count,
                  bl_sparse_kernels_scalar.select_feedback(x + i, residual + i, n - i, least, &rest), i);
}

static uint32_t select_momentum(const float *x, float *residual, float *velocity, float m, uint32_t n, uint32_t least,
                                const bl_sparse_list *list) {
  const vec_range range = v_range(least);
  const vec vm = v_set(m);
  uint32_t i = 0, count = 0;
  for (; i + LANES <= n; i += LANES) {
    vec u = v_zero_unless_finite(v_add(v_mul(vm, v_load(velocity + i)), v_load(x + i)));
    vec v = v_zero_unless_finite(v_add(v_load(residual + i), u));
    v_store(velocity + i, u);
    v_store(residual + i, v);
    count = list_picked(list, count, i, v, v_in_range(v, range));
  }
  bl_sparse_list rest = rest_of(list, count);
  return add_rest(
      &rest, count,
      bl_sparse_kernels_scalar.select_momentum(x + i, residual + i, velocity + i, m, n - i, least, &rest), i);
}

static void magnitudes(uint32_t *out, const float *x, const float *residual, const float *velocity, float m, size_t n) {
  const vec vm = v_set(m);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    vec v = v_load(x + i);
    if (velocity != NULL)
      v = v_zero_unless_finite(v_add(v_mul(vm, v_load(velocity + i)), v));
    if (residual != NULL)
      v = v_add(v, v_load(residual + i));
    v_store_size(out + i, v_zero_unless_finite(v));
  }
  if (i < n)
    bl_sparse_kernels_scalar.magnitudes(out + i, x + i, residual == NULL ? NULL : residual + i,
                                        velocity == NULL ? NULL : velocity + i, m, n - i);
}

/* wide_sum_magnitudes fills the lanes from a multiple of BL_SUM_LANES elements. */
static double sum_magnitudes(const float *x0, size_t n) {
  double p[BL_SUM_LANES];
  const size_t whole = n - n % BL_SUM_LANES;
  const bl_loose_float *x = x0;
  wide_sum_magnitudes(p, x0, whole);
  for (size_t i = whole; i < n; i++)
    p[i - whole] += (double)__builtin_fabsf(x[i]);
  return bl_sum_lanes(p);
}

static void pack_signs(uint8_t *out, const float *x, size_t n) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    put_bits(out + i / 8, v_signs(v_load(x + i)));
  bl_sparse_kernels_scalar.pack_signs(out + i / 8, x + i, n - i);
}

static void pack_reaching(uint8_t *out, const float *x, float limit, size_t n) {
  const vec vl = v_set(limit);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    put_bits(out + i / 8, v_reaching(v_load(x + i), vl));
  bl_sparse_kernels_scalar.pack_reaching(out + i / 8, x + i, limit, n - i);
}

static void unpack_signs(float *y, const uint8_t *signs, float magnitude, size_t n) {
  const vec vm = v_set(magnitude);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_with_signs(vm, get_bits(signs + i / 8)));
  bl_sparse_kernels_scalar.unpack_signs(y + i, signs + i / 8, magnitude, n - i);
}

const bl_sparse_kernels TABLE = {
    .select = select_plain,
    .select_feedback = select_feedback,
    .select_momentum = select_momentum,
    .magnitudes = magnitudes,
    .sum_magnitudes = sum_magnitudes,
    .pack_signs = pack_signs,
    .pack_reaching = pack_reaching,
    .unpack_signs = unpack_signs,
};
