//! OpenSSL's client against our side of each dialogue.

use std::process::{Command, Stdio};
use std::time::Duration;

use bowline::starttls::{self, Dialogue};
use bowline::testing::shared_pki;
use bowline::{Listener, TlsTransport, Transport};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::server::{directory, installed, note, version};
use crate::{PATIENCE, VERSIONS};

#[tokio::test]
async fn s_client_upgrades_in_each_dialogue_that_it_knows() {
    let Some(openssl) = installed("openssl", &["openssl"]) else { return };
    let dir = directory();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, shared_pki().ca_pem()).unwrap();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().as_inet().unwrap().port();
    let tls = shared_pki().server_tls();
    for dialogue in Dialogue::all() {
        let name = dialogue.to_string();
        for (_, spoken) in VERSIONS {
            let mut client = Command::new(&openssl);
            client.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-starttls", &name]);
            client.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&ca);
            client.arg(if spoken == "TLSv1.2" { "-tls1_2" } else { "-tls1_3" });
            client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let asking = tokio::task::spawn_blocking(move || client.output().unwrap());
            let serving = async {
                let mut connection = listener.accept().await?.into_upgradable();
                starttls::server(&mut connection, dialogue.clone(), &tls).await?;
                let version = connection.tls().map(|facts| facts.version_name());
                connection.write_all(b"hidden\n").await?;
                // s_client ends when its server does.
                let _ = timeout(Duration::from_secs(5), connection.close()).await;
                Ok::<_, bowline::Error>(version)
            };
            let served = timeout(PATIENCE, serving).await.unwrap();
            let said = asking.await.unwrap();
            let errors = String::from_utf8_lossy(&said.stderr);
            let served = served.unwrap_or_else(|error| panic!("{name} {spoken}: {error}: {errors}"));
            assert_eq!(served.as_deref(), Some(spoken), "{name}");
            assert_eq!(String::from_utf8_lossy(&said.stdout), "hidden\n", "{name} {spoken}: {errors}");
        }
    }
    note(&format!("{}: all dialogues but line: TLS 1.2 and 1.3", version(&openssl, &["version"])));
}
