/* NAT-PMP through libnatpmp, UPnP IGD through miniupnpc: each where the build found it. Only the child of portmap.c runs
 * this, so it may block, and a gateway that answers without end only ends the child. */
#define _DEFAULT_SOURCE /* struct timeval in natpmp.h */
#include "net/portmap.h"

#include "net/address.h"
#include "os/sys.h"

#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

#ifdef ATOLL_NATPMP
#include <natpmp.h>
#endif
#ifdef ATOLL_MINIUPNPC
#include <miniupnpc.h>
#include <upnpcommands.h>
#include <upnperrors.h>
#endif

#ifdef ATOLL_NATPMP
#define NATPMP_WAIT_MS 2500 /* RFC 6886 would go on for a minute; a gateway that speaks it answers in milliseconds */

/* One question and its answer. The library matches no answer to its question: a repeated answer to an earlier one is read
 * over, or its bytes would be taken for a port and a lease. */
static int natpmp_answer(natpmp_t *n, uint16_t wanted, natpmpresp_t *ret_answer)
{
    uint64_t end = at_clock_mono_ms() + NATPMP_WAIT_MS;
    for (int rc = NATPMP_TRYAGAIN; rc == NATPMP_TRYAGAIN;) {
        struct timeval left = {0};
        struct pollfd p = {.fd = n->s, .events = POLLIN};
        uint64_t now = at_clock_mono_ms();
        if (now >= end || getnatpmprequesttimeout(n, &left) < 0) break;
        long ms = left.tv_sec * 1000 + left.tv_usec / 1000 + 1;
        if (ms < 1) ms = 1;
        (void)poll(&p, 1, ms < (long)(end - now) ? (int)ms : (int)(end - now));
        memset(ret_answer, 0, sizeof *ret_answer);
        rc = readnatpmpresponseorretry(n, ret_answer);
        if (rc == 0 && ret_answer->type != wanted) {
            n->has_pending_request = 1;
            rc = NATPMP_TRYAGAIN;
        }
        if (rc != NATPMP_TRYAGAIN) return rc;
    }
    return NATPMP_ERR_NOGATEWAYSUPPORT;
}

static bool natpmp_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    natpmp_t n;
    natpmpresp_t address, mapping;
    bool ok = false;
    if (initnatpmp(&n, 0, 0) != 0) {
        snprintf(note->text, sizeof note->text, "NAT-PMP: this machine has no gateway");
        return false;
    }
    if (sendpublicaddressrequest(&n) < 0 || natpmp_answer(&n, NATPMP_RESPTYPE_PUBLICADDRESS, &address) != 0) {
        snprintf(note->text, sizeof note->text, "NAT-PMP: the gateway does not answer");
    } else if (sendnewportmappingrequest(&n, NATPMP_PROTOCOL_TCP, port, port, lease_s) < 0 ||
               natpmp_answer(&n, NATPMP_RESPTYPE_TCPPORTMAPPING, &mapping) != 0 ||
               mapping.pnu.newportmapping.privateport != port || mapping.pnu.newportmapping.mappedpublicport == 0) {
        snprintf(note->text, sizeof note->text, "NAT-PMP: the gateway refuses");
    } else {
        note->outside = (struct at_endpoint){.ip_bytes = 4, .port = mapping.pnu.newportmapping.mappedpublicport};
        memcpy(note->outside.ip, &address.pnu.publicaddress.addr, 4);
        note->lease_s = mapping.pnu.newportmapping.lifetime;
        ok = true;
    }
    closenatpmp(&n);
    return ok;
}

static void natpmp_unmap(uint16_t port, const struct at_portmap_note *note)
{
    natpmp_t n;
    natpmpresp_t answer;
    if (initnatpmp(&n, 0, 0) != 0) return;
    if (sendnewportmappingrequest(&n, NATPMP_PROTOCOL_TCP, port, 0, 0) >= 0)
        (void)natpmp_answer(&n, NATPMP_RESPTYPE_TCPPORTMAPPING, &answer);
    closenatpmp(&n);
}
#endif

#ifdef ATOLL_MINIUPNPC
#define UPNP_DISCOVER_MS 2000
#define UPNP_PORTS       4 /* the wanted one, then those above it */

struct igd {
    struct UPNPDev *found;
    struct UPNPUrls urls;
    struct IGDdatas data;
    char lan[48];
    bool has_urls;
};

/* Whoever is on this net may answer the search with any URL: only those inside it are fetched, or followed. For the same
 * reason not UPNP_GetValidIGD, which asks a device's control URL before anybody can look at it. */
static bool igd_find(struct igd *g)
{
    static const char wan[] = "urn:schemas-upnp-org:service:WAN";
    int err = 0;
    memset(g, 0, sizeof *g);
    g->found = upnpDiscover(UPNP_DISCOVER_MS, NULL, NULL, 0, 0, 2, &err);
    for (const struct UPNPDev *d = g->found; d; d = d->pNext) {
        if (!d->descURL || !at_portmap_url_ok(d->descURL)) continue;
        if (!UPNP_GetIGDFromUrl(d->descURL, &g->urls, &g->data, g->lan, sizeof g->lan)) continue;
        g->has_urls = true;
        if (g->urls.controlURL && at_portmap_url_ok(g->urls.controlURL) &&
            strncmp(g->data.first.servicetype, wan, sizeof wan - 1) == 0 && UPNPIGD_IsConnected(&g->urls, &g->data))
            return true;
        FreeUPNPUrls(&g->urls);
        g->has_urls = false;
    }
    return false;
}

static void igd_release(struct igd *g)
{
    if (g->has_urls) FreeUPNPUrls(&g->urls);
    if (g->found) freeUPNPDevlist(g->found);
}

static int igd_add(struct igd *g, uint16_t outside, uint16_t port, uint32_t lease_s)
{
    char out[8], in[8], lease[16];
    snprintf(out, sizeof out, "%u", outside);
    snprintf(in, sizeof in, "%u", port);
    snprintf(lease, sizeof lease, "%u", lease_s);
    return UPNP_AddPortMapping(g->urls.controlURL, g->data.first.servicetype, out, in, g->lan, "atoll", "TCP", NULL,
                               lease);
}

static bool upnp_map(uint16_t port, uint32_t lease_s, struct at_portmap_note *note)
{
    enum { CONFLICT = 718 };
    struct igd g;
    char address[48] = "";
    struct sockaddr_storage sa;
    bool ok = false;
    if (!igd_find(&g)) {
        snprintf(note->text, sizeof note->text, "UPnP: no gateway answers");
    } else if (UPNP_GetExternalIPAddress(g.urls.controlURL, g.data.first.servicetype, address) != 0 ||
               !at_address_numeric(address, 0, &sa) || at_address_of((struct sockaddr *)&sa).ip_bytes != 4) {
        snprintf(note->text, sizeof note->text, "UPnP: the gateway does not say its IPv4 address");
    } else {
        int rc = CONFLICT;
        uint16_t outside = port;
        for (int i = 0; i < UPNP_PORTS && rc == CONFLICT && outside >= port; i++, outside++)
            rc = igd_add(&g, outside, port, lease_s);
        outside--;
        ok = rc == 0;
        if (!ok) snprintf(note->text, sizeof note->text, "UPnP: the gateway refuses (%d)", rc);
        note->outside = at_address_of((struct sockaddr *)&sa);
        note->outside.port = outside;
        note->lease_s = lease_s;
    }
    igd_release(&g);
    return ok;
}

static void upnp_unmap(uint16_t port, const struct at_portmap_note *note)
{
    struct igd g;
    char out[8];
    snprintf(out, sizeof out, "%u", note->outside.port);
    if (igd_find(&g)) (void)UPNP_DeletePortMapping(g.urls.controlURL, g.data.first.servicetype, out, "TCP", NULL);
    igd_release(&g);
}
#endif

const struct at_portmap_protocol *at_portmap_protocols(size_t *ret_count)
{
    static const struct at_portmap_protocol all[] = {
#ifdef ATOLL_NATPMP
        {"NAT-PMP", natpmp_map, natpmp_unmap, true},
#endif
#ifdef ATOLL_MINIUPNPC
        {"UPnP", upnp_map, upnp_unmap, false},
#endif
        {NULL, NULL, NULL, false}};
    *ret_count = sizeof all / sizeof all[0] - 1;
    return all;
}
