/* cli_cmd.h: the subcommands, one file each (cmd_NAME.c); commands.c puts them in order. */
#ifndef ATOLL_CLI_CLI_CMD_H
#define ATOLL_CLI_CLI_CMD_H

#include "cli/cli.h"

extern const struct at_command at_cmd_init, at_cmd_start, at_cmd_join;      /* cmd_node.c */
extern const struct at_command at_cmd_status, at_cmd_finish, at_cmd_invite; /* cmd_control.c */
extern const struct at_command at_cmd_demo, at_cmd_train, at_cmd_ask, at_cmd_points, at_cmd_ledger, at_cmd_root;
extern const struct at_command at_cmd_rank; /* of a split `train`; not for people */
extern const struct at_command at_cmd_plan, at_cmd_sim, at_cmd_bench, at_cmd_doctor, at_cmd_version;

#endif
