/* tiles.h: the picker: which tile of a state to ask from whom next. Pure; knows no message, file or clock.
 *
 * A state's root is a Merkle root over leaf 0 and its tiles (train/state.h). Who has the list of the leaves' hashes can
 * judge every tile by itself, so tiles come from any peers in any order:
 *
 *   rarest first     of the tiles that a peer says it holds, the one that the fewest peers hold. Equally rare ones in
 *                    ascending order from a place that the seed chooses, so that several newcomers begin at different
 *                    tiles and have something to give to each other
 *   windows          a peer owes at most `window` tiles: 4 at first; one more for each that came within half a second,
 *                    half as many after one that took two: a slow link has about a second of tiles on its way,
 *                    so what else it carries is not held up for long
 *   stalls           what a peer owes may be asked from another one when it has answered nothing for AT_TILES_STALL_MS, or
 *                    not this tile for AT_TILES_LOST_MS; its window shrinks to 1, and it is asked nothing more until it
 *                    has answered. A peer that serves many is slow with each, and not silent
 *   endgame          with every missing tile asked, a tile that is late may be asked from a second peer: one in eight
 *                    tiles, and 16, in all
 *   lies             bytes that do not hash to the leaf are refused; the tile is free again, and the caller drops the peer
 *
 * Rarest first with rotation and a bounded endgame follow Cohen, "Incentives Build Robustness in BitTorrent" (2003),
 * section 3; verified pieces make choking unnecessary here, since members want newcomers to be served.
 * Memory: about 44 bytes a tile, taken in start; none afterwards. Same calls in the same order give the same picks. */
#ifndef ATOLL_SWARM_TILES_H
#define ATOLL_SWARM_TILES_H

#include "base/hash.h"

#define AT_TILES_PEERS_MAX  32 /* that tiles are fetched from at once */
#define AT_TILES_WINDOW_MAX 16
#define AT_TILES_FAST_MS    500
#define AT_TILES_SLOW_MS    2000
#define AT_TILES_STALL_MS   6000
#define AT_BLOB_SILENT_MS   13000 /* the same for pieces of other blobs, see node_blob.c */
#define AT_TILES_LOST_MS    15000
#define AT_TILES_AGAIN_MS   400 /* endgame: a tile asked so long ago is late */
#define AT_TILES_COPIES_MAX 2   /* peers that owe the same tile at once */

struct at_tiles_ask {
    bool used, late; /* late: it does not keep others from being asked for the tile */
    uint32_t tile;
    uint64_t asked_ms;
};

struct at_tiles_peer {
    uint64_t id; /* 0: no peer */
    bool whole;
    uint8_t *bits;   /* borrowed from `block`: what it says it holds */
    uint32_t window; /* tiles it may owe */
    uint32_t owes, late;
    uint64_t answer_ms; /* its last tile */
    uint32_t cursor;    /* in `order`: what comes before it is not for this peer */
    struct at_tiles_ask ask[AT_TILES_WINDOW_MAX];
};

struct at_tiles {
    uint32_t tiles, missing, free; /* free: missing and asked from nobody */
    uint32_t offset;               /* where ascending order begins */
    uint32_t again_left;           /* second asks of the endgame */
    uint32_t turn;                 /* the peer that is looked at next */
    bool stale;                    /* `order` is to be made anew */
    void *block;                   /* owned: all below */
    struct at_hash *leaf;          /* [tiles] */
    uint32_t *order;               /* [tiles] rarest first */
    uint8_t *copies;               /* [tiles] peers that owe it; COPIES_HAVE: it is here */
    uint8_t *held_by;              /* [tiles] peers that hold it */
    uint8_t *have;                 /* [(tiles + 7) / 8] as a map for others */
    struct at_tiles_peer peer[AT_TILES_PEERS_MAX];
};

/* leaves: the hashes of the tiles, 32 bytes each, copied. tiles >= 1. AT_E_NOMEM. A zeroed struct is an empty picker. */
at_err at_tiles_start(struct at_tiles *t, struct at_span leaves, uint32_t tiles, uint64_t seed);
void at_tiles_release(struct at_tiles *t);

/* The tile is here already, checked by the caller. */
void at_tiles_found(struct at_tiles *t, uint32_t tile);
bool at_tiles_has(const struct at_tiles *t, uint32_t tile);
/* Its own map: bit i of byte i/8; no zero byte at the end. */
struct at_span at_tiles_map(const struct at_tiles *t);

/* What a peer says it holds, instead of what it said before: all, or bits[] (at most (tiles + 7) / 8 bytes; bits behind
 * the last tile count for nothing). False: no room for another peer. */
bool at_tiles_peer_holds(struct at_tiles *t, uint64_t id, bool whole, struct at_span bits);
/* It holds nothing (any more); what it was asked before it said so it still answers. */
void at_tiles_peer_empty(struct at_tiles *t, uint64_t id);
void at_tiles_peer_gone(struct at_tiles *t, uint64_t id);

/* The next tile to ask, and from whom; counts as asked. False: nothing to ask now. */
bool at_tiles_next(struct at_tiles *t, uint64_t now_ms, uint64_t *ret_id, uint32_t *ret_tile);

enum at_tiles_verdict {
    AT_TILES_NEW,     /* right, and missing until now: store it */
    AT_TILES_KNOWN,   /* right, but here already */
    AT_TILES_WRONG,   /* not the tile; the peer is to be dropped */
    AT_TILES_UNASKED, /* this peer owes no such tile */
};
enum at_tiles_verdict at_tiles_got(struct at_tiles *t, uint64_t id, uint32_t tile, struct at_span bytes,
                                   uint64_t now_ms);
/* The peer does not have it (any more). False: it was not asked. */
bool at_tiles_missing(struct at_tiles *t, uint64_t id, uint32_t tile);

/* Nobody owes a missing tile, and none of the peers holds one. */
bool at_tiles_starved(const struct at_tiles *t);
/* When, after now_ms, at_tiles_next may have something new without anything else happening; UINT64_MAX: never. */
uint64_t at_tiles_deadline_ms(const struct at_tiles *t, uint64_t now_ms);

#endif
