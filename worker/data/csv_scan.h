/* SPDX-License-Identifier: Apache-2.0
 *
 * Records of a CSV file after RFC 4180: fields in quotes may hold delimiters, line ends and doubled quotes;
 * lines end with LF or CRLF. Empty lines and a byte order mark are passed over. One thread at a time.
 */
#ifndef WK_DATA_CSV_SCAN_H
#define WK_DATA_CSV_SCAN_H

#include "data/input.h"

#include "base/buf.h"

typedef struct wk_csv_scan {
  wk_input *in; /* borrowed */
  char delimiter;
  uint64_t line;        /* of the next byte, from 1 */
  uint64_t record_line; /* where the record began */
  bl_buf text;          /* the fields, each with its NUL */
  size_t *starts;       /* owned [capacity], offsets into text */
  uint32_t n_fields, capacity;
} wk_csv_scan;

void wk_csv_scan_init(wk_csv_scan *c, wk_input *in, char delimiter);
void wk_csv_scan_fini(wk_csv_scan *c);
/* Next record: *ret_found false at the end of the file. */
BL_MUST_CHECK bl_status wk_csv_scan_next(wk_csv_scan *c, bool *ret_found, bl_error *err);
/* Without blanks around it; borrowed until the next record. */
const char *wk_csv_scan_field(const wk_csv_scan *c, uint32_t i);

#endif
