/* SPDX-License-Identifier: Apache-2.0
 *
 * Which table is used. The list is ordered from plain to wide; "auto" takes the last that the CPU has.
 */
#include "config.h"

#include "kernel/kernel.h"

#include "base/log.h"
#include "kernel/tables.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static bool always(void) { return true; }

static const struct {
  const bl_kernels *table;
  bool (*cpu_can)(void);
} tables[] = {
    {&bl_kernels_scalar, always},
#ifdef BL_HAVE_X86_SIMD
    {&bl_kernels_avx2, bl_cpu_has_avx2},
    {&bl_kernels_avx512, bl_cpu_has_avx512},
#endif
};

static _Atomic(const bl_kernels *) chosen;

const bl_kernels *bl_kernels_at(size_t i) {
  for (size_t k = 0; k < BL_COUNT_OF(tables); k++) {
    if (tables[k].cpu_can() && i-- == 0)
      return tables[k].table;
  }
  return NULL;
}

static const bl_kernels *widest(void) {
  const bl_kernels *best = NULL;
  for (size_t i = 0; bl_kernels_at(i) != NULL; i++)
    best = bl_kernels_at(i);
  return best;
}

bl_status bl_kernels_force(const char *name, bl_error *err) {
  if (strcmp(name, "auto") == 0) {
    atomic_store(&chosen, widest());
    return BL_OK;
  }
  for (size_t k = 0; k < BL_COUNT_OF(tables); k++) {
    if (strcmp(tables[k].table->name, name) != 0)
      continue;
    if (!tables[k].cpu_can())
      return bl_fail(err, BL_EUNSUPPORTED, "kernels \"%s\" need instructions that this CPU does not have", name);
    atomic_store(&chosen, tables[k].table);
    return BL_OK;
  }
  return bl_fail(err, BL_ENOENT, "no kernels \"%s\" in this build: auto, scalar%s", name,
                 BL_COUNT_OF(tables) > 1 ? ", avx2, avx512" : "");
}

/* Threads that race here all find the same answer. A wrong environment costs speed, never the result, so it
 * is a warning. */
const bl_kernels *bl_kernels_get(void) {
  const bl_kernels *k = atomic_load_explicit(&chosen, memory_order_acquire);
  if (k != NULL)
    return k;
  const char *name = getenv("BALLAST_KERNELS");
  bl_error err = BL_ERROR_INIT;
  if (name == NULL || name[0] == '\0')
    name = "auto";
  if (bl_kernels_force(name, &err) != BL_OK) {
    bl_log_warning("kernels_env_ignored", "error=%s", BL_LOGQ(err.text));
    atomic_store(&chosen, widest());
  }
  return atomic_load(&chosen);
}
