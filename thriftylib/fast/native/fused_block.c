/* A stage on a CPU: convolution, batch norm, ReLU and 2x2 max-pool, forward and backward; see stages.py.

A block's work depends on nothing but its images, and what blocks add up to is added in their order: the results are the
same on any number of threads. The functions that say so take blocks until none is left, and return -1 without memory;
the others are called once, between them. */

#include <math.h>

#include "convolution.h"

/* The same fields in the same order as in stages.py. */
struct stage {
    int64_t images, inputs, height, width, outputs, kernel_height, kernel_width, pad_height, pad_width;
    int64_t next; /* the block to be taken next */
    double momentum, eps;
    struct tensor x, gradient;                 /* gradient: of out */
    const real *weight, *bias, *gamma, *beta;  /* weight (outputs, inputs, ...); bias: NULL where there is none */
    real *running_mean, *running_var;          /* (outputs) */
    real *map, *pooled;                        /* blocks of the convolution's output; map NULL: it is not kept */
    double *sums;                              /* (blocks, outputs, 2) */
    double *sign;                              /* (outputs): of gamma */
    double *mean, *invstd;                     /* (outputs): of the map */
    double *scale, *shift;                     /* (outputs): from the pooled map to batch norm's output */
    double *of_map, *constant;                 /* (outputs): what the statistics send to each pixel of the map */
    real *turned;                              /* (outputs, inputs, ...): weight with the signs of gamma */
    real *out;                                 /* (outputs, height, width, images) */
    real *of_gamma, *of_beta;                  /* gradients */
    real *of_weight;                           /* (blocks, outputs, inputs, ...) */
    real *of_x;                                /* (inputs, height, width, images); NULL: not wanted */
};

static struct size x_size(const struct stage *s) { return (struct size){s->height, s->width, s->inputs}; }

static struct size input_size(const struct stage *s) { return bordered(x_size(s), s->pad_height, s->pad_width); }

static struct size map_size(const struct stage *s) {
    struct size input = input_size(s);
    return (struct size){input.height - s->kernel_height + 1, input.width - s->kernel_width + 1, s->outputs};
}

static struct size pooled_size(const struct stage *s) {
    struct size map = map_size(s);
    return (struct size){map.height / 2, map.width / 2, map.channels};
}

/* The next block that no thread has taken; negative: all are taken. */
static int64_t take(struct stage *s) {
    int64_t block = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
    return block * LANES < s->images ? block : -1;
}

static int64_t images_of(const struct stage *s, int64_t block) {
    int64_t left = s->images - block * LANES;
    return left < LANES ? left : LANES;
}

static void load_x(const struct stage *s, int64_t block, vec *to) {
    load(s->x, block, images_of(s, block), x_size(s), s->pad_height, s->pad_width, 1, to);
}

static void load_gradient(const struct stage *s, int64_t block, vec *to) {
    load(s->gradient, block, images_of(s, block), pooled_size(s), 0, 0, GROUP, to);
}

INLINE vec *map_of(const struct stage *s, int64_t block) { return (vec *)s->map + block * vectors(map_size(s), GROUP); }

INLINE vec *pooled_of(const struct stage *s, int64_t block) {
    return (vec *)s->pooled + block * vectors(pooled_size(s), GROUP);
}

/* Once, before all others: with the sign of a negative gamma in the convolution, the largest value is the one that
survives the pool. */
int stage_turn(struct stage *s) {
    int64_t taps = s->inputs * s->kernel_height * s->kernel_width;
    for (int64_t o = 0; o < s->outputs; o++) {
        s->sign[o] = s->gamma[o] < 0 ? -1 : 1;
        for (int64_t i = o * taps; i < (o + 1) * taps; i++) s->turned[i] = s->weight[i] * (real)s->sign[o];
    }
    return 0;
}

static void pool(const vec *map, struct size size, vec *pooled) {
    int64_t row = size.width * GROUP;
    for (int64_t group = groups(size.channels, GROUP); group; group--, map += size.height * row)
        for (int64_t h = 0; h < size.height / 2; h++)
            for (int64_t w = 0; w < size.width / 2; w++) {
                const vec *at = map + 2 * h * row + 2 * w * GROUP;
                UNROLL for (int o = 0; o < GROUP; o++, at++)
                    *pooled++ = larger(larger(at[0], at[GROUP]), larger(at[row], at[row + GROUP]));
            }
}

/* Mean and sum of squared distances from it, of each channel over a block.

Sums in a lane are of distances from its first pixel, for squares of large numbers would eat the variance, and row by
row, for in a long sum rounding adds up. */
static void block_statistics(const vec *map, struct size size, int64_t images, double *sums) {
    int64_t pixels = size.height * size.width;
    for (int64_t first = 0; first < size.channels; first += GROUP) {
        const vec *origin = map + place(size, GROUP, first), *at = origin;
        vec sum[GROUP] = {0}, square[GROUP] = {0};
        for (int64_t h = 0; h < size.height; h++) {
            vec row_sum[GROUP] = {0}, row_square[GROUP] = {0};
            for (int64_t w = 0; w < size.width; w++, at += GROUP) {
                UNROLL for (int o = 0; o < GROUP; o++) {
                    vec apart = at[o] - origin[o];
                    row_sum[o] += apart, row_square[o] += apart * apart;
                }
            }
            for (int o = 0; o < GROUP; o++) sum[o] += row_sum[o], square[o] += row_square[o];
        }
        for (int o = 0; o < GROUP && first + o < size.channels; o++, sums += 2) {
            double mean = 0, around = 0, means[LANES];
            for (int64_t n = 0; n < images; n++) {
                double apart = (double)sum[o][n] / pixels;
                means[n] = origin[o][n] + apart, mean += means[n] / images, around += square[o][n] - apart * sum[o][n];
            }
            for (int64_t n = 0; n < images; n++) around += pixels * (means[n] - mean) * (means[n] - mean);
            sums[0] = mean, sums[1] = around;
        }
    }
}

/* Takes blocks: convolution and pool. The map is kept, and its statistics taken, where s->map is. */
int stage_forward(struct stage *s) {
    struct size input = input_size(s), size = map_size(s);
    struct kernel k;
    int failed = forward_kernel(&k, s->turned, s->outputs, s->kernel_height, s->kernel_width, input, s->pad_height);
    vec *x = allocate(vectors(input, 1)), *own = s->map ? NULL : allocate(vectors(size, GROUP));
    failed |= !x || (!s->map && !own);
    for (int64_t block; !failed && (block = take(s)) >= 0;) {
        vec *map = own ? own : map_of(s, block);
        load_x(s, block, x);
        convolve(x, input.width, &k, size, map);
        pool(map, size, pooled_of(s, block));
        if (s->map) block_statistics(map, size, images_of(s, block), s->sums + block * 2 * s->outputs);
    }
    free(x), free(own), free_kernel(&k);
    return failed ? -1 : 0;
}

/* Once: batch norm's statistics, those of the batch where the map is kept and else the running ones. */
int stage_statistics(struct stage *s) {
    struct size size = map_size(s);
    double pixels = size.height * size.width, all = pixels * s->images;
    for (int64_t o = 0; o < s->outputs; o++) {
        double bias = s->bias ? s->bias[o] : 0;
        if (s->map) {
            double mean = 0, square = 0;
            for (int64_t block = 0; block * LANES < s->images; block++)
                mean += s->sums[2 * (block * s->outputs + o)] * images_of(s, block) / s->images;
            for (int64_t block = 0; block * LANES < s->images; block++) {
                const double *sums = s->sums + 2 * (block * s->outputs + o);
                square += sums[1] + pixels * images_of(s, block) * (sums[0] - mean) * (sums[0] - mean);
            }
            s->mean[o] = mean, s->invstd[o] = 1 / sqrt(square / all + s->eps);
            s->running_mean[o] += s->momentum * (mean * s->sign[o] + bias - s->running_mean[o]);
            s->running_var[o] += s->momentum * (square / (all - 1) - s->running_var[o]);
        } else
            s->mean[o] = (s->running_mean[o] - bias) * s->sign[o], s->invstd[o] = 1 / sqrt(s->running_var[o] + s->eps);
        s->scale[o] = s->gamma[o] * s->sign[o] * s->invstd[o];
        s->shift[o] = s->beta[o] - s->mean[o] * s->scale[o];
    }
    return 0;
}

/* The numbers of a group of channels; zeros beyond the last. */
INLINE void read_group(const double *numbers, int64_t first, int64_t channels, real to[GROUP]) {
    for (int o = 0; o < GROUP; o++) to[o] = first + o < channels ? (real)numbers[first + o] : 0;
}

/* Takes blocks: the rest of batch norm, and ReLU. */
int stage_normalise(struct stage *s) {
    struct size size = pooled_size(s);
    int64_t pixels = size.height * size.width;
    vec *out = allocate(vectors(size, GROUP));
    for (int64_t block; out && (block = take(s)) >= 0;) {
        const vec *pooled = pooled_of(s, block);
        vec *to = out;
        for (int64_t first = 0; first < size.channels; first += GROUP) {
            real scale[GROUP], shift[GROUP];
            read_group(s->scale, first, size.channels, scale), read_group(s->shift, first, size.channels, shift);
            for (int64_t p = 0; p < pixels; p++)
                UNROLL for (int o = 0; o < GROUP; o++) *to++ = larger(*pooled++ * scale[o] + shift[o], (vec){0});
        }
        store(out, size, block, images_of(s, block), s->out, s->images);
    }
    free(out);
    return out ? 0 : -1;
}

/* The gradient where ReLU let something through. */
INLINE vec passed(vec gradient, vec pooled, real scale, real shift) {
    return where(pooled * scale + shift > 0, gradient);
}

/* Takes blocks: sums of the gradient behind ReLU, and of its product with the pooled map's distance from the mean. */
int stage_reduce(struct stage *s) {
    struct size size = pooled_size(s);
    vec *gradient = allocate(vectors(size, GROUP));
    for (int64_t block; gradient && (block = take(s)) >= 0;) {
        load_gradient(s, block, gradient);
        const vec *pooled = pooled_of(s, block), *from = gradient;
        for (int64_t first = 0; first < size.channels; first += GROUP) {
            real scale[GROUP], shift[GROUP], mean[GROUP];
            read_group(s->scale, first, size.channels, scale), read_group(s->shift, first, size.channels, shift);
            read_group(s->mean, first, size.channels, mean);
            vec sum[GROUP] = {0}, product[GROUP] = {0};
            for (int64_t h = 0; h < size.height; h++) {
                vec row_sum[GROUP] = {0}, row_product[GROUP] = {0};
                for (int64_t w = 0; w < size.width; w++)
                    UNROLL for (int o = 0; o < GROUP; o++, pooled++) {
                        vec g = passed(*from++, *pooled, scale[o], shift[o]);
                        row_sum[o] += g, row_product[o] += g * (*pooled - mean[o]);
                    }
                for (int o = 0; o < GROUP; o++) sum[o] += row_sum[o], product[o] += row_product[o];
            }
            for (int o = 0; o < GROUP && first + o < size.channels; o++) {
                double *sums = s->sums + 2 * (block * size.channels + first + o);
                sums[0] = sums[1] = 0;
                for (int n = 0; n < LANES; n++) sums[0] += sum[o][n], sums[1] += product[o][n];
            }
        }
    }
    free(gradient);
    return gradient ? 0 : -1;
}

/* Once: the gradients of gamma and beta. What the statistics send back, -scale (mean(g) + normalised mean(g
normalised)), is a linear function of the map. */
int stage_of_norm(struct stage *s) {
    struct size size = map_size(s);
    double all = size.height * size.width * s->images;
    for (int64_t o = 0; o < s->outputs; o++) {
        double of_beta = 0, product = 0;
        for (int64_t block = 0; block * LANES < s->images; block++) {
            const double *sums = s->sums + 2 * (block * s->outputs + o);
            of_beta += sums[0], product += sums[1];
        }
        double of_gamma = product * s->invstd[o];
        s->of_map[o] = -s->scale[o] * s->invstd[o] * of_gamma / all;
        s->constant[o] = -s->scale[o] * of_beta / all - s->of_map[o] * s->mean[o];
        s->of_beta[o] = of_beta, s->of_gamma[o] = of_gamma * s->sign[o];
    }
    return 0;
}

/* The gradient of the map: what the statistics send to each pixel, and what the pool sends to the first of its largest.
to: the first pixel, behind the border, of the map of size whole that receives it. */
static void map_gradient(const struct stage *s, const vec *map, const vec *pooled, const vec *gradient, vec *to,
                         struct size whole) {
    struct size size = map_size(s), small = pooled_size(s);
    int64_t row = size.width * GROUP, to_row = whole.width * GROUP;
    for (int64_t first = 0; first < size.channels; first += GROUP) {
        real of_map[GROUP], constant[GROUP], scale[GROUP], shift[GROUP];
        read_group(s->of_map, first, size.channels, of_map), read_group(s->constant, first, size.channels, constant);
        read_group(s->scale, first, size.channels, scale), read_group(s->shift, first, size.channels, shift);
        vec *at = to + place(whole, GROUP, first);
        for (int64_t h = 0; h < size.height; h++, map += row, at += to_row) {
            for (int64_t w = 0; w < size.width; w++)
                UNROLL for (int o = 0; o < GROUP; o++)
                    at[w * GROUP + o] = map[w * GROUP + o] * of_map[o] + constant[o];
            if (h % 2 == 0) continue; /* a pair of rows is complete */
            for (int64_t w = 0; w < small.width; w++)
                UNROLL for (int o = 0; o < GROUP; o++, pooled++) {
                    vec left = passed(*gradient++, *pooled, scale[o], shift[o]) * scale[o];
                    UNROLL for (int one = 0; one < 4; one++) {
                        int64_t column = (2 * w + one % 2) * GROUP + o;
                        mask here = map[column - (one < 2) * row] == *pooled;
                        at[column - (one < 2) * to_row] += where(here, left);
                        left = where(~here, left);
                    }
                }
        }
    }
}

/* Takes blocks: the gradients of the weights and, if wanted, of x. */
int stage_backward(struct stage *s) {
    struct size input = input_size(s), map = map_size(s), small = pooled_size(s), whole = map;
    int64_t first_pixel = 0;
    struct kernel k, back = {0};
    int failed = forward_kernel(&k, s->turned, s->outputs, s->kernel_height, s->kernel_width, input, s->pad_height);
    if (s->of_x) {
        int64_t height = s->kernel_height - 1 - s->pad_height, width = s->kernel_width - 1 - s->pad_width;
        whole = bordered(map, height, width), first_pixel = (height * whole.width + width) * GROUP;
        failed |= backward_kernel(&back, s->turned, s->inputs, s->kernel_height, s->kernel_width, whole, height);
    }
    vec *x = allocate(vectors(input, 1)), *of_x = s->of_x ? allocate(vectors(x_size(s), GROUP)) : NULL;
    vec *g = allocate(vectors(whole, GROUP)), *of_out = allocate(vectors(small, GROUP));
    int64_t taps = taps_of(&k);
    vec *kept = allocate((taps + TAPS) * GROUP);
    failed |= !x || !g || !of_out || !kept || (s->of_x && !of_x);
    if (!failed) memset(g, 0, vectors(whole, GROUP) * sizeof(vec));
    for (int64_t block; !failed && (block = take(s)) >= 0;) {
        load_x(s, block, x);
        load_gradient(s, block, of_out);
        map_gradient(s, map_of(s, block), pooled_of(s, block), of_out, g + first_pixel, whole);
        real *of_weight = s->of_weight + block * s->outputs * taps;
        int64_t plane = place(whole, GROUP, GROUP);
        weight_gradient(x, input.width, g + first_pixel, whole.width, plane, map, &k, kept, of_weight);
        if (!s->of_x) continue;
        convolve(g, whole.width, &back, x_size(s), of_x);
        store(of_x, x_size(s), block, images_of(s, block), s->of_x, s->images);
    }
    free(x), free(g), free(of_out), free(kept), free(of_x), free_kernel(&k), free_kernel(&back);
    return failed ? -1 : 0;
}

/* Once: the blocks' gradients of the weights are added to the first's, and turned back. */
int stage_sum(struct stage *s) {
    int64_t taps = s->inputs * s->kernel_height * s->kernel_width, count = s->outputs * taps;
    for (int64_t block = 1; block * LANES < s->images; block++)
        for (int64_t i = 0; i < count; i++) s->of_weight[i] += s->of_weight[block * count + i];
    for (int64_t o = 0; o < s->outputs; o++)
        for (int64_t i = o * taps; i < (o + 1) * taps; i++) s->of_weight[i] *= (real)s->sign[o];
    return 0;
}

int stage_bytes(void) { return sizeof(struct stage); }
int stage_lanes(void) { return LANES; }
int stage_group(void) { return GROUP; }
