/* What other stages send, frame by frame: of this attempt or of another, whole and cut, by the right and by the wrong
 * member; and how a team ends. Two stages over real links: node_stages_test. */
#include "node/node_team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { OWN = 7, THEIRS = 9, TAG = 4, BOX_HEAD = 24 };

static int notified;

static void on_notify(void *user)
{
    notified++;
}

static const struct at_node_id peer = {{1}}, self = {{2}}, stranger = {{3}};

static struct at_team *two(void)
{
    struct at_node_team who = {.session = OWN, .rank = 1, .ranks = 2};
    who.peer[0].id = peer;
    who.peer[1].id = self;
    struct at_team *t = at_team_new(&who, on_notify, NULL);
    assert_non_null(t);
    return t;
}

/* A message of `n` bytes as the peer's box sends it, behind the head of a frame. */
static size_t message(uint8_t *ret, uint32_t to, uint32_t from, const char *bytes, size_t n)
{
    memset(ret, 0, 8 + BOX_HEAD);
    at_store_le32(ret, to);
    at_store_le32(ret + 4, from);
    at_store_le32(ret + 8, 1); /* DATA: net/ranks_box.h */
    at_store_le32(ret + 12, TAG);
    at_store_le64(ret + 16, n);
    at_store_le32(ret + 24, (uint32_t)n);
    memcpy(ret + 8 + BOX_HEAD, bytes, n);
    return 8 + BOX_HEAD + n;
}

static void what_is_of_this_attempt_arrives(void **state)
{
    struct at_team *t = two();
    struct at_comm comm = at_team_comm(t);
    struct at_diag diag = {0};
    uint8_t frame[64], tail[64], got[5] = {0};
    struct at_transfer x = at_comm_recv(&comm, 0, TAG, got, 5);
    size_t n = message(frame, OWN + 1, THEIRS, "wrong", 5);
    assert_int_equal(at_team_frame(t, &peer, at_span(frame, n), &diag), AT_OK);
    n = message(frame, OWN, THEIRS, "wrong", 5);
    assert_int_equal(at_team_frame(t, &stranger, at_span(frame, n), &diag), AT_OK);
    assert_int_equal(at_team_frame(t, &self, at_span(frame, n), &diag), AT_OK);
    assert_false(comm.ops->done(comm.link, x));
    n = message(frame, OWN, THEIRS, "right", 5); /* in two frames */
    memcpy(tail, frame, 8);
    memcpy(tail + 8, frame + 30, n - 30);
    assert_int_equal(at_team_frame(t, &peer, at_span(frame, 30), &diag), AT_OK);
    assert_false(comm.ops->done(comm.link, x));
    notified = 0;
    assert_int_equal(at_team_frame(t, &peer, at_span(tail, n - 22), &diag), AT_OK);
    assert_int_equal(notified, 1); /* there may be an answer */
    assert_int_equal(at_comm_wait(&comm, x, &diag), AT_OK);
    assert_memory_equal(got, "right", 5);
    n = message(frame, OWN, THEIRS + 1, "other", 5); /* of another attempt of the peer's */
    assert_int_equal(at_team_frame(t, &peer, at_span(frame, n), &diag), AT_OK);
    x = at_comm_recv(&comm, 0, TAG, got, 5);
    assert_false(comm.ops->done(comm.link, x));
    at_team_end(t);
    assert_int_equal(at_comm_wait(&comm, x, &diag), AT_E_INTERRUPTED);
    at_team_put(t);
}

static void nonsense_is_the_peers_fault(void **state)
{
    struct at_team *t = two();
    struct at_comm comm = at_team_comm(t);
    struct at_diag diag = {0};
    uint8_t frame[64], got[5];
    struct at_transfer x = at_comm_recv(&comm, 0, TAG, got, 5);
    size_t n = message(frame, OWN, THEIRS, "right", 5);
    assert_int_equal(at_team_frame(t, &peer, at_span(frame, 8), &diag), AT_E_PEER);
    assert_false(comm.ops->done(comm.link, x));
    frame[8] = 200; /* no kind of message */
    assert_int_equal(at_team_frame(t, &peer, at_span(frame, n), &diag), AT_E_PEER);
    assert_int_equal(at_comm_wait(&comm, x, &diag), AT_E_PEER);
    x = at_comm_recv(&comm, 0, TAG, got, 5); /* and so for all that is asked of it later */
    assert_int_equal(at_comm_wait(&comm, x, &diag), AT_E_PEER);
    at_team_put(t);
}

static void a_lost_link_ends_the_waits(void **state)
{
    struct at_team *t = two();
    struct at_comm comm = at_team_comm(t);
    struct at_diag diag = {0};
    struct at_node_team who = {.session = OWN, .rank = 1, .ranks = 2};
    uint8_t got[5];
    who.peer[0].session = THEIRS;
    who.peer[0].link = 12;
    at_team_join(t, &who);
    struct at_transfer x = at_comm_recv(&comm, 0, TAG, got, 5);
    at_team_link_down(t, 13, "of somebody else");
    assert_false(comm.ops->done(comm.link, x));
    at_team_link_down(t, 12, "end of file");
    assert_int_equal(at_comm_wait(&comm, x, &diag), AT_E_PEER);
    assert_non_null(strstr(diag.text, "end of file"));
    at_team_put(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_of_this_attempt_arrives),
                                       cmocka_unit_test(nonsense_is_the_peers_fault),
                                       cmocka_unit_test(a_lost_link_ends_the_waits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
