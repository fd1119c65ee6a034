"""The code that both Python peers share: the arguments, the sockets, the configuration, the sample."""

import json
import os
import resource
import socket
import ssl
import sys
import tempfile
import time

ID = sys.argv[1].split("/")
SCALE = float(sys.argv[2])
COLD = "BENCH_COLD" in os.environ
# The duration of the warm-up and of the measurement, in seconds.
WARM, FULL = (0 if COLD else 0.1), 0.4 * SCALE
CA, CERT, KEY = json.loads(os.environ["BENCH_PKI"])


def prepare(sock):
    """Sets the options that every peer uses: cubic, no-delay."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def listener():
    sock = prepare(socket.socket())
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


def certificate_file():
    """Python loads certificates and keys from files only."""
    file = tempfile.NamedTemporaryFile("w", suffix=".pem")
    file.write(CERT + KEY)
    file.flush()
    return file


def contexts():
    """TLS 1.3 of the ssl module. Its suites cannot be chosen: Python's OpenSSL uses AES-256-GCM."""
    client = ssl.create_default_context(cadata=CA)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with certificate_file() as file:
        server.load_cert_chain(file.name)
    for context in (client, server):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return client, server


class Mark:
    def __init__(self):
        self.at = time.perf_counter()
        self.usage = resource.getrusage(resource.RUSAGE_SELF)

    def sample(self, units, latencies=None):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        sample = {
            "units": units,
            "wall": time.perf_counter() - self.at,
            "user": usage.ru_utime - self.usage.ru_utime,
            "system": usage.ru_stime - self.usage.ru_stime,
        }
        if latencies:
            latencies.sort()
            sample["p50"] = latencies[len(latencies) // 2] * 1e6
            sample["p99"] = latencies[len(latencies) * 99 // 100] * 1e6
        print(json.dumps(sample))


def bulk_amount():
    """The size of a write, the number of writes for the warm-up, and the number for an eighth of a GiB.

    This is less than for the other peers, because Python is measured only for comparison.
    """
    size = int(ID[1].rstrip("k")) << 10
    count = max(int((1 << 27) * SCALE), 16 << 20) // size
    return size, 1 if COLD else max(count // 16, 1), count
