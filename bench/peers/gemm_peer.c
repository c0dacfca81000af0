/* The part that all peers share: reads lines, keeps the matrices, takes the time. */
#define _POSIX_C_SOURCE 200809L
#include "gemm_peer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FLOPS_NO_WARM_UP 1e10 /* as in Atoll's bench */

struct matrix {
    float *p;
    size_t count;
};

static double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Numbers of magnitude one, none of them subnormal or special; outside the measured time. */
static void grow(struct matrix *x, size_t count)
{
    uint32_t s = 12345;
    if (count <= x->count) return;
    free(x->p);
    x->p = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (x->p == NULL) {
        fprintf(stderr, "no memory for a matrix of %zu numbers\n", count);
        exit(1);
    }
    for (size_t i = 0; i < count; i++) {
        s = s * 1664525u + 1013904223u;
        x->p[i] = (float)(int32_t)(s >> 8) / (float)(1 << 24) - 0.5f;
    }
    x->count = count;
}

static double measure(enum peer_op op, long m, long n, long k, int accumulate)
{
    static struct matrix a, b, c;
    double start_s, spent_s, flops = 2.0 * (double)m * (double)n * (double)k;
    int runs = 0;
    grow(&a, (size_t)m * (size_t)k);
    grow(&b, (size_t)n * (size_t)k);
    grow(&c, (size_t)m * (size_t)n);
    if (flops < FLOPS_NO_WARM_UP) peer_gemm(op, m, n, k, accumulate, a.p, b.p, c.p);
    start_s = clock_s();
    do {
        peer_gemm(op, m, n, k, accumulate, a.p, b.p, c.p);
        runs++;
        spent_s = clock_s() - start_s;
    } while (spent_s < 0.1);
    return flops * runs / spent_s * 1e-9;
}

int main(int argc, char **argv)
{
    char op[3];
    long m, n, k;
    int accumulate, threads = argc == 2 ? atoi(argv[1]) : 0;
    if (threads < 1) {
        fprintf(stderr, "usage: %s THREADS\n", argv[0]);
        return 2;
    }
    peer_threads(threads);
    while (scanf("%2s %ld %ld %ld %d", op, &m, &n, &k, &accumulate) == 5) {
        enum peer_op which = strcmp(op, "nn") == 0 ? PEER_NN : strcmp(op, "nt") == 0 ? PEER_NT : PEER_TN;
        if (m < 1 || n < 1 || k < 1) return 2;
        printf("%.6g\n", measure(which, m, n, k, accumulate));
        if (fflush(stdout) != 0) return 1;
    }
    return feof(stdin) ? 0 : 2;
}
