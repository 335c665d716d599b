/* SPDX-License-Identifier: Apache-2.0
 *
 * threshold: the elements whose magnitude is at least a number. Frame: codec/sparse.h. All elements may reach it.
 *
 * Source: Strom, "Scalable distributed DNN training using commodity GPU cloud computing", Interspeech 2015.
 */
#include "codec/codecs.h"
#include "codec/sparse.h"

#include <string.h>

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) { return bl_sparse_bound(spec->values, n, n); }

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  const bl_sparse_list list = bl_sparse_lists(e->spec->values, n, n, out);
  uint32_t least = 1;
  if (e->spec->threshold > 0)
    memcpy(&least, &e->spec->threshold, sizeof least);
  uint32_t count = bl_sparse_gather(e, x, residual, n, least, &list);
  return bl_sparse_finish(e, &list, count, residual, n, flags, out);
}

const bl_codec bl_codec_threshold = {
    .id = BL_CODEC_THRESHOLD,
    .name = "threshold",
    .sparse = true,
    .check = bl_sparse_check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = bl_sparse_decode,
    .accumulate = bl_sparse_accumulate,
    .sum = bl_sparse_sum,
};
