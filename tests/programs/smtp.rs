//! The receiver of mail.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tools::{A_LITTLE, PATIENCE, Running, ca, certs, certs_dir, example, flood, line, peak, python};

struct Smtp {
    child: Child,
    addr: SocketAddr,
}

impl Smtp {
    fn start(maildir: &Path, listen: &str, args: &[&str]) -> Self {
        certs();
        let mut child = Command::new(example("smtp"))
            .args(["--listen", listen, "--certs"])
            .arg(certs_dir())
            .arg("--maildir")
            .arg(maildir)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let addr = first.trim().strip_prefix("listening smtp ").unwrap().parse().unwrap();
        Self { child, addr }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn connect(&self) -> BufReader<TcpStream> {
        let socket = TcpStream::connect(self.addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = BufReader::new(socket);
        assert_eq!(line(&mut client), "220 bowline ESMTP");
        client
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends all bytes at once, and reads one line for each code.
fn converse(client: &mut BufReader<TcpStream>, sent: &[u8], codes: &[&str]) {
    client.get_mut().write_all(sent).unwrap();
    for code in codes {
        let reply = line(client);
        assert!(reply.starts_with(code), "{reply} to {:?}, not {code}", String::from_utf8_lossy(sent));
    }
}

fn mails(maildir: &Path) -> Vec<String> {
    let files = fs::read_dir(maildir.join("new")).unwrap();
    files.map(|file| String::from_utf8_lossy(&fs::read(file.unwrap().path()).unwrap()).into_owned()).collect()
}

const MAIL: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
const BEGUN: [&str; 8] =
    ["250-", "250-STARTTLS", "250-PIPELINING", "250-8BITMIME", "250-", "250 SIZE 1000", "250 ", "250 "];

#[test]
fn every_reply_has_the_code_of_the_rfc() {
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &["--max-size", "1000"]);
    let mut client = smtp.connect();
    let long = [b"NOOP ".to_vec(), b"x".repeat(5000), b"\r\n".to_vec()].concat();
    converse(
        &mut client,
        b"MAIL FROM:<a@b>\r\nDATA\r\nFOO\r\nEHLO\r\nAUTH PLAIN\r\n",
        &["503", "503", "500", "501", "502"],
    );
    converse(&mut client, &long, &["500 5.5.2 line too long"]);
    converse(&mut client, b"NOOP \xff\r\nVRFY a\r\nHELO x\r\nRCPT TO:<a>\r\n", &["500", "252", "250", "503"]);
    converse(
        &mut client,
        b"MAIL FROM:<a> SIZE=1001\r\nMAIL FROM:<a>\r\nMAIL FROM:<a>\r\nDATA\r\n",
        &["552", "250", "503", "503"],
    );
    converse(&mut client, b"RSET\r\nRCPT TO:<a>\r\n", &["250", "503"]);
    converse(&mut client, MAIL, &[&BEGUN[..], &["354"]].concat());
    let big = [b"x".repeat(1001), b"\r\n.\r\n".to_vec()].concat();
    converse(&mut client, &big, &["552"]);
    converse(&mut client, b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n", &["250", "250", "354"]);
    converse(&mut client, b"a\n.\r\nMAIL FROM:<evil>\r\n.\r\n", &["550"]);
    converse(&mut client, b"MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n", &["250", "250", "354"]);
    assert!(mails(dir.path()).is_empty());
    // The mail and the commands after it come in one segment. The commands wait only for the disk.
    converse(&mut client, b"..hidden\r\n.\r\nNOOP\r\nQUIT\r\n", &["250 2.0.0 delivered", "250 2.0.0 nothing", "221"]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let mails = mails(dir.path());
    assert!(mails.len() == 1 && mails[0].ends_with("\n.hidden\n"), "{mails:?}");
    let mut client = smtp.connect();
    for n in 0..20 {
        converse(&mut client, b"FOO\r\n", if n < 19 { &["500"] } else { &["500", "421"] });
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Starts a mail on a new connection.
fn begin_mail(smtp: &Smtp) -> BufReader<TcpStream> {
    let mut client = smtp.connect();
    let begin = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    converse(&mut client, begin, &["250", "250", "250", "354"]);
    client
}

/// rule: write-10
#[cfg(target_os = "linux")]
#[test]
fn mails_that_come_are_held_on_the_disk_and_not_in_memory() {
    const CLIENTS: usize = 8;
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &[]);
    let before = peak(&smtp.child);
    let text = format!("{}\r\n", "x".repeat(998)).repeat(9000);
    let mut clients: Vec<_> = (0..=CLIENTS)
        .map(|_| {
            let mut client = begin_mail(&smtp);
            client.get_mut().write_all(text.as_bytes()).unwrap();
            client
        })
        .collect();
    // One client leaves in the middle of its mail.
    drop(clients.pop());
    for client in &mut clients {
        converse(client, b"last\r\n.\r\n", &["250 2.0.0 delivered"]);
    }
    let grown = peak(&smtp.child) - before;
    assert!(grown < 24 << 20, "{grown} bytes");
    let whole = text.replace("\r\n", "\n") + "last\n";
    let mails = mails(dir.path());
    assert_eq!(mails.len(), CLIENTS);
    assert!(mails.iter().all(|mail| mail.starts_with("Return-Path: <a@b>\n") && mail.ends_with(&whole)));
    let patience = Instant::now() + PATIENCE;
    while fs::read_dir(dir.path().join("tmp")).unwrap().next().is_some() {
        assert!(Instant::now() < patience, "half a mail is left");
        std::thread::yield_now();
    }
}

/// rule: write-10
#[cfg(target_os = "linux")]
#[test]
fn replies_that_the_client_does_not_read_use_no_memory() {
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &[]);
    let before = peak(&smtp.child);
    flood(smtp.connect().get_ref(), b"NOOP\r\n");
    let grown = peak(&smtp.child) - before;
    assert!(grown < A_LITTLE, "{grown} bytes");
}

/// rule: tcp-9
#[test]
fn a_mail_that_comes_byte_by_byte_times_out() {
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &["--timeout", "1"]);
    let mut client = begin_mail(&smtp);
    let mut writer = client.get_ref().try_clone().unwrap();
    let trickling = std::thread::spawn(move || {
        // The writes fail once the server has closed the connection.
        while writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(line(&mut client), "421 4.4.2 timed out");
    drop(client);
    drop(smtp);
    trickling.join().unwrap();
    assert!(mails(dir.path()).is_empty());
}

#[test]
fn starttls_is_refused_without_tls_and_a_silent_client_times_out() {
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &["--no-tls", "--timeout", "0.3"]);
    let mut client = smtp.connect();
    converse(&mut client, b"STARTTLS\r\nEHLO x\r\n", &["454", "250-bowline", "250-PIPELINING"]);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n421 4.4.2 timed out\r\n"), "{rest}");
}

/// rule: upgrade-2, upgrade-3
#[test]
fn state_from_before_tls_is_dropped_and_injected_commands_are_refused() {
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &[]);
    python(
        r#"
import smtplib
peer = smtplib.SMTP("localhost", PORT, timeout=30)
peer.ehlo("x")
assert peer.has_extn("starttls")
assert peer.docmd("MAIL", "FROM:<a@b>")[0] == 250
peer.starttls(context=context())
assert peer.docmd("RCPT", "TO:<c@d>") == (503, b"5.5.1 EHLO first")
peer.ehlo("x")
assert not peer.has_extn("starttls")
assert peer.docmd("STARTTLS")[0] == 503
assert peer.docmd("RCPT", "TO:<c@d>")[0] == 503
peer.quit()
"#,
        smtp.addr,
    );
    for injected in ["RSET\r\n", "EHLO y\r\nMAIL FROM:<a@b>\r\n", "\x16\x03\x01"] {
        let mut client = smtp.connect();
        client.get_mut().write_all(format!("STARTTLS\r\n{injected}").as_bytes()).unwrap();
        let mut got = Vec::new();
        let _ = client.read_to_end(&mut got);
        assert!(got.is_empty() || got == b"220 2.0.0 go ahead\r\n", "{}", String::from_utf8_lossy(&got));
    }
}

/// rule: upgrade-3
#[test]
fn before_a_required_tls_only_starttls_is_obeyed() {
    let dir = TempDir::new().unwrap();
    let smtp = Smtp::start(dir.path(), "127.0.0.1:0", &["--require-tls"]);
    let mut client = smtp.connect();
    converse(&mut client, b"EHLO x\r\nMAIL FROM:<a@b>\r\nQUIT\r\n", &["250-ready", "250 STARTTLS", "530", "221"]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let mut client = smtp.connect();
    client.get_mut().write_all(b"STARTTLS\r\nMAIL FROM:<a@b>\r\n").unwrap();
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    assert!(got.is_empty() || got == b"220 2.0.0 go ahead\r\n", "{}", String::from_utf8_lossy(&got));
    python(
        r#"
import smtplib
peer = smtplib.SMTP("localhost", PORT, timeout=30)
peer.starttls(context=context())
peer.sendmail("a@b", ["c@d"], "Subject: x\r\n\r\ny\r\n")
peer.quit()
"#,
        smtp.addr,
    );
    assert_eq!(mails(dir.path()).len(), 1);
}

#[test]
fn a_wrong_command_line_is_one_sentence_and_status_2() {
    for (args, sentence) in [
        (&[][..], "smtp: --maildir DIR is missing\n"),
        (&["--maildir", "/proc/nothing"], "smtp: /proc/nothing: "),
        (&["--maildir", "/tmp", "--max-size", "x"], "smtp: "),
    ] {
        let said = Running::start(example("smtp"), args).feed(b"");
        assert_eq!(said.code(), 2);
        assert!(said.stderr.starts_with(sentence), "{}", said.stderr);
    }
    let help = Running::start(example("smtp"), &["--help"]).feed(b"");
    assert!(help.code() == 0 && help.text().contains("--maildir DIR"));
}

/// rule: close-1
#[test]
fn a_signal_drains() {
    let dir = TempDir::new().unwrap();
    let mut smtp = Smtp::start(dir.path(), "127.0.0.1:0", &["--max-size", "1000"]);
    let mut idle = smtp.connect();
    let mut busy = smtp.connect();
    converse(&mut busy, MAIL, &[&BEGUN[..], &["354"]].concat());
    converse(&mut busy, b"text\r\n.\r\n", &["250 2.0.0 delivered"]);
    kill_process(Pid::from_child(&smtp.child), Signal::TERM).unwrap();
    for client in [&mut idle, &mut busy] {
        assert_eq!(line(client), "421 4.3.2 shutting down");
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    drop((idle, busy));
    assert_eq!(smtp.child.wait().unwrap().code(), Some(0));
    assert_eq!(mails(dir.path()).len(), 1);
}

/// Pseudo-random numbers, which are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// Forwards bytes between clients and the server, and resets each connection at some byte of either direction.
async fn bad_line(listener: tokio::net::TcpListener, server: SocketAddr, cut: &'static AtomicUsize) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let limit = match dice.roll(3) {
            0 => dice.roll(4_000),
            1 => dice.roll(60_000),
            _ => dice.roll(200_000),
        };
        tokio::spawn(async move {
            // The server may be down at the moment.
            let Ok(server) = tokio::net::TcpStream::connect(server).await else { return };
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            if pass_on(client, server, limit).await {
                cut.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Returns whether the connection was cut.
async fn pass_on(mut client: tokio::net::TcpStream, mut server: tokio::net::TcpStream, mut left: usize) -> bool {
    let (mut there, mut back) = (vec![0; 4096], vec![0; 4096]);
    loop {
        let (from, to, bytes) = tokio::select! {
            n = client.read(&mut there) => (n, &mut server, &there),
            n = server.read(&mut back) => (n, &mut client, &back),
        };
        let Ok(n @ 1..) = from else { return false };
        if to.write_all(&bytes[..n.min(left)]).await.is_err() {
            return false;
        }
        if n >= left {
            for socket in [&client, &server] {
                socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
            return true;
        }
        left -= n;
    }
}

/// The number of a delivered mail, which must be complete.
fn number_of(path: &Path) -> usize {
    let mail = fs::read(path).unwrap();
    let border = mail.windows(2).position(|two| two == b"\n\n").expect("a header");
    let (header, body) = (String::from_utf8(mail[..border].to_vec()).unwrap(), &mail[border + 2..]);
    let field = |name: &str| header.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    let sum: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((field("X-Length: "), field("X-Sum: ")), (body.len().to_string(), sum), "{}", path.display());
    assert!(header.contains("with ESMTPS;") && header.contains("Delivered-To: c@example.org"), "{header}");
    field("X-Number: ").parse().unwrap()
}

/// rule: write-1, close-1, upgrade-1, life-3
#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_mail_is_complete_after_connections_and_servers_fail() {
    const COUNT: usize = 500;
    static CUT: AtomicUsize = AtomicUsize::new(0);
    let dir = TempDir::new().unwrap();
    let mut smtp = Smtp::start(dir.path(), "127.0.0.1:0", &[]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = tokio::spawn(bad_line(listener, smtp.addr, &CUT));
    let program = format!("PORT = {port}\nCA = {:?}\nCOUNT = {COUNT}\n{}", ca(), include_str!("smtp.py"));
    let clients = tokio::task::spawn_blocking(move || Running::start("python3", &["-c", &program]).feed(b""));
    let new = dir.path().join("new");
    for kill_at in [100, 250, 400] {
        while fs::read_dir(&new).unwrap().count() < kill_at && !clients.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        smtp.kill();
        smtp = Smtp::start(dir.path(), &smtp.addr.to_string(), &[]);
    }
    let said = clients.await.unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", said.stderr);
    line.abort();
    let mut answered = BTreeMap::new();
    for line in said.text().lines() {
        let (number, tries) = line.split_once(' ').unwrap();
        assert!(answered.insert(number.parse().unwrap(), tries.parse::<usize>().unwrap()).is_none());
    }
    assert_eq!(answered.len(), COUNT);
    let mut copies: BTreeMap<usize, usize> = BTreeMap::new();
    for file in fs::read_dir(&new).unwrap() {
        *copies.entry(number_of(&file.unwrap().path())).or_default() += 1;
    }
    let mut repeated = 0;
    for (number, tries) in &answered {
        let copies = copies.get(number).copied().unwrap_or(0);
        // There is at most one copy for each attempt, because a client that got no answer sends the mail again.
        assert!((1..=*tries).contains(&copies), "mail {number}: {copies} copies, sent {tries} times");
        repeated += usize::from(copies > 1);
    }
    let (cut, tries) = (CUT.load(Ordering::Relaxed), answered.values().sum::<usize>());
    println!("{COUNT} mails, {tries} times begun, {cut} connections cut, {repeated} mails twice");
    assert!(cut > 20 && tries > COUNT + 20, "the line was too good: {cut} cut, {tries} tries");
}
