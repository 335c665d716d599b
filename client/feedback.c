/* SPDX-License-Identifier: Apache-2.0
 *
 * Residuals in memory or in a mapped file. In memory there is one copy, which is written in place, unless clocks may be
 * undone.
 */
#include "client/feedback.h"

#include "base/alloc.h"
#include "base/checksum.h"
#include "base/log.h"
#include "base/num.h"
#include "codec/lowrank.h"
#include "kernel/kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC "BLRESID1"
#define PAGE 4096u
#define ALIGN_ELEMS 16 /* tensors begin on a cache line */

typedef struct file_head {
  char magic[8];
  uint64_t job;
  uint32_t rank, n_arrays;
  uint64_t table;
  uint32_t n_chunks, seed;
} file_head;
_Static_assert(sizeof(file_head) == 40, "the head is written as it stands");

enum { RESIDUAL = 0, VELOCITY = 1, ARRAYS_MAX = 2 };

struct bl_feedback {
  const bl_tensor_table *table;
  uint64_t *first;       /* [n_tensors]: element in an array where the tensor begins; UINT64_MAX: it has none */
  uint64_t n_elems;      /* of one array */
  uint32_t n_arrays, n_copies;
  float *arrays[ARRAYS_MAX][2]; /* [n_elems] */
  uint64_t *stamps;      /* [n_chunks][2]; in memory too */
  bool *whole;           /* [n_chunks] */
  uint32_t *n_clean;     /* [n_chunks]: exact frames in a row: as many copies are all zero */
  uint32_t incarnation;
  uint64_t began;            /* the first clock */
  float *others[ARRAYS_MAX]; /* [n_elems], of the first clock: as it stood in the file behind that clock; NULL: nothing */
  uint64_t *other_stamps;    /* [n_chunks] */
  float *factors;        /* warm starts of low-rank codecs: [n_factors] */
  uint64_t *first_factor; /* [n_chunks] */
  bl_feedback_loss *losses; /* [n_tensors] */
  void *map;             /* NULL: in memory */
  int fd;                /* of the map; holds its lock */
  size_t map_bytes;
  char *path;            /* owned; NULL: in memory */
};

bool bl_feedback_is_for(const bl_tensor *t) {
  return !t->table && (t->policy.momentum > 0 || t->policy.feedback);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

/* Of a chunk: numbers of its warm start. A tensor of one dimension is cut into columns by the codec. */
static uint64_t n_factor_elems(const bl_tensor *t, const bl_chunk *c) {
  uint32_t columns = bl_tensor_columns(t);
  return (uint64_t)t->policy.push.rank * (columns > 0 ? columns : bl_lowrank_columns(c->n_elems));
}

static uint64_t lay_out(bl_feedback *f) {
  uint64_t at = 0, n_factors = 0;
  for (uint32_t i = 0; i < f->table->n_tensors; i++) {
    const bl_tensor *t = &f->table->tensors[i];
    f->first[i] = UINT64_MAX;
    if (!bl_feedback_is_for(t))
      continue;
    f->first[i] = at;
    at += bl_div_up_u64(t->n_elems, ALIGN_ELEMS) * ALIGN_ELEMS;
    f->n_arrays = BL_MAX(f->n_arrays, t->policy.momentum > 0 ? 2u : 1u);
  }
  for (uint32_t id = 0; id < f->table->n_chunks; id++) {
    const bl_tensor *t = &f->table->tensors[f->table->chunks[id].tensor];
    f->first_factor[id] = n_factors;
    n_factors += bl_feedback_is_for(t) ? n_factor_elems(t, &f->table->chunks[id]) : 0;
  }
  f->n_elems = at;
  return n_factors;
}

static uint64_t table_checksum(const bl_tensor_table *t) {
  uint64_t sum = bl_checksum_seeded(&t->chunk_elems, sizeof t->chunk_elems, t->n_chunks);
  for (uint32_t i = 0; i < t->n_tensors; i++) {
    const bl_tensor *x = &t->tensors[i];
    sum = bl_checksum_seeded(x->name, strlen(x->name), sum);
    sum = bl_checksum_seeded(x->dims, x->n_dims * sizeof x->dims[0], sum ^ (uint64_t)bl_feedback_is_for(x));
  }
  return sum;
}

static size_t bytes_before_arrays(const bl_feedback *f) {
  size_t bytes = sizeof(file_head) + (size_t)f->table->n_chunks * 2 * sizeof(uint64_t);
  return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void point_into_map(bl_feedback *f) {
  char *at = (char *)f->map + bytes_before_arrays(f);
  f->n_copies = 2;
  f->stamps = (uint64_t *)(void *)((char *)f->map + sizeof(file_head));
  for (uint32_t a = 0; a < f->n_arrays; a++)
    for (uint32_t c = 0; c < 2; c++, at += f->n_elems * sizeof(float))
      f->arrays[a][c] = (float *)(void *)at;
}

/* Room for all of it is taken at once: a full disk is found here and not by a signal in the middle of training. */
static bl_status map_file(bl_feedback *f, const file_head *head, bool *ret_found, bl_error *err) {
  f->map_bytes = bytes_before_arrays(f) + (size_t)f->n_arrays * 2 * f->n_elems * sizeof(float);
  int fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return bl_fail(err, BL_EIO, "%s: %s", f->path, strerror(errno));
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    close(fd);
    return bl_fail(err, BL_EAGAIN, "%s: another process is at work on it", f->path);
  }
  struct stat st;
  file_head found;
  *ret_found = fstat(fd, &st) == 0 && (uint64_t)st.st_size == f->map_bytes &&
               pread(fd, &found, sizeof found, 0) == (ssize_t)sizeof found && memcmp(&found, head, sizeof found) == 0;
  int failed = *ret_found ? 0 : ftruncate(fd, 0) != 0 ? errno : posix_fallocate(fd, 0, (off_t)f->map_bytes);
  void *map = MAP_FAILED;
  if (failed == 0) {
    map = mmap(NULL, f->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    failed = map == MAP_FAILED ? errno : 0;
  }
  if (failed == 0) {
    f->map = map;
    f->fd = fd;
    return BL_OK;
  }
  unlink(f->path);
  close(fd);
  return bl_fail(err, BL_EIO, "%s: no room for %zu bytes: %s", f->path, f->map_bytes, strerror(failed));
}

static bl_status open_file(bl_feedback *f, const bl_feedback_config *config, bl_error *err) {
  file_head head = {.magic = MAGIC,
                    .job = config->job,
                    .rank = config->rank,
                    .n_arrays = f->n_arrays,
                    .table = table_checksum(config->table),
                    .n_chunks = config->table->n_chunks,
                    .seed = (uint32_t)config->seed};
  bool found = false;
  bl_status st = map_file(f, &head, &found, err);
  if (st != BL_OK)
    return st;
  if (!found)
    memcpy(f->map, &head, sizeof head);
  point_into_map(f);
  return BL_OK;
}

static bl_status take_memory(bl_feedback *f, bool undoes) {
  f->n_copies = undoes ? 2 : 1;
  f->stamps = bl_calloc((size_t)f->table->n_chunks * 2, sizeof *f->stamps);
  for (uint32_t a = 0; a < f->n_arrays; a++) {
    f->arrays[a][0] = bl_calloc_aligned(f->n_elems, sizeof(float));
    f->arrays[a][1] = undoes ? bl_calloc_aligned(f->n_elems, sizeof(float)) : f->arrays[a][0];
    if (f->arrays[a][0] == NULL || f->arrays[a][1] == NULL)
      return BL_ENOMEM;
  }
  return f->stamps != NULL ? BL_OK : BL_ENOMEM;
}

bl_status bl_feedback_new(const bl_feedback_config *config, bl_feedback **ret, bl_error *err) {
  const bl_tensor_table *t = config->table;
  bl_error why = BL_ERROR_INIT;
  *ret = NULL;
  uint32_t n = 0;
  for (uint32_t i = 0; i < t->n_tensors; i++)
    n += bl_feedback_is_for(&t->tensors[i]);
  if (n == 0)
    return BL_OK;
  bl_feedback *f = bl_calloc(1, sizeof *f);
  if (f == NULL)
    goto no_memory;
  f->table = t;
  f->incarnation = config->incarnation;
  f->first = bl_calloc(t->n_tensors, sizeof *f->first);
  f->first_factor = bl_calloc(t->n_chunks, sizeof *f->first_factor);
  f->whole = bl_calloc(t->n_chunks, sizeof *f->whole);
  f->n_clean = bl_calloc(t->n_chunks, sizeof *f->n_clean);
  f->losses = bl_calloc(t->n_tensors, sizeof *f->losses);
  if (f->n_clean == NULL || f->losses == NULL || f->first == NULL || f->first_factor == NULL || f->whole == NULL)
    goto no_memory;
  uint64_t n_factors = lay_out(f);
  if (n_factors > 0 && (f->factors = bl_calloc_aligned(n_factors, sizeof(float))) == NULL)
    goto no_memory;
  if (config->path != NULL && (f->path = bl_strdup(config->path)) == NULL)
    goto no_memory;
  if (f->path != NULL && open_file(f, config, &why) != BL_OK)
    bl_log_warning("residuals_in_memory", "reason=%s", BL_LOGQ(why.text));
  if (f->map == NULL && take_memory(f, config->undoes) != BL_OK)
    goto no_memory;
  *ret = f;
  return BL_OK;
no_memory:
  bl_feedback_free(f);
  return bl_fail(err, BL_ENOMEM, "no memory for the residuals of %u tensors", n);
}

static void forget_others(bl_feedback *f) {
  for (uint32_t a = 0; a < ARRAYS_MAX; a++) {
    bl_free_aligned(f->others[a]);
    f->others[a] = NULL;
  }
  bl_free(f->other_stamps);
  f->other_stamps = NULL;
}

void bl_feedback_free(bl_feedback *f) {
  if (f == NULL)
    return;
  if (f->map != NULL) {
    munmap(f->map, f->map_bytes);
    close(f->fd);
  } else {
    for (uint32_t a = 0; a < ARRAYS_MAX; a++) {
      if (f->arrays[a][1] != f->arrays[a][0])
        bl_free_aligned(f->arrays[a][1]);
      bl_free_aligned(f->arrays[a][0]);
    }
    bl_free(f->stamps);
  }
  forget_others(f);
  bl_free_aligned(f->factors);
  bl_free(f->first_factor);
  bl_free(f->first);
  bl_free(f->whole);
  bl_free(f->n_clean);
  bl_free(f->losses);
  bl_free(f->path);
  bl_free(f);
}

void bl_feedback_remove_file(bl_feedback *f) {
  if (f->map != NULL)
    unlink(f->path);
}

uint32_t bl_feedback_sweep(const char *dir, uint64_t older_than_s) {
  uint32_t n = 0;
  DIR *d = opendir(dir);
  if (d == NULL)
    return 0;
  for (const struct dirent *e; (e = readdir(d)) != NULL;) {
    struct stat st;
    bool ours = strncmp(e->d_name, BL_FEEDBACK_FILE_PREFIX, strlen(BL_FEEDBACK_FILE_PREFIX)) == 0 &&
                fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
    if (ours && time(NULL) - st.st_mtime > (time_t)older_than_s)
      n += unlinkat(dirfd(d), e->d_name, 0) == 0;
  }
  closedir(d);
  return n;
}

/* ---- places -------------------------------------------------------------------------------------------- */

static bool has(const bl_feedback *f, uint32_t tensor) { return f->first[tensor] != UINT64_MAX; }

#define STAMP_BITS 20 /* of the incarnation */

/* A residual changes when its tensor is exchanged, with streams not in every clock: so that is what is counted. */
static uint64_t moment(const bl_feedback *f, uint32_t tensor, uint64_t clock) {
  return bl_tensor_exchanges(f->table, tensor, clock);
}

static uint64_t chunk_moment(const bl_feedback *f, uint32_t chunk, uint64_t clock) {
  return moment(f, f->table->chunks[chunk].tensor, clock);
}

static uint64_t stamp(const bl_feedback *f, uint32_t chunk, uint64_t clock, uint32_t incarnation) {
  return (chunk_moment(f, chunk, clock) + 1) << STAMP_BITS | (incarnation & ((1u << STAMP_BITS) - 1));
}

static uint64_t *stamp_of(const bl_feedback *f, uint32_t chunk, uint64_t clock) {
  return &f->stamps[(size_t)chunk * 2 + (f->n_copies == 2 ? chunk_moment(f, chunk, clock) & 1 : 0)];
}

static bool is_stamped(const bl_feedback *f, uint32_t chunk, uint64_t clock) {
  return *stamp_of(f, chunk, clock) >> STAMP_BITS == chunk_moment(f, chunk, clock) + 1;
}

/* Of a chunk, as of before a clock. */
static float *place(const bl_feedback *f, int array, uint32_t chunk, uint64_t clock) {
  const bl_chunk *c = &f->table->chunks[chunk];
  return f->arrays[array][moment(f, c->tensor, clock) & 1] + f->first[c->tensor] + c->first;
}

static bool has_velocity(const bl_feedback *f, uint32_t chunk) {
  return f->table->tensors[f->table->chunks[chunk].tensor].policy.momentum > 0;
}

const float *bl_feedback_of_tensor(const bl_feedback *f, uint32_t tensor, uint64_t clock) {
  return f != NULL && has(f, tensor) ? f->arrays[RESIDUAL][moment(f, tensor, clock) & 1] + f->first[tensor] : NULL;
}

const float *bl_feedback_velocity(const bl_feedback *f, uint32_t tensor, uint64_t clock) {
  bool there = f != NULL && has(f, tensor) && f->table->tensors[tensor].policy.momentum > 0;
  return there ? f->arrays[VELOCITY][moment(f, tensor, clock) & 1] + f->first[tensor] : NULL;
}

/* ---- clocks -------------------------------------------------------------------------------------------- */

static size_t bytes_of(const bl_feedback *f, uint32_t chunk) {
  return (size_t)f->table->chunks[chunk].n_elems * sizeof(float);
}

/* Nothing is held back from before this clock. */
static void clear(bl_feedback *f, uint32_t chunk, uint64_t clock) {
  memset(place(f, RESIDUAL, chunk, clock), 0, bytes_of(f, chunk));
  if (has_velocity(f, chunk))
    memset(place(f, VELOCITY, chunk, clock), 0, bytes_of(f, chunk));
  *stamp_of(f, chunk, clock) = stamp(f, chunk, clock, f->incarnation);
}

/* What another incarnation left behind the first clock, before it is written over. Without memory it is lost. */
static void remember_others(bl_feedback *f, uint64_t clock) {
  if (f->map == NULL || (f->other_stamps = bl_calloc(f->table->n_chunks, sizeof(uint64_t))) == NULL)
    return;
  for (uint32_t a = 0; a < f->n_arrays; a++) {
    if ((f->others[a] = bl_calloc_aligned(f->n_elems, sizeof(float))) == NULL) {
      forget_others(f);
      return;
    }
    for (uint32_t i = 0; i < f->table->n_tensors; i++)
      if (has(f, i))
        memcpy(f->others[a] + f->first[i], f->arrays[a][moment(f, i, clock + 1) & 1] + f->first[i],
               f->table->tensors[i].n_elems * sizeof(float));
  }
  for (uint32_t id = 0; id < f->table->n_chunks; id++)
    if (is_stamped(f, id, clock + 1))
      f->other_stamps[id] = *stamp_of(f, id, clock + 1);
}

/* A file may hold anything. */
static bool is_finite(const bl_feedback *f, uint32_t chunk, uint64_t clock) {
  uint32_t n = f->table->chunks[chunk].n_elems;
  return bl_kernels_get()->all_finite(place(f, RESIDUAL, chunk, clock), n) &&
         (!has_velocity(f, chunk) || bl_kernels_get()->all_finite(place(f, VELOCITY, chunk, clock), n));
}

void bl_feedback_begin(bl_feedback *f, uint64_t clock, bool is_first) {
  f->began = clock;
  remember_others(f, clock);
  for (uint32_t id = 0; id < f->table->n_chunks; id++) {
    if (!has(f, f->table->chunks[id].tensor))
      continue;
    bool there = is_stamped(f, id, clock) && is_finite(f, id, clock);
    f->whole[id] = there || is_first;
    if (there)
      continue;
    clear(f, id, clock);
    f->losses[f->table->chunks[id].tensor].chunks += !is_first;
  }
}

bool bl_feedback_is_whole(const bl_feedback *f, uint32_t chunk) { return f->whole[chunk]; }

/* The copy of the next clock begins as that of this one. */
static void copy_over(bl_feedback *f, uint32_t chunk, uint64_t clock) {
  if (f->n_copies == 1)
    return;
  __atomic_store_n(stamp_of(f, chunk, clock + 1), 0, __ATOMIC_RELEASE);
  memcpy(place(f, RESIDUAL, chunk, clock + 1), place(f, RESIDUAL, chunk, clock), bytes_of(f, chunk));
  if (has_velocity(f, chunk))
    memcpy(place(f, VELOCITY, chunk, clock + 1), place(f, VELOCITY, chunk, clock), bytes_of(f, chunk));
}

static float *warm_start(bl_feedback *f, uint32_t chunk) {
  return f->factors != NULL ? f->factors + f->first_factor[chunk] : NULL;
}

size_t bl_feedback_encode(bl_feedback *f, uint32_t chunk, uint64_t clock, bl_encode *e, const float *x, uint8_t *out) {
  const bl_chunk *c = &f->table->chunks[chunk];
  if (clock != f->began)
    forget_others(f);
  bool exact = e->spec->codec->exact && !has_velocity(f, chunk);
  if (exact && f->n_clean[chunk] >= f->n_copies) { /* nothing is there to be sent, nor will be left */
    __atomic_store_n(stamp_of(f, chunk, clock + 1), stamp(f, chunk, clock + 1, f->incarnation), __ATOMIC_RELEASE);
    return bl_codec_encode(e, x, NULL, c->n_elems, 0, out);
  }
  f->n_clean[chunk] = exact ? f->n_clean[chunk] + 1 : 0;
  copy_over(f, chunk, clock);
  const bl_tensor_policy *policy = &f->table->tensors[c->tensor].policy;
  float *velocity = has_velocity(f, chunk) ? place(f, VELOCITY, chunk, clock + 1) : NULL;
  if (velocity != NULL && e->spec->codec->sparse && policy->feedback) {
    e->velocity = velocity;
    e->momentum = policy->momentum;
  } else if (velocity != NULL) {
    bl_kernels_get()->scale(velocity, policy->momentum, c->n_elems);
    bl_kernels_get()->add(velocity, x, c->n_elems);
    x = velocity;
  }
  if (e->spec->rank > 0)
    e->factor = warm_start(f, chunk);
  float *residual = policy->feedback ? place(f, RESIDUAL, chunk, clock + 1) : NULL;
  size_t size = bl_codec_encode(e, x, residual, c->n_elems, 0, out);
  __atomic_store_n(stamp_of(f, chunk, clock + 1), stamp(f, chunk, clock + 1, f->incarnation), __ATOMIC_RELEASE);
  return size;
}

void bl_feedback_return(bl_feedback *f, uint32_t chunk, uint64_t clock, const bl_codec_view *frame) {
  frame->codec->accumulate(frame, 1.0f, place(f, RESIDUAL, chunk, clock + 1));
  f->n_clean[chunk] = 0;
}

void bl_feedback_undo(bl_feedback *f, uint64_t clock) {
  BL_ASSERT(f->n_copies == 2);
  for (uint32_t id = 0; id < f->table->n_chunks; id++) {
    uint32_t tensor = f->table->chunks[id].tensor;
    if (!has(f, tensor) || !bl_tensor_in_clock(f->table, tensor, clock) ||
        *stamp_of(f, id, clock) >> STAMP_BITS != chunk_moment(f, id, clock) + 1)
      continue;
    copy_over(f, id, clock);
    __atomic_store_n(stamp_of(f, id, clock + 1), stamp(f, id, clock + 1, f->incarnation), __ATOMIC_RELEASE);
  }
}

void bl_feedback_replace(bl_feedback *f, uint32_t chunk, uint64_t clock, uint32_t incarnation) {
  const bl_chunk *c = &f->table->chunks[chunk];
  f->n_clean[chunk] = 0;
  uint64_t other = f->other_stamps != NULL ? f->other_stamps[chunk] : 0;
  uint32_t wrote = (uint32_t)other & ((1u << STAMP_BITS) - 1);
  bool by_them = incarnation == BL_FEEDBACK_ANYBODY || wrote == (incarnation & ((1u << STAMP_BITS) - 1));
  if (other >> STAMP_BITS == chunk_moment(f, chunk, clock + 1) + 1 && by_them) {
    for (uint32_t a = 0; a < (has_velocity(f, chunk) ? 2u : 1u); a++)
      memcpy(place(f, (int)a, chunk, clock + 1), f->others[a] + f->first[c->tensor] + c->first, bytes_of(f, chunk));
    return;
  }
  double squares = bl_kernels_get()->sum_squares(place(f, RESIDUAL, chunk, clock + 1), c->n_elems);
  f->losses[c->tensor].chunks++;
  f->losses[c->tensor].squares += isfinite(squares) ? squares : 0;
  clear(f, chunk, clock + 1);
}

bl_feedback_loss bl_feedback_loss_of(const bl_feedback *f, uint32_t tensor) { return f->losses[tensor]; }

double bl_feedback_norm(const bl_feedback *f, uint32_t tensor, uint64_t clock) {
  const float *r = bl_feedback_of_tensor(f, tensor, clock);
  return r != NULL ? sqrt(bl_kernels_get()->sum_squares(r, f->table->tensors[tensor].n_elems)) : 0;
}
