//! Tests of bowline with frameworks: see `tests/`.
