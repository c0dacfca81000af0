/* demo.h: the parts of `atoll demo`: what it knows of its members (demo.c asks them), what it shows (demo_view.c). */
#ifndef ATOLL_CLI_DEMO_H
#define ATOLL_CLI_DEMO_H

#include "cli/child.h"
#include "cli/progress.h"
#include "os/file.h"

#define AT_DEMO_MEMBERS_MAX 16

struct at_demo_member {
    char dir[AT_PATH_BYTES], log[AT_PATH_BYTES];
    char id[65];
    struct at_child child;
    bool joined;                        /* its JOIN is final */
    int restarts;                       /* after it was killed, and not by us */
    double resume_s, restart_s, mend_s; /* chaos: paused, dead, cut off until then; 0: not */
    struct {
        bool out, in; /* nothing of it gets out; nothing gets in */
        int other;    /* out to, in from this member; -1: all others */
    } cut;
    /* as the founder's status tells */
    char phase[16];
    bool online;
    unsigned step;
    uint64_t tokens, points_pending, points_confirmed;
    double tokens_per_s, share;
    char root[65]; /* at the end: of its own folder */
};

struct at_demo {
    struct at_screen screen;
    int member_count;
    struct at_demo_member *member; /* [member_count] */
    unsigned rounds, steps, round, round_shown;
    double limit_s; /* finish at the first round edge after so many seconds; 0: when the rounds are done */
    double elapsed_s, train_start_s;
    double loss_first, loss_last; /* NaN: not known yet */
    unsigned loss_rounds; /* loss_last is of the model after so many: a round tells the loss that it began with */
    uint64_t tokens;
    bool ended, finishing;
    struct {
        bool on;
        double next_s; /* the next event */
        uint64_t events;
        unsigned round;   /* that runs */
        int round_events; /* begun in it */
        unsigned kills, pauses, partitions;
    } chaos;
    int founder_calls; /* it had ended, and started again for those who had not seen the end */
    double founder_gone_s;
    bool data_once; /* every sample counts once: reckoned from the log */
    char phase[16], run_id[65], dir[AT_PATH_BYTES];
    char head[65]; /* of the ledger, verified */
    uint64_t records;
    bool ledger_ok, roots_agree;
    char *sample;
};

/* The live block. */
void at_demo_view_draw(struct at_demo *d);
/* Where there is no terminal: a line for the round that was just finished, and for one that was seen
 * only afterwards. */
void at_demo_view_round(struct at_demo *d);
void at_demo_view_missed(struct at_demo *d, unsigned round, double loss, unsigned loss_rounds);

/* The last page. `program` for the lines that say what to try next. */
void at_demo_view_end(const struct at_demo *d, const char *program, FILE *out);

#endif
