"""The programs of the tests: three web services, HAProxy with deploy/haproxy.cfg, and Redis. All on free ports."""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[4]
WEB = pathlib.Path(os.environ.get("BOWLINE_WEB", ROOT / "target" / "release" / "web"))
# The events that are kept. Keeping all of them would take too much time.
KEPT = ("draining", "drained", "reloaded", "reload_failed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, check, seconds=30.0):
    """Waits until `check` returns a true value, and returns that value."""
    end = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


class Certificates:
    """A CA, its certificates and revocation lists, made by OpenSSL."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "index").touch()
        (self.dir / "openssl.cnf").write_text(
            "[ca]\ndefault_ca=own\n[own]\ndatabase=index\nserial=serial\ncrlnumber=crlnumber\nnew_certs_dir=.\n"
            "certificate=ca.pem\nprivate_key=ca.key\ndefault_md=sha256\ndefault_days=2\ndefault_crl_days=2\n"
            "policy=any\n"
            "unique_subject=no\n[any]\ncommonName=supplied\n"
            "[server]\nsubjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n"
            "[client]\nextendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n"
        )
        for name in ("serial", "crlnumber"):
            (self.dir / name).write_text("1000\n")
        self._run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", "/CN=fleet", "-keyout", "ca.key", "-out", "ca.pem"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def _run(self, *arguments):
        done = subprocess.run(["openssl", *arguments], cwd=self.dir, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"openssl {' '.join(arguments)}: {done.stderr}")

    def make(self, name, kind="server"):
        """Makes NAME.pem and NAME.key."""
        self._run(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._run(
            *("ca", "-batch", "-config", "openssl.cnf", "-notext", "-extensions", kind),
            *("-in", f"{name}.csr", "-out", f"{name}.pem"),
        )
        return self.path(f"{name}.pem"), self.path(f"{name}.key")

    def revoke(self, name):
        self._run("ca", "-config", "openssl.cnf", "-revoke", f"{name}.pem")

    def crl(self):
        """The present revocation list, as PEM."""
        self._run("ca", "-config", "openssl.cnf", "-gencrl", "-out", "crl.tmp")
        return (self.dir / "crl.tmp").read_text()

    def path(self, name):
        return str(self.dir / name)

    def text(self, name):
        return (self.dir / name).read_text()


class Web:
    """One process of the web service."""

    def __init__(self, fleet, number, options):
        self.fleet, self.number = fleet, number
        self.events, self.ready = [], threading.Event()
        self.secured = {}  # the port of the client, and when its handshake was done
        port = fleet.ports[number]
        command = [str(WEB), "--listen", f"127.0.0.1:{port}", "--log", "json", *options]
        if fleet.metrics:
            command += ["--metrics", f"127.0.0.1:{fleet.metrics[number]}"]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.child.stdout:
            if line == "ready\n":
                self.ready.set()
            elif self.fleet.knows_clients and '"secured"' in line:
                event = json.loads(line)
                self.secured[int(event["peer"].rsplit(":", 1)[1])] = time.monotonic()
            elif any(f'"event":"{name}"' in line for name in KEPT):
                self.events.append(json.loads(line))
        self.child.stdout.close()

    def started(self):
        wait_for("the start of the web service", self.ready.is_set)
        return self

    def count(self, event):
        return sum(1 for kept in self.events if kept["event"] == event)

    def failures(self):
        return [kept["detail"] for kept in self.events if kept["event"] == "reload_failed"]

    def cpu(self):
        """The CPU time so far, in seconds."""
        with open(f"/proc/{self.child.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self):
        with open(f"/proc/{self.child.pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status if ":" in line)
        return int(lines["VmRSS"].split()[0]) / 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def drained(self, seconds=60):
        """Waits for the end of a drain, and returns its event."""
        status = self.child.wait(seconds)
        event = wait_for("the end of the log", lambda: [e for e in self.events if e["event"] == "drained"], 5)[-1]
        if status != 0:
            raise AssertionError(f"the web service has ended with status {status}")
        return event

    def end(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()


class Fleet:
    """Three web services behind HAProxy, with files of their own. `options` belong to each service."""

    def __init__(self, options=(), haproxy=True, knows_clients=False, count=3, metrics=False, upgrades=False):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="bowline-fleet-"))
        self.certificates = Certificates(self.dir / "ca")
        self.certificates.make("server")
        self.ca = self.certificates.path("ca.pem")
        self.knows_clients, self.upgrades = knows_clients, upgrades
        self.ports = [free_port() for _ in range(count)]
        self.metrics = [free_port() for _ in range(count)] if metrics else []
        self.options, self.with_haproxy = list(options), haproxy
        self.webs, self.others = [], []
        self.front = None

    def __enter__(self):
        try:
            self.webs = [self.start(number) for number in range(len(self.ports))]
            for web in self.webs:
                web.started()
            if self.with_haproxy:
                self._start_haproxy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in [*self.webs, *self.others]:
            child.end()
        if self.front is not None:
            self.front.kill()
            self.front.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, number):
        """Starts a process at the port of this number. The caller waits for it and puts it into `webs`."""
        options = self.options
        if not any(option in options for option in ("--cert", "--identities")):
            options = [*options, "--cert", self.certificates.path("server.pem")]
            options += ["--key", self.certificates.path("server.key")]
        if self.with_haproxy:
            options = [*options, "--proxy", "require", "--trusted", "127.0.0.1"]
        if self.upgrades:
            options = [*options, "--upgrade-from", str(self.dir / f"upgrade{number}.sock")]
        return Web(self, number, options)

    def _start_haproxy(self):
        self.port = free_port()
        self.stats = str(self.dir / "haproxy.sock")
        # Only the statistics are added for the test. The configuration itself is not changed.
        extra = self.dir / "stats.cfg"
        extra.write_text(f"global\n    stats socket {self.stats} mode 600 level admin\n")
        environment = {**os.environ, "BOWLINE_BIND": f"127.0.0.1:{self.port}"}
        for number, port in enumerate(self.ports):
            environment[f"BOWLINE_WEB_{number + 1}"] = f"127.0.0.1:{port}"
        command = ["haproxy", "-db", "-f", str(ROOT / "deploy" / "haproxy.cfg"), "-f", str(extra)]
        log = open(self.dir / "haproxy.log", "w")
        self.front = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        wait_for("HAProxy", lambda: os.path.exists(self.stats))
        for number in range(len(self.ports)):
            self.wait_up(number)

    def haproxy(self, command):
        with socket.socket(socket.AF_UNIX) as stats:
            stats.connect(self.stats)
            stats.sendall(command.encode() + b"\n")
            answer = b""
            while part := stats.recv(65536):
                answer += part
        return answer.decode()

    def state(self, number):
        """Columns of the statistics of a server."""
        lines = self.haproxy("show stat").splitlines()
        names = lines[0].lstrip("# ").split(",")
        for line in lines[1:]:
            row = dict(zip(names, line.split(",")))
            if row.get("svname") == f"web{number + 1}":
                return row
        raise AssertionError(f"HAProxy knows no server {number + 1}")

    def is_up(self, number):
        """Whether HAProxy sends clients to this server, and the last health check has succeeded."""
        row = self.state(number)
        return row["status"] == "UP" and row["check_status"].lstrip("* ") == "L7OK" and row["check_code"] == "200"

    def wait_up(self, number):
        wait_for(f"HAProxy to see process {number + 1}", lambda: self.is_up(number))

    def reload_failures(self):
        return [failure for web in self.webs for failure in web.failures()]


class Redis:
    """A Redis server without files on a port that stays the same."""

    def __init__(self, fleet_dir):
        self.port, self.dir = free_port(), str(fleet_dir)
        self.child = None
        self.start()

    def start(self):
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        command += ["--dir", self.dir, "--requirepass", "secret"]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for("Redis", self._answers)

    def _answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(16)
        except OSError:
            return False

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self):
        self.child.kill()
        self.child.wait()

    def end(self):
        self.stop()


class SlowProxy:
    """Passes bytes between its clients and a port, each part of the answers after a delay."""

    def __init__(self, port):
        self.target, self.delay = port, 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source, target, is_answer):
        try:
            while part := source.recv(65536):
                if is_answer:
                    time.sleep(self.delay)
                target.sendall(part)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            if not is_answer:
                continue
            end.close()

    def end(self):
        self.listener.close()


def haproxy_keys(numbers):
    """A key file in HAProxy's form with three keys. The last but one seals."""
    return "".join(base64.b64encode(_key(number)).decode() + "\n" for number in numbers)


def nginx_keys(numbers):
    """Key files in nginx's form."""
    return [_key(number) for number in numbers]


def _key(number):
    name = number.to_bytes(16, "big")
    return name + bytes((n * 7 + number) & 255 for n in range(64))


def put(path, contents):
    """Replaces a file in one step."""
    new = f"{path}.new"
    pathlib.Path(new).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    os.rename(new, path)


class Volume:
    """A directory as Kubernetes mounts a Secret: the files are links into `..data`, which is a link to a revision."""

    def __init__(self, path, files):
        self.dir = pathlib.Path(path)
        self.dir.mkdir()
        self.revision = 0
        self.swap(files)
        for name in files:
            os.symlink(f"..data/{name}", self.dir / name)

    def swap(self, files):
        """As the kubelet: makes a new directory, renames the link, and removes the old directory."""
        self.revision += 1
        new = self.dir / f"..revision-{self.revision}"
        new.mkdir()
        for name, contents in files.items():
            (new / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        old = os.readlink(self.dir / "..data") if (self.dir / "..data").is_symlink() else None
        os.symlink(new.name, self.dir / "..data_tmp")
        os.rename(self.dir / "..data_tmp", self.dir / "..data")
        if old is not None:
            shutil.rmtree(self.dir / old)


def need(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")
    if not WEB.exists():
        build = "cargo build --release --manifest-path examples/web/Cargo.toml --target-dir target"
        sys.exit(f"{WEB} does not exist: {build}")
