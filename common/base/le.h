/* SPDX-License-Identifier: Apache-2.0
 *
 * Little-endian loads and stores at any alignment.
 */
#ifndef BL_BASE_LE_H
#define BL_BASE_LE_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Ballast keeps numbers in memory as it sends them: little-endian machines only"
#endif

#define BL_LE_DEFINE(bits)                                                                                   \
  static inline uint##bits##_t bl_le_get##bits(const void *p) {                                              \
    uint##bits##_t v;                                                                                        \
    memcpy(&v, p, sizeof v);                                                                                 \
    return v;                                                                                                \
  }                                                                                                          \
  static inline void bl_le_put##bits(void *p, uint##bits##_t v) { memcpy(p, &v, sizeof v); }
BL_LE_DEFINE(16)
BL_LE_DEFINE(32)
BL_LE_DEFINE(64)
#undef BL_LE_DEFINE

#endif
