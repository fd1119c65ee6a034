/* The peer NSS. Its certificates are in a database, which the driver makes. */
#include "peer.h"

#include <cert.h>
#include <keyhi.h>
#include <nss.h>
#include <pk11pub.h>
#include <private/pprio.h>
#include <prerror.h>
#include <prio.h>
#include <ssl.h>
#include <sslexp.h>
#include <sslproto.h>
#include <unistd.h>

static PRFileDesc *ssl;
static PRSocketOptionData blocking = {.option = PR_SockOpt_Nonblocking};

static int broken(const char *what) { return fail("%s: %s", what, PR_ErrorToName(PR_GetError())); }

static int setup(void) {
    char db[512];
    snprintf(db, sizeof db, "sql:%s", opt.db);
    if (NSS_Init(db) != SECSuccess) return broken("NSS_Init");
    NSS_SetDomesticPolicy();
    if (opt.server && SSL_ConfigServerSessionIDCache(0, 0, 0, NULL) != SECSuccess) return broken("cache");
    return 0;
}

/* The identity with this name in the database. */
static SECStatus identity(const char *name, CERTCertificate **cert, SECKEYPrivateKey **key) {
    *cert = PK11_FindCertFromNickname(name, NULL);
    *key = *cert ? PK11_FindKeyByAnyCert(*cert, NULL) : NULL;
    return *key ? SECSuccess : SECFailure;
}

static SECStatus client_identity(void *arg, PRFileDesc *fd, CERTDistNames *names, CERTCertificate **cert, SECKEYPrivateKey **key) {
    (void)arg, (void)fd, (void)names;
    return identity("client", cert, key);
}

static int start(int fd) {
    SSLVersionRange only = {SSL_LIBRARY_VERSION_TLS_1_2, SSL_LIBRARY_VERSION_TLS_1_2};
    if (opt.tls13) only.min = only.max = SSL_LIBRARY_VERSION_TLS_1_3;
    /* NSS closes the descriptor that it gets. */
    ssl = SSL_ImportFD(NULL, PR_ImportTCPSocket(dup(fd)));
    PR_SetSocketOption(ssl, &blocking);
    SSL_OptionSet(ssl, SSL_SECURITY, PR_TRUE);
    SSL_OptionSet(ssl, opt.server ? SSL_HANDSHAKE_AS_SERVER : SSL_HANDSHAKE_AS_CLIENT, PR_TRUE);
    SSL_OptionSet(ssl, SSL_ENABLE_SESSION_TICKETS, PR_TRUE);
    SSL_OptionSet(ssl, SSL_ENABLE_ALPN, PR_TRUE);
    if (SSL_VersionRangeSet(ssl, &only) != SECSuccess) return broken("versions");
    if (opt.pq) {
        /* The number of the group in the registry, since this version may have no name for it. */
        SSLNamedGroup groups[] = {(SSLNamedGroup)0x11ec};
        if (SSL_NamedGroupConfig(ssl, groups, 1) != SECSuccess) cannot("NSS: SSL_NamedGroupConfig refuses the group 0x11ec");
    }
    if (*opt.alpn) {
        unsigned char wire[64] = {strlen(opt.alpn)};
        memcpy(wire + 1, opt.alpn, wire[0]);
        SSL_SetNextProtoNego(ssl, wire, wire[0] + 1);
    }
    if (opt.server) {
        CERTCertificate *cert;
        SECKEYPrivateKey *key;
        if (identity("server", &cert, &key) != SECSuccess) return broken("identity");
        if (SSL_ConfigServerCert(ssl, cert, key, NULL, 0) != SECSuccess) return broken("certificate");
        SSL_OptionSet(ssl, SSL_REQUEST_CERTIFICATE, opt.auth);
        SSL_OptionSet(ssl, SSL_REQUIRE_CERTIFICATE, opt.auth ? SSL_REQUIRE_ALWAYS : SSL_REQUIRE_NEVER);
    } else {
        SSL_SetURL(ssl, "localhost");
        if (opt.auth) SSL_GetClientAuthDataHook(ssl, client_identity, NULL);
    }
    if (SSL_ResetHandshake(ssl, opt.server) != SECSuccess) return broken("reset");
    return SSL_ForceHandshake(ssl) == SECSuccess ? 0 : broken("handshake");
}

static int tls_write(const char *bytes, int n) {
    return PR_Send(ssl, bytes, n, 0, PR_INTERVAL_NO_TIMEOUT) == n ? 0 : broken("write");
}

static int tls_read(char *bytes, int n) {
    int got = PR_Recv(ssl, bytes, n, 0, PR_INTERVAL_NO_TIMEOUT);
    if (got >= 0) return got;
    broken("read");
    return PR_GetError() == PR_CONNECT_RESET_ERROR ? RESET : FAILED;
}

static int tls_half(void) { return PR_Shutdown(ssl, PR_SHUTDOWN_SEND) == PR_SUCCESS ? 0 : broken("shutdown"); }

static int tls_close(void) { return tls_half(); }

static int tls_update(void) { return SSL_KeyUpdate(ssl, PR_TRUE) == SECSuccess ? 0 : broken("key update"); }

static void facts(void) {
    SSLChannelInfo info;
    SSLNextProtoState state;
    unsigned char alpn[64];
    unsigned n = 0;
    SSL_GetChannelInfo(ssl, &info, sizeof info);
    member("version", info.protocolVersion == SSL_LIBRARY_VERSION_TLS_1_3 ? "1.3" : "1.2");
    SSL_GetNextProto(ssl, &state, alpn, &n, sizeof alpn - 1);
    alpn[n] = 0;
    member("alpn", n ? (char *)alpn : NULL);
    printf("\"resumed\":%s,", info.resumed ? "true" : "false");
    CERTCertificate *peer = SSL_PeerCertificate(ssl);
    char *name = peer ? CERT_GetCommonName(&peer->subject) : NULL;
    member("peer", name);
}

static void finish(void) { PR_Close(ssl); }
