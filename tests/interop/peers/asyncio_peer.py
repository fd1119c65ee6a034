"""The peer asyncio, with its streams."""
import asyncio
import socket
import ssl

import script
from script import options

context = script.context()


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.sock = writer.get_extra_info("socket")

    async def start_tls(self):
        # Without a dialogue, `main` has opened the connection with TLS.
        if options.starttls:
            await self.writer.start_tls(context, server_hostname=None if options.server else "localhost")

    def facts(self, report):
        script.facts(report, self.writer.get_extra_info("ssl_object"))

    async def write(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, most):
        return await self.reader.read(most)

    async def half(self):
        if not self.writer.can_write_eof():
            script.cannot("asyncio: can_write_eof() of a TLS transport is False, and write_eof() raises NotImplementedError")
        self.writer.write_eof()

    async def close(self):
        self.writer.close()
        await self.writer.wait_closed()

    async def fin(self):
        # The transport has no call for this. Its socket has no `shutdown` that works, so the class's one is called.
        socket.socket.shutdown(self.sock._sock, socket.SHUT_WR)

    async def abort(self):
        script.reset_on_close(self.sock)
        self.writer.transport.abort()

    async def update(self):
        script.cannot("asyncio uses Python's ssl, which has no call for KeyUpdate")

    def end_of(self, failure):
        return "reset" if isinstance(failure, ConnectionResetError) else "failed", failure

    async def release(self):
        self.writer.close()
        try:
            await asyncio.wait_for(self.writer.wait_closed(), 5)
        except Exception:
            # The step that failed has reported the error.
            pass


async def main():
    if options.server:
        left = options.conns
        over = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            nonlocal left
            await script.run(Connection(reader, writer))
            left -= 1
            if left == 0:
                over.set_result(None)

        server = await asyncio.start_server(serve, "127.0.0.1", options.port, ssl=None if options.starttls else context)
        script.listening(server.sockets[0].getsockname()[1])
        await over
        return
    if options.conns > 1:
        script.cannot("asyncio: open_connection and create_connection have no argument for a session")
    how = {} if options.starttls else {"ssl": context, "server_hostname": "localhost"}
    try:
        streams = await asyncio.open_connection("127.0.0.1", options.port, **how)
    except ssl.SSLError as error:
        report = script.Report()
        report.failed("failed", error)
        report.print()
        return
    await script.run(Connection(*streams))


asyncio.run(main())
