#include "parallel/plan_nodes.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

at_err at_plan_nodes_alloc(struct at_plan_nodes *n, int count, size_t links, struct at_diag *diag)
{
    struct at_plan_nodes m = {
        .count = count, .within_site = {.rtt_ms = 0.5, .mbit_s = 1000}, .elsewhere = {.rtt_ms = 50, .mbit_s = 100}};
    size_t room;
    AT_ASSERT(count >= 1 && count <= AT_PLAN_NODES_MAX);
    if (!at_mul_size(links, 2, &room)) return at_fail(diag, AT_E_TOO_BIG, "links", "too many");
    m.node = calloc((size_t)count, sizeof *m.node);
    m.row = calloc((size_t)count + 1, sizeof *m.row);
    m.link = calloc(room != 0 ? room : 1, sizeof *m.link);
    if (m.node == NULL || m.row == NULL || m.link == NULL) {
        at_plan_nodes_release(&m);
        return at_fail(diag, AT_E_NOMEM, "nodes", "no memory for %d nodes and their links", count);
    }
    *n = m;
    return AT_OK;
}

void at_plan_nodes_release(struct at_plan_nodes *n)
{
    free(n->node);
    free(n->row);
    free(n->link);
    *n = (struct at_plan_nodes){0};
}

static int by_ends(const void *a, const void *b)
{
    const struct at_plan_link *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

/* The link, or NULL, among the first `count`, which are sorted. */
static const struct at_plan_link *look_up(const struct at_plan_link *link, size_t count, int from, int to)
{
    size_t lo = 0, hi = count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct at_plan_link *l = &link[mid];
        if (l->from < from || (l->from == from && l->to < to))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < count && link[lo].from == from && link[lo].to == to ? &link[lo] : NULL;
}

struct site_of {
    const char *site;
    int node;
};

static int by_site(const void *a, const void *b)
{
    const struct site_of *x = a, *y = b;
    int c = strcmp(x->site, y->site);
    return c != 0 ? c : (x->node > y->node) - (x->node < y->node);
}

/* A site's id is its first node's number. */
static at_err number_sites(struct at_plan_nodes *n, struct at_diag *diag)
{
    struct site_of *order = malloc((size_t)n->count * sizeof *order);
    if (order == NULL) return at_fail(diag, AT_E_NOMEM, "nodes", "no memory to sort %d nodes", n->count);
    for (int i = 0; i < n->count; i++) order[i] = (struct site_of){n->node[i].site, i};
    qsort(order, (size_t)n->count, sizeof *order, by_site);
    for (int i = 0; i < n->count; i++) {
        bool same = i != 0 && order[i].site[0] != '\0' && strcmp(order[i].site, order[i - 1].site) == 0;
        n->node[order[i].node].site_id = same ? n->node[order[i - 1].node].site_id : order[i].node;
    }
    free(order);
    return AT_OK;
}

at_err at_plan_nodes_index(struct at_plan_nodes *n, struct at_diag *diag)
{
    size_t given = n->links;
    at_err_t err = number_sites(n, diag);
    if (err != AT_OK) return err;
    if (given != 0) qsort(n->link, given, sizeof *n->link, by_ends);
    for (size_t i = 0; i < given; i++) {
        const struct at_plan_link *l = &n->link[i];
        AT_ASSERT(l->from >= 0 && l->from < n->count && l->to >= 0 && l->to < n->count);
        const char *from = n->node[l->from].name, *to = n->node[l->to].name;
        if (l->from == l->to) return at_fail(diag, AT_E_DATA, "links", "'%s' has a link to itself", from);
        if (i != 0 && l[-1].from == l->from && l[-1].to == l->to)
            return at_fail(diag, AT_E_DATA, "links", "the link from '%s' to '%s' is given twice", from, to);
        if (look_up(n->link, given, l->to, l->from) == NULL)
            n->link[n->links++] = (struct at_plan_link){.from = l->to, .to = l->from, .link = l->link};
    }
    if (n->links != given) qsort(n->link, n->links, sizeof *n->link, by_ends);
    for (size_t i = 0, at = 0; i <= (size_t)n->count; i++) {
        while (at < n->links && (size_t)n->link[at].from < i) at++;
        n->row[i] = at;
    }
    return AT_OK;
}

struct at_link at_plan_link_of(const struct at_plan_nodes *n, int from, int to)
{
    size_t first = n->row[from], count = n->row[from + 1] - first;
    const struct at_plan_link *l = count == 0 ? NULL : look_up(n->link + first, count, from, to);
    if (l != NULL) return l->link;
    return n->node[from].site_id == n->node[to].site_id ? n->within_site : n->elsewhere;
}

struct at_link at_plan_link_worse(const struct at_plan_nodes *n, int a, int b)
{
    struct at_link x = at_plan_link_of(n, a, b), y = at_plan_link_of(n, b, a);
    return (struct at_link){.rtt_ms = x.rtt_ms > y.rtt_ms ? x.rtt_ms : y.rtt_ms,
                            .mbit_s = x.mbit_s < y.mbit_s ? x.mbit_s : y.mbit_s};
}

int at_plan_nodes_find(const struct at_plan_nodes *n, const char *name)
{
    for (int i = 0; i < n->count; i++)
        if (strcmp(n->node[i].name, name) == 0) return i;
    return -1;
}
