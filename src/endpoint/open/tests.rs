mod abstracts;
mod chosen;
mod connections;
mod passed_in;
mod sockets;

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::endpoint::open::{BoxConnection, EndpointListener};
use crate::endpoint::parse::{ClientEndpoint, ServerEndpoint};
use crate::error::Error;
use crate::policy::Policy;
use crate::testing::pki::Pki;

/// Limits the wait for an event that must come.
const SOON: Duration = Duration::from_secs(10);

fn client(text: &str) -> ClientEndpoint {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn server(text: &str) -> ServerEndpoint {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

async fn listen(text: &str) -> EndpointListener {
    server(text).listen(Policy::default()).await.unwrap()
}

/// Connects, and starts the accepted connection.
async fn meet(listener: &EndpointListener, endpoint: &ClientEndpoint) -> (Result<BoxConnection, Error>, BoxResult) {
    let accept = async { listener.accept().await?.begin().await };
    timeout(SOON, async { tokio::join!(endpoint.connect(), accept) }).await.unwrap()
}

type BoxResult = Result<BoxConnection, Error>;

/// A directory with the certificates of a CA, a server and a client.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let (dir, pki) = (tempfile::tempdir().unwrap(), Pki::new());
        std::fs::write(dir.path().join("ca.pem"), pki.ca_pem()).unwrap();
        pki.server(&[]).write_to(dir.path()).unwrap();
        pki.client("alice").write_to(dir.path()).unwrap();
        Self { dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The arguments of a server with this identity.
    fn cert(&self, who: &str) -> String {
        let dir = self.path().display();
        format!("cert={dir}/{who}.pem:key={dir}/{who}.key")
    }

    fn ca(&self) -> String {
        self.path().join("ca.pem").display().to_string()
    }
}
