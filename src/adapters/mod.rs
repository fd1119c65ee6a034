//! Implements the traits of frameworks. Each adapter is a feature.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "tonic")]
pub mod tonic;
