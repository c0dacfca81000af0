/* node.h: a node of a run as a process: the run folder, the loop that drives the pure machine (swarm/), the control
 * socket.
 *
 * A run folder D holds the key (mode 0600: the node's secret), node.ini (addresses), the ledger with its genesis, data,
 * updates and the model; node_folder.h lists the files. One process per folder. kill -9 at any moment loses nothing
 * that the node has acknowledged to anybody: records are stored before they are acknowledged, update blobs before
 * their round is closed, a round's state before the next one's is made; the machine is rebuilt from the folder.
 *
 * Thread rule: at_node_run owns its thread until it returns; it may start others. Nothing here prints: text goes to
 * `diag` and to the caller's log function. main() calls at_sys_process_init (os/sys.h) first. */
#ifndef ATOLL_NODE_NODE_H
#define ATOLL_NODE_NODE_H

#include "base/bytes.h"
#include "base/sign.h"
#include "wire/invite.h"

struct at_node_place {
    struct at_hash run;
    struct at_node_id node;
    char host[AT_HOST_BYTES_MAX + 1];
    uint16_t port;                       /* where this node listens; kept over restarts */
    char invite[AT_INVITE_TEXT_MAX + 1]; /* NUL-terminated; names this node, or the inviter while it has no log yet */
};

/* ---- a new run: folder, key, genesis, shards, ledger, invite; the caller becomes founder and steward ---- */
struct at_node_init_options { /* NULL and 0 mean the default in brackets */
    const char *dir;
    const char *preset;           /* [nano] */
    const char *const *data_path; /* text files, at least one */
    int data_count;
    uint32_t rounds, steps; /* [the preset's] */
    const char *outer;      /* how updates are joined: mean, diloco, sparse [mean] */
    uint32_t keep;          /* sparse: kept of 4096 [the kind's] */
    const double *young;    /* diloco, sparse: share of the run in dense rounds of two steps [the kind's start] */
    const uint64_t *seed;   /* [the preset's] */
    uint32_t min_members;   /* [1] */
    uint32_t stages;        /* [1] members that compute a unit together */
    bool groups_by_log;     /* in the order of the log, and not by what they have measured */
    uint32_t round_ms_max;  /* [a minute, and a unit at 2 GFLOP/s] */
    const char *listen;     /* ["127.0.0.1:0"] port 0: a free one is picked and kept */
    const char *announce;   /* [where it listens] what others are told instead: a port that something forwards; kept */
    const char *name;       /* for people, <= 32 bytes ["founder"] */
};
/* AT_E_USAGE (preset, listen), AT_E_DATA (data that is no text; a folder that holds another run or foreign files),
 * AT_E_NOT_FOUND, AT_E_PORT, AT_E_DISK. On failure a folder that was empty before is left without a genesis and may be
 * used again. */
at_err at_node_init(const struct at_node_init_options *options, struct at_diag *diag, struct at_node_place *ret_place);

/* ---- a new member: writes key and the invite's contents; at_node_run then fetches the rest ---- */
struct at_node_join_options {
    const char *dir;
    const char *invite;
    const char *listen;   /* ["127.0.0.1:0"] */
    const char *announce; /* [where it listens] */
    const char *name;     /* ["member"] */
};
/* AT_E_INVITE for a text that is none. A folder that has joined the same run already is fine; of another run:
 * AT_E_DATA. */
at_err at_node_join(const struct at_node_join_options *options, struct at_diag *diag, struct at_node_place *ret_place);

/* The same invite with a new ticket: whoever joins with it may hold a seat. A secret, for one member; this node keeps no
 * copy. AT_E_USAGE: not the founder's folder. */
at_err at_node_steward_invite(const char *dir, const char *invite, struct at_diag *diag,
                              char ret_text[AT_INVITE_TEXT_MAX + 1]);

/* What is known of a folder without running it. AT_E_DATA when it is no run folder. */
at_err at_node_folder(const char *dir, struct at_diag *diag, struct at_node_place *ret_place);

/* ---- running ---- */
enum at_node_log_kind { AT_NODE_LOG_EVENT, AT_NODE_LOG_WARNING };
typedef void at_node_log_fn(void *user, enum at_node_log_kind kind, const char *line);

#define AT_NODE_RELAYS_MAX        8 /* at once */
#define AT_NODE_RELAY_BYTES_PER_S ((uint64_t)1000 * 1000)

struct at_node_run_options {
    const char *dir;
    int threads;                   /* 1..64; 0: as many as processors */
    const char *kernels;           /* ["auto"] */
    const char *listen, *announce; /* [what the folder says]; when given they are kept */
    /* Bytes of states a second that it sends to newcomers [64 MiB], and that it fetches [no limit]. */
    uint64_t serve_bytes_per_s, fetch_bytes_per_s;
    /* What this node passes on between members that cannot reach each other: bytes a second of all relays together, as
     * seen by those members (its own line carries each twice) [AT_NODE_RELAY_BYTES_PER_S]; 0: it relays for nobody. */
    const uint64_t *relay_bytes_per_s;
    bool map_port;       /* [false] asks the gateway to forward this node's port (net/portmap.h) */
    at_node_log_fn *log; /* may be NULL; one line per event, no newline, no secrets */
    void *log_user;
};
struct at_node_result {
    bool ended;    /* the run's END record is in the log */
    bool finished; /* asked to finish, and did */
    uint32_t rounds;
    struct at_hash run, state_root;
};
/* Returns when the run has ended, after `finish` or `leave`, or after `stop`: AT_OK; after SIGINT or SIGTERM: AT_E_INTERRUPTED
 * (the folder is consistent in every case). AT_E_PEER: nobody of the run can be reached on a first join, or the peer
 * shows another key; AT_E_INVITE: the invite's run is not the peer's; AT_E_PORT, AT_E_DISK, AT_E_VERIFY (own folder is
 * damaged), AT_E_KERNEL... */
at_err at_node_run(const struct at_node_run_options *options, struct at_diag *diag, struct at_node_result *ret_result);

/* ---- control of a running node through D/control.sock: one line of JSON each way ----
 *
 * {"do":"finish"}  ends this node after its round; of the only steward, the run. Answer {"ok":true}.
 * {"do":"leave"}   the same, but now: its unit of work ends with the step it is in, counts for that, and is
 *                  safe with others first. Answer {"ok":true}.
 * {"do":"stop"}    ends this process now, cleanly. Answer {"ok":true}.
 * {"do":"status"}  answers one object:
 *   "ok":true, "run_id", "node_id", "role" ("steward"|"member"), "phase", "joined", "desync",
 *   "term", "stewards" (seats), "stewards_here" (linked, this one included), "abstains" (a steward with an old disk),
 *   "round", "rounds", "rounds_done", "step", "steps", "tokens", "tokens_per_s",
 *   "heldout_loss_first", "heldout_loss_last" (null: none yet), "heldout_rounds" (it is of the model after so many rounds: a round tells the loss
 *   that it began with), "peers" (links),
 *   "peers_punched", "peers_relayed" (of them: through NATs; by a relay), "peers_known" (addresses), "hops" (links to the steward; 255: no way), "fetched_bytes", "fetch_bytes",
 *   "checkpoint_holders" (members known to hold the newest agreed state on disk, this one included),
 *   "state_root", "state_round", "records", "head", "ended", "points_pending", "points_confirmed", "share" (own),
 *   "members": [{"id", "replica", "name", "role", "self", "online", "phase", "step", "tokens", "tokens_per_s",
 *                "points_pending", "points_confirmed", "share", and in a run of stages "part", "part_why", "line_mbit_s"
 *                (that its line carries at least; not there: not known)...}],
 *   "relays", "relays_max", "relay_bytes_per_s", "relayed_bytes" (what this node passes on for others, and its bounds),
 *   "outside" (what the gateway forwards here; null: nothing),
 *   "invite", "threads", "kernels", "last_event",
 *   "sent_control_bytes", "sent_bulk_bytes" (frames sent by this process: of messages, and of pieces of blobs)
 * anything else    {"ok":false,"error":text}
 *
 * The answer is appended to `ret_json`, without the newline. AT_E_NOT_FOUND: no node runs in `dir`. AT_E_ENV: it does
 * not answer within timeout_ms. */
at_err at_control_call(const char *dir, const char *verb, uint32_t timeout_ms, struct at_diag *diag,
                       struct at_buf *ret_json);

#endif
