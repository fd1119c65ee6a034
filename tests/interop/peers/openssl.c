/* The peer OpenSSL. */
#include "peer.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *ctx;
static SSL *ssl;
static SSL_SESSION *session;

static int broken(const char *what) {
    unsigned long code = ERR_get_error();
    return fail("%s: %s", what, code ? ERR_reason_error_string(code) : strerror(errno));
}

static int choose(SSL *s, const unsigned char **out, unsigned char *n, const unsigned char *in, unsigned int in_n, void *arg) {
    (void)s, (void)arg;
    unsigned char wanted[64] = {strlen(opt.alpn)};
    memcpy(wanted + 1, opt.alpn, wanted[0]);
    return SSL_select_next_proto((unsigned char **)out, n, wanted, wanted[0] + 1, in, in_n) == OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int keep(SSL *s, SSL_SESSION *new) {
    (void)s;
    SSL_SESSION_free(session);
    session = new;
    return 1;
}

static int setup(void) {
    ctx = SSL_CTX_new(opt.server ? TLS_server_method() : TLS_client_method());
    int version = opt.tls13 ? TLS1_3_VERSION : TLS1_2_VERSION;
    SSL_CTX_set_min_proto_version(ctx, version);
    SSL_CTX_set_max_proto_version(ctx, version);
    if (SSL_CTX_load_verify_locations(ctx, opt.ca, NULL) != 1) return broken("the CA");
    if (opt.server || opt.auth) {
        if (SSL_CTX_use_certificate_chain_file(ctx, opt.cert) != 1) return broken("the certificate");
        if (SSL_CTX_use_PrivateKey_file(ctx, opt.key, SSL_FILETYPE_PEM) != 1) return broken("the key");
    }
    if (!opt.server) SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    else if (opt.auth) SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"interop", 7);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_BOTH);
    SSL_CTX_sess_set_new_cb(ctx, keep);
    if (opt.pq && SSL_CTX_set1_groups_list(ctx, "X25519MLKEM768") != 1)
        cannot(OPENSSL_VERSION_TEXT ": SSL_CTX_set1_groups_list refuses X25519MLKEM768");
    if (*opt.alpn && opt.server) SSL_CTX_set_alpn_select_cb(ctx, choose, NULL);
    if (*opt.alpn && !opt.server) {
        unsigned char wire[64] = {strlen(opt.alpn)};
        memcpy(wire + 1, opt.alpn, wire[0]);
        SSL_CTX_set_alpn_protos(ctx, wire, wire[0] + 1);
    }
    return 0;
}

static int start(int fd) {
    ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    if (opt.server) return SSL_accept(ssl) == 1 ? 0 : broken("accept");
    SSL_set_tlsext_host_name(ssl, "localhost");
    SSL_set1_host(ssl, "localhost");
    if (session) SSL_set_session(ssl, session);
    return SSL_connect(ssl) == 1 ? 0 : broken("connect");
}

static int tls_write(const char *bytes, int n) { return SSL_write(ssl, bytes, n) == n ? 0 : broken("write"); }

static int tls_read(char *bytes, int n) {
    errno = 0;
    int got = SSL_read(ssl, bytes, n);
    if (got > 0) return got;
    if (SSL_get_error(ssl, got) == SSL_ERROR_ZERO_RETURN) return CLEAN;
    if (errno == ECONNRESET) return broken("read"), RESET;
    int reason = ERR_GET_REASON(ERR_peek_error());
    broken("read");
    return reason == SSL_R_UNEXPECTED_EOF_WHILE_READING ? TRUNCATED : FAILED;
}

/* close_notify, then FIN, as the side of bowline does. */
static int tls_half(void) {
    if (SSL_shutdown(ssl) < 0) return broken("shutdown");
    return shutdown(SSL_get_fd(ssl), SHUT_WR);
}

/* The first call of SSL_shutdown sends close_notify, and the second one waits for that of the peer. */
static int tls_close(void) {
    int done = SSL_shutdown(ssl);
    if (done == 0) done = SSL_shutdown(ssl);
    return done == 1 ? 0 : broken("shutdown");
}

static int tls_update(void) { return SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) == 1 ? 0 : broken("key update"); }

static void facts(void) {
    const unsigned char *alpn;
    unsigned int n;
    char name[64] = "";
    SSL_get0_alpn_selected(ssl, &alpn, &n);
    member("version", !strcmp(SSL_get_version(ssl), "TLSv1.3") ? "1.3" : "1.2");
    snprintf(name, sizeof name, "%.*s", (int)n, n ? (const char *)alpn : "");
    member("alpn", n ? name : NULL);
    printf("\"resumed\":%s,", SSL_session_reused(ssl) ? "true" : "false");
    X509 *peer = SSL_get1_peer_certificate(ssl);
    if (peer) X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof name);
    member("peer", peer ? name : NULL);
    X509_free(peer);
}

static void finish(void) { SSL_free(ssl); }
