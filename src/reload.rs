//! Loads certificates and keys again while they are in use.
//!
//! The task of a [`Reloader`] reads the files at intervals. It compares their contents and not their modification
//! times: a copy may keep an old time, and some file systems count in whole seconds. `config/watched.rs` lists what can
//! be watched. One pass over the files reads them, checks new contents, and puts these in use. Reading and checking run
//! on a thread that may block, because a slow disk must not delay connections. The last step runs in the task and waits
//! for nothing, so a cancelled pass has put in use either all new contents or none.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex, broadcast};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::sleep;

use crate::config::watched::{Contents, Fingerprint, PutInUse, Watched, WatchedClient, WatchedServer, shared};
use crate::config::{ClientTls, ClientTlsBuilder, ServerTls, ServerTlsBuilder};
use crate::conn::control::{Observer, Observers, Reload};
use crate::core::catch::catch;
use crate::error::{ConfigError, ConfigProblem, Error};
use crate::policy::Policy;

/// Loads the files of TLS configurations again when their contents have changed, while the configurations are in use.
///
/// It watches all files of a builder: certificates and private keys, a directory of identities (also as Kubernetes
/// mounts it), CAs, lists of revoked certificates and OCSP responses. New contents are checked first. If all new
/// contents can be used, new handshakes use them; otherwise the old contents stay in use, and the mistake is reported
/// once, with its file and line. A mistake that is found at an interval is reported only if a second reading finds it
/// too, after at most a second, because another program may be writing a certificate and then its key. A request
/// reports at once. Open connections are not affected (rules: reload-5, reload-6).
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{Listener, Reloader, ServerTls, TlsListener};
///
/// let files = ServerTls::builder().identity_pem_files("chain.pem", "key.pem").client_ca_pem_file("clients.pem");
/// let tls = files.clone().build()?;
/// let reloader = Reloader::builder().server(&tls, files).start();
/// let mut listener = TlsListener::new(Listener::bind("0.0.0.0:8443").await?, tls);
///
/// let mut events = reloader.events();
/// tokio::spawn(async move {
///     while let Some(event) = events.next().await {
///         match event {
///             Ok(reloaded) => println!("generation {} is in use", reloaded.generation),
///             Err(error) => eprintln!("the old certificates stay in use: {}", bowline::chain(&error)),
///         }
///     }
/// });
/// # let connection = listener.accept().await?;
/// # Ok(()) }
/// ```
///
/// Clones are handles of one reloader. It stops when the last one is dropped. The configurations then keep their last
/// contents.
#[doc(alias = "watch")]
#[doc(alias = "rotate")]
#[doc(alias = "SIGHUP")]
#[must_use = "a reloader stops when it is dropped"]
#[derive(Clone)]
pub struct Reloader {
    watch: Arc<Watch>,
    _task: Arc<Task>,
}

/// The task that reads the files. It ends with the last handle.
struct Task(AbortHandle);

/// The settings of a [`Reloader`].
#[must_use = "a builder does nothing until `start` is called"]
pub struct ReloaderBuilder {
    sources: Vec<Arc<dyn Watched>>,
    interval: Duration,
    observers: Observers,
}

/// The result of one pass over the files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// Whether the contents differ from those that were in use before.
    pub is_new: bool,
    /// The [generation](ServerTls::generation) of the first configuration that the reloader watches.
    pub generation: u64,
    /// The time at which the first certificate of all configurations expires.
    pub not_after: Option<SystemTime>,
}

/// The results that a [`Reloader`] reports: see [`Reloader::events`].
#[derive(Debug)]
pub struct ReloadEvents(broadcast::Receiver<Result<Reloaded, Error>>);

/// The number of events that are kept for a task that does not wait for them.
const EVENTS: usize = 16;

const INTERVAL: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest [`Watch::grace`].
const GRACE: Duration = Duration::from_secs(1);

impl Reloader {
    /// A reloader that reads the files every 10 seconds, and has no configuration yet.
    pub fn builder() -> ReloaderBuilder {
        ReloaderBuilder { sources: Vec::new(), interval: INTERVAL, observers: Observers::default() }
    }

    /// Reads the files now. Call this when the process gets SIGHUP. Observers and [events](Self::events) are notified
    /// also if the contents have not changed. A mistake that was reported before is returned, and is not reported
    /// again.
    ///
    /// # Errors
    /// [`Error::Config`] with the file and the line: the contents cannot be used, and the old ones stay in use.
    ///
    /// # Cancel safety
    /// If the future is dropped, either all new contents are in use and were reported, or nothing has changed.
    #[doc(alias = "SIGHUP")]
    pub async fn reload_now(&self) -> Result<Reloaded, Error> {
        self.watch.look(Cause::Request).await
    }

    /// Reports each result from now on: each change, each mistake once, and the result of each
    /// [`reload_now`](Self::reload_now).
    pub fn events(&self) -> ReloadEvents {
        ReloadEvents(self.watch.events.subscribe())
    }
}

impl ReloadEvents {
    /// Waits for the next result. `None`: the last handle of the reloader was dropped. If more than 16 results wait,
    /// the oldest ones are lost.
    ///
    /// # Cancel safety
    /// Cancel safe: no result is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Reloaded, Error>> {
        loop {
            match self.0.recv().await {
                Ok(result) => return Some(result),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("sources", &self.watch.sources.len()).finish_non_exhaustive()
    }
}

impl ReloaderBuilder {
    /// Watches the files of a server. `files` is the builder from which `tls` was made, or another one: its
    /// configuration then replaces the one in `tls` at the first pass. May be called several times; all configurations
    /// change together or not at all.
    ///
    /// Do not call [`ServerTls::replace`] for a configuration that is watched: the next change of the files would undo
    /// it.
    pub fn server(self, tls: &ServerTls, files: ServerTlsBuilder) -> Self {
        self.source(shared(WatchedServer { tls: tls.clone(), files }))
    }

    /// Watches the files of a client: its own certificate and key, its roots, and lists of revoked certificates. As
    /// [`server`](Self::server).
    pub fn client(self, tls: &ClientTls, files: ClientTlsBuilder) -> Self {
        self.source(shared(WatchedClient { tls: tls.clone(), files }))
    }

    /// The time between two passes over the files; default 10 seconds, at least 10 milliseconds. Every pass reads all
    /// files.
    pub fn every(self, interval: Duration) -> Self {
        Self { interval: interval.max(SHORTEST), ..self }
    }

    /// An observer whose [`reloaded`](Observer::reloaded) is called with each result (rule: reload-7). May be called
    /// several times.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.add(observer);
        self
    }

    /// The observers of a policy. As [`observer`](Self::observer).
    pub fn observers_of(mut self, policy: &Policy) -> Self {
        if let Some(observers) = Observers::of(policy) {
            self.observers.merge(&observers);
        }
        self
    }

    pub(crate) fn source(mut self, source: Arc<dyn Watched>) -> Self {
        self.sources.push(source);
        self
    }

    /// Starts the task that reads the files. The first pass is after one interval.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn start(self) -> Reloader {
        let Self { sources, interval, observers } = self;
        let (sources, events) = (sources.into(), broadcast::Sender::new(EVENTS));
        let watch = Watch { sources, observers, events, grace: GRACE.min(interval), last: Mutex::default() };
        let watch = Arc::new(watch);
        let of_task = Arc::clone(&watch);
        let task = tokio::spawn(async move {
            loop {
                sleep(interval).await;
                // The result is ignored, because `look` has reported it.
                let _ = of_task.look(Cause::Interval).await;
            }
        });
        Reloader { watch, _task: Arc::new(Task(task.abort_handle())) }
    }
}

impl fmt::Debug for ReloaderBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloaderBuilder")
            .field("sources", &self.sources.len())
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// The watched configurations, and the result of the last pass.
struct Watch {
    sources: Arc<[Arc<dyn Watched>]>,
    observers: Observers,
    events: broadcast::Sender<Result<Reloaded, Error>>,
    /// The time between a pass that finds a mistake and the pass that reports it.
    grace: Duration,
    /// Locked during a pass.
    last: Mutex<Look>,
}

/// The cause of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The application has requested the pass.
    Request,
    /// The interval is over.
    Interval,
    /// The previous pass has found a mistake.
    Mistake,
}

/// The result of a pass.
#[derive(Default, Clone)]
struct Look {
    /// The contents of each source. `None` before the first pass: the files may have changed since the configurations
    /// were made.
    contents: Option<Vec<Fingerprint>>,
    /// Set if the contents cannot be used.
    mistake: Option<Error>,
}

impl Watch {
    async fn look(&self, cause: Cause) -> Result<Reloaded, Error> {
        let is_asked = cause == Cause::Request;
        let mut last = self.last.lock().await;
        let (sources, before) = (Arc::clone(&self.sources), last.clone());
        let looked = spawn_blocking(move || read_and_check(&sources, &before, is_asked)).await;
        let (contents, checked) = looked.map_err(std::io::Error::from)?;
        if let (Some(Err(_)), Cause::Interval) = (&checked, cause) {
            // rule: reload-6. Another program may be writing a chain and then its key. The result of this pass is not
            // recorded, so a second pass reports the mistake if it is still there.
            drop(last);
            sleep(self.grace).await;
            return Box::pin(self.look(Cause::Mistake)).await;
        }
        // Nothing after this line waits, so a cancelled pass cannot stop halfway.
        let Some(checked) = checked else {
            return last.mistake.clone().map_or_else(|| Ok(self.reloaded(false)), Err);
        };
        last.contents = Some(contents);
        let before = last.mistake.take();
        let result = checked.map(|all| {
            // `any` would stop at the first source that has changed, but every source has to put its settings in use.
            let is_new = all.into_iter().map(|put_in_use| put_in_use()).fold(false, |any, one| any | one);
            self.reloaded(is_new)
        });
        let is_news = match &result {
            Ok(reloaded) => reloaded.is_new || is_asked || before.is_some(),
            Err(_) => true,
        };
        last.mistake = result.as_ref().err().cloned();
        if is_news {
            self.report(&result);
        }
        result
    }

    fn reloaded(&self, is_new: bool) -> Reloaded {
        let in_use: Vec<_> = self.sources.iter().map(|source| source.in_use()).collect();
        let generation = in_use.iter().find_map(|one| one.generation).unwrap_or_default();
        Reloaded { is_new, generation, not_after: in_use.iter().filter_map(|one| one.not_after).min() }
    }

    fn report(&self, result: &Result<Reloaded, Error>) {
        let reload = match result {
            Ok(Reloaded { is_new: true, generation, not_after }) => {
                Reload::Done { generation: *generation, not_after: *not_after }
            }
            Ok(Reloaded { is_new: false, generation, not_after }) => {
                Reload::Unchanged { generation: *generation, not_after: *not_after }
            }
            Err(error) => Reload::Failed { error },
        };
        self.observers.tell(|observer| observer.reloaded(&reload));
        // Sending fails if nobody waits for events.
        let _ = self.events.send(result.clone());
    }
}

/// The step that puts the new contents of each source in use, or the first mistake.
type Checked = Result<Vec<PutInUse>, Error>;

/// Reads all files, and checks the contents if necessary. Without a second value, no check was needed: the contents are
/// those of the last pass, and either no request waits for a result, or the last pass has already found the mistake in
/// these contents.
fn read_and_check(sources: &[Arc<dyn Watched>], last: &Look, is_asked: bool) -> (Vec<Fingerprint>, Option<Checked>) {
    let read: Vec<Contents> = sources.iter().map(|source| source.read()).collect();
    let contents: Vec<Fingerprint> = read.iter().map(|one| one.fingerprint).collect();
    let is_known = last.contents.as_ref() == Some(&contents);
    let needs_check = !is_known || (is_asked && last.mistake.is_none());
    let checked = needs_check.then(|| read.into_iter().map(check).collect());
    (contents, checked)
}

/// A configuration contains code of the application. A panic in it must not end the reloader (rule: life-7).
fn check(contents: Contents) -> Result<PutInUse, Error> {
    catch(contents.check, |payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown");
        let why = format!("the application's part of the configuration panicked: {text}");
        Error::from(ConfigError::new(None, ConfigProblem::Contradiction(why)))
    })?
}
