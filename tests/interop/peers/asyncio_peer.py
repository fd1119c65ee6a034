"""The peer asyncio, with its streams."""
import asyncio
import socket
import ssl
import struct

import script

options = script.Options()
context = script.context(options)


async def line(reader, expected):
    got = await reader.readline()
    assert got == expected, got


async def dialogue(reader, writer):
    if options.server:
        writer.write(b"220 ready\r\n")
        await line(reader, b"STARTTLS\r\n")
        writer.write(b"220 go ahead\r\n")
        await writer.drain()
    else:
        await line(reader, b"220 ready\r\n")
        writer.write(b"STARTTLS\r\n")
        await line(reader, b"220 go ahead\r\n")


async def play(reader, writer, report):
    sock = writer.get_extra_info("socket")
    for name, n in options.steps:
        if name == "send":
            writer.write(script.pattern(n))
            await writer.drain()
        elif name == "tiny":
            for _ in range(n):
                writer.write(b"x")
                await writer.drain()
        elif name in ("recv", "end"):
            while name == "end" or n > 0:
                data = await reader.read(min(n, 65536) if name == "recv" else 65536)
                if not data:
                    if name == "recv":
                        raise script.TooEarly
                    report["end"] = "clean"
                    break
                report.receive(data)
                n -= len(data)
        elif name == "half":
            if not writer.can_write_eof():
                script.cannot("asyncio: can_write_eof() of a TLS transport is False, and write_eof() raises NotImplementedError")
            writer.write_eof()
        elif name == "close":
            writer.close()
            await writer.wait_closed()
        elif name == "fin":
            socket.socket.shutdown(sock._sock, socket.SHUT_WR)
        elif name == "abort":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif name == "update":
            script.cannot("asyncio uses Python's ssl, which has no call for KeyUpdate")


async def run(reader, writer):
    report = script.Report()
    try:
        if options.starttls:
            await dialogue(reader, writer)
            await writer.start_tls(context, server_hostname=None if options.server else "localhost")
        script.facts(report, writer.get_extra_info("ssl_object"))
        await play(reader, writer, report)
    except ConnectionResetError as error:
        report.failed("reset", error)
    except Exception as error:
        report.failed("failed", error)
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), 5)
    except Exception as error:
        report.setdefault("at_close", repr(error))
    report.print()


async def main():
    if options.server:
        left = options.conns
        over = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            nonlocal left
            await run(reader, writer)
            left -= 1
            if left == 0:
                over.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", options.port, ssl=None if options.starttls else context)
        script.listening(server.sockets[0].getsockname()[1])
        await over
        return
    for _ in range(options.conns):
        if options.conns > 1:
            script.cannot("asyncio: open_connection and create_connection have no argument for a session")
        how = {} if options.starttls else {"ssl": context, "server_hostname": "localhost"}
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", options.port, **how)
        except ssl.SSLError as error:
            report = script.Report()
            report.failed("failed", error)
            report.print()
            continue
        await run(reader, writer)


asyncio.run(main())
