/* SPDX-License-Identifier: Apache-2.0
 *
 * The safetensors file format: 8 bytes little-endian length N, N bytes of JSON header
 * {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, "__metadata__": {..}}, raw data.
 * Written atomically; read with every length checked (the file may be hostile): the tensors must cover the
 * data without gap or overlap, as the format demands.
 * Source: the format's public description, huggingface/safetensors.
 */
#ifndef BL_CKPT_SAFETENSORS_H
#define BL_CKPT_SAFETENSORS_H

#include "job/tensors.h"

/* Limit of the JSON header, far above what any model of ours needs. */
#define BL_SAFETENSORS_HEADER_MAX_BYTES (16u << 20)

/* The rows of a table (bl_tensor.table) that exist. In the file, a table NAME is two tensors: NAME.rows, I64 [n], the
 * numbers of the rows, ascending, and NAME.values, F32 [n, width]. */
typedef struct bl_saved_rows {
  uint64_t n;
  uint64_t *rows;  /* [n] */
  float *values;   /* [n, width] */
} bl_saved_rows;

void bl_saved_rows_fini(bl_saved_rows *t); /* where it is owned */

/* values: [n_tensors] float32 arrays. metadata: n pairs of key, value. BL_EINVAL: a name or text is not UTF-8. */
BL_MUST_CHECK bl_status bl_safetensors_write(const char *path, const bl_tensor_table *table, float *const *values,
                                             const char *const (*metadata)[2], size_t n_metadata, bl_error *err);

/* With tables. tables: [n_tensors], of which those of tables count; values of tables are not looked at. */
BL_MUST_CHECK bl_status bl_safetensors_write_tables(const char *path, const bl_tensor_table *table, float *const *values,
                                                    const bl_saved_rows *tables, const char *const (*metadata)[2],
                                                    size_t n_metadata, bl_error *err);

/* Fills arrays of the table's tensors from the file: all must be there with the same shape, F32, and no
 * others. BL_ECORRUPT: not a safetensors file; BL_EMISMATCH: other tensors, shapes or types than the table's;
 * BL_ELIMIT: header too long. values NULL: only checks that it could. values stay untouched unless reading the data itself fails (BL_EIO). */
BL_MUST_CHECK bl_status bl_safetensors_read(const char *path, const bl_tensor_table *table, float *const *values,
                                            bl_error *err);

/* Value of a key of the file's metadata, cut to size; "" when it is not there. The header is checked as in reading. */
BL_MUST_CHECK bl_status bl_safetensors_metadata(const char *path, const char *key, char *out, size_t size, bl_error *err);
/* With tables. ret_tables: [n_tensors], the tables filled and owned by the caller, on success. */
BL_MUST_CHECK bl_status bl_safetensors_read_tables(const char *path, const bl_tensor_table *table, float *const *values,
                                                   bl_saved_rows *ret_tables, bl_error *err);

/* XXH3-64 over the float32 bytes of all tensors in the byte order of their names: `weights_xxh3`. */
BL_MUST_CHECK bl_status bl_weights_checksum(const bl_tensor_table *table, float *const *values, uint64_t *ret_xxh3);
/* Of a table, the bytes of the rows' numbers and then of their values. */
BL_MUST_CHECK bl_status bl_weights_checksum_tables(const bl_tensor_table *table, float *const *values,
                                                   const bl_saved_rows *tables, uint64_t *ret_xxh3);

#endif
