/* bench_node.c: what this machine is worth to `atoll plan`: an entry for nodes.json.
 *
 * The figure is that of whole training steps in the terms of parallel/plan_cost.h: FLOPs of the reference shape (10m, 8
 * sequences) in the time that their work takes here. Another preset is measured in its own width, with fewer layers and
 * a smaller vocabulary if a step would take long or much memory, and converted. */
#include "base/rng.h"
#include "cli/bench.h"
#include "cli/cli_exec.h"
#include "cli/progress.h"
#include "os/sys.h"
#include "parallel/plan_cost.h"
#include "parallel/plan_nodes.h"
#include "train/unit.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { REPEATS = 3 };

struct shape {
    struct at_model_config model;
    struct at_train_config train;
    double work; /* of a step */
};

static void weigh(struct shape *s)
{
    struct at_cost cost;
    struct at_cost_exchange none = {0};
    at_cost_init(&cost, &s->model, s->train.batch, 1, &none, false);
    s->work = at_cost_step_work(&cost);
}

/* Cut down until a step is at most 400 GFLOP and fits half of the memory. */
static at_err choose_shape(const char *name, struct at_diag *diag, struct shape *ret_shape)
{
    const struct at_preset *p;
    at_err_t err = at_preset_find(name, diag, &p);
    if (err != AT_OK) return err;
    struct shape s = {.model = p->model, .train = p->train};
    double memory = (double)at_sys_memory_available() / 2;
    for (weigh(&s);; weigh(&s)) {
        double need = (double)at_trainer_bytes(&s.model, &s.train, 0);
        if (s.work <= 400e9 && need > 0 && (memory <= 0 || need <= memory)) break;
        if (s.model.layers > 2)
            s.model.layers = 2;
        else if (s.model.vocab > 4096)
            s.model.vocab = 4096;
        else if (s.train.batch > 1)
            s.train.batch = s.train.batch / 2;
        else if (s.model.seq_len > 256)
            s.model.seq_len /= 2;
        else if (s.model.layers > 1)
            s.model.layers = 1;
        else
            break;
    }
    if (memory > 0 && (double)at_trainer_bytes(&s.model, &s.train, 0) > 2 * memory)
        return at_fail(diag, AT_E_NOMEM, name, "even one layer of it does not fit this machine's memory");
    *ret_shape = s;
    return AT_OK;
}

static at_err run_step(struct at_trainer *t, const struct at_exec *ex, uint32_t *k, struct at_diag *diag)
{
    at_err_t err = at_bench_check_interrupt(diag);
    if (err != AT_OK) return err;
    if (!isfinite(at_trainer_gradient(t, ex, t->theta)))
        return at_fail(diag, AT_E_NONFINITE, "bench", "the loss is not finite");
    return at_trainer_step(t, ex, 0, ++*k, diag);
}

/* What is measured just now, on a terminal. */
static void show(struct at_screen *screen, int threads, int stretch)
{
    char line[80];
    const char *lines[] = {line};
    snprintf(line, sizeof line, "  %d thread%s: stretch %d of %d", threads, threads == 1 ? "" : "s", stretch, REPEATS);
    if (screen->live) at_screen_draw(screen, lines, 1);
}

/* The median of a few stretches of at least 0.4 s, after one step that only touches the memory. */
static at_err measure(struct at_trainer *t, const struct at_exec *ex, uint32_t *k, double work, int threads,
                      struct at_screen *screen, struct at_diag *diag, double *ret_gflops)
{
    double speed[REPEATS];
    at_err_t err = run_step(t, ex, k, diag);
    for (int i = 0; i < REPEATS && err == AT_OK; i++) {
        double start_s = at_bench_clock_s(), spent_s = 0;
        int steps = 0;
        show(screen, threads, i + 1);
        for (; spent_s < 0.4 && err == AT_OK; steps++) {
            err = run_step(t, ex, k, diag);
            spent_s = at_bench_clock_s() - start_s;
        }
        speed[i] = work * steps / spent_s / at_cost_work_per_gflop();
    }
    if (err == AT_OK) *ret_gflops = at_bench_median(speed, REPEATS);
    return err;
}

static void fill(struct at_trainer *t, const struct at_model *m, const struct shape *s)
{
    at_params_fill(&m->params, 1, t->theta);
    memset(t->m, 0, m->params.count * sizeof *t->m);
    memset(t->v, 0, m->params.count * sizeof *t->v);
    for (size_t i = 0, n = (size_t)s->train.batch * s->model.seq_len; i < n; i++) {
        t->input[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 0, i).v[0] % s->model.vocab);
        t->target[i] = (int32_t)(at_philox(1, AT_RNG_TEST, 1, i).v[0] % s->model.vocab);
    }
}

/* With one thread, then with all that were asked for. */
static at_err measure_all(const struct shape *s, const char *kernels, int threads, struct at_diag *diag,
                          double *ret_one, double *ret_all)
{
    struct at_model model = {0};
    struct at_trainer t = {0};
    struct at_screen screen;
    uint32_t k = 0;
    at_screen_init(&screen, stderr);
    at_err_t err = at_model_init(&model, &s->model, diag);
    if (err == AT_OK) err = at_trainer_init(&t, &model, &s->train, 0, diag);
    at_sys_memory_huge();
    if (err == AT_OK) fill(&t, &model, s);
    for (int n = 1; n <= threads && err == AT_OK; n = n == threads ? n + 1 : threads) {
        struct at_cli_exec e = {0};
        err = at_cli_exec_init(&e, kernels, (uint64_t)n, diag);
        if (err == AT_OK) err = measure(&t, &e.ex, &k, s->work, n, &screen, diag, n == 1 ? ret_one : ret_all);
        at_cli_exec_release(&e);
    }
    at_screen_clear(&screen);
    if (threads == 1) *ret_all = *ret_one;
    at_trainer_release(&t);
    at_model_release(&model);
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
    struct shape s;
    double one = 0, all = 0;
    char name[AT_PLAN_NAME_MAX + 1], note[160];
    uint64_t memory = at_sys_memory_available() / 10 * 9 / 1000000 * 1000000;
    int threads = args->threads.given ? (int)args->threads.v : at_sys_cpu_count();
    if (threads > 64) threads = 64;
    at_err_t err = choose_shape(args->preset, &cli->diag, &s);
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
