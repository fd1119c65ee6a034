"""The peer `ssl` of Python, with blocking sockets."""
import socket
import ssl

import script
from script import options

context = script.context()


class Connection:
    # The session of the last connection.
    session = None

    def __init__(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    async def start_tls(self):
        # Without this setting, an end without close_notify counts as a clean end.
        how = {"suppress_ragged_eofs": False}
        if options.server:
            self.sock = context.wrap_socket(self.sock, server_side=True, **how)
        else:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost", session=Connection.session, **how)

    def facts(self, report):
        script.facts(report, self.sock)

    async def write(self, data):
        self.sock.sendall(data)

    async def read(self, most):
        return self.sock.recv(most)

    async def half(self):
        script.cannot("Python's ssl: unwrap() of an SSLSocket waits for the peer's close_notify, and fails with "
                      "APPLICATION_DATA_AFTER_CLOSE_NOTIFY if data comes first")

    async def close(self):
        # The client has received the ticket together with the data.
        Connection.session = self.sock.session
        self.sock.unwrap()

    async def fin(self):
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    async def abort(self):
        script.reset_on_close(self.sock)

    async def update(self):
        script.cannot("Python's ssl has no call for KeyUpdate: dir(ssl.SSLSocket) shows none")

    def end_of(self, failure):
        ends = {ssl.SSLEOFError: "truncated", ConnectionResetError: "reset"}
        return next((end for kind, end in ends.items() if isinstance(failure, kind)), "failed"), failure

    async def release(self):
        self.sock.close()


def run(sock):
    """The methods of the connection block and never wait, so one step runs everything."""
    try:
        script.run(Connection(sock)).send(None)
    except StopIteration:
        pass


if options.server:
    listener = socket.create_server(("127.0.0.1", options.port))
    script.listening(listener.getsockname()[1])
for _ in range(options.conns):
    run(listener.accept()[0] if options.server else socket.create_connection(("127.0.0.1", options.port)))
