# The steps of .ci/run, by name. `just` lists them; `.ci/run` runs them all.

[private]
default:
    @just --list --unsorted

# All checks that must pass before a change is merged
ci:
    .ci/run

# One step of .ci/run, for example `just step lint`
step NAME:
    .ci/run --only {{NAME}}

# All tests and doctests
test:
    cargo test --all-features

# The checks of the project itself: imports between folders, generated tables, rule coverage
house:
    cargo test --locked --test house

# Write the generated parts of docs/ and tests/snapshots/
bless:
    .ci/api
    UPDATE_DOCS=1 cargo test --all-features --test house

# Format the crate and the benchmark
format:
    cargo fmt
    cargo fmt --manifest-path bench/Cargo.toml

# Clippy over all sets of features
lint: (step "lint")

# API documentation, with the marks of features
docs:
    RUSTC_BOOTSTRAP=1 RUSTDOCFLAGS='--cfg docsrs -D warnings --html-in-header docs/rule-links.html' cargo doc --no-deps --all-features

# Licences, sources and duplicates of the dependencies
deny: (step "deny")

# Spelling
typos: (step "spelling")

# The README's programs in an empty project
readme: (step "readme_programs")

# A build with the lowest versions that Cargo.toml allows
minimal: (step "minimal_versions")

# Instructions of each workload against the baseline
instructions: (step "instructions")
