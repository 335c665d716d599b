/* SPDX-License-Identifier: Apache-2.0
 *
 * Gradients that hold a NaN or an infinity (`not_finite: clip` of the job file).
 */
#ifndef WK_TRAIN_FINITE_H
#define WK_TRAIN_FINITE_H

#include <stddef.h>

/* NaN becomes 0, everything else is cut to [-BL_JOB_FINITE_MAX, BL_JOB_FINITE_MAX]. Returns the sum of squares. */
double wk_make_finite(float *g, size_t n);

#endif
