//! The limit of open descriptors of the process.

/// Raises the limit to the allowed maximum, because many systems start with about a thousand. Returns the new limit;
/// `None` if there is no limit, or it is unknown.
#[cfg(unix)]
pub(crate) fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If the system refuses, the limit stays unchanged. A listener that reaches the limit waits.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
pub(crate) fn raise_limit() -> Option<u64> {
    None
}
