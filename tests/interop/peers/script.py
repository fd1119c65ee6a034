"""The code that the peers in Python share: the command line, the steps and the report. README.md describes them."""
import json
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


def listening(port):
    print(f"listening {port}", flush=True)


class TooEarly(Exception):
    pass


def context(options):
    """The settings of Python's `ssl`, which two of the peers use."""
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
