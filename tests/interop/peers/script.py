"""The code that the peers in Python share: command line, dialogue, steps and report. README.md describes them."""
import json
import socket
import struct
import sys
import zlib


class Options:
    def __init__(self):
        self.server = sys.argv[1] == "server"
        self.port = int(sys.argv[2])
        given = dict(word.split("=", 1) for word in sys.argv[3:])
        self.tls13 = given.get("version", "1.3") == "1.3"
        self.cert, self.key, self.ca = (given.get(name, "") for name in ("cert", "key", "ca"))
        self.auth, self.starttls, self.pq = (given.get(name) == "1" for name in ("auth", "starttls", "pq"))
        self.alpn = given.get("alpn", "")
        self.conns = int(given.get("conns", "1"))
        self.steps = []
        for word in given["script"].split(" "):
            name, _, n = word.partition(":")
            self.steps.append((name, int(n or 0)))


options = Options()


class Report(dict):
    """`received` and `crc` describe the bytes that came. The other members are the facts that the peer knows."""

    def __init__(self):
        super().__init__(received=0, crc=0)

    def receive(self, data):
        self["received"] += len(data)
        self["crc"] = zlib.crc32(data, self["crc"])

    def failed(self, end, error):
        self["end"] = end
        self["error"] = f"{type(error).__name__}: {error}"

    def print(self):
        print(json.dumps(self), flush=True)


def cannot(why):
    """Reports a step that the library does not offer, and ends the program."""
    print(json.dumps({"cannot": why}), flush=True)
    sys.exit(0)


def pattern(n):
    return (b"abcdefghijklmnopqrstuvwxyz" * (n // 26 + 1))[:n]


def reset_on_close(sock):
    """Makes the close of the socket send RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def listening(port):
    print(f"listening {port}", flush=True)


async def dialogue(connection):
    """The lines before TLS. The server sends the first one and the third one."""
    for n, line in enumerate((b"220 ready\r\n", b"STARTTLS\r\n", b"220 go ahead\r\n")):
        if options.server == (n % 2 == 0):
            await connection.write(line)
            continue
        got = b""
        while len(got) < len(line):
            data = await connection.read(len(line) - len(got))
            if not data:
                raise EOFError("an end in the dialogue")
            got += data
        assert got == line, got


async def play(connection, report):
    """Plays the steps on a connection of a library.

    The connection has the methods `write`, `read(most)` (`b""` is a clean end), `half`, `close`, `fin`, `abort` and
    `update`. The last five do the steps of these names.
    """
    for name, n in options.steps:
        if name == "send":
            await connection.write(pattern(n))
        elif name == "tiny":
            for _ in range(n):
                await connection.write(b"x")
        elif name in ("recv", "end"):
            while name == "end" or n > 0:
                data = await connection.read(min(n, 65536) if name == "recv" else 65536)
                if not data:
                    if name == "recv":
                        raise EOFError("a clean end, too early")
                    report["end"] = "clean"
                    break
                report.receive(data)
                n -= len(data)
        else:
            await getattr(connection, name)()


async def run(connection):
    """Plays the script on a connection, and prints the report.

    Besides the methods for the steps, the connection has `start_tls` (the handshake), `facts(report)`, `end_of(error)`
    (how the peer's half ended, and the error to report), and `release` (closes the socket).
    """
    report = Report()
    try:
        if options.starttls:
            await dialogue(connection)
        await connection.start_tls()
        connection.facts(report)
        await play(connection, report)
    except Exception as failure:
        end, error = connection.end_of(failure)
        report.failed(end, error)
    await connection.release()
    report.print()


def context():
    """The settings of Python's `ssl`, which all peers in Python but Twisted use."""
    import ssl

    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if options.server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_3 if options.tls13 else ssl.TLSVersion.TLSv1_2
    made.load_verify_locations(options.ca)
    if options.server or options.auth:
        made.load_cert_chain(options.cert, options.key)
    if options.server and options.auth:
        made.verify_mode = ssl.CERT_REQUIRED
    if options.alpn:
        made.set_alpn_protocols([options.alpn])
    if options.pq:
        if not hasattr(made, "set_groups"):
            try:
                made.set_ecdh_curve("X25519MLKEM768")
            except ValueError as error:
                cannot(f"Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}: set_ecdh_curve: {error}")
        else:
            made.set_groups("X25519MLKEM768")
    return made


def facts(report, tls):
    """The facts of an `SSLSocket` or an `SSLObject`."""
    peer = tls.getpeercert()
    report["version"] = tls.version().removeprefix("TLSv")
    report["alpn"] = tls.selected_alpn_protocol()
    report["resumed"] = tls.session_reused
    report["peer"] = dict(pair for name in peer["subject"] for pair in name)["commonName"] if peer else None
