mod abstracts;
mod chosen;
mod connections;
mod passed_in;
#[cfg(feature = "proxy")]
mod proxied;
mod reload;
mod sockets;

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::core::report::CloseReport;
use crate::endpoint::open::{BoxConnection, EndpointListener};
use crate::endpoint::parse::{ClientEndpoint, ServerEndpoint};
use crate::error::{Error, Reason};
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

/// Whether both sides ended in order. Only Linux reports what the peer has acknowledged, so on other systems the side
/// that ended last cannot know whether its last bytes have arrived (rule: close-14).
fn ended_together(ours: &CloseReport, theirs: &CloseReport) -> bool {
    let last = if ours.is_clean() { theirs } else { ours };
    let is_unknown = cfg!(any(not(target_os = "linux"), bowline_portable));
    let is_in_order = is_unknown && matches!(last.reason, Reason::Unconfirmed) && last.limit.is_none();
    (ours.is_clean() || theirs.is_clean()) && (last.is_clean() || is_in_order)
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
