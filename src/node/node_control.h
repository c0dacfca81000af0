/* node_control.h: D/control.sock (0600): one line of JSON each way, one request per connection. Effects: a Unix socket.
 * A client gets 5 s and 4 KiB; at most 16 are served at a time. Server: the loop's thread. */
#ifndef ATOLL_NODE_NODE_CONTROL_H
#define ATOLL_NODE_NODE_CONTROL_H

#include "base/bytes.h"

#include <uv.h>

struct at_control;

/* Answers `verb`: appends one line of JSON without the newline. */
typedef void at_control_fn(void *user, const char *verb, struct at_buf *answer);

at_err at_control_listen(uv_loop_t *loop, const char *dir, at_control_fn *answer, void *user, struct at_diag *diag,
                         struct at_control **ret_control);
/* Closes; frees when the loop has run the close callbacks. NULL is fine. */
void at_control_release(struct at_control *control);

#endif
