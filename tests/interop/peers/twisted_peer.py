"""The peer Twisted, with its protocols over pyOpenSSL."""
import script
from OpenSSL import SSL, crypto
from twisted.internet import defer, error, protocol, reactor, ssl
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IHalfCloseableProtocol
from zope.interface import implementer

options = script.Options()


def read(path):
    with open(path, "rb") as file:
        return file.read()


version = ssl.TLSVersion.TLSv1_3 if options.tls13 else ssl.TLSVersion.TLSv1_2
roots = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(read(options.ca))])
identity = None
if options.server or options.auth:
    identity = ssl.PrivateCertificate.loadPEM(read(options.cert) + read(options.key))
range_of_versions = {"lowerMaximumSecurityTo": version} if not options.tls13 else {}
common = {"insecurelyLowerMinimumTo": version, **range_of_versions}
if options.tls13:
    common = {"raiseMinimumTo": version}
alpn = {"acceptableProtocols": [options.alpn.encode()]} if options.alpn else {}
if options.server:
    trust = {"trustRoot": roots} if options.auth else {}
    # This option is off by default.
    common["enableSessions"] = True
    factory_of_tls = ssl.CertificateOptions(privateKey=identity.privateKey.original, certificate=identity.original, **common, **alpn, **trust)
else:
    names = {"clientCertificate": identity} if identity else {}
    extra = {name: value for name, value in common.items()}
    factory_of_tls = ssl.optionsForClientTLS("localhost", trustRoot=roots, extraCertificateOptions=extra, **names, **alpn)


@implementer(IHalfCloseableProtocol)
class Peer(protocol.Protocol):
    """Collects the bytes that come, and wakes the script that waits for them."""

    def connectionMade(self):
        self.buffer, self.end, self.lost, self.waiting = bytearray(), None, None, None
        self.done = defer.ensureDeferred(run(self))
        self.done.addErrback(lambda failure: failure.printTraceback())

    def dataReceived(self, data):
        self.buffer += data
        self.wake()

    def readConnectionLost(self):
        self.end = self.end or "clean"
        self.wake()

    def writeConnectionLost(self):
        pass

    def connectionLost(self, reason):
        self.lost = reason
        self.wake()

    def wake(self):
        waiting, self.waiting = self.waiting, None
        if waiting:
            waiting.callback(None)

    def more(self):
        self.waiting = defer.Deferred()
        return self.waiting


def sleep():
    later = defer.Deferred()
    reactor.callLater(0, later.callback, None)
    return later


async def line(peer, expected):
    while not peer.buffer.endswith(b"\n"):
        await peer.more()
    assert bytes(peer.buffer) == expected, peer.buffer
    peer.buffer.clear()


async def dialogue(peer):
    if options.server:
        peer.transport.write(b"220 ready\r\n")
        await line(peer, b"STARTTLS\r\n")
        peer.transport.write(b"220 go ahead\r\n")
    else:
        await line(peer, b"220 ready\r\n")
        peer.transport.write(b"STARTTLS\r\n")
        await line(peer, b"220 go ahead\r\n")


def end_of(reason):
    text = f"{reason.type.__name__}: {reason.value}"
    if reason.check(error.ConnectionDone):
        return "clean", None
    if reason.check(error.ConnectionLost):
        return ("reset" if "reset" in text.lower() else "truncated"), text
    if reason.check(SSL.Error) and "unexpected eof" in text:
        return "truncated", text
    return "failed", text


async def run(peer):
    report = script.Report()
    try:
        if options.starttls:
            await dialogue(peer)
        peer.transport.startTLS(factory_of_tls)
        await play(peer, report)
    except Exception as failure:
        end, text = end_of(peer.lost) if peer.lost else ("failed", f"{type(failure).__name__}: {failure}")
        report["end"], report["error"] = end, text or repr(failure)
        peer.transport.abortConnection()
    while not peer.lost:
        await peer.more()
    report.print()
    over()


def facts(peer, report):
    # `startTLS` has put its own protocol between the transport and ours.
    tls = peer.transport.protocol
    connection, chosen, certificate = tls.getHandle(), tls.negotiatedProtocol, tls.getPeerCertificate()
    report["version"] = connection.get_protocol_version_name().removeprefix("TLSv")
    report["alpn"] = chosen.decode() if chosen else None
    report["resumed"] = connection.session_reused() if hasattr(connection, "session_reused") else None
    if report["resumed"] is None:
        del report["resumed"]
    report["peer"] = certificate.get_subject().CN if certificate else None


async def play(peer, report):
    transport = peer.transport
    for name, n in options.steps:
        if name == "send":
            transport.write(script.pattern(n))
        elif name == "tiny":
            for _ in range(n):
                transport.write(b"x")
                await sleep()
        elif name in ("recv", "end"):
            while name == "end" or n > 0:
                if peer.buffer:
                    data = bytes(peer.buffer if name == "end" else peer.buffer[:n])
                    del peer.buffer[:len(data)]
                    report.receive(data)
                    n -= len(data)
                    if "version" not in report:
                        facts(peer, report)
                elif peer.end or peer.lost:
                    end, text = (peer.end, None) if peer.end else end_of(peer.lost)
                    if name == "recv":
                        raise script.TooEarly
                    report["end"] = end
                    if text:
                        report["error"] = text
                    break
                else:
                    await peer.more()
        elif name == "half":
            script.cannot("Twisted: a TLS transport has no half-close; loseWriteConnection() sends FIN without close_notify")
        elif name == "close":
            transport.loseConnection()
        elif name == "fin":
            # This ends the TCP connection: it sends the queued bytes, and then FIN.
            FileDescriptor.loseWriteConnection(transport)
        elif name == "abort":
            transport.abortConnection()
        elif name == "update":
            script.cannot("pyOpenSSL's Connection, which Twisted uses, has no call for KeyUpdate")


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
    factory.protocol = Peer
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", options.port, factory)


if options.server:
    factory = protocol.Factory()
    factory.protocol = Peer
    script.listening(reactor.listenTCP(options.port, factory, interface="127.0.0.1").getHost().port)
else:
    if options.conns > 1:
        script.cannot("Twisted: the options of a client (optionsForClientTLS) have no session")
    connect()
reactor.run()
