/* SPDX-License-Identifier: Apache-2.0
 *
 * One array of a .npy file (NumPy's format, versions 1.0, 2.0 and 3.0; plain or gzip) in memory: little-endian
 * whole numbers of 1 to 8 bytes, truth values, and floats of 2, 4 and 8 bytes, in C order. Knows nothing of samples or
 * models. Structured types, Python objects, big-endian numbers and Fortran order are refused with a sentence; a
 * hostile header costs no memory. One thread at a time.
 *
 * Source: numpy/lib/format.py's description of the format ("A Simple File Format for NumPy Arrays", NEP 1).
 */
#ifndef WK_DATA_NPY_H
#define WK_DATA_NPY_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define WK_NPY_DIMS_MAX 8
#define WK_NPY_HEADER_BYTES_MAX 65536u

typedef enum wk_npy_type {
  WK_NPY_BOOL = 1, /* 0 or 1 in a byte */
  WK_NPY_U1,
  WK_NPY_I1,
  WK_NPY_U2,
  WK_NPY_I2,
  WK_NPY_U4,
  WK_NPY_I4,
  WK_NPY_I8,
  WK_NPY_F2,
  WK_NPY_F4,
  WK_NPY_F8,
  WK_NPY_TYPE_COUNT
} wk_npy_type;

typedef struct wk_npy {
  wk_npy_type type;
  unsigned n_dims; /* 1 to WK_NPY_DIMS_MAX */
  uint64_t dims[WK_NPY_DIMS_MAX];
  uint64_t n_elems;   /* product of dims */
  uint32_t elem_bytes;
  uint8_t *data;      /* [n_elems] elements of elem_bytes, C order; owned */
} wk_npy;

/* Reads the whole file; nothing may follow the array. BL_ECORRUPT, BL_EUNSUPPORTED, BL_ELIMIT with a sentence that names
 * the file and what is wrong with it. */
BL_MUST_CHECK bl_status wk_npy_read(const char *path, wk_npy *ret_array, bl_error *err);
void wk_npy_fini(wk_npy *a);

const char *wk_npy_type_name(wk_npy_type type); /* as in the file: "<f4" */
bool wk_npy_is_integer(const wk_npy *a);        /* truth values too */
/* Element i as a whole number; only where wk_npy_is_integer. Exact. */
int64_t wk_npy_integer(const wk_npy *a, uint64_t i);
/* Element i as a number; whole numbers beyond 2^53 are rounded. NaN and infinities come as they are. */
double wk_npy_number(const wk_npy *a, uint64_t i);

#endif
