/* SPDX-License-Identifier: Apache-2.0
 *
 * topk: the part `density` of the elements that has the largest magnitudes. Frame: codec/sparse.h.
 *
 * With bl_encode.threshold, found over the whole tensor (codec/select.h), what reaches it is kept, at most
 * bl_sparse_max of a frame. Without it exactly ceil(density * n) are kept, or all that are not zeros; of equals the
 * first.
 *
 * Source: Aji and Heafield, "Sparse communication for distributed gradient descent", EMNLP 2017, arXiv:1704.05021;
 * Stich, Cordonnier, Jaggi, "Sparsified SGD with memory", NeurIPS 2018, arXiv:1809.07599.
 */
#include "base/num.h"
#include "codec/codecs.h"
#include "codec/select.h"
#include "codec/sparse.h"

#include <string.h>

static size_t bound_bytes(const bl_codec_spec *spec, uint32_t n) {
  return bl_sparse_bound(spec->values, n, bl_sparse_max(spec->density, n));
}

static uint32_t pattern_of(float threshold) {
  uint32_t b;
  memcpy(&b, &threshold, sizeof b);
  return b;
}

/* Some more than k by a guess, and of them the k largest; the guess may be wrong and is checked. */
static uint32_t keep_exactly(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t k,
                             const bl_sparse_list *list) {
  const bl_select_source source = {
      .x = x, .residual = residual, .velocity = residual == NULL ? NULL : e->velocity, .momentum = e->momentum, .n = n};
  uint32_t least = k == 0 ? BL_SPARSE_NONE : bl_select_low_guess(&source, k, e->key);
  uint32_t count = bl_sparse_gather(e, x, residual, n, least, list);
  if (count <= list->max && (count >= k || least == 1))
    return bl_sparse_keep_largest(list, count, k, least);
  return bl_sparse_gather_exact(residual == NULL ? x : residual, n, k, list);
}

static size_t encode(const bl_encode *e, const float *x, float *residual, uint32_t n, uint32_t flags, uint8_t *out) {
  const bl_codec_spec *spec = e->spec;
  const bl_sparse_list list = bl_sparse_lists(spec->values, n, bl_sparse_max(spec->density, n), out);
  uint32_t count;
  if (e->threshold > 0) {
    count = bl_sparse_gather(e, x, residual, n, pattern_of(e->threshold), &list);
    if (count > list.max)
      count = bl_sparse_gather_exact(residual == NULL ? x : residual, n, list.max, &list);
  } else {
    count = keep_exactly(e, x, residual, n, (uint32_t)bl_select_wanted(spec->density, n), &list);
  }
  return bl_sparse_finish(e, &list, count, residual, n, flags, out);
}

const bl_codec bl_codec_topk = {
    .id = BL_CODEC_TOPK,
    .name = "topk",
    .sparse = true,
    .check = bl_sparse_check,
    .bound_bytes = bound_bytes,
    .encode = encode,
    .decode = bl_sparse_decode,
    .accumulate = bl_sparse_accumulate,
    .sum = bl_sparse_sum,
};
