/* Convolutions of stride 1 on maps of vectors.h: forward, and the gradient of the weights. */

#include "vectors.h"

enum { CACHED = 32768 }; /* bytes that stay in a core's first cache while they are used again and again */

/* The weights for an input of one size, and where its taps are, from a pixel's first. Taps of one row of the kernel
follow one another, so that rows that meet nothing but the border of zeros can be left out. */
struct kernel {
    int64_t channels, height, row; /* channels: that it makes; row: taps of a row */
    int64_t step;                  /* vectors from one pixel of the input to the next */
    int64_t border, rows;          /* rows of zeros above the input, and rows between those above and below */
    int64_t *offsets;              /* the last once more for each tap that a group of TAPS may lack */
    int64_t *places;               /* forward: of a tap among an output's weights in PyTorch's order */
    real *weights;                 /* (groups, height, row, GROUP) */
};

static int64_t tap_count(const struct kernel *k) { return k->height * k->row; }

static int allocate_kernel(struct kernel *k) {
    k->offsets = malloc((tap_count(k) + TAPS) * sizeof *k->offsets);
    k->weights = calloc(groups(k->channels, GROUP) * GROUP * tap_count(k), sizeof(real));
    return k->offsets && k->weights ? 0 : -1;
}

static void free_kernel(struct kernel *k) { free(k->offsets), free(k->places), free(k->weights); }

INLINE real *weight_at(struct kernel *k, int64_t output, int64_t tap) {
    return k->weights + (output / GROUP * tap_count(k) + tap) * GROUP + output % GROUP;
}

/* The weights (outputs, inputs, height, width), for an input with a border of so many rows. A row's taps are (inputs,
width). */
static int forward_kernel(struct kernel *k, const real *weight, int64_t outputs, int64_t height, int64_t width,
                          struct size input, int64_t border) {
    *k = (struct kernel){outputs, height, input.channels * width, 1, border, input.height - 2 * border, 0, 0, 0};
    if (allocate_kernel(k) || !(k->places = malloc(tap_count(k) * sizeof *k->places))) return -1;
    int64_t tap = 0;
    for (int64_t h = 0; h < height; h++)
        for (int64_t c = 0; c < input.channels; c++)
            for (int64_t w = 0; w < width; w++, tap++) {
                k->offsets[tap] = place(input, 1, c) + h * input.width + w;
                k->places[tap] = (c * height + h) * width + w;
                for (int64_t o = 0; o < outputs; o++)
                    *weight_at(k, o, tap) = weight[o * tap_count(k) + k->places[tap]];
            }
    for (int64_t i = 0; i < TAPS; i++) k->offsets[tap + i] = k->offsets[tap - 1];
    return 0;
}

/* From the gradient of the output, with a border of so many rows, to that of the input: the weights negated around. */
static int backward_kernel(struct kernel *k, const real *weight, int64_t inputs, int64_t height, int64_t width,
                           struct size output, int64_t border) {
    *k = (struct kernel){inputs, height, output.channels * width, GROUP, border, output.height - 2 * border, 0, 0, 0};
    if (allocate_kernel(k)) return -1;
    int64_t tap = 0, area = height * width;
    for (int64_t h = 0; h < height; h++)
        for (int64_t first = 0; first < output.channels; first += GROUP)
            for (int64_t w = 0; w < width; w++)
                for (int64_t o = first; o < output.channels && o < first + GROUP; o++, tap++) {
                    k->offsets[tap] = place(output, GROUP, o) + (h * output.width + w) * GROUP;
                    for (int64_t c = 0; c < inputs; c++)
                        *weight_at(k, c, tap) = weight[(o * inputs + c) * area + area - 1 - h * width - w];
                }
    return 0;
}




/* Some neighbouring pixels in GROUP outputs, from the taps first to last. */
INLINE void convolve_pixels(const int pixels, const vec *x, const struct kernel *k, const real *weights, int64_t first,
                            int64_t last, vec *to) {
    vec sums[PIXELS][GROUP] = {0};
    for (int64_t tap = first; tap < last; tap++) {
        const vec *at = x + k->offsets[tap];
        const real *weight = weights + tap * GROUP;
        UNROLL for (int o = 0; o < GROUP; o++) {
            UNROLL for (int p = 0; p < pixels; p++) sums[p][o] += weight[o] * at[p * k->step];
        }
    }
    UNROLL for (int p = 0; p < pixels; p++) {
        UNROLL for (int o = 0; o < GROUP; o++) to[p * GROUP + o] = sums[p][o];
    }
}

/* input_width: of the input in its border. */
static void convolve(const vec *x, int64_t input_width, const struct kernel *k, struct size output, vec *to) {
    for (int64_t h = 0; h < output.height; h++) {
        int64_t first = max(0, k->border - h) * k->row;
        int64_t last = min(k->height, k->border + k->rows - h) * k->row;
        for (int64_t group = 0; group < groups(output.channels, GROUP); group++) {
            const vec *from = x + h * input_width * k->step;
            const real *weights = k->weights + group * tap_count(k) * GROUP;
            vec *row = to + place(output, GROUP, group * GROUP) + h * output.width * GROUP;
            int64_t w = 0;
            for (; w + PIXELS <= output.width; w += PIXELS)
                convolve_pixels(PIXELS, from + w * k->step, k, weights, first, last, row + w * GROUP);
            for (; w < output.width; w++)
                convolve_pixels(1, from + w * k->step, k, weights, first, last, row + w * GROUP);
        }
    }
}

/* Some rows' part in the gradient of the weights between GROUP outputs and TAPS taps. */
INLINE void add_rows(const vec *x, int64_t x_width, const vec *g, int64_t g_width, int64_t rows, int64_t width,
                     const int64_t *offsets, vec sums[GROUP][TAPS]) {
    for (int64_t h = 0; h < rows; h++, x += x_width, g += g_width * GROUP) {
        const vec *at[TAPS];
        for (int t = 0; t < TAPS; t++) at[t] = x + offsets[t];
        for (int64_t w = 0; w < width; w++) {
            UNROLL for (int o = 0; o < GROUP; o++) {
                vec one = g[w * GROUP + o];
                IN_REGISTER(one); /* else it is read anew for each tap, and reading takes longer than multiplying */
                UNROLL for (int t = 0; t < TAPS; t++) sums[o][t] += one * at[t][w];
            }
        }
    }
}

/* The gradient of the weights from a tile's input and the gradient g of its output.

x and g are in maps of the widths x_width and g_width; g_plane: vectors from one group of g to the next; kept: room for
GROUP vectors for each tap and TAPS more. */
static void weight_gradient(const vec *x, int64_t x_width, const vec *g, int64_t g_width, int64_t g_plane,
                            struct size output, const struct kernel *k, vec *kept, real *to) {
    int64_t rows = max(1, CACHED / (output.width * GROUP * (int64_t)sizeof(vec)));
    for (int64_t from = 0; from < k->channels; from += GROUP, g += g_plane)
        for (int64_t h = 0; h < output.height; h += rows)
            for (int64_t tap = 0; tap < tap_count(k); tap += TAPS) {
                /* Rows of g that meet rows of x inside its border, by the group's first and last tap. */
                int64_t start = max(h, k->border - min(tap + TAPS - 1, tap_count(k) - 1) / k->row);
                int64_t stop = min(min(h + rows, output.height), k->border + k->rows - tap / k->row);
                vec sums[GROUP][TAPS] = {0};
                if (h) memcpy(sums, kept + tap * GROUP, sizeof sums);
                add_rows(x + start * x_width, x_width, g + start * g_width * GROUP, g_width, stop - start,
                         output.width, k->offsets + tap, sums);
                if (h + rows < output.height) {
                    memcpy(kept + tap * GROUP, sums, sizeof sums);
                    continue;
                }
                sum_lanes(GROUP * TAPS, (real *)sums);
                for (int o = 0; o < GROUP && from + o < k->channels; o++)
                    for (int t = 0; t < TAPS && tap + t < tap_count(k); t++)
                        to[(from + o) * tap_count(k) + k->places[tap + t]] = ((real *)sums)[o * TAPS + t];
            }
}
