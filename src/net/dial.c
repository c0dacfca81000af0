#include "net/address.h"
#include "net/link.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>

void at_link_set_address(struct link *l, const struct sockaddr *sa)
{
    l->remote = at_address_of(sa);
    memcpy(&l->remote_sa, sa, sa->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    snprintf(l->address, sizeof l->address, "%s", at_address_text(&l->remote).s);
}

/* A relay's leg begins with its token; it leaves together with the first bytes of TLS. */
static bool put_prelude(struct link *l)
{
    uint8_t prelude[AT_MEET_PRELUDE_BYTES];
    if (l->meet.how != AT_MEET_HOW_RELAY) return true;
    at_meet_prelude(&l->meet.token, prelude);
    return at_buf_append(&l->out, prelude, sizeof prelude) == AT_OK;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct link *l = req->data;
    if (l->state == LINK_DEAD) return;
    if (status < 0)
        at_link_fail(l, AT_E_PEER, "cannot reach %s: %s", l->address, uv_strerror(status));
    else if (!put_prelude(l) || at_link_start_tls(l) != AT_OK)
        at_link_fail(l, AT_E_NOMEM, "out of memory");
}

/* A node that listens at a loopback address of its own (127.0.0.5, say) also comes from there: so the nodes of one machine
 * can be told apart. 127.0.0.1 is what the system takes anyway. */
static int come_from_own(struct link *l)
{
    static const uint8_t usual[4] = {127, 0, 0, 1};
    struct sockaddr_storage sa;
    int bytes = sizeof sa;
    if (!l->net->listening || uv_tcp_getsockname(&l->net->listener, (struct sockaddr *)&sa, &bytes) != 0) return 0;
    struct at_endpoint own = at_address_of((struct sockaddr *)&sa);
    if (l->remote.ip_bytes != 4 || own.ip_bytes != 4 || !at_endpoint_loopback(&own)) return 0;
    if (!at_endpoint_loopback(&l->remote) || memcmp(own.ip, usual, sizeof usual) == 0) return 0;
    own.port = 0;
    at_address_to(&own, &sa);
    return uv_tcp_bind(&l->tcp, (struct sockaddr *)&sa, 0);
}

void at_link_connect(struct link *l, const struct sockaddr *sa)
{
    at_link_set_address(l, sa);
    l->state = LINK_CONNECT;
    l->connect.data = l;
    int rc = come_from_own(l);
    if (!rc) rc = uv_tcp_connect(&l->connect, &l->tcp, sa, on_connected);
    if (rc) at_link_fail(l, AT_E_PEER, "cannot reach %s: %s", l->address, uv_strerror(rc));
}

static void on_looked_up(uv_getaddrinfo_t *req, int status, struct addrinfo *res)
{
    struct link *l = req->data;
    l->lookup_busy = false;
    if (l->state != LINK_DEAD) {
        if (status < 0 || !res)
            at_link_fail(l, AT_E_PEER, "cannot find %s: %s", l->address,
                         status < 0 ? uv_strerror(status) : "no address");
        else
            at_link_connect(l, res->ai_addr);
    }
    uv_freeaddrinfo(res);
}

at_err_t at_net_dial(struct at_net *net, const char *host, uint16_t port, const struct at_node_id *expected,
                     struct at_link_id *ret_link)
{
    struct sockaddr_storage sa;
    struct link *l = at_link_new(net, true);
    if (!l) return AT_E_TOO_BIG;
    l->expected = *expected;
    snprintf(l->address, sizeof l->address, "%.50s:%u", host, port);
    *ret_link = l->id;
    if (at_address_numeric(host, port, &sa)) {
        at_link_connect(l, (struct sockaddr *)&sa);
        return AT_OK;
    }
    char service[8];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    snprintf(service, sizeof service, "%u", port);
    l->state = LINK_LOOKUP;
    l->lookup.data = l;
    int rc = uv_getaddrinfo(net->loop, &l->lookup, on_looked_up, host, service, &hints);
    l->lookup_busy = rc == 0;
    if (rc) at_link_fail(l, AT_E_PEER, "cannot find %s: %s", l->address, uv_strerror(rc));
    return AT_OK;
}
