#include "parallel/plan_file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading with a place to point at ---- */

struct reader {
    const char *file;
    struct at_diag *diag;
};

static at_err_t bad(const struct reader *r, at_err_t err, const char *path, const char *want)
{
    char where[256];
    snprintf(where, sizeof where, "%.120s: %.120s", r->file, path);
    return at_fail(r->diag, err, where, "%s", want);
}

struct path {
    char s[160];
};
static struct path path_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static struct path path_of(const char *fmt, ...)
{
    struct path p;
    va_list args;
    va_start(args, fmt);
    vsnprintf(p.s, sizeof p.s, fmt, args);
    va_end(args);
    return p;
}

static at_err load(const struct reader *r, struct at_span json, size_t bytes_max, json_t **ret_root)
{
    json_error_t why;
    if (json.n > bytes_max)
        return at_fail(r->diag, AT_E_TOO_BIG, r->file, "has %zu bytes; at most %zu", json.n, bytes_max);
    json_t *root = json_loadb((const char *)json.p, json.n, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        char where[256];
        snprintf(where, sizeof where, "%.200s line %d column %d", r->file, why.line, why.column);
        return at_fail(r->diag, AT_E_DATA, where, "%s", why.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return at_fail(r->diag, AT_E_DATA, r->file, "must be a JSON object");
    }
    *ret_root = root;
    return AT_OK;
}

/* Letters, digits and the like: names go into messages, tables and command lines. */
static bool name_is_plain(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= ' ' || (unsigned char)s[i] == 127) return false;
    return n > 0;
}

static at_err read_text(const struct reader *r, const json_t *object, const char *key, const char *path, bool needed,
                        size_t room, char *ret_text)
{
    const json_t *j = json_object_get(object, key);
    struct path at = path_of("%s.%s", path, key);
    if (j == NULL && !needed) return AT_OK;
    if (!json_is_string(j)) return bad(r, AT_E_DATA, at.s, j == NULL ? "is missing" : "must be a text");
    size_t n = json_string_length(j);
    if (n >= room || (n == 0 && needed) || (n != 0 && !name_is_plain(json_string_value(j), n)))
        return bad(r, AT_E_DATA, at.s, "must be a short text without spaces");
    memcpy(ret_text, json_string_value(j), n + 1);
    return AT_OK;
}

static at_err read_number(const struct reader *r, const json_t *j, const char *path, double min, double max,
                          double *ret_value)
{
    char want[96];
    if (j == NULL) return bad(r, AT_E_DATA, path, "is missing");
    double v = json_number_value(j);
    if (json_is_number(j) && isfinite(v) && v >= min && v <= max) {
        *ret_value = v;
        return AT_OK;
    }
    snprintf(want, sizeof want, "must be a number, %g to %g", min, max);
    return bad(r, AT_E_DATA, path, want);
}

static at_err read_whole(const struct reader *r, const json_t *object, const char *key, const char *path, int64_t min,
                         int64_t max, int64_t *ret_value)
{
    const json_t *j = json_object_get(object, key);
    struct path at = path_of("%s%s%s", path, path[0] != '\0' ? "." : "", key);
    char want[96];
    if (j == NULL) return bad(r, AT_E_DATA, at.s, "is missing");
    if (json_is_integer(j) && json_integer_value(j) >= min && json_integer_value(j) <= max) {
        *ret_value = json_integer_value(j);
        return AT_OK;
    }
    snprintf(want, sizeof want, "must be a whole number, %lld to %lld", (long long)min, (long long)max);
    return bad(r, AT_E_DATA, at.s, want);
}

static at_err check_keys(const struct reader *r, json_t *object, const char *path, const char *const *known)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        int i = 0;
        while (known[i] != NULL && strcmp(known[i], key) != 0) i++;
        if (known[i] == NULL) return bad(r, AT_E_DATA, path_of("%s.%.60s", path, key).s, "is not a known field");
    }
    return AT_OK;
}

static at_err read_array(const struct reader *r, const json_t *object, const char *key, const char *path, size_t max,
                         const json_t **ret_array)
{
    const json_t *j = json_object_get(object, key);
    struct path at = path_of("%s%s%s", path, path[0] != '\0' ? "." : "", key);
    if (!json_is_array(j)) return bad(r, AT_E_DATA, at.s, j == NULL ? "is missing" : "must be a list");
    if (json_array_size(j) == 0 || json_array_size(j) > max)
        return bad(r, AT_E_DATA, at.s, path_of("must have 1 to %zu entries", max).s);
    *ret_array = j;
    return AT_OK;
}

/* ---- nodes.json ---- */

static const double RTT_MAX = 1e5, MBIT_MIN = 1e-3, MBIT_MAX = 1e8, GFLOPS_MIN = 1e-3, GFLOPS_MAX = 1e9;

static at_err read_link(const struct reader *r, const json_t *j, const char *path, struct at_link *ret_link)
{
    struct at_link l;
    if (!json_is_object(j)) return bad(r, AT_E_DATA, path, "must be an object with rtt_ms and mbit_s");
    at_err_t err = read_number(r, json_object_get(j, "rtt_ms"), path_of("%s.rtt_ms", path).s, 0, RTT_MAX, &l.rtt_ms);
    if (err == AT_OK)
        err = read_number(r, json_object_get(j, "mbit_s"), path_of("%s.mbit_s", path).s, MBIT_MIN, MBIT_MAX, &l.mbit_s);
    if (err == AT_OK) *ret_link = l;
    return err;
}

static at_err read_node(const struct reader *r, json_t *j, int i, struct at_plan_node *n)
{
    static const char *const known[] = {"name", "gflops", "memory_bytes", "site", "address", "threads", "note", NULL};
    struct path at = path_of("nodes[%d]", i);
    int64_t bytes = 0, threads = 0;
    if (!json_is_object(j)) return bad(r, AT_E_DATA, at.s, "must be an object");
    at_err_t err = check_keys(r, j, at.s, known);
    if (err == AT_OK) err = read_text(r, j, "name", at.s, true, sizeof n->name, n->name);
    if (err == AT_OK) err = read_text(r, j, "site", at.s, false, sizeof n->site, n->site);
    if (err == AT_OK) err = read_text(r, j, "address", at.s, false, sizeof n->address, n->address);
    if (err == AT_OK)
        err = read_number(r, json_object_get(j, "gflops"), path_of("%s.gflops", at.s).s, GFLOPS_MIN, GFLOPS_MAX,
                          &n->gflops);
    if (err == AT_OK) err = read_whole(r, j, "memory_bytes", at.s, 1, (int64_t)1 << 50, &bytes);
    if (err == AT_OK && json_object_get(j, "threads") != NULL)
        err = read_whole(r, j, "threads", at.s, 1, 4096, &threads);
    n->memory_bytes = (uint64_t)bytes;
    n->threads = (int)threads;
    return err;
}

struct named {
    const char *name;
    int index;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static int find_name(const struct named *sorted, int count, const char *name)
{
    struct named want = {name, 0}, *found;
    found = bsearch(&want, sorted, (size_t)count, sizeof *sorted, by_name);
    return found != NULL ? found->index : -1;
}

static at_err sort_names(const struct reader *r, const struct at_plan_nodes *n, struct named *ret_sorted)
{
    for (int i = 0; i < n->count; i++) ret_sorted[i] = (struct named){n->node[i].name, i};
    qsort(ret_sorted, (size_t)n->count, sizeof *ret_sorted, by_name);
    for (int i = 1; i < n->count; i++)
        if (strcmp(ret_sorted[i].name, ret_sorted[i - 1].name) == 0)
            return bad(r, AT_E_DATA, path_of("nodes[%d].name", ret_sorted[i].index).s,
                       "is the name of another node, too");
    return AT_OK;
}

static at_err read_end(const struct reader *r, const json_t *link, const char *key, size_t i,
                       const struct named *sorted, int count, int *ret_node)
{
    char name[AT_PLAN_NAME_MAX + 1] = "";
    struct path at = path_of("links[%zu]", i);
    at_err_t err = read_text(r, link, key, at.s, true, sizeof name, name);
    if (err != AT_OK) return err;
    if ((*ret_node = find_name(sorted, count, name)) < 0)
        return bad(r, AT_E_DATA, path_of("%s.%s", at.s, key).s, path_of("no node is called '%s'", name).s);
    return AT_OK;
}

static at_err read_links(const struct reader *r, const json_t *list, const struct named *sorted,
                         struct at_plan_nodes *n)
{
    static const char *const known[] = {"from", "to", "rtt_ms", "mbit_s", "note", NULL};
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *j = json_array_get(list, i);
        struct path at = path_of("links[%zu]", i);
        struct at_plan_link *l = &n->link[n->links];
        at_err_t err = read_link(r, j, at.s, &l->link);
        if (err == AT_OK) err = check_keys(r, j, at.s, known);
        if (err == AT_OK) err = read_end(r, j, "from", i, sorted, n->count, &l->from);
        if (err == AT_OK) err = read_end(r, j, "to", i, sorted, n->count, &l->to);
        if (err != AT_OK) return err;
        n->links++;
    }
    return AT_OK;
}

static at_err read_cell(const struct reader *r, const json_t *matrix, const char *name, int i, int j, double min,
                        double max, bool *io_measured, double *ret_value)
{
    const json_t *row = json_array_get(matrix, (size_t)i), *cell = json_array_get(row, (size_t)j);
    if (json_is_null(cell)) {
        *io_measured = false;
        return AT_OK;
    }
    return read_number(r, cell, path_of("%s[%d][%d]", name, i, j).s, min, max, ret_value);
}

static at_err read_matrices(const struct reader *r, const json_t *rtt, const json_t *mbit, struct at_plan_nodes *n)
{
    for (int which = 0; which < 2; which++) {
        const json_t *m = which == 0 ? rtt : mbit;
        const char *name = which == 0 ? "rtt_ms" : "mbit_s";
        bool square = json_is_array(m) && json_array_size(m) == (size_t)n->count;
        for (int i = 0; i < n->count && square; i++)
            square = json_array_size(json_array_get(m, (size_t)i)) == (size_t)n->count;
        if (!square) return bad(r, AT_E_DATA, name, path_of("must be a matrix of %d rows of %d", n->count, n->count).s);
    }
    for (int i = 0; i < n->count; i++)
        for (int j = 0; j < n->count; j++) {
            struct at_plan_link *l = &n->link[n->links];
            bool measured = true;
            if (i == j) continue;
            *l = (struct at_plan_link){.from = i, .to = j};
            at_err_t err = read_cell(r, rtt, "rtt_ms", i, j, 0, RTT_MAX, &measured, &l->link.rtt_ms);
            if (err == AT_OK) err = read_cell(r, mbit, "mbit_s", i, j, MBIT_MIN, MBIT_MAX, &measured, &l->link.mbit_s);
            if (err != AT_OK) return err;
            n->links += measured;
        }
    return AT_OK;
}

/* How many links the file has at most, and that it has them in one way only. */
static at_err count_links(const struct reader *r, const json_t *root, size_t nodes, size_t *ret_count)
{
    const json_t *links = json_object_get(root, "links");
    bool matrix = json_object_get(root, "rtt_ms") != NULL || json_object_get(root, "mbit_s") != NULL;
    if (links != NULL && !json_is_array(links)) return bad(r, AT_E_DATA, "links", "must be a list");
    if (links != NULL && matrix)
        return bad(r, AT_E_DATA, "links", "does not go together with the matrices rtt_ms and mbit_s");
    *ret_count = matrix ? nodes * nodes : json_array_size(links);
    return AT_OK;
}

static at_err read_nodes(const struct reader *r, const json_t *root, struct at_plan_nodes *n)
{
    const json_t *list = NULL, *links = json_object_get(root, "links");
    const json_t *within = json_object_get(root, "within_site"), *elsewhere = json_object_get(root, "elsewhere");
    const json_t *rtt = json_object_get(root, "rtt_ms"), *mbit = json_object_get(root, "mbit_s");
    struct named *sorted = NULL;
    size_t link_count = 0;
    at_err_t err = read_array(r, root, "nodes", "", AT_PLAN_NODES_MAX, &list);
    if (err == AT_OK) err = count_links(r, root, json_array_size(list), &link_count);
    if (err == AT_OK) err = at_plan_nodes_alloc(n, (int)json_array_size(list), link_count, r->diag);
    if (err != AT_OK) return err;
    if ((sorted = calloc((size_t)n->count, sizeof *sorted)) == NULL)
        return at_fail(r->diag, AT_E_NOMEM, r->file, "no memory for %d nodes", n->count);
    for (int i = 0; i < n->count && err == AT_OK; i++)
        err = read_node(r, json_array_get(list, (size_t)i), i, &n->node[i]);
    if (err == AT_OK) err = sort_names(r, n, sorted);
    if (err == AT_OK && within != NULL) err = read_link(r, within, "within_site", &n->within_site);
    if (err == AT_OK && elsewhere != NULL) err = read_link(r, elsewhere, "elsewhere", &n->elsewhere);
    if (err == AT_OK && links != NULL) err = read_links(r, links, sorted, n);
    if (err == AT_OK && (rtt != NULL || mbit != NULL)) err = read_matrices(r, rtt, mbit, n);
    free(sorted);
    return err == AT_OK ? at_plan_nodes_index(n, r->diag) : err;
}

at_err at_nodes_parse(struct at_span json, const char *file, struct at_diag *diag, struct at_plan_nodes *ret_nodes)
{
    static const char *const known[] = {"nodes", "within_site", "elsewhere", "links", "rtt_ms", "mbit_s", "note", NULL};
    struct reader r = {file, diag};
    struct at_plan_nodes n = {0};
    json_t *root = NULL;
    at_err_t err = load(&r, json, AT_NODES_FILE_BYTES_MAX, &root);
    if (err == AT_OK) err = check_keys(&r, root, "file", known);
    if (err == AT_OK) err = read_nodes(&r, root, &n);
    json_decref(root);
    if (err == AT_OK)
        *ret_nodes = n;
    else
        at_plan_nodes_release(&n);
    return err;
}

/* ---- plans ---- */

void at_plan_file_release(struct at_plan_file *f)
{
    at_plan_release(&f->plan);
    free(f->host);
    *f = (struct at_plan_file){0};
}

at_err at_plan_file_find(const struct at_plan_file *f, const char *name, struct at_diag *diag, int *ret_host)
{
    char known[160] = "";
    for (int i = 0; i < f->hosts; i++) {
        if (strcmp(f->host[i].name, name) == 0) {
            *ret_host = i;
            return AT_OK;
        }
        size_t n = strlen(known);
        if (n + strlen(f->host[i].name) + 6 < sizeof known)
            snprintf(known + n, sizeof known - n, "%s%s", n != 0 ? ", " : "", f->host[i].name);
        else if (n + 5 < sizeof known && known[n - 1] != '.')
            snprintf(known + n, sizeof known - n, " ...");
    }
    return at_fail(diag, AT_E_USAGE, "node", "no node of the plan is called '%.63s'; it has %s", name, known);
}

/* Counts stages and ranks, checking that everything is a list of the right length. */
static at_err measure(const struct reader *r, const json_t *replicas, int *ret_stages, int *ret_ranks)
{
    int stages = 0, ranks = 0;
    for (size_t i = 0; i < json_array_size(replicas); i++) {
        const json_t *list = NULL, *members = NULL;
        at_err_t err = read_array(r, json_array_get(replicas, i), "stages", path_of("replicas[%zu]", i).s, 256, &list);
        for (size_t s = 0; err == AT_OK && s < json_array_size(list); s++) {
            struct path at = path_of("replicas[%zu].stages[%zu]", i, s);
            err = read_array(r, json_array_get(list, s), "ranks", at.s, 8, &members);
            if (err == AT_OK) ranks += (int)json_array_size(members);
            stages++;
        }
        if (err != AT_OK) return err;
        if (ranks > AT_PLAN_RANKS_MAX)
            return bad(r, AT_E_TOO_BIG, "replicas", path_of("more than %d ranks", AT_PLAN_RANKS_MAX).s);
    }
    *ret_stages = stages;
    *ret_ranks = ranks;
    return AT_OK;
}

static at_err read_rank(const struct reader *r, const json_t *j, const char *path, struct at_plan_file *f, int rank)
{
    struct at_plan_host h = {0};
    int i = 0;
    if (!json_is_object(j)) return bad(r, AT_E_DATA, path, "must be an object with a node");
    at_err_t err = read_text(r, j, "node", path, true, sizeof h.name, h.name);
    if (err == AT_OK) err = read_text(r, j, "address", path, false, sizeof h.address, h.address);
    if (err != AT_OK) return err;
    while (i < f->hosts && strcmp(f->host[i].name, h.name) != 0) i++;
    if (i == f->hosts) f->host[f->hosts++] = h;
    f->plan.node[rank] = i;
    return AT_OK;
}

static at_err read_stage(const struct reader *r, const json_t *j, const char *path, struct at_plan_file *f, int stage,
                         int *io_rank)
{
    int64_t first = 0, layers = 0;
    const json_t *ranks = json_object_get(j, "ranks");
    at_err_t err = read_whole(r, j, "layer_first", path, 0, 255, &first);
    if (err == AT_OK) err = read_whole(r, j, "layers", path, 1, 256, &layers);
    if (err != AT_OK) return err;
    f->plan.stage[stage] = (struct at_plan_stage){
        .layer_first = (int)first, .layers = (int)layers, .tp = (int)json_array_size(ranks), .rank_first = *io_rank};
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        err = read_rank(r, json_array_get(ranks, i), path_of("%s.ranks[%zu]", path, i).s, f, *io_rank);
        if (err != AT_OK) return err;
        ++*io_rank;
    }
    return AT_OK;
}

static at_err read_replicas(const struct reader *r, const json_t *replicas, struct at_plan_file *f)
{
    int stages = 0, ranks = 0, stage = 0, rank = 0;
    at_err_t err = measure(r, replicas, &stages, &ranks);
    if (err == AT_OK) err = at_plan_alloc(&f->plan, (int)json_array_size(replicas), stages, ranks, r->diag);
    if (err != AT_OK) return err;
    if ((f->host = calloc((size_t)ranks, sizeof *f->host)) == NULL)
        return at_fail(r->diag, AT_E_NOMEM, r->file, "no memory for %d ranks", ranks);
    for (int i = 0; i < f->plan.replicas; i++) {
        const json_t *list = json_object_get(json_array_get(replicas, (size_t)i), "stages");
        f->plan.replica[i] = (struct at_plan_replica){.stage_first = stage, .stages = (int)json_array_size(list)};
        for (size_t s = 0; s < json_array_size(list); s++) {
            struct path at = path_of("replicas[%d].stages[%zu]", i, s);
            err = read_stage(r, json_array_get(list, s), at.s, f, stage++, &rank);
            if (err != AT_OK) return err;
        }
    }
    return AT_OK;
}

static at_err read_plan(const struct reader *r, const json_t *root, struct at_plan_file *f)
{
    const json_t *replicas = NULL, *recompute = json_object_get(root, "recompute");
    int64_t version = 0, microbatches = 0;
    at_err_t err = read_whole(r, root, "plan", "", AT_PLAN_FILE_VERSION, AT_PLAN_FILE_VERSION, &version);
    if (err == AT_OK) err = read_text(r, root, "model", "file", true, sizeof f->model, f->model);
    if (err == AT_OK) err = read_whole(r, root, "microbatches", "", 1, 65536, &microbatches);
    if (err == AT_OK && recompute != NULL && !json_is_boolean(recompute))
        err = bad(r, AT_E_DATA, "recompute", "must be true or false");
    if (err == AT_OK) err = read_array(r, root, "replicas", "", AT_PLAN_RANKS_MAX, &replicas);
    if (err == AT_OK) err = read_replicas(r, replicas, f);
    if (err != AT_OK) return err;
    f->plan.microbatches = (int)microbatches;
    f->recompute = json_is_true(recompute);
    return AT_OK;
}

at_err at_plan_file_parse(struct at_span json, const char *file, struct at_diag *diag, struct at_plan_file *ret_plan)
{
    struct reader r = {file, diag};
    struct at_plan_file f = {0};
    json_t *root = NULL;
    at_err_t err = load(&r, json, AT_PLAN_FILE_BYTES_MAX, &root);
    if (err == AT_OK) err = read_plan(&r, root, &f);
    json_decref(root);
    if (err == AT_OK)
        *ret_plan = f;
    else
        at_plan_file_release(&f);
    return err;
}
