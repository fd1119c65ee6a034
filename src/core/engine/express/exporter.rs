//! The exporter of the express engine (RFC 8446, section 7.5; RFC 5705).
//!
//! Neither rustls's unbuffered API nor its kernel connection has an exporter. But rustls passes the secret that an
//! exporter needs to the key log. So a configuration of the express engine wraps its key log in one of ours, which
//! stores the secret of the session that is calling rustls at that moment.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, SupportedCipherSuite};
use zeroize::Zeroizing;

use crate::error::SessionError;

/// The secret from which a session exports, and the client's random bytes.
#[derive(Default)]
pub(super) struct Caught {
    secret: Zeroizing<Vec<u8>>,
    client_random: [u8; 32],
}

thread_local! {
    /// The secret of the session that is calling rustls on this thread. `None` outside of such calls.
    static CAUGHT: RefCell<Option<Caught>> = const { RefCell::new(None) };
}

/// Calls rustls. If rustls logs the exporter's secret during the call, the secret is stored in `caught`.
pub(super) fn catching<T>(caught: &mut Caught, call: impl FnOnce() -> T) -> T {
    // The previous value is restored on drop, because rustls may panic, and because the application's verifier may do
    // another handshake during the call.
    struct Before(Option<Caught>);
    impl Drop for Before {
        fn drop(&mut self) {
            CAUGHT.set(self.0.take());
        }
    }
    let _before = Before(CAUGHT.replace(Some(Caught::default())));
    let result = call();
    if let Some(new) = CAUGHT.take().filter(|new| !new.secret.is_empty()) {
        *caught = new;
    }
    result
}

/// A configuration's key log, which also passes the secrets of exporters to [`catching`].
pub(crate) struct Catcher(pub(crate) Arc<dyn KeyLog>);

impl Catcher {
    fn is_wanted(label: &str) -> bool {
        matches!(label, "EXPORTER_SECRET" | "CLIENT_RANDOM")
    }
}

impl KeyLog for Catcher {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if Self::is_wanted(label) {
            CAUGHT.with_borrow_mut(|slot| {
                if let (Some(slot), Ok(client_random)) = (slot, client_random.try_into()) {
                    *slot = Caught { secret: Zeroizing::new(secret.to_vec()), client_random };
                }
            });
        }
        if self.0.will_log(label) {
            self.0.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        Self::is_wanted(label) || self.0.will_log(label)
    }
}

impl fmt::Debug for Catcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The secrets from which a session exports, until the end of the connection. In TLS 1.3 this is the exporter's secret.
/// In TLS 1.2 these are the random bytes of client and server, and then the master secret. They share one allocation,
/// because an idle session keeps them.
pub(super) struct Exporter(Zeroizing<Box<[u8]>>);

const RANDOMS: usize = 32 + 32;

impl Exporter {
    /// `None` if the configuration has no [`Catcher`].
    pub(super) fn new(suite: SupportedCipherSuite, caught: &Caught, server_random: Option<[u8; 32]>) -> Option<Self> {
        let secret = caught.secret.as_slice();
        if secret.is_empty() {
            return None;
        }
        let kept: Box<[u8]> = match suite {
            SupportedCipherSuite::Tls13(_) => secret.into(),
            SupportedCipherSuite::Tls12(_) => [&caught.client_random, &server_random?, secret].concat().into(),
        };
        Some(Self(Zeroizing::new(kept)))
    }

    pub(super) fn export(
        &self,
        suite: SupportedCipherSuite,
        out: &mut [u8],
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<(), SessionError> {
        match suite {
            SupportedCipherSuite::Tls13(suite) => {
                let hash = suite.common.hash_provider;
                let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&self.0));
                let empty = hash.hash(&[]);
                let head = head(hash.output_len(), label);
                let derived = expander.expand_block(&[&head, label, &[short(empty.as_ref())], empty.as_ref()]);
                let expander = suite.hkdf_provider.expander_for_okm(&derived);
                let context = hash.hash(context.unwrap_or_default());
                let head = self::head(out.len(), EXPORTER);
                expander
                    .expand_slice(&[&head, EXPORTER, &[short(context.as_ref())], context.as_ref()], out)
                    .map_err(|_| SessionError::BadExport("too many bytes were asked for"))
            }
            SupportedCipherSuite::Tls12(suite) => {
                let (randoms, master) = self.0.split_at(RANDOMS);
                let mut seed = randoms.to_vec();
                if let Some(context) = context {
                    let length = u16::try_from(context.len()).expect("the arguments were checked");
                    seed.extend_from_slice(&length.to_be_bytes());
                    seed.extend_from_slice(context);
                }
                suite.prf_provider.for_secret(out, master, label, &seed);
                Ok(())
            }
        }
    }
}

const EXPORTER: &[u8] = b"exporter";
const PREFIX: &[u8; 6] = b"tls13 ";

/// The bytes before the label in an HkdfLabel (RFC 8446, section 7.1).
fn head(output: usize, label: &[u8]) -> [u8; 9] {
    let length = u16::try_from(output).expect("the arguments were checked").to_be_bytes();
    let mut head = [length[0], length[1], 6 + short(label), 0, 0, 0, 0, 0, 0];
    head[3..].copy_from_slice(PREFIX);
    head
}

/// The length of a label that was checked, or of a hash.
fn short(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).expect("a label has at most 249 bytes, and a hash 64")
}
