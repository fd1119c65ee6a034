import socket, ssl, struct, time


def connect(port=PORT):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(60)
    return sock


def context(version=None):
    ctx = ssl.create_default_context(cafile=CA)
    if version is not None:
        ctx.minimum_version = ctx.maximum_version = version
    return ctx


def line(sock):
    got = b""
    while not got.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise EOFError(got)
        got += byte
    assert got.endswith(b"\r\n"), got
    return got[:-2]


def ask(sock, command):
    sock.sendall(command + b"\r\n")
    return line(sock)


class Tls:
    """TLS over a socket without SSLSocket, so that a test sees the end of each half, and the bytes after close_notify.

    Until Python 3.13, SSLSocket reports a reset as an end of file.
    """

    def __init__(self, sock, ctx):
        self.sock, self.inp, self.out = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = ctx.wrap_bio(self.inp, self.out, server_hostname="localhost")
        self.run(self.tls.do_handshake)

    def flush(self):
        self.sock.sendall(self.out.read())

    def run(self, call):
        while True:
            try:
                result = call()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                self.inp.write(data) if data else self.inp.write_eof()

    def sendall(self, data):
        self.tls.write(data)
        self.flush()

    def recv(self, n):
        """Returns b"" only after the peer's close_notify."""
        try:
            return self.run(lambda: self.tls.read(n))
        except ssl.SSLZeroReturnError:
            return b""

    def close_write(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()

    def read_all(self):
        parts = []
        while part := self.recv(65536):
            parts.append(part)
        return b"".join(parts)


def tls(version=None):
    peer = Tls(connect(), context(version))
    assert line(peer).startswith(b"220 ")
    return peer
