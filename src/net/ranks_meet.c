/* ranks_meet.c: who is who, how the mesh is made, and how a failure becomes everybody's.
 *
 *   the others                     rank 0
 *   HELLO  ->                      <- HELLO     facts are compared by the lower rank of each pair
 *                                  <- TABLE     when all have come
 *   dial the ranks below, HELLO both ways
 *   READY  -> when linked to all   <- GO        when all are */
#include "net/ranks_inner.h"
#include "os/sys.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct at_ranks_text at_ranks_text(const struct at_ranks_tls *w, int rank)
{
    struct at_ranks_text t;
    const char *name = rank >= 0 ? w->opt.run.name[rank] : "a stranger", *brace = strrchr(name, ')');
    const struct at_rank_entry *e = rank >= 0 ? &w->entry[rank] : NULL;
    if (e == NULL || e->host[0] == 0)
        snprintf(t.s, sizeof t.s, "%.120s", name);
    else {
        char port[8] = ""; /* of those that listen */
        if (e->port != 0) snprintf(port, sizeof port, ":%u", (unsigned)(uint16_t)e->port);
        snprintf(t.s, sizeof t.s, "%.*s%spid %u at %s%s)", brace != NULL ? (int)(brace - name) : 120, name,
                 brace != NULL ? "; " : " (", (unsigned)e->pid, e->host, port);
    }
    return t;
}

static const char *where_of(int rank, char text[24])
{
    snprintf(text, 24, "rank %d", rank);
    return text;
}

static bool is_up(const struct at_ranks_tls *w, int rank)
{
    return w->peer[rank] != NULL && w->peer[rank]->state == CONN_UP;
}

/* ---- failure ------------------------------------------------------------------------------------------------------ */

static void tell_verdict(struct at_ranks_tls *w, struct conn *c)
{
    struct at_buf note = {0};
    if (at_note_verdict_write(&w->verdict, &note) == AT_OK) at_ranks_note(w, c, AT_BOX_VERDICT, at_buf_span(&note));
    w->told++;
    at_buf_release(&note);
}

static void report(struct at_ranks_tls *w, const struct at_diag *what)
{
    struct at_buf note = {0};
    if (at_note_verdict_write(what, &note) == AT_OK) at_ranks_note(w, w->peer[0], AT_BOX_REPORT, at_buf_span(&note));
    at_buf_release(&note);
}

static void set_verdict(struct at_ranks_tls *w, const struct at_diag *what)
{
    if (w->verdict_ms != 0) return;
    w->verdict_ms = at_clock_mono_ms();
    w->verdict_turn = w->turns;
    pthread_mutex_lock(&w->mutex);
    w->verdict = *what;
    if (w->opt.rank_0_gone != NULL) *w->opt.rank_0_gone = w->rank != 0 && !w->told_by_0;
    for (int i = 0; i < w->conns; i++)
        if (at_box_let_go(&w->conn[i]->box) != AT_OK) at_ranks_close(w, w->conn[i]);
    w->failed = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->mutex);
    for (int i = 0; i < w->conns && w->rank == 0; i++)
        if (w->conn[i]->state == CONN_UP && w->conn[i]->rank > 0) tell_verdict(w, w->conn[i]);
    /* About a hung rank 0: should it wake up, it says the same. */
    if (w->rank != 0 && is_up(w, 0) && !w->told_by_0) report(w, what);
}

void at_ranks_notice(struct at_ranks_tls *w, const struct at_diag *what)
{
    if (w->verdict_ms != 0 || w->reported) return;
    if (w->rank == 0 || !is_up(w, 0)) {
        set_verdict(w, what);
        return;
    }
    w->reported = true; /* rank 0 answers with the verdict, or falls silent, which is one, too */
    report(w, what);
}

void at_ranks_notice_gone(struct at_ranks_tls *w, int rank, const char *why)
{
    struct at_diag what = {0};
    char where[24];
    at_fail(&what, AT_E_PEER, where_of(rank, where), "%s is gone: %s", at_ranks_text(w, rank).s, why);
    if (rank == 0)
        set_verdict(w, &what);
    else
        at_ranks_notice(w, &what);
}

static void notice_rank(struct at_ranks_tls *w, int rank, const char *does)
{
    struct at_diag what = {0};
    char where[24];
    at_fail(&what, AT_E_PEER, where_of(rank, where), "%s %s", at_ranks_text(w, rank).s, does);
    at_ranks_notice(w, &what);
}

/* A dialled link ended before it was greeted. Rank 0 may not have started yet, any rank may be busy with strangers. */
static void lost_early(struct at_ranks_tls *w, struct conn *c, const char *why)
{
    char text[220];
    bool again = c->rank == 0 ? w->awake_ms < w->opt.wait_ms : w->awake_ms - w->tabled_awake_ms < AT_RANKS_GREETING_MS;
    if (c->tls.wrong_key && c->rank == 0)
        snprintf(text, sizeof text, "has another secret than rank %d: every machine needs the same --secret file",
                 w->rank);
    else if (again && !c->tls.wrong_key) {
        w->dial_ms[c->rank] = at_clock_mono_ms() + AT_RANKS_REDIAL_MS;
        if (c->rank == 0) w->host++;
        return;
    } else
        snprintf(text, sizeof text, "cannot be reached by rank %d: %.150s", w->rank, why);
    notice_rank(w, c->rank, text);
}

void at_ranks_lost(struct at_ranks_tls *w, struct conn *c, const char *why)
{
    char reason[AT_TLS_REASON_BYTES];
    bool early = c->state != CONN_UP || !c->greeted, expects;
    /* copied, for it may lie in what is released now */
    snprintf(reason, sizeof reason, "%s%s", why, early && c->state == CONN_UP ? " before it greeted" : "");
    pthread_mutex_lock(&w->mutex);
    expects = at_box_expects(&c->box) || c->box.sends.first != NULL;
    pthread_mutex_unlock(&w->mutex);
    at_ranks_close(w, c);
    if (w->verdict_ms != 0 || w->release_ms != 0 || c->rank < 0 || (c->bye && !expects)) return;
    if (early && c->dialed)
        lost_early(w, c, reason);
    else if (!early)
        at_ranks_notice_gone(w, c->rank, reason);
}

/* ---- the mesh ----------------------------------------------------------------------------------------------------- */

void at_ranks_proven(struct at_ranks_tls *w, struct conn *c)
{
    struct at_rank_hello h = {.rank = (uint32_t)w->rank, .ranks = (uint32_t)w->ranks, .pid = (uint32_t)getpid()};
    struct at_buf note = {0};
    for (int i = 0; i < w->ranks && !c->dialed; i++)
        if (i != w->rank && at_node_id_eq(&c->tls.peer, &w->id[i])) c->rank = i;
    if (c->rank < 0 || (!c->dialed && c->rank < w->rank)) { /* the higher rank dials */
        c->rank = -1;
        at_ranks_close(w, c);
        return;
    }
    h.port = w->entry[w->rank].port;
    h.facts = w->opt.run.facts;
    if (h.facts > 0) memcpy(h.fact, w->opt.run.fact, (size_t)h.facts * sizeof h.fact[0]);
    if (at_note_hello_write(&h, &note) == AT_OK) at_ranks_note(w, c, AT_BOX_HELLO, at_buf_span(&note));
    at_buf_release(&note);
    if (w->verdict_ms != 0 && w->rank == 0) tell_verdict(w, c);
}

static void take_hello(struct at_ranks_tls *w, struct conn *c, struct at_span note)
{
    struct at_rank_hello h = {0};
    char text[280], what[200];
    bool known = at_note_hello_read(note, &h) == AT_OK;
    if (w->peer[c->rank] != NULL || c->greeted) {
        notice_rank(w, c->rank, "has come twice: one process per rank");
        return;
    }
    pthread_mutex_lock(&w->mutex);
    struct at_rank_entry *e = &w->entry[c->rank];
    e->pid = h.pid;
    e->port = h.port;
    if (e->host[0] == 0) memcpy(e->host, c->host, sizeof e->host);
    c->greeted = true;
    w->peer[c->rank] = c;
    pthread_mutex_unlock(&w->mutex);
    if (c->rank < w->rank) return; /* the lower of two ranks judges */
    if (!known)
        notice_rank(w, c->rank, "is another version of this program: use the same everywhere");
    else if (h.rank != (uint32_t)c->rank || h.ranks != (uint32_t)w->ranks) {
        snprintf(text, sizeof text, "was started as rank %u of %u where rank %d knows %d ranks", h.rank, h.ranks,
                 w->rank, w->ranks);
        notice_rank(w, c->rank, text);
    } else if (at_note_facts_differ(&h, w->opt.run.fact, w->opt.run.facts, w->rank, what, sizeof what)) {
        snprintf(text, sizeof text, "has %s: all ranks of a run must have the same", what);
        notice_rank(w, c->rank, text);
    }
}

static void take_table(struct at_ranks_tls *w, struct conn *c, struct at_span note)
{
    pthread_mutex_lock(&w->mutex);
    at_err_t err = w->tabled ? AT_E_PEER : at_note_table_read(note, w->ranks, w->entry);
    pthread_mutex_unlock(&w->mutex);
    if (err != AT_OK) {
        notice_rank(w, c->rank, "sends a table that is none");
        return;
    }
    w->tabled = true;
    w->tabled_awake_ms = w->awake_ms;
    for (int i = 1; i < w->rank && !w->opt.star; i++) w->dial_ms[i] = 0;
}

void at_ranks_on_note(struct at_ranks_tls *w, struct conn *c, enum at_box_kind kind, struct at_span note)
{
    struct at_diag told;
    bool from_0 = c->rank == 0, to_0 = w->rank == 0;
    if (w->verdict_ms != 0) return;
    if (kind == AT_BOX_VERDICT && from_0 && at_note_verdict_read(note, &told) == AT_OK) {
        w->told_by_0 = true;
        set_verdict(w, &told);
    } else if (kind == AT_BOX_HELLO)
        take_hello(w, c, note);
    else if (!c->greeted)
        notice_rank(w, c->rank, "does not greet first");
    else if (kind == AT_BOX_TABLE && from_0)
        take_table(w, c, note);
    else if (kind == AT_BOX_READY && to_0)
        w->ready[c->rank] = true;
    else if (kind == AT_BOX_REPORT && to_0 && at_note_verdict_read(note, &told) == AT_OK)
        at_ranks_notice(w, &told);
    else if (kind == AT_BOX_BYE)
        c->bye = true;
    else if (kind == AT_BOX_GO && from_0) {
        pthread_mutex_lock(&w->mutex);
        w->go = true;
        pthread_cond_broadcast(&w->wake);
        pthread_mutex_unlock(&w->mutex);
    } else
        notice_rank(w, c->rank, "says what it may not say");
}

/* The next of the addresses that rank 0 may have for us. */
static void dial_rank_0(struct at_ranks_tls *w)
{
    char host[AT_NOTE_HOST_BYTES];
    int count = 1;
    for (const char *p = w->opt.host; (p = strchr(p, ',')) != NULL; p++) count++;
    const char *begin = w->opt.host;
    for (int i = w->host % count; i > 0; i--) begin = strchr(begin, ',') + 1;
    snprintf(host, sizeof host, "%.*s", (int)strcspn(begin, ","), begin);
    at_ranks_dial(w, 0, host, w->opt.port);
}

static void dial_all_due(struct at_ranks_tls *w, uint64_t now_ms)
{
    for (int i = 0; i < w->rank && w->verdict_ms == 0; i++) {
        if (w->dial_ms[i] > now_ms) continue;
        w->dial_ms[i] = UINT64_MAX; /* until this attempt has failed */
        if (i == 0)
            dial_rank_0(w);
        else
            at_ranks_dial(w, i, w->entry[i].host, (uint16_t)w->entry[i].port);
    }
}

static int count_greeted(const struct at_ranks_tls *w, int *ret_missing)
{
    int n = 0;
    for (int i = w->ranks - 1; i >= 0; i--) {
        if (i == w->rank) continue;
        if (w->peer[i] != NULL)
            n++;
        else
            *ret_missing = i;
    }
    return n;
}

static void send_table(struct at_ranks_tls *w)
{
    struct at_buf note = {0};
    w->tabled = true;
    at_err_t err = at_note_table_write(w->entry, w->ranks, &note);
    AT_ASSERT(err == AT_OK || err == AT_E_NOMEM);
    for (int i = 1; i < w->ranks && err == AT_OK; i++) at_ranks_note(w, w->peer[i], AT_BOX_TABLE, at_buf_span(&note));
    at_buf_release(&note);
    if (err != AT_OK) notice_rank(w, 0, "has no memory for the table of ranks");
}

static void meet_at_rank_0(struct at_ranks_tls *w)
{
    char text[80];
    int missing = 0, here = count_greeted(w, &missing), ready = 0;
    if (w->entry[0].host[0] == 0) {
        pthread_mutex_lock(&w->mutex);
        const char *host = w->opt.host != NULL ? w->opt.host : "";
        snprintf(w->entry[0].host, sizeof w->entry[0].host, "%.*s", (int)strcspn(host, ","), host);
        w->entry[0].port = w->opt.port;
        w->entry[0].pid = (uint32_t)getpid();
        pthread_mutex_unlock(&w->mutex);
    }
    if (here == w->ranks - 1 && !w->tabled) send_table(w);
    if (!w->tabled && w->awake_ms > w->opt.wait_ms) {
        if (here < w->ranks - 2)
            snprintf(text, sizeof text, "and %d more have not come within %u s", w->ranks - 2 - here,
                     (unsigned)w->opt.wait_ms / 1000);
        else
            snprintf(text, sizeof text, "has not come within %u s", (unsigned)w->opt.wait_ms / 1000);
        notice_rank(w, missing, text);
    }
    for (int i = 1; i < w->ranks; i++) ready += w->ready[i];
    if (!w->tabled || ready < w->ranks - 1) return;
    for (int i = 1; i < w->ranks; i++) at_ranks_note(w, w->peer[i], AT_BOX_GO, (struct at_span){0});
    pthread_mutex_lock(&w->mutex);
    w->go = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->mutex);
}

void at_ranks_meet(struct at_ranks_tls *w, uint64_t now_ms)
{
    int missing;
    if (w->verdict_ms != 0) return;
    if (!w->go && w->rank == 0) {
        meet_at_rank_0(w);
    } else if (!w->go) {
        dial_all_due(w, now_ms);
        if (w->tabled && !w->said_ready && count_greeted(w, &missing) == (w->opt.star ? 1 : w->ranks - 1)) {
            w->said_ready = true;
            at_ranks_note(w, w->peer[0], AT_BOX_READY, (struct at_span){0});
        }
    }
    /* Something is still expected of one that has ended. */
    for (int i = 0; i < w->conns && w->release_ms == 0 && w->verdict_ms == 0; i++) {
        struct conn *c = w->conn[i];
        if (c->state != CONN_CLOSED || !c->greeted) continue;
        pthread_mutex_lock(&w->mutex);
        bool expects = at_box_expects(&c->box) || c->box.sends.first != NULL;
        pthread_mutex_unlock(&w->mutex);
        if (expects) at_ranks_notice_gone(w, c->rank, "connection closed");
    }
}
