#include "net/ranks_note.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "ATRANKS2";

enum { HELLO_HEAD = 28, ENTRY = 8 + AT_NOTE_HOST_BYTES };

static at_err put32(struct at_buf *out, uint32_t v)
{
    uint8_t b[4];
    at_store_le32(b, v);
    return at_buf_append(out, b, sizeof b);
}

/* NUL-padded; what does not fit is cut. */
static at_err put_text(struct at_buf *out, const char *text, size_t bytes)
{
    uint8_t *p;
    at_err_t err = at_buf_reserve(out, bytes, &p);
    if (err != AT_OK) return err;
    size_t n = strlen(text) < bytes ? strlen(text) : bytes - 1;
    memset(p, 0, bytes);
    memcpy(p, text, n);
    out->n += bytes;
    return AT_OK;
}

/* A stranger's text: ended, and nothing in it that a terminal would obey. */
static void get_text(const uint8_t *p, size_t bytes, char *ret)
{
    memcpy(ret, p, bytes);
    ret[bytes - 1] = 0;
    for (char *c = ret; *c != 0; c++)
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    size_t n = strlen(ret);
    memset(ret + n, 0, bytes - n);
}

at_err_t at_note_hello_write(const struct at_rank_hello *h, struct at_buf *out)
{
    const uint32_t number[] = {h->rank, h->ranks, h->pid, h->port, (uint32_t)h->facts};
    at_err_t err = at_buf_append(out, magic, sizeof magic);
    for (size_t i = 0; err == AT_OK && i < sizeof number / sizeof number[0]; i++) err = put32(out, number[i]);
    for (int i = 0; err == AT_OK && i < h->facts; i++) {
        err = put_text(out, h->fact[i].name, sizeof h->fact[i].name);
        if (err == AT_OK) err = put_text(out, h->fact[i].value, sizeof h->fact[i].value);
    }
    return err;
}

at_err_t at_note_hello_read(struct at_span note, struct at_rank_hello *ret_hello)
{
    struct at_rank_hello h = {0};
    const size_t each = sizeof h.fact[0].name + sizeof h.fact[0].value;
    if (note.n < HELLO_HEAD || memcmp(note.p, magic, sizeof magic) != 0) return AT_E_PEER;
    h.rank = at_load_le32(note.p + 8);
    h.ranks = at_load_le32(note.p + 12);
    h.pid = at_load_le32(note.p + 16);
    h.port = at_load_le32(note.p + 20);
    uint32_t facts = at_load_le32(note.p + 24);
    if (h.port > UINT16_MAX || facts > AT_RANKS_FACTS_MAX || note.n != HELLO_HEAD + facts * each) return AT_E_PEER;
    h.facts = (int)facts;
    for (int i = 0; i < h.facts; i++) {
        const uint8_t *p = note.p + HELLO_HEAD + (size_t)i * each;
        get_text(p, sizeof h.fact[i].name, h.fact[i].name);
        get_text(p + sizeof h.fact[i].name, sizeof h.fact[i].value, h.fact[i].value);
    }
    *ret_hello = h;
    return AT_OK;
}

at_err_t at_note_table_write(const struct at_rank_entry *entry, int ranks, struct at_buf *out)
{
    at_err_t err = put32(out, (uint32_t)ranks);
    for (int i = 0; err == AT_OK && i < ranks; i++) {
        err = put32(out, entry[i].pid);
        if (err == AT_OK) err = put32(out, entry[i].port);
        if (err == AT_OK) err = put_text(out, entry[i].host, sizeof entry[i].host);
    }
    return err;
}

at_err_t at_note_table_read(struct at_span note, int ranks, struct at_rank_entry *ret_entry)
{
    if (note.n != 4 + (size_t)ranks * ENTRY || at_load_le32(note.p) != (uint32_t)ranks) return AT_E_PEER;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < ranks; i++) {
            const uint8_t *p = note.p + 4 + (size_t)i * ENTRY;
            if (at_load_le32(p + 4) > UINT16_MAX) return AT_E_PEER;
            if (pass == 0) continue;
            ret_entry[i].pid = at_load_le32(p);
            ret_entry[i].port = at_load_le32(p + 4);
            get_text(p + 8, sizeof ret_entry[i].host, ret_entry[i].host);
        }
    return AT_OK;
}

at_err_t at_note_verdict_write(const struct at_diag *diag, struct at_buf *out)
{
    at_err_t err = put32(out, (uint32_t)-diag->err);
    if (err == AT_OK) err = put_text(out, diag->where, sizeof diag->where);
    return err == AT_OK ? put_text(out, diag->text, sizeof diag->text) : err;
}

at_err_t at_note_verdict_read(struct at_span note, struct at_diag *ret_diag)
{
    struct at_diag d = {0};
    if (note.n != 4 + sizeof d.where + sizeof d.text) return AT_E_PEER;
    uint32_t code = at_load_le32(note.p);
    if (code == 0 || code > AT_ERR_INDEX_INTERRUPTED) return AT_E_PEER;
    d.err = -(int)code;
    get_text(note.p + 4, sizeof d.where, d.where);
    get_text(note.p + 4 + sizeof d.where, sizeof d.text, d.text);
    *ret_diag = d;
    return AT_OK;
}

bool at_note_facts_differ(const struct at_rank_hello *theirs, const struct at_ranks_fact *own, int own_count,
                          int own_rank, char *ret_text, size_t text_bytes)
{
    for (int i = 0; i < own_count; i++) {
        const char *value = "none";
        for (int k = 0; k < theirs->facts; k++)
            if (strcmp(theirs->fact[k].name, own[i].name) == 0) value = theirs->fact[k].value;
        if (strcmp(value, own[i].value) == 0) continue;
        snprintf(ret_text, text_bytes, "%s %s where rank %d has %s", own[i].name, value, own_rank, own[i].value);
        return true;
    }
    if (theirs->facts == own_count) return false;
    snprintf(ret_text, text_bytes, "%d facts about the run where rank %d has %d", theirs->facts, own_rank, own_count);
    return true;
}
