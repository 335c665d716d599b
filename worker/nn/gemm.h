/* SPDX-License-Identifier: Apache-2.0
 *
 * Products of row-major float32 matrices: the only caller of BLAS. All three forms store (beta is 0), so C
 * may hold anything before. Sizes of 0 are allowed: an empty sum gives zeros.
 *
 * The bits of a product depend on BLAS's core type and its number of threads, nothing else; both are
 * reported here so that a job can record them. Range: every size fits int32; layers check this once.
 */
#ifndef WK_NN_GEMM_H
#define WK_NN_GEMM_H

#include <stddef.h>

#define WK_GEMM_SIZE_MAX 0x7fffffff

/* C = A B.    a: [m, k]  b: [k, n]  c: [m, n] */
void wk_gemm_nn(size_t m, size_t n, size_t k, const float *a, const float *b, float *c);
/* C = A^T B.  a: [k, m]  b: [k, n]  c: [m, n] */
void wk_gemm_tn(size_t m, size_t n, size_t k, const float *a, const float *b, float *c);
/* The same for m columns of an A with lda columns, of which a is the first: m rows of the whole C. */
void wk_gemm_tn_part(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, float *c);
/* C = A B^T.  a: [m, k]  b: [n, k]  c: [m, n] */
void wk_gemm_nt(size_t m, size_t n, size_t k, const float *a, const float *b, float *c);

/* For the whole process. Call before models run. */
void wk_gemm_set_threads(unsigned n);
/* "Haswell", "SkylakeX", "Zen", ...: which kernels the library picked on this CPU. Static storage. */
const char *wk_gemm_core_name(void);
/* Version and build options. Static storage. */
const char *wk_gemm_config(void);

/* The library reads its core type from this variable when it is loaded, and never again: whoever starts a
 * program that computes sets it. */
#define WK_GEMM_CORE_ENV "OPENBLAS_CORETYPE"
/* The value to set on this CPU, or NULL to leave the choice to the library. */
const char *wk_gemm_core_choice(void);

#endif
