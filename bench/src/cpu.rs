//! The CPU on which a process of the benchmark runs.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::Result;

/// Stays on one CPU, so that the threads of a measurement share it.
pub fn stay_on_one() -> Result<()> {
    let mut one = CpuSet::new();
    one.set(last()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

/// The last CPU that this process may use, because the first one handles more interrupts.
pub fn last() -> Result<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).ok_or("no CPU")?)
}

/// Moves to another CPU than the inherited one, which the server uses, if there is another one.
pub fn leave_the_inherited_one() -> Result<()> {
    let inherited = sched_getaffinity(Pid::from_raw(0))?;
    let mut others = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        if !inherited.is_set(cpu)? {
            others.set(cpu)?;
        }
    }
    let _ = sched_setaffinity(Pid::from_raw(0), &others);
    Ok(())
}
