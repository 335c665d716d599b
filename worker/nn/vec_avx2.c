/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "nn/vec_tables.h"

#include <string.h>

#ifdef BL_HAVE_X86_SIMD
/* Without "fma": the bits must be those of the scalar table. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC optimize("O3")
#pragma GCC target("avx2")
#endif
#define VEC_NAME "avx2"
#define VEC_TABLE wk_vec_avx2
#include "nn/vec_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
