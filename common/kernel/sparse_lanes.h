/* SPDX-License-Identifier: Apache-2.0
 *
 * The wide loops of the sparse codecs' kernels, written once over a vector of LANES floats. The file of an instruction
 * set defines the operations, includes this header once, and names the table:
 *
 *   LANES, vec, v_load v_store v_set v_add v_mul, v_zero_unless_finite(x), v_store_size(out, x): magnitudes as patterns,
 *   vec_range, v_range(least), v_in_range(x, range): bit i for lane i, v_list(list, at, first, x, mask): lists the masked
 *   lanes of x, elements `first` on, from entry `at`, and may write BL_SPARSE_SLACK entries whatever the mask,
 *   v_signs(x), v_reaching(x, limit), v_with_signs(magnitude, bits), put_bits(out, bits), get_bits(in),
 *   v_choose(low, high, bits), wide_sums with no_sums, add_magnitudes, add_split, store_sums: BL_SUM_LANES sums in double,
 *   TABLE
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

static double sum_magnitudes(const float *x0, size_t n) {
  const bl_loose_float *x = x0;
  const size_t whole = n - n % BL_SUM_LANES;
  double p[BL_SUM_LANES];
  wide_sums sums = no_sums();
  for (size_t i = 0; i < whole; i += BL_SUM_LANES)
    add_magnitudes(&sums, x0 + i);
  store_sums(p, &sums);
  for (size_t i = whole; i < n; i++)
    p[i - whole] += (double)__builtin_fabsf(x[i]);
  return bl_sum_lanes(p);
}

static void sum_split(const float *x0, float limit, double sums[2], size_t n) {
  const bl_loose_float *x = x0;
  const size_t whole = n - n % BL_SUM_LANES;
  double p[2][BL_SUM_LANES];
  wide_sums low = no_sums(), high = no_sums();
  for (size_t i = 0; i < whole; i += BL_SUM_LANES)
    add_split(&low, &high, x0 + i, limit);
  store_sums(p[0], &low);
  store_sums(p[1], &high);
  for (size_t i = whole; i < n; i++)
    p[__builtin_fabsf(x[i]) >= limit][i - whole] += (double)__builtin_fabsf(x[i]);
  sums[0] = bl_sum_lanes(p[0]);
  sums[1] = bl_sum_lanes(p[1]);
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

static void unpack_pairs(float *y, const uint8_t *signs, const uint8_t *choice, float low, float high, size_t n) {
  const vec vl = v_set(low), vh = v_set(high);
  size_t i = 0;
  for (; i + LANES <= n; i += LANES)
    v_store(y + i, v_with_signs(v_choose(vl, vh, get_bits(choice + i / 8)), get_bits(signs + i / 8)));
  bl_sparse_kernels_scalar.unpack_pairs(y + i, signs + i / 8, choice + i / 8, low, high, n - i);
}

const bl_sparse_kernels TABLE = {
    .select = select_plain,
    .select_feedback = select_feedback,
    .select_momentum = select_momentum,
    .magnitudes = magnitudes,
    .sum_magnitudes = sum_magnitudes,
    .sum_split = sum_split,
    .pack_signs = pack_signs,
    .pack_reaching = pack_reaching,
    .unpack_signs = unpack_signs,
    .unpack_pairs = unpack_pairs,
};
