/* SPDX-License-Identifier: Apache-2.0
 *
 * Which codec each tensor should have in each direction: the search behind `auto`. A price stands for each choice: the
 * model's time of a clock (client/clock_model.h), and a surcharge on what is lossy; the search looks for the cheapest.
 * Pure, no allocation.
 *
 * It tries every pair of steps of the two ladders for all tensors alike (each takes the most lossy codec up to there that
 * it may have), and then lets the largest tensors differ where that pays.
 */
#ifndef BL_CLIENT_CHOICE_H
#define BL_CLIENT_CHOICE_H

#include "client/clock_model.h"

#include <stdbool.h>

enum { BL_CHOICE_PUSH = 0, BL_CHOICE_PULL = 1, BL_CHOICE_DIRECTIONS = 2 };

#define BL_CHOICE_LADDER_MAX 16

typedef struct bl_choice_candidate {
  bl_codec_cost cost;
  double density; /* part of the elements that a frame has; 1: all */
} bl_choice_candidate;

typedef struct bl_choice_tensor {
  uint64_t n_elems;
  const bl_codec_cost *fixed[BL_CHOICE_DIRECTIONS]; /* not to be chosen; NULL: is */
  bool held[BL_CHOICE_DIRECTIONS];                  /* keeps what it has */
  uint8_t now[BL_CHOICE_DIRECTIONS];                /* what it has: steps of the ladders */
  uint32_t allowed[BL_CHOICE_DIRECTIONS];           /* bit i: step i; step 0 always is */
} bl_choice_tensor;

typedef struct bl_choice {
  bl_clock_conditions conditions;
  double other_ns; /* of a clock: what no choice changes */
  const bl_choice_candidate *ladder[BL_CHOICE_DIRECTIONS];
  uint32_t n_ladder[BL_CHOICE_DIRECTIONS];
  const bl_choice_tensor *tensors;
  uint32_t n_tensors;
  bl_clock_tensor *scratch; /* [n_tensors] */
} bl_choice;

/* plan: [2 * n_tensors], of tensor t in direction d at 2 * t + d; what is fixed is not looked at. */
bl_clock_time bl_choice_time(const bl_choice *c, const uint8_t *plan);
/* Its time with the surcharge, ns. */
double bl_choice_price(const bl_choice *c, const uint8_t *plan);
/* The cheapest that was found, and its price. trial: [2 * n_tensors], scratch.
 * Cost: up to 256 + 32 * 32 models. */
double bl_choice_search(const bl_choice *c, uint8_t *plan, uint8_t *trial);

#endif
