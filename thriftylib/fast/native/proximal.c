/* Less Is More's proximal steps on the neurons of a layer, in place; the momentum of those that become zero is cleared.

Group sparsity shortens each neuron. Low rank makes a filter the mean of its three unfoldings, each with its singular
values lowered, of LANES filters at once, one in each SIMD lane. An unfolding's shorter side is made orthogonal by plane
rotations (one-sided Jacobi): its rows B then have the singular values as their lengths, and the left vectors are M B^T
over the squares of these. Nothing is squared before it is rotated: float is as exact as its rounding. */

#include <float.h>

#include "activations.h"

typedef int64_t words __attribute__((vector_size(BYTES)));
enum { WORDS = BYTES / sizeof(int64_t) };
enum { SWEEPS = 30 }; /* some 6 are needed */
#define SMALLEST (sizeof(real) == 4 ? FLT_MIN : DBL_MIN)
#define ROUNDING (sizeof(real) == 4 ? FLT_EPSILON : DBL_EPSILON)

INLINE vec square_root(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = sizeof(real) == 4 ? sqrtf(x[i]) : sqrt(x[i]);
    return x;
}

/* 1 / sqrt(x) of a positive x: divisions and roots would take as long as all else. */
INLINE vec reciprocal_root(vec x) {
#if defined __AVX512F__
    if (sizeof(real) == 4) {
        vec guess = (vec)__builtin_ia32_rsqrt14ps512_mask((floats)x, (floats){0}, -1);
        return guess * (spread(1.5) - spread(0.5) * x * guess * guess);
    }
#endif
    return spread(1) / square_root(x);
}

/* A layer: a neuron is size weights in a row, and a bias where that belongs to it. Momenta where they are cleared. */
struct neurons {
    int64_t count, size;
    real *weight, *bias, *weight_momentum, *bias_momentum;
};

static void clear(struct neurons n, int64_t neuron) {
    if (n.weight_momentum) memset(n.weight_momentum + neuron * n.size, 0, n.size * sizeof(real));
    if (n.bias_momentum) n.bias_momentum[neuron] = 0;
}

void group_sparsity(struct neurons n, double step) {
    for (int64_t neuron = 0; neuron < n.count; neuron++) {
        real *numbers = n.weight + neuron * n.size, *bias = n.bias ? n.bias + neuron : NULL;
        vec sums[4] = {{0}};
        int64_t i = 0;
        for (; i + 4 * LANES <= n.size; i += 4 * LANES)
            UNROLL for (int s = 0; s < 4; s++) {
                vec v = load_reals(numbers + i + s * LANES);
                sums[s] += v * v;
            }
        sums[0] += sums[1] + (sums[2] + sums[3]);
        double square = bias ? (double)*bias * *bias : 0;
        for (int lane = 0; lane < LANES; lane++) square += sums[0][lane];
        for (; i < n.size; i++) square += (double)numbers[i] * numbers[i];
        double norm = sqrt(square);
        real factor = norm <= step ? 0 : 1 - step / norm; /* compared: of equals, rounding may leave a rest */
        for (i = 0; i < n.size; i++) numbers[i] *= factor;
        if (bias) *bias *= factor;
        if (!factor) clear(n, neuron);
    }
}

INLINE vec dot(const vec *a, const vec *b, int64_t count) {
    vec sums[4] = {{0}}; /* one alone would wait for itself */
    int64_t i = 0;
    for (; i + 4 <= count; i += 4)
        UNROLL for (int s = 0; s < 4; s++) sums[s] += a[i + s] * b[i + s];
    for (; i < count; i++) sums[0] += a[i] * b[i];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

INLINE void add(vec factor, const vec *row, int64_t count, vec *sum) {
    for (int64_t i = 0; i < count; i++) sum[i] += factor * row[i];
}

struct row {
    vec *numbers, square;
};

struct rotation {
    vec *a, *b, cosine, sine;
};

/* What makes two rows orthogonal; their squares follow at once. Whether they were not. */
INLINE int rotation(struct row *a, struct row *b, int64_t count, struct rotation *r) {
    vec product = dot(a->numbers, b->numbers, count), square = product * product;
    mask chosen = (square > a->square * b->square * spread(16 * ROUNDING * ROUNDING)) & (square >= spread(SMALLEST));
    words any = (words)chosen;
    for (int half = WORDS / 2; half; half /= 2)
        for (int i = 0; i < half; i++) any[i] |= any[i + half];
    if (!any[0]) return 0;
    vec apart = b->square - a->square, whole = apart * apart + spread(4) * square;
    vec root = whole * reciprocal_root(whole);
    vec tangent = (product + product) * reciprocal(apart + choose(apart < spread(0), -root, root));
    tangent = where(chosen, tangent); /* elsewhere it may be anything */
    r->a = a->numbers;
    r->b = b->numbers;
    r->cosine = reciprocal_root(spread(1) + tangent * tangent);
    r->sine = r->cosine * tangent;
    a->square -= tangent * where(chosen, product);
    b->square += tangent * where(chosen, product);
    return 1;
}

INLINE void rotate(const struct rotation *r, int64_t count) {
    vec *restrict a = r->a, *restrict b = r->b, cosine = r->cosine, sine = r->sine;
    for (int64_t i = 0; i < count; i++) {
        vec first = a[i], second = b[i];
        a[i] = cosine * first - sine * second;
        b[i] = sine * first + cosine * second;
    }
}

/* Each row with each other once, in rounds of pairs without a row in common: of an odd number, one rests. Whether there
was anything to rotate. */
static int sweep(struct row *rows, int64_t m, int64_t n) {
    int64_t players = m + m % 2;
    int rotated = 0;
    for (int64_t i = 0; i < m; i++) rows[i].square = dot(rows[i].numbers, rows[i].numbers, n);
    for (int64_t round = 0; round < players - 1; round++) {
        struct rotation rotations[players / 2];
        int64_t count = 0;
        for (int64_t p = 0; p < players / 2; p++) {
            int64_t a = p ? round + p : players - 1, b = round - p;
            if (p && a >= players - 1) a -= players - 1;
            if (b < 0) b += players - 1;
            if (a >= m || b >= m) continue;
            count += rotation(rows + a, rows + b, n, rotations + count);
        }
        for (int64_t p = 0; p < count; p++) rotate(rotations + p, n);
        rotated |= count > 0;
    }
    return rotated;
}

/* An unfolding: its element (i, j) is number firsts[i] + seconds[j] of a filter; the side of the firsts is the shorter. */
struct unfolding {
    int64_t m, n, *firsts, *seconds;
};

/* The rows M as a lower triangle L (m, m) times rows Q (m, n) that are nearly orthonormal and take the place of M: by the
modified Gram-Schmidt process, whose product is M to its rounding. */
static void triangle(vec *q, int64_t m, int64_t n, vec *l) {
    memset(l, 0, m * m * sizeof(vec));
    for (int64_t i = 0; i < m; i++) {
        vec *row = q + i * n, square = dot(row, row, n);
        mask any = square >= spread(SMALLEST);
        vec inverse = where(any, reciprocal_root(square));
        l[i * m + i] = square * inverse;
        for (int64_t j = 0; j < n; j++) row[j] *= inverse;
        for (int64_t k = i + 1; k < m; k++) {
            vec part = l[k * m + i] = dot(row, q + k * n, n);
            add(-part, row, n, q + k * n);
        }
    }
}

/* Adds a third of the unfolding M with lower singular values. M is L Q. The rows B that L is rotated to have the singular
values of M as lengths; the left vectors are L B^T over the squares of these. */
static void lower(struct unfolding u, const vec *filter, vec *total, real step, struct row *rows, vec *q) {
    vec largest = {0}, *l = q + u.m * u.n, *b = l + u.m * u.m, *weights = b + u.m * u.m, *lowered = weights + u.m;
    for (int64_t i = 0; i < u.m; i++)
        for (int64_t j = 0; j < u.n; j++) q[i * u.n + j] = filter[u.firsts[i] + u.seconds[j]];
    triangle(q, u.m, u.n, l);
    memcpy(b, l, u.m * u.m * sizeof(vec));
    for (int64_t i = 0; i < u.m; i++) rows[i].numbers = b + i * u.m;
    for (int left = SWEEPS; left && sweep(rows, u.m, u.m); left--) continue;
    for (int64_t k = 0; k < u.m; k++) largest = vmax(largest, rows[k].square);
    for (int64_t k = 0; k < u.m; k++) {
        vec square = rows[k].square, length = square_root(square);
        /* what rounding left is orthogonal to nothing, and too short to be missed */
        mask kept = (length > spread(step)) & (square > largest * spread(ROUNDING * ROUNDING)) & (square >= spread(SMALLEST));
        rows[k].square = where(kept, (length - spread(step)) / (length * spread(3)) / square);
    }
    for (int64_t i = 0; i < u.m; i++) {
        memset(weights, 0, (u.m + u.n) * sizeof(vec));
        for (int64_t k = 0; k < u.m; k++)
            add(dot(l + i * u.m, b + k * u.m, i + 1) * rows[k].square, b + k * u.m, u.m, weights);
        for (int64_t k = 0; k < u.m; k++) add(weights[k], q + k * u.n, u.n, lowered);
        for (int64_t j = 0; j < u.n; j++) total[u.firsts[i] + u.seconds[j]] += lowered[j];
    }
}

/* Room for vectors, kept from call to call: fresh pages would take a tenth of the time. NULL: there is none. */
static vec *room(int64_t count) {
    static _Thread_local vec *kept;
    static _Thread_local int64_t kept_count;
    if (count > kept_count) {
        free(kept);
        kept = allocate(count);
        kept_count = kept ? count : 0;
    }
    return kept;
}

/* Filters of (channels, height, width) weights with these strides. A bias is a block of its own. Whether there was no
memory. */
int low_rank(struct neurons n, const int64_t *sides, const int64_t *strides, double step) {
    int64_t *places = malloc(6 * n.size * sizeof(int64_t));
    vec *filter = room(7 * n.size), *total = filter + n.size, *spare = total + n.size;
    struct row *rows = aligned_alloc(64, (n.size + 1) * sizeof(struct row));
    int failed = !filter || !rows || !places;
    struct unfolding unfoldings[3];
    for (int axis = 0; axis < 3 && !failed; axis++) {
        int64_t *firsts = places + 2 * axis * n.size, *seconds = firsts + n.size, others = 0;
        int outer = axis == 0, inner = axis == 2 ? 1 : 2;
        for (int64_t i = 0; i < sides[axis]; i++) firsts[i] = i * strides[axis];
        for (int64_t i = 0; i < sides[outer]; i++)
            for (int64_t j = 0; j < sides[inner]; j++) seconds[others++] = i * strides[outer] + j * strides[inner];
        unfoldings[axis] = sides[axis] <= others ? (struct unfolding){sides[axis], others, firsts, seconds}
                                                 : (struct unfolding){others, sides[axis], seconds, firsts};
    }
    for (int64_t at = 0; at < n.count && !failed; at += LANES) {
        int64_t filters = min(LANES, n.count - at);
        real *numbers = n.weight + at * n.size;
        memset(filter, 0, 2 * n.size * sizeof(vec));
        for (int64_t i = 0; i < filters; i++)
            for (int64_t p = 0; p < n.size; p++) ((real *)(filter + p))[i] = numbers[i * n.size + p];
        for (int axis = 0; axis < 3; axis++) lower(unfoldings[axis], filter, total, step, rows, spare);
        for (int64_t i = 0; i < filters; i++) {
            int alive = 0;
            for (int64_t p = 0; p < n.size; p++) alive |= (numbers[i * n.size + p] = ((real *)(total + p))[i]) != 0;
            if (n.bias) {
                real *bias = n.bias + at + i, size = *bias < 0 ? -*bias : *bias;
                *bias = size <= step ? 0 : *bias < 0 ? step - size : size - step;
                alive |= *bias != 0;
            }
            if (!alive) clear(n, at + i);
        }
    }
    free(rows);
    free(places);
    return failed;
}
