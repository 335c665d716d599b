/* SPDX-License-Identifier: Apache-2.0
 *
 * Integer arithmetic that cannot overflow silently, and small helpers on numbers.
 */
#ifndef BL_BASE_NUM_H
#define BL_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BL_MIN(a, b) ((a) < (b) ? (a) : (b))
#define BL_MAX(a, b) ((a) > (b) ? (a) : (b))

/* True and *ret_r set when a*b or a+b fits. */
static inline bool bl_mul_u64(uint64_t a, uint64_t b, uint64_t *ret_r) {
  uint64_t r;
  if (__builtin_mul_overflow(a, b, &r))
    return false;
  *ret_r = r;
  return true;
}

static inline bool bl_add_u64(uint64_t a, uint64_t b, uint64_t *ret_r) {
  uint64_t r;
  if (__builtin_add_overflow(a, b, &r))
    return false;
  *ret_r = r;
  return true;
}

/* The 1st, 2nd, 4th, 8th, ... time: a flood of events must not become a flood of log lines. */
static inline bool bl_is_worth_a_line(uint64_t count) { return (count & (count - 1)) == 0; }

static inline uint64_t bl_div_up_u64(uint64_t a, uint64_t b) { return a / b + (a % b != 0); }

#endif
