/* bench.h: what the kinds of `atoll bench` share: the clock, the median, the machine's peak, and a way to be measured
 * side by side with other programs.
 *
 * Every figure is the median of AT_BENCH_MEASUREMENTS. Before each measurement a register-only FMA loop with the same
 * kernels and threads measures the peak, so that a clock that sinks under load lowers both.
 *
 * Lines (--lines): a script that compares programs lets them take turns: it writes one line to the standard input of
 * each, which measures once and answers with one line. The same three requests are answered by the peers in bench/:
 *   peak      GFLOP/s of the FMA loop (peers have none)
 *   I         gemm: one measurement of product number I (as --json counts them) in GFLOP/s; train: I is ignored; tok/s
 *   quit      or the end of the input: the end
 * An answer is one number. Anything else ends the program with an error. */
#ifndef ATOLL_CLI_BENCH_H
#define ATOLL_CLI_BENCH_H

#include "cli/cli.h"
#include "tensor/exec.h"

struct at_bench_args {
    const char *preset, *kernels, *data;
    struct at_opt_int batch, threads, steps, every, seed;
    bool lines, list;
};

enum { AT_BENCH_MEASUREMENTS = 5 };

double at_bench_clock_s(void);
double at_bench_median(const double *value, int count); /* 1 <= count <= 1024 */
double at_bench_peak_gflops(const struct at_exec *ex);  /* best of three runs of 50 ms */
/* Numbers of magnitude one, none of them subnormal or special. */
void at_bench_fill(real *x, size_t n, uint32_t seed);
/* AT_E_INTERRUPTED once somebody pressed Ctrl-C. */
at_err at_bench_check_interrupt(struct at_diag *diag);

/* Answers the lines above from `measure` until the end. */
typedef at_err_t at_bench_measure_fn(void *arg, uint64_t item, struct at_diag *diag, double *ret_speed);
at_err at_bench_lines(const struct at_exec *ex, uint64_t items, at_bench_measure_fn *measure, void *arg,
                      struct at_diag *diag);

/* The kinds, one file each. */
at_err at_bench_gemm(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex);
at_err at_bench_train(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex);
at_err at_bench_sync(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex);
at_err at_bench_node(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex);

#endif
