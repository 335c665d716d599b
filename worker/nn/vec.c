/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "nn/vec_tables.h"

#include "kernel/kernel.h"

#include <string.h>

const bool wk_act_needs_slope[BL_ACT_COUNT] = {[BL_ACT_GELU] = true};

const wk_vec *wk_vec_at(size_t i) {
  if (i == 0)
    return &wk_vec_scalar;
#ifdef BL_HAVE_X86_SIMD
  if (i == 1 && __builtin_cpu_supports("avx2"))
    return &wk_vec_avx2;
#endif
  return NULL;
}

const wk_vec *wk_vec_get(void) {
  /* The widest that is not wider than what was forced: there is no table of our own for avx512, whose
   * gain on these memory-bound loops is nil. */
  const wk_vec *wide = wk_vec_at(1);
  return wide == NULL || strcmp(bl_kernels_get()->name, "scalar") == 0 ? &wk_vec_scalar : wide;
}
