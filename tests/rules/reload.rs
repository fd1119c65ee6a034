//! Files that change while their configurations are in use.

use std::fs;
use std::future::{Future, poll_fn};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bowline::config::{ClientTlsBuilder, ServerTlsBuilder};
use bowline::protocol::{CallbackResult, Conn, Protocol, Server, every};
use bowline::testing::pki::Identity;
use bowline::testing::shared_pki;
use bowline::{
    ClientTls, Connector, Error, Listener, Observer, Policy, Reload, Reloader, ServerTls, SessionFacts, TlsConnection,
    TlsListener, TlsTransport, Transport, chain,
};
use tempfile::TempDir;

use crate::common::{Orderly as _, bounded};

/// An interval that no test waits for.
const NEVER: Duration = Duration::from_secs(100_000);
const OFTEN: Duration = Duration::from_millis(10);

/// Replaces a file at once: the chain, then the key.
fn put(path: &Path, identity: &Identity) {
    put_text(path, &format!("{}{}", identity.chain_pem(), identity.key_pem()));
}

fn put_text(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

/// A directory with the files of a server and of a client.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: TempDir::new().unwrap() };
        put(&files.server(), &shared_pki().server(&["localhost"]));
        put(&files.client(), &shared_pki().client("client"));
        put_text(&files.ca(), &shared_pki().ca_pem());
        files
    }

    fn server(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    fn client(&self) -> PathBuf {
        self.dir.path().join("client.pem")
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn server_builder(&self) -> ServerTlsBuilder {
        ServerTls::builder().identity_pem_files(self.server(), self.server()).client_ca_pem_file(self.ca())
    }

    fn client_builder(&self) -> ClientTlsBuilder {
        ClientTls::builder().identity_pem_files(self.client(), self.client()).roots_pem_file(self.ca())
    }

    /// Both configurations.
    fn build(&self) -> (ServerTls, ClientTls) {
        (self.server_builder().build().unwrap(), self.client_builder().build().unwrap())
    }

    /// Both configurations, and a reloader for both.
    fn watched(&self, every: Duration) -> (ServerTls, ClientTls, Reloader) {
        let (server, client) = self.build();
        let reloader = Reloader::builder().every(every);
        let reloader = reloader.server(&server, self.server_builder()).client(&client, self.client_builder());
        (server, client, reloader.start())
    }
}

/// Connects, and returns the facts of the client.
async fn facts(address: &bowline::Address, tls: &ClientTls) -> Result<SessionFacts, Error> {
    let tcp = Connector::new().connect_addr(address.clone()).await?;
    let mut connection = TlsConnection::connect(tcp, tls, "localhost").await?;
    let facts = (*connection.tls().unwrap()).clone();
    connection.close().await;
    Ok(facts)
}

/// Reports the client's certificate, and ends.
struct Tells(Arc<Mutex<Vec<Vec<u8>>>>);

impl Protocol for Tells {
    fn handshake_completed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.0.lock().unwrap().push(conn.tls().unwrap().peer_chain[0].to_vec());
        conn.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        Ok(data.len())
    }
}

/// rule: reload-5
#[tokio::test]
async fn new_files_reach_listeners_servers_of_protocols_and_connectors() {
    bounded("new files", async {
        let files = Files::new();
        let (server, client, reloader) = files.watched(OFTEN);
        let mut events = reloader.events();
        let mut listener = TlsListener::new(Listener::bind("127.0.0.1:0").await.unwrap(), server.clone());
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let protocols = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = protocols.local_addr();
        let protocols = Server::new(protocols, every(move || Tells(Arc::clone(&noted)))).tls(&server);
        let protocols = tokio::spawn(protocols.run());

        let (new_server, new_client) = (shared_pki().server(&["localhost"]), shared_pki().client("new"));
        put(&files.server(), &new_server);
        let reloaded = events.next().await.unwrap().unwrap();
        assert!((reloaded.is_new, reloaded.generation) == (true, 2) && reloaded.not_after.is_some());
        put(&files.client(), &new_client);
        // The generation is that of the server, which has not changed.
        let reloaded = events.next().await.unwrap().unwrap();
        assert_eq!((reloaded.is_new, reloaded.generation, client.generation()), (true, 2, 2));

        let address_of_tls = listener.local_addr();
        let (ours, theirs) = tokio::join!(facts(&address_of_tls, &client), async {
            let mut connection = listener.accept().await.unwrap();
            let facts = (*connection.tls().unwrap()).clone();
            connection.close().await;
            facts
        });
        assert_eq!(ours.unwrap().peer_chain[0], new_server.cert_der());
        assert_eq!((theirs.generation, &theirs.peer_chain[0]), (Some(2), &new_client.cert_der()));
        assert_eq!(facts(&address, &client).await.unwrap().peer_chain[0], new_server.cert_der());
        assert_eq!(seen.lock().unwrap()[..], [new_client.cert_der().to_vec()]);
        protocols.abort();
    })
    .await;
}

/// Notes what is reported.
#[derive(Default)]
struct Noted(Mutex<Vec<String>>);

impl Observer for Noted {
    fn reloaded(&self, reload: &Reload<'_>) {
        let text = match reload {
            Reload::Done { generation, .. } | Reload::Unchanged { generation, .. } => generation.to_string(),
            Reload::Failed { error, .. } => chain(*error).to_string(),
            _ => unreachable!(),
        };
        self.0.lock().unwrap().push(format!("{} {text}", reload.name()));
    }
}

/// rule: reload-6
#[tokio::test(start_paused = true)]
async fn a_key_that_is_written_a_moment_after_its_chain_is_no_mistake() {
    let files = TempDir::new().unwrap();
    let (chain, key) = (files.path().join("chain.pem"), files.path().join("key.pem"));
    let write = |identity: &Identity| (put_text(&chain, identity.chain_pem()), identity.key_pem().to_owned());
    let ((), first) = write(&shared_pki().server(&["localhost"]));
    put_text(&key, &first);
    let builder = ServerTls::builder().identity_pem_files(&chain, &key);
    let tls = builder.clone().build().unwrap();
    let reloader = Reloader::builder().every(Duration::from_secs(10)).server(&tls, builder).start();
    let mut events = reloader.events();
    let ((), second) = write(&shared_pki().server(&["localhost"]));
    // The pass after ten seconds finds the new chain and the old key.
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    put_text(&key, &second);
    assert_eq!(events.next().await.unwrap().unwrap().generation, 2);
    // If the key does not follow, this is a mistake. A request reports it without a second pass.
    let ((), _) = write(&shared_pki().server(&["localhost"]));
    let begun = tokio::time::Instant::now();
    assert!(events.next().await.unwrap().is_err());
    assert!(begun.elapsed() > Duration::from_secs(1));
    put_text(&key, &first);
    let begun = tokio::time::Instant::now();
    assert!(reloader.reload_now().await.is_err());
    assert!(events.next().await.unwrap().is_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// rule: reload-6
#[tokio::test]
async fn a_mistake_keeps_everything_and_is_reported_once() {
    bounded("a mistake", async {
        let files = Files::new();
        let (server, client) = files.build();
        let noted = Arc::new(Noted::default());
        let policy = Policy::default().observer(noted.clone());
        let reloader = Reloader::builder().every(OFTEN).observers_of(&policy);
        let reloader = reloader.client(&client, files.client_builder()).server(&server, files.server_builder()).start();
        let mut events = reloader.events();
        let before = fs::read_to_string(files.server()).unwrap();
        let broken = before.replacen("-----\n", "-----\n???\n", 1);
        put_text(&files.server(), &broken);
        let error = match events.next().await.unwrap() {
            Err(Error::Config(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!((error.file, error.line), (Some(files.server()), Some(2)));
        // The file of the client can be used, but is not used without that of the server.
        put(&files.client(), &shared_pki().client("new"));
        assert!(events.next().await.unwrap().is_err());
        for _ in 0..3 {
            assert!(reloader.reload_now().await.is_err());
        }
        assert_eq!((server.generation(), client.generation()), (1, 1));
        put_text(&files.server(), &before);
        // The repeated mistake was not reported again. The client's file is used now.
        let reloaded = events.next().await.unwrap().unwrap();
        assert_eq!((reloaded.is_new, reloaded.generation, server.generation()), (true, 2, 1));
        fs::remove_file(files.ca()).unwrap();
        let error = events.next().await.unwrap().unwrap_err();
        assert!(chain(&error).to_string().starts_with(&format!("{}: cannot be read: ", files.ca().display())));
        put_text(&files.ca(), &shared_pki().ca_pem());
        let reloaded = events.next().await.unwrap().unwrap();
        assert_eq!((reloaded.is_new, reloaded.generation), (false, 2));
        let outcomes = noted.0.lock().unwrap().join("\n");
        let outcomes: Vec<&str> = outcomes.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(outcomes, ["failed", "failed", "ok", "failed", "unchanged"]);
    })
    .await;
}

/// rule: reload-7
#[tokio::test]
async fn a_request_is_always_answered() {
    bounded("a request", async {
        let files = Files::new();
        let (server, _client, reloader) = files.watched(NEVER);
        let mut events = reloader.events();
        for _ in 0..2 {
            let reloaded = reloader.reload_now().await.unwrap();
            assert_eq!((reloaded.is_new, reloaded.generation), (false, 1));
            assert_eq!(events.next().await.unwrap().unwrap(), reloaded);
        }
        put(&files.server(), &shared_pki().server(&["localhost"]));
        // A request that is dropped must not affect the later ones.
        let mut dropped = Box::pin(reloader.reload_now());
        // The files are read by another thread, which may be done at once.
        let is_done = poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_ready())).await;
        drop(dropped);
        let (one, other) = tokio::join!(reloader.reload_now(), reloader.reload_now());
        assert_eq!((one.unwrap().is_new, other.unwrap().is_new), (!is_done, false));
        assert_eq!(server.generation(), 2);
    })
    .await;
}

/// rule: reload-7
#[tokio::test(start_paused = true)]
async fn a_reloader_that_was_dropped_changes_nothing() {
    let files = Files::new();
    let (server, _client, reloader) = files.watched(Duration::from_secs(10));
    let mut events = reloader.events();
    put(&files.server(), &shared_pki().server(&["localhost"]));
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(server.generation(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(events.next().await.unwrap().unwrap().generation, 2);
    put(&files.server(), &shared_pki().server(&["localhost"]));
    drop(reloader);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.generation(), 2);
    assert!(events.next().await.is_none());
}

/// The code of the application runs in a builder, and may panic.
///
/// rule: reload-6, life-7
#[tokio::test]
async fn a_panic_in_the_applications_part_is_a_mistake() {
    bounded("a panic", async {
        let files = Files::new();
        let panics = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let of_builder = Arc::clone(&panics);
        let builder = files.server_builder().customize(move |_| {
            assert!(!of_builder.load(std::sync::atomic::Ordering::SeqCst), "out of luck");
        });
        let tls = builder.clone().build().unwrap();
        let reloader = Reloader::builder().every(NEVER).server(&tls, builder).start();
        assert!(!reloader.reload_now().await.unwrap().is_new);
        panics.store(true, std::sync::atomic::Ordering::SeqCst);
        put(&files.server(), &shared_pki().server(&["localhost"]));
        let error = reloader.reload_now().await.unwrap_err().to_string();
        assert!(error.ends_with("panicked: out of luck"), "{error}");
        assert_eq!(tls.generation(), 1);
    })
    .await;
}

/// A shell passes a pipe with `--key <(decrypt key.enc)`. Opening it again would wait for a writer, without end.
///
/// rule: reload-6
#[tokio::test]
async fn a_pipe_is_read_once() {
    bounded("a pipe", async {
        let files = Files::new();
        let pipe = files.dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (to, text) = (pipe.clone(), fs::read(files.server()).unwrap());
        let writing = std::thread::spawn(move || fs::write(to, text).unwrap());
        let builder = ServerTls::builder().identity_pem_files(files.server(), &pipe);
        let tls = builder.clone().build().unwrap();
        writing.join().unwrap();
        let reloader = Reloader::builder().every(NEVER).server(&tls, builder).start();
        let looked = tokio::time::timeout(Duration::from_secs(10), reloader.reload_now()).await;
        // If a read of the pipe waits for a writer, this ends it, so that the test ends even if it fails.
        drop(fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap());
        let error = looked.unwrap().unwrap_err();
        let told = chain(&error).to_string();
        assert!(told.starts_with(&format!("{}: cannot be read: it is a pipe", pipe.display())), "{told}");
        assert_eq!(tls.generation(), 1);
    })
    .await;
}

/// Makes a revision of a volume the current one, as Kubernetes does.
fn publish(volume: &Path, revision: &str, identity: &Identity) {
    let dir = volume.join(revision);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("tls.crt"), identity.chain_pem()).unwrap();
    fs::write(dir.join("tls.key"), identity.key_pem()).unwrap();
    let link = volume.join("..data_tmp");
    symlink(revision, &link).unwrap();
    fs::rename(&link, volume.join("..data")).unwrap();
}

/// `BOWLINE_SWAPS=1000` is the whole test: 20 seconds or more for each engine.
///
/// rule: reload-1, reload-4, reload-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handshake_fails_while_a_volume_is_swapped_many_times() {
    let swaps: u64 = std::env::var("BOWLINE_SWAPS").ok().and_then(|swaps| swaps.parse().ok()).unwrap_or(20);
    let identities = Arc::new([shared_pki().server(&["localhost"]), shared_pki().server(&["localhost"])]);
    for express in [false, true] {
        let volume = TempDir::new().unwrap();
        publish(volume.path(), "..1", &identities[1]);
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), volume.path().join(name)).unwrap();
        }
        let builder = ServerTls::builder().identities_dir(volume.path());
        let builder = if express { builder.express() } else { builder };
        let tls = builder.clone().build().unwrap();
        let reloader = Reloader::builder().every(OFTEN).server(&tls, builder).start();
        let mut events = reloader.events();
        let mut listener = TlsListener::new(Listener::bind("127.0.0.1:0").await.unwrap(), tls.clone());
        let address = listener.local_addr();
        let (done, mut is_done) = tokio::sync::watch::channel(false);
        let of_server = Arc::clone(&identities);
        let serving = tokio::spawn(async move {
            while let Ok(mut connection) = listener.accept().await {
                let of_server = Arc::clone(&of_server);
                tokio::spawn(async move {
                    let facts = connection.tls().unwrap();
                    // The two identities take turns, so the generation says which one is in use.
                    let expected = &of_server[facts.generation.unwrap() as usize % 2];
                    assert_eq!(facts.own_chain[0], expected.cert_der());
                    tokio::io::AsyncWriteExt::write_all(&mut connection, &facts.generation.unwrap().to_be_bytes())
                        .await
                        .unwrap();
                    connection.close().await;
                });
            }
        });
        let of_client = Arc::clone(&identities);
        let clients = tokio::spawn(async move {
            let client = shared_pki().client_tls_builder().keep_tickets(0).build().unwrap();
            let (mut handshakes, mut rhythm) = (0, tokio::time::interval(Duration::from_millis(20)));
            while !*is_done.borrow_and_update() {
                rhythm.tick().await;
                let tcp = Connector::new().connect_addr(address.clone()).await.unwrap();
                let mut connection = TlsConnection::connect(tcp, &client, "localhost").await.unwrap();
                let mut generation = [0; 8];
                tokio::io::AsyncReadExt::read_exact(&mut connection, &mut generation).await.unwrap();
                let expected = &of_client[u64::from_be_bytes(generation) as usize % 2];
                assert_eq!(connection.tls().unwrap().peer_chain[0], expected.cert_der());
                assert!(connection.close().await.ended_last());
                handshakes += 1;
            }
            handshakes
        });
        for swap in 2..swaps + 2 {
            publish(volume.path(), &format!("..{swap}"), &identities[swap as usize % 2]);
            assert_eq!(events.next().await.unwrap().unwrap().generation, swap);
            // Kubernetes removes the old revision at once.
            fs::remove_dir_all(volume.path().join(format!("..{}", swap - 1))).unwrap();
            tokio::time::sleep(OFTEN).await;
        }
        done.send(true).unwrap();
        let handshakes: u64 = clients.await.unwrap();
        println!("express {express}: {swaps} swaps, {handshakes} handshakes, 0 failed");
        assert!(handshakes > swaps / 4, "{handshakes} handshakes during {swaps} swaps");
        serving.abort();
    }
}
