//! Ctrl-C at a pipeline that ends in netcat.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use bowline::Listener;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::tools::{PATIENCE, ca, certs, ended, example, spawn};

/// A pipeline in its own process group: a producer, which has written half of a message and is killed by SIGINT, and
/// netcat.
fn pipeline(endpoint: &str) -> (Child, Child) {
    let mut producer =
        spawn(Command::new("sh").args(["-c", "printf half; exec sleep 600"]).stdout(Stdio::piped()).process_group(0));
    let netcat = spawn(
        Command::new(example("netcat"))
            .args(["--ca", &ca(), endpoint])
            .stdin(producer.stdout.take().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(i32::try_from(producer.id()).unwrap()),
    );
    (producer, netcat)
}

/// rule: abort-2
#[tokio::test]
async fn an_interrupted_pipeline_never_looks_like_a_complete_message() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let tls = certs().server_tls_builder().build().unwrap();
    let endpoint = format!("tls:localhost:{}", listener.local_addr().as_inet().unwrap().port());
    for round in 0..36 {
        let (mut producer, mut netcat) = pipeline(&endpoint);
        let incoming = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut peer = incoming.handshake(&tls).await.unwrap();
        let mut half = [0; 4];
        timeout(PATIENCE, peer.read_exact(&mut half)).await.unwrap().unwrap();
        let group = Pid::from_child(&producer);
        if round % 3 == 0 {
            // The signal goes to both processes, as from a process manager.
            kill_process(group, Signal::INT).unwrap();
            kill_process(Pid::from_child(&netcat), Signal::INT).unwrap();
        } else {
            kill_process_group(group, Signal::INT).unwrap();
        }
        let end = timeout(PATIENCE, peer.read(&mut half)).await.unwrap();
        assert!(end.is_err(), "round {round}: {end:?}");
        assert_eq!(ended(&mut netcat).code(), Some(130), "round {round}");
        // A shell that is about to run `sleep` may lose the signal.
        let _ = producer.kill();
        ended(&mut producer);
    }
}

/// rule: flow-7
#[tokio::test]
async fn the_peer_of_a_killed_netcat_sees_a_reset() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("tcp:localhost:{}", listener.local_addr().as_inet().unwrap().port());
    for signal in [Signal::TERM, Signal::KILL] {
        let (mut producer, mut netcat) = pipeline(&endpoint);
        let mut peer = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap().into_tcp();
        let mut half = [0; 4];
        timeout(PATIENCE, peer.read_exact(&mut half)).await.unwrap().unwrap();
        kill_process(Pid::from_child(&netcat), signal).unwrap();
        let end = timeout(PATIENCE, peer.read(&mut half)).await.unwrap();
        assert!(end.is_err(), "{signal:?}: {end:?}");
        ended(&mut netcat);
        kill_process(Pid::from_child(&producer), signal).unwrap();
        ended(&mut producer);
    }
}
