/* node_measure.c: MEASURE: how fast this machine trains, on the compute worker, and the links' least round trips, as net's
 * pings find them, and their rates, as its frames show them. */
#include "node/node_drive.h"
#include "node/node_speed.h"
#include "os/sys.h"

#include <stdlib.h>

struct measure_job {
    struct at_work work;
    struct node *n;
    double gflops;
    at_err_t err;
    struct at_diag diag;
};

static void run_measure(struct at_work *work)
{
    struct measure_job *j = (struct measure_job *)work;
    j->err = at_compute_speed(j->n->compute, &j->diag, &j->gflops);
}

struct at_node_rtt *node_measure_links(struct node *n, struct at_node_event *ev)
{
    struct at_node_rtt *list = calloc(n->link_count + 1, sizeof *list);
    for (size_t i = 0; list && i < n->link_count; i++)
        list[i] = (struct at_node_rtt){.link = n->links[i].v,
                                       .us = at_net_rtt_least_us(n->net, n->links[i]),
                                       .kbit = at_net_rate_kbit(n->net, n->links[i])};
    ev->measured.list = list;
    ev->measured.count = list ? n->link_count : 0;
    ev->measured.memory_mib = at_sys_memory_available() / 10 * 9 >> 20;
    return list;
}

static void measure_done(struct at_work *work)
{
    struct measure_job *j = (struct measure_job *)work;
    struct node *n = j->n;
    if (j->err)
        node_log(n, AT_NODE_LOG_WARNING, "how fast this machine trains could not be measured: %s", j->diag.text);
    struct at_node_event ev = {.kind = AT_NODE_EV_MEASURED};
    ev.measured.mflops = j->err ? 0 : (uint64_t)(j->gflops * 1000);
    free(j);
    if (n->ending) return;
    struct at_node_rtt *list = node_measure_links(n, &ev);
    node_feed(n, &ev);
    free(list);
}

void node_measure(struct node *n, const struct at_node_op *op)
{
    struct at_diag diag = {0};
    if (!op->evaluate) {
        node_later(n, (struct node_todo){.kind = AT_NODE_EV_MEASURED});
        return;
    }
    struct measure_job *j = calloc(1, sizeof *j);
    if (!j) {
        node_fail(n, at_fail(&diag, AT_E_NOMEM, n->folder.dir, "out of memory"), &diag);
        return;
    }
    j->work.run = run_measure;
    j->work.done = measure_done;
    j->n = n;
    at_worker_push(&n->computer, &j->work);
}
