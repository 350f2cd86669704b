/* What both ways through an iteration share: its fields, and the maps of one thread. */

#include "activations.h"

enum { CHUNK = 64, STRIP = 8, TAPS_3X3 = 9, PARTS = 5 }; /* pixels of a chunk, and of what is done at once for some channels */

/* A state that an iteration mixes in, or a later one whose gradient a state receives. */
struct part {
    num *map;                   /* of the state, or of the gradient of what the later iteration has mixed */
    const real *scale, *shift;  /* (channels) of the state; NULL: as it is */
    const real *coefficient;
    double *grad_coefficient;   /* is added to; NULL: there is none */
};

/* The same fields in the same order as in recursion_kernel.py. grad_*: the gradient of the loss with respect to it. */
struct recursion {
    int64_t images, height, width, channels, narrow, group, filters, classic, tiles;
    int64_t next;                               /* the tile to be taken next */
    int64_t activation, count;                  /* count: of parts */
    double slope, momentum, eps;
    const real *own;                            /* the activation's coefficient */
    num *map;                                   /* x_t */
    const real *scale, *shift;                  /* (channels) of x_t; NULL: as it is */
    const real *mean;                           /* (channels) of x_t, where batch norm made it; else NULL */
    const struct part *parts;
    num *activated, *result;                    /* activated may be NULL: not kept */
    const real *weight, *grouped;               /* as PyTorch has them: of the last convolution; of the grouped one or NULL */
    item *kernel, *back;                        /* matrices, packed: of the forward product, and for the gradient */
    real *depthwise;                            /* (group, 9, narrow) of the grouped one */
    double *sums;                               /* (tiles, channels, 2) */
    const real *gamma, *beta;                   /* (filters); NULL: none */
    real *running_mean, *running_var;           /* (filters) */
    real *result_mean, *result_scale, *result_shift; /* (channels) of the result */
    double *invstd;                             /* (filters) of the result */
    num *pooled;                                /* forward: a pool's result; backward: its gradient, NULL: no pool */
    num *gradient;                              /* of x_t; NULL: not needed */
    num *result_gradient;                       /* of the result; becomes that of what was mixed. NULL: no iteration */
    const real *factor, *result_factor, *constant; /* (channels): how it does; NULL: it is so already */
    double *grad_own;                           /* is added to; NULL: there is none */
    double *dots;                               /* (tiles, count + 1) */
    real *grad_kernel, *grad_depthwise;         /* (tiles, channels, depth), (tiles, group, 9, narrow) */
    real *sum_kernel, *sum_depthwise;           /* the same without tiles; are added to */
    real *grad_weight, *grad_grouped;           /* as PyTorch has them */
    double *grad_gamma, *grad_beta;             /* (filters); are added to */
    real *made_factor, *made_result_factor, *made_constant; /* (channels): of x_t's batch norm */
};

static int64_t depth(const struct recursion *b) { return b->classic ? TAPS_3X3 * b->channels : b->narrow; }

static int64_t place_of(const struct recursion *b, int64_t channel) {
    return channel % b->group * b->narrow + channel / b->group;
}

static int64_t first_image(const struct recursion *b, int64_t tile) { return b->images * tile / b->tiles; }

static int64_t take(struct recursion *b) {
    int64_t tile = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED);
    return tile < b->tiles ? tile : -1;
}

/* --- scratch of one thread */

struct scratch {
    int64_t rows, pixels;     /* of a chunk; pixels: a row of maps more, in full ROWS */
    real *x, *inner;          /* whole images inside a border of zeros: x_t, and a gradient within the convolution */
    real *taps, *map, *grad;  /* (pixels, depth), (pixels, channels), (pixels, channels) */
    num *numbers;             /* (pixels, the larger of both) */
    item *tap_items, *map_items;
    real *coefficients, *origin, *sums;
    void *all[13];
    int used, failed;
};

static void *room(struct scratch *s, int64_t bytes) {
    void *at = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!at) return s->failed = 1, at;
    memset(at, 0, bytes);
    return s->all[s->used++] = at;
}

static struct scratch begin(const struct recursion *b) {
    struct scratch s = {0};
    int64_t border = (b->height + 2) * (b->width + 2), inner = b->classic ? b->channels : b->narrow;
    s.rows = min(b->height, max(1, CHUNK / b->width));
    s.pixels = ((s.rows + 1) * b->width + ROWS - 1) / ROWS * ROWS;
    s.x = room(&s, border * b->channels * sizeof(real)), s.inner = room(&s, border * inner * sizeof(real));
    s.taps = room(&s, s.pixels * depth(b) * sizeof(real));
    s.map = room(&s, s.pixels * b->channels * sizeof(real)), s.grad = room(&s, s.pixels * b->channels * sizeof(real));
    s.numbers = room(&s, s.pixels * max(depth(b), b->channels) * sizeof(num));
    s.tap_items = room(&s, s.pixels * depth(b) * sizeof(num)), s.map_items = room(&s, s.pixels * b->channels * sizeof(num));
    s.coefficients = room(&s, (b->count + 1) * b->channels * sizeof(real));
    s.origin = room(&s, b->channels * sizeof(real)), s.sums = room(&s, 2 * b->channels * sizeof(real));
    return s;
}

static int end(struct scratch *s) {
    while (s->used) free(s->all[--s->used]);
    return s->failed ? -1 : 0;
}

INLINE real *bordered_pixel(const struct recursion *b, real *map, int64_t channels, int64_t h, int64_t w) {
    return map + ((h + 1) * (b->width + 2) + w + 1) * channels;
}

INLINE int64_t map_place(const struct recursion *b, int64_t image, int64_t h) {
    return (image * b->height + h) * b->width * b->channels;
}

/* Rows of x_t, scaled and shifted, inside the border. */
static void read_rows(const struct recursion *b, int64_t image, int64_t first, int64_t last, real *x) {
    int64_t channels = b->channels;
    for (int64_t h = first; h < last; h++) {
        const num *from = b->map + map_place(b, image, h);
        real *to = bordered_pixel(b, x, channels, h, 0);
        for (int64_t w = 0; w < b->width; w++, from += channels, to += channels)
            for (int64_t c = 0; c < channels; c += LANES) {
                vec v = read(from + c);
                store_reals(to + c, b->scale ? v * load_reals(b->scale + c) + load_reals(b->shift + c) : v);
            }
    }
}

/* --- the grouped 3x3 convolution, and the taps of one that is not grouped */

/* A column of three pixels, one above the other. */
#define COLUMN(name, at) \
    vec name##0 = load_reals(at), name##1 = load_reals((at) + row), name##2 = load_reals((at) + 2 * row)

INLINE vec three(const vec *tap, vec a, vec b, vec c) { return tap[0] * a + tap[3] * b + tap[6] * c; }

/* to[w] = or += the sum over 3x3 pixels of weight and x, for `narrow` channels; x: the pixel above and left of the first.
Each pixel is read once for the three that it takes part in. */
static void convolve_row(const real *x, int64_t x_pixel, int64_t width, const real *weight, int64_t narrow, real *to,
                         int64_t to_pixel, int add) {
    int64_t row = (width + 2) * x_pixel;
    for (int64_t c = 0; c < narrow; c += LANES) {
        vec tap[TAPS_3X3];
        for (int t = 0; t < TAPS_3X3; t++) tap[t] = load_reals(weight + t * narrow + c);
        const real *at = x + c;
        real *out = to + c;
        COLUMN(first, at);
        COLUMN(second, at + x_pixel);
        vec one = three(tap, first0, first1, first2) + three(tap + 1, second0, second1, second2);
        vec two = three(tap, second0, second1, second2);
        at += 2 * x_pixel;
        for (int64_t w = 0; w < width; w++, at += x_pixel, out += to_pixel) {
            COLUMN(next, at);
            vec sum = one + three(tap + 2, next0, next1, next2);
            one = two + three(tap + 1, next0, next1, next2), two = three(tap, next0, next1, next2);
            store_reals(out, add ? load_reals(out) + sum : sum);
        }
    }
}

/* What the 1x1 convolution, or the classic one as a matrix product, takes for a row of pixels: (width, depth). */
static void fill_row(const struct recursion *b, real *x, int64_t h, real *to) {
    if (!b->classic) {
        for (int64_t g = 0; g < b->group; g++)
            convolve_row(bordered_pixel(b, x, b->channels, h - 1, -1) + g * b->narrow, b->channels, b->width,
                         b->depthwise + g * TAPS_3X3 * b->narrow, b->narrow, to, b->narrow, g > 0);
        return;
    }
    for (int64_t w = 0; w < b->width; w++)
        for (int64_t t = 0; t < TAPS_3X3; t++, to += b->channels)
            memcpy(to, bordered_pixel(b, x, b->channels, h + t / 3 - 1, w + t % 3 - 1), b->channels * sizeof(real));
}

static void fill_rows(const struct recursion *b, const struct scratch *s, real *x, int64_t first, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) fill_row(b, x, first + r, s->taps + r * b->width * depth(b));
    int64_t pixels = rows * b->width;  /* a last odd pixel makes an item with zeros */
    if (pixels % DEPTH) memset(s->taps + pixels * depth(b), 0, depth(b) * sizeof(real));
}

static int64_t full(int64_t pixels) { return (pixels + ROWS - 1) / ROWS * ROWS; }
