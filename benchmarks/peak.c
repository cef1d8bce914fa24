/* Multiply-adds as fast as a core can do them, on numbers that never leave its registers. */
#include <stdint.h>

#define LANES (VECTOR_BYTES / 4)
typedef float vector __attribute__((vector_size(VECTOR_BYTES)));

/* Runs `rounds` rounds of ACCUMULATORS independent multiply-adds; the sum is returned so that none is left out. */
float multiply_add(int64_t rounds) {
    vector sums[ACCUMULATORS], factor, summand;
    for (int lane = 0; lane < LANES; lane++) {
        factor[lane] = 0.999999f;
        summand[lane] = 1e-6f;
    }
    for (int k = 0; k < ACCUMULATORS; k++) sums[k] = factor * (float)k;
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 32
        for (int k = 0; k < ACCUMULATORS; k++) sums[k] = sums[k] * factor + summand;
        __asm__ volatile("");
    }
    float total = 0;
    for (int k = 0; k < ACCUMULATORS; k++)
        for (int lane = 0; lane < LANES; lane++) total += sums[k][lane];
    return total;
}
