/* SPDX-License-Identifier: Apache-2.0
 *
 * Error feedback of a rank: what the frames that it has pushed did not carry, per chunk, to be sent with a later one; and
 * with momentum correction the velocity of each element. It is the part of a rank's state that its data and clock do not
 * determine.
 *
 * Momentum correction (Lin et al., "Deep Gradient Compression", ICLR 2018, section 3.2): what is pushed of a clock is not
 * the gradient g but the velocity u = momentum * u + g. Sparse codecs do that themselves, with the masking of section 3.1
 * (kernel/sparse.h); for the others it is done here.
 *
 * A chunk's residual is settled when its gradient of a clock is encoded, and the frame is kept by the caller until it is
 * acknowledged. The law that tests hold it to: sum of gradients = sum applied + residual + counted loss.
 *
 * With a file it survives a crash of the process. The file is mapped and holds two copies of every array: that of clock
 * c is read from one and written to the other, which is stamped with c + 1 when it is whole. So a process that dies in
 * the middle of writing leaves the numbers from before. Which copy holds what is a matter of the stamp's parity. The file
 * is not for other machines: native byte order, and it is dropped when it is not of this job, rank and table. A process
 * that finds another one at work on it goes on in memory.
 *
 *   offset            size
 *   0                 8        "BLRESID1"
 *   8                 8        job
 *   16                4        rank
 *   20                4        number of arrays per copy: 1 = residual, 2 = residual and velocity
 *   24                8        XXH3-64 of the tensors' names, shapes, codecs and chunks
 *   32                4        number of chunks c
 *   36                4        lower half of the job's seed
 *   40                16 c     two stamps per chunk: of the copy of this parity, (the clock before which it stood so + 1)
 *                              << 20 (with streams in place of the clock the number of exchanges before it), + the lower 20 bits of the incarnation that wrote it; 0: it is not whole
 *   to a page         ...      copies: even residuals, odd residuals, even velocities, odd velocities
 *
 * Source of error feedback: Seide et al., "1-bit stochastic gradient descent", Interspeech 2014; Karimireddy et al.,
 * "Error feedback fixes SignSGD", ICML 2019. Threads: one.
 */
#ifndef BL_CLIENT_FEEDBACK_H
#define BL_CLIENT_FEEDBACK_H

#include "codec/codec.h"
#include "job/tensors.h"

typedef struct bl_feedback bl_feedback;

typedef struct bl_feedback_config {
  const bl_tensor_table *table; /* borrowed */
  uint64_t job;
  uint64_t seed;                /* of the job */
  uint32_t rank, incarnation;
  const char *path;             /* of the file; NULL: only in memory */
  bool undoes;                  /* bl_feedback_undo will be called: two copies in memory too */
} bl_feedback_config;

typedef struct bl_feedback_loss {
  uint64_t chunks;    /* residuals that were lost, one per chunk and time */
  double squares;     /* sum of their squares, as far as they are known */
} bl_feedback_loss;

/* A tensor whose pushes leave something behind, or have a velocity. */
bool bl_feedback_is_for(const bl_tensor *tensor);
/* *ret is NULL where no tensor of the table needs it. A file that cannot be used is a warning in the log and memory in
 * its place. BL_ENOMEM. */
BL_MUST_CHECK bl_status bl_feedback_new(const bl_feedback_config *config, bl_feedback **ret, bl_error *err);
/* Keeps the file for whoever carries the rank next on this machine. */
void bl_feedback_free(bl_feedback *f);
#define BL_FEEDBACK_FILE_PREFIX "residual-"
/* Files in a folder that nobody has written to for so long: of ranks that went on elsewhere. Returns how many went. */
uint32_t bl_feedback_sweep(const char *dir, uint64_t older_than_s);
/* The rank is done: nobody goes on from here. */
void bl_feedback_remove_file(bl_feedback *f);

/* Before the first clock: its number. What the file does not have of exactly that moment is lost, unless it is where the
 * job begins. */
void bl_feedback_begin(bl_feedback *f, uint64_t clock, bool is_first);
/* Is what stands here what this rank would have had without a restart? */
bool bl_feedback_is_whole(const bl_feedback *f, uint32_t chunk);

/* A tensor's residual as of before a clock: [n_elems]; NULL: the tensor has none. For thresholds over whole tensors. */
const float *bl_feedback_of_tensor(const bl_feedback *f, uint32_t tensor, uint64_t clock);
const float *bl_feedback_velocity(const bl_feedback *f, uint32_t tensor, uint64_t clock);

/* Encodes a chunk of clock's gradient with what is left of the clocks before, and settles. Once per chunk and clock; x: of
 * the chunk. e's velocity is filled in. Returns the frame's size. */
size_t bl_feedback_encode(bl_feedback *f, uint32_t chunk, uint64_t clock, bl_encode *e, const float *x, uint8_t *out);
/* A frame of this clock that will not be applied: its numbers go back. Behind bl_feedback_encode of the same clock. */
void bl_feedback_return(bl_feedback *f, uint32_t chunk, uint64_t clock, const bl_codec_view *frame);
#define BL_FEEDBACK_ANYBODY UINT32_MAX /* an incarnation that is not known */

/* The clock changed nothing, since a gradient was not finite: what was held back before it is again, of all tensors. Nothing
 * happens to what does not stand as of before that clock. */
void bl_feedback_undo(bl_feedback *f, uint64_t clock);
/* Another incarnation's bytes were applied in the place of ours, in the first clock: its residual is taken, where it stands
 * in the file, otherwise what it was is not known any more and counts as lost. */
void bl_feedback_replace(bl_feedback *f, uint32_t chunk, uint64_t clock, uint32_t incarnation);

bl_feedback_loss bl_feedback_loss_of(const bl_feedback *f, uint32_t tensor);
/* Norm of a tensor's residual behind clock - 1. Cost: a pass over it. */
double bl_feedback_norm(const bl_feedback *f, uint32_t tensor, uint64_t clock);

#endif
