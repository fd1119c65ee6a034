//! Receives the requests to stop, any number of times: SIGTERM and SIGINT, and on Windows the events of the console
//! that correspond to them. It also receives SIGHUP, the request to reload.

#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens for signals from now on.
    pub(crate) fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).expect("SIGTERM can be listened for"),
            interrupt: signal(SignalKind::interrupt()).expect("SIGINT can be listened for"),
        }
    }

    /// Waits for the next request to stop.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Windows ends the process a few seconds after an event that closes the console or the system.
#[cfg(windows)]
pub(crate) struct Signals {
    c: tokio::signal::windows::CtrlC,
    r#break: tokio::signal::windows::CtrlBreak,
    close: tokio::signal::windows::CtrlClose,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    /// Listens for events from now on.
    pub(crate) fn new() -> Self {
        use tokio::signal::windows;
        Self {
            c: windows::ctrl_c().expect("Ctrl-C can be listened for"),
            r#break: windows::ctrl_break().expect("Ctrl-Break can be listened for"),
            close: windows::ctrl_close().expect("the end of the console can be listened for"),
            shutdown: windows::ctrl_shutdown().expect("the end of the system can be listened for"),
        }
    }

    /// Waits for the next request to stop.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.c.recv() => {}
            _ = self.r#break.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}

/// The requests to reload. Windows has none.
pub(crate) struct Hangups(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangups {
    /// Listens for them from now on.
    pub(crate) fn new() -> Self {
        #[cfg(unix)]
        return Self(
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).expect("SIGHUP can be listened for"),
        );
        #[cfg(not(unix))]
        Self()
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        self.0.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}
