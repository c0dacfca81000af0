/* Streamed files are those written at once, to the byte; a state read from them in blocks is the state; and what
 * at_checkpoint_read refuses in a header is refused here. */
#include "train/checkpoint_stream.h"
#include "train/train_test_util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct rig {
    struct at_params p;
    struct at_state s, t;
    struct at_checkpoint c;
    struct at_buf file[AT_PARTS]; /* what was streamed */
    int moves;
    uint64_t order, order_followed; /* of the blocks asked for */
};

static real *place(const struct at_state *s, int part, int tensor, int slot)
{
    const struct at_block *b = at_params_block(s->params, tensor, slot);
    if (part == AT_PART_STATS) return s->stats + at_block_stats_offset(s->params, (int)(b - s->params->block));
    return (part == AT_PART_WEIGHTS ? s->theta : s->momentum) + b->offset;
}

static at_err_t give(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct rig *r = arg;
    memcpy(values, place(&r->s, part, tensor, slot), at_part_count(&r->p, part, tensor, slot) * sizeof(real));
    r->moves++;
    r->order = r->order * 31 + (uint64_t)(part * 1000 + tensor * 10 + slot);
    return AT_OK;
}

static at_err_t follow(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct rig *r = arg;
    r->order_followed = r->order_followed * 31 + (uint64_t)(part * 1000 + tensor * 10 + slot);
    return values == NULL ? AT_OK : AT_E_DATA;
}

static at_err_t take(void *arg, int part, int tensor, int slot, real *values, struct at_diag *diag)
{
    struct rig *r = arg;
    memcpy(place(&r->t, part, tensor, slot), values, at_part_count(&r->p, part, tensor, slot) * sizeof(real));
    return AT_OK;
}

static at_err_t put(void *arg, int part, uint64_t offset, struct at_span bytes, struct at_diag *diag)
{
    struct at_buf *file = &((struct rig *)arg)->file[part];
    uint8_t *room;
    size_t end = (size_t)offset + bytes.n;
    if (end > file->n) {
        if (at_buf_reserve(file, end - file->n, &room) != AT_OK) return AT_E_NOMEM;
        memset(room, 0xee, end - file->n);
        file->n = end;
    }
    memcpy(file->p + offset, bytes.p, bytes.n);
    return AT_OK;
}

static at_err_t get(void *arg, int part, uint64_t offset, uint8_t *ret, size_t n, struct at_diag *diag)
{
    const struct at_buf *file = &((struct rig *)arg)->file[part];
    if (offset > file->n || n > file->n - offset) return AT_E_TRUNCATED;
    memcpy(ret, file->p + offset, n);
    return AT_OK;
}

/* spoil: 1 a second moment, 2 the momentum's padding, as only who also writes the root can. */
static void rig_spoilt(struct rig *r, const struct at_model_config *config, bool momentum, int spoil)
{
    *r = (struct rig){0};
    assert_int_equal(at_params_init(&r->p, config), AT_OK);
    assert_int_equal(at_state_init(&r->s, &r->p), AT_OK);
    assert_int_equal(at_state_init(&r->t, &r->p), AT_OK);
    test_state(&r->s, 41);
    if (momentum) {
        assert_int_equal(at_state_add_momentum(&r->s), AT_OK);
        assert_int_equal(at_state_add_momentum(&r->t), AT_OK);
        for (size_t i = 0; i < r->p.count; i++) r->s.momentum[i] = r->s.theta[i] * (real)0.5;
    }
    if (spoil == 1) r->s.stats[at_stats_count(&r->p) / 2] = -1;
    if (spoil == 2) { /* the last row of the embedding is padding */
        const struct at_block *b = at_params_block(&r->p, 0, r->p.slots - 1);
        assert_true(at_block_rows_used(&r->p, b) < b->rows);
        r->s.momentum[b->offset + at_block_count(b) - 1] = 1;
    }
    assert_int_equal(at_checkpoint_write(&r->s, NULL, &r->c), AT_OK);
    assert_int_equal(at_checkpoint_stream_write(&r->p, r->s.round, r->c.root, momentum,
                                                &(struct at_block_stream){give, r}, &(struct at_piece_sink){put, r},
                                                NULL),
                     AT_OK);
}

static void rig_init(struct rig *r, const struct at_model_config *config, bool momentum)
{
    rig_spoilt(r, config, momentum, 0);
}

static void rig_release(struct rig *r)
{
    for (int i = 0; i < AT_PARTS; i++) at_buf_release(&r->file[i]);
    at_checkpoint_release(&r->c);
    at_state_release(&r->s);
    at_state_release(&r->t);
    at_params_release(&r->p);
}

static struct at_piece_source source_of(struct rig *r)
{
    return (struct at_piece_source){get, r, {r->file[0].n, r->file[1].n, r->file[2].n}};
}

static void same_files_same_state(void **state)
{
    for (int c = 0; c < RUN_CONFIGS * 2; c++) {
        struct rig r;
        struct at_checkpoint_named named;
        struct at_hash root;
        rig_init(&r, &run_configs[c / 2], c % 2 == 1);
        assert_true(at_span_eq(at_buf_span(&r.file[0]), at_buf_span(&r.c.model)));
        assert_true(at_span_eq(at_buf_span(&r.file[1]), at_buf_span(&r.c.stats)));
        assert_true(at_span_eq(at_buf_span(&r.file[2]), at_buf_span(&r.c.momentum)));
        assert_true((r.c.momentum.n > 0) == (c % 2 == 1));
        assert_int_equal(r.moves, r.p.numbers * (c % 2 == 1 ? 3 : 2));

        assert_int_equal(at_checkpoint_stream_follow(&r.p, c % 2 == 1, &(struct at_block_stream){follow, &r}, NULL),
                         AT_OK);
        assert_true(r.order == r.order_followed);
        struct at_piece_source from = source_of(&r);
        assert_int_equal(at_checkpoint_stream_open(&r.p, &from, NULL, &named), AT_OK);
        assert_true(named.round == 41 && at_hash_eq(named.root, r.c.root));
        assert_int_equal(at_checkpoint_stream_read(&r.p, &named, &from, &(struct at_block_stream){take, &r}, NULL),
                         AT_OK);
        r.t.round = named.round;
        assert_int_equal(at_state_root(&r.t, NULL, &root), AT_OK);
        assert_true(at_hash_eq(root, r.c.root));

        /* The reader of whole files agrees. */
        assert_int_equal(at_checkpoint_read_all(&r.t, at_buf_span(&r.file[0]), at_buf_span(&r.c.config),
                                                at_buf_span(&r.file[1]), at_buf_span(&r.file[2]), NULL, &root),
                         AT_OK);
        if (c % 2 == 1) { /* a flipped bit of the momentum does not pass */
            r.file[2].p[r.file[2].n - 5] ^= 1;
            assert_int_equal(at_checkpoint_read_all(&r.t, at_buf_span(&r.file[0]), at_buf_span(&r.c.config),
                                                    at_buf_span(&r.file[1]), at_buf_span(&r.file[2]), NULL, &root),
                             AT_E_DATA);
        }
        rig_release(&r);
    }
}

static void bad_headers_are_refused(void **state)
{
    struct rig r, other;
    struct at_checkpoint_named named;
    struct at_diag diag = {0};
    rig_init(&r, &run_configs[0], true);
    rig_init(&other, &run_configs[1], false);
    struct at_piece_source from = source_of(&r), foreign = source_of(&other);
    assert_int_equal(at_err_exit_code(at_checkpoint_stream_open(&r.p, &foreign, &diag, &named)), 3);
    assert_string_equal(diag.where, AT_CHECKPOINT_MODEL);
    for (int part = 0; part < AT_PARTS; part++) {
        size_t head = 8 + (size_t)at_load_le64(r.file[part].p);
        for (size_t i = 0; i < head; i++) { /* (a flipped round or root makes another header everywhere) */
            r.file[part].p[i] ^= 1;
            assert_int_equal(at_err_exit_code(at_checkpoint_stream_open(&r.p, &from, NULL, &named)), 3);
            r.file[part].p[i] ^= 1;
        }
        from.bytes[part]--;
        assert_int_equal(at_err_exit_code(at_checkpoint_stream_open(&r.p, &from, NULL, &named)), 3);
        from.bytes[part] += 2;
        assert_int_equal(at_err_exit_code(at_checkpoint_stream_open(&r.p, &from, NULL, &named)), 3);
        from.bytes[part]--;
    }
    assert_int_equal(at_checkpoint_stream_open(&r.p, &from, NULL, &named), AT_OK);
    rig_release(&r);
    rig_release(&other);
}

/* States that have the root which they name, and still cannot be. */
static void impossible_states_are_refused(void **state)
{
    static const struct at_model_config odd = TEST_SHAPE(1, 16, 4, 4, 16, 8, 37, false);
    for (int spoil = 1; spoil <= 2; spoil++) {
        struct rig r;
        struct at_checkpoint_named named;
        struct at_hash root;
        struct at_diag diag[2] = {{0}};
        rig_spoilt(&r, &odd, true, spoil);
        struct at_piece_source from = source_of(&r);
        assert_int_equal(at_checkpoint_stream_open(&r.p, &from, NULL, &named), AT_OK);
        assert_int_equal(at_checkpoint_stream_read(&r.p, &named, &from, &(struct at_block_stream){take, &r}, &diag[0]),
                         AT_E_DATA);
        assert_int_equal(at_checkpoint_read_all(&r.t, at_buf_span(&r.file[0]), at_buf_span(&r.c.config),
                                                at_buf_span(&r.file[1]), at_buf_span(&r.file[2]), &diag[1], &root),
                         AT_E_DATA);
        for (int i = 0; i < 2; i++) assert_non_null(strstr(diag[i].text, spoil == 1 ? "second moment" : "padded row"));
        rig_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_files_same_state),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(impossible_states_are_refused),
    };
    return cmocka_run_group_tests_name("checkpoint_stream", tests, NULL, NULL);
}
