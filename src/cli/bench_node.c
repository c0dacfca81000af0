/* bench_node.c: what this machine is worth to `atoll plan`: an entry for nodes.json.
 *
 * The figure is that of whole training steps in the terms of parallel/plan_cost.h: FLOPs of the reference shape (10m, 8
 * sequences) in the time that their work takes here. Another preset is measured in its own width, with fewer layers and
 * a smaller vocabulary if a step would take long or much memory, and converted. */
#include "cli/bench.h"
#include "cli/cli_exec.h"
#include "cli/progress.h"
#include "node/node_speed.h"
#include "os/sys.h"
#include "parallel/plan_nodes.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { REPEATS = 3 };

struct telling {
    struct at_screen screen;
    int threads;
};

/* What is measured just now, on a terminal. */
static void show(void *arg, int stretch)
{
    struct telling *t = arg;
    char line[80];
    const char *lines[] = {line};
    snprintf(line, sizeof line, "  %d thread%s: stretch %d of %d", t->threads, t->threads == 1 ? "" : "s", stretch,
             REPEATS);
    if (t->screen.live) at_screen_draw(&t->screen, lines, 1);
}

/* Steps of at most 400 GFLOP; the median of a few stretches. With one thread, then with all that were asked for. */
static at_err measure_all(const struct at_speed_shape *s, const char *kernels, int threads, struct at_diag *diag,
                          double *ret_one, double *ret_all)
{
    struct telling told = {.threads = 1};
    const struct at_speed_options options = {
        .repeats = REPEATS, .stretch_s = 0.4, .check = at_bench_check_interrupt, .tell = show, .arg = &told};
    at_err_t err = AT_OK;
    at_screen_init(&told.screen, stderr);
    for (int n = 1; n <= threads && err == AT_OK; n = n == threads ? n + 1 : threads) {
        struct at_cli_exec e = {0};
        told.threads = n;
        err = at_cli_exec_init(&e, kernels, (uint64_t)n, diag);
        if (err == AT_OK) err = at_speed_measure(s, &e.ex, &options, diag, n == 1 ? ret_one : ret_all);
        at_cli_exec_release(&e);
    }
    at_screen_clear(&told.screen);
    if (threads == 1) *ret_all = *ret_one;
    return err;
}

/* The host's name without its domain, of characters that a plan takes. */
static void host_name(char ret_name[AT_PLAN_NAME_MAX + 1])
{
    char name[256] = "";
    size_t n = 0;
    if (gethostname(name, sizeof name - 1) != 0) name[0] = '\0';
    for (const char *c = name; *c != '\0' && *c != '.' && n < AT_PLAN_NAME_MAX; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9');
        ret_name[n++] = (char)(plain || *c == '-' || *c == '_' ? *c : '-');
    }
    ret_name[n] = '\0';
    if (n == 0) memcpy(ret_name, "node", sizeof "node");
}

static double rounded(double gflops)
{
    double grain = gflops >= 100 ? 1 : gflops >= 10 ? 0.1 : 0.01;
    return floor(gflops / grain + 0.5) * grain;
}

at_err at_bench_node(struct at_cli *cli, const struct at_bench_args *args, const struct at_exec *ex)
{
    struct at_speed_shape s;
    const struct at_preset *p;
    double one = 0, all = 0;
    char name[AT_PLAN_NAME_MAX + 1], note[160];
    uint64_t memory = at_sys_memory_available() / 10 * 9 / 1000000 * 1000000;
    int threads = args->threads.given ? (int)args->threads.v : at_sys_cpu_count();
    if (threads > 64) threads = 64;
    at_err_t err = at_preset_find(args->preset, &cli->diag, &p);
    if (err == AT_OK) err = at_speed_shape(p->name, &p->model, &p->train, 400e9, 0, &cli->diag, &s);
    if (err != AT_OK) return err;
    at_say("measuring training steps like %s's (%u layers of %u, %u x %u tokens), 1 and %d threads", args->preset,
           s.model.layers, s.model.d_model, s.train.batch, s.model.seq_len, threads);
    if ((err = measure_all(&s, args->kernels, threads, &cli->diag, &one, &all)) != AT_OK) return err;
    host_name(name);
    snprintf(note, sizeof note, "%s, %s kernels; one thread %.4g GFLOP/s, %d threads x %.2f", args->preset,
             ex->kern->name, rounded(one), threads, all / one);
    if (cli->json) {
        json_t *answer = at_cli_answer(cli);
        at_json_set_text(answer, "name", name);
        at_json_set_real(answer, "gflops", rounded(all));
        at_json_set_int(answer, "memory_bytes", memory);
        at_json_set_int(answer, "threads", (uint64_t)threads);
        at_json_set_text(answer, "note", note);
        return AT_OK;
    }
    printf("1 thread   %8.4g GFLOP/s\n", rounded(one));
    if (threads > 1) printf("%d threads  %8.4g GFLOP/s, %.2f x one thread\n", threads, rounded(all), all / one);
    printf("\nIts entry in \"nodes\" of nodes.json (memory: nine tenths of what is free now):\n\n");
    printf("  {\"name\": \"%s\", \"gflops\": %.4g, \"memory_bytes\": %llu, \"threads\": %d,\n   \"note\": \"%s\"}\n\n",
           name, rounded(all), (unsigned long long)memory, threads, note);
    printf("Add \"site\": \"NAME\" to machines in one place, and what ping and iperf3 say about links:\n"
           "  \"links\": [{\"from\": \"%s\", \"to\": \"OTHER\", \"rtt_ms\": 0.4, \"mbit_s\": 940}]\n",
           name);
    return AT_OK;
}
