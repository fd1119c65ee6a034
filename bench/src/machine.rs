//! The machine on which the benchmark runs.

/// The machine, without its name.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ':', ' ']);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let system = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cpus} CPUs, Linux {}", system.trim())
}
