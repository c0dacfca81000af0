#include "node/node_report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Nothing here is checked step by step: a field that could not be made is missing, and then the whole is refused. */
struct fields {
    json_t *object;
    bool failed;
};

static void put(struct fields *f, const char *name, json_t *value)
{
    f->failed |= json_object_set_new(f->object, name, value) != 0; /* takes NULL as a failure */
}
static void put_text(struct fields *f, const char *name, const char *text)
{
    put(f, name, json_string(text));
}
static void put_int(struct fields *f, const char *name, uint64_t v)
{
    put(f, name, json_integer((json_int_t)v));
}
static void put_bool(struct fields *f, const char *name, bool v)
{
    put(f, name, json_boolean(v));
}
static void put_real(struct fields *f, const char *name, double v)
{
    put(f, name, isfinite(v) ? json_real(v) : json_null());
}

static double share_of(uint64_t confirmed, uint64_t all)
{
    return all ? (double)confirmed / (double)all : 0.0;
}

static const char *member_phase(const struct at_node_status *s, const struct at_node_member_status *m)
{
    if (m->self) return at_node_phase_text(s->phase);
    if (m->left) return "left";
    if (!m->online) return "offline";
    if (m->committed) return "committed";
    return m->in_round ? "training" : "waiting";
}

static void put_part(struct fields *f, const struct at_part *part)
{
    char why[AT_PART_TEXT];
    at_part_text(part, why);
    put_text(f, "part", at_part_word(part));
    put_text(f, "part_why", why);
    if (part->line_kbit != 0) put_real(f, "line_mbit_s", (double)part->line_kbit / 1000);
    if (part->stages == 0) return;
    put_int(f, "stage", part->stage);
    put_int(f, "stages", part->stages);
    put_int(f, "layer_first", part->layer_first);
    put_int(f, "layers", part->layers);
}

static json_t *member_json(const struct at_node_status *s, const struct at_node_member_status *m, uint64_t all,
                           bool *failed)
{
    struct fields f = {json_object(), false};
    put_text(&f, "id", at_node_id_hex(&m->id).s);
    put_int(&f, "replica", m->replica);
    put_text(&f, "name", m->name);
    put_text(&f, "role", m->steward ? "steward" : "member");
    put_bool(&f, "self", m->self);
    put_bool(&f, "online", m->online);
    put_text(&f, "phase", member_phase(s, m));
    put_int(&f, "step", m->step);
    put_int(&f, "tokens", m->tokens);
    put_real(&f, "tokens_per_s", m->tokens_per_s);
    put_int(&f, "points_pending", m->points_pending);
    put_int(&f, "points_confirmed", m->points_confirmed);
    put_real(&f, "share", share_of(m->points_confirmed, all));
    if (m->part.role != AT_GROUP_ROLE_NONE) put_part(&f, &m->part);
    *failed |= f.failed;
    return f.object;
}

static void put_members(struct fields *f, const struct at_node_status *s)
{
    json_t *list = json_array();
    uint64_t all = 0, pending = 0, confirmed = 0;
    for (uint32_t i = 0; i < s->member_count; i++) all += s->members[i].points_confirmed;
    for (uint32_t i = 0; i < s->member_count; i++) {
        const struct at_node_member_status *m = &s->members[i];
        if (m->self) {
            pending = m->points_pending;
            confirmed = m->points_confirmed;
        }
        f->failed |= json_array_append_new(list, member_json(s, m, all, &f->failed)) != 0;
    }
    put_int(f, "points_pending", pending);
    put_int(f, "points_confirmed", confirmed);
    put_real(f, "share", share_of(confirmed, all));
    put(f, "members", list);
}

static void put_run(struct fields *f, const struct at_node_status *s)
{
    put_bool(f, "ok", true);
    put_text(f, "run_id", at_hash_hex(s->run).s);
    put_text(f, "node_id", at_node_id_hex(&s->id).s);
    put_text(f, "role", s->steward ? "steward" : "member");
    put_int(f, "term", s->term);
    put_int(f, "stewards", s->seats);
    put_int(f, "stewards_here", s->seats_here);
    put_bool(f, "abstains", s->abstains);
    put_text(f, "phase", at_node_phase_text(s->phase));
    put_bool(f, "joined", s->joined);
    put_bool(f, "desync", s->desync);
    put_int(f, "round", s->round);
    put_int(f, "rounds", s->rounds);
    put_int(f, "rounds_done", s->rounds_done);
    put_int(f, "step", s->step);
    put_int(f, "steps", s->steps);
    put_int(f, "tokens", s->tokens);
    put_real(f, "tokens_per_s", s->tokens_per_s);
    put_real(f, "heldout_loss_first", s->heldout_loss_first);
    put_real(f, "heldout_loss_last", s->heldout_loss_last);
    put_int(f, "heldout_rounds", s->heldout_rounds);
    put_int(f, "peers", s->peers);
    put_int(f, "peers_punched", s->peers_punched);
    put_int(f, "peers_relayed", s->peers_relayed);
    put_int(f, "peers_known", s->peers_known);
    put_int(f, "hops", s->hops);
    put_int(f, "fetched_bytes", s->fetched_bytes);
    put_int(f, "fetch_bytes", s->fetch_bytes);
    put_text(f, "state_root", at_hash_hex(s->state_root).s);
    put_int(f, "state_round", s->state_round);
    put_int(f, "checkpoint_holders", s->checkpoint_holders);
    put_int(f, "records", s->log_size);
    put_text(f, "head", at_hash_hex(s->log_root).s);
    put_bool(f, "ended", s->ended);
}

at_err_t at_report_write(const struct at_node_status *s, const struct at_report_extra *extra, struct at_buf *out)
{
    struct fields f = {json_object(), false};
    put_run(&f, s);
    put_members(&f, s);
    put_text(&f, "invite", extra->invite);
    put_int(&f, "relays", extra->relays);
    put_int(&f, "relays_max", extra->relays_max);
    put_int(&f, "relay_bytes_per_s", extra->relay_bytes_per_s);
    put_int(&f, "relayed_bytes", extra->relayed_bytes);
    put(&f, "outside", extra->outside.s[0] ? json_string(extra->outside.s) : json_null());
    put_int(&f, "threads", (uint64_t)extra->threads);
    put_text(&f, "kernels", extra->kernels);
    put_int(&f, "sent_control_bytes", extra->control_bytes);
    put_int(&f, "sent_bulk_bytes", extra->bulk_bytes);
    /* A line for people may hold a peer's words; what is no UTF-8 is left out rather than failing the whole. */
    json_t *event = json_string(s->last_event);
    put(&f, "last_event", event ? event : json_string(""));
    char *text = f.failed ? NULL : json_dumps(f.object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    at_err_t err = text ? at_buf_append(out, text, strlen(text)) : AT_E_NOMEM;
    free(text);
    json_decref(f.object);
    return err;
}
