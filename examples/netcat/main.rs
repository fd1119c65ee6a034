//! A client for pipes: it sends standard input to the peer, and writes the peer's bytes to standard output, over TCP,
//! TLS, or TLS after a plaintext protocol (STARTTLS).
//!
//! ```text
//! echo INFO | cargo run -q --example netcat -- --ca certs/ca.pem tls:localhost:7001
//! ```

mod args;
mod pipe;
mod run;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tls_flags.rs"]
mod tls_flags;

use bowline::Reason;
use serde_json::json;

use crate::args::Args;
use crate::common::info::to_json;
use crate::run::{Outcome, Progress};

fn main() {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("netcat"));
    let tls = run::client_tls(&args).unwrap_or_else(|usage| usage.exit("netcat"));
    let runtime = runtime().expect("a system without threads or polling has no pipes either");
    let progress = Progress::new(&args);
    let outcome = runtime.block_on(async {
        // `select!` drops the losing future before it runs the winner's arm, and dropping a connection is not an abort.
        // So the abort is inside the future that waits for the signal.
        tokio::select! {
            // The signal is checked first: see `pipe::end_of_input`.
            biased;
            outcome = interrupted(&progress) => outcome,
            outcome = run::run(&args, tls.as_ref(), &progress) => outcome,
            outcome = out_of_time(&args, &progress) => outcome,
        }
    });
    tell(&args, &progress, &outcome);
    // The process exits here and does not return from `main`, because the thread that reads standard input may wait
    // forever.
    std::process::exit(outcome.status)
}

/// One thread is enough. The system also runs the signal handler on this thread, so the runtime sees a signal before
/// any event that came after the signal.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

async fn out_of_time(args: &Args, progress: &Progress) -> Outcome {
    match args.timeout {
        Some(bound) => tokio::time::sleep(bound).await,
        None => std::future::pending().await,
    }
    progress.abort(&Reason::TimedOut(progress.phase()), 6)
}

async fn interrupted(progress: &Progress) -> Outcome {
    if tokio::signal::ctrl_c().await.is_err() {
        // If the signal cannot be received, it ends the process in the usual way.
        std::future::pending::<()>().await;
    }
    progress.abort(&Reason::Aborted, 130)
}

fn tell(args: &Args, progress: &Progress, outcome: &Outcome) {
    if outcome.status != 0 {
        eprintln!("netcat: {}", outcome.detail);
    }
    if outcome.status == 0 && progress.has_no_answer() && !args.ignore_eof && args.abort_after.is_none() {
        eprintln!(
            "netcat: note: nothing was received. If an answer is missing, --ignore-eof keeps our half open for it."
        );
    }
    if args.report {
        let mut fields = vec![("reason", json!(outcome.reason)), ("detail", json!(outcome.detail))];
        fields.extend(progress.fields());
        eprintln!("{}", to_json(&fields));
    }
}
