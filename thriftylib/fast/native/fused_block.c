/* A fused conv-BN-ReLU-pool block on a CPU, forward and backward; see fused_kernel.py.

A tile is LANES images. Its work depends on nothing but its images, and sums over tiles are added in their order: the
results are the same on any number of threads. The functions that say so take tiles until none is left, and return -1
without memory; the others are called once, between them. */

#include <math.h>

#include "convolution.h"

/* The same fields in the same order as in fused_kernel.py. grad_*: the gradient of the loss with respect to it. */
struct fused_block {
    int64_t images, inputs, height, width, outputs, kernel_height, kernel_width, pad_height, pad_width;
    int64_t next; /* the tile to be taken next */
    double momentum, eps;
    struct tensor x, gradient;                 /* gradient: of out */
    const real *weight, *bias, *gamma, *beta;  /* weight (outputs, inputs, ...); bias: NULL where there is none */
    real *running_mean, *running_var;          /* (outputs) */
    real *map, *pooled;                        /* tiles of the convolution's output; map NULL: it is not kept */
    double *sums;                              /* (tiles, outputs, 2) */
    double *sign;                              /* (outputs): of gamma */
    double *mean, *invstd;                     /* (outputs): of the map */
    double *scale, *shift;                     /* (outputs): from the pooled map to batch norm's output */
    double *map_factor, *map_constant;         /* (outputs): what the statistics send back to each pixel of the map */
    real *negated;                             /* (outputs, inputs, ...): weight, negated where gamma is negative */
    real *out;                                 /* (outputs, height, width, images) */
    real *grad_gamma, *grad_beta;              /* (outputs) */
    real *grad_weight;                         /* (tiles, outputs, inputs, ...) */
    real *grad_x;                              /* (inputs, height, width, images); NULL: not needed */
};

static struct size x_size(const struct fused_block *b) { return (struct size){b->height, b->width, b->inputs}; }

static struct size input_size(const struct fused_block *b) { return bordered(x_size(b), b->pad_height, b->pad_width); }

static struct size map_size(const struct fused_block *b) {
    struct size input = input_size(b);
    return (struct size){input.height - b->kernel_height + 1, input.width - b->kernel_width + 1, b->outputs};
}

static struct size pooled_size(const struct fused_block *b) {
    struct size map = map_size(b);
    return (struct size){map.height / 2, map.width / 2, map.channels};
}

/* The next tile that no thread has taken; -1: all are taken. */
static int64_t take(struct fused_block *b) {
    int64_t tile = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED);
    return tile * LANES < b->images ? tile : -1;
}

static int64_t tile_images(const struct fused_block *b, int64_t tile) {
    int64_t left = b->images - tile * LANES;
    return left < LANES ? left : LANES;
}

static void load_x(const struct fused_block *b, int64_t tile, vec *to) {
    load(b->x, tile, tile_images(b, tile), x_size(b), b->pad_height, b->pad_width, 1, to);
}

static void load_gradient(const struct fused_block *b, int64_t tile, vec *to) {
    load(b->gradient, tile, tile_images(b, tile), pooled_size(b), 0, 0, GROUP, to);
}

INLINE vec *tile_map(const struct fused_block *b, int64_t tile) {
    return (vec *)b->map + tile * vectors(map_size(b), GROUP);
}

INLINE vec *tile_pooled(const struct fused_block *b, int64_t tile) {
    return (vec *)b->pooled + tile * vectors(pooled_size(b), GROUP);
}

/* Once, before all others: negates the kernels where gamma is negative, so that the largest value of the convolution is
the one that survives the pool. */
int fused_negate(struct fused_block *b) {
    int64_t taps = b->inputs * b->kernel_height * b->kernel_width;
    for (int64_t o = 0; o < b->outputs; o++) {
        b->sign[o] = b->gamma[o] < 0 ? -1 : 1;
        for (int64_t i = o * taps; i < (o + 1) * taps; i++) b->negated[i] = b->weight[i] * (real)b->sign[o];
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
                    *pooled++ = vmax(vmax(at[0], at[GROUP]), vmax(at[row], at[row + GROUP]));
            }
}

/* Mean and sum of squared distances from it, of each channel over a tile.

Sums in a lane are of distances from its first pixel, for squares of large numbers would eat the variance, and row by
row, for in a long sum rounding adds up. */
static void tile_statistics(const vec *map, struct size size, int64_t images, double *sums) {
    int64_t pixels = size.height * size.width;
    for (int64_t first = 0; first < size.channels; first += GROUP) {
        const vec *origin = map + place(size, GROUP, first), *at = origin;
        vec sum[GROUP] = {0}, square[GROUP] = {0};
        for (int64_t h = 0; h < size.height; h++) {
            vec row_sum[GROUP] = {0}, row_square[GROUP] = {0};
            for (int64_t w = 0; w < size.width; w++, at += GROUP) {
                UNROLL for (int o = 0; o < GROUP; o++) {
                    vec diff = at[o] - origin[o];
                    row_sum[o] += diff, row_square[o] += diff * diff;
                }
            }
            for (int o = 0; o < GROUP; o++) sum[o] += row_sum[o], square[o] += row_square[o];
        }
        for (int o = 0; o < GROUP && first + o < size.channels; o++, sums += 2) {
            double mean = 0, around = 0, means[LANES];
            for (int64_t n = 0; n < images; n++) {
                double diff = (double)sum[o][n] / pixels;
                means[n] = origin[o][n] + diff, mean += means[n] / images, around += square[o][n] - diff * sum[o][n];
            }
            for (int64_t n = 0; n < images; n++) around += pixels * (means[n] - mean) * (means[n] - mean);
            sums[0] = mean, sums[1] = around;
        }
    }
}

/* Takes tiles: convolution and pool. The map is kept, and its statistics taken, where b->map is. */
int fused_forward(struct fused_block *b) {
    struct size input = input_size(b), size = map_size(b);
    struct kernel k;
    int failed = forward_kernel(&k, b->negated, b->outputs, b->kernel_height, b->kernel_width, input, b->pad_height);
    vec *x = allocate(vectors(input, 1)), *own = b->map ? NULL : allocate(vectors(size, GROUP));
    failed |= !x || (!b->map && !own);
    for (int64_t tile; !failed && (tile = take(b)) >= 0;) {
        vec *map = own ? own : tile_map(b, tile);
        load_x(b, tile, x);
        convolve(x, input.width, &k, size, map);
        pool(map, size, tile_pooled(b, tile));
        if (b->map) tile_statistics(map, size, tile_images(b, tile), b->sums + tile * 2 * b->outputs);
    }
    free(x), free(own), free_kernel(&k);
    return failed ? -1 : 0;
}

/* Once: batch norm's statistics, those of the batch where the map is kept and else the running ones. */
int fused_statistics(struct fused_block *b) {
    struct size size = map_size(b);
    double pixels = size.height * size.width, all = pixels * b->images;
    for (int64_t o = 0; o < b->outputs; o++) {
        double bias = b->bias ? b->bias[o] : 0;
        if (b->map) {
            double mean = 0, square = 0;
            for (int64_t tile = 0; tile * LANES < b->images; tile++)
                mean += b->sums[2 * (tile * b->outputs + o)] * tile_images(b, tile) / b->images;
            for (int64_t tile = 0; tile * LANES < b->images; tile++) {
                const double *sums = b->sums + 2 * (tile * b->outputs + o);
                square += sums[1] + pixels * tile_images(b, tile) * (sums[0] - mean) * (sums[0] - mean);
            }
            b->mean[o] = mean, b->invstd[o] = 1 / sqrt(square / all + b->eps);
            b->running_mean[o] += b->momentum * (mean * b->sign[o] + bias - b->running_mean[o]);
            b->running_var[o] += b->momentum * (square / (all - 1) - b->running_var[o]);
        } else
            b->mean[o] = (b->running_mean[o] - bias) * b->sign[o], b->invstd[o] = 1 / sqrt(b->running_var[o] + b->eps);
        b->scale[o] = b->gamma[o] * b->sign[o] * b->invstd[o];
        b->shift[o] = b->beta[o] - b->mean[o] * b->scale[o];
    }
    return 0;
}

/* The numbers of a group of channels; zeros beyond the last. */
INLINE void read_group(const double *numbers, int64_t first, int64_t channels, real to[GROUP]) {
    for (int o = 0; o < GROUP; o++) to[o] = first + o < channels ? (real)numbers[first + o] : 0;
}

/* Takes tiles: the rest of batch norm, and ReLU. */
int fused_normalise(struct fused_block *b) {
    struct size size = pooled_size(b);
    int64_t pixels = size.height * size.width;
    vec *out = allocate(vectors(size, GROUP));
    for (int64_t tile; out && (tile = take(b)) >= 0;) {
        const vec *pooled = tile_pooled(b, tile);
        vec *to = out;
        for (int64_t first = 0; first < size.channels; first += GROUP) {
            real scale[GROUP], shift[GROUP];
            read_group(b->scale, first, size.channels, scale), read_group(b->shift, first, size.channels, shift);
            for (int64_t p = 0; p < pixels; p++)
                UNROLL for (int o = 0; o < GROUP; o++) *to++ = vmax(*pooled++ * scale[o] + shift[o], (vec){0});
        }
        store(out, size, tile, tile_images(b, tile), b->out, b->images);
    }
    free(out);
    return out ? 0 : -1;
}

/* The gradient where ReLU let something through. */
INLINE vec passed(vec gradient, vec pooled, real scale, real shift) {
    return where(pooled * scale + shift > 0, gradient);
}

/* Takes tiles: sums of the gradient behind ReLU, and of its product with the pooled map's distance from the mean. */
int fused_reduce(struct fused_block *b) {
    struct size size = pooled_size(b);
    vec *gradient = allocate(vectors(size, GROUP));
    for (int64_t tile; gradient && (tile = take(b)) >= 0;) {
        load_gradient(b, tile, gradient);
        const vec *pooled = tile_pooled(b, tile), *from = gradient;
        for (int64_t first = 0; first < size.channels; first += GROUP) {
            real scale[GROUP], shift[GROUP], mean[GROUP];
            read_group(b->scale, first, size.channels, scale), read_group(b->shift, first, size.channels, shift);
            read_group(b->mean, first, size.channels, mean);
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
                double *sums = b->sums + 2 * (tile * size.channels + first + o);
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
int fused_norm_gradients(struct fused_block *b) {
    struct size size = map_size(b);
    double all = size.height * size.width * b->images;
    for (int64_t o = 0; o < b->outputs; o++) {
        double grad_beta = 0, product = 0;
        for (int64_t tile = 0; tile * LANES < b->images; tile++) {
            const double *sums = b->sums + 2 * (tile * b->outputs + o);
            grad_beta += sums[0], product += sums[1];
        }
        double grad_gamma = product * b->invstd[o];
        b->map_factor[o] = -b->scale[o] * b->invstd[o] * grad_gamma / all;
        b->map_constant[o] = -b->scale[o] * grad_beta / all - b->map_factor[o] * b->mean[o];
        b->grad_beta[o] = grad_beta, b->grad_gamma[o] = grad_gamma * b->sign[o];
    }
    return 0;
}

/* The gradient of the map: what the statistics send to each pixel, and what the pool sends to the first of its largest.
to: the first pixel, behind the border, of the map of size whole that receives it. */
static void map_gradient(const struct fused_block *b, const vec *map, const vec *pooled, const vec *gradient, vec *to,
                         struct size whole) {
    struct size size = map_size(b), small = pooled_size(b);
    int64_t row = size.width * GROUP, to_row = whole.width * GROUP;
    for (int64_t first = 0; first < size.channels; first += GROUP) {
        real map_factor[GROUP], map_constant[GROUP], scale[GROUP], shift[GROUP];
        read_group(b->map_factor, first, size.channels, map_factor), read_group(b->map_constant, first, size.channels, map_constant);
        read_group(b->scale, first, size.channels, scale), read_group(b->shift, first, size.channels, shift);
        vec *at = to + place(whole, GROUP, first);
        for (int64_t h = 0; h < size.height; h++, map += row, at += to_row) {
            for (int64_t w = 0; w < size.width; w++)
                UNROLL for (int o = 0; o < GROUP; o++)
                    at[w * GROUP + o] = map[w * GROUP + o] * map_factor[o] + map_constant[o];
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

/* Takes tiles: the gradients of the weights and, if needed, of x. */
int fused_backward(struct fused_block *b) {
    struct size input = input_size(b), map = map_size(b), small = pooled_size(b), whole = map;
    int64_t first_pixel = 0;
    struct kernel k, back = {0};
    int failed = forward_kernel(&k, b->negated, b->outputs, b->kernel_height, b->kernel_width, input, b->pad_height);
    if (b->grad_x) {
        int64_t height = b->kernel_height - 1 - b->pad_height, width = b->kernel_width - 1 - b->pad_width;
        whole = bordered(map, height, width), first_pixel = (height * whole.width + width) * GROUP;
        failed |= backward_kernel(&back, b->negated, b->inputs, b->kernel_height, b->kernel_width, whole, height);
    }
    vec *x = allocate(vectors(input, 1)), *grad_x = b->grad_x ? allocate(vectors(x_size(b), GROUP)) : NULL;
    vec *g = allocate(vectors(whole, GROUP)), *grad_out = allocate(vectors(small, GROUP));
    int64_t taps = tap_count(&k);
    vec *kept = allocate((taps + TAPS) * GROUP);
    failed |= !x || !g || !grad_out || !kept || (b->grad_x && !grad_x);
    if (!failed) memset(g, 0, vectors(whole, GROUP) * sizeof(vec));
    for (int64_t tile; !failed && (tile = take(b)) >= 0;) {
        load_x(b, tile, x);
        load_gradient(b, tile, grad_out);
        map_gradient(b, tile_map(b, tile), tile_pooled(b, tile), grad_out, g + first_pixel, whole);
        real *grad_weight = b->grad_weight + tile * b->outputs * taps;
        int64_t plane = place(whole, GROUP, GROUP);
        weight_gradient(x, input.width, g + first_pixel, whole.width, plane, map, &k, kept, grad_weight);
        if (!b->grad_x) continue;
        convolve(g, whole.width, &back, x_size(b), grad_x);
        store(grad_x, x_size(b), tile, tile_images(b, tile), b->grad_x, b->images);
    }
    free(x), free(g), free(grad_out), free(kept), free(grad_x), free_kernel(&k), free_kernel(&back);
    return failed ? -1 : 0;
}

/* Once: adds the tiles' gradients of the weights to the first's, and undoes the negation. */
int fused_sum(struct fused_block *b) {
    int64_t taps = b->inputs * b->kernel_height * b->kernel_width, count = b->outputs * taps;
    for (int64_t tile = 1; tile * LANES < b->images; tile++)
        for (int64_t i = 0; i < count; i++) b->grad_weight[i] += b->grad_weight[tile * count + i];
    for (int64_t o = 0; o < b->outputs; o++)
        for (int64_t i = o * taps; i < (o + 1) * taps; i++) b->grad_weight[i] *= (real)b->sign[o];
    return 0;
}

int fused_bytes(void) { return sizeof(struct fused_block); }
int fused_lanes(void) { return LANES; }
int fused_group(void) { return GROUP; }
