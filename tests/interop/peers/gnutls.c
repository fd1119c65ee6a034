/* The peer GnuTLS. */
#include "peer.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

static gnutls_certificate_credentials_t credentials;
static gnutls_session_t session;
static gnutls_datum_t ticket_key, saved;
static char priorities[256];

static int broken(const char *what, int code) { return fail("%s: %s", what, gnutls_strerror(code)); }

static int setup(void) {
    gnutls_certificate_allocate_credentials(&credentials);
    int n = gnutls_certificate_set_x509_trust_file(credentials, opt.ca, GNUTLS_X509_FMT_PEM);
    if (n < 0) return broken("the CA", n);
    if (opt.server || opt.auth) {
        n = gnutls_certificate_set_x509_key_file(credentials, opt.cert, opt.key, GNUTLS_X509_FMT_PEM);
        if (n < 0) return broken("the identity", n);
    }
    gnutls_session_ticket_key_generate(&ticket_key);
    snprintf(priorities, sizeof priorities, "NORMAL:-VERS-ALL:+VERS-TLS1.%d%s", opt.tls13 ? 3 : 2,
             opt.pq ? ":-GROUP-ALL:+GROUP-X25519-MLKEM768" : "");
    gnutls_priority_t parsed;
    const char *at;
    if (gnutls_priority_init(&parsed, priorities, &at) < 0) {
        if (opt.pq) cannot("GnuTLS " GNUTLS_VERSION ": gnutls_priority_init refuses GROUP-X25519-MLKEM768");
        return fail("priorities at %s", at);
    }
    gnutls_priority_deinit(parsed);
    return 0;
}

static int ticket_came(gnutls_session_t s, unsigned type, unsigned post, unsigned incoming, const gnutls_datum_t *msg) {
    (void)type, (void)post, (void)incoming, (void)msg;
    gnutls_free(saved.data);
    saved.data = NULL;
    return gnutls_session_get_data2(s, &saved), 0;
}

static int start(int fd) {
    gnutls_init(&session, opt.server ? GNUTLS_SERVER : GNUTLS_CLIENT);
    gnutls_priority_set_direct(session, priorities, NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_int(session, fd);
    if (*opt.alpn) {
        gnutls_datum_t name = {(unsigned char *)opt.alpn, strlen(opt.alpn)};
        gnutls_alpn_set_protocols(session, &name, 1, GNUTLS_ALPN_MANDATORY);
    }
    if (opt.server) {
        gnutls_session_ticket_enable_server(session, &ticket_key);
        if (opt.auth) gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        if (opt.auth) gnutls_session_set_verify_cert(session, NULL, 0);
    } else {
        gnutls_server_name_set(session, GNUTLS_NAME_DNS, "localhost", 9);
        gnutls_session_set_verify_cert(session, "localhost", 0);
        gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET, GNUTLS_HOOK_POST, ticket_came);
        if (saved.data) gnutls_session_set_data(session, saved.data, saved.size);
    }
    int n;
    do n = gnutls_handshake(session);
    while (n < 0 && !gnutls_error_is_fatal(n));
    return n < 0 ? broken("handshake", n) : 0;
}

static int tls_write(const char *bytes, int n) {
    while (n > 0) {
        int done = gnutls_record_send(session, bytes, n);
        if (done < 0 && gnutls_error_is_fatal(done)) return broken("write", done);
        if (done > 0) bytes += done, n -= done;
    }
    return 0;
}

static int tls_read(char *bytes, int n) {
    int got;
    errno = 0;
    do got = gnutls_record_recv(session, bytes, n);
    while (got < 0 && !gnutls_error_is_fatal(got));
    if (got >= 0) return got;
    broken("read", got);
    if (got == GNUTLS_E_PREMATURE_TERMINATION) return TRUNCATED;
    return errno == ECONNRESET ? RESET : FAILED;
}

static int tls_half(void) {
    int n = gnutls_bye(session, GNUTLS_SHUT_WR);
    return n < 0 ? broken("bye", n) : shutdown(gnutls_transport_get_int(session), SHUT_WR);
}

static int tls_close(void) {
    int n = gnutls_bye(session, GNUTLS_SHUT_RDWR);
    return n < 0 ? broken("bye", n) : 0;
}

static int tls_update(void) {
    int n = gnutls_session_key_update(session, GNUTLS_KU_PEER);
    return n < 0 ? broken("key update", n) : 0;
}

static void facts(void) {
    gnutls_datum_t alpn;
    char name[128] = "";
    int has = gnutls_alpn_get_selected_protocol(session, &alpn) == 0;
    member("version", gnutls_protocol_get_version(session) == GNUTLS_TLS1_3 ? "1.3" : "1.2");
    if (has) snprintf(name, sizeof name, "%.*s", (int)alpn.size, alpn.data);
    member("alpn", has ? name : NULL);
    member("group", gnutls_group_get_name(gnutls_group_get(session)));
    printf("\"resumed\":%s,", gnutls_session_is_resumed(session) ? "true" : "false");
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
    if (chain && count) {
        gnutls_x509_crt_t crt;
        size_t size = sizeof name;
        gnutls_x509_crt_init(&crt);
        gnutls_x509_crt_import(crt, chain, GNUTLS_X509_FMT_DER);
        gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size);
        gnutls_x509_crt_deinit(crt);
    }
    member("peer", count ? name : NULL);
    if (!opt.server && !opt.tls13) ticket_came(session, 0, 0, 0, NULL);
}

static void finish(void) { gnutls_deinit(session); }
