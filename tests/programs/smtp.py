# Eight clients send COUNT mails over STARTTLS. A client repeats each mail until the answer is 250. The program prints
# for each mail its id, and how often the final dot may have been sent.
import hashlib, random, smtplib, socket, ssl, threading, time

context = ssl.create_default_context(cafile=CA)
deadline = time.monotonic() + 100
out = threading.Lock()


def mail(number):
    rng = random.Random(number)
    lines = []
    for _ in range(rng.choice((0, 1, 5, 40, 300))):
        text = bytes(rng.choices(b"abc .\xc3\xa4\t", k=rng.randrange(70)))
        lines.append(b"." * rng.choice((0, 0, 0, 1, 2)) + text + b"\n")
    body = b"".join(lines)
    digest = hashlib.sha256(body).hexdigest().encode()
    header = b"X-Number: %d\nX-Sum: %s\nX-Length: %d\n\n" % (number, digest, len(body))
    return (header + body).replace(b"\n", b"\r\n")


def connect():
    peer = smtplib.SMTP("localhost", PORT, local_hostname="test", timeout=30)
    peer.starttls(context=context)
    return peer


def client(first):
    peer = None
    for number in range(first, COUNT, 8):
        tries = 0
        while True:
            assert time.monotonic() < deadline, "too slow"
            try:
                if peer is None:
                    peer = connect()
                tries += 1
                peer.sendmail("a@example.org", ["b@example.org", "c@example.org"], mail(number), ["BODY=8BITMIME"])
                break
            except (OSError, smtplib.SMTPException, ssl.SSLError, ValueError):
                if peer is not None:
                    peer.close()
                peer = None
                time.sleep(0.01)
        with out:
            print(number, tries, flush=True)
    try:
        peer and peer.quit()
    except (OSError, smtplib.SMTPException):
        pass


clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
for thread in clients:
    thread.start()
for thread in clients:
    thread.join()
