//! Chooses the types of the checker: see src/sync.rs.

fn main() {
    println!("cargo:rustc-cfg=bowline_shuttle");
}
