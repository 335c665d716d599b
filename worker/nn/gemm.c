/* SPDX-License-Identifier: Apache-2.0 */
#include "nn/gemm.h"

#include "base/status.h"

#include <cblas.h>
#include <string.h>

static void sgemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
                  const float *b, size_t ldb, float *c) {
  BL_ASSERT(m <= WK_GEMM_SIZE_MAX && n <= WK_GEMM_SIZE_MAX && k <= WK_GEMM_SIZE_MAX);
  if (m == 0 || n == 0)
    return;
  if (k == 0) {
    memset(c, 0, m * n * sizeof *c);
    return;
  }
  cblas_sgemm(CblasRowMajor, ta, tb, (blasint)m, (blasint)n, (blasint)k, 1.0f, a, (blasint)lda, b, (blasint)ldb, 0.0f,
              c, (blasint)n);
}

void wk_gemm_nn(size_t m, size_t n, size_t k, const float *a, const float *b, float *c) {
  sgemm(CblasNoTrans, CblasNoTrans, m, n, k, a, k, b, n, c);
}

void wk_gemm_tn(size_t m, size_t n, size_t k, const float *a, const float *b, float *c) {
  sgemm(CblasTrans, CblasNoTrans, m, n, k, a, m, b, n, c);
}

void wk_gemm_tn_part(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, float *c) {
  BL_ASSERT(m <= lda && lda <= WK_GEMM_SIZE_MAX);
  sgemm(CblasTrans, CblasNoTrans, m, n, k, a, lda, b, n, c);
}

void wk_gemm_nt(size_t m, size_t n, size_t k, const float *a, const float *b, float *c) {
  sgemm(CblasNoTrans, CblasTrans, m, n, k, a, k, b, k, c);
}

void wk_gemm_set_threads(unsigned n) { openblas_set_num_threads((int)n); }

const char *wk_gemm_core_name(void) { return openblas_get_corename(); }

const char *wk_gemm_config(void) { return openblas_get_config(); }

const char *wk_gemm_core_choice(void) {
#if defined(__x86_64__)
  /* On AMD's first cores with AVX-512 (two halves of 256 bits) OpenBLAS 0.3.21 picks its kernels for Cooper
   * Lake, which are 5 % slower there than its AVX2 ones (bench/compute: 38.4 and 40.9 thousand samples/s). */
  if (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return "Haswell";
#endif
  return NULL;
}
