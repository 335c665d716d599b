/* SPDX-License-Identifier: Apache-2.0 */
#include "train/finite.h"

#include "job/spec.h"
#include "kernel/kernel.h"

#include <math.h>

double wk_make_finite(float *g, size_t n) {
  for (size_t i = 0; i < n; i++)
    g[i] = isnan(g[i]) ? 0 : g[i];
  bl_kernels_get()->clip(g, BL_JOB_FINITE_MAX, n);
  return bl_kernels_get()->sum_squares(g, n);
}
