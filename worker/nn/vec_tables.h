/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables that vec.c chooses from. Only for worker/nn/vec*.c.
 */
#ifndef WK_NN_VEC_TABLES_H
#define WK_NN_VEC_TABLES_H

#include "nn/vec.h"

extern const wk_vec wk_vec_scalar;
extern const wk_vec wk_vec_avx2;

#endif
