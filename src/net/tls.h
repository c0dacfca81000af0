/* tls.h: one TLS 1.3 session between two node keys, without any socket: bytes are fed in and taken out (memory BIOs).
 *
 * Both sides show a certificate; its Ed25519 public key is the node id; nothing else in it counts (no names, dates,
 * chain or signature). Proof of the key is TLS's own CertificateVerify. Only TLS 1.3, X25519, AEAD suites, no tickets,
 * no early data, no resumption. Foreign bytes never reach an assert. Source: RFC 8446, RFC 8410. */
#ifndef ATOLL_NET_TLS_H
#define ATOLL_NET_TLS_H

#include "base/bytes.h"
#include "base/sign.h"

#define AT_TLS_REASON_BYTES 160

struct at_tls_ctx; /* own certificate and settings, shared by all sessions */
at_err at_tls_ctx_init(const struct at_keypair *key, struct at_diag *diag, struct at_tls_ctx **ret_ctx);
void at_tls_ctx_release(struct at_tls_ctx *ctx); /* NULL is fine */

struct at_tls {
    void *ssl, *bio_in, *bio_out;
    struct at_node_id expected, peer;
    bool pinned, has_peer, wrong_key, not_ed25519;
    char reason[AT_TLS_REASON_BYTES]; /* of the failure, for people */
};

/* expected: NULL takes any Ed25519 key (a listener). The object must not move between init and release. */
at_err at_tls_init(struct at_tls *tls, struct at_tls_ctx *ctx, bool dialing, const struct at_node_id *expected);
/* The same on a connected non-blocking socket (borrowed): nothing is fed or taken, read and write use it directly, and
 * the peer's end of file counts as a good-bye (whoever needs to know that nothing was cut off says so in its frames). */
at_err at_tls_init_socket(struct at_tls *tls, struct at_tls_ctx *ctx, bool dialing, const struct at_node_id *expected,
                          int fd);
void at_tls_release(struct at_tls *tls); /* safe on a zeroed one */

at_err at_tls_feed(struct at_tls *tls, struct at_span ciphertext);
/* AT_E_PEER with `reason` filled. Failure may leave an alert to be taken and sent. */
at_err at_tls_handshake(struct at_tls *tls, bool *ret_done);
/* *ret_n 0: all that was fed is used up. AT_E_PEER: broken, or the peer said good-bye (closed: true). */
at_err at_tls_read(struct at_tls *tls, uint8_t *p, size_t n, size_t *ret_n, bool *ret_closed);
at_err at_tls_write(struct at_tls *tls, struct at_span plaintext); /* n > 0, handshake done */
/* On a socket: as much as goes now; *ret_n 0: when it is writable again, the same bytes. AT_E_PEER. */
at_err at_tls_write_some(struct at_tls *tls, struct at_span plaintext, size_t *ret_n);
bool at_tls_wants_write(const struct at_tls *tls); /* the last call stopped because the socket took no more */
void at_tls_goodbye(struct at_tls *tls);
/* Moves what is to be sent to the end of `out`. */
at_err at_tls_take(struct at_tls *tls, struct at_buf *out);

#endif
