/* commands.c: the table of subcommands, in the order of the help page. */
#include "cli/cli_cmd.h"

static const struct at_command *const row[] = {
    &at_cmd_demo,   &at_cmd_init,  &at_cmd_start, &at_cmd_join,   &at_cmd_invite,  &at_cmd_status,
    &at_cmd_finish, &at_cmd_train, &at_cmd_ask,   &at_cmd_points, &at_cmd_ledger,  &at_cmd_root,
    &at_cmd_plan,   &at_cmd_sim,   &at_cmd_bench, &at_cmd_doctor, &at_cmd_version, &at_cmd_rank,
};

const struct at_command *const *at_command_list(int *ret_count)
{
    *ret_count = (int)(sizeof row / sizeof row[0]);
    return row;
}
