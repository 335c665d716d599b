/* SPDX-License-Identifier: Apache-2.0
 *
 * Link to the coordinator: ask, wait for the answer with a deadline, repeat when it is late. Threads: one.
 */
#ifndef CLI_LINK_H
#define CLI_LINK_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct cli_link cli_link;

#define CLI_ASK_TIMEOUT_NS (UINT64_C(10) * 1000000000)

/* cluster: as given with --cluster, or NULL to search. BL_ENOENT: no cluster found; the text lists where it looked. */
BL_MUST_CHECK bl_status cli_link_open(const char *cluster, cli_link **ret_link, bl_error *err);
void cli_link_close(cli_link *link);
const char *cli_link_address(const cli_link *link);

/* Each returns BL_EUNREACHABLE naming the address when nobody answers within CLI_ASK_TIMEOUT_NS, else the
 * coordinator's own status and sentence. *ret_json: owned (json_decref), may be NULL to ignore. */
BL_MUST_CHECK bl_status cli_link_query(cli_link *link, const char *what, uint64_t job, uint64_t since, json_t **ret_json,
                                       bl_error *err);
/* What the answer to "jobs" should hold; empty or 0: anything. */
typedef struct cli_search {
  const char *state, *name, *submitter; /* NULL: any */
  uint64_t submitted_ns;                /* wall clock; then or later */
  uint64_t before;                      /* job numbers below */
  uint32_t limit;                       /* the newest so many; 0: the coordinator's own limit */
} cli_search;
/* *ret_json: {"jobs": [...] by number, "more": older ones fit too}. */
BL_MUST_CHECK bl_status cli_link_find(cli_link *link, const cli_search *what, json_t **ret_json, bl_error *err);
BL_MUST_CHECK bl_status cli_link_submit(cli_link *link, const char *job_text, const char *file, uint64_t *ret_job,
                                        bl_error *err, char **ret_details);
BL_MUST_CHECK bl_status cli_link_cancel(cli_link *link, uint64_t job, bl_error *err);
BL_MUST_CHECK bl_status cli_link_set_priority(cli_link *link, uint64_t job, int32_t priority, bl_error *err);

/* Serves the link's loop for a while: waits without being deaf. Ends early when *stop becomes true (may be NULL). */
void cli_link_pause(cli_link *link, uint64_t ns, const volatile bool *stop);

#endif
