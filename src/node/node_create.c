/* node_create.c: making run folders: a founder's (init) and a member's (join); and looking at one. */
#include "node/node.h"
#include "node/node_folder.h"
#include "os/sys.h"
#include "store/blobs.h"
#include "store/store.h"
#include "train/data.h"
#include "wire/genesis.h"
#include "wire/printable.h"

#include <stdio.h>
#include <string.h>

#define TEXT_BYTES_MAX ((size_t)4 << 30)
#define ISSUANCE       1000000000u
#define ROUND_MS_MIN   60000u
#define ROUND_MS_MAX   (7ull * 86400 * 1000) /* what a genesis may say */
#define SLOW_FLOPS_MS  2000000u              /* per millisecond: a core of an old laptop that does something else too */

static at_err prepare_dir(const char *dir, struct at_diag *diag, struct at_folder *f)
{
    bool empty = false;
    if (!dir || strlen(dir) >= sizeof f->dir || !*dir)
        return at_fail(diag, AT_E_USAGE, "--dir", "the folder's path is empty or too long");
    snprintf(f->dir, sizeof f->dir, "%s", dir);
    struct at_folder old;
    if (at_folder_is_one(dir) && at_folder_load(dir, NULL, &old) == AT_OK)
        return at_fail(diag, AT_E_DATA, dir,
                       "%s holds run %.16s... already; nothing was changed: choose another folder", dir,
                       at_hash_hex(old.run).s);
    at_err_t err = at_dir_is_empty(dir, diag, &empty);
    if (!err && !empty)
        err = at_fail(diag, AT_E_DATA, dir, "%s is not empty; nothing was changed: choose another folder", dir);
    return err ? err : at_dir_make(dir, 0700, diag);
}

static at_err set_listen(struct at_folder *f, const char *listen_at, const char *announce, struct at_diag *diag)
{
    uint16_t port = 0;
    at_err_t err = at_address_parse(listen_at ? listen_at : "127.0.0.1:0", diag, f->host, &port);
    if (!err) err = at_address_probe(f->host, port, diag, &f->port);
    return err || !announce ? err : at_folder_announce(f, announce, diag);
}

/* The last part of a path, printable and short enough for the genesis. */
static void shard_name(const char *path, char ret_name[AT_GENESIS_TEXT_MAX + 1])
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t n = 0;
    for (; base[n] && n < AT_GENESIS_TEXT_MAX; n++) ret_name[n] = base[n] > 32 && base[n] < 127 ? base[n] : '_';
    ret_name[n] = 0;
}

/* Reads and checks every text; `text` holds them all, one after the other, and `g` names them. */
static at_err read_texts(const struct at_node_init_options *o, struct at_genesis *g, struct at_buf *text,
                         struct at_diag *diag)
{
    if (o->data_count < 1) return at_fail(diag, AT_E_USAGE, "--data", "name at least one text file");
    if (o->data_count > AT_GENESIS_SHARDS_MAX)
        return at_fail(diag, AT_E_USAGE, "--data", "%d files: the most is %d", o->data_count, AT_GENESIS_SHARDS_MAX);
    text->bytes_max = TEXT_BYTES_MAX;
    for (int i = 0; i < o->data_count; i++) {
        size_t from = text->n;
        struct at_text_shard *s = &g->shards[i];
        at_err_t err = at_file_read(o->data_path[i], TEXT_BYTES_MAX - from, diag, text);
        struct at_span part = at_span(text->p ? text->p + from : NULL, text->n - from);
        if (!err) err = at_text_check(part, o->data_path[i], diag);
        if (err) return err;
        s->hash = at_sha256(part.p, part.n);
        s->bytes = part.n;
        shard_name(o->data_path[i], s->name);
        for (int k = 0; k < i; k++)
            if (at_hash_eq(g->shards[k].hash, s->hash))
                return at_fail(diag, AT_E_DATA, o->data_path[i], "%s and %s hold the same text", o->data_path[k],
                               o->data_path[i]);
    }
    g->shard_count = (uint32_t)o->data_count;
    struct at_data check;
    return at_data_init(&check, at_buf_span(text), (long)g->model.seq_len, g->train.seed, g->heldout_fraction,
                        g->heldout_bytes, diag);
}

/* The dead are noticed by their links; this only ends a round for peers that are linked and never finish, so it must
 * leave time for the slowest honest member. A unit's share of the held-out loss is an eighth of it at most, and is given up
 * when it takes longer than an eighth of the round's time (node_compute.c). */
static uint32_t default_round_ms(const struct at_genesis *g)
{
    uint64_t unit_ms = at_genesis_unit_tokens(g) * at_model_flops_per_token(&g->model) / SLOW_FLOPS_MS;
    uint64_t ms = ROUND_MS_MIN + unit_ms;
    return (uint32_t)(ms < ROUND_MS_MAX ? ms : ROUND_MS_MAX);
}

static at_err set_outer(const struct at_node_init_options *o, struct at_genesis *g, struct at_diag *diag)
{
    enum at_outer_kind kind;
    at_err_t err = at_outer_kind_find(o->outer ? o->outer : "mean", diag, &kind);
    if (err) return err;
    if (kind == AT_OUTER_AUTO)
        return at_fail(diag, AT_E_USAGE, "--outer",
                       "auto measures the links between known machines, and members come later: choose mean (4 bytes a "
                       "weight and round), diloco (about half a byte) or sparse (a few hundredths, for slow links)");
    at_outer_config_default(&g->outer, kind);
    if (o->keep) g->outer.k = o->keep;
    if (o->young && kind == AT_OUTER_MEAN)
        return at_fail(diag, AT_E_USAGE, "--young", "--young goes with --outer diloco and sparse");
    if (o->young) at_outer_config_young(&g->outer, *o->young);
    return at_outer_config_check(&g->outer, &g->train, diag);
}

static at_err make_genesis(const struct at_node_init_options *o, struct at_genesis *g, struct at_diag *diag)
{
    const struct at_preset *preset = NULL;
    at_err_t err = at_preset_find(o->preset ? o->preset : "nano", diag, &preset);
    if (err) return err;
    *g = (struct at_genesis){.profile = "F32-1", .tokenizer = "bytes", .model = preset->model, .train = preset->train};
    snprintf(g->preset, sizeof g->preset, "%s", preset->name);
    if (o->rounds) g->train.rounds = o->rounds;
    if (o->steps) g->train.steps = o->steps;
    if (o->seed) g->train.seed = *o->seed;
    g->heldout_fraction = AT_HELDOUT_FRACTION;
    g->heldout_bytes = AT_HELDOUT_BYTES_DEFAULT;
    g->min_members = o->min_members ? o->min_members : 1;
    g->stages = o->stages > 1 ? o->stages : 0;
    g->groups_by_log = g->stages != 0 && o->groups_by_log;
    g->issuance = ISSUANCE;
    g->created_ms = at_clock_unix_ms();
    if (g->model.vocab != AT_BYTE_VOCAB)
        return at_fail(diag, AT_E_USAGE, preset->name, "preset %s does not read bytes; it is for benchmarks only",
                       preset->name);
    if ((err = at_train_config_check(&g->train, diag)) != AT_OK) return err;
    if ((err = set_outer(o, g, diag)) != AT_OK) return err;
    if (g->stages > g->model.layers)
        return at_fail(diag, AT_E_USAGE, "--stages", "%u: this model has %u layers, so it takes 1 to %u stages",
                       g->stages, g->model.layers, g->model.layers);
    if (g->stages && g->outer.kind != AT_OUTER_MEAN)
        return at_fail(
            diag, AT_E_USAGE, "--stages",
            "members that share a unit join their updates by the mean for now: --stages %u goes with --outer "
            "mean, and --outer %s with --stages 1",
            g->stages, at_outer_kind_name(g->outer.kind));
    g->round_ms_max = o->round_ms_max ? o->round_ms_max : default_round_ms(g);
    return AT_OK;
}

static at_err set_name(struct at_folder *f, const char *name, const char *otherwise, struct at_diag *diag)
{
    if (!name) name = otherwise;
    if (strlen(name) > AT_NAME_BYTES_MAX || !at_printable(at_span(name, strlen(name))))
        return at_fail(diag, AT_E_USAGE, "--name", "the name must be at most %d bytes of printable text",
                       AT_NAME_BYTES_MAX);
    snprintf(f->name, sizeof f->name, "%s", name);
    return AT_OK;
}

static at_err write_shards(const struct at_folder *f, const struct at_genesis *g, const struct at_buf *text,
                           struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_blobs blobs = {0};
    struct at_hash hash;
    size_t at = 0;
    at_err_t err = at_folder_path(f, "data", diag, path);
    if (!err) err = at_blobs_open(&blobs, path, 0, diag);
    for (uint32_t i = 0; i < g->shard_count && !err; i++) {
        err = at_blobs_put(&blobs, at_span(text->p + at, (size_t)g->shards[i].bytes), diag, &hash);
        at += (size_t)g->shards[i].bytes;
    }
    at_blobs_release(&blobs);
    return err;
}

static at_err write_ledger(struct at_folder *f, const struct at_genesis *g, struct at_diag *diag)
{
    char path[AT_PATH_BYTES];
    struct at_buf bytes = {0};
    struct at_store *store = NULL;
    at_err_t err = at_genesis_encode(g, diag, &bytes);
    if (!err) {
        f->run = at_genesis_run_id(at_buf_span(&bytes));
        err = at_folder_path(f, "ledger.sqlite", diag, path);
    }
    if (!err) err = at_store_create(path, at_buf_span(&bytes), diag, &store);
    at_store_close(store);
    at_buf_release(&bytes);
    return err;
}

static at_err_t remove_one(void *user, const char *name)
{
    char path[AT_PATH_BYTES];
    return at_path_join(user, name, NULL, path) == AT_OK ? at_file_remove(path, NULL) : AT_OK;
}

/* A founding that failed half-way leaves the folder as empty as it was. */
static void sweep(const struct at_folder *f)
{
    char path[AT_PATH_BYTES];
    at_err_t err = at_folder_path(f, "data", NULL, path);
    if (!err && at_file_exists(path)) err = at_dir_list(path, NULL, remove_one, path);
    if (!err) err = at_dir_remove_empty(path);
    if (!err) err = at_dir_list(f->dir, NULL, remove_one, (void *)(uintptr_t)f->dir);
    if (err) return; /* best effort: the first error is the one that is told */
}

static at_err fill_place(const struct at_folder *f, uint64_t log_size, struct at_hash log_root, struct at_diag *diag,
                         struct at_node_place *ret_place)
{
    struct at_node_place p = {.run = f->run, .node = f->key.id, .port = f->port};
    snprintf(p.host, sizeof p.host, "%s", f->host);
    at_err_t err = at_folder_invite(f, log_size, log_root, diag, p.invite);
    if (!err) *ret_place = p;
    return err;
}

at_err_t at_node_init(const struct at_node_init_options *o, struct at_diag *diag, struct at_node_place *ret_place)
{
    struct at_folder f = {0};
    struct at_genesis *g = &(struct at_genesis){0};
    struct at_buf text = {0};
    bool made = false;
    at_err_t err = make_genesis(o, g, diag);
    if (!err) err = set_name(&f, o->name, "founder", diag);
    if (!err) err = read_texts(o, g, &text, diag);
    if (!err) err = set_listen(&f, o->listen, o->announce, diag);
    if (!err) err = prepare_dir(o->dir, diag, &f);
    made = err == AT_OK;
    if (!err) err = at_keypair_generate(&f.key);
    g->steward = f.key.id;
    if (!err) err = at_genesis_check(g, diag);
    if (!err) err = write_shards(&f, g, &text, diag);
    if (!err) err = write_ledger(&f, g, diag);
    if (!err) err = at_folder_save(&f, diag);
    if (err && made) sweep(&f);
    if (!err) err = fill_place(&f, 0, (struct at_hash){{0}}, diag, ret_place);
    at_buf_release(&text);
    return err;
}

at_err_t at_node_join(const struct at_node_join_options *o, struct at_diag *diag, struct at_node_place *ret_place)
{
    struct at_folder f = {0}, old;
    struct at_invite invite;
    at_err_t err = at_invite_decode(o->invite, diag, &invite);
    if (err) return err;
    if (o->dir && at_folder_is_one(o->dir)) {
        err = at_folder_load(o->dir, diag, &old);
        if (!err && !at_hash_eq(old.run, invite.run))
            err = at_fail(diag, AT_E_DATA, o->dir,
                          "%s belongs to run %.16s..., the invite to run %.16s...; nothing was changed", o->dir,
                          at_hash_hex(old.run).s, at_hash_hex(invite.run).s);
        if (!err && !old.has_contact)
            err = at_fail(diag, AT_E_DATA, o->dir, "%s is the founder's own folder: run it with start", o->dir);
        if (!err) { /* the same member again; a newer invite may know a better address */
            struct at_invite before = old.contact;
            old.contact = invite;
            if (!invite.has_ticket) { /* the one that it has stays good */
                old.contact.has_ticket = before.has_ticket;
                old.contact.ticket = before.ticket;
            }
            err = at_folder_save(&old, diag);
        }
        return err ? err : fill_place(&old, 0, (struct at_hash){{0}}, diag, ret_place);
    }
    err = set_name(&f, o->name, "member", diag);
    if (!err) err = set_listen(&f, o->listen, o->announce, diag);
    if (!err) err = prepare_dir(o->dir, diag, &f);
    if (!err) err = at_keypair_generate(&f.key);
    f.run = invite.run;
    f.has_contact = true;
    f.contact = invite;
    if (!err) err = at_folder_save(&f, diag);
    return err ? err : fill_place(&f, 0, (struct at_hash){{0}}, diag, ret_place);
}

at_err_t at_node_folder(const char *dir, struct at_diag *diag, struct at_node_place *ret_place)
{
    struct at_folder f;
    char path[AT_PATH_BYTES];
    struct at_store *store = NULL;
    struct at_log_checkpoint newest[AT_SEATS_MAX] = {0};
    uint32_t count = 0;
    at_err_t err = at_folder_load(dir, diag, &f);
    if (!err) err = at_folder_path(&f, "ledger.sqlite", diag, path);
    if (err) return err;
    if (at_store_open_readonly(path, NULL, &store) == AT_OK && /* a member that has not joined yet has none */
        at_store_newest_checkpoint(store, NULL, newest, &count) != AT_OK)
        newest[0] = (struct at_log_checkpoint){0};
    at_store_close(store);
    return fill_place(&f, newest[0].size, newest[0].root, diag, ret_place);
}

at_err_t at_node_steward_invite(const char *dir, const char *invite, struct at_diag *diag,
                                char ret_text[AT_INVITE_TEXT_MAX + 1])
{
    struct at_folder f;
    struct at_invite i;
    struct at_keypair key;
    at_err_t err = at_folder_load(dir, diag, &f);
    if (!err && f.has_contact)
        err = at_fail(diag, AT_E_USAGE, dir,
                      "%s is a member's folder: only the founder says who may hold a seat while the run is young", dir);
    if (!err) err = at_invite_decode(invite, diag, &i);
    if (!err && at_keypair_generate(&key)) err = at_fail(diag, AT_E_ENV, dir, "the system gives no random bytes");
    if (err) return err;
    i.has_ticket = true;
    i.ticket = at_ticket_make(&f.key, f.run, &key);
    err = at_invite_encode(&i, diag, ret_text);
    memset(&key, 0, sizeof key);
    memset(&i.ticket, 0, sizeof i.ticket);
    return err;
}
