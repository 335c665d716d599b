#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Tests the simulator: plants one mistake at a time in a copy of the tree and wants test_cluster to fail with the
# right words. A mistake that no longer fits the source is a failure too.
set -euo pipefail
top=${BL_TOP_SRCDIR:?run through make check-long}
dir=${BL_TOP_BUILDDIR:?}/mutants
rm -rf "$dir"
mkdir -p "$dir/src" "$dir/build"
cd "$top"
exclude=(--exclude=./.git --exclude=./shared)
for status in */config.status; do # build trees
  [ ! -f "$status" ] || exclude+=("--exclude=./${status%/*}")
done
tar cf - "${exclude[@]}" . | tar xf - -C "$dir/src"
cd "$dir/build"
../src/configure CFLAGS="-O1 -g" >configure.out 2>&1 || { tail -n 20 configure.out; exit 1; }
export BALLAST_SIM_SEEDS=60 CK_FORK=no BALLAST_SIM_SEED= BALLAST_LONG=

build() {
  make -j"$(nproc)" tests/sim/test_cluster >make.out 2>&1 || { grep -E 'error' make.out || tail -n 20 make.out; exit 1; }
}
bad=0
mutant() { # what, file, sed expression, words of the failure
  cp "../src/$2" saved
  sed -i "$3" "../src/$2"
  if cmp -s saved "../src/$2"; then
    echo "FAIL: '$1' does not fit $2 any more"; bad=1; return
  fi
  build
  if timeout 300 tests/sim/test_cluster >out 2>err; then
    echo "FAIL: nobody noticed: $1"; bad=1
  elif ! grep -qE "$4" out; then
    echo "FAIL: $1: noticed as something else:"; grep -m 3 seed out || tail -n 3 out err; bad=1
  else
    echo "found: $1: $(grep -m 1 -E "$4" out)"
  fi
  cp saved "../src/$2"
}

make -j"$(nproc)" >make.out 2>&1 || { tail -n 20 make.out; exit 1; }
build
timeout 300 tests/sim/test_cluster >out 2>err || { echo "FAIL: the tree as it is does not pass"; cat out; exit 1; }

mutant "a shard applies a push that comes twice" server/job.c \
  's/ && clock != BL_CLOCK_FINISHED && !is_there;/;/' "is applied twice"
mutant "the ledger forgets what it handed out" coordinator/grants.c \
  's/  return co_ledger_apply(job->ledger, stored->rank, &e);/  return BL_OK;/' "is taken . times|has other samples now|does not come to an end"
mutant "a view is announced before it is stored" coordinator/core.c \
  's/if (co_state_save(st, st->jobs\[i\]))/if (announce_early(st, st->jobs[i], core->out), co_state_save(st, st->jobs[i]))/; s/^static void settle(co_core \*core) {/static void announce_early(co_state *st, co_job *job, bl_transport *out) {\n  bool dirty = job->dirty;\n  co_job_sync_plan(job);\n  job->dirty = false;\n  co_reconcile_job(st, job, out);\n  job->dirty = dirty;\n}\n&/' \
  "before it is stored|stored is"
mutant "a replaced rank makes no new view" coordinator/lifecycle.c \
  '/^static void do_replace/,/^}/s/co_job_next_view(job);/(void)0;/' "failed: rank . crashed|does not come to an end"
mutant "servers are not told that a job is over" coordinator/reconcile.c \
  's/send_to(out, node, BL_MSG_CLOSE_JOB, &m.base)/false/' "does not come to an end|still holds something"
mutant "a report goes out once" worker/outbox.c \
  's/^  o->repeat_at_ns = now_ns + o->repeat_ns;$/  o->repeat_at_ns = UINT64_MAX;/' "does not come to an end"
mutant "an old task is not stopped" coordinator/reconcile.c \
  's/&& stop_task(job, t, node, out)/\&\& false/' "lives for ever|does not come to an end"
mutant "a job of version 2 is placed on nodes of version 1" coordinator/queue.c \
  's/|| node->reg->protocol_max >= job->protocol;/|| node != NULL;/' \
  "a part of version 1 is given job"
mutant "an old type of message is sent in the newest version" common/wire/msg.c \
  's/out\[2\] = (uint8_t)bl_msg_type_since(type);/out[2] = BL_PROTOCOL_VERSION;/' "meets a|does not come to an end|nobody would accept"
mutant "an epoch is acknowledged without its verdict" coordinator/core.c \
  's/  else if (co_stopping_is_asked(job->spec) \&\& epoch != 0.*/  else if (false)/' "does not come to an end"
mutant "a shard opens before it has all initial values" server/job.c \
  's/  if (++j->n_opened == j->n_chunks \&\& j->state != SRV_JOB_FAILED)/  if (++j->n_opened > 0 \&\& j->state != SRV_JOB_FAILED)/' "ends with weights|does not come to an end|goes back|failed"
exit $bad
