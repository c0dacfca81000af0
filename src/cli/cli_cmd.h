/* cli_cmd.h: the subcommands, one file each (cmd_NAME.c); commands.c puts them in order. */
#ifndef ATOLL_CLI_CLI_CMD_H
#define ATOLL_CLI_CLI_CMD_H

#include "cli/cli.h"

extern const struct at_command at_cmd_version;

#endif
