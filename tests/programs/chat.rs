//! The chat.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use bowline::{Connector, TlsConnection};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

use crate::tools::{A_LITTLE, PATIENCE, certs, certs_dir, example, flood, line, peak};

struct Chat(Child, SocketAddr);

impl Chat {
    fn start(args: &[&str]) -> Self {
        let mut child =
            Command::new(example("chat")).args(args).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let addr = first.trim().strip_prefix("listening ").unwrap().parse().unwrap();
        Self(child, addr)
    }

    fn enter(&self, name: &str) -> BufReader<TcpStream> {
        let socket = TcpStream::connect(self.1).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut guest = BufReader::new(socket);
        let mut question = String::new();
        guest.read_line(&mut question).unwrap();
        assert_eq!(question, "Who are you?\n");
        guest.get_mut().write_all(format!("{name}\n").as_bytes()).unwrap();
        assert_eq!(line(&mut guest), format!("* {name} is here"));
        guest
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// rule: write-8, abort-4, life-4
#[test]
fn guests_get_all_lines_and_do_not_wait_for_one_that_does_not_read() {
    let chat = Chat::start(&[]);
    let mut anna = chat.enter("anna");
    let mut slow = chat.enter("slow");
    assert_eq!(line(&mut anna), "* slow is here");
    slow.get_mut().write_all(b"zzz\n").unwrap();
    assert_eq!(line(&mut anna), "<slow> zzz");
    let said = "x".repeat(990);
    let mut rounds = 0;
    loop {
        anna.get_mut().write_all(format!("{said}\n").as_bytes()).unwrap();
        rounds += 1;
        let heard = line(&mut anna);
        if heard.starts_with("* slow is gone") {
            break;
        }
        assert_eq!(heard, format!("<anna> {said}"));
        assert!(rounds < 100_000, "nobody is thrown out");
    }
    // Bytes that were sent before the reset may still arrive, and then the read fails.
    assert!(slow.read_to_end(&mut Vec::new()).is_err());
}

/// rule: tcp-11
#[test]
fn the_words_of_a_guest_cannot_control_a_terminal() {
    let chat = Chat::start(&[]);
    let mut anna = chat.enter("anna");
    let mut rude = TcpStream::connect(chat.1).unwrap();
    rude.write_all("\x1b[31m\nred \x1b[2J\u{9b}\u{202e} \"prêt\"\n".as_bytes()).unwrap();
    assert_eq!(line(&mut anna), r"* \x1b[31m is here");
    assert_eq!(line(&mut anna), r#"<\x1b[31m> red \x1b[2J\xc2\x9b\xe2\x80\xae "prêt""#);
}

/// rule: write-10
#[cfg(target_os = "linux")]
#[test]
fn guests_who_do_not_read_take_no_memory() {
    let chat = Chat::start(&[]);
    let before = peak(&chat.0);
    // The chat asks for another name each time.
    flood(&TcpStream::connect(chat.1).unwrap(), b"\n");
    // The guest gets messages about the other guests until it is removed.
    let talker = chat.enter("talker");
    let mut silent: Vec<_> = (0..10).map(|n| chat.enter(&format!("guest {n}"))).collect();
    talk_until_they_are_gone(talker, silent.len());
    for guest in &mut silent {
        // The guest reads the bytes that were already sent, and then the reset.
        let error = guest.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    let grown = peak(&chat.0) - before;
    assert!(grown < 2 * A_LITTLE, "{grown} bytes");
}

/// Sends lines to all guests, and reads them too, because the chat stops reading from a guest that does not read.
/// Returns when this many guests have been removed.
#[cfg(target_os = "linux")]
fn talk_until_they_are_gone(talker: BufReader<TcpStream>, guests: usize) {
    const AT_MOST: usize = 100_000_000;
    let writer = talker.get_ref().try_clone().unwrap();
    let reading = thread::spawn(move || {
        let is_farewell = |line: &String| line.starts_with("* guest") && line.contains("is gone");
        talker.lines().map(Result::unwrap).filter(is_farewell).take(guests).count()
    });
    let piece = b"a line that everybody hears\n".repeat(2000);
    writer.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut sent = 0;
    while !reading.is_finished() && sent < AT_MOST {
        (&writer).write_all(&piece).unwrap();
        sent += piece.len();
    }
    assert_eq!(reading.join().unwrap(), guests);
}

/// rule: write-3
#[tokio::test]
async fn the_chat_is_the_same_in_tls() {
    let dir = certs_dir();
    let tls = certs().client_tls_builder().build().unwrap();
    let chat = Chat::start(&["--tls", dir.to_str().unwrap()]);
    let tcp = Connector::new().connect_addr(chat.1).await.unwrap();
    let mut guest = TlsConnection::connect(tcp, &tls, "localhost").await.unwrap();
    guest.write_all(b"anna\r\nhello\r\n").await.unwrap();
    let mut heard = String::new();
    for _ in 0..3 {
        guest.read_line(&mut heard).await.unwrap();
    }
    assert_eq!(heard, "Who are you?\n* anna is here\r\n<anna> hello\r\n");
}
