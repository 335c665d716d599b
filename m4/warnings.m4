# SPDX-License-Identifier: Apache-2.0
# BL_WARNINGS: sets WARN_CFLAGS and BASE_CFLAGS; never touches the user's CFLAGS.
AC_DEFUN([BL_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])], [], [enable_werror=no])
  WARN_CFLAGS="-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition"
  WARN_CFLAGS="$WARN_CFLAGS -Wpointer-arith -Wwrite-strings -Wformat=2 -Wundef -Wvla -Wswitch"
  WARN_CFLAGS="$WARN_CFLAGS -Wno-unused-parameter -Wno-missing-field-initializers -Wno-sign-compare"
  AS_IF([test "x$enable_werror" = xyes], [WARN_CFLAGS="$WARN_CFLAGS -Werror"])
  # Bit-exact numerics: no fused multiply-add behind our back, no reassociation.
  BASE_CFLAGS="-std=gnu11 -ffp-contract=off -fno-math-errno -fno-strict-aliasing -fvisibility=hidden -pthread"
  AC_SUBST([WARN_CFLAGS])
  AC_SUBST([BASE_CFLAGS])
])
