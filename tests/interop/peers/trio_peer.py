"""The peer trio, with its SSLStream."""
import socket
import struct

import script
import trio

options = script.Options()
context = script.context(options)


async def line(stream, expected):
    got = b""
    while not got.endswith(b"\n"):
        got += await stream.receive_some(1)
    assert got == expected, got


async def dialogue(stream):
    if options.server:
        await stream.send_all(b"220 ready\r\n")
        await line(stream, b"STARTTLS\r\n")
        await stream.send_all(b"220 go ahead\r\n")
    else:
        await line(stream, b"220 ready\r\n")
        await stream.send_all(b"STARTTLS\r\n")
        await line(stream, b"220 go ahead\r\n")


async def play(tcp, stream, report):
    for name, n in options.steps:
        if name == "send":
            await stream.send_all(script.pattern(n))
        elif name == "tiny":
            for _ in range(n):
                await stream.send_all(b"x")
        elif name in ("recv", "end"):
            while name == "end" or n > 0:
                data = await stream.receive_some(min(n, 65536) if name == "recv" else 65536)
                if not data:
                    if name == "recv":
                        raise script.TooEarly
                    report["end"] = "clean"
                    break
                report.receive(data)
                n -= len(data)
        elif name == "half":
            if not hasattr(stream, "send_eof"):
                script.cannot("trio: SSLStream has no send_eof; its documentation says that TLS has no half-closed connections")
            await stream.send_eof()
        elif name == "close":
            await stream.aclose()
        elif name == "fin":
            await tcp.send_eof()
        elif name == "abort":
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await tcp.aclose()
        elif name == "update":
            script.cannot("trio uses Python's ssl, which has no call for KeyUpdate")


async def run(tcp):
    report = script.Report()
    try:
        if options.starttls:
            await dialogue(tcp)
        if options.server:
            stream = trio.SSLStream(tcp, context, server_side=True)
        else:
            stream = trio.SSLStream(tcp, context, server_hostname="localhost")
        await stream.do_handshake()
        script.facts(report, stream)
        await play(tcp, stream, report)
    except trio.BrokenResourceError as error:
        reset = isinstance(error.__cause__, ConnectionResetError) or "reset" in repr(error.__cause__).lower()
        end = "reset" if reset else "truncated" if "EOF" in repr(error.__cause__) else "failed"
        report.failed(end, error.__cause__ or error)
    except Exception as error:
        report.failed("failed", error)
    await tcp.aclose()
    report.print()


async def main():
    if options.server:
        listeners = await trio.open_tcp_listeners(options.port, host="127.0.0.1")
        script.listening(listeners[0].socket.getsockname()[1])
        for _ in range(options.conns):
            await run(await listeners[0].accept())
        return
    if options.conns > 1:
        script.cannot("trio: SSLStream has no argument for a session")
    await run(await trio.open_tcp_stream("127.0.0.1", options.port))


trio.run(main)
