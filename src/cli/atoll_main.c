/* atoll_main.c: the program's door. Everything it does is a row of the table in commands.c. */
#include "cli/cli.h"

int main(int argc, char **argv)
{
    return at_cli_main(argc, argv);
}
