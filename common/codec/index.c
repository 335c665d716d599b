/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/index.h"

#include "base/le.h"
#include "base/num.h"

#include <inttypes.h>
#include <stdbool.h>

#define BLOCK 256
#define JUDGED 512
#define WINDOW_LOW 16

static unsigned floor_log2(uint32_t v) { return v == 0 ? 0 : 31 - (unsigned)__builtin_clz(v); }
static size_t bytes_of(uint64_t bits) { return (size_t)((bits + 7) / 8); }
static bool has_third(uint32_t code) { return code % 2 == 1 && code > 1; }
static unsigned shift_of(uint32_t code) { return has_third(code) ? (code - 3) / 2 : code / 2; }

/* The start of the search in bl_index_plan_gaps is a Rice code with 2^s <= 0.69 (n - k) / k < 2^(s + 1), which takes
 * k (s + 1) bits and at most (n - k) / 2^s < 2.9 k more; k (log2(n / k) + 4) grows with k. */
size_t bl_index_bound(uint32_t k_max, uint32_t n) {
  if (k_max == 0)
    return 0;
  size_t rice = bytes_of((uint64_t)k_max * (floor_log2(n / k_max) + 5)) + 2;
  return BL_MIN(rice, bytes_of(n));
}

static uint64_t high_bits(const uint32_t *gaps, uint32_t k, uint32_t code) {
  uint64_t sum = 0;
  const unsigned s = shift_of(code);
  if (has_third(code)) {
    for (uint32_t i = 0; i < k; i++)
      sum += ((gaps[i] >> s) + 2) / 3;
    return sum + 2 * (uint64_t)k;
  }
  for (uint32_t i = 0; i < k; i++)
    sum += gaps[i] >> s;
  return sum + k;
}

static size_t golomb_bytes(const uint32_t *gaps, uint32_t k, uint32_t code) {
  return bytes_of((uint64_t)k * shift_of(code)) + bytes_of(high_bits(gaps, k, code));
}

/* Enough to see which code is the best one. */
static uint32_t some_gaps(const uint32_t *gaps, uint32_t k, uint32_t *out) {
  const uint32_t step = k / JUDGED;
  for (uint32_t i = 0; i < JUDGED; i++)
    out[i] = gaps[i * step];
  return JUDGED;
}

/* The best divisor for random gaps of a mean is ln 2 times it; for others it lies near, mostly below. The size as a
 * function of the code, whose divisors rise with it, falls to its least and rises again, but for a byte. */
static uint32_t best_golomb(const uint32_t *gaps, uint32_t k, uint32_t start) {
  uint32_t code = start, judged[JUDGED];
  if (k > 2 * JUDGED) {
    k = some_gaps(gaps, k, judged);
    gaps = judged;
  }
  size_t bytes = golomb_bytes(gaps, k, code);
  for (int step = -1; step <= 1; step += 2) {
    for (uint32_t next; next = code + (uint32_t)step, next >= 1 && next < BL_INDEX_CODES; code = next) {
      size_t there = golomb_bytes(gaps, k, next);
      if (there >= bytes)
        break;
      bytes = there;
    }
  }
  return code;
}

bl_index_plan bl_index_plan_gaps(uint32_t *index, uint32_t k, uint32_t n) {
  if (k == 0)
    return (bl_index_plan){.code = 1, .n = n};
  for (uint32_t i = k - 1; i > 0; i--)
    index[i] -= index[i - 1] + 1;
  const uint32_t divisor = (uint32_t)((uint64_t)(n - k) * 45426 / k >> 16); /* 0.6931 of the mean */
  const uint32_t start = BL_MAX(2 * floor_log2(divisor), 1u), code = best_golomb(index, k, start);
  bl_index_plan plan = {.code = code, .n = n, .k = k, .bytes = golomb_bytes(index, k, code)};
  if (plan.bytes > bl_index_bound(k, n)) /* what was judged was not like the rest */
    plan = (bl_index_plan){.code = start, .n = n, .k = k, .bytes = golomb_bytes(index, k, start)};
  if (bytes_of(n) < plan.bytes)
    plan = (bl_index_plan){.code = BL_INDEX_BITMAP, .n = n, .k = k, .bytes = bytes_of(n)};
  return plan;
}

static void set_bit(uint8_t *out, uint64_t bit) { out[bit / 8] = (uint8_t)(out[bit / 8] | 1u << bit % 8); }

static void put_bitmap(const uint32_t *gaps, uint32_t k, uint8_t *out) {
  uint32_t at = 0;
  for (uint32_t i = 0; i < k; i++, at++)
    set_bit(out, at += gaps[i]);
}

/* `shift` at most 17: with up to 7 bits waiting they fit in 32. */
static void put_lows(const uint32_t *gaps, uint32_t k, unsigned shift, uint8_t *out) {
  uint64_t waiting = 0;
  unsigned n_waiting = 0;
  const uint32_t mask = (1u << shift) - 1;
  for (uint32_t i = 0; i < k; i++) {
    waiting |= (uint64_t)(gaps[i] & mask) << n_waiting;
    n_waiting += shift;
    bl_le_put32(out, (uint32_t)waiting);
    out += n_waiting / 8;
    waiting >>= n_waiting & ~7u;
    n_waiting &= 7;
  }
  if (n_waiting > 0)
    *out = (uint8_t)waiting;
}

/* Zeros, a one and what follows it; without a branch on the third, which nothing can foresee. */
static inline void put_highs(const uint32_t *gaps, uint32_t k, unsigned shift, bool third, uint8_t *out) {
  static const struct {
    uint8_t bits, n;
  } ends[] = {{1, 2}, {3, 3}, {7, 3}};
  uint64_t waiting = 0;
  unsigned n_waiting = 0;
  for (uint32_t i = 0; i < k; i++) {
    uint32_t high = gaps[i] >> shift, rest = third ? high % 3 : 0, zeros = third ? high / 3 : high;
    for (n_waiting += zeros; n_waiting > 40; n_waiting -= 32, waiting >>= 32, out += 4)
      bl_le_put32(out, (uint32_t)waiting);
    waiting |= (uint64_t)(third ? ends[rest].bits : 1) << n_waiting;
    n_waiting += third ? ends[rest].n : 1;
    bl_le_put64(out, waiting);
    out += n_waiting / 8;
    waiting >>= n_waiting & ~7u;
    n_waiting &= 7;
  }
}

void bl_index_put(const bl_index_plan *plan, const uint32_t *gaps, uint8_t *out) {
  if (plan->code == BL_INDEX_BITMAP) {
    memset(out, 0, plan->bytes);
    put_bitmap(gaps, plan->k, out);
    return;
  }
  const unsigned shift = shift_of(plan->code);
  const size_t low_bytes = bytes_of((uint64_t)plan->k * shift);
  if (shift > 0)
    put_lows(gaps, plan->k, shift, out);
  if (has_third(plan->code))
    put_highs(gaps, plan->k, shift, true, out + low_bytes);
  else
    put_highs(gaps, plan->k, shift, false, out + low_bytes);
}

/* 57 bits or more from here on; behind the end there are zeros. */
static inline uint64_t peek(const uint8_t *bytes, const uint8_t *end, size_t bit) {
  const uint8_t *at = bytes + bit / 8;
  if (end - at >= 8)
    return bl_le_get64(at) >> bit % 8;
  uint64_t v = 0;
  for (unsigned i = 0; at + i < end; i++)
    v |= (uint64_t)at[i] << 8 * i;
  return v >> bit % 8;
}

/* Zeros up to the next one, which is passed. False: there is none up to the end. */
static inline bool take_zeros(bl_index_reader *r, uint32_t *ret_zeros) {
  uint32_t zeros = 0;
  uint64_t bits;
  while ((bits = peek(r->high, r->end, r->high_bit)) == 0) {
    zeros += 56;
    r->high_bit += 56;
    if (r->high + r->high_bit / 8 >= r->end)
      return false;
  }
  uint32_t more = (uint32_t)__builtin_ctzll(bits);
  r->high_bit += more + 1;
  *ret_zeros = zeros + more;
  return true;
}

static inline uint32_t take_third(bl_index_reader *r) {
  uint64_t bits = peek(r->high, r->end, r->high_bit);
  uint32_t third = (bits & 1) == 0 ? 0 : 1 + (uint32_t)(bits >> 1 & 1);
  r->high_bit += third == 0 ? 1 : 2;
  return third;
}

static inline uint32_t take_low(bl_index_reader *r) {
  uint32_t low = (uint32_t)peek(r->low, r->end, r->low_bit) & ((1u << r->shift) - 1);
  r->low_bit += r->shift;
  return low;
}

/* How many indices could be read before the stream ended or one was not below n. Zeros are fewer than the stream has
 * bits, so that a gap fits in 64 bits. Most gaps come out of a window of bits in a register, of which `left` are known to
 * be the stream's; a one in it is always the stream's. The reader is copied, so that stores of indices cannot be thought
 * to change it. */
static inline uint32_t read_gaps(bl_index_reader *reader, bool third, uint32_t count, uint32_t n, uint32_t *index) {
  bl_index_reader r = *reader;
  uint64_t window = 0;
  unsigned left = 0;
  uint32_t i = 0;
  for (; i < count; i++) {
    if (left < WINDOW_LOW) {
      window = peek(r.high, r.end, r.high_bit);
      left = 56;
    }
    uint32_t high = window == 0 ? left : (uint32_t)__builtin_ctzll(window);
    if (high + 3 > left) {
      if (!take_zeros(&r, &high))
        break;
      left = 0;
    } else {
      window >>= high + 1;
      left -= high + 1;
      r.high_bit += high + 1;
    }
    uint64_t gap = high;
    if (third && left == 0) {
      gap = gap * 3 + take_third(&r);
    } else if (third) {
      uint32_t t = (window & 1) == 0 ? 0 : 1 + (uint32_t)(window >> 1 & 1);
      unsigned used = 1 + (unsigned)(window & 1);
      gap = gap * 3 + t;
      window >>= used;
      left -= used;
      r.high_bit += used;
    }
    gap = r.next + (gap << r.shift) + take_low(&r);
    if (gap >= n)
      break;
    index[i] = (uint32_t)gap;
    r.next = (uint32_t)gap + 1;
  }
  *reader = r;
  return i;
}

static uint32_t read_golomb(bl_index_reader *r, uint32_t count, uint32_t n, uint32_t *index) {
  return has_third(r->code) ? read_gaps(r, true, count, n, index) : read_gaps(r, false, count, n, index);
}

static void read_bitmap(bl_index_reader *reader, uint32_t count, uint32_t *index) {
  bl_index_reader r = *reader;
  uint32_t zeros;
  for (uint32_t i = 0; i < count && take_zeros(&r, &zeros); i++) {
    index[i] = r.next + zeros;
    r.next = index[i] + 1;
  }
  *reader = r;
}

bl_index_reader bl_index_open(uint32_t code, uint32_t k, const uint8_t *bytes, size_t size) {
  bl_index_reader r = {.low = bytes, .high = bytes, .end = bytes + size, .code = code};
  if (code != BL_INDEX_BITMAP) {
    r.shift = shift_of(code);
    r.high += bytes_of((uint64_t)k * r.shift);
  }
  return r;
}

void bl_index_next(bl_index_reader *r, uint32_t count, uint32_t *ret_index) {
  if (r->code == BL_INDEX_BITMAP)
    read_bitmap(r, count, ret_index);
  else
    read_golomb(r, count, UINT32_MAX, ret_index);
}

static bl_status check_bitmap(uint32_t k, uint32_t n, const uint8_t *bytes, size_t size, bl_error *err) {
  uint32_t ones = 0;
  if (size != bytes_of(n))
    return bl_fail(err, BL_ECORRUPT, "the bitmap of %" PRIu32 " elements has %zu bytes", n, size);
  for (size_t i = 0; i < size; i++)
    ones += (uint32_t)__builtin_popcount(bytes[i]);
  if (ones != k)
    return bl_fail(err, BL_ECORRUPT, "the bitmap has %" PRIu32 " ones, %" PRIu32 " are stated", ones, k);
  if (n % 8 != 0 && bytes[size - 1] >> n % 8 != 0)
    return bl_fail(err, BL_ECORRUPT, "the bitmap of %" PRIu32 " elements has a one behind its end", n);
  return BL_OK;
}

/* Bits from `bit` to the end of the byte are zeros. */
static bool is_padding(const uint8_t *bytes, uint64_t bit) { return bit % 8 == 0 || bytes[bit / 8] >> bit % 8 == 0; }

static bl_status check_golomb(uint32_t code, uint32_t k, uint32_t n, const uint8_t *bytes, size_t size, bl_error *err) {
  const size_t low_bytes = bytes_of((uint64_t)k * shift_of(code));
  if (size < low_bytes)
    return bl_fail(err, BL_ECORRUPT, "%zu bytes of indices are too few for %" PRIu32 " of them", size, k);
  bl_index_reader r = bl_index_open(code, k, bytes, size);
  uint32_t index[BLOCK];
  for (uint32_t done = 0, count; done < k; done += count) {
    count = BL_MIN(k - done, (uint32_t)BLOCK);
    uint32_t read = read_golomb(&r, count, n, index);
    if (read < count)
      return bl_fail(err, BL_ECORRUPT, "index %" PRIu32 " of %" PRIu32 " is missing or not below %" PRIu32, done + read,
                     k, n);
  }
  if (bytes_of(r.high_bit) != size - low_bytes || !is_padding(r.high, r.high_bit) || !is_padding(bytes, r.low_bit))
    return bl_fail(err, BL_ECORRUPT, "%" PRIu32 " indices end before their %zu bytes do", k, size);
  return BL_OK;
}

bl_status bl_index_check(uint32_t code, uint32_t k, uint32_t n, const uint8_t *bytes, size_t size, bl_error *err) {
  if (code == BL_INDEX_BITMAP)
    return check_bitmap(k, n, bytes, size, err);
  return check_golomb(code, k, n, bytes, size, err);
}
