#include "cli/cli.h"

#include "cli/cli_wrap.h"

#include "os/file_temp.h"
#include "os/sys.h"

#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

double at_cli_seconds(void)
{
    return (double)(at_clock_mono_ns() - at_sys_process_start_ns()) * 1e-9;
}

json_t *at_cli_answer(struct at_cli *cli)
{
    if (cli->answer == NULL) cli->answer = json_object();
    AT_ASSERT(cli->answer != NULL);
    return cli->answer;
}

void at_say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

/* Globals are a signal handler's only way to speak, and to be spoken to. */
static volatile sig_atomic_t interrupt_count;
static void (*volatile interrupt_last)(void);

static void on_interrupt(int sig)
{
    (void)sig;
    if (interrupt_count > 0) {
        if (interrupt_last != NULL) interrupt_last();
        at_file_temp_remove_all();
        _exit(130);
    }
    interrupt_count = 1;
}

void at_interrupt_last(void (*last)(void))
{
    interrupt_last = last;
}

void at_interrupt_catch(void)
{
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &before) != 0 || before.sa_handler != SIG_IGN) /* nohup's stays */
        sigaction(SIGHUP, &action, NULL);
}

bool at_interrupted(void)
{
    return interrupt_count > 0;
}

static void print_overview(FILE *out)
{
    int count;
    const struct at_command *const *list = at_command_list(&count);
    fprintf(out,
            "atoll %s\nTrain a language model together, own it in proportion to the work, use it.\n\n"
            "usage: atoll COMMAND [options]\n\n",
            ATOLL_VERSION);
    for (int i = 0; i < count; i++) {
        if (list[i]->summary == NULL) continue;
        fprintf(out, "  %-9s ", list[i]->name);
        at_wrap(out, 12, 12, list[i]->summary);
    }
    fprintf(out, "\nexamples:\n"
                 "  atoll demo                four members on this machine train on Moby-Dick\n"
                 "  atoll init --dir run --data data/moby-dick.txt && atoll start --dir run\n"
                 "  atoll ask --dir run \"Call me \"\n"
                 "\n`atoll COMMAND --help` shows a command's options and examples.\n");
    at_wrap(out, 0, 12,
            "exit codes: 0 ok, 1 internal, 2 usage, 3 bad file or data, 4 verification failed, 5 environment, "
            "6 peer or invite, 130 interrupted");
}

static void print_command(const struct at_command *command, FILE *out)
{
    int column = fprintf(out, "atoll %s: ", command->name);
    at_wrap(out, column, 2, command->summary != NULL ? command->summary : "not for people");
    column = fprintf(out, "\nusage: atoll %s%s", command->name, command->usage[0] ? " " : "") - 1;
    at_wrap(out, column, 12, command->usage);
    fputc('\n', out);
    if (command->about != NULL) at_wrap(out, 0, 0, command->about);
    if (command->about != NULL) fputc('\n', out);
    at_opts_print(command->rows, command->row_count, out);
    fprintf(out, "\nexamples:\n%s", command->examples);
}

static at_err find_command(const char *word, struct at_diag *diag, const struct at_command **ret_command)
{
    int count, shown = 0;
    const struct at_command *const *list = at_command_list(&count);
    const char *known[64];
    AT_ASSERT(count <= 64);
    for (int i = 0; i < count; i++) {
        if (list[i]->summary != NULL) known[shown++] = list[i]->name;
        if (strcmp(word, list[i]->name) == 0) {
            *ret_command = list[i];
            return AT_OK;
        }
    }
    const char *near = at_nearest_word(word, known, shown);
    if (near == NULL) return at_fail(diag, AT_E_USAGE, word, "unknown command; `atoll --help` lists them");
    return at_fail(diag, AT_E_USAGE, word, "unknown command; did you mean `atoll %s`?", near);
}

static at_err run_command(struct at_cli *cli, int argc, char **argv)
{
    const struct at_command *command = cli->command;
    void *args = calloc(1, command->args_bytes + 1);
    if (args == NULL) return at_fail(&cli->diag, AT_E_NOMEM, command->name, "no memory for the command line");
    bool help = false;
    cli->argc = argc;
    cli->argv = argv;
    at_err_t err =
        at_opts_parse(command->rows, command->row_count, argc, argv, args, &cli->diag, &help, &cli->json, &cli->words);
    if (err == AT_OK && help) {
        print_command(command, stdout);
    } else if (err == AT_OK && cli->words.count < command->words_min) {
        err = at_fail(&cli->diag, AT_E_USAGE, command->name, "%s is missing; usage: atoll %s %s", command->words_what,
                      command->name, command->usage);
    } else if (err == AT_OK && cli->words.count > command->words_max) {
        err = at_fail(&cli->diag, AT_E_USAGE, cli->words.v[command->words_max], "unexpected; usage: atoll %s %s",
                      command->name, command->usage);
    } else if (err == AT_OK) {
        err = command->run(cli, args);
    }
    at_opts_release(command->rows, command->row_count, args);
    free(args);
    return err;
}

static at_err dispatch(struct at_cli *cli, int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "--help";
    bool help_of = strcmp(word, "help") == 0 && argc > 2 && argv[2][0] != '-';
    if (!help_of && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)) {
        print_overview(argc > 1 ? stdout : stderr);
        return argc > 1 ? AT_OK : at_fail(&cli->diag, AT_E_USAGE, "", "no command given");
    }
    if (strcmp(word, "--version") == 0) word = "version";
    at_err_t err = find_command(help_of ? argv[2] : word, &cli->diag, &cli->command);
    if (err != AT_OK) return err;
    if (help_of) {
        print_command(cli->command, stdout);
        return AT_OK;
    }
    return run_command(cli, argc - 1, argv + 1);
}

/* An error is told in JSON too when the command line could not be parsed. */
static bool asks_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0) return true;
    return false;
}

void at_cli_tell_error(const struct at_cli *cli, at_err_t err)
{
    if (cli->second) nanosleep(&(struct timespec){3, 0}, NULL);
    const char *text = cli->diag.text[0] ? cli->diag.text : at_err_text(err);
    if (cli->diag.where[0] && strstr(text, cli->diag.where) == NULL) /* many texts name the file themselves */
        at_say("atoll: %s: %s", cli->diag.where, text);
    else
        at_say("atoll: %s", text);
    if (!cli->json || cli->answer != NULL || cli->second) return;
    json_t *object = json_object(), *inner = json_object();
    AT_ASSERT(object != NULL && inner != NULL);
    at_json_set_int(inner, "code", (uint64_t)at_err_exit_code(err));
    at_json_set_text(inner, "message", text);
    at_json_set_text(inner, "where", cli->diag.where);
    at_json_set(object, "error", inner);
    at_json_write(object, stdout);
    json_decref(object);
}

int at_cli_main(int argc, char **argv)
{
    at_sys_process_init();
    struct at_cli cli = {.program = argc > 0 ? argv[0] : "atoll", .json = asks_json(argc, argv)};
    setlocale(LC_CTYPE, "");
    at_err_t err = dispatch(&cli, argc, argv);
    if (cli.json && cli.answer != NULL) at_json_write(cli.answer, stdout);
    if (err != AT_OK) at_cli_tell_error(&cli, err);
    json_decref(cli.answer);
    int code = at_err_exit_code(err);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
        struct stat to; /* a reader that had enough (`| head`) wants no complaint, only the exit code tells */
        if (fstat(STDOUT_FILENO, &to) != 0 || !S_ISFIFO(to.st_mode))
            at_say("atoll: stdout: could not be written; is the disk full?");
        code = at_err_exit_code(AT_E_DISK);
    }
    return code;
}
