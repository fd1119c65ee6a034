//! What tests of TLS services need, and what is a nuisance to write for each of them anew.

pub mod pki;
