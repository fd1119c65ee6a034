//! The results of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::measure::Sample;
use crate::series::Series;
use crate::spec::Spec;

/// All samples of a measurement by a peer, in the order of the rounds.
pub type Samples = BTreeMap<(String, String), Vec<Sample>>;

/// The results of a run.
pub struct Outcome {
    pub specs: Vec<Spec>,
    pub samples: Samples,
    /// The runs to which the samples belong, the oldest first.
    pub series: Vec<Series>,
    pub quick: bool,
    /// Measurements that were left out or failed, with the reason.
    pub notes: Vec<String>,
    /// System calls for each unit, the most frequent first.
    pub syscalls: BTreeMap<(String, String), Vec<(String, f64)>>,
}

impl Outcome {
    pub fn new(specs: Vec<Spec>, quick: bool) -> Self {
        let (samples, syscalls) = (Samples::new(), BTreeMap::new());
        Self { specs, samples, series: Vec::new(), quick, notes: Vec::new(), syscalls }
    }
}

/// The folder of the report that is committed and shown in the documentation.
pub fn results() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results")
}
