# SPDX-License-Identifier: Apache-2.0
# BL_SANITIZE: --enable-sanitize=address,undefined or =thread, into SAN_CFLAGS.
AC_DEFUN([BL_SANITIZE], [
  AC_ARG_ENABLE([sanitize],
    [AS_HELP_STRING([--enable-sanitize=LIST], [build with the named sanitizers, for example address,undefined])],
    [], [enable_sanitize=no])
  SAN_CFLAGS=
  AS_IF([test "x$enable_sanitize" = xyes], [enable_sanitize=address,undefined])
  AS_IF([test "x$enable_sanitize" != xno],
    [SAN_CFLAGS="-fsanitize=$enable_sanitize -fno-omit-frame-pointer -fno-sanitize-recover=all"])
  AC_SUBST([SAN_CFLAGS])
])
