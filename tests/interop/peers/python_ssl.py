"""The peer `ssl` of Python, with blocking sockets."""
import socket
import ssl
import struct

import script

options = script.Options()
context = script.context(options)
session = None


def line(sock, expected):
    got = b""
    while not got.endswith(b"\n"):
        got += sock.recv(1)
    assert got == expected, got


def dialogue(sock):
    if options.server:
        sock.sendall(b"220 ready\r\n")
        line(sock, b"STARTTLS\r\n")
        sock.sendall(b"220 go ahead\r\n")
    else:
        line(sock, b"220 ready\r\n")
        sock.sendall(b"STARTTLS\r\n")
        line(sock, b"220 go ahead\r\n")


def play(sock, tls, report):
    global session
    for name, n in options.steps:
        if name == "send":
            tls.sendall(script.pattern(n))
        elif name == "tiny":
            for _ in range(n):
                tls.sendall(b"x")
        elif name in ("recv", "end"):
            while name == "end" or n > 0:
                data = tls.recv(min(n, 65536) if name == "recv" else 65536)
                if not data:
                    if name == "recv":
                        raise script.TooEarly
                    report["end"] = "clean"
                    break
                report.receive(data)
                n -= len(data)
        elif name == "half":
            script.cannot("Python's ssl: unwrap() of an SSLSocket waits for the peer's close_notify, and fails with "
                          "APPLICATION_DATA_AFTER_CLOSE_NOTIFY if data comes first")
        elif name == "close":
            # The client has got the ticket together with the data.
            session = tls.session
            tls.unwrap()
        elif name == "fin":
            socket.socket.shutdown(tls, socket.SHUT_WR)
        elif name == "abort":
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif name == "update":
            script.cannot("Python's ssl has no call for KeyUpdate: dir(ssl.SSLSocket) shows none")


def run(sock, report):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.starttls:
        dialogue(sock)
    # Without this setting, an end without close_notify counts as a clean end.
    how = {"suppress_ragged_eofs": False}
    if options.server:
        tls = context.wrap_socket(sock, server_side=True, **how)
    else:
        tls = context.wrap_socket(sock, server_hostname="localhost", session=session, **how)
    try:
        script.facts(report, tls)
        play(sock, tls, report)
    finally:
        tls.close()


listener = None
if options.server:
    listener = socket.create_server(("127.0.0.1", options.port))
    script.listening(listener.getsockname()[1])
for _ in range(options.conns):
    report = script.Report()
    sock = listener.accept()[0] if listener else socket.create_connection(("127.0.0.1", options.port))
    try:
        run(sock, report)
    except ssl.SSLEOFError as error:
        report.failed("truncated", error)
    except ConnectionResetError as error:
        report.failed("reset", error)
    except Exception as error:
        report.failed("failed", error)
    sock.close()
    report.print()
