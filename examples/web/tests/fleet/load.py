"""The clients, and the ledger of the requests that they have sent and that the services have acknowledged.

Each request has a sequence number, and the SHA-256 in the answer acknowledges exactly these bytes. A connection that a
service ends between two requests is no fault: a client cannot know whether the service has seen its next request, and
sends it again, with the same number, on a new connection. Everything else that is not a complete answer is a failure.
"""

import collections
import hashlib
import socket
import ssl
import threading
import time

from http2 import Connection

PATTERN = b"abcdefghijklmnopqrstuvwxyz" * 4000


class Ledger:
    """Counts, and a text for each failure. Safe for threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.failures = []  # (time, the connection or None, what, detail)
        self.acknowledged = collections.defaultdict(set)

    def add(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def acknowledge(self, client, number):
        """Records the answer to the request with this number. A second answer is a fault of the test itself."""
        with self.lock:
            assert number not in self.acknowledged[client], (client, number)
            self.acknowledged[client].add(number)
            self.counts["acknowledged"] += 1

    def fail(self, what, detail, connection=None):
        with self.lock:
            self.counts[what] += 1
            self.failures.append((time.monotonic(), connection, what, str(detail)))

    def text(self):
        with self.lock:
            return ", ".join(f"{what} {count:,}" for what, count in sorted(self.counts.items()))

    def total(self, *names):
        with self.lock:
            return sum(self.counts[name] for name in names)


class Cut(Exception):
    """The connection has ended before the answer was complete."""

    def __init__(self, how, received):
        super().__init__(f"{how} after {received} bytes of the answer")
        self.how, self.received = how, received


class Http1:
    """One connection with HTTP/1.1."""

    def __init__(self, load, session=None, context=None, port=None):
        context, begun = context or load.context, time.monotonic()
        tcp = socket.create_connection(("127.0.0.1", port or load.port), load.patience)
        # The time is kept too, because an earlier connection may have had the same port.
        self.id = (tcp.getsockname()[1], begun)
        self.is_over = False
        try:
            self.tls = context.wrap_socket(
                tcp, server_hostname="localhost", session=session, suppress_ragged_eofs=False
            )
        except (OSError, ValueError):
            tcp.close()
            raise

    def ask(self, head, body=b"", pace=None):
        """Sends a request, and returns the body of the answer. `pace` is called after each part, with its size."""
        self.send(head, body)
        return self.answer(pace)

    def send(self, head, body=b""):
        length = f"content-length: {len(body)}\r\n" if body else ""
        close = "connection: close\r\n" if self.is_over else ""
        self.tls.sendall(f"{head} HTTP/1.1\r\nhost: localhost\r\n{length}{close}\r\n".encode() + body)

    def receive(self, received):
        try:
            part = self.tls.recv(65536)
        except ssl.SSLEOFError:
            raise Cut("truncated", received) from None
        except ConnectionError:
            raise Cut("reset", received) from None
        except TimeoutError:
            raise Cut("timed out", received) from None
        if not part:
            raise Cut("clean", received)
        return part

    def answer(self, pace=None):
        text = b""
        while b"\r\n\r\n" not in text:
            text += self.receive(len(text))
        head, _, body = text.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        self.is_over = self.is_over or "connection: close" in lines
        if not lines[0].startswith("http/1.1 200"):
            raise AssertionError(f"{lines[0]}: {body!r}")
        body = bytearray(body)
        while len(body) < length:
            part = self.receive(len(head) + len(body))
            body += part
            if pace:
                pace(len(part))
        return bytes(body)

    def last(self):
        """Returns how the connection ends after the last answer."""
        try:
            self.receive(0)
        except Cut as cut:
            return cut.how
        return "more bytes"

    def close(self):
        """Ends the connection in order."""
        try:
            self.tls.settimeout(1)
            self.tls.unwrap()
        except (OSError, ValueError):
            pass
        self.tls.close()


class Pace:
    """Turns of several threads at a fixed rate. A late turn does not delay the turns after it."""

    def __init__(self, rate):
        self.rate, self.lock = rate, threading.Lock()
        self.begun, self.turns = time.monotonic(), 0

    def wait(self, load):
        """Waits for the next turn, or for the end of the load."""
        with self.lock:
            self.turns += 1
            at = self.begun + self.turns / self.rate
        load.pause(max(0.0, at - time.monotonic()))


class Load:
    """Threads with clients of one address."""

    def __init__(self, fleet, ledger, port=None, patience=30.0):
        self.fleet, self.ledger, self.patience = fleet, ledger, patience
        self.port = port or fleet.port
        self.over = threading.Event()
        self.threads = []
        self.turns = collections.Counter()  # the handshakes of each client that keeps its session
        self.context = self.new_context()

    def new_context(self, version=None, alpn="http/1.1", identity=None):
        made = ssl.create_default_context(cafile=self.fleet.ca)
        made.set_alpn_protocols([alpn])
        if version is not None:
            made.minimum_version = made.maximum_version = version
        if identity is not None:
            made.load_cert_chain(*identity)
        return made

    def start(self, client, *arguments):
        name = f"{client.__name__}-{len(self.threads)}"
        thread = threading.Thread(target=self._run, args=(client, name, *arguments), daemon=True)
        self.threads.append(thread)
        thread.start()
        return name

    def _run(self, client, name, *arguments):
        while not self.over.is_set():
            try:
                client(self, name, *arguments)
            except Exception as error:  # noqa: BLE001 - a fault of the test must not end it silently
                self.ledger.fail("fault of the test", f"{name}: {error!r}")
                raise

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                self.ledger.fail("client that hangs", thread.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pause(self, seconds):
        self.over.wait(seconds)


def body_of(client, number, size=200):
    return f"{client} {number} ".encode().ljust(size, b".")


def is_acknowledged(answer, body):
    return answer.decode().strip() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"


def opened(load, name, session=None, context=None):
    """A new connection, or None. None counts as a failure, unless the load is over."""
    try:
        connection = Http1(load, session, context)
    except (OSError, ValueError) as error:
        load.ledger.fail("failed connection", f"{name}: {error!r}")
        load.pause(0.2)
        return None
    load.ledger.add("connections")
    return connection


def new_connections(load, name, wait=0.15):
    """One request on each connection. The session is resumed after the first one."""
    session, number = None, 0
    while not load.over.is_set():
        number += 1
        connection = opened(load, name, session)
        if connection is None:
            continue
        if session is not None:
            load.ledger.add("resumed" if connection.tls.session_reused else "full")
        body = body_of(name, number)
        try:
            connection.is_over = True
            answer = connection.ask("POST /sum", body)
            session = connection.tls.session
            if is_acknowledged(answer, body):
                load.ledger.acknowledge(name, number)
            else:
                load.ledger.fail("wrong answer", f"{name} {number}: {answer[:80]!r}", connection.id)
            how = connection.last()
            if how != "clean":
                load.ledger.fail("end that is not in order", f"{name} {number}: {how}", connection.id)
        except Cut as cut:
            what = "cut, told as an end" if cut.how == "clean" else "cut"
            load.ledger.fail(what, f"{name} {number}: {cut}", connection.id)
        except OSError as error:
            load.ledger.fail("cut", f"{name} {number}: {error!r}", connection.id)
        connection.close()
        load.pause(wait)


def keep_alive(load, name, wait=0.08, most=60):
    """Requests on a connection that stays open. A number that was not acknowledged is sent again."""
    session, number, repeated = None, 1, 0
    while not load.over.is_set():
        connection = opened(load, name, session)
        if connection is None:
            continue
        asked = 0
        while not load.over.is_set() and not connection.is_over and asked < most:
            body = body_of(name, number)
            try:
                answer = connection.ask("POST /sum", body)
            except (Cut, OSError) as cut:
                received, how = getattr(cut, "received", 0), getattr(cut, "how", "reset")
                if received == 0 and asked > 0 and how != "timed out" and repeated < 3:
                    # The service has ended the connection between two requests.
                    load.ledger.add(f"sent again ({how})")
                    repeated += 1
                else:
                    what = "cut, told as an end" if how == "clean" else "cut"
                    load.ledger.fail(what, f"{name} {number} after {asked}: {cut}", connection.id)
                break
            session, asked, repeated = connection.tls.session, asked + 1, 0
            if is_acknowledged(answer, body):
                load.ledger.acknowledge(name, number)
            else:
                load.ledger.fail("wrong answer", f"{name} {number}: {answer[:80]!r}", connection.id)
            number += 1
            load.pause(wait)
        connection.close()


def downloads(load, name, size=24_000_000, seconds=4):
    """Long answers, read slowly. Each byte is checked. The buffers of the systems and of HAProxy hold less than half."""
    while not load.over.is_set():
        connection = opened(load, name)
        if connection is None:
            continue
        begun, got = time.monotonic(), 0

        def pace(count):
            nonlocal got
            got += count
            time.sleep(max(0.0, begun + got / size * seconds - time.monotonic()))

        try:
            connection.is_over = True
            body = connection.ask(f"GET /bytes?n={size}", pace=pace)
            whole = (PATTERN * (size // len(PATTERN) + 1))[:size]
            if body != whole:
                load.ledger.fail("wrong answer", f"{name}: {len(body)} bytes", connection.id)
            load.ledger.add("bytes downloaded", len(body))
            load.ledger.add("downloads")
            how = connection.last()
            if how != "clean":
                load.ledger.fail("end that is not in order", f"{name}: {how}", connection.id)
        except Cut as cut:
            what = "cut, told as an end" if cut.how == "clean" else "cut"
            load.ledger.fail(what, f"{name}: {cut}", connection.id)
        except OSError as error:
            load.ledger.fail("cut", f"{name}: {error!r}", connection.id)
        connection.close()


def uploads(load, name, size=400_000, seconds=2.0):
    """A long body, sent slowly. The answer acknowledges all of its bytes."""
    number = 0
    while not load.over.is_set():
        number += 1
        connection = opened(load, name)
        if connection is None:
            continue
        body, parts = body_of(name, number, size), 20
        try:
            connection.tls.sendall(f"POST /sum HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n".encode())
            connection.tls.sendall(b"connection: close\r\n\r\n")
            for part in range(parts):
                connection.tls.sendall(body[part * size // parts : (part + 1) * size // parts])
                time.sleep(seconds / parts)
            answer = connection.answer()
            if is_acknowledged(answer, body):
                load.ledger.acknowledge(name, number)
                load.ledger.add("bytes uploaded", size)
            else:
                load.ledger.fail("wrong answer", f"{name} {number}: {answer[:80]!r}", connection.id)
        except (Cut, OSError) as cut:
            what = "cut, told as an end" if getattr(cut, "how", "") == "clean" else "cut"
            load.ledger.fail(what, f"{name} {number}: {cut!r}", connection.id)
        connection.close()


def slow_answers(load, name, milliseconds=1500):
    """Requests that the service answers after a time."""
    while not load.over.is_set():
        connection = opened(load, name)
        if connection is None:
            continue
        try:
            connection.is_over = True
            answer = connection.ask(f"GET /slow?ms={milliseconds}")
            if answer.strip() != b"done":
                load.ledger.fail("wrong answer", f"{name}: {answer[:80]!r}", connection.id)
            load.ledger.add("slow answers")
        except (Cut, OSError) as cut:
            what = "cut, told as an end" if getattr(cut, "how", "") == "clean" else "cut"
            load.ledger.fail(what, f"{name}: {cut!r}", connection.id)
        connection.close()


def streams(load, name, at_once=4, wait=0.15, most=200):
    """Requests on several streams of HTTP/2 at once. A stream that the server has refused is sent again."""
    context = load.new_context(alpn="h2")
    number, again = 0, []
    while not load.over.is_set():
        opened_one = opened(load, name, context=context)
        if opened_one is None:
            continue
        if opened_one.tls.selected_alpn_protocol() != "h2":
            load.ledger.fail("wrong answer", f"{name}: no HTTP/2", opened_one.id)
        try:
            connection = Connection(opened_one.tls)
        except OSError as error:
            load.ledger.fail("cut", f"{name}: {error!r}", opened_one.id)
            continue
        answered = 0
        while not load.over.is_set() and connection.end is None and connection.last is None and answered < most:
            waiting = {}
            try:
                for _ in range(at_once):
                    if again:
                        this = again.pop()
                    else:
                        number += 1
                        this = number
                    waiting[this] = connection.request("POST", "/sum", body_of(name, this))
                while connection.end is None and not all(one.ended or one.refused for one in waiting.values()):
                    connection.receive()
            except OSError as error:
                connection.end = connection.end or repr(error)
            for this, stream in waiting.items():
                if stream.ended and stream.status == 200 and is_acknowledged(stream.body, body_of(name, this)):
                    load.ledger.acknowledge(name, this)
                    load.ledger.add("streams")
                    answered += 1
                elif stream.refused:
                    load.ledger.add("sent again (stream)")
                    again.append(this)
                elif stream.ended:
                    load.ledger.fail("wrong answer", f"{name} {this}: {stream.status}", opened_one.id)
                    again.append(this)
                else:
                    what = "cut, told as an end" if connection.end == "clean" else "cut"
                    load.ledger.fail(what, f"{name} {this}: {connection.end}", opened_one.id)
                    again.append(this)
            load.pause(wait)
        opened_one.close()


def resumptions(load, name, version, pace):
    """Does handshakes with the newest session. Only the first handshake of a client may be a full one."""
    context, session = load.new_context(version), None
    while not load.over.is_set():
        pace.wait(load)
        try:
            connection = Http1(load, session, context)
            connection.is_over = True
            connection.ask("GET /whoami")
        except (Cut, OSError, ValueError) as error:
            load.ledger.fail("failed handshake", f"{name}: {error!r}")
            load.pause(0.2)
            continue
        load.ledger.add("handshakes")
        load.ledger.add("resumed" if connection.tls.session_reused else "full")
        if session is not None and not connection.tls.session_reused:
            load.ledger.fail("full, with a session", name, connection.id)
        session = connection.tls.session
        load.turns[name] += 1
        connection.close()


def one(load, port, session=None, context=None):
    """One request, on its own connection. Returns the session and whether it was resumed."""
    connection = Http1(load, session, context, port)
    try:
        connection.is_over = True
        connection.ask("GET /whoami")
        return connection.tls.session, connection.tls.session_reused
    finally:
        connection.close()


def mixed(load):
    """The mixed load: all kinds of clients."""
    for _ in range(2):
        load.start(new_connections)
        load.start(keep_alive)
    for client in (downloads, uploads, slow_answers, streams):
        load.start(client)
