/* Numbers as maps store them, and matrix products of them with sums in registers: for maps with channels innermost.

A map's number is a real or, with HALF, a bf16 of which two make an item: what one multiplication of the processor takes
for each sum. Without HALF an item is a real. */

#include "vectors.h"

#ifdef HALF
typedef uint16_t num;
typedef uint32_t item;
enum { DEPTH = 2 };
#if defined __AVX512BF16__
#include <immintrin.h>
#endif
#else
typedef real num;
typedef real item;
enum { DEPTH = 1 };
#endif

/* A product makes ROWS times COLUMNS vectors of sums at once: as many as fit the registers beside what they take. */
#if defined __AVX512F__ || defined __aarch64__
enum { ROWS = 8 };
#else
enum { ROWS = 4 };
#endif
enum { COLUMNS = 3, BLOCK = 192 }; /* BLOCK: items of depth whose columns stay in a core's first cache */

typedef real loose __attribute__((vector_size(BYTES), aligned(sizeof(real))));
typedef item items __attribute__((vector_size(BYTES)));
typedef item loose_items __attribute__((vector_size(BYTES), aligned(sizeof(item))));

INLINE vec load_reals(const real *at) { return (vec) * (const loose *)at; }
INLINE void store_reals(real *at, vec v) { *(loose *)at = (loose)v; }
INLINE vec spread(real x) { return x - (vec){0}; }

#ifdef HALF
typedef uint16_t halves __attribute__((vector_size(BYTES / 2), aligned(2)));

INLINE vec read(const num *at) { return (vec)(__builtin_convertvector(*(const halves *)at, items) << 16); }

/* The nearest bf16, of two the even one, in the upper half of each lane. */
INLINE items rounded(vec v) {
    items bits = (items)v;
    items to_nearest = bits + 0x7fff + ((bits >> 16) & 1);
    return ((items)(v != v) & (bits | 0x400000)) | (~(items)(v != v) & to_nearest);
}

INLINE void write(num *at, vec v) {
#if defined __AVX512BF16__
    __m256bh half = _mm512_cvtneps_pbh((__m512)v);
    memcpy(at, &half, sizeof half);
#else
    *(halves *)at = __builtin_convertvector(rounded(v) >> 16, halves);
#endif
}

INLINE vec multiply_add(item a, items b, vec sum) {
    items pairs = a - (items){0};
#if defined __AVX512BF16__
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)pairs, (__m512bh)b);
#else
    sum += (vec)(pairs << 16) * (vec)(b << 16);
    return sum + (vec)(pairs & 0xffff0000) * (vec)(b & 0xffff0000);
#endif
}

INLINE num narrowed(real x) { return (num)(rounded(spread(x))[0] >> 16); }
#else
INLINE vec read(const num *at) { return load_reals(at); }
INLINE void write(num *at, vec v) { store_reals(at, v); }
INLINE vec multiply_add(item a, items b, vec sum) { return sum + a * b; }
INLINE num narrowed(real x) { return x; }
#endif

/* A number that is read again only much later goes past the caches: a line is then not read before it is written. */
INLINE void write_away(num *at, vec v) {
#if defined __AVX512F__ && !defined HALF
    if (sizeof(real) == 4) __builtin_ia32_movntps512((float *)at, (__attribute__((vector_size(64))) float)v);
    else write(at, v);
#else
    write(at, v);
#endif
}

/* Rows of reals as rows of numbers; without HALF they are that already, and nothing is copied. */
static const num *as_numbers(const real *from, int64_t count, num *to) {
#ifdef HALF
    for (int64_t i = 0; i < count; i += LANES) write(to + i, load_reals(from + i));
    return to;
#else
    return from;
#endif
}

/* The same rows with as many of them in an item as there are numbers in one. */
static const item *as_items(const real *from, int64_t rows, int64_t columns, item *to) {
#ifdef HALF
    for (int64_t r = 0; r < rows; r += 2, from += 2 * columns, to += columns)
        for (int64_t c = 0; c < columns; c += LANES) {
            items low = rounded(load_reals(from + c)), high = rounded(load_reals(from + columns + c));
            *(loose_items *)(to + c) = (loose_items)((low >> 16) | (high & 0xffff0000));
        }
    return to - rows / 2 * columns;
#else
    return from;
#endif
}

/* Parts of maps that will be read next: products fetch them, since they themselves leave the memory idle. */
enum { REGIONS = 12, LINE = 64 };
struct fetch {
    const char *regions[REGIONS];
    int count;
    int64_t bytes, done; /* bytes: of each region; done: of all of them */
};

INLINE void to_fetch(struct fetch *f, const num *at) {
    if (f->count < REGIONS) f->regions[f->count++] = (const char *)at;
}

/* Where the next lines are; NULL: there are none. */
INLINE const char *next_lines(struct fetch *f, int64_t lines) {
    if (f->done >= f->count * f->bytes) return NULL;
    const char *at = f->regions[f->done / f->bytes] + f->done % f->bytes;
    f->done += min(lines * LINE, f->bytes - f->done % f->bytes);
    return at;
}

INLINE void product(const int vectors, const item *a, int64_t a_row, int64_t a_step, const item *b, int64_t b_row,
                    int64_t depth, real *c, int64_t c_row, int add, const char *lines) {
    int64_t step = lines ? LINE : 0;
    lines = lines ? lines : (const char *)c;
    vec sums[ROWS][COLUMNS];
    UNROLL for (int r = 0; r < ROWS; r++) {
        UNROLL for (int v = 0; v < vectors; v++)
            sums[r][v] = add ? load_reals(c + r * c_row + v * LANES) : (vec){0};
    }
    for (int64_t k = 0; k < depth; k++, a += a_step, b += b_row) {
        items columns[COLUMNS];
        __builtin_prefetch(lines + k * step, 0, 2);
        UNROLL for (int v = 0; v < vectors; v++) columns[v] = (items) * (const loose_items *)(b + v * LANES);
        UNROLL for (int r = 0; r < ROWS; r++) {
            UNROLL for (int v = 0; v < vectors; v++) sums[r][v] = multiply_add(a[r * a_row], columns[v], sums[r][v]);
        }
    }
    UNROLL for (int r = 0; r < ROWS; r++) {
        UNROLL for (int v = 0; v < vectors; v++) store_reals(c + r * c_row + v * LANES, sums[r][v]);
    }
}

/* How many vectors of columns are made at once where so many are left. */
INLINE int64_t at_once(int64_t left) { return left >= COLUMNS * LANES && left != 4 * LANES ? COLUMNS : left / LANES > 2 ? 2 : left / LANES; }

/* c (rows, columns) = a b, or += with add, while `fetch` is fetched; rows is a multiple of ROWS and columns of LANES.

a: the item of row r and depth k at r * a_row + k * a_step. b: (depth, columns) items, or packed as :func:`pack` does. */
static void multiply(const item *a, int64_t a_row, int64_t a_step, const item *b, int packed, int64_t depth,
                     int64_t rows, int64_t columns, real *c, int add, struct fetch *fetch) {
    for (int64_t first = 0, width; first < columns; first += width) {
        int64_t vectors = at_once(columns - first);
        width = vectors * LANES;
        const item *panel = packed ? b + first * depth : b + first;
        int64_t b_row = packed ? width : columns;
        for (int64_t k = 0; k < depth; k += BLOCK) {
            int64_t deep = min(BLOCK, depth - k);
            for (int64_t r = 0; r < rows; r += ROWS) {
                const item *left = a + r * a_row + k * a_step, *right = panel + k * b_row;
                real *to = c + r * columns + first;
                const char *lines = next_lines(fetch, deep);
                if (vectors == 3) product(3, left, a_row, a_step, right, b_row, deep, to, columns, add || k, lines);
                if (vectors == 2) product(2, left, a_row, a_step, right, b_row, deep, to, columns, add || k, lines);
                if (vectors == 1) product(1, left, a_row, a_step, right, b_row, deep, to, columns, add || k, lines);
            }
        }
    }
}

/* Where a packed matrix (depth, columns) of numbers has one of them. */
INLINE int64_t packed_place(int64_t depth, int64_t columns, int64_t k, int64_t column) {
    int64_t first = 0, width;
    while (column >= first + (width = at_once(columns - first) * LANES)) first += width;
    return (first * (depth / DEPTH) + k / DEPTH * width + column - first) * DEPTH + k % DEPTH;
}
