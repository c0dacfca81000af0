/* cli_text.h: the text files that a command line names, and the corpus that comes with the program. */
#ifndef ATOLL_CLI_CLI_TEXT_H
#define ATOLL_CLI_CLI_TEXT_H

#include "base/bytes.h"
#include "os/file.h"

#define AT_TEXT_BYTES_MAX ((size_t)4 << 30)

/* Reads the files one after the other into `ret_text` (empty before; owned by the caller), each checked to be text.
 * AT_E_NOT_FOUND, AT_E_DATA (empty, binary: with the offset), AT_E_TOO_BIG, each naming the file. */
at_err at_cli_text_read(const char *const *paths, int count, struct at_diag *diag, struct at_buf *ret_text);

/* The path of Moby-Dick: next to the program (built or installed), where it was built or installed, or under the
 * current folder. AT_E_NOT_FOUND says where it was looked for. */
at_err at_cli_corpus_find(struct at_diag *diag, char ret_path[AT_PATH_BYTES]);

/* The path of the running program. */
at_err at_cli_program_path(struct at_diag *diag, char ret_path[AT_PATH_BYTES]);

#endif
