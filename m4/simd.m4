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

# BL_XXHASH_DISPATCH: whether libxxhash brings its own choice of instruction set; the hash is the same.
AC_DEFUN([BL_XXHASH_DISPATCH], [
  AC_MSG_CHECKING([whether libxxhash dispatches by CPU])
  bl_save_CFLAGS=$CFLAGS
  bl_save_LIBS=$LIBS
  CFLAGS="$CFLAGS $XXHASH_CFLAGS"
  LIBS="$XXHASH_LIBS $LIBS"
  AC_LINK_IFELSE([AC_LANG_PROGRAM([[#include <xxh_x86dispatch.h>]], [[return (int)XXH3_64bits_withSeed("", 0, 0);]])],
    [bl_dispatch=yes], [bl_dispatch=no])
  CFLAGS=$bl_save_CFLAGS
  LIBS=$bl_save_LIBS
  AC_MSG_RESULT([$bl_dispatch])
  AS_IF([test "x$bl_dispatch" = xyes], [AC_DEFINE([BL_HAVE_XXHASH_DISPATCH], [1], [libxxhash has xxh_x86dispatch.h.])])
])
