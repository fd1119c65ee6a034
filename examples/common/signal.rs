//! Waits for the first request to stop: SIGTERM or SIGINT, and on Windows the events of the console that correspond to
//! them.

/// Listens for signals from now on, and waits for the first.
#[cfg(unix)]
pub(crate) fn signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be listened for");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be listened for");
    async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Listens for events of the console from now on, and waits for the first. Windows ends the process a few seconds after
/// an event that closes the console or the system.
#[cfg(windows)]
pub(crate) fn signal() -> impl Future<Output = ()> {
    use tokio::signal::windows;
    let mut c = windows::ctrl_c().expect("Ctrl-C can be listened for");
    let mut r#break = windows::ctrl_break().expect("Ctrl-Break can be listened for");
    let mut close = windows::ctrl_close().expect("the end of the console can be listened for");
    let mut shutdown = windows::ctrl_shutdown().expect("the end of the system can be listened for");
    async move {
        tokio::select! {
            _ = c.recv() => {}
            _ = r#break.recv() => {}
            _ = close.recv() => {}
            _ = shutdown.recv() => {}
        }
    }
}
