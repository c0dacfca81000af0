#include "cli/train_start.h"

#include "cli/child.h"
#include "cli/cli_exec.h"
#include "cli/cli_text.h"
#include "cli/train_out.h"
#include "cli/train_save.h"
#include "cli/train_show.h"
#include "os/file.h"
#include "os/file_temp.h"
#include "os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FAR_WAIT_MS 120000 /* for other machines, where people type */
#define PARTING_MS  5000   /* for children to end by themselves after a run that went well */

/* A processor's share for each rank on this machine, unless --threads says otherwise. */
static uint64_t threads_for(const struct at_train_setup *s, int ranks_here)
{
    if (s->args->threads.given) return s->args->threads.v;
    int each = at_sys_cpu_count() / ranks_here;
    return each < 1 ? 1 : (uint64_t)each;
}

/* The rank's threads and kernels, then its run. Before that nothing of it is known to the others, so trouble is told. */
static at_err run_rank(const struct at_train_setup *s, const struct at_comm *comm, int ranks_here,
                       struct at_screen *screen, struct at_diag *diag, struct at_split_result *ret_result)
{
    struct at_cli_exec exec = {0};
    struct at_diag own = {0};
    at_err_t err = at_cli_exec_init(&exec, at_train_kernels(s->args, comm->rank).s, threads_for(s, ranks_here), &own);
    if (at_train_tell_all(comm, err, &own) != AT_OK) return at_fail(diag, err, own.where, "%s", own.text);
    err = at_split_run(s, comm, &exec.ex, screen, diag, ret_result);
    at_cli_exec_release(&exec);
    return err;
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */

struct thread_rank {
    const struct at_train_setup *setup;
    struct at_comm comm;
    pthread_t thread;
};

static void *thread_main(void *arg)
{
    struct thread_rank *t = arg;
    struct at_split_result none = {0};
    struct at_diag told = {0}; /* rank 0 tells it */
    at_err_t err = run_rank(t->setup, &t->comm, t->comm.ranks, NULL, &told, &none);
    (void)err;
    at_split_result_release(&none);
    return NULL;
}

static at_err run_inproc(struct at_cli *cli, const struct at_train_setup *s, struct at_screen *screen,
                         struct at_split_result *ret_result)
{
    struct at_ranks_inproc *links = NULL;
    int ranks = s->plan.ranks, started = 1, rc = 0;
    struct thread_rank *t = calloc((size_t)ranks, sizeof *t);
    at_err_t err = t == NULL ? at_fail(&cli->diag, AT_E_NOMEM, "train", "no memory for %d ranks", ranks)
                             : at_ranks_inproc_init(ranks, s->name, &cli->diag, &links);
    for (; err == AT_OK && rc == 0 && started < ranks; started += rc == 0) {
        t[started] = (struct thread_rank){.setup = s, .comm = at_ranks_inproc_comm(links, started)};
        rc = pthread_create(&t[started].thread, NULL, thread_main, &t[started]);
    }
    if (err == AT_OK) {
        struct at_comm comm = at_ranks_inproc_comm(links, 0);
        if (rc != 0) comm.ops->fail(comm.link, AT_E_ENV, "train", "the system gives no further thread");
        err = run_rank(s, &comm, ranks, screen, &cli->diag, ret_result);
        for (int i = 1; i < started; i++) pthread_join(t[i].thread, NULL);
    }
    at_ranks_inproc_release(links);
    free(t);
    return err;
}

/* ---- processes ---------------------------------------------------------------------------------------------------- */

struct family { /* this process and its children */
    struct at_cli *cli;
    const struct at_train_setup *setup;
    struct at_child *child;
    int *rank; /* of each child */
    int children;
    bool is_child;       /* of another process of this program, which tells people what happens */
    bool rank_0_gone;    /* ranks.h */
    uint64_t verdict_ms; /* when a child was first seen to have ended by a verdict; 0: none */
};

static struct family *volatile own_family; /* what a signal handler may know of it */

void at_train_kill_children(void)
{
    const struct family *f = own_family;
    for (int i = 0; f != NULL && i < f->children; i++)
        if (f->child[i].running) kill(f->child[i].pid, SIGKILL);
}

/* Ctrl-Z reaches this process alone, for each child has a process group of its own. The children are stopped before it
 * and go on with it, so that no rank's clock of silence (ranks.h) runs while another is stopped. The stop itself is the
 * signal's default action: the system leaves that out where there is no shell that could end it. */
static void on_stop(int number)
{
    const struct family *f = own_family;
    struct sigaction act = {.sa_handler = SIG_DFL}, own;
    sigset_t stop;
    int before = errno;
    for (int i = 0; f != NULL && i < f->children; i++)
        if (f->child[i].running) kill(f->child[i].pid, SIGSTOP);
    sigemptyset(&act.sa_mask);
    sigemptyset(&stop);
    sigaddset(&stop, number);
    sigaction(number, &act, &own);
    raise(number);
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL); /* here it stops, and here it goes on */
    sigaction(number, &own, NULL);
    for (int i = 0; f != NULL && i < f->children; i++)
        if (f->child[i].running) kill(f->child[i].pid, SIGCONT);
    errno = before;
}

/* From now on, unless whoever started this process wants the signal ignored. */
static void catch_stop(struct sigaction *ret_before)
{
    struct sigaction act = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&act.sa_mask);
    sigaction(SIGTSTP, NULL, ret_before);
    if (ret_before->sa_handler != SIG_IGN) sigaction(SIGTSTP, &act, NULL);
}

#define VERDICT_MS 2000 /* later than its child, this process hears the same verdict over its own links */

/* A child that ends before it is linked has said why on stderr. */
static at_err_t look_after(void *arg, struct at_diag *diag)
{
    struct family *f = arg;
    if (at_interrupted()) return at_fail(diag, AT_E_INTERRUPTED, "train", "interrupted; nothing was written");
    for (int i = 0; i < f->children; i++) {
        at_child_poll(&f->child[i]);
        if (f->child[i].running) continue;
        if (f->child[i].exit_signal == 0 && at_err_of_exit_code(f->child[i].exit_code) == AT_E_PEER) {
            uint64_t now_ms = at_clock_mono_ms();
            if (f->verdict_ms == 0) f->verdict_ms = now_ms;
            if (now_ms - f->verdict_ms < VERDICT_MS) continue;
        }
        at_err_t err = f->child[i].exit_signal != 0 || f->child[i].exit_code == 0
                           ? AT_E_PEER
                           : at_err_of_exit_code(f->child[i].exit_code);
        return at_fail(diag, err, f->setup->name[f->rank[i]], "%s ended before it was linked (%s %d)",
                       f->setup->name[f->rank[i]], f->child[i].exit_signal ? "signal" : "exit code",
                       f->child[i].exit_signal ? f->child[i].exit_signal : f->child[i].exit_code);
    }
    return AT_OK;
}

static void end_children(struct family *f, unsigned patience_ms)
{
    uint64_t until_ms = at_clock_mono_ms() + patience_ms;
    for (bool any = true; any && at_clock_mono_ms() < until_ms;) {
        any = false;
        for (int i = 0; i < f->children; i++) {
            at_child_poll(&f->child[i]);
            any |= f->child[i].running;
        }
        if (any) nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    for (int i = 0; i < f->children; i++) at_child_end(&f->child[i], 0);
}

/* A child speaks when rank 0 cannot; Ctrl-C reaches its parent, too. */
static bool tells(const struct family *f, const struct at_diag *verdict)
{
    return !f->is_child || (f->rank_0_gone && verdict->err != AT_E_INTERRUPTED);
}

/* A verdict, and this rank is in the middle of something long: no rank may wait for that. What is being saved stays as it
 * was: files are put in place whole, and what is unfinished beside them goes. */
static void overdue(void *arg, const struct at_diag *verdict)
{
    struct family *f = arg;
    if (tells(f, verdict)) {
        f->cli->diag = *verdict;
        at_train_tell_going_on(f->setup->args, &f->cli->diag);
        at_cli_tell_error(f->cli, verdict->err);
        fflush(stdout);
    }
    at_train_kill_children();
    at_file_temp_remove_all();
    _exit(at_err_exit_code(verdict->err));
}

static at_err read_secret(const char *path, uint8_t ret_secret[32], struct at_diag *diag)
{
    struct stat st;
    struct at_buf buf = {0};
    at_err_t err = at_file_read(path, 4096, diag, &buf);
    if (err == AT_OK && (stat(path, &st) != 0 || (st.st_mode & 077) != 0))
        err = at_fail(diag, AT_E_DATA, path, "others can read this secret: chmod 600 %s", path);
    if (err == AT_OK && buf.n != 32)
        err = at_fail(diag, AT_E_DATA, path, "a secret has 32 bytes, this file %zu: head -c 32 /dev/urandom > FILE",
                      buf.n);
    if (err == AT_OK) memcpy(ret_secret, buf.p, 32);
    at_buf_release(&buf);
    return err;
}

static at_err make_secret(const struct at_train_setup *s, uint8_t ret_secret[32], struct at_diag *diag)
{
    struct at_keypair random;
    if (s->args->secret != NULL) return read_secret(s->args->secret, ret_secret, diag);
    at_err_t err = at_keypair_generate(&random);
    if (err != AT_OK) return at_fail(diag, err, "train", "the system gives no random bytes");
    memcpy(ret_secret, random.seed, 32);
    memset(&random, 0, sizeof random);
    return AT_OK;
}

static at_err start_child(struct family *f, const struct at_rank_brief *brief, struct at_diag *diag)
{
    char program[AT_PATH_BYTES];
    struct at_buf text = {0};
    at_err_t err = at_cli_program_path(diag, program);
    if (err == AT_OK) err = at_rank_brief_write(brief, &text);
    if (err == AT_OK)
        err = at_child_start_fed(&f->child[f->children], (const char *const[]){program, "rank", NULL},
                                 at_buf_span(&text), diag);
    if (err == AT_OK) f->rank[f->children++] = brief->rank;
    if (text.p != NULL) memset(text.p, 0, text.n);
    at_buf_release(&text);
    return err;
}

/* Which ranks this machine runs: all, or those of --node. */
static bool is_here(const struct at_train_setup *s, int rank)
{
    return s->node < 0 || s->plan.node[rank] == s->node;
}

/* The ranks of this machine after `own`. A stop meanwhile is put off: it would miss a child that is just being started. */
static at_err start_children(struct family *f, struct at_rank_brief *brief, int own, struct at_diag *diag)
{
    sigset_t stop, before;
    at_err_t err = AT_OK;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    pthread_sigmask(SIG_BLOCK, &stop, &before);
    for (int i = own + 1; i < f->setup->plan.ranks && err == AT_OK; i++) {
        brief->rank = i;
        if (is_here(f->setup, i)) err = start_child(f, brief, diag);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

static at_err link_up(struct family *f, const struct at_rank_brief *brief, int listen_fd, uint32_t wait_ms,
                      struct at_diag *diag, struct at_ranks_tls **ret_links)
{
    const struct at_train_setup *s = f->setup;
    struct at_ranks_tls_options o = {
        .run = {brief->rank, s->plan.ranks, s->name, s->fact, AT_TRAIN_FACTS},
        .host = brief->host,
        .port = brief->port,
        .listen_fd = listen_fd,
        .wait_ms = wait_ms,
        .go_on = look_after,
        .overdue = overdue,
        .rank_0_gone = &f->rank_0_gone,
        .arg = f,
    };
    memcpy(o.secret, brief->secret, sizeof o.secret);
    at_err_t err = at_ranks_tls_init(&o, diag, ret_links);
    memset(o.secret, 0, sizeof o.secret);
    return err;
}

/* Several machines: what this one waits for, and what to type on the others. */
static void tell_waiting(const struct at_train_setup *s, int own, int here, const struct at_rank_brief *brief)
{
    int others = s->plan.ranks - here;
    if (own != 0) {
        at_say("node %s: %d of %d ranks; joining rank 0 at %s:%u", s->args->node, here, s->plan.ranks, brief->host,
               (unsigned)brief->port);
        return;
    }
    if (others > 0)
        at_say("node %s: %d of %d ranks; waits %d s for the other nodes: atoll train ... --plan %s --node NAME --join "
               "%s:%u "
               "--secret FILE",
               s->args->node, here, s->plan.ranks, FAR_WAIT_MS / 1000, s->args->plan, brief->host,
               (unsigned)brief->port);
}

static at_err run_tls(struct at_cli *cli, const struct at_train_setup *s, int argc, char **argv,
                      struct at_screen *screen, int *ret_rank, struct at_split_result *ret_result)
{
    struct family f = {.cli = cli, .setup = s};
    struct at_rank_brief brief = {.rank = -1, .argc = argc, .argv = argv};
    struct at_ranks_tls *links = NULL;
    struct sigaction before;
    int ranks = s->plan.ranks, own = -1, here = 0, listen_fd = -1;
    const char *at = s->node >= 0 ? s->meet : "127.0.0.1:0";
    struct at_diag *diag = &cli->diag;
    for (int i = ranks - 1; i >= 0; i--)
        if (is_here(s, i)) own = i, here++;
    f.child = calloc((size_t)ranks, sizeof *f.child);
    f.rank = calloc((size_t)ranks, sizeof *f.rank);
    at_err_t err = f.child != NULL && f.rank != NULL ? AT_OK : at_fail(diag, AT_E_NOMEM, "train", "no memory");
    own_family = &f;
    catch_stop(&before);
    if (err == AT_OK) err = at_ranks_tls_files(ranks, diag);
    if (err == AT_OK) err = at_ranks_address(at, diag, brief.host, &brief.port);
    if (err == AT_OK) err = make_secret(s, brief.secret, diag);
    if (err == AT_OK && own == 0) err = at_ranks_listen(brief.host, brief.port, diag, &listen_fd, &brief.port);
    if (err == AT_OK) err = start_children(&f, &brief, own, diag);
    brief.rank = own;
    *ret_rank = own;
    if (err == AT_OK && s->node >= 0) tell_waiting(s, own, here, &brief);
    if (err == AT_OK)
        err = link_up(&f, &brief, listen_fd, s->node >= 0 ? FAR_WAIT_MS : 60000, diag, &links);
    else if (listen_fd >= 0)
        close(listen_fd);
    if (err == AT_OK) {
        struct at_comm comm = at_ranks_tls_comm(links);
        err = run_rank(s, &comm, here, own == 0 ? screen : NULL, diag, ret_result);
        at_ranks_tls_release(links);
    }
    end_children(&f, err == AT_OK ? PARTING_MS : 300);
    sigaction(SIGTSTP, &before, NULL);
    own_family = NULL;
    memset(brief.secret, 0, sizeof brief.secret);
    free(f.child);
    free(f.rank);
    return err;
}

/* A child's end is told by rank 0; what it says itself only concerns what happens before it is linked. */
at_err_t at_train_be_rank(struct at_cli *cli, const struct at_rank_brief *brief)
{
    struct at_train_args args = {0};
    struct at_words words = {0};
    struct at_train_setup setup = {0};
    struct at_split_result none = {0};
    struct at_ranks_tls *links = NULL;
    bool help = false, json = false;
    int here = 0;
    at_err_t err =
        at_opts_parse(at_train_rows, AT_TRAIN_ROWS, brief->argc, brief->argv, &args, &cli->diag, &help, &json, &words);
    if (err == AT_OK) err = at_train_take_words(&args, &words, &cli->diag);
    if (err == AT_OK) err = at_train_setup_init(&setup, &args, &cli->diag);
    if (err == AT_OK && brief->rank >= setup.plan.ranks)
        err = at_fail(&cli->diag, AT_E_INTERNAL, "rank", "there is no rank %d", brief->rank);
    struct family alone = {.cli = cli, .setup = &setup, .is_child = true};
    if (err == AT_OK) {
        for (int i = 0; i < setup.plan.ranks; i++) here += is_here(&setup, i);
        err = link_up(&alone, brief, -1, 60000, &cli->diag, &links);
        if (err == AT_OK) {
            struct at_comm comm = at_ranks_tls_comm(links);
            err = run_rank(&setup, &comm, here, NULL, &cli->diag, &none);
        }
        at_ranks_tls_release(links);
        if (err != AT_OK && tells(&alone, &cli->diag)) {
            at_train_tell_going_on(setup.args, &cli->diag);
            at_cli_tell_error(cli, err);
        }
        if (err != AT_OK) _exit(at_err_exit_code(err));
    }
    at_split_result_release(&none);
    at_train_setup_release(&setup);
    at_opts_release(at_train_rows, AT_TRAIN_ROWS, &args);
    return err;
}

/* ---- MPI ---------------------------------------------------------------------------------------------------------- */

struct speaker {
    struct at_cli *cli;
    const struct at_train_args *args;
};

static void last_words(struct at_cli *cli, const struct at_train_args *args, const struct at_diag *verdict)
{
    cli->diag = *verdict;
    at_train_tell_going_on(args, &cli->diag);
    at_cli_tell_error(cli, verdict->err);
    fflush(stdout);
}

/* A verdict while the ranks are linked: rank 0 tells it, and the others only when rank 0 is the one that is gone; then
 * there is no time to lose, and rank 1 writes the JSON. */
static void last_words_linked(void *arg, const struct at_diag *verdict)
{
    const struct speaker *speaker = arg;
    struct at_cli cli = *speaker->cli;
    cli.json = cli.json && at_ranks_mpi_launched_rank() <= 1;
    cli.second = false;
    last_words(&cli, speaker->args, verdict);
}

static at_err run_mpi(struct at_cli *cli, const struct at_train_setup *s, struct at_screen *screen, int *ret_rank,
                      struct at_split_result *ret_result)
{
    struct at_ranks_mpi *links = NULL;
    struct at_train_out out = {0};
    struct speaker speaker = {cli, s->args};
    int rank = 0, ranks = 0;
    bool launched = at_ranks_mpi_launched(); /* before MPI starts: that may say so itself */
    at_err_t err = at_ranks_mpi_start(&cli->diag, &rank, &ranks);
    if (err != AT_OK) return err;
    *ret_rank = rank;
    cli->second = rank != 0;
    if (ranks != s->plan.ranks)
        err = at_fail(&cli->diag, AT_E_USAGE, "mpirun", "mpirun started %d ranks and this run has %d: use mpirun -n %d",
                      ranks, s->plan.ranks, s->plan.ranks);
    else if (!launched)
        at_say(
            "--link mpi without mpirun: this process is the only rank; `mpirun -n N atoll train ...` starts several");
    if (err == AT_OK && rank == 0) err = at_train_out_open(&out, s->args, &cli->diag);
    struct at_ranks_run run = {rank, ranks, s->name, s->fact, AT_TRAIN_FACTS};
    if (err == AT_OK) err = at_ranks_mpi_init(&run, last_words_linked, &speaker, &cli->diag, &links);
    if (err == AT_OK) {
        struct at_comm comm = at_ranks_mpi_comm(links);
        err = run_rank(s, &comm, ranks, rank == 0 ? screen : NULL, &cli->diag, ret_result);
        at_ranks_mpi_release(links);
    } else {
        struct at_diag why = cli->diag;
        at_train_out_close(&out);
        last_words(cli, s->args, &why);
        at_ranks_mpi_abort(at_err_exit_code(err));
    }
    at_train_out_close(&out);
    return err;
}

at_err_t at_train_start(struct at_cli *cli, const struct at_train_setup *s, int argc, char **argv,
                        struct at_screen *screen, int *ret_rank, struct at_split_result *ret_result)
{
    *ret_rank = 0;
    if (s->link == AT_LINK_INPROC) return run_inproc(cli, s, screen, ret_result);
    if (s->link == AT_LINK_MPI) return run_mpi(cli, s, screen, ret_rank, ret_result);
    return run_tls(cli, s, argc, argv, screen, ret_rank, ret_result);
}
