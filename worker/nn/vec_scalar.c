/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/vec_tables.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3") /* -O2 of gcc leaves most of these loops scalar */
#endif
#define VEC_NAME "scalar"
#define VEC_TABLE wk_vec_scalar
#include "nn/vec_impl.h"
