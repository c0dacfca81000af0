/* node_view.h: what a person sees of a node in the foreground: its events as lines, and below them (on a terminal) one
 * live line, or (elsewhere) one line a round. It asks the node through its own control socket, from a thread of its
 * own. Thread rule: at_node_view_log may be called from any thread; the rest from the one that started it. */
#ifndef ATOLL_CLI_NODE_VIEW_H
#define ATOLL_CLI_NODE_VIEW_H

#include "cli/progress.h"
#include "node/node.h"

#include <pthread.h>

struct at_node_view {
    struct at_screen screen;
    const char *dir;
    pthread_mutex_t mutex; /* of everything below, and of the screen */
    pthread_cond_t wake;
    pthread_t thread;
    bool started, stop;
    uint32_t rounds_shown;
};

/* `dir` is borrowed. Without a thread to spare there are just the events. */
void at_node_view_start(struct at_node_view *view, const char *dir);
void at_node_view_stop(struct at_node_view *view); /* the live line goes away */

/* For struct at_node_run_options: user is the view. */
void at_node_view_log(void *user, enum at_node_log_kind kind, const char *line);

#endif
