/* SPDX-License-Identifier: Apache-2.0
 *
 * What this CPU can do. The compiler's own detection also asks the operating system whether it saves the
 * wide registers; F16C is read from CPUID because not every compiler knows it by name.
 */
#include "config.h"

#include "kernel/tables.h"

#ifdef BL_HAVE_X86_SIMD

#include <cpuid.h>

bool bl_cpu_has_avx2(void) {
  unsigned a, b, c, d;
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

bool bl_cpu_has_avx512(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

#else

bool bl_cpu_has_avx2(void) { return false; }
bool bl_cpu_has_avx512(void) { return false; }

#endif
