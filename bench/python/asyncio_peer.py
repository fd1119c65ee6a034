"""asyncio's streams over the ssl module: peer ID SCALE, one line of JSON."""

import asyncio
import time

from common import FULL, ID, WARM, Mark, bulk_amount, contexts, listener, prepare

CLIENT, SERVER = contexts()


async def pairs(count, serve):
    """This many connected clients. `serve` serves each of them."""
    sock = listener()
    server = await asyncio.start_server(serve, sock=sock, ssl=SERVER)
    import socket

    clients = []
    for _ in range(count):
        raw = prepare(socket.socket())
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, sock.getsockname())
        clients.append(await asyncio.open_connection(sock=raw, ssl=CLIENT, server_hostname="localhost"))
    return server, clients


async def bulk(up):
    size, warm, count = bulk_amount()
    begin, done = asyncio.Event(), asyncio.Event()
    mark = None

    async def send(writer):
        nonlocal mark
        chunk = b"Z" * size
        for _ in range(warm):
            writer.write(chunk)
            await writer.drain()
        await begin.wait()
        mark = Mark()
        for _ in range(count):
            writer.write(chunk)
            await writer.drain()
        await done.wait()

    async def receive(reader):
        for amount, event in ((warm, begin), (count, done)):
            left = amount * size
            while left > 0:
                left -= len(await reader.read(64 << 10))
            event.set()

    async def serve(reader, writer):
        await (receive(reader) if up else send(writer))

    _, [(reader, writer)] = await pairs(1, serve)
    await (send(writer) if up else receive(reader))
    mark.sample(count * size / (1 << 30))


async def requests(size, connections):
    async def serve(reader, writer):
        while True:
            writer.write(await reader.readexactly(size))

    async def ask(reader, writer, seconds):
        latencies, begin = [], time.perf_counter()
        last = begin
        while last - begin < seconds:
            writer.write(b"Z" * size)
            await reader.readexactly(size)
            now = time.perf_counter()
            latencies.append(now - last)
            last = now
        return latencies

    _, clients = await pairs(connections, serve)
    await asyncio.gather(*(ask(reader, writer, WARM) for reader, writer in clients))
    mark = Mark()
    all_of_them = await asyncio.gather(*(ask(reader, writer, FULL) for reader, writer in clients))
    latencies = [one for some in all_of_them for one in some]
    mark.sample(len(latencies), latencies)


async def main():
    if ID[0] == "bulk":
        await bulk(ID[2] == "up")
    else:
        await requests(int(ID[1]), int(ID[2]))
    import os, sys

    sys.stdout.flush()
    os._exit(0)  # ends without closing the connections, whose ends are not measured


asyncio.run(main())
