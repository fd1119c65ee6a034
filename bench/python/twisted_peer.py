"""Twisted over pyOpenSSL: peer ID SCALE, one line of JSON. The end that sends in bulk is a pull producer."""

import os
import socket
import sys
import time

from OpenSSL import SSL, crypto
from twisted.internet import reactor, ssl
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from common import CA, CERT, FULL, ID, KEY, WARM, Mark, bulk_amount, listener, prepare

SERVER = ssl.CertificateOptions(
    privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, KEY.encode()),
    certificate=crypto.load_certificate(crypto.FILETYPE_PEM, CERT.encode()),
    raiseMinimumTo=ssl.TLSVersion.TLSv1_3,
)
CLIENT = ssl.optionsForClientTLS(
    "localhost",
    trustRoot=ssl.Certificate.loadPEM(CA),
    extraCertificateOptions={"raiseMinimumTo": ssl.TLSVersion.TLSv1_3},
)


def end():
    sys.stdout.flush()
    os._exit(0)  # ends without closing the connections, whose ends are not measured


@implementer(IPullProducer)
class Sender(Protocol):
    """Sends the warm-up, and the rest after one byte of the reader."""

    def connectionMade(self):
        self.size, warm, self.count = bulk_amount()
        self.chunk = b"Z" * self.size
        self.begin(warm)

    def begin(self, count):
        self.left = count
        self.transport.registerProducer(self, False)

    def dataReceived(self, data):
        self.begin(self.count)

    def resumeProducing(self):
        self.transport.write(self.chunk)
        self.left -= 1
        if self.left == 0:
            self.transport.unregisterProducer()

    def stopProducing(self):
        pass


class Receiver(Protocol):
    def connectionMade(self):
        size, warm, count = bulk_amount()
        self.warm, self.left, self.mark = warm * size, count * size, None
        self.units = count * size / (1 << 30)
        self.transport.write(b"")

    def dataReceived(self, data):
        if self.mark is None:
            self.warm -= len(data)
            if self.warm <= 0:
                self.mark = Mark()
                self.transport.write(b"!")
            return
        self.left -= len(data)
        if self.left <= 0:
            self.mark.sample(self.units)
            end()


class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Asker(Protocol):
    """Sends requests. All askers warm up first, and then begin at the same time."""

    all, mark, latencies, warm, done = [], None, [], 0, 0

    def connectionMade(self):
        Asker.all.append(self)
        self.request, self.got, self.until = b"Z" * int(ID[1]), 0, None
        self.until = time.perf_counter() + WARM
        self.ask()

    def ask(self):
        self.last = time.perf_counter()
        self.transport.write(self.request)

    def dataReceived(self, data):
        self.got += len(data)
        if self.got < len(self.request):
            return
        self.got, now = 0, time.perf_counter()
        if Asker.mark is not None:
            Asker.latencies.append(now - self.last)
        if now < self.until:
            self.ask()
        elif Asker.mark is None:
            Asker.warm += 1
            if Asker.warm == int(ID[2]):
                Asker.mark = Mark()
                for one in Asker.all:
                    one.until = time.perf_counter() + FULL
                    one.ask()
        else:
            Asker.done += 1
            if Asker.done == int(ID[2]):
                Asker.mark.sample(len(Asker.latencies), Asker.latencies)
                end()


def main():
    if ID[0] == "bulk":
        client, server = (Sender, Receiver) if ID[2] == "up" else (Receiver, Sender)
        connections = 1
    else:
        client, server, connections = Asker, Echo, int(ID[2])
    port = listener()
    factory = TLSMemoryBIOFactory(SERVER, False, Factory.forProtocol(server))
    reactor.adoptStreamPort(port.fileno(), socket.AF_INET, factory)
    for _ in range(connections):
        raw = prepare(socket.create_connection(port.getsockname()))
        raw.setblocking(False)
        reactor.adoptStreamConnection(
            raw.fileno(), socket.AF_INET, TLSMemoryBIOFactory(CLIENT, True, Factory.forProtocol(client))
        )
        raw.close()
    reactor.callLater(60, end)
    reactor.run()


main()
