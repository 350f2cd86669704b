/* One iteration of ThriftyNet's recursion on a CPU, forward and backward; see recursion_kernel.py.

A map is (images, height, width, channels) numbers. Its channels stand in the order that a grouped convolution reads:
channel c of a network, of which each group has `group`, is at c % group * narrow + c / group, and zeros fill up the
others. A state's map is what was there before batch norm; who reads it scales and shifts it.

An image goes through an iteration in chunks of rows that stay in a core's cache. A tile is a fixed share of the batch,
and sums over tiles are added in their order: the results are the same on any number of threads. The functions that say
so take tiles until none is left, and return -1 without memory; the others are called once, between them. */

#include <math.h>
#if defined __linux__
#include <sys/mman.h>
#endif

#include "products.h"

enum { CHUNK = 64, STRIP = 8, TAPS_3X3 = 9, PARTS = 5 }; /* pixels of a chunk, and of what is done at once for some channels */
enum activation { TANH, RELU, LEAKY };

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

/* Once a batch, for each set of kernels: what products and the grouped convolution read. */
int recursion_pack(struct recursion *b) {
    int64_t deep = depth(b), inner = b->filters / b->group;
    num *kernel = (num *)b->kernel, *back = (num *)b->back;
    memset(kernel, 0, deep * b->channels * sizeof(num)), memset(back, 0, deep * b->channels * sizeof(num));
    for (int64_t o = 0; o < b->filters; o++)
        for (int64_t i = 0; i < inner; i++)
            for (int64_t t = 0; b->classic && t < TAPS_3X3; t++) {
                num w = narrowed(b->weight[(o * inner + i) * TAPS_3X3 + t]);
                kernel[packed_place(deep, b->channels, t * b->channels + i, o)] = w;
                back[packed_place(deep, b->channels, (TAPS_3X3 - 1 - t) * b->channels + o, i)] = w;
            }
    for (int64_t o = 0; !b->classic && o < b->filters; o++)
        for (int64_t i = 0; i < inner; i++) {
            num w = narrowed(b->weight[o * inner + i]);
            kernel[packed_place(deep, b->channels, i, place_of(b, o))] = w;
            back[packed_place(b->channels, deep, place_of(b, o), i)] = w;
        }
    if (b->classic) return 0;
    memset(b->depthwise, 0, b->channels * TAPS_3X3 * sizeof(real));
    for (int64_t c = 0; c < b->filters; c++)
        for (int64_t t = 0; t < TAPS_3X3; t++)
            b->depthwise[(c % b->group * TAPS_3X3 + t) * b->narrow + c / b->group] = b->grouped[c * TAPS_3X3 + t];
    return 0;
}

/* Once a batch, for each set of kernels: their gradients as PyTorch has them. */
int recursion_unpack(struct recursion *b) {
    int64_t deep = depth(b), inner = b->filters / b->group;
    real *weight = b->grad_weight, *grouped = b->grad_grouped;
    for (int64_t o = 0; o < b->filters; o++)
        for (int64_t i = 0; i < inner; i++)
            for (int64_t t = 0; t < (b->classic ? TAPS_3X3 : 1); t++)
                *weight++ = b->sum_kernel[place_of(b, o) * deep + t * b->channels + i];
    for (int64_t c = 0; !b->classic && c < b->filters; c++)
        for (int64_t t = 0; t < TAPS_3X3; t++)
            *grouped++ = b->sum_depthwise[(c % b->group * TAPS_3X3 + t) * b->narrow + c / b->group];
    return 0;
}

/* --- activations, and their derivatives from their results */

INLINE vec choose(mask first, vec a, vec b) { return (vec)((first & (mask)a) | (~first & (mask)b)); }

#if defined __AVX512F__
typedef float floats __attribute__((vector_size(64)));
INLINE vec reciprocal(vec x) {
    if (sizeof(real) != 4) return spread(1) / x;
    vec guess = (vec)__builtin_ia32_rcp14ps512_mask((floats)x, (floats){0}, -1);
    return guess + guess * (spread(1) - x * guess);
}
/* x, or the limit where it is beyond; NaN stays. */
INLINE vec within(real limit, vec x) {
    if (sizeof(real) != 4) return choose(x > spread(limit), spread(limit), choose(x < spread(-limit), spread(-limit), x));
    x = (vec)__builtin_ia32_minps512_mask((floats)spread(limit), (floats)x, (floats){0}, -1, 4);
    return (vec)__builtin_ia32_maxps512_mask((floats)spread(-limit), (floats)x, (floats){0}, -1, 4);
}
#else
INLINE vec reciprocal(vec x) { return spread(1) / x; }
INLINE vec within(real limit, vec x) { return choose(x > spread(limit), spread(limit), choose(x < spread(-limit), spread(-limit), x)); }
#endif

/* tanh(x) to 4 units in the last place, of tiny x too: x times a rational function of its square, whose coefficients are
the minimax ones on [-9.01, 9.01] (2.2e-8, by Lawson's iteration). */
INLINE vec vtanh(vec x) {
    if (sizeof(real) == 8) {
        UNROLL for (int i = 0; i < LANES; i++) x[i] = tanh(x[i]);
        return x;
    }
    x = within(9.01, x);
    vec z = x * x;
    vec p = ((spread(1.3402091e-8) * z + spread(2.0648577e-5)) * z + spread(3.4982292e-3)) * z + spread(0.13383336);
    vec q = ((spread(7.7975062e-7) * z + spread(3.2897815e-4)) * z + spread(0.025887294)) * z + spread(0.46716657);
    return within(1, x * (p * z + spread(1)) * reciprocal(q * z + spread(1)));
}

INLINE vec activate(const int64_t kind, real slope, vec x) {
    if (kind == TANH) return vtanh(x);
    return kind == RELU ? vmax(x, (vec){0}) : choose(x > 0, x, x * slope);
}

INLINE vec derivative(const int64_t kind, real slope, vec y) {
    return kind == TANH ? spread(1) - y * y : choose(y > 0, spread(1), spread(kind == RELU ? 0 : slope));
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

/* --- forward */

/* The first row: what the states' shifts add; then each state's coefficient times its scale. */
static void fill_coefficients(const struct recursion *b, real *to) {
    memset(to, 0, b->channels * sizeof(real));
    for (int64_t i = 0; i < b->count; i++)
        for (int64_t c = 0; c < b->channels; c++) {
            const struct part *part = b->parts + i;
            to[(i + 1) * b->channels + c] = *part->coefficient * (part->scale ? part->scale[c] : 1);
            if (part->scale) to[c] += *part->coefficient * part->shift[c];
        }
}

/* What follows the convolution, of a chunk: the activation where this `opens`, some states, and where it `closes` the
result and sums of its distances from the tile's first pixel and of their squares (squares of large numbers would eat
the variance). */
INLINE void mix(const int count, const int opens, const int closes, const struct recursion *b, const struct scratch *s,
                int64_t first, int64_t place, int64_t pixels) {
    int64_t channels = b->channels, kind = b->activation;
    const num *states[PARTS];
    for (int i = 0; i < count; i++) states[i] = b->parts[first + i].map + place;
    num *kept = b->activated ? b->activated + place : NULL, *result = b->result + place;
    real own = *b->own, slope = (real)b->slope;
    for (int64_t p = 0; p < pixels; p += STRIP)
        for (int64_t c = 0; c < channels; c += LANES) {
            vec by[PARTS], constant = load_reals(s->coefficients + c), origin = load_reals(s->origin + c);
            UNROLL for (int i = 0; i < count; i++) by[i] = load_reals(s->coefficients + (first + i + 1) * channels + c);
            vec sum = load_reals(s->sums + c), square = load_reals(s->sums + channels + c);
            for (int64_t q = p * channels + c; q < min(p + STRIP, pixels) * channels; q += channels) {
                vec v = load_reals(s->map + q);
                if (opens) {
                    v = activate(kind, slope, v);
                    if (kept) write_away(kept + q, v);
                    v = own * v + constant;
                }
                UNROLL for (int i = 0; i < count; i++) v += by[i] * read(states[i] + q);
                if (!closes) {
                    store_reals(s->map + q, v);
                    continue;
                }
                write(result + q, v);
                vec diff = v - origin;
                sum += diff, square += diff * diff;
            }
            if (closes) store_reals(s->sums + c, sum), store_reals(s->sums + channels + c, square);
        }
}

static void mix_all(const struct recursion *b, const struct scratch *s, int64_t place, int64_t pixels) {
    int64_t first = 0, left = b->count;
    if (left > PARTS) {
        mix(PARTS, 1, 0, b, s, 0, place, pixels);
        for (first = PARTS; (left = b->count - first) > PARTS; first += PARTS) mix(PARTS, 0, 0, b, s, first, place, pixels);
        for (; left > 1; first++, left--) mix(1, 0, 0, b, s, first, place, pixels);
        mix(1, 0, 1, b, s, first, place, pixels);
    }
    else if (left == 5) mix(5, 1, 1, b, s, 0, place, pixels);
    else if (left == 4) mix(4, 1, 1, b, s, 0, place, pixels);
    else if (left == 3) mix(3, 1, 1, b, s, 0, place, pixels);
    else if (left == 2) mix(2, 1, 1, b, s, 0, place, pixels);
    else mix(1, 1, 1, b, s, 0, place, pixels);
}

/* What the first pixel of a chunk becomes. */
static void first_origin(const struct recursion *b, const struct scratch *s, int64_t place) {
    for (int64_t c = 0; c < b->channels; c += LANES) {
        vec v = *b->own * activate(b->activation, (real)b->slope, load_reals(s->map + c)) + load_reals(s->coefficients + c);
        for (int64_t i = 0; i < b->count; i++)
            v += load_reals(s->coefficients + (i + 1) * b->channels + c) * read(b->parts[i].map + place + c);
        store_reals(s->origin + c, v);
    }
}

static void forward_image(const struct recursion *b, const struct scratch *s, int64_t image, int is_first, double *sums) {
    int64_t channels = b->channels, ready = 0;
    for (int64_t h = 0, rows; h < b->height; h += rows) {
        rows = min(s->rows, b->height - h);
        int64_t pixels = rows * b->width, place = map_place(b, image, h), last = min(b->height, h + rows + 1);
        read_rows(b, image, ready, last, s->x), ready = last;
        fill_rows(b, s, s->x, h, rows);
        const item *taps = (const item *)as_numbers(s->taps, pixels * depth(b), s->numbers);
        struct fetch fetch = {.bytes = pixels * channels * sizeof(num)};
        for (int64_t i = 0; i < b->count - 1; i++) to_fetch(&fetch, b->parts[i].map + place);
        to_fetch(&fetch, b->map + map_place(b, image, ready));
        multiply(taps, depth(b) / DEPTH, 1, b->kernel, 1, depth(b) / DEPTH, full(pixels), channels, s->map, 0, &fetch);
        if (is_first && !h) first_origin(b, s, place);
        memset(s->sums, 0, 2 * channels * sizeof(real));
        mix_all(b, s, place, pixels);
        for (int64_t c = 0; sums && c < channels; c++) sums[2 * c] += s->sums[c], sums[2 * c + 1] += s->sums[channels + c];
    }
}

/* Takes tiles: the result and, where b->sums is, each channel's mean over a tile and squared distances from it. */
int recursion_forward(struct recursion *b) {
    struct scratch s = begin(b);
    if (!s.failed) fill_coefficients(b, s.coefficients);
    for (int64_t tile; !s.failed && (tile = take(b)) >= 0;) {
        int64_t from = first_image(b, tile), to = first_image(b, tile + 1), pixels = (to - from) * b->height * b->width;
        double *sums = b->sums ? b->sums + tile * 2 * b->channels : NULL;
        if (sums) memset(sums, 0, 2 * b->channels * sizeof *sums);
        for (int64_t image = from; image < to; image++) forward_image(b, &s, image, image == from, sums);
        for (int64_t c = 0; sums && c < b->channels; c++) {
            double mean = sums[2 * c] / pixels;
            sums[2 * c + 1] -= mean * sums[2 * c], sums[2 * c] = s.origin[c] + mean;
        }
    }
    return end(&s);
}

/* Once: batch norm of the result, by the batch's statistics where b->sums is and else by the running ones. */
int recursion_statistics(struct recursion *b) {
    double pixels = b->height * b->width, all = pixels * b->images;
    for (int64_t c = 0; c < b->filters; c++) {
        int64_t at = place_of(b, c);
        double mean = b->running_mean[c], var = b->running_var[c];
        if (b->sums) {
            double square = mean = 0;
            for (int64_t tile = 0; tile < b->tiles; tile++)
                mean += b->sums[2 * (tile * b->channels + at)] * (first_image(b, tile + 1) - first_image(b, tile)) / b->images;
            for (int64_t tile = 0; tile < b->tiles; tile++) {
                const double *sums = b->sums + 2 * (tile * b->channels + at);
                square += sums[1] + pixels * (first_image(b, tile + 1) - first_image(b, tile)) * (sums[0] - mean) * (sums[0] - mean);
            }
            var = square / all;
            b->running_mean[c] += b->momentum * (mean - b->running_mean[c]);
            b->running_var[c] += b->momentum * (square / (all - 1) - b->running_var[c]);
        }
        b->invstd[c] = 1 / sqrt(var + b->eps);
        double scale = b->gamma ? b->gamma[c] * b->invstd[c] : b->invstd[c];
        b->result_mean[at] = mean, b->result_scale[at] = scale;
        b->result_shift[at] = (b->beta ? b->beta[c] : 0) - mean * scale;
    }
    return 0;
}

/* Takes tiles: 2x2 max-pool of x_t. */
int recursion_pool(struct recursion *b) {
    int64_t channels = b->channels, height = b->height / 2, width = b->width / 2, row = b->width * channels;
    for (int64_t tile; (tile = take(b)) >= 0;)
        for (int64_t image = first_image(b, tile); image < first_image(b, tile + 1); image++)
            for (int64_t h = 0; h < height; h++)
                for (int64_t w = 0; w < width; w++) {
                    const num *from = b->map + map_place(b, image, 2 * h) + 2 * w * channels;
                    num *to = b->pooled + ((image * height + h) * width + w) * channels;
                    for (int64_t c = 0; c < channels; c += LANES) {
                        vec four[4];
                        for (int i = 0; i < 4; i++) {
                            four[i] = read(from + (i / 2) * row + (i % 2) * channels + c);
                            if (b->scale) four[i] = four[i] * load_reals(b->scale + c) + load_reals(b->shift + c);
                        }
                        write(to + c, vmax(vmax(four[0], four[1]), vmax(four[2], four[3])));
                    }
                }
    return 0;
}

/* --- backward */

/* What a pool sends to the first of its largest, of a row. */
static void unpool_row(const struct recursion *b, real *x, int64_t image, int64_t h, real *grad) {
    int64_t channels = b->channels, width = b->width / 2;
    if (h / 2 >= b->height / 2) return;
    const num *from = b->pooled + ((image * (b->height / 2) + h / 2) * width) * channels;
    for (int64_t w = 0; w < 2 * width; w++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t own = h % 2 * 2 + w % 2;
            vec value = load_reals(bordered_pixel(b, x, channels, h, w) + c);
            mask is_max = value == value;
            for (int64_t i = 0; i < 4; i++) {
                vec other = load_reals(bordered_pixel(b, x, channels, h / 2 * 2 + i / 2, w / 2 * 2 + i % 2) + c);
                if (i != own) is_max &= i < own ? value > other : value >= other;
            }
            real *to = grad + w * channels + c;
            store_reals(to, load_reals(to) + where(is_max, read(from + w / 2 * channels + c)));
        }
}

/* grad += coefficients times later gradients, of a row; dots[i] += the sum of x times the i-th. Where this `closes`, the
gradient is complete: it is stored, and added to batch norm's sums, of it and of its product with the map's distance
from the mean. */
INLINE void add_parts(const int count, const int closes, const struct recursion *b, const struct scratch *s, int64_t first,
                      int64_t place, const real *x, real *grad, double *dots) {
    int64_t channels = b->channels, width = b->width * channels;
    const num *maps[PARTS], *map = b->map + place;
    num *gradient = b->gradient + place;
    real by[PARTS];
    for (int i = 0; i < count; i++) maps[i] = b->parts[first + i].map + place, by[i] = *b->parts[first + i].coefficient;
    vec dot[PARTS] = {0};
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sum = load_reals(s->sums + c), product = load_reals(s->sums + channels + c);
        vec mean = closes && b->mean ? load_reals(b->mean + c) : (vec){0};
        for (int64_t q = c; q < width; q += channels) {
            vec g = load_reals(grad + q), value = load_reals(x + q);
            UNROLL for (int i = 0; i < count; i++) {
                vec part = read(maps[i] + q);
                g += by[i] * part, dot[i] += value * part;
            }
            if (!closes) {
                store_reals(grad + q, g);
                continue;
            }
            write(gradient + q, g);
            sum += g, product += g * (read(map + q) - mean);
        }
        if (closes) store_reals(s->sums + c, sum), store_reals(s->sums + channels + c, product);
    }
    for (int i = 0; i < count; i++)
        for (int lane = 0; lane < LANES; lane++) dots[first + i] += dot[i][lane];
}

/* Completes the gradient of some rows of x_t; without one to store, its products with later gradients alone. */
static void finish_rows(const struct recursion *b, const struct scratch *s, real *x, int64_t image, int64_t first,
                        int64_t rows, double *sums, double *dots) {
    int64_t channels = b->channels;
    memset(s->sums, 0, 2 * channels * sizeof(real));
    for (int64_t h = first; h < first + rows; h++) {
        int64_t place = map_place(b, image, h), part = 0, left = b->count;
        real *grad = s->grad + (h - first) * b->width * channels, *values = bordered_pixel(b, x, channels, h, 0);
        if (b->pooled && b->gradient) unpool_row(b, x, image, h, grad);
        for (; left > PARTS || (left && !b->gradient); part++, left--)
            add_parts(1, 0, b, s, part, place, values, grad, dots);
        if (!b->gradient) continue;
        if (left == 5) add_parts(5, 1, b, s, part, place, values, grad, dots);
        if (left == 4) add_parts(4, 1, b, s, part, place, values, grad, dots);
        if (left == 3) add_parts(3, 1, b, s, part, place, values, grad, dots);
        if (left == 2) add_parts(2, 1, b, s, part, place, values, grad, dots);
        if (left == 1) add_parts(1, 1, b, s, part, place, values, grad, dots);
        if (left == 0) add_parts(0, 1, b, s, part, place, values, grad, dots);
    }
    for (int64_t c = 0; b->mean && c < channels; c++) sums[2 * c] += s->sums[c], sums[2 * c + 1] += s->sums[channels + c];
}

/* The gradient of what an iteration has mixed, in the place of its result's; then of the convolution's output. */
INLINE void start_chunk(const int64_t kind, const struct recursion *b, const struct scratch *s, int64_t place,
                        int64_t pixels, double *own) {
    int64_t channels = b->channels;
    for (int64_t p = 0; p < pixels; p += STRIP) {
        vec dot = {0};
        for (int64_t c = 0; c < channels; c += LANES) {
            vec factor = {0}, by = {0}, constant = {0};
            if (b->factor)
                factor = load_reals(b->factor + c), by = load_reals(b->result_factor + c), constant = load_reals(b->constant + c);
            for (int64_t q = p; q < min(p + STRIP, pixels); q++) {
                int64_t at = q * channels + c;
                vec g = read(b->result_gradient + place + at), y = read(b->activated + place + at);
                if (b->factor) {

                    g = g * factor + (read(b->result + place + at) * by + constant);
                    write(b->result_gradient + place + at, g);
                }
                dot += g * y;
                store_reals(s->map + at, g * *b->own * derivative(kind, (real)b->slope, y));
            }
        }
        for (int lane = 0; lane < LANES; lane++) *own += dot[lane];
    }
}

/* The gradient of the grouped 3x3 kernel from a row: of its output's gradient and x. */
static void depthwise_gradient(const struct recursion *b, real *x, real *inner, int64_t h, real *to) {
    int64_t narrow = b->narrow, row = (b->width + 2) * b->channels;
    for (int64_t g = 0; g < b->group; g++, to += TAPS_3X3 * narrow)
        for (int64_t c = 0; c < narrow; c += LANES) {
            const real *at = bordered_pixel(b, x, b->channels, h - 1, -1) + g * narrow + c;
            const real *grad = bordered_pixel(b, inner, narrow, h, 0) + c;
            vec sums[TAPS_3X3], before = {0}, last = load_reals(grad); /* gradients of the pixels left of a column */
            UNROLL for (int t = 0; t < TAPS_3X3; t++) sums[t] = load_reals(to + t * narrow + c);
            for (int64_t w = 0; w < b->width + 2; w++, at += b->channels) {
                COLUMN(pixel, at);
                vec here = w < b->width ? load_reals(grad + w * narrow) : (vec){0};
                last = w ? last : (vec){0};
                sums[0] += here * pixel0, sums[3] += here * pixel1, sums[6] += here * pixel2;
                sums[1] += last * pixel0, sums[4] += last * pixel1, sums[7] += last * pixel2;
                sums[2] += before * pixel0, sums[5] += before * pixel1, sums[8] += before * pixel2;
                before = last, last = here;
            }
            UNROLL for (int t = 0; t < TAPS_3X3; t++) store_reals(to + t * narrow + c, sums[t]);
        }
}

/* Through the convolution to x_t: (rows, width, channels) in s->grad, from the gradient inside the border. */
static void input_gradient(const struct recursion *b, const struct scratch *s, int64_t first, int64_t rows,
                           const real *turned) {
    int64_t channels = b->channels;
    if (b->classic) {
        fill_rows(b, s, s->inner, first, rows);
        const item *taps = (const item *)as_numbers(s->taps, rows * b->width * depth(b), s->numbers);
        int64_t deep = depth(b) / DEPTH;
        struct fetch none = {0};
        multiply(taps, deep, 1, b->back, 1, deep, full(rows * b->width), channels, s->grad, 0, &none);
        return;
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < b->group; g++)
            convolve_row(bordered_pixel(b, s->inner, b->narrow, first + r - 1, -1), b->narrow, b->width,
                         turned + g * TAPS_3X3 * b->narrow, b->narrow, s->grad + r * b->width * channels + g * b->narrow,
                         channels, 0);
}

static void backward_image(const struct recursion *b, const struct scratch *s, int64_t image, const real *turned,
                           real *grad_kernel, real *grad_depthwise, double *sums, double *dots) {
    int64_t channels = b->channels, deep = depth(b), inner = b->classic ? channels : b->narrow, ready = 0, done = 0;
    for (int64_t h = 0, rows; h < b->height; h += rows) {
        rows = min(s->rows, b->height - h);
        int64_t pixels = rows * b->width, last = min(b->height, h + rows + 1), place = map_place(b, image, h);
        read_rows(b, image, ready, last, s->x), ready = last;
        int64_t stop = h + rows == b->height ? b->height : h + rows - 1;
        if (b->result_gradient) {
            if (b->activation == TANH) start_chunk(TANH, b, s, place, pixels, dots + b->count);
            if (b->activation == RELU) start_chunk(RELU, b, s, place, pixels, dots + b->count);
            if (b->activation == LEAKY) start_chunk(LEAKY, b, s, place, pixels, dots + b->count);
            if (pixels % DEPTH) memset(s->map + pixels * channels, 0, channels * sizeof(real));
            fill_rows(b, s, s->x, h, rows);
            int64_t items = (pixels + DEPTH - 1) / DEPTH;
            const item *map = as_items(s->map, items * DEPTH, channels, s->map_items);
            const item *taps = as_items(s->taps, items * DEPTH, deep, s->tap_items);
            struct fetch fetch = {.bytes = pixels * channels * sizeof(num)};
            for (int64_t i = 0; i < b->count; i++)
                if (b->parts[i].map != b->result_gradient) to_fetch(&fetch, b->parts[i].map + place);
            to_fetch(&fetch, b->result_gradient + place + pixels * channels);
            to_fetch(&fetch, b->activated + place + pixels * channels);
            to_fetch(&fetch, b->result + place + pixels * channels), to_fetch(&fetch, b->map + map_place(b, image, ready));
            multiply(map, 1, channels, taps, 0, items, channels, deep, grad_kernel, 1, &fetch);
            const item *numbers = b->classic ? NULL : (const item *)as_numbers(s->map, pixels * channels, s->numbers);
            int64_t step = channels / DEPTH, direct = !b->classic && b->width % ROWS == 0;
            if (!b->classic && !direct) multiply(numbers, step, 1, b->back, 1, step, full(pixels), inner, s->taps, 0, &fetch);
            for (int64_t r = 0; r < rows; r++) {
                real *to = bordered_pixel(b, s->inner, inner, h + r, 0), *from = b->classic ? s->map : s->taps;
                if (direct)
                    multiply(numbers + r * b->width * step, step, 1, b->back, 1, step, b->width, inner, to, 0, &fetch);
                else
                    memcpy(to, from + r * b->width * inner, b->width * inner * sizeof(real));
                if (!b->classic) depthwise_gradient(b, s->x, s->inner, h + r, grad_depthwise);
            }
            if (b->gradient) input_gradient(b, s, done, stop - done, turned);
        } else
            memset(s->grad, 0, (stop - done) * b->width * channels * sizeof(real));
        finish_rows(b, s, s->x, image, done, stop - done, sums, dots);
        done = stop;
    }
}

/* Takes tiles: the gradient of x_t from those of its readers, with its sums for batch norm, and of the iteration's
parameters. */
int recursion_backward(struct recursion *b) {
    struct scratch s = begin(b);
    int64_t kernel = b->channels * depth(b), depthwise = b->group * TAPS_3X3 * b->narrow;
    real *turned = room(&s, depthwise * sizeof(real));
    for (int64_t i = 0; b->depthwise && !s.failed && i < depthwise; i++) {
        int64_t g = i / (TAPS_3X3 * b->narrow), t = i / b->narrow % TAPS_3X3, c = i % b->narrow;
        turned[i] = b->depthwise[(g * TAPS_3X3 + TAPS_3X3 - 1 - t) * b->narrow + c];
    }
    for (int64_t tile; !s.failed && (tile = take(b)) >= 0;) {
        double *sums = b->sums + tile * 2 * b->channels, *dots = b->dots + tile * (b->count + 1);
        memset(sums, 0, 2 * b->channels * sizeof *sums), memset(dots, 0, (b->count + 1) * sizeof *dots);
        real *grad_kernel = b->grad_kernel + tile * kernel, *grad_depthwise = b->grad_depthwise + tile * depthwise;
        if (b->result_gradient) {
            memset(grad_kernel, 0, kernel * sizeof(real));
            if (!b->classic) memset(grad_depthwise, 0, depthwise * sizeof(real));
        }
        for (int64_t image = first_image(b, tile); image < first_image(b, tile + 1); image++)
            backward_image(b, &s, image, turned, grad_kernel, grad_depthwise, sums, dots);
    }
    return end(&s);
}

/* Once, after it: sums of tiles. The gradient of what x_t's batch norm was given, gamma / sigma (g - mean(g) -
normalised mean(g normalised)), is a linear function of g and of the map. */
int recursion_sum(struct recursion *b) {
    int64_t kernel = b->channels * depth(b), depthwise = b->group * TAPS_3X3 * b->narrow;
    double all = (double)b->images * b->height * b->width;
    for (int64_t tile = 0; tile < b->tiles; tile++) {
        const double *dots = b->dots + tile * (b->count + 1);
        for (int64_t i = 0; i < b->count; i++)
            if (b->parts[i].grad_coefficient) *b->parts[i].grad_coefficient += dots[i];
        if (!b->result_gradient) continue;
        if (b->grad_own) *b->grad_own += dots[b->count];
        for (int64_t i = 0; i < kernel; i++) b->sum_kernel[i] += b->grad_kernel[tile * kernel + i];
        for (int64_t i = 0; !b->classic && i < depthwise; i++) b->sum_depthwise[i] += b->grad_depthwise[tile * depthwise + i];
    }
    for (int64_t c = 0; b->mean && c < b->filters; c++) {
        int64_t at = place_of(b, c);
        double grad_beta = 0, product = 0, scale = b->scale[at];
        for (int64_t tile = 0; tile < b->tiles; tile++) {
            const double *sums = b->sums + 2 * (tile * b->channels + at);
            grad_beta += sums[0], product += sums[1];
        }
        double grad_gamma = product * b->invstd[c], by = -scale * b->invstd[c] * grad_gamma / all;
        b->made_factor[at] = scale, b->made_result_factor[at] = by;
        b->made_constant[at] = -scale * grad_beta / all - by * b->mean[at];
        if (b->grad_gamma) b->grad_gamma[c] += grad_gamma, b->grad_beta[c] += grad_beta;
    }
    return 0;
}

/* Asks for large pages in fresh memory, which whole maps are read from with fewer detours. */
void recursion_large_pages(char *memory, int64_t bytes) {
#if defined __linux__ && defined MADV_HUGEPAGE
    int64_t page = 4096, inset = (page - (intptr_t)memory % page) % page;
    if (bytes > inset) madvise(memory + inset, bytes - inset, MADV_HUGEPAGE);
#endif
}

int recursion_bytes(void) { return sizeof(struct recursion); }
int recursion_lanes(void) { return LANES; }
