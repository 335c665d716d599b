/* SPDX-License-Identifier: Apache-2.0
 *
 * Result codes shared by every module and by the wire, and the one-sentence error text that goes
 * with them where a person will act on it.
 *
 * Numbers are pinned: they travel in protocol messages (as positive magnitudes) and stand in logs.
 * Never reuse or renumber one. Code branches on the status, never on the text.
 */
#ifndef BL_BASE_STATUS_H
#define BL_BASE_STATUS_H

#include <stdarg.h>
#include <stddef.h>

#if defined(__GNUC__)
#define BL_MUST_CHECK __attribute__((warn_unused_result))
#define BL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define BL_NORETURN __attribute__((noreturn))
#else
#define BL_MUST_CHECK
#define BL_PRINTF(fmt, args)
#define BL_NORETURN
#endif

typedef enum bl_status {
  BL_OK = 0,
  BL_EINVAL = -1,       /* a value is malformed or out of range */
  BL_ENOMEM = -2,       /* allocation failed or over its budget */
  BL_EIO = -3,          /* the operating system refused; errno is in the text */
  BL_ENOENT = -4,       /* no such object */
  BL_EEXIST = -5,       /* exists already */
  BL_EAGAIN = -6,       /* not now: would block, or a limit is reached for the moment */
  BL_ETIMEOUT = -7,     /* a deadline passed */
  BL_EVIEW = -8,        /* message of an older or unknown view */
  BL_ECLOCK = -9,       /* clock outside what the rule admits */
  BL_EINCARNATION = -10, /* another incarnation's bytes stand under this name */
  BL_EPROTO = -11,      /* protocol version or message grammar */
  BL_ECORRUPT = -12,    /* checksum or structure of stored or received bytes is wrong */
  BL_EACCES = -13,      /* key or role does not allow it */
  BL_EUNREACHABLE = -14, /* peer cannot be reached */
  BL_ECANCELLED = -15,
  BL_ENOTFINITE = -16,  /* NaN or infinity where numbers must be finite */
  BL_ELIMIT = -17,      /* a named limit is exceeded for good */
  BL_EUNSUPPORTED = -18,
  BL_ESTATE = -19,      /* not allowed in the present state */
  BL_EMISMATCH = -20,   /* two parties hold different things that must be equal */
  BL_EBUG = -21,        /* impossible but survivable: the request fails, the daemon goes on */
} bl_status;

#define BL_STATUS_LAST BL_EBUG

/* Short stable name such as "timeout"; "unknown" for numbers that are none of ours. */
const char *bl_status_name(bl_status status);

/* One sentence on the caller's stack: what failed, on which object, which value, which limit.
 * Functions that take `bl_error *err` accept NULL. */
typedef struct bl_error {
  bl_status status;
  char text[512];
} bl_error;

#define BL_ERROR_INIT {BL_OK, ""}

/* Sets *err (if not NULL) and returns status, so that `return bl_fail(err, BL_EINVAL, "...")` works. */
bl_status bl_fail(bl_error *err, bl_status status, const char *fmt, ...) BL_PRINTF(3, 4);

/* As bl_fail with ": <strerror(errno)>" appended; the status is BL_EIO, or BL_ENOENT, BL_EEXIST,
 * BL_EACCES, BL_ENOMEM where errno says so. */
bl_status bl_fail_errno(bl_error *err, const char *fmt, ...) BL_PRINTF(2, 3);

/* Puts "<prefix>: " in front of the text already in *err. Returns err->status, or status if err is NULL. */
bl_status bl_fail_prefix(bl_error *err, bl_status status, const char *fmt, ...) BL_PRINTF(3, 4);

/* Programmer errors; stays on in release builds. Outside bytes can never reach one. */
BL_NORETURN void bl_assert_failed(const char *expr, const char *file, int line);
#define BL_ASSERT(expr) ((expr) ? (void)0 : bl_assert_failed(#expr, __FILE__, __LINE__))

#define BL_COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

#endif
