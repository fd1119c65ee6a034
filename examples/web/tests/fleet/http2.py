"""The part of HTTP/2 (RFC 9113) that the load needs: requests with small bodies on several streams at once."""

import ssl

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
REFUSED_STREAM = 7


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def literal(index, value):
    """A header field without indexing, with a name of the static table (RFC 7541, section 6.2.2)."""
    value = value.encode()
    assert index < 15 and len(value) < 127
    return bytes([index, len(value)]) + value


class Stream:
    def __init__(self):
        self.status = None
        self.body = bytearray()
        self.ended = False
        self.refused = False  # the server has not processed it, so it may be sent again


class Connection:
    """A connection over a TLS socket. `end` is None while it is open, then "clean", "truncated" or "reset"."""

    def __init__(self, sock):
        self.sock, self.buffer, self.next, self.streams = sock, b"", 1, {}
        self.end, self.last = None, None  # `last`: the last stream that the server processes, after GOAWAY
        # These settings allow no dynamic table, and the windows never close.
        settings = b"\x00\x01" + (0).to_bytes(4, "big") + b"\x00\x04" + (2**31 - 1).to_bytes(4, "big")
        first = frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, (2**31 - 65536).to_bytes(4, "big"))
        sock.sendall(PREFACE + first)

    def request(self, method, path, body=b""):
        stream, self.next = self.next, self.next + 2
        fields = bytes([0x83 if method == "POST" else 0x82, 0x87]) + literal(4, path) + literal(1, "localhost")
        frames = frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), stream, fields)
        if body:
            frames += frame(DATA, END_STREAM, stream, body)
        self.streams[stream] = Stream()
        self.sock.sendall(frames)
        return self.streams[stream]

    def receive(self):
        """Waits for bytes, and processes the frames in them."""
        try:
            part = self.sock.recv(65536)
        except ssl.SSLEOFError:
            self.end = "truncated"
            return
        except ConnectionError:
            self.end = "reset"
            return
        if not part:
            self.end = "clean"
            return
        self.buffer += part
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                return
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big")
            payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
            self._process(kind, flags, stream, payload)

    def _process(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & ACK:
            self.sock.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.sock.sendall(frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self.last = int.from_bytes(payload[:4], "big")
            for number, open_one in self.streams.items():
                open_one.refused |= number > self.last
        elif stream in self.streams:
            found = self.streams[stream]
            if kind == HEADERS:
                while payload and payload[0] & 0xE0 == 0x20:  # an update of the size of the dynamic table
                    payload = payload[1:]
                found.status = 200 if payload[:1] == b"\x88" else 0
            elif kind == DATA:
                found.body += payload
            elif kind == RST_STREAM and not found.ended:
                found.refused |= int.from_bytes(payload, "big") == REFUSED_STREAM
                found.ended = True
                found.status = found.status if found.refused else -1
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                found.ended = True
