/* SPDX-License-Identifier: Apache-2.0
 *
 * Averages of weights. With a(t) = (1 - decay) / (1 - decay^t) the recursion y += a(t) * (w_t - y) keeps the corrected
 * average itself, so no division is needed when it is read.
 */
#include "optim/rules.h"

float bl_average_part(double decay, uint64_t step) {
  return (float)((1.0 - decay) / (1.0 - bl_optim_power(decay, step)));
}
