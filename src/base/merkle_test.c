#include "base/merkle.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The reference log of the RFC 6962 authors: eight leaves and the root after each. */
static void known_roots(void **state)
{
    static const struct {
        const char *leaf, *root;
    } log[] = {
        {"", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
        {"00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
        {"10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
        {"2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
        {"3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
        {"40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
        {"5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
        {"606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
    };
    struct at_merkle tree = {.size = 0};
    assert_string_equal(at_hash_hex(at_merkle_root(&tree)).s,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < sizeof log / sizeof *log; i++) {
        uint8_t leaf[16];
        size_t chars = 0;
        while (log[i].leaf[chars] != '\0') chars++;
        assert_int_equal(at_hex_decode(log[i].leaf, chars, leaf, chars / 2), AT_OK);
        at_merkle_append(&tree, at_merkle_leaf(at_span(leaf, chars / 2)));
        assert_string_equal(at_hash_hex(at_merkle_root(&tree)).s, log[i].root);
    }
}

/* RFC 6962 section 2.1 word for word: split at the largest power of two below n. */
static struct at_hash naive_root(const struct at_hash *leaf, size_t n)
{
    if (n == 1) return leaf[0];
    size_t k = 1;
    while (2 * k < n) k *= 2;
    return at_merkle_node(naive_root(leaf, k), naive_root(leaf + k, n - k));
}

static void grows_like_the_definition(void **state)
{
    enum { N = 130 };
    struct at_hash leaf[N];
    struct at_merkle tree = {.size = 0};
    for (size_t i = 0; i < N; i++) {
        leaf[i] = at_merkle_leaf(at_span(&i, sizeof i));
        at_merkle_append(&tree, leaf[i]);
        assert_int_equal(tree.size, i + 1);
        assert_true(at_hash_eq(at_merkle_root(&tree), naive_root(leaf, i + 1)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_roots), cmocka_unit_test(grows_like_the_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
