/* One iteration of ThriftyNet's recursion on a CPU, forward and backward; see recursion_kernel.py.

A map is (images, height, width, channels) numbers. Its channels stand in the order that a grouped convolution reads:
channel c of a network, of which each group has `group`, is at c % group * narrow + c / group, and zeros fill up the
others. A state's map is what was there before batch norm; who reads it scales and shifts it.

An image goes through an iteration in chunks of rows that stay in a core's cache. A tile is a fixed share of the batch,
and sums over tiles are added in their order: the results are the same on any number of threads. The functions that say
so take tiles until none is left, and return -1 without memory; the others are called once, between them. */

#include "recursion_forward.h"
#include "recursion_backward.h"
#if defined __linux__
#include <sys/mman.h>
#endif

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

/* Asks for large pages in fresh memory, which whole maps are read from with fewer detours. */
void recursion_large_pages(char *memory, int64_t bytes) {
#if defined __linux__ && defined MADV_HUGEPAGE
    int64_t page = 4096, inset = (page - (intptr_t)memory % page) % page;
    if (bytes > inset) madvise(memory + inset, bytes - inset, MADV_HUGEPAGE);
#endif
}

int recursion_bytes(void) { return sizeof(struct recursion); }
int recursion_multiple(void) { return LANES > ROWS ? LANES : ROWS; } /* of which `narrow` is one */
