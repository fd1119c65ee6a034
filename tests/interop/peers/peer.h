/* The code that the peers in C share: the command line, the sockets, the script and the report. README.md describes
 * them. A peer includes this file and defines the functions that are declared here. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The results of a read that brings no bytes. */
enum { CLEAN = 0, TRUNCATED = -1, RESET = -2, FAILED = -3 };

static struct {
    int server, port, tls13, auth, starttls, conns, pq;
    const char *cert, *key, *ca, *alpn, *script, *db;
} opt = {.tls13 = 1, .conns = 1, .cert = "", .key = "", .ca = "", .alpn = "", .script = "", .db = ""};

/* The text of the last failure. */
static char failure[512];

/* Makes the configuration, once. */
static int setup(void);
/* The handshake. */
static int start(int fd);
static int tls_write(const char *bytes, int n);
/* The number of bytes, or one of the results above. */
static int tls_read(char *bytes, int n);
/* Sends close_notify. */
static int tls_half(void);
/* Ends in order, as the library's documentation says. */
static int tls_close(void);
static int tls_update(void);
/* Prints the facts as members of JSON, each with a comma after it. */
static void facts(void);
static void finish(void);

#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
static int fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(failure, sizeof failure, format, args);
    va_end(args);
    for (char *c = failure; *c; c++)
        if (*c == '"' || *c == '\\' || *c == '\n') *c = ' ';
    return -1;
}

/* A step that the library does not offer. */
static int cannot(const char *why) {
    printf("{\"cannot\":\"%s\"}\n", why);
    fflush(stdout);
    exit(0);
}

static void member(const char *name, const char *value) {
    if (value) printf("\"%s\":\"%s\",", name, value);
    else printf("\"%s\":null,", name);
}

static uint64_t received;
static uint32_t crc;

static void receive(const char *bytes, int n) {
    received += n;
    uint32_t sum = ~crc;
    for (int i = 0; i < n; i++) {
        sum ^= (unsigned char)bytes[i];
        for (int k = 0; k < 8; k++) sum = (sum >> 1) ^ (0xedb88320u & -(sum & 1));
    }
    crc = ~sum;
}

/* The end of the peer's half, after a read of no bytes. */
static const char *end;

static int ended(int how) {
    end = how == CLEAN ? "clean" : how == TRUNCATED ? "truncated" : how == RESET ? "reset" : "failed";
    return how == CLEAN ? 0 : -1;
}

static int send_bytes(long n, int each) {
    static char chunk[64 << 10];
    for (int i = 0; i < (int)sizeof chunk; i++) chunk[i] = each ? 'x' : 'a' + i % 26;
    /* The largest multiple of 26 that fits. */
    long most = each ? 1 : sizeof chunk / 26 * 26;
    for (long left = n; left > 0; left -= most)
        if (tls_write(chunk, left < most ? left : most) < 0) return -1;
    return 0;
}

static int receive_bytes(long n) {
    static char chunk[64 << 10];
    while (n != 0) {
        int got = tls_read(chunk, n > 0 && n < (long)sizeof chunk ? n : (long)sizeof chunk);
        if (got <= 0) {
            int result = ended(got);
            return n > 0 && result == 0 ? fail("a clean end, too early") : result;
        }
        receive(chunk, got);
        if (n > 0) n -= got;
    }
    return 0;
}

static int play(int fd) {
    char script[1024], *rest = script, *word;
    snprintf(script, sizeof script, "%s", opt.script);
    while ((word = strtok_r(rest, " ", &rest))) {
        char *colon = strchr(word, ':');
        long n = colon ? atol(colon + 1) : 0;
        int result = 0;
        if (colon) *colon = 0;
        if (!strcmp(word, "send")) result = send_bytes(n, 0);
        else if (!strcmp(word, "tiny")) result = send_bytes(n, 1);
        else if (!strcmp(word, "recv")) result = receive_bytes(n);
        else if (!strcmp(word, "end")) result = receive_bytes(-1);
        else if (!strcmp(word, "half")) result = tls_half();
        else if (!strcmp(word, "close")) result = tls_close();
        else if (!strcmp(word, "update")) result = tls_update();
        else if (!strcmp(word, "fin")) result = shutdown(fd, SHUT_WR);
        else if (!strcmp(word, "abort")) {
            struct linger linger = {1, 0};
            result = setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        } else result = fail("no step is called %s", word);
        if (result < 0) return -1;
    }
    return 0;
}

static void line(int fd, const char *expected) {
    char got[64];
    int n = 0;
    while (n < 60 && read(fd, got + n, 1) == 1)
        if (got[n++] == '\n') break;
    got[n] = 0;
    if (strcmp(got, expected)) {
        fprintf(stderr, "expected %s, got %s\n", expected, got);
        exit(1);
    }
}

static void dialogue(int fd) {
    if (opt.server) {
        dprintf(fd, "220 ready\r\n");
        line(fd, "STARTTLS\r\n");
        dprintf(fd, "220 go ahead\r\n");
    } else {
        line(fd, "220 ready\r\n");
        dprintf(fd, "STARTTLS\r\n");
        line(fd, "220 go ahead\r\n");
    }
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc < 3) return 2;
    opt.server = !strcmp(argv[1], "server");
    opt.port = atoi(argv[2]);
    for (int i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) return 2;
        *value++ = 0;
        const char *name = argv[i];
        if (!strcmp(name, "version")) opt.tls13 = !strcmp(value, "1.3");
        if (!strcmp(name, "cert")) opt.cert = value;
        if (!strcmp(name, "key")) opt.key = value;
        if (!strcmp(name, "ca")) opt.ca = value;
        if (!strcmp(name, "db")) opt.db = value;
        if (!strcmp(name, "alpn")) opt.alpn = value;
        if (!strcmp(name, "script")) opt.script = value;
        if (!strcmp(name, "auth")) opt.auth = atoi(value);
        if (!strcmp(name, "starttls")) opt.starttls = atoi(value);
        if (!strcmp(name, "conns")) opt.conns = atoi(value);
        if (!strcmp(name, "pq")) opt.pq = atoi(value);
    }
    if (setup() < 0) {
        fprintf(stderr, "setup: %s\n", failure);
        return 1;
    }
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    int listener = -1, one = 1;
    if (opt.server) {
        listener = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listener, (struct sockaddr *)&addr, size) || listen(listener, 8)) return 1;
        getsockname(listener, (struct sockaddr *)&addr, &size);
        printf("listening %d\n", ntohs(addr.sin_port));
        fflush(stdout);
    }
    for (int i = 0; i < opt.conns; i++) {
        int fd;
        if (opt.server) fd = accept(listener, NULL, NULL);
        else {
            fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fd, (struct sockaddr *)&addr, size)) return 1;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        received = crc = 0;
        end = NULL;
        failure[0] = 0;
        if (opt.starttls) dialogue(fd);
        int begun = start(fd);
        if (begun == 0) play(fd);
        printf("{");
        if (begun == 0) facts();
        member("end", end);
        if (failure[0]) member("error", failure);
        printf("\"received\":%llu,\"crc\":%u}\n", (unsigned long long)received, crc);
        fflush(stdout);
        finish();
        close(fd);
    }
    return 0;
}
