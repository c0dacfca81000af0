#include "cli/train_probe.h"

#include "cli/train_save.h"
#include "os/sys.h"

#include <stdlib.h>

#define PROBE_TAG 1001 /* beyond those of parallel/ and train_split.c */

static double clock_s(void)
{
    return (double)at_clock_mono_ns() * 1e-9;
}

enum { PROBE_BYTES_FIRST = 65536, PROBE_BYTES_MAX = 4 << 20, PROBE_PINGS = 3 };
#define PROBE_S_ENOUGH 0.02 /* a transfer that takes this long tells the rate */

/* bytes there, one byte back. */
static at_err probe_once(const struct at_comm *comm, int other, uint8_t *room, uint64_t bytes, struct at_diag *diag,
                         double *ret_seconds)
{
    double start_s = clock_s();
    uint8_t back;
    struct at_transfer size = at_comm_send(comm, other, PROBE_TAG, &bytes, sizeof bytes);
    struct at_transfer sent = at_comm_send(comm, other, PROBE_TAG, room, bytes);
    struct at_transfer heard = at_comm_recv(comm, other, PROBE_TAG, &back, 1);
    at_err_t err = at_comm_wait(comm, size, diag), err2 = at_comm_wait(comm, sent, diag);
    at_err_t err3 = at_comm_wait(comm, heard, diag);
    *ret_seconds = clock_s() - start_s;
    return err != AT_OK ? err : err2 != AT_OK ? err2 : err3;
}

/* Rank 0 asks each other replica's first rank; the slowest link counts. */
static at_err probe_all(const struct at_train_setup *s, const struct at_comm *comm, uint8_t *room,
                        struct at_auto_measured *m, struct at_diag *diag)
{
    uint64_t end = 0;
    double rtt = 0, rate = 1e12, spent;
    at_err_t err = AT_OK;
    for (int i = 1; i < s->replicas && err == AT_OK; i++) {
        int other = s->plan.stage[s->plan.replica[i].stage_first].rank_first;
        double ping = 1e9;
        for (int k = 0; k < PROBE_PINGS && err == AT_OK; k++) {
            err = probe_once(comm, other, room, 1, diag, &spent);
            ping = spent < ping ? spent : ping;
        }
        spent = 0;
        for (uint64_t n = PROBE_BYTES_FIRST; n <= PROBE_BYTES_MAX && spent < PROBE_S_ENOUGH && err == AT_OK; n *= 8) {
            err = probe_once(comm, other, room, n, diag, &spent);
            double here = (double)n / (spent > ping ? spent - ping : 1e-9);
            if (spent >= PROBE_S_ENOUGH || n * 8 > PROBE_BYTES_MAX) rate = here < rate ? here : rate;
        }
        rtt = ping > rtt ? ping : rtt;
        if (err == AT_OK) err = at_comm_wait(comm, at_comm_send(comm, other, PROBE_TAG, &end, sizeof end), diag);
    }
    m->rtt_seconds = rtt;
    m->bytes_per_second = rate;
    return err;
}

static at_err answer_probes(const struct at_comm *comm, uint8_t *room, struct at_diag *diag)
{
    for (;;) {
        uint64_t bytes = 0;
        at_err_t err = at_comm_wait(comm, at_comm_recv(comm, 0, PROBE_TAG, &bytes, sizeof bytes), diag);
        if (err != AT_OK || bytes == 0) return err;
        if (bytes > PROBE_BYTES_MAX) return at_fail(diag, AT_E_PEER, "rank 0", "probes with too many bytes");
        err = at_comm_wait(comm, at_comm_recv(comm, 0, PROBE_TAG, room, bytes), diag);
        if (err == AT_OK) err = at_comm_wait(comm, at_comm_send(comm, 0, PROBE_TAG, room, 1), diag);
        if (err != AT_OK) return err;
    }
}

at_err_t at_train_probe(const struct at_train_setup *s, const struct at_comm *comm,
                        struct at_auto_measured *io_measured, struct at_diag *diag)
{
    struct at_place place = at_plan_place(&s->plan, comm->rank);
    bool leads = place.stage == 0 && place.tp_rank == 0;
    if (!leads || s->replicas == 1) return AT_OK;
    uint8_t *room = calloc(1, PROBE_BYTES_MAX);
    at_err_t err = room != NULL ? AT_OK : at_fail(diag, AT_E_NOMEM, "train", "no memory to measure the links with");
    err = at_train_tell_all(comm, err, diag);
    if (err == AT_OK)
        err = comm->rank == 0 ? probe_all(s, comm, room, io_measured, diag) : answer_probes(comm, room, diag);
    free(room);
    return err;
}
