/* Backward through an iteration, and through the pool behind its state. Included after recursion_forward.h. */

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
            vec sums[TAPS_3X3], before = {0}, last = {0}; /* gradients of the pixels left of a column */
            UNROLL for (int t = 0; t < TAPS_3X3; t++) sums[t] = load_reals(to + t * narrow + c);
            for (int64_t w = 0; w < b->width + 2; w++, at += b->channels) {
                COLUMN(pixel, at);
                vec here = w < b->width ? load_reals(grad + w * narrow) : (vec){0};
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
