# SPDX-License-Identifier: Apache-2.0
# BL_SIMD: which instruction-set tables to build. The choice between them is made at run time.
AC_DEFUN([BL_SIMD], [
  AC_ARG_ENABLE([simd],
    [AS_HELP_STRING([--disable-simd], [build only the scalar kernel table])], [], [enable_simd=yes])
  bl_x86=no
  AS_IF([test "x$enable_simd" = xyes], [
    AC_MSG_CHECKING([for x86-64 AVX2 and AVX-512 intrinsics])
    bl_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS -mavx2 -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq"
    AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <immintrin.h>]],
      [[__m512 a = _mm512_setzero_ps(); __m256 b = _mm256_cvtph_ps(_mm_setzero_si128()); (void)a; (void)b;]])],
      [bl_x86=yes])
    CFLAGS=$bl_save_CFLAGS
    AC_MSG_RESULT([$bl_x86])
  ])
  AM_CONDITIONAL([HAVE_X86_SIMD], [test "x$bl_x86" = xyes])
  AS_IF([test "x$bl_x86" = xyes], [AC_DEFINE([BL_HAVE_X86_SIMD], [1], [Build the AVX2 and AVX-512 kernel tables.])])
])
