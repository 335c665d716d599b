/* SPDX-License-Identifier: Apache-2.0
 *
 * A glyph is a few strokes given by points on a 100 x 100 square, y downwards. Corners are where one stroke
 * ends and the next begins; a smooth stroke is a Catmull-Rom curve through its points. A sample jitters the
 * points, bends the plane a little, turns, shears, scales and shifts it, draws with a round pen of random
 * width by distance to the curve, then blurs and adds noise.
 */
#include "data/gen/digits.h"

#include "base/num.h"
#include "base/rng.h"
#include "base/status.h"

#include <math.h>
#include <stdbool.h>

#define POINTS_MAX 16
#define STROKES_MAX 4
#define STEPS_PER_SPAN 6 /* straight pieces between two points of a smooth stroke */

typedef struct point {
  double x, y;
} point;

typedef struct stroke {
  bool smooth;
  uint8_t n;
  struct {
    uint8_t x, y;
  } at[POINTS_MAX];
} stroke;

typedef struct glyph {
  uint8_t n_strokes;
  stroke strokes[STROKES_MAX];
} glyph;

/* clang-format off */
#define LINE(count, ...) {false, count, {__VA_ARGS__}}
#define CURVE(count, ...) {true, count, {__VA_ARGS__}}
/* clang-format on */
#define STYLES 3

static const glyph glyphs[10][STYLES] = {
    {
        {1, {CURVE(9, {50, 5}, {24, 18}, {15, 50}, {24, 82}, {50, 95}, {76, 82}, {85, 50}, {76, 18}, {50, 5})}},
        {1, {CURVE(9, {54, 5}, {32, 18}, {24, 50}, {30, 82}, {48, 95}, {68, 82}, {76, 50}, {72, 20}, {50, 5})}},
        {1,
         {CURVE(10, {62, 8}, {36, 10}, {18, 36}, {18, 68}, {38, 94}, {64, 90}, {82, 62}, {80, 30}, {62, 9},
                {46, 12})}},
    },
    {
        {1, {LINE(2, {50, 4}, {50, 96})}},
        {1, {LINE(3, {32, 24}, {54, 4}, {54, 96})}},
        {2, {LINE(3, {32, 24}, {52, 4}, {52, 95}), LINE(2, {30, 95}, {74, 95})}},
    },
    {
        {2,
         {CURVE(7, {17, 28}, {28, 9}, {54, 4}, {78, 18}, {74, 42}, {48, 68}, {16, 95}),
          LINE(2, {16, 95}, {86, 95})}},
        {1,
         {CURVE(11, {18, 22}, {36, 5}, {64, 6}, {78, 26}, {66, 52}, {38, 82}, {20, 94}, {14, 84}, {30, 78},
                {56, 88}, {88, 92})}},
        {2,
         {CURVE(6, {20, 14}, {48, 4}, {76, 14}, {76, 38}, {50, 64}, {18, 94}),
          CURVE(4, {18, 94}, {40, 88}, {64, 96}, {86, 90})}},
    },
    {
        {2,
         {CURVE(6, {18, 16}, {42, 4}, {70, 10}, {76, 28}, {62, 43}, {40, 47}),
          CURVE(6, {40, 47}, {70, 52}, {83, 70}, {70, 90}, {42, 96}, {15, 85})}},
        {2,
         {LINE(3, {20, 7}, {78, 7}, {45, 42}),
          CURVE(6, {45, 42}, {74, 50}, {81, 72}, {64, 92}, {38, 96}, {15, 85})}},
        {1,
         {CURVE(10, {22, 10}, {50, 4}, {74, 16}, {68, 36}, {46, 47}, {68, 54}, {82, 72}, {66, 92}, {40, 96},
                {18, 90})}},
    },
    {
        {2, {LINE(3, {30, 5}, {16, 58}, {86, 58}), LINE(2, {66, 26}, {64, 96})}},
        {1, {LINE(4, {62, 96}, {62, 5}, {13, 66}, {88, 66})}},
        {2, {CURVE(5, {24, 6}, {18, 36}, {30, 54}, {54, 54}, {76, 46}), LINE(2, {76, 6}, {72, 96})}},
    },
    {
        {2,
         {LINE(3, {80, 6}, {30, 6}, {25, 44}),
          CURVE(6, {25, 44}, {52, 36}, {78, 50}, {80, 74}, {60, 94}, {16, 88})}},
        {2,
         {LINE(2, {28, 8}, {78, 5}),
          CURVE(8, {28, 8}, {26, 28}, {28, 44}, {56, 42}, {78, 58}, {74, 82}, {48, 96}, {18, 88})}},
        {2, {LINE(3, {74, 8}, {34, 8}, {30, 46}), CURVE(5, {30, 46}, {62, 46}, {76, 68}, {56, 92}, {22, 94})}},
    },
    {
        {1,
         {CURVE(11, {72, 6}, {44, 18}, {25, 45}, {20, 72}, {34, 93}, {60, 95}, {79, 78}, {72, 58}, {50, 52},
                {30, 62}, {21, 76})}},
        {1,
         {CURVE(9, {48, 4}, {30, 36}, {20, 68}, {34, 94}, {60, 95}, {76, 78}, {64, 58}, {40, 60}, {22, 74})}},
        {1,
         {CURVE(10, {82, 14}, {58, 4}, {30, 26}, {18, 60}, {28, 90}, {56, 96}, {80, 78}, {68, 56}, {42, 54},
                {20, 68})}},
    },
    {
        {1, {LINE(3, {15, 8}, {84, 8}, {42, 96})}},
        {2, {LINE(3, {15, 8}, {82, 8}, {40, 96}), LINE(2, {34, 50}, {74, 50})}},
        {2, {LINE(3, {16, 20}, {18, 8}, {82, 8}), CURVE(4, {82, 8}, {62, 38}, {50, 66}, {44, 96})}},
    },
    {
        {1,
         {CURVE(13, {50, 47}, {27, 34}, {26, 15}, {50, 4}, {74, 15}, {73, 34}, {50, 47}, {24, 62}, {19, 82},
                {50, 96}, {81, 82}, {76, 62}, {50, 47})}},
        {2,
         {CURVE(9, {50, 4}, {32, 11}, {26, 26}, {33, 41}, {50, 47}, {67, 41}, {74, 26}, {68, 11}, {50, 4}),
          CURVE(9, {50, 47}, {28, 54}, {19, 72}, {28, 89}, {50, 96}, {72, 89}, {81, 72}, {72, 54}, {50, 47})}},
        {1,
         {CURVE(12, {76, 14}, {50, 4}, {28, 16}, {34, 38}, {62, 54}, {78, 76}, {54, 96}, {26, 84}, {28, 64},
                {56, 46}, {76, 26}, {72, 12})}},
    },
    {
        {2,
         {CURVE(9, {76, 24}, {62, 7}, {38, 6}, {21, 22}, {24, 43}, {44, 54}, {66, 46}, {76, 28}, {76, 24}),
          CURVE(4, {77, 20}, {78, 50}, {70, 76}, {54, 96})}},
        {2,
         {CURVE(8, {74, 26}, {58, 6}, {34, 9}, {22, 30}, {34, 50}, {58, 50}, {74, 32}, {74, 26}),
          LINE(2, {75, 10}, {72, 96})}},
        {1,
         {CURVE(11, {76, 24}, {54, 5}, {28, 14}, {22, 38}, {42, 52}, {66, 42}, {77, 20}, {80, 48}, {74, 78},
                {52, 95}, {28, 90})}},
    },
};

/* Random numbers of one sample, in order of use. */
typedef struct dice {
  uint64_t key, hi, lo;
} dice;

static dice dice_of(uint64_t seed, uint32_t part, uint64_t index) {
  return (dice){.key = bl_rng_key(seed, BL_RNG_DATA), .hi = (uint64_t)part << 48 | index, .lo = 1};
}

static double uniform(dice *d, double from, double to) {
  return from + (to - from) * (double)bl_rng_unit(d->key, d->hi, d->lo++);
}

static double normal(dice *d, double deviation) {
  return deviation * (double)bl_rng_normal(d->key, d->hi, d->lo++);
}

static double clamp(double v, double low, double high) {
  return v < low ? low : v > high ? high : v;
}

uint8_t wk_digit_label(uint64_t seed, uint32_t part, uint64_t index) {
  dice d = dice_of(seed, part, index);
  return (uint8_t)bl_rng_below(d.key, d.hi, 0, 10);
}

#define GRID 4

/* From the unit square of a glyph to pixels. */
typedef struct warp {
  point bend[GRID][GRID]; /* displacements at grid points, in pixels */
  double xx, xy, yx, yy, dx, dy;
} warp;

static void warp_init(warp *w, dice *d) {
  for (int i = 0; i < GRID; i++)
    for (int j = 0; j < GRID; j++)
      w->bend[i][j] = (point){normal(d, 0.75), normal(d, 0.75)};
  /* Turn by the tangent of half the angle, up to 17 degrees either way; no sine needed. */
  double t = clamp(normal(d, 0.065), -0.15, 0.15);
  double c = (1 - t * t) / (1 + t * t), s = 2 * t / (1 + t * t);
  double wide = uniform(d, 12.5, 18.5), high = uniform(d, 16.5, 21.5);
  double shear = clamp(normal(d, 0.13) - 0.05, -0.35, 0.25);
  w->xx = wide * c;
  w->xy = high * shear * c - high * s;
  w->yx = wide * s;
  w->yy = high * shear * s + high * c;
  w->dx = 14 + clamp(normal(d, 1.1), -2.5, 2.5);
  w->dy = 14 + clamp(normal(d, 1.1), -2.5, 2.5);
}

static point warp_apply(const warp *w, point p) {
  double gx = clamp(p.x, 0, 0.999) * (GRID - 1), gy = clamp(p.y, 0, 0.999) * (GRID - 1);
  int i = (int)gy, j = (int)gx;
  double fx = gx - j, fy = gy - i;
  const point *a = &w->bend[i][j], *b = &w->bend[i + 1][j];
  double bx = (a[0].x * (1 - fx) + a[1].x * fx) * (1 - fy) + (b[0].x * (1 - fx) + b[1].x * fx) * fy;
  double by = (a[0].y * (1 - fx) + a[1].y * fx) * (1 - fy) + (b[0].y * (1 - fx) + b[1].y * fx) * fy;
  double x = p.x - 0.5, y = p.y - 0.5;
  return (point){w->xx * x + w->xy * y + w->dx + bx, w->yx * x + w->yy * y + w->dy + by};
}

/* Squared distance of every pixel to the nearest piece of curve so far; only pixels within the pen's reach. */
typedef struct canvas {
  double squared[WK_DIGIT_SIDE][WK_DIGIT_SIDE];
  double reach;
} canvas;

static void draw_piece(canvas *c, point a, point b) {
  int x0 = (int)clamp(BL_MIN(a.x, b.x) - c->reach, 0, WK_DIGIT_SIDE - 1);
  int x1 = (int)clamp(BL_MAX(a.x, b.x) + c->reach, 0, WK_DIGIT_SIDE - 1);
  int y0 = (int)clamp(BL_MIN(a.y, b.y) - c->reach, 0, WK_DIGIT_SIDE - 1);
  int y1 = (int)clamp(BL_MAX(a.y, b.y) + c->reach, 0, WK_DIGIT_SIDE - 1);
  double ux = b.x - a.x, uy = b.y - a.y, length = ux * ux + uy * uy;
  for (int y = y0; y <= y1; y++) {
    for (int x = x0; x <= x1; x++) {
      double px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      double t = length > 0 ? clamp((px * ux + py * uy) / length, 0, 1) : 0;
      double ex = px - t * ux, ey = py - t * uy, squared = ex * ex + ey * ey;
      c->squared[y][x] = BL_MIN(c->squared[y][x], squared);
    }
  }
}

/* Point between p[1] and p[2] (Catmull and Rom, "A class of local interpolating splines", 1974). */
static double spline(double p0, double p1, double p2, double p3, double t) {
  return 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t * t +
                (3 * p1 - p0 - 3 * p2 + p3) * t * t * t);
}

static void draw_stroke(canvas *c, const warp *w, const point *p, int n, bool smooth) {
  int steps = smooth ? STEPS_PER_SPAN : 4; /* straight pieces are bent by the warp too */
  point last = warp_apply(w, p[0]);
  for (int i = 0; i + 1 < n; i++) {
    const point *before = &p[i > 0 ? i - 1 : i], *after = &p[i + 2 < n ? i + 2 : i + 1];
    for (int k = 1; k <= steps; k++) {
      double t = (double)k / steps;
      point q = {p[i].x + (p[i + 1].x - p[i].x) * t, p[i].y + (p[i + 1].y - p[i].y) * t};
      if (smooth)
        q = (point){spline(before->x, p[i].x, p[i + 1].x, after->x, t),
                    spline(before->y, p[i].y, p[i + 1].y, after->y, t)};
      q = warp_apply(w, q);
      draw_piece(c, last, q);
      last = q;
    }
  }
}

static void draw_glyph(canvas *c, const warp *w, const glyph *g, dice *d) {
  double previous_x = 0, previous_y = 0; /* jitter of the last point: joined strokes stay joined */
  for (int k = 0; k < g->n_strokes; k++) {
    const stroke *s = &g->strokes[k];
    const stroke *before = k > 0 ? &g->strokes[k - 1] : NULL;
    point p[POINTS_MAX];
    BL_ASSERT(s->n >= 2 && s->n <= POINTS_MAX);
    for (int i = 0; i < s->n; i++) {
      double jx = normal(d, 0.022), jy = normal(d, 0.022);
      bool joined = i == 0 && before != NULL && before->at[before->n - 1].x == s->at[0].x &&
                    before->at[before->n - 1].y == s->at[0].y;
      if (joined) {
        jx = previous_x;
        jy = previous_y;
      }
      p[i] = (point){s->at[i].x / 100.0 + jx, s->at[i].y / 100.0 + jy};
      previous_x = jx;
      previous_y = jy;
    }
    draw_stroke(c, w, p, s->n, s->smooth);
  }
}

/* Weighted with its four neighbours. */
static double blurred(double ink[WK_DIGIT_SIDE][WK_DIGIT_SIDE], int y, int x, double weight) {
  double sum = 0;
  sum += y > 0 ? ink[y - 1][x] : 0;
  sum += y + 1 < WK_DIGIT_SIDE ? ink[y + 1][x] : 0;
  sum += x > 0 ? ink[y][x - 1] : 0;
  sum += x + 1 < WK_DIGIT_SIDE ? ink[y][x + 1] : 0;
  return ink[y][x] * (1 - 4 * weight) + sum * weight;
}

void wk_digit_draw(uint64_t seed, uint32_t part, uint64_t index, uint8_t digit,
                   uint8_t pixels[WK_DIGIT_PIXELS]) {
  BL_ASSERT(digit < 10);
  dice d = dice_of(seed, part, index);
  const glyph *g = &glyphs[digit][bl_rng_below(d.key, d.hi, d.lo++, STYLES)];
  warp w;
  warp_init(&w, &d);
  double radius = uniform(&d, 0.8, 1.75), darkness = uniform(&d, 0.7, 1.0);
  double blur = uniform(&d, 0, 0.12), noise = uniform(&d, 0, 0.07);
  canvas c = {.reach = radius + 1};
  for (int i = 0; i < WK_DIGIT_PIXELS; i++)
    c.squared[i / WK_DIGIT_SIDE][i % WK_DIGIT_SIDE] = 1e9;
  draw_glyph(&c, &w, g, &d);
  double ink[WK_DIGIT_SIDE][WK_DIGIT_SIDE];
  for (int y = 0; y < WK_DIGIT_SIDE; y++)
    for (int x = 0; x < WK_DIGIT_SIDE; x++)
      ink[y][x] = darkness * clamp(radius + 0.5 - sqrt(c.squared[y][x]), 0, 1);
  for (int y = 0; y < WK_DIGIT_SIDE; y++)
    for (int x = 0; x < WK_DIGIT_SIDE; x++) {
      double v = blurred(ink, y, x, blur) + normal(&d, noise);
      pixels[y * WK_DIGIT_SIDE + x] = (uint8_t)(255 * clamp(v, 0, 1) + 0.5);
    }
}
