/* The part that all peers share: reads lines, keeps the matrices, takes the time. */
#define _DEFAULT_SOURCE
#include "gemm_peer.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define HUGE_PAGE        ((size_t)2 << 20)
#define FLOPS_NO_WARM_UP 1e10 /* as in Atoll's bench */

struct matrix {
    float *p;
    size_t count;
};

static struct matrix a, b, c;

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
    size_t bytes = (count * sizeof(float) + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    x->p = aligned_alloc(HUGE_PAGE, bytes);
    if (x->p == NULL) {
        fprintf(stderr, "no memory for a matrix of %zu numbers\n", count);
        exit(1);
    }
#ifdef MADV_HUGEPAGE
    (void)madvise(x->p, bytes, MADV_HUGEPAGE); /* as Atoll's */
#endif
    for (size_t i = 0; i < count; i++) {
        s = s * 1664525u + 1013904223u;
        x->p[i] = (float)(int32_t)(s >> 8) / (float)(1 << 24) - 0.5f;
    }
    x->count = count;
}

/* An element of the product by hand: some libraries' kernels are wrong on processors newer than they are. */
static void check_one(enum peer_op op, long m, long n, long k, long i, long j)
{
    double want = 0, size = 0;
    for (long p = 0; p < k; p++) {
        double term = (double)a.p[op == PEER_TN ? p * m + i : i * k + p] * b.p[op == PEER_NT ? j * k + p : p * n + j];
        want += term;
        size += term < 0 ? -term : term;
    }
    double error = c.p[i * n + j] - want;
    if (error > 1e-4 * size || -error > 1e-4 * size) {
        fprintf(stderr, "the library's product is wrong at (%ld,%ld): %g, not %g\n", i, j, c.p[i * n + j], want);
        exit(1);
    }
}

static double measure(enum peer_op op, long m, long n, long k, int accumulate)
{
    double start_s, spent_s, flops = 2.0 * (double)m * (double)n * (double)k;
    int runs = 0;
    grow(&a, (size_t)m * (size_t)k);
    grow(&b, (size_t)n * (size_t)k);
    grow(&c, (size_t)m * (size_t)n);
    if (flops < FLOPS_NO_WARM_UP) {
        peer_gemm(op, m, n, k, 0, a.p, b.p, c.p);
        check_one(op, m, n, k, 0, 0);
        check_one(op, m, n, k, m - 1, n / 2);
    }
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
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        char text[200];
        peer_version(text, sizeof text);
        puts(text);
        return 0;
    }
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
