"""The peer trio, with its SSLStream."""
import script
import trio
from script import options

context = script.context()


class Connection:
    def __init__(self, tcp):
        self.tcp = self.stream = tcp

    async def start_tls(self):
        how = {"server_side": True} if options.server else {"server_hostname": "localhost"}
        self.stream = trio.SSLStream(self.tcp, context, **how)
        await self.stream.do_handshake()

    def facts(self, report):
        script.facts(report, self.stream)

    async def write(self, data):
        await self.stream.send_all(data)

    async def read(self, most):
        return await self.stream.receive_some(most)

    async def half(self):
        if not hasattr(self.stream, "send_eof"):
            script.cannot("trio: SSLStream has no send_eof; its documentation says that TLS has no half-closed connections")
        await self.stream.send_eof()

    async def close(self):
        await self.stream.aclose()

    async def fin(self):
        await self.tcp.send_eof()

    async def abort(self):
        script.reset_on_close(self.tcp)
        await self.tcp.aclose()

    async def update(self):
        script.cannot("trio uses Python's ssl, which has no call for KeyUpdate")

    def end_of(self, failure):
        if not isinstance(failure, trio.BrokenResourceError):
            return "failed", failure
        cause = failure.__cause__
        reset = isinstance(cause, ConnectionResetError) or "reset" in repr(cause).lower()
        return "reset" if reset else "truncated" if "EOF" in repr(cause) else "failed", cause or failure

    async def release(self):
        await self.tcp.aclose()


async def main():
    if options.server:
        listeners = await trio.open_tcp_listeners(options.port, host="127.0.0.1")
        script.listening(listeners[0].socket.getsockname()[1])
        for _ in range(options.conns):
            await script.run(Connection(await listeners[0].accept()))
        return
    if options.conns > 1:
        script.cannot("trio: SSLStream has no argument for a session")
    await script.run(Connection(await trio.open_tcp_stream("127.0.0.1", options.port)))


trio.run(main)
