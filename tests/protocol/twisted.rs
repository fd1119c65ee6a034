//! twisted
