/* Forward through an iteration, and through a pool. */

#include "recursion.h"

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
