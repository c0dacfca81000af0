#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* TLS_AES_128_GCM first: the fastest where the CPU has AES; the other side may not. */
#define SUITES "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"

#define SOCKET_READ_BYTES ((size_t)128 << 10) /* per read of a socket: several records */

struct at_tls_ctx {
    SSL_CTX *ssl_ctx;
};

/* Called by OpenSSL in place of its chain verification: reads the key, believes nothing else. */
static int accept_key(X509_STORE_CTX *store, void *arg)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct at_tls *tls = ssl ? SSL_get_app_data(ssl) : NULL;
    X509 *cert = X509_STORE_CTX_get0_cert(store);
    EVP_PKEY *key = cert ? X509_get0_pubkey(cert) : NULL;
    size_t n = AT_KEY_BYTES;
    if (!tls) return 0;
    if (!key || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 || EVP_PKEY_get_raw_public_key(key, tls->peer.b, &n) != 1 ||
        n != AT_KEY_BYTES) {
        tls->not_ed25519 = true;
    } else if (tls->pinned && !at_node_id_eq(&tls->peer, &tls->expected)) {
        tls->wrong_key = true;
    } else {
        tls->has_peer = true;
        return 1;
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
}

/* A certificate that says nothing but the key; the same bytes every time. */
static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;
    bool ok = name && X509_set_version(cert, X509_VERSION_3) && ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) &&
              ASN1_TIME_set_string(X509_getm_notBefore(cert), "19700101000000Z") &&
              ASN1_TIME_set_string(X509_getm_notAfter(cert), "99991231235959Z") &&
              X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"atoll", -1, -1, 0) &&
              X509_set_issuer_name(cert, name) && X509_set_pubkey(cert, key) && X509_sign(cert, key, NULL) > 0;
    if (ok) return cert;
    X509_free(cert);
    return NULL;
}

static bool configure(SSL_CTX *ctx, X509 *cert, EVP_PKEY *key)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, accept_key, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_quiet_shutdown(ctx, 0);
    return SSL_CTX_set_num_tickets(ctx, 0) && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
           SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) && SSL_CTX_set_ciphersuites(ctx, SUITES) &&
           SSL_CTX_set1_groups_list(ctx, "X25519") && SSL_CTX_set1_sigalgs_list(ctx, "ed25519") &&
           SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1;
}

at_err_t at_tls_ctx_init(const struct at_keypair *key, struct at_diag *diag, struct at_tls_ctx **ret_ctx)
{
    at_err_t err = AT_E_NOMEM;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key->seed, sizeof key->seed);
    X509 *cert = pkey ? make_certificate(pkey) : NULL;
    struct at_tls_ctx *ctx = calloc(1, sizeof *ctx);
    if (ctx) ctx->ssl_ctx = SSL_CTX_new(TLS_method());
    if (cert && ctx && ctx->ssl_ctx && configure(ctx->ssl_ctx, cert, pkey)) {
        *ret_ctx = ctx;
        ctx = NULL;
        err = AT_OK;
    } else {
        err = at_fail(diag, AT_E_ENV, "tls", "OpenSSL refuses TLS 1.3 with an Ed25519 key");
    }
    at_tls_ctx_release(ctx);
    X509_free(cert);
    EVP_PKEY_free(pkey);
    return err;
}

void at_tls_ctx_release(struct at_tls_ctx *ctx)
{
    if (!ctx) return;
    SSL_CTX_free(ctx->ssl_ctx);
    free(ctx);
}

at_err_t at_tls_init(struct at_tls *tls, struct at_tls_ctx *ctx, bool dialing, const struct at_node_id *expected)
{
    memset(tls, 0, sizeof *tls);
    SSL *ssl = SSL_new(ctx->ssl_ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    if (!ssl || !in || !out) {
        SSL_free(ssl);
        BIO_free(in);
        BIO_free(out);
        return AT_E_NOMEM;
    }
    BIO_set_mem_eof_return(in, -1); /* empty means "later", not "end" */
    BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(ssl, in, out); /* owned by ssl from here */
    SSL_set_app_data(ssl, tls);
    if (dialing)
        SSL_set_connect_state(ssl);
    else
        SSL_set_accept_state(ssl);
    tls->ssl = ssl;
    tls->bio_in = in;
    tls->bio_out = out;
    tls->pinned = expected != NULL;
    if (expected) tls->expected = *expected;
    return AT_OK;
}

at_err_t at_tls_init_socket(struct at_tls *tls, struct at_tls_ctx *ctx, bool dialing, const struct at_node_id *expected,
                            int fd)
{
    memset(tls, 0, sizeof *tls);
    SSL *ssl = SSL_new(ctx->ssl_ctx);
    if (!ssl || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return AT_E_NOMEM;
    }
    SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_clear_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_set_read_ahead(ssl, 1);
    SSL_set_default_read_buffer_len(ssl, SOCKET_READ_BYTES);
    SSL_set_app_data(ssl, tls);
    if (dialing)
        SSL_set_connect_state(ssl);
    else
        SSL_set_accept_state(ssl);
    tls->ssl = ssl;
    tls->pinned = expected != NULL;
    if (expected) tls->expected = *expected;
    return AT_OK;
}

void at_tls_release(struct at_tls *tls)
{
    SSL_free(tls->ssl);
    tls->ssl = tls->bio_in = tls->bio_out = NULL;
}

at_err_t at_tls_feed(struct at_tls *tls, struct at_span ciphertext)
{
    while (ciphertext.n > 0) {
        int piece = ciphertext.n < 1 << 20 ? (int)ciphertext.n : 1 << 20;
        int put = BIO_write(tls->bio_in, ciphertext.p, piece);
        if (put <= 0) return AT_E_NOMEM;
        ciphertext.p += put;
        ciphertext.n -= (size_t)put;
    }
    return AT_OK;
}

/* Empties OpenSSL's per-thread error queue into a text. */
static at_err_t fail_tls(struct at_tls *tls, const char *when)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    if (tls->wrong_key)
        snprintf(tls->reason, sizeof tls->reason, "peer shows another key: %.16s... instead of %.16s...",
                 at_node_id_hex(&tls->peer).s, at_node_id_hex(&tls->expected).s);
    else if (tls->not_ed25519)
        snprintf(tls->reason, sizeof tls->reason, "peer's certificate holds no Ed25519 key");
    else
        snprintf(tls->reason, sizeof tls->reason, "%s: %s", when, text ? text : "no valid TLS");
    ERR_clear_error();
    return AT_E_PEER;
}

at_err_t at_tls_handshake(struct at_tls *tls, bool *ret_done)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(tls->ssl);
    int why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, rc);
    if (rc != 1 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) return fail_tls(tls, "handshake");
    if (rc == 1 && !tls->has_peer) return fail_tls(tls, "handshake without a certificate");
    *ret_done = rc == 1;
    return AT_OK;
}

at_err_t at_tls_read(struct at_tls *tls, uint8_t *p, size_t n, size_t *ret_n, bool *ret_closed)
{
    size_t got = 0;
    ERR_clear_error();
    int rc = SSL_read_ex(tls->ssl, p, n, &got);
    *ret_closed = false;
    if (rc == 1) {
        *ret_n = got;
        return AT_OK;
    }
    switch (SSL_get_error(tls->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        *ret_n = 0;
        return AT_OK;
    case SSL_ERROR_SYSCALL: /* a socket's reset */
    case SSL_ERROR_ZERO_RETURN:
        ERR_clear_error();
        *ret_closed = true;
        snprintf(tls->reason, sizeof tls->reason, "peer closed the link");
        return AT_E_PEER;
    default:
        return fail_tls(tls, "bad TLS record");
    }
}

at_err_t at_tls_write(struct at_tls *tls, struct at_span plaintext)
{
    size_t put = 0;
    ERR_clear_error();
    int rc = SSL_write_ex(tls->ssl, plaintext.p, plaintext.n, &put);
    if (rc != 1 || put != plaintext.n) return fail_tls(tls, "cannot encrypt"); /* a memory BIO takes everything */
    return AT_OK;
}

at_err_t at_tls_write_some(struct at_tls *tls, struct at_span plaintext, size_t *ret_n)
{
    size_t put = 0;
    ERR_clear_error();
    int rc = SSL_write_ex(tls->ssl, plaintext.p, plaintext.n, &put);
    int why = rc == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, rc);
    if (rc != 1 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) return fail_tls(tls, "cannot send");
    *ret_n = rc == 1 ? put : 0;
    return AT_OK;
}

bool at_tls_wants_write(const struct at_tls *tls)
{
    return SSL_want_write(tls->ssl);
}

void at_tls_goodbye(struct at_tls *tls)
{
    ERR_clear_error();
    if (SSL_is_init_finished(tls->ssl)) (void)SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

at_err_t at_tls_take(struct at_tls *tls, struct at_buf *out)
{
    size_t waiting = BIO_ctrl_pending(tls->bio_out);
    uint8_t *p = NULL;
    if (!waiting) return AT_OK;
    at_err_t err = at_buf_reserve(out, waiting, &p);
    if (err) return err;
    int got = BIO_read(tls->bio_out, p, (int)waiting);
    if (got > 0) out->n += (size_t)got;
    return got == (int)waiting ? AT_OK : AT_E_INTERNAL;
}
