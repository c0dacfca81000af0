#include "wire/invite.h"
#include "wire/pb.h"

#include <string.h>

static const char prefix[] = "atoll1";
static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
enum {
    PREFIX_CHARS = sizeof prefix - 1,
    LENGTH_BYTES = 2,
    CHECK_BYTES = 4,
    BYTES_MAX = (AT_INVITE_TEXT_MAX - PREFIX_CHARS) * 5 / 8
};

static bool host_ok(const char *host)
{
    size_t n = strnlen(host, AT_HOST_BYTES_MAX + 1);
    if (n == 0 || n > AT_HOST_BYTES_MAX) return false;
    for (size_t i = 0; i < n; i++) {
        char c = host[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!alnum && (c == '\0' || strchr(".-:%_", c) == NULL)) return false;
    }
    return true;
}

static void build(const struct at_invite *invite, Atoll__Pb__Invite *pb)
{
    atoll__pb__invite__init(pb);
    pb->run = at_pb_bytes(invite->run.b, sizeof invite->run.b);
    pb->node = at_pb_bytes(invite->node.b, sizeof invite->node.b);
    pb->host = (char *)(uintptr_t)invite->host;
    pb->port = invite->port;
    pb->log_size = invite->log_size;
    pb->log_root = at_pb_bytes(invite->log_root.b, sizeof invite->log_root.b);
    if (!invite->has_ticket) return;
    pb->ticket_seed = at_pb_bytes(invite->ticket.seed, sizeof invite->ticket.seed);
    pb->ticket_sig = at_pb_bytes(invite->ticket.founder.b, sizeof invite->ticket.founder.b);
}

static void base32_encode(const uint8_t *p, size_t n, char *ret_text)
{
    uint32_t acc = 0;
    int bits = 0;
    for (size_t i = 0; i < n; i++) {
        acc = (acc << 8 | p[i]) & 0xfffff;
        for (bits += 8; bits >= 5; bits -= 5) *ret_text++ = alphabet[acc >> (bits - 5) & 31];
    }
    if (bits > 0) *ret_text++ = alphabet[acc << (5 - bits) & 31];
    *ret_text = '\0';
}

static void checksum(const uint8_t *p, size_t n, uint8_t ret[CHECK_BYTES])
{
    struct at_hash h = at_sha256(p, n);
    memcpy(ret, h.b, CHECK_BYTES);
}

at_err at_invite_encode(const struct at_invite *invite, struct at_diag *diag, char ret_text[AT_INVITE_TEXT_MAX + 1])
{
    if (!host_ok(invite->host))
        return at_fail(diag, AT_E_DATA, "host", "'%.60s' is not a host name or address", invite->host);
    if (invite->port == 0) return at_fail(diag, AT_E_DATA, "port", "port 0 cannot be reached");
    Atoll__Pb__Invite pb;
    build(invite, &pb);
    size_t n = protobuf_c_message_get_packed_size(&pb.base);
    uint8_t bytes[BYTES_MAX];
    AT_ASSERT(LENGTH_BYTES + n + CHECK_BYTES <= sizeof bytes);
    bytes[0] = (uint8_t)n;
    bytes[1] = (uint8_t)(n >> 8);
    (void)protobuf_c_message_pack(&pb.base, bytes + LENGTH_BYTES);
    checksum(bytes, LENGTH_BYTES + n, bytes + LENGTH_BYTES + n);
    memcpy(ret_text, prefix, PREFIX_CHARS);
    base32_encode(bytes, LENGTH_BYTES + n + CHECK_BYTES, ret_text + PREFIX_CHARS);
    return AT_OK;
}

/* Value of a base32 letter of either case, or -1. */
static int letter_value(char c)
{
    if (c >= 'A' && c <= 'Z') c = (char)(c - 'A' + 'a');
    const char *at = c != '\0' ? strchr(alphabet, c) : NULL;
    return at != NULL ? (int)(at - alphabet) : -1;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static at_err_t bad(struct at_diag *diag, const char *text)
{
    return at_fail(diag, AT_E_INVITE, "invite", "%s", text);
}

/* Letters to bytes. Left-over bits are returned for the caller to judge (they are zero in a whole invite). */
static at_err_t base32_decode(const char *text, struct at_diag *diag, uint8_t ret[BYTES_MAX], size_t *ret_n,
                              uint32_t *ret_rest)
{
    uint32_t acc = 0;
    int bits = 0;
    size_t n = 0;
    for (size_t i = 0; text[i] != '\0'; i++) {
        if (is_space(text[i])) continue;
        int v = letter_value(text[i]);
        if (v < 0)
            return at_fail(diag, AT_E_INVITE, "invite",
                           "character %zu of the invite cannot be right: it holds only letters and the digits 2 to 7",
                           i + 1 + PREFIX_CHARS);
        acc = (acc << 5 | (uint32_t)v) & 0xfff;
        bits += 5;
        if (bits < 8) continue;
        bits -= 8;
        if (n == BYTES_MAX) return bad(diag, "the invite is too long: is there other text behind it?");
        ret[n++] = (uint8_t)(acc >> bits);
    }
    *ret_n = n;
    *ret_rest = bits >= 5 ? 1 : acc & ((1u << bits) - 1); /* five left-over bits: a letter that carries nothing */
    return AT_OK;
}

static at_err_t read_fields(struct at_span bytes, struct at_diag *diag, struct at_invite *ret_invite)
{
    static const char wrong[] = "the invite was made by another version of the program";
    _Alignas(max_align_t) uint8_t block[2048];
    struct at_pb_arena arena = {.block = block, .cap = sizeof block};
    ProtobufCAllocator allocator = at_pb_allocator(&arena);
    const Atoll__Pb__Invite *pb = atoll__pb__invite__unpack(&allocator, bytes.n, bytes.p);
    struct at_invite invite;
    memset(&invite, 0, sizeof invite);
    if (pb == NULL || !at_pb_fixed(&pb->run, invite.run.b, AT_HASH_BYTES) ||
        !at_pb_fixed(&pb->node, invite.node.b, AT_KEY_BYTES) ||
        !at_pb_fixed(&pb->log_root, invite.log_root.b, AT_HASH_BYTES) ||
        !at_pb_text(pb->host, invite.host, AT_HOST_BYTES_MAX) || !host_ok(invite.host) || pb->port == 0 ||
        pb->port > UINT16_MAX)
        return bad(diag, wrong);
    invite.has_ticket = pb->ticket_seed.len != 0;
    if (invite.has_ticket && (!at_pb_fixed(&pb->ticket_seed, invite.ticket.seed, AT_KEY_BYTES) ||
                              !at_pb_fixed(&pb->ticket_sig, invite.ticket.founder.b, AT_SIG_BYTES)))
        return bad(diag, wrong);
    invite.port = (uint16_t)pb->port;
    invite.log_size = pb->log_size;
    Atoll__Pb__Invite again;
    build(&invite, &again);
    if (!at_pb_packs_to(&again.base, bytes)) return bad(diag, wrong);
    *ret_invite = invite;
    return AT_OK;
}

at_err at_invite_decode(const char *text, struct at_diag *diag, struct at_invite *ret_invite)
{
    while (is_space(*text)) text++;
    for (size_t i = 0; i < PREFIX_CHARS; i++) {
        char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
        if (c != prefix[i]) return bad(diag, "this is not an invite: an invite begins with \"atoll1\"");
    }
    uint8_t bytes[BYTES_MAX], check[CHECK_BYTES];
    size_t n = 0;
    uint32_t rest = 0;
    at_err_t err = base32_decode(text + PREFIX_CHARS, diag, bytes, &n, &rest);
    if (err) return err;
    if (n < LENGTH_BYTES + CHECK_BYTES) return bad(diag, "the invite is cut short");
    size_t inner = (size_t)bytes[0] | (size_t)bytes[1] << 8;
    if (inner > BYTES_MAX - LENGTH_BYTES - CHECK_BYTES)
        return bad(diag, "a character of the invite was mistyped (near its beginning)");
    if (n < LENGTH_BYTES + inner + CHECK_BYTES) return bad(diag, "the invite is cut short: copy it to its very end");
    if (n > LENGTH_BYTES + inner + CHECK_BYTES) return bad(diag, "the invite has extra characters at its end");
    checksum(bytes, LENGTH_BYTES + inner, check);
    if (memcmp(check, bytes + LENGTH_BYTES + inner, CHECK_BYTES) != 0 || rest != 0)
        return bad(diag, "a character of the invite was mistyped: copy and paste it again");
    return read_fields(at_span(bytes + LENGTH_BYTES, inner), diag, ret_invite);
}
