/* SPDX-License-Identifier: Apache-2.0
 *
 * Which version of the protocol a job needs of every node that carries a part of it. A server or worker of an older
 * version would pass over what it does not know of the plan, and train something else; so the coordinator gives a
 * job only to nodes that speak what it needs. Pure.
 */
#ifndef BL_JOB_PROTOCOL_H
#define BL_JOB_PROTOCOL_H

#include "job/spec.h"

/* 1 for a job that uses only what version 1 had. what: the field that needs the version that is returned, as
 * "sync: ssp"; "" for 1. */
uint32_t bl_job_spec_protocol(const bl_job_spec *spec, char *what, size_t size);

/* Whether version 1 had a word of the job file, for tests of this table: what is "optimizer", "schedule"... */
bool bl_job_word_is_old(const char *what, const char *word);

#endif
