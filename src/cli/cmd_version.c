/* cmd_version.c: which program this is, and what it was built with. */
#include "cli/cli_cmd.h"

#include <openssl/crypto.h>
#include <sqlite3.h>
#include <uv.h>

static at_err_t run(struct at_cli *cli, void *args)
{
    if (!cli->json) {
        printf("atoll %s (commit %s, arithmetic F32-1)\n", ATOLL_VERSION, at_cli_commit());
        return AT_OK;
    }
    json_t *answer = at_cli_answer(cli);
    at_json_set_text(answer, "version", ATOLL_VERSION);
    at_json_set_text(answer, "commit", at_cli_commit());
    at_json_set_text(answer, "profile", "F32-1");
    at_json_set_text(answer, "compiler", __VERSION__);
    at_json_set_text(answer, "openssl", OpenSSL_version(OPENSSL_VERSION_STRING));
    at_json_set_text(answer, "sqlite", sqlite3_libversion());
    at_json_set_text(answer, "libuv", uv_version_string());
    return AT_OK;
}

const struct at_command at_cmd_version = {
    .name = "version",
    .summary = "the program's version",
    .usage = "[--json]",
    .examples = "  atoll version\n  atoll version --json\n",
    .run = run,
};
