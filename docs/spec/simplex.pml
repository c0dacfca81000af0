/* Simplex consensus among n = 4 stewards, one of them Byzantine: safety. README.md beside this file says how to run it and
 * what it does not cover. Source: Chan and Pass, "Simplex Consensus: A Simple and Fast Consensus Protocol" (2023).
 *
 * Checked after every step:
 *   compatible   of two final blocks one is an ancestor of the other (so no height has two final blocks);
 *   exclusive    no honest steward signs both dummy and finalise of one view, and no view with a final block is skipped;
 *   one block    no view has two notarised blocks.
 *
 * The three honest stewards are processes; the Byzantine one is what the rules allow besides. How the states are kept few,
 * and why no violation is lost:
 *
 * - A quorum of 2f+1 = 3 votes is two honest votes. The Byzantine steward signs everything: each block of a view, its
 *   dummy, and finalise for each block. Every such vote is there for whom it serves, and unseen by everybody else.
 * - Votes are counted, up to a quorum, once they are signed. A rule asks whether enough votes have arrived, never whether
 *   one is missing, so a vote that arrives late or never is a rule that fires late or never. Every rule may fire at any
 *   later time or not at all, for each steward by itself: all delays, losses, repetitions and orders are among the runs,
 *   and what a steward has seen needs no variable. Who signed matters to its own later steps only: that is in its flags,
 *   and only for the view it is in, because in a view that was left nothing is signed but finalise (below).
 * - The Byzantine steward leads every view: a proposal is whatever the voters' check lets through, shown to any honest
 *   stewards or to none. An honest leader's proposal is among them (one block, for all), so the result holds for every
 *   order of leaders.
 * - A block begins to exist with its first honest vote, and is given its parent then. What made a parent valid stays true,
 *   so a parent that was chosen earlier is still among those to choose from.
 * - Two blocks a view. Of more, all but one lack a quorum, and a vote for a block that never gets one only hinders its
 *   voter: the run without that vote is here, too. Block 1 gets votes only after block 0 has one: the names are exchangeable.
 * - Timers fire at any time (there is no clock, no Δ, no pending record): more runs than any clock allows.
 * - Finalise counts as signed once its steward has left the view without a dummy vote and the block is notarised.
 *   Nothing waits for a finalise vote and nothing is undone by one, so early ones show each violation that late ones do.
 *   A steward that left through the dummy's notarisation counts as well, as if it saw the block's later: only more finals.
 * - Whoever sees the notarisation of a later view goes there at once. Each view between has a notarisation, too, since
 *   honest stewards passed through it, so this is a run of single moves.
 * - A steward that crashes and comes back with its votes is a slow one.
 * - When all have left a view, counts that stayed below a quorum are set to 0: nothing there is signed any more.
 * - Honest stewards obey the same rules, so only the multiset of their states matters: after each step they are sorted.
 *   -DNAMED leaves them in place, for runs that people read. */
#ifndef VIEWS
#define VIEWS 3
#endif

/* Blocks: 2h and 2h+1 are those of view h; 1 is the genesis, of view 0. */
#define GENESIS 1
#define BLOCKS (2 * VIEWS + 2)
#define view_of(b) ((b) >> 1)

/* Honest stewards. */
byte view[3] = 1; /* the view that it is in; VIEWS + 1: through with all */
byte barred[3];   /* which blocks of this view it may not vote for any more: bit 0 and bit 1 */
bit dummied[3];   /* it has voted for the dummy of this view; that bars all blocks, too */

/* Honest votes for a block, for a view's dummy; stewards that left the view free to sign finalise: 0, 1 or 2 = a quorum. */
#define QUORUM 2
byte votes[BLOCKS];
byte dummies[VIEWS + 1];
byte ready[VIEWS + 1];
byte parent[BLOCKS]; /* of a block with votes */

#define count(x) x = (x < QUORUM -> x + 1 : QUORUM)
#define notarised(b) ((b) == GENESIS || votes[b] == QUORUM)
#define skipped(h) (dummies[h] == QUORUM)
#define final(b) (votes[b] == QUORUM && ready[view_of(b)] == QUORUM)

/* The rules, and what may be planted in them. */
#ifdef PLANT_PARENT
#define NEEDS_DUMMIES false /* a parent is valid without the dummies between */
#else
#define NEEDS_DUMMIES true
#endif
#ifdef PLANT_VOTE
#define bars(k) (1 << (k)) /* a vote for each block instead of one */
#else
#define bars(k) 3
#endif
#ifdef PLANT_FINALISE
#define may_finalise(i) true /* finalise even after a dummy vote */
#else
#define may_finalise(i) (!dummied[i])
#endif

#define acts(i) (view[i] <= VIEWS)

byte b, at; /* scratch of a step, then 0 again */

/* compatible: at goes from the last final block to the genesis, b visits every block on the way. */
inline check() {
    b = BLOCKS - 1;
    do
    :: b > GENESIS && !final(b) -> b--
    :: else -> break
    od;
    at = b;
    do
    :: b > GENESIS ->
        do
        :: at > b -> at = parent[at]
        :: else -> break
        od;
        assert(!final(b) || at == b);
        assert(!final(b) || !skipped(view_of(b))); /* exclusive, for quorums */
        b--
    :: else -> break
    od;
    b = 0; at = 0
}

/* A view that all have left: what did not come to a quorum, or could only finalise a block that is not notarised. */
inline forget(h) {
    if
    :: view[0] > h && view[1] > h && view[2] > h ->
        b = 2 * h;
        do
        :: b < 2 * h + 2 ->
            if
            :: !notarised(b) -> votes[b] = 0; parent[b] = 0
            :: else
            fi;
            b++
        :: else -> break
        od;
        if
        :: !skipped(h) -> dummies[h] = 0
        :: else
        fi;
        if
        :: ready[h] != QUORUM || !(notarised(2 * h) || notarised(2 * h + 1)) -> ready[h] = 0
        :: else
        fi;
        b = 0
    :: else
    fi
}

#define rank(i) (view[i] * 8 + barred[i] * 2 + dummied[i])
#define swap(x, i, j) b = x[i]; x[i] = x[j]; x[j] = b
inline order(i, j) {
    if
    :: rank(i) < rank(j) -> swap(view, i, j); swap(barred, i, j); swap(dummied, i, j)
    :: else
    fi
}
#ifdef NAMED
#define sort() skip
#else
#define sort() order(0, 1); order(1, 2); order(0, 1); b = 0
#endif

/* Valid: the parent is notarised, and so are the dummies of all views between. p takes any valid parent, or stays at 0. */
inline choose_parent(p, h) {
    p = 2 * h - 1;
    do
    :: notarised(p) -> break
    :: p > GENESIS && ((p & 1) == 1 || !NEEDS_DUMMIES || skipped(view_of(p))) -> p--
    :: else -> p = 0; break
    od
}

/* Steward _pid votes for block k of its view. */
#define vote_for(k) \
    atomic { \
        acts(_pid) && !((barred[_pid] >> k) & 1) && (k == 0 || votes[2 * h] != 0) -> \
        if \
        :: votes[2 * h + k] != 0 -> p = parent[2 * h + k] \
        :: else -> choose_parent(p, h) \
        fi; \
        d_step { \
            if \
            :: p != 0 -> \
                printf("steward %d in view %d votes for block %d, whose parent is block %d\n", _pid, h, 2 * h + k, p); \
                parent[2 * h + k] = p; \
                count(votes[2 * h + k]); \
                assert(votes[2 * h] != QUORUM || votes[2 * h + 1] != QUORUM); /* one block */ \
                barred[_pid] = barred[_pid] | bars(k) \
            :: else \
            fi; \
            p = 0; \
            check(); \
            sort() \
        } \
    }

active [3] proctype steward() {
    byte p; /* scratch */
#define h view[_pid]
end:
    do
    :: vote_for(0)
    :: vote_for(1)
    :: d_step {
            acts(_pid) && !dummied[_pid] -> /* the timer fires */
            printf("steward %d in view %d votes for the dummy\n", _pid, h);
            count(dummies[h]);
            dummied[_pid] = 1;
            barred[_pid] = 3;
            check();
            sort()
        }
    :: d_step {
            acts(_pid) && (notarised(2 * h) || notarised(2 * h + 1) || skipped(h)) -> /* a notarisation arrives */
            if
            :: may_finalise(_pid) ->
                printf("steward %d leaves view %d and is free to sign finalise\n", _pid, h);
                assert(!dummied[_pid]); /* exclusive */
                count(ready[h])
            :: else -> printf("steward %d leaves view %d\n", _pid, h)
            fi;
            p = h;
            h = h + 1;
            dummied[_pid] = 0;
            barred[_pid] = 0;
            check();
            forget(p);
            sort();
            p = 0
        }
    od
}
