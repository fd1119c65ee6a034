//! Services that are started with their listening sockets: `fd:` and `systemd:` endpoints, in whole processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::tools::{ended, example};

/// A service that says hello to each connection, for a terminator to pass on.
fn hello() -> SocketAddr {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = service.local_addr().unwrap();
    thread::spawn(move || {
        for connection in service.incoming() {
            let _ = connection.unwrap().write_all(b"hello");
        }
    });
    addr
}

/// The program that a launcher starts: a terminator in front of the service.
fn terminator(command: &mut Command, listen: &str) {
    command.arg(example("terminator")).args(["--listen", listen, "--connect", &format!("tcp:{}", hello())]);
}

/// A launcher that keeps the protocol of sd_listen_fds(3): the process gets the socket as its descriptor 3, and
/// `LISTEN_PID` is its own id.
fn launch(socket: TcpListener, name: &str, listen: &str) -> Child {
    let script = format!(r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec "$0" "$@""#);
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    terminator(&mut command, listen);
    command.stdin(OwnedFd::from(socket)).stdout(Stdio::piped()).spawn().unwrap()
}

fn greeting(addr: SocketAddr) -> String {
    let mut text = String::new();
    TcpStream::connect(addr).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// rule: tcp-10: the manager's socket continues to listen after the service has drained, and the next service serves
/// its backlog.
#[test]
fn a_service_takes_the_sockets_that_it_was_started_with() {
    let managers = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = managers.local_addr().unwrap();
    for listen in ["systemd:web", "fd:3", "systemd:web"] {
        // The client waits in the backlog until the service has started.
        let early = thread::spawn(move || greeting(addr));
        let mut child = launch(managers.try_clone().unwrap(), "web", listen);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), format!("listening {} {addr}", listen.split(':').next().unwrap()));
        assert_eq!(early.join().unwrap(), "hello");
        assert_eq!(greeting(addr), "hello");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(ended(&mut child).code(), Some(0));
    }
}

#[test]
fn a_name_that_was_not_passed_in_is_an_error_that_lists_the_names() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec "$0" "$@""#]);
    terminator(&mut command, "systemd:mail");
    let said = command.stdin(OwnedFd::from(socket)).output().unwrap();
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && text.contains("\"mail\"") && text.contains("\"web\""), "{text}");
}

/// systemd's own launcher, which starts no service manager.
#[test]
fn systemd_socket_activate_starts_a_service() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &port.to_string(), "--fdname=web"]);
    terminator(&mut command, "systemd:web");
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        eprintln!("note: systemd-socket-activate is not installed, so it was not tried");
        return;
    };
    // systemd-socket-activate prints a line when it listens, and starts the service at the first connection.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = said.by_ref().take_while(|line| !line.contains("Listening on")).count();
    assert!(listening < 10);
    thread::spawn(move || said.for_each(drop));
    assert_eq!(greeting(port), "hello");
    assert_eq!(greeting(port), "hello");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(ended(&mut child).code(), Some(0));
}
