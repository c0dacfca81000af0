/* Simplex consensus among n = 4 stewards, one of them Byzantine: liveness. simplex.pml is about safety; README.md says how
 * to run both. Checked:
 *   nobody stuck   once messages arrive again, every honest steward leaves every view, whatever the Byzantine one does or
 *                  does not do. Each step adds a vote or leaves a view and none is taken back, so every run ends; one that
 *                  ends before all are through is a deadlock, which spin reports as an invalid end state;
 *   final          every view with an honest leader that nobody had entered by then gets its block final.
 *
 * Partial synchrony, without a clock, in three phases; the second and the third begin at any moment:
 *   EARLY    any message may be late or lost, timers fire at any time;
 *   LATER    what honest stewards send, or sent before and resend, arrives. A timer (3Δ) of a view entered since then fires
 *            only when no such message is on its way: 3Δ is longer than a delivery. The Byzantine steward does as it likes;
 *   SILENT   the same, but the Byzantine steward never does anything again. What needs its vote does not happen any more.
 * A run in which the Byzantine steward could still do something at the end, and does not, is one that was SILENT before.
 *
 * How the states are kept few, and why nothing is hidden by it:
 * - No parents. A Byzantine leader proposes something valid or nothing; an honest one can always propose, as it has passed
 *   all views before and so knows a parent with the dummies between.
 * - One block a view. A Byzantine leader that shows several wastes votes: a vote for another block is spent and not
 *   counted. Should another block get the votes, it is called this one.
 * - No lost votes. A vote lost in EARLY is resent as long as its steward is in that view, and when it is not, the
 *   notarisation that moved it is what others get ("ahead" below). May happen is more than must happen: see there.
 * - Counts of a view that all have left are set to 0, but for finalise votes that are asked for at the end.
 *
 * One assumption goes beyond "every Δ in h, resend the notarisation of h-1": it brings along those before it that its
 * receiver lacks. PLANT_CATCH_UP takes that away. */
#ifndef VIEWS
#define VIEWS 3
#endif
#define BYZANTINE 3

mtype = { EARLY, LATER, SILENT };
mtype phase = EARLY;
byte shift;                /* steward (h + shift) mod 4 leads view h */
byte old_view = VIEWS + 1; /* at the end of EARLY: the highest view that anyone was in */

byte view[3] = 1; /* the view that an honest steward is in; VIEWS + 1: through */
bit voted[3];   /* in this view: for a block */
bit dummied[3]; /* in this view: for the dummy */
/* Honest votes of a view, 0 to 3; two of them need the Byzantine steward's help to be a quorum. */
byte votes[VIEWS + 2];     /* for the block */
byte dummies[VIEWS + 2];   /* for the dummy */
byte finalises[VIEWS + 2]; /* finalise for the block */

#define leader(h) (((h) + shift) & 3)
#define through(i) (view[i] > VIEWS)

#ifdef PLANT_TIMER
#define may_dummy(i) (!dummied[i] && !voted[i]) /* planted: no dummy vote after a block vote */
#else
#define may_dummy(i) (!dummied[i])
#endif
#ifdef PLANT_CATCH_UP
#define helps(x, i) (view[x] == view[i] + 1) /* planted: the notarisation of h-1 comes alone */
#else
#define helps(x, i) (view[x] > view[i])
#endif

/* Sure to happen after EARLY: a notarisation that others have, or one from three honest votes; a vote for an honest
 * leader's proposal, which the leader sends as it enters the view. */
#define ahead(i) (helps(0, i) || helps(1, i) || helps(2, i))
#define must_move(i) (!through(i) && (ahead(i) || votes[view[i]] == 3 || dummies[view[i]] == 3))
#define proposed(h) (leader(h) != BYZANTINE && view[leader(h)] >= (h))
#define must_vote(i) (!through(i) && !voted[i] && !dummied[i] && view[i] > old_view && proposed(view[i]))
#define busy(i) (must_move(i) || must_vote(i))
#ifdef PLANT_HASTE
#define calm true /* planted: timers fire before messages arrive, for ever */
#else
#define calm (!busy(0) && !busy(1) && !busy(2))
#endif

/* Possible only while the Byzantine steward helps, or (EARLY) by chance. */
#define may_move(i) (!through(i) && phase != SILENT && (votes[view[i]] >= 2 || dummies[view[i]] >= 2))
#define may_vote(i) \
    (!through(i) && !voted[i] && !dummied[i] && phase != SILENT && (leader(view[i]) == BYZANTINE || proposed(view[i])))

byte v; /* scratch */

/* A view that all have left: only finalise votes of views that began after EARLY still count. */
inline forget(u) {
    if
    :: view[0] > u && view[1] > u && view[2] > u ->
        votes[u] = 0;
        dummies[u] = 0;
        finalises[u] = (u > old_view -> finalises[u] : 0)
    :: else
    fi
}

proctype steward(byte i) {
#define h view[i]
end:
    do
    :: d_step {
            must_vote(i) || may_vote(i) ->
            printf("steward %d in view %d votes for the block\n", i, h);
            votes[h] = votes[h] + 1;
            voted[i] = 1
        }
    :: d_step {
            may_vote(i) && leader(h) == BYZANTINE ->
            printf("steward %d in view %d votes for another block\n", i, h);
            voted[i] = 1
        }
    :: d_step {
            !through(i) && may_dummy(i) && (h <= old_view || calm) -> /* the timer fires */
            printf("steward %d in view %d votes for the dummy\n", i, h);
            dummies[h] = dummies[h] + 1;
            dummied[i] = 1
        }
    :: atomic {
            must_move(i) || may_move(i) ->
            if
            :: votes[h] >= 2 ->
                printf("steward %d leaves view %d with the block's notarisation\n", i, h);
                finalises[h] = finalises[h] + (1 - dummied[i])
            :: dummies[h] >= 2 -> printf("steward %d leaves view %d with the dummy's notarisation\n", i, h)
            fi;
            d_step {
                h = h + 1;
                voted[i] = 0;
                dummied[i] = 0;
                forget(h - 1)
            }
        }
    od
}

init {
    atomic {
        if
        :: shift = 0
        :: shift = 1
        :: shift = 2
        :: shift = 3
        fi;
        run steward(0); run steward(1); run steward(2)
    }
    d_step {
        printf("LATER: from here on messages arrive; %d leads view 1\n", leader(1));
        phase = LATER;
        old_view = (view[0] > view[1] -> view[0] : view[1]);
        old_view = (view[2] > old_view -> view[2] : old_view)
    }
    d_step { printf("SILENT: the Byzantine steward does nothing any more\n"); phase = SILENT }
    d_step {
        through(0) && through(1) && through(2) -> /* nobody stuck: else this waits in vain */
        v = old_view + 1;
        do
        :: v <= VIEWS ->
            assert(leader(v) == BYZANTINE || finalises[v] == 3); /* final */
            v++
        :: else -> break
        od;
        v = 0
    }
}
