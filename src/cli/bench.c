#include "cli/bench.h"

#include "os/sys.h"
#include "tensor/peak.h"

#include <stdlib.h>
#include <string.h>

enum { MEDIAN_MAX = 1024 };

double at_bench_clock_s(void)
{
    return (double)at_clock_mono_ns() * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double at_bench_median(const double *value, int count)
{
    double sorted[MEDIAN_MAX];
    AT_ASSERT(count >= 1 && count <= MEDIAN_MAX);
    memcpy(sorted, value, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* The best of a few: threads that were just woken may share a processor for a moment. */
double at_bench_peak_gflops(const struct at_exec *ex)
{
    enum { TRIES = 3 };
    long iterations = 1000;
    double best = 0;
    for (int tries = 0; tries < TRIES;) {
        double start_s = at_bench_clock_s(), flops = at_peak_flops_run(ex->kern, ex->par, iterations);
        double spent_s = at_bench_clock_s() - start_s;
        double factor = spent_s > 1e-4 ? 0.05 / spent_s : 20;
        if (spent_s < 0.04 && tries == 0) {
            iterations = (long)((double)iterations * (factor < 1.1 ? 1.1 : factor)) + 1;
            continue;
        }
        if (flops / spent_s > best) best = flops / spent_s;
        tries++;
    }
    return best * 1e-9;
}

void at_bench_fill(real *x, size_t n, uint32_t seed)
{
    uint32_t s = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (real)(int32_t)(s >> 8) / (real)(1 << 24) - (real)0.5;
    }
}

at_err at_bench_check_interrupt(struct at_diag *diag)
{
    return at_interrupted() ? at_fail(diag, AT_E_INTERRUPTED, "bench", "interrupted; no figure is complete") : AT_OK;
}

static at_err answer_line(const struct at_exec *ex, const char *line, uint64_t items, at_bench_measure_fn *measure,
                          void *arg, struct at_diag *diag)
{
    double speed;
    uint64_t item;
    at_err_t err = at_bench_check_interrupt(diag);
    if (err != AT_OK) return err;
    if (strcmp(line, "peak") == 0) {
        speed = at_bench_peak_gflops(ex);
    } else {
        if ((err = at_parse_int(line, 0, items - 1, "a line of --lines", diag, &item)) != AT_OK) return err;
        if ((err = measure(arg, item, diag, &speed)) != AT_OK) return err;
    }
    if (printf("%.6g\n", speed) < 0 || fflush(stdout) != 0)
        return at_fail(diag, AT_E_ENV, "--lines", "nobody reads the answers");
    return AT_OK;
}

at_err at_bench_lines(const struct at_exec *ex, uint64_t items, at_bench_measure_fn *measure, void *arg,
                      struct at_diag *diag)
{
    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "quit") == 0) break;
        at_err_t err = answer_line(ex, line, items, measure, arg, diag);
        if (err != AT_OK) return err;
    }
    return at_bench_check_interrupt(diag);
}
