/* SPDX-License-Identifier: Apache-2.0
 *
 * Hashed features: which slot of 2^bits a category takes. A slot is a function of (seed, column, text) alone,
 * so that no machine needs a list of the categories, and a category that training has not seen has its slot all
 * the same. Two that meet in one slot share a weight. Threads: any.
 *
 * Source: Weinberger, Dasgupta, Langford, Smola, Attenberg, "Feature hashing for large scale multitask
 * learning", ICML 2009, without the sign, which helps only where the weights are few.
 */
#ifndef WK_DATA_HASH_H
#define WK_DATA_HASH_H

#include <stddef.h>
#include <stdint.h>

#define WK_HASH_BITS_MAX 40

/* Equal texts in different columns are different categories: each column has a seed of its own. */
uint64_t wk_hash_column(uint64_t seed, const char *column);
/* The slot, below 2^bits: the first bits of XXH3 of the text. Range: bits 1 to WK_HASH_BITS_MAX. */
uint64_t wk_hash_slot(uint64_t column_seed, const char *text, size_t size, unsigned bits);

#endif
