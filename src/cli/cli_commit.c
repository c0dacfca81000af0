#include "cli/cli.h"

#include "commit.h" /* made by the build */

const char *at_cli_commit(void)
{
    return ATOLL_COMMIT;
}
