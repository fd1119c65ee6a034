//! The programs, each with the settings in its manual that affect ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::tools::{PATIENCE, certs, example};

/// A program that terminates TLS.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The Debian packages of it.
    pub(crate) packages: &'static str,
    /// The command that prints the version, and the text before the version in its output.
    version: (&'static [&'static str], &'static str),
    /// The command line, and the text of the configuration, if the program needs one.
    command: fn(&Place) -> (Vec<String>, String),
}

/// The values that a configuration needs.
struct Place {
    port: u16,
    service: u16,
    dir: PathBuf,
}

impl Place {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    fn config(&self) -> String {
        self.file("config")
    }
}

pub(crate) static PROGRAMS: [Program; 7] = [
    Program {
        name: "bowline",
        packages: "nothing",
        version: (&[], ""),
        command: |place| {
            let Place { port, service, .. } = place;
            let (chain, key) = (place.file("chain.pem"), place.file("key.pem"));
            let terminator = example("terminator").to_str().unwrap().to_owned();
            let listen = format!("tls:127.0.0.1:{port}:cert={chain}:key={key}");
            let connect = format!("tcp:127.0.0.1:{service}");
            (words(&[&terminator, "--listen", &listen, "--connect", &connect]), String::new())
        },
    },
    Program {
        name: "stunnel",
        packages: "stunnel4",
        version: (&["stunnel4", "-version"], "stunnel "),
        command: |place| {
            let Place { port, service, .. } = place;
            let (chain, key) = (place.file("chain.pem"), place.file("key.pem"));
            // `reset` is on by default: "attempt to use the TCP RST flag to indicate an error".
            let config = format!(
                "foreground = yes\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
                 [relay]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{service}\ncert = {chain}\nkey = {key}\n\
                 reset = yes\nTIMEOUTclose = 30\n"
            );
            (words(&["stunnel4", &place.config()]), config)
        },
    },
    Program {
        name: "haproxy",
        packages: "haproxy",
        version: (&["haproxy", "-v"], "HAProxy version "),
        command: |place| {
            let Place { port, service, .. } = place;
            let both = place.file("both.pem");
            let config = format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  \
                 timeout client-fin 30s\n  timeout server-fin 30s\n\
                 listen relay\n  bind 127.0.0.1:{port} ssl crt {both}\n  server service 127.0.0.1:{service}\n"
            );
            (words(&["haproxy", "-db", "-f", &place.config()]), config)
        },
    },
    Program {
        name: "nginx stream",
        packages: "nginx libnginx-mod-stream",
        version: (&["nginx", "-v"], "nginx/"),
        command: |place| nginx(place, "off"),
    },
    Program {
        name: "nginx stream (proxy_half_close on)",
        packages: "nginx libnginx-mod-stream",
        version: (&["nginx", "-v"], "nginx/"),
        command: |place| nginx(place, "on"),
    },
    Program {
        name: "hitch",
        packages: "hitch",
        version: (&["hitch", "--version"], "hitch "),
        command: |place| {
            let Place { port, service, .. } = place;
            let both = place.file("both.pem");
            // hitch refuses to run as root.
            let user = if rustix::process::geteuid().is_root() { "user = \"nobody\"\n" } else { "" };
            let config = format!(
                "frontend = \"[127.0.0.1]:{port}\"\nbackend = \"[127.0.0.1]:{service}\"\npem-file = \"{both}\"\n\
                 workers = 1\ndaemon = off\nquiet = on\n{user}"
            );
            (words(&["hitch", "--config", &place.config()]), config)
        },
    },
    Program {
        name: "socat",
        packages: "socat",
        version: (&["socat", "-V"], "socat version "),
        command: |place| {
            let Place { port, service, .. } = place;
            let (chain, key) = (place.file("chain.pem"), place.file("key.pem"));
            let listen =
                format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,nodelay,cert={chain},key={key},verify=0");
            // `-t`: how long the other direction continues after an end; half a second by default.
            (words(&["socat", "-t", "30", &listen, &format!("TCP:127.0.0.1:{service},nodelay")]), String::new())
        },
    },
];

fn nginx(place: &Place, half_close: &str) -> (Vec<String>, String) {
    let Place { port, service, .. } = place;
    let (chain, key, pid) = (place.file("chain.pem"), place.file("key.pem"), place.file("pid"));
    let config = format!(
        "load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\npid {pid};\nerror_log stderr crit;\nevents {{}}\n\
         stream {{\n  server {{\n    listen 127.0.0.1:{port} ssl;\n    ssl_certificate {chain};\n    \
         ssl_certificate_key {key};\n    proxy_pass 127.0.0.1:{service};\n    proxy_half_close {half_close};\n    \
         proxy_timeout 30s;\n  }}\n}}\n"
    );
    (words(&["nginx", "-e", "stderr", "-c", &place.config()]), config)
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Program {
    /// `None`: it is not installed, or a part of it is not.
    pub(crate) fn version(&self) -> Option<String> {
        let (command, before) = self.version;
        let Some((program, args)) = command.split_first() else { return Some(env!("CARGO_PKG_VERSION").into()) };
        if self.packages.contains("stream") && !Path::new(NGINX_STREAM).exists() {
            return None;
        }
        let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let version = text.split(before).nth(1)?.split([' ', '\n', '-']).next()?;
        Some(version.to_owned())
    }
}

/// A program that listens. Its process group ends when this is dropped.
pub(crate) struct Running {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Running {
    pub(crate) async fn start(program: &Program, service: u16) -> Self {
        // Another process may take the port in between, so this is tried several times.
        for _ in 0..5 {
            if let Some(running) = Self::try_start(program, service).await {
                return running;
            }
        }
        panic!("{} does not listen", program.name);
    }

    async fn try_start(program: &Program, service: u16) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = Place { port, service, dir: dir.path().to_owned() };
        write_files(&place);
        let (command, config) = (program.command)(&place);
        std::fs::write(place.config(), config).unwrap();
        let child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // hitch and socat have children of their own.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut running = Self { child, port, _dir: dir };
        let patience = Instant::now() + PATIENCE / 4;
        while Instant::now() < patience && running.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some(running);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The program may have ended by itself.
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, Signal::TERM);
        for _ in 0..100 {
            if self.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

fn write_files(place: &Place) {
    let (chain, key) = certs().server_paths();
    let (chain, key) = (std::fs::read_to_string(chain).unwrap(), std::fs::read_to_string(key).unwrap());
    std::fs::write(place.file("chain.pem"), &chain).unwrap();
    std::fs::write(place.file("key.pem"), &key).unwrap();
    std::fs::write(place.file("both.pem"), chain + &key).unwrap();
}
