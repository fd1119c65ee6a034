"""The peer Twisted, with its protocols over pyOpenSSL."""
import script
from OpenSSL import SSL
from script import options
from twisted.internet import defer, error, protocol, reactor, ssl
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IHandshakeListener
from zope.interface import implementer


def read(path):
    with open(path, "rb") as file:
        return file.read()


version = ssl.TLSVersion.TLSv1_3 if options.tls13 else ssl.TLSVersion.TLSv1_2
roots = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(read(options.ca))])
identity = None
if options.server or options.auth:
    identity = ssl.PrivateCertificate.loadPEM(read(options.cert) + read(options.key))
if options.tls13:
    versions = {"raiseMinimumTo": version}
else:
    versions = {"insecurelyLowerMinimumTo": version, "lowerMaximumSecurityTo": version}
alpn = {"acceptableProtocols": [options.alpn.encode()]} if options.alpn else {}
if options.server:
    trust = {"trustRoot": roots} if options.auth else {}
    # Sessions are off by default.
    tls = ssl.CertificateOptions(privateKey=identity.privateKey.original, certificate=identity.original, enableSessions=True,
                                 **versions, **alpn, **trust)
else:
    names = {"clientCertificate": identity} if identity else {}
    tls = ssl.optionsForClientTLS("localhost", trustRoot=roots, extraCertificateOptions=versions, **names, **alpn)


@implementer(IHandshakeListener)
class Connection(protocol.Protocol):
    """Collects the bytes that come, and wakes the script that waits for them."""

    def connectionMade(self):
        self.buffer, self.is_secured, self.lost, self.waiting = bytearray(), False, None, None
        running = defer.ensureDeferred(script.run(self))
        running.addErrback(lambda failure: failure.printTraceback())
        running.addBoth(lambda _: over())

    def dataReceived(self, data):
        self.buffer += data
        self.wake()

    def handshakeCompleted(self):
        self.is_secured = True
        self.wake()

    def connectionLost(self, reason):
        self.lost = reason
        self.wake()

    def wake(self):
        waiting, self.waiting = self.waiting, None
        if waiting:
            waiting.callback(None)

    async def changed(self):
        self.waiting = defer.Deferred()
        await self.waiting

    async def start_tls(self):
        self.transport.startTLS(tls)
        while not self.is_secured:
            if self.lost:
                raise self.lost.value
            await self.changed()

    def facts(self, report):
        # `startTLS` has put its own protocol between the transport and ours.
        session = self.transport.protocol
        handle, chosen, certificate = session.getHandle(), session.negotiatedProtocol, session.getPeerCertificate()
        report["version"] = handle.get_protocol_version_name().removeprefix("TLSv")
        report["alpn"] = chosen.decode() if chosen else None
        if hasattr(handle, "session_reused"):
            report["resumed"] = handle.session_reused()
        report["peer"] = certificate.get_subject().CN if certificate else None

    async def write(self, data):
        self.transport.write(data)
        # The reactor sends the bytes before the next call, which makes a record of its own.
        later = defer.Deferred()
        reactor.callLater(0, later.callback, None)
        await later

    async def read(self, most):
        while not self.buffer and not self.lost:
            await self.changed()
        if not self.buffer and not self.lost.check(error.ConnectionDone):
            raise self.lost.value
        data = bytes(self.buffer[:most])
        del self.buffer[:most]
        return data

    async def half(self):
        script.cannot("Twisted: a TLS transport has no half-close; loseWriteConnection() sends FIN without close_notify")

    async def close(self):
        self.transport.loseConnection()
        await self.gone()

    async def fin(self):
        # This ends the TCP connection: it sends the queued bytes, and then FIN.
        FileDescriptor.loseWriteConnection(self.transport)
        await self.gone()

    async def abort(self):
        self.transport.abortConnection()

    async def update(self):
        script.cannot("pyOpenSSL's Connection, which Twisted uses, has no call for KeyUpdate")

    def end_of(self, failure):
        text = str(failure)
        if isinstance(failure, error.ConnectionLost):
            return "reset" if "reset" in text.lower() else "truncated", failure
        return "truncated" if isinstance(failure, SSL.Error) and "unexpected eof" in text else "failed", failure

    async def release(self):
        if not self.lost:
            self.transport.abortConnection()
            await self.gone()

    async def gone(self):
        while not self.lost:
            await self.changed()


left = options.conns


def over():
    global left
    left -= 1
    if left == 0:
        reactor.callLater(0.05, reactor.stop)
    elif not options.server:
        connect()


def connect():
    factory = protocol.ClientFactory()
    factory.protocol = Connection
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", options.port, factory)


if options.server:
    factory = protocol.Factory()
    factory.protocol = Connection
    script.listening(reactor.listenTCP(options.port, factory, interface="127.0.0.1").getHost().port)
else:
    if options.conns > 1:
        script.cannot("Twisted: the options of a client (optionsForClientTLS) have no session")
    connect()
reactor.run()
