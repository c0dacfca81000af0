/* node_mesh.h: what the node's machine knows of other members and of the way to the steward, and the bounds of what peers
 * may ask of it. Part of node_internal.h, for the same files. */
#ifndef ATOLL_SWARM_NODE_MESH_H
#define ATOLL_SWARM_NODE_MESH_H

#include "swarm/node_machine.h"
#include "wire/message.h"
#include "wire/reach.h"

#define AT_NODE_RELAYED_MAX      128 /* records passed on lately, remembered for their answers */
#define AT_NODE_SUBMIT_BURST     32  /* records that a peer writes itself, and that all newcomers write together */
#define AT_NODE_SUBMIT_MS        100
#define AT_NODE_AUTHOR_BURST     64 /* a member's records and words of presence that others pass on */
#define AT_NODE_AUTHOR_MS        50
#define AT_NODE_FRAME_BURST      4096 /* messages of a peer; wants and pieces have bounds of their own */
#define AT_NODE_FRAME_MS         1
#define AT_NODE_PAGE_FRAMES      16   /* asking for a page of the directory counts as so many */
#define AT_NODE_KIB_BURST        8192 /* and their KiB, log parts not counted */
#define AT_NODE_KIB_MS           4
#define AT_NODE_HOPS_MAX         15
#define AT_NODE_NEAR_MAX         48 /* so many members keep a link to the steward; the others reach it through members */
#define AT_NODE_MESH_DIALS       4  /* members each member dials: with as many that dial it, its degree is about 8 */
#define AT_NODE_SPARE_LINKS      12 /* members linked: of more those are closed that nobody calls for */
#define AT_NODE_MESH_WALK        8  /* further on the ring when one cannot be reached */
#define AT_NODE_HEADS_ALL        6  /* with no more links all are told at once of a longer log; with more, */
#define AT_NODE_HEADS            1  /* is told of it at a time */
#define AT_NODE_DIALS_MAX        8  /* nodes being reached at once */
#define AT_NODE_CLIMBS_MAX       (AT_NODE_DIALS_MAX + 2) /* the steward and the invite's node always */
#define AT_NODE_RELAY_BELOW      2 /* a relay is asked for while fewer members than this are linked */
#define AT_NODE_FRESH_FEW        8 /* members, among whom a statement is passed on at once */
#define AT_NODE_FRESH_MANY       64 /* among so many it waits AT_NODE_FRESH_MS, more or less, among more as their square, */
#define AT_NODE_FRESH_TELLS      4 /* and it goes on to so many links */
#define AT_NODE_FRESH_MOST       512 /* the next own one waits as long among 64, among more in proportion, up to so many */
#define AT_NODE_ROOM_KEPT        8  /* links that members leave to the steward and to newcomers */
#define AT_NODE_HINTS_MAX        8  /* members that a newcomer is told of where there is no room */
#define AT_NODE_JOINS_MAX        64 /* JOINs that are ordered together: a block */
#define AT_NODE_LET_GO_TRIES     4  /* each waits twice as long as the one before */
#define AT_NODE_CROWDED_FAILURES 3  /* as many failures as it counts like that there was no room */

/* A bucket of `burst` drops that lose one every `ms`: what may be spent at once and in the long run. */
struct at_node_bucket {
    uint32_t spent;
    uint64_t ms;
};

struct at_node_dial {
    bool under_way;
    uint32_t failures; /* in a row */
    uint32_t shorts;   /* links to it in a row that went down within AT_NODE_STEADY_MS */
    uint32_t turn;     /* who arranges first, should a meeting be needed */
    uint64_t due_ms;   /* not before; */
    uint64_t away_ms;  /* not before, where enough others are linked */
    uint64_t log_size; /* of our log when the last one began: the steward's is no shorter by now */
};

struct at_node_climb { /* towards one node, by all ways: node_climb.c */
    bool used;
    uint64_t serial;
    struct at_node_id node;
    struct at_reach reach;
    struct at_endpoint list[1 + AT_ENDPOINTS_MAX]; /* port 0: where the invite says */
    uint64_t via[AT_REACH_ARRANGERS_MAX];          /* links to who could arrange a meeting */
};

struct at_node_peer {          /* a member, by replica */
    struct at_endpoints where; /* its newest statement; counter 0: none */
    uint64_t where_ms;
    struct at_node_dial dial;
    struct at_presence said; /* its newest word of presence; counter 0: none */
    bool far;                /* through others */
    struct at_node_bucket author;
    /* the steward's: rounds that opened without it in a row, although it was here */
    uint32_t left_out;
    uint64_t left_out_ms, pause_ms; /* since when; when a pause is made for it, at the earliest */
};

struct at_node_word { /* the way of a member's newest word of presence; apart, since all are looked through at once */
    uint64_t via;     /* the link over which it came, while it is up; else 0 */
    uint64_t told;    /* the link over which it went on towards the steward; 0: it has not */
};

struct at_node_hint { /* somebody that a newcomer was told of; counter 0: nobody */
    struct at_endpoints where;
    struct at_node_dial dial;
};

struct at_node_ring { /* the active members, ids ascending */
    struct at_node_id id;
    uint32_t replica;
};

struct at_node_mesh {
    struct at_node_peer *peers; /* [member_count] */
    struct at_node_word *words; /* likewise */
    struct at_node_ring *ring;
    uint32_t peer_cap, ring_count, ring_before;      /* before: members that are nearer to the steward than this node */
    uint32_t ring_at, ring_step[AT_NODE_MESH_DIALS]; /* own place, or where it would be; distances that it dials */
    bool ring_valid, near;                           /* near: among those that keep a link to the steward */
    uint32_t ring_left1;              /* not valid only because this member has left; + 1; 0: it is to be made anew */
    uint64_t ring_ms, ring_since_ms;  /* when somebody joined last; since when others have, one soon after the other */
    uint64_t sums[AT_PEERS_SUMS_MAX]; /* node_sums.c; as valid as the ring */
    /* own statement */
    uint32_t own_count;
    bool own_stale;        /* to be signed and told */
    uint64_t own_stale_ms; /* since when */
    uint64_t own_told_ms;  /* when somebody was told it last; 0: nobody yet */
    uint64_t counter;      /* of the last statement or presence of ours */
    /* the directory */
    bool ask_wanted, keep_wanted;
    bool ask_news;        /* the answer that is coming in has said something new */
    uint64_t ask_ms;      /* nobody is asked before */
    uint32_t ask_wait_ms; /* after an answer without anything new so long, then twice that */
    uint64_t answered_ms; /* the last answer */
    uint32_t fresh_count;
    uint32_t fresh_turn; /* the link that is told first next */
    uint64_t fresh_ms;   /* when */
    uint64_t keep_ms;    /* not before */
    uint32_t keep_news;  /* statements that are not written down */
    /* dialling */
    uint32_t hint_count, hint_next;  /* next: the member that the next newcomer without room is told of first */
    uint32_t dials;                  /* nodes being reached */
    uint32_t climbing;               /* in use: mostly none, and then nobody looks at them */
    uint64_t climbs;                 /* so far */
    uint64_t spare_ms;               /* links are looked at, whether anybody needs them, not before; */
    uint64_t spare_wait_ms;          /* and then so much later */
    uint64_t lonely_ms, dial_due_ms; /* due: the next time when a dial is to be looked at; UINT64_MAX: none; */
    bool still;                      /* and until then nothing has changed since that a member looks at for it */
    /* the way to the steward */
    uint64_t feed;        /* the link that leads there and brings the log; 0: none */
    uint64_t path, paths; /* path: a number for the way there as it is now, 0: none; paths: those so far */
    uint64_t path_ms;     /* since when */
    bool feed_live;       /* the feed pushes new blocks */
    /* letting go of the link to the steward, node_crowd.c */
    bool let_go;
    uint32_t let_go_tries;
    uint64_t let_go_ms; /* when it is let go, at the earliest; 0: no other way leads there */
    uint64_t asked_ms, behind_ms;
    uint32_t hops;               /* from here to the steward */
    uint64_t head_size, head_ms; /* the log's size that peers were told last, and when; */
    uint32_t head_wait_ms;       /* the next ones after so long */
    uint64_t hold_ms;            /* the way was lost: until then only those count that were nearer than `nearer_than` */
    uint32_t nearer_than;
    /* passing on */
    struct at_node_bucket newcomers;
    uint32_t relayed_next;
    uint64_t here_path;  /* where "I am here" was said */
    uint32_t again_next; /* the next member whose presence is to be told anew, as the way is another */
    uint64_t again_ms;   /* one more than when the last ones were told; 0: never */
    /* what is looked at rarely */
    struct at_node_dial contact;
    struct at_endpoint own[AT_ENDPOINTS_MAX];
    struct at_node_hint hints[AT_NODE_HINTS_MAX];
    struct { /* members' newer statements that are to be passed on, but not to those who know them */
        uint32_t replica;
        uint64_t known[AT_NODE_LINKS_MAX / 64]; /* bit i: over links[i] it has come, too */
    } fresh[AT_PEERS_MAX];
    struct at_node_climb climb[AT_NODE_CLIMBS_MAX];
    struct at_node_relayed {
        struct at_hash leaf;
        uint64_t from, ms;
    } relayed[AT_NODE_RELAYED_MAX];
};

struct at_node_receipt { /* waits for its update */
    bool used, checks;   /* checks: the update is here and is being looked at */
    bool waits;          /* for company (node_company.c), the update is fit */
    uint64_t since_ms;   /* since when it does */
    uint64_t link;       /* it came over this one, and so does the update; UINT64_MAX: that is down */
    struct at_signed_record record;
    struct at_record rec;
};

struct at_node_joins { /* a single steward's: JOINs that wait for each other (node_company.c) */
    uint32_t count;
    uint64_t ordered_ms; /* when some were ordered last, + 1; 0: none yet */
    struct {
        struct at_signed_record record;
        uint64_t link; /* it came over this one */
    } list[AT_NODE_JOINS_MAX];
};

/* Records of ours on their way into the log. What a drive looks at lies together: the records are in cold memory. */
enum at_node_own_what {
    AT_NODE_OWN_RECEIPT,
    AT_NODE_OWN_JOIN,
    AT_NODE_OWN_LEAVE,
    AT_NODE_OWN_READY,
    AT_NODE_OWN_MEASURE,
    AT_NODE_OWN_EVIDENCE, /* AT_NODE_ACCUSALS of them */
    AT_NODE_OWN_COUNT = AT_NODE_OWN_EVIDENCE + AT_NODE_ACCUSALS
};
struct at_node_own {
    uint64_t path, sent_ms; /* sent last; path 0: not signed yet, or to be sent */
    uint32_t tries;         /* on this path */
    bool is_signed;
};

#endif
