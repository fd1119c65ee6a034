//! Finds the program of each peer: this program, another build of it, or a program in another language.
//!
//! OpenSSL and BoringSSL have the same symbols, so one program cannot contain both. BoringSSL has a separate build.

use std::path::PathBuf;
use std::process::Command;

use crate::child;
use crate::cpu;
use crate::error::Result;
use crate::pki::Pki;
use crate::spec::{Regime, Spec, Workload};

/// The programs that were found.
pub struct Foreign {
    boring: Option<PathBuf>,
    go: Option<PathBuf>,
    python: Option<PathBuf>,
    twisted: bool,
    pki: Pki,
}

impl Foreign {
    /// `bench/run` builds the programs, and sets their paths in the environment.
    pub fn find() -> Result<Self> {
        let program = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let python = program("BENCH_PYTHON");
        let twisted = python.as_ref().is_some_and(|python| {
            Command::new(python)
                .args(["-c", "import twisted, OpenSSL, service_identity"])
                .output()
                .is_ok_and(|o| o.status.success())
        });
        Ok(Self { boring: program("BENCH_BORING"), go: program("BENCH_GO"), python, twisted, pki: Pki::new()? })
    }

    /// The reason why this peer cannot be measured; `None` if it can.
    pub fn missing(&self, peer: &str) -> Option<&'static str> {
        match peer {
            "tokio-boring" if self.boring.is_none() && !child::is_built(peer) => {
                Some("not built; it needs cmake, a C++ compiler, libclang (BORING=1 bench/run)")
            }
            "go" if self.go.is_none() => Some("there is no go here"),
            "asyncio" if self.python.is_none() => Some("there is no python3 here"),
            "twisted" if !self.twisted => Some("python3 has no twisted, pyOpenSSL, service_identity"),
            _ if peer != "tokio-boring" && !child::is_built(peer) => Some("not in this build"),
            _ => None,
        }
    }

    /// The reason why no peer can be measured with this measurement; `None` if they can.
    pub fn lacks(spec: &Spec) -> Option<String> {
        let Workload::Http { http, .. } = spec.workload else { return None };
        let client = http.client();
        let is_there = |paths| std::env::split_paths(&paths).any(|path| path.join(client).is_file());
        if !cfg!(feature = "hyper") {
            return Some("hyper is not in this build".to_owned());
        }
        (!std::env::var_os("PATH").is_some_and(is_there)).then(|| format!("there is no {client} here"))
    }

    /// The command for a measurement.
    pub fn command(&self, spec: &Spec, peer: &str, scale: f64) -> Result<Command> {
        let scale = scale.to_string();
        let here = std::env::current_exe()?;
        let program = match peer {
            "tokio-boring" => self.boring.as_ref().unwrap_or(&here),
            "go" => self.go.as_ref().ok_or("no go")?,
            "asyncio" | "twisted" => self.python.as_ref().ok_or("no python")?,
            _ => &here,
        };
        let mut command = Command::new(program);
        match peer {
            "go" if spec.regime == Regime::Hot => {
                // `hot` means one CPU. A child process inherits the affinity.
                command = Command::new("taskset");
                command.args(["-c", &cpu::last()?.to_string()]).arg(program).args([&spec.id, &scale]);
            }
            "go" => {
                command.args([&spec.id, &scale]);
            }
            "asyncio" | "twisted" => {
                let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("python/{peer}_peer.py"));
                command.arg(script).args([&spec.id, &scale]);
            }
            _ => {
                command.args([child::COMMAND, &spec.id, peer, &scale]);
            }
        }
        command.env("BENCH_PKI", self.pki.to_json()).env("BENCH_CLIENTS", here);
        Ok(command)
    }
}
