#include "node/node_folder.h"

#include "net/address.h"
#include "os/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#define INI_BYTES_MAX 16384

/* ---- addresses ---- */
at_err_t at_address_parse(const char *text, struct at_diag *diag, char ret_host[AT_HOST_BYTES_MAX + 1],
                          uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':'), *host = text;
    size_t n = colon ? (size_t)(colon - text) : 0;
    char *end = NULL;
    long port = colon && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : -1;
    if (n >= 2 && text[0] == '[' && colon[-1] == ']') {
        host++;
        n -= 2;
    }
    if (n == 0 || n > AT_HOST_BYTES_MAX || port < 0 || port > 65535 || *end)
        return at_fail(diag, AT_E_USAGE, text,
                       "'%s' is no HOST:PORT (for example 127.0.0.1:7700; port 0 picks a free one)", text);
    memcpy(ret_host, host, n);
    ret_host[n] = 0;
    *ret_port = (uint16_t)port;
    return AT_OK;
}

static bool parse_numeric(const char *host, uint16_t port, struct sockaddr_storage *sa, socklen_t *ret_bytes)
{
    bool numeric = at_address_numeric(host, port, sa);
    *ret_bytes = sa->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    return numeric;
}

/* 0 and the port that was bound, or an errno. */
static int try_bind(struct sockaddr_storage sa, socklen_t bytes, uint16_t *ret_port)
{
    int on = 1, rc = 0, fd = socket(sa.ss_family, SOCK_STREAM, 0);
    if (fd < 0) return errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&sa, bytes) != 0 || listen(fd, 1) != 0 ||
        getsockname(fd, (struct sockaddr *)&sa, &bytes) != 0)
        rc = errno;
    else
        *ret_port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                                   : ((struct sockaddr_in *)&sa)->sin_port);
    close(fd);
    return rc;
}

/* A free port that stays free while the node is not running: below the range that systems take for outgoing connections
 * (32768 on Linux, 49152 elsewhere), where a stranger's connection could sit on it for a while. */
static bool pick_port(const char *host, uint16_t *ret_port)
{
    struct sockaddr_storage sa;
    socklen_t bytes = 0;
    uint64_t x = at_clock_mono_ns() ^ (uint64_t)getpid() << 32;
    for (int i = 0; i < 100; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint16_t port = (uint16_t)(10240 + (x >> 33) % (32768 - 10240));
        if (parse_numeric(host, port, &sa, &bytes) && try_bind(sa, bytes, ret_port) == 0) return true;
    }
    return false;
}

at_err_t at_address_probe(const char *host, uint16_t port, struct at_diag *diag, uint16_t *ret_port)
{
    struct sockaddr_storage sa;
    socklen_t bytes = 0;
    char where[300];
    snprintf(where, sizeof where, "%s:%u", host, port);
    if (!parse_numeric(host, port, &sa, &bytes))
        return at_fail(diag, AT_E_USAGE, where,
                       "cannot listen on %s: the host must be a numeric address of this machine", where);
    if (port == 0 && pick_port(host, ret_port)) return AT_OK;
    int e = try_bind(sa, bytes, ret_port);
    if (e == EADDRINUSE)
        return at_fail(diag, AT_E_PORT, where,
                       "port %u on %s is in use by another program; end it, or choose another with --listen %s:PORT",
                       port, host, host);
    return e ? at_fail(diag, AT_E_PORT, where, "cannot listen on %s: %s", where, strerror(e)) : AT_OK;
}

void at_address_outward(const char *host, char ret_host[AT_HOST_BYTES_MAX + 1])
{
    uv_interface_address_t *list = NULL;
    int count = 0;
    snprintf(ret_host, AT_HOST_BYTES_MAX + 1, "%s", strcmp(host, "localhost") == 0 ? "127.0.0.1" : host);
    if (strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0) return;
    snprintf(ret_host, AT_HOST_BYTES_MAX + 1, "127.0.0.1");
    if (uv_interface_addresses(&list, &count) != 0) return;
    for (int i = 0; i < count; i++) {
        if (list[i].is_internal || list[i].address.address4.sin_family != AF_INET) continue;
        uv_ip4_name(&list[i].address.address4, ret_host, AT_HOST_BYTES_MAX + 1);
        break;
    }
    uv_free_interface_addresses(list, count);
}

/* Link-local IPv6 addresses need a scope, which means nothing elsewhere. */
static bool goes_outward(const uv_interface_address_t *a, bool v6)
{
    const struct sockaddr_in6 *sa = &a->address.address6;
    if (a->is_internal) return false;
    if (a->address.address4.sin_family == AF_INET) return true;
    return v6 && sa->sin6_family == AF_INET6 && !(sa->sin6_addr.s6_addr[0] == 0xfe && sa->sin6_addr.s6_addr[1] >= 0x80);
}

static bool endpoint_from(const struct sockaddr *sa, uint16_t port, struct at_endpoint *ret)
{
    *ret = at_address_of(sa);
    ret->port = port;
    return at_endpoint_ok(ret);
}

uint32_t at_endpoints_of(const char *host, uint16_t port, struct at_endpoint ret_list[AT_ENDPOINTS_MAX])
{
    uv_interface_address_t *list = NULL;
    struct sockaddr_storage sa;
    socklen_t bytes;
    uint32_t n = 0;
    int count = 0;
    bool any4 = strcmp(host, "0.0.0.0") == 0, any6 = strcmp(host, "::") == 0;
    if (!any4 && !any6)
        return parse_numeric(host, port, &sa, &bytes) && endpoint_from((struct sockaddr *)&sa, port, ret_list);
    if (uv_interface_addresses(&list, &count) != 0) return 0;
    for (int i = 0; i < count && n < AT_ENDPOINTS_MAX; i++)
        if (goes_outward(&list[i], any6)) n += endpoint_from((struct sockaddr *)&list[i].address, port, &ret_list[n]);
    uv_free_interface_addresses(list, count);
    return n;
}

uint32_t at_folder_endpoints(const struct at_folder *f, struct at_endpoint ret_list[AT_ENDPOINTS_MAX])
{
    return f->told_port ? at_endpoints_of(f->told_host, f->told_port, ret_list)
                        : at_endpoints_of(f->host, f->port, ret_list);
}

at_err_t at_folder_announce(struct at_folder *f, const char *text, struct at_diag *diag)
{
    struct sockaddr_storage sa;
    struct at_endpoint e;
    at_err_t err = at_address_parse(text, diag, f->told_host, &f->told_port);
    if (err) return err;
    if (!f->told_port || !at_address_numeric(f->told_host, f->told_port, &sa) ||
        !endpoint_from((struct sockaddr *)&sa, f->told_port, &e))
        return at_fail(diag, AT_E_USAGE, text,
                       "others can be told one numeric address and a port, such as 203.0.113.7:7700, not %s", text);
    return AT_OK;
}

/* ---- the folder ---- */
at_err_t at_folder_path(const struct at_folder *f, const char *name, struct at_diag *diag, char ret_path[AT_PATH_BYTES])
{
    return at_path_join(f->dir, name, diag, ret_path);
}

bool at_folder_is_one(const char *dir)
{
    char path[AT_PATH_BYTES];
    return at_path_join(dir, "node.ini", NULL, path) == AT_OK && at_file_exists(path);
}

static at_err load_key(const struct at_folder *f, struct at_diag *diag, struct at_keypair *ret_key)
{
    char path[AT_PATH_BYTES];
    struct at_buf text = {0};
    uint8_t seed[AT_KEY_BYTES] = {0};
    at_err_t err = at_folder_path(f, "key", diag, path);
    if (!err) err = at_file_read(path, 256, diag, &text);
    if (!err) {
        while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r')) text.n--;
        if (at_hex_decode((const char *)text.p, text.n, seed, sizeof seed) != AT_OK ||
            at_keypair_from_seed(seed, ret_key) != AT_OK)
            err = at_fail(diag, AT_E_DATA, path, "%s is no node key (64 hex digits)", path);
    }
    if (text.p) memset(text.p, 0, text.cap);
    memset(seed, 0, sizeof seed);
    at_buf_release(&text);
    return err;
}

static at_err save_key(const struct at_folder *f, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], text[2 * AT_KEY_BYTES + 2];
    at_err_t err = at_folder_path(f, "key", diag, path);
    if (err || at_file_exists(path)) return err;
    at_hex_encode(f->key.seed, AT_KEY_BYTES, text);
    text[2 * AT_KEY_BYTES] = '\n';
    struct at_span part = at_span(text, sizeof text - 1);
    err = at_file_write_atomic(path, &part, 1, 0600, diag);
    memset(text, 0, sizeof text);
    return err;
}

static at_err load_ticket(const struct at_folder *f, struct at_diag *diag, struct at_invite *contact)
{
    char path[AT_PATH_BYTES];
    struct at_buf text = {0};
    uint8_t bytes[AT_KEY_BYTES + AT_SIG_BYTES];
    at_err_t err = at_folder_path(f, "ticket", diag, path);
    if (err || !at_file_exists(path)) return err;
    err = at_file_read(path, 256, diag, &text);
    if (!err) {
        while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r')) text.n--;
        if (at_hex_decode((const char *)text.p, text.n, bytes, sizeof bytes) != AT_OK)
            err = at_fail(
                diag, AT_E_DATA, path,
                "%s is no ticket (192 hex digits); without the file this node goes on, and stands for no seat", path);
    }
    if (!err) {
        contact->has_ticket = true;
        memcpy(contact->ticket.seed, bytes, AT_KEY_BYTES);
        memcpy(contact->ticket.founder.b, bytes + AT_KEY_BYTES, AT_SIG_BYTES);
    }
    if (text.p) memset(text.p, 0, text.cap);
    memset(bytes, 0, sizeof bytes);
    at_buf_release(&text);
    return err;
}

static at_err save_ticket(const struct at_folder *f, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], text[2 * (AT_KEY_BYTES + AT_SIG_BYTES) + 2];
    at_err_t err = at_folder_path(f, "ticket", diag, path);
    if (err || !f->has_contact || !f->contact.has_ticket) return err;
    at_hex_encode(f->contact.ticket.seed, AT_KEY_BYTES, text);
    at_hex_encode(f->contact.ticket.founder.b, AT_SIG_BYTES, text + 2 * AT_KEY_BYTES);
    text[sizeof text - 2] = '\n';
    struct at_span part = at_span(text, sizeof text - 1);
    err = at_file_write_atomic(path, &part, 1, 0600, diag);
    memset(text, 0, sizeof text);
    return err;
}

static void put_address(char *text, size_t n, const char *host, uint16_t port)
{
    snprintf(text, n, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

at_err_t at_folder_save(const struct at_folder *f, struct at_diag *diag)
{
    char path[AT_PATH_BYTES], text[4096], listen_at[300], told[300], contact[300];
    at_err_t err = save_key(f, diag);
    if (!err) err = save_ticket(f, diag);
    if (!err) err = at_folder_path(f, "node.ini", diag, path);
    if (err) return err;
    put_address(listen_at, sizeof listen_at, f->host, f->port);
    int n = snprintf(
        text, sizeof text,
        "; written by atoll; the lines below may be edited while it does not run\nrun=%s\nname=%s\nlisten=%s\n",
        at_hash_hex(f->run).s, f->name, listen_at);
    if (f->told_port) {
        put_address(told, sizeof told, f->told_host, f->told_port);
        n += snprintf(text + n, sizeof text - (size_t)n, "announce=%s\n", told);
    }
    if (f->has_contact) {
        put_address(contact, sizeof contact, f->contact.host, f->contact.port);
        n += snprintf(text + n, sizeof text - (size_t)n, "contact=%s\ncontact_key=%s\nlog_size=%llu\nlog_root=%s\n",
                      contact, at_node_id_hex(&f->contact.node).s, (unsigned long long)f->contact.log_size,
                      at_hash_hex(f->contact.log_root).s);
    }
    struct at_span part = at_span(text, (size_t)n);
    return at_file_write_atomic(path, &part, 1, 0600, diag);
}

static at_err take_line(struct at_folder *f, const char *key, const char *value, struct at_diag *diag)
{
    struct at_hash h;
    if (strcmp(key, "run") == 0) {
        at_err_t err = at_hash_parse(value, &f->run);
        f->contact.run = f->run;
        return err;
    }
    if (strcmp(key, "name") == 0) {
        snprintf(f->name, sizeof f->name, "%s", value);
        return AT_OK;
    }
    if (strcmp(key, "listen") == 0) return at_address_parse(value, diag, f->host, &f->port);
    if (strcmp(key, "announce") == 0) return at_folder_announce(f, value, diag);
    if (strcmp(key, "contact") == 0) {
        f->has_contact = true;
        return at_address_parse(value, diag, f->contact.host, &f->contact.port);
    }
    if (strcmp(key, "contact_key") == 0) {
        at_err_t err = at_hash_parse(value, &h);
        if (!err) memcpy(f->contact.node.b, h.b, AT_KEY_BYTES);
        return err;
    }
    if (strcmp(key, "log_root") == 0) return at_hash_parse(value, &f->contact.log_root);
    if (strcmp(key, "log_size") == 0) {
        char *end;
        errno = 0;
        f->contact.log_size = strtoull(value, &end, 10);
        return *end || end == value || errno ? AT_E_DATA : AT_OK;
    }
    return AT_OK; /* of a later version */
}

/* `text` is NUL-terminated and taken apart. */
static at_err parse_ini(struct at_folder *f, char *text, const char *path, struct at_diag *diag)
{
    char *rest = NULL;
    int number = 0;
    for (char *line = strtok_r(text, "\r\n", &rest); line; line = strtok_r(NULL, "\r\n", &rest)) {
        number++;
        char *eq = strchr(line, '=');
        if (line[0] == ';' || line[0] == '#') continue;
        if (!eq) return at_fail(diag, AT_E_DATA, path, "%s: line %d is no key=value", path, number);
        *eq = 0;
        if (take_line(f, line, eq + 1, NULL) != AT_OK)
            return at_fail(diag, AT_E_DATA, path, "%s: the value of '%s' is none", path, line);
    }
    return AT_OK;
}

at_err_t at_folder_load(const char *dir, struct at_diag *diag, struct at_folder *ret_folder)
{
    char path[AT_PATH_BYTES];
    struct at_buf text = {0};
    struct at_folder f = {0};
    if (strlen(dir) >= sizeof f.dir) return at_fail(diag, AT_E_TOO_BIG, dir, "the folder's path is too long");
    snprintf(f.dir, sizeof f.dir, "%s", dir);
    if (!at_folder_is_one(dir))
        return at_fail(diag, at_file_exists(dir) ? AT_E_DATA : AT_E_NOT_FOUND, dir,
                       at_file_exists(dir) ? "%s is no folder of a run: make one with init or join"
                                           : "there is no folder %s",
                       dir);
    at_err_t err = at_folder_path(&f, "node.ini", diag, path);
    if (!err) err = at_file_read(path, INI_BYTES_MAX, diag, &text);
    if (!err) err = at_buf_append(&text, "", 1);
    if (!err) err = parse_ini(&f, (char *)text.p, path, diag);
    if (!err && (at_hash_is_zero(f.run) || !f.host[0]))
        err = at_fail(diag, AT_E_DATA, path, "%s lacks the run or the listen address", path);
    if (!err) err = load_key(&f, diag, &f.key);
    if (!err) err = load_ticket(&f, diag, &f.contact);
    at_buf_release(&text);
    if (!err) *ret_folder = f;
    return err;
}

at_err_t at_folder_invite(const struct at_folder *f, uint64_t log_size, struct at_hash log_root, struct at_diag *diag,
                          char ret_text[AT_INVITE_TEXT_MAX + 1])
{
    struct at_invite invite = {
        .run = f->run, .node = f->key.id, .port = f->port, .log_size = log_size, .log_root = log_root};
    if (f->has_contact && log_size == 0) {
        invite = f->contact;
        invite.has_ticket = false; /* it is this member's own */
        memset(&invite.ticket, 0, sizeof invite.ticket);
        return at_invite_encode(&invite, diag, ret_text);
    }
    at_address_outward(f->told_port ? f->told_host : f->host, invite.host);
    if (f->told_port) invite.port = f->told_port;
    return at_invite_encode(&invite, diag, ret_text);
}
