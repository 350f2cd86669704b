/* Activations, and their derivatives from their results. */

#include <math.h>

#include "products.h"

enum activation { TANH, RELU, LEAKY };

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
