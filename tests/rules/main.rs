//! The contract, rule by rule (docs/rules.md). A check is written once and run over every transport, in both roles.

#![allow(unreachable_pub, clippy::unwrap_used)]

mod abort;
mod accept;
mod backlog;
mod close;
mod close_by_handle;

mod common;
mod delivery;
mod drain;
mod end;
mod flow;
mod half;
mod hello;
mod idle;
mod layers;
mod leftover;
mod life;
mod limit;
mod linger;
mod locks;
mod observe;
mod ready;
#[cfg(unix)]
mod reload;
mod retry;
mod secure;
mod tcp;
mod traffic;
mod upgrade;
mod write;
