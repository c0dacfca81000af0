/* cli_wrap.h: prose for a terminal of 80 columns. */
#ifndef ATOLL_CLI_CLI_WRAP_H
#define ATOLL_CLI_CLI_WRAP_H

#include <stdio.h>

#define AT_COLUMNS 80

/* Prints `text`, broken at spaces so that no line is longer than AT_COLUMNS (a single longer word stays whole), with a
 * line break at the end. `column` columns of the first line are used already; further lines begin with `indent` spaces.
 * A line break in `text` stays after a full stop or a colon, and before a space or another break; else it is a space.
 * Columns are counted as bytes: the texts are ASCII. */
void at_wrap(FILE *out, int column, int indent, const char *text);

#endif
