/* Maps in batch-innermost layout: a pixel of a channel is one vector, with one image in each SIMD lane.

So few channels and odd sizes leave no lane idle. A tile is LANES images; lanes without an image are zeros.

A map is stored in groups of channels, (groups, height, width, G) vectors. G = 1 for what a convolution reads, so that
neighbours in a row are neighbours in memory; G = GROUP for what it makes, as many channels as are computed at once. The
last group is filled up with channels of zeros. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef REAL real; /* float or double, by the compiler's command */

/* The sums that are computed at once, GROUP * PIXELS or GROUP * TAPS of them, fit the registers. */
#if defined __AVX512F__
enum { BYTES = 64, GROUP = 8 };
#elif defined __AVX__
enum { BYTES = 32, GROUP = 4 };
#else
enum { BYTES = 16, GROUP = 4 };
#endif
enum { PIXELS = 3, TAPS = 3 };
enum { LANES = BYTES / sizeof(real) };

typedef real vec __attribute__((vector_size(BYTES)));
typedef __typeof__((vec){0} > (vec){0}) mask; /* all bits of a lane, or none */
#define INLINE static inline __attribute__((always_inline))
#if defined __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#if defined __x86_64__ && !defined __clang__
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define IN_REGISTER(v)
#endif

INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE vec where(mask chosen, vec a) { return (vec)(chosen & (mask)a); }

/* The larger of the two, or NaN where one of them is, as PyTorch's max-pool and ReLU have it. */
INLINE vec vmax(vec a, vec b) {
    mask first = (a >= b) | (a != a);
    return (vec)((first & (mask)a) | (~first & (mask)b));
}

struct size {
    int64_t height, width, channels;
};

INLINE struct size bordered(struct size size, int64_t height, int64_t width) {
    return (struct size){size.height + 2 * height, size.width + 2 * width, size.channels};
}

INLINE int64_t groups(int64_t channels, int64_t group) { return (channels + group - 1) / group; }

INLINE int64_t vectors(struct size size, int64_t group) {
    return size.height * size.width * groups(size.channels, group) * group;
}

/* Where a channel's first pixel is; its next is group vectors on. */
INLINE int64_t place(struct size size, int64_t group, int64_t channel) {
    return channel / group * size.height * size.width * group + channel % group;
}

INLINE vec *allocate(int64_t count) { return aligned_alloc(64, (count * sizeof(vec) + 63) / 64 * 64); }

/* A tensor of PyTorch, its strides in numbers: of n, c, h, w. */
struct tensor {
    const real *numbers;
    int64_t strides[4];
};

/* The images of a tile of a tensor, inside a border of zeros. */
static void load(struct tensor t, int64_t tile, int64_t images, struct size size, int64_t border_height,
                 int64_t border_width, int64_t group, vec *to) {
    struct size whole = bordered(size, border_height, border_width);
    if (border_height || border_width || images < LANES || size.channels % group)
        memset(to, 0, vectors(whole, group) * sizeof(vec));
    t.numbers += tile * LANES * t.strides[0];
    for (int64_t c = 0; c < size.channels; c++)
        for (int64_t h = 0; h < size.height; h++) {
            const real *row = t.numbers + c * t.strides[1] + h * t.strides[2];
            vec *line = to + place(whole, group, c) + ((h + border_height) * whole.width + border_width) * group;
            if (t.strides[0] == 1 && images == LANES)
                for (int64_t w = 0; w < size.width; w++) memcpy(line + w * group, row + w * t.strides[3], BYTES);
            else
                for (int64_t n = 0; n < images; n++)
                    for (int64_t w = 0; w < size.width; w++)
                        ((real *)(line + w * group))[n] = row[n * t.strides[0] + w * t.strides[3]];
        }
}

/* A tile in groups of GROUP, into a tensor (channels, height, width, all images). */
static void store(const vec *from, struct size size, int64_t tile, int64_t images, real *to, int64_t all) {
    int64_t pixels = size.height * size.width;
    to += tile * LANES;
    for (int64_t c = 0; c < size.channels; c++) {
        const vec *at = from + place(size, GROUP, c);
        if (images == LANES)
            for (int64_t p = 0; p < pixels; p++, to += all) memcpy(to, at + p * GROUP, BYTES);
        else
            for (int64_t p = 0; p < pixels; p++, to += all) memcpy(to, at + p * GROUP, images * sizeof(real));
    }
}

/* The sum of the lanes of each of some vectors, in their place: neighbours are added until one is left of each. */
INLINE void sum_lanes(const int count, real *restrict sums) {
    real other[count * LANES / 2];
    for (int left = LANES / 2; left; left /= 2) {
        for (int i = 0; i < count * left; i++) other[i] = sums[2 * i] + sums[2 * i + 1];
        memcpy(sums, other, count * left * sizeof(real));
    }
}
