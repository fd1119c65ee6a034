// The peer `tls` of Node.
const fs = require("fs"), net = require("net"), tls = require("tls");

const [role, port, ...words] = process.argv.slice(2);
const server = role === "server";
const given = Object.fromEntries(words.map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)]));
const steps = given.script.split(" ").map((step) => [step.split(":")[0], Number(step.split(":")[1] || 0)]);
let session;

function cannot(why) {
    console.log(JSON.stringify({ cannot: why }));
    process.exit(0);
}

const table = Array.from({ length: 256 }, (_, n) => {
    for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
    return n >>> 0;
});
function crc32(bytes, sum) {
    sum = ~sum;
    for (const byte of bytes) sum = (sum >>> 8) ^ table[(sum ^ byte) & 255];
    return ~sum >>> 0;
}

const version = given.version === "1.2" ? "TLSv1.2" : "TLSv1.3";
let context;
try {
    const files = server || given.auth === "1" ? { cert: fs.readFileSync(given.cert), key: fs.readFileSync(given.key) } : {};
    context = tls.createSecureContext({
        ...files, ca: fs.readFileSync(given.ca), minVersion: version, maxVersion: version, sessionIdContext: "interop",
        ecdhCurve: given.pq === "1" ? "X25519MLKEM768" : "auto",
    });
} catch (error) {
    cannot(`Node ${process.versions.node}, OpenSSL ${process.versions.openssl}: ecdhCurve X25519MLKEM768: ${error.message}`);
}

// The bytes that came, and readers that wait for them.
async function line(socket, expected) {
    let got = "";
    while (!got.endsWith("\n")) {
        const chunk = socket.read(1);
        if (chunk) got += chunk;
        else await new Promise((wake) => socket.once("readable", wake));
    }
    if (got !== expected) throw new Error(`expected ${expected}, got ${got}`);
}

async function dialogue(socket) {
    if (server) {
        socket.write("220 ready\r\n");
        await line(socket, "STARTTLS\r\n");
        socket.write("220 go ahead\r\n");
    } else {
        await line(socket, "220 ready\r\n");
        socket.write("STARTTLS\r\n");
        await line(socket, "220 go ahead\r\n");
    }
}

async function run(tcp) {
    const report = { received: 0, crc: 0 };
    if (tcp) tcp.setNoDelay(true);
    if (given.starttls === "1") await dialogue(tcp);
    const common = { secureContext: context, allowHalfOpen: true };
    const socket = server
        ? new tls.TLSSocket(tcp, {
            ...common, isServer: true, requestCert: given.auth === "1", rejectUnauthorized: true,
            ALPNProtocols: given.alpn ? [given.alpn] : undefined,
        })
        : tls.connect({
            ...common, ...(tcp ? { socket: tcp } : { port: Number(port), host: "127.0.0.1" }), servername: "localhost", session, ALPNProtocols: given.alpn ? [given.alpn] : undefined,
        });
    socket.on("session", (ticket) => { session = ticket; });
    let failed;
    const failure = new Promise((_, reject) => {
        const fail = (error) => { failed = failed || error; reject(error); };
        socket.on("error", fail);
        if (tcp) tcp.on("error", fail);
        // A server's socket reports a broken handshake here.
        socket.on("_tlsError", fail);
    });
    failure.catch(() => {});
    const or = (promise) => Promise.race([promise, failure]);
    const written = (bytes) => or(new Promise((done, reject) => socket.write(bytes, (error) => (error ? reject(error) : done()))));
    let ended = false;
    socket.on("end", () => { ended = true; });
    try {
        await or(new Promise((done) => socket.on(server ? "secure" : "secureConnect", done)));
        report.version = socket.getProtocol().slice(4);
        report.alpn = socket.alpnProtocol || null;
        report.resumed = socket.isSessionReused();
        const peer = socket.getPeerCertificate();
        report.peer = peer && peer.subject ? peer.subject.CN : null;
        for (let [name, n] of steps) {
            if (name === "send") {
                await written(Buffer.from("abcdefghijklmnopqrstuvwxyz".repeat(n / 26 + 1).slice(0, n)));
            } else if (name === "tiny") {
                for (let i = 0; i < n; i++) await written("x");
            } else if (name === "recv" || name === "end") {
                while (name === "end" || n > 0) {
                    const size = Math.min(n, socket.readableLength);
                    const chunk = name === "end" ? socket.read() : size > 0 ? socket.read(size) : socket.read(0);
                    if (chunk && chunk.length) {
                        report.received += chunk.length;
                        report.crc = crc32(chunk, report.crc);
                        n -= chunk.length;
                    } else if (ended || socket.readableEnded) {
                        // The error of a reset can come after the event for the end.
                        await new Promise((done) => setTimeout(done, 50));
                        if (failed) throw failed;
                        if (name === "recv") throw new Error("a clean end, too early");
                        report.end = "clean";
                        break;
                    } else {
                        await or(new Promise((wake) => {
                            const again = () => {
                                socket.off("readable", again);
                                socket.off("end", again);
                                socket.off("close", again);
                                wake();
                            };
                            socket.on("readable", again);
                            socket.on("end", again);
                            socket.on("close", again);
                        }));
                        if (socket.destroyed && !ended && !socket.readableLength) throw failed || new Error("closed without an end");
                    }
                }
            } else if (name === "half") {
                await or(new Promise((done) => socket.end(done)));
            } else if (name === "close") {
                await or(new Promise((done) => socket.end(done)));
            } else if (name === "fin") {
                await new Promise((done) => tcp.end(done));
            } else if (name === "abort") {
                tcp.resetAndDestroy();
            } else if (name === "update") {
                cannot("Node has no call for KeyUpdate: tls.TLSSocket.prototype has renegotiate, which fails in TLS 1.3");
            }
        }
    } catch (error) {
        report.end = error.code === "ECONNRESET" ? "reset" : "failed";
        report.error = `${error.code || error.name}: ${error.message}`;
    }
    const bottom = tcp || socket;
    if (!bottom.destroyed) {
        // `destroy` would drop the bytes that the system has not accepted.
        await new Promise((done) => { socket.end(); bottom.once("close", done); setTimeout(done, 500).unref(); });
        socket.destroy();
        bottom.destroy();
    }
    console.log(JSON.stringify(report));
}

async function main() {
    const conns = Number(given.conns || 1);
    if (!server) {
        for (let i = 0; i < conns; i++) {
            // Without a TCP socket of our own, Node reports a reset as an error.
            if (given.starttls !== "1" && !/fin|abort/.test(given.script)) {
                await run(null);
                continue;
            }
            const tcp = net.connect({ port: Number(port), host: "127.0.0.1", allowHalfOpen: true });
            await new Promise((done) => tcp.once("connect", done));
            await run(tcp);
        }
        return;
    }
    let left = conns;
    const listener = net.createServer({ allowHalfOpen: true, pauseOnConnect: false }, async (tcp) => {
        await run(tcp);
        if (--left === 0) process.exit(0);
    });
    listener.listen(Number(port), "127.0.0.1", () => console.log(`listening ${listener.address().port}`));
}

main().then(() => { if (!server) process.exit(0); });
