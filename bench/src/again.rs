//! What an earlier run gave, to be kept beside what is measured again.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::conduct::Outcome;
use crate::measure::Sample;
use crate::{Result, fail, spec};

/// Reads `results.json`.
pub fn load(dir: &Path) -> Result<Outcome> {
    let file = dir.join("results.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return fail(format!("there is no {} to add to", file.display()));
    };
    let all: Value = serde_json::from_str(&text)?;
    let mut outcome = Outcome::new(Vec::new(), all["quick"].as_bool().unwrap_or(false));
    outcome.rounds = all["rounds"].as_u64().ok_or("the report has no rounds")?.try_into()?;
    outcome.took = Duration::from_secs(all["seconds"].as_u64().unwrap_or(0));
    outcome.notes = list(&all["notes"]).iter().filter_map(|note| note.as_str().map(str::to_owned)).collect();
    for mut spec in spec::all() {
        let Some(measured) = list(&all["measurements"]).iter().find(|one| one["id"] == spec.id.as_str()) else {
            continue;
        };
        spec.peers.retain(|peer| {
            let Some(one) = list(&measured["peers"]).iter().find(|one| one["peer"] == *peer) else { return false };
            let samples = list(&one["samples"]).iter().filter_map(Sample::from_json).collect();
            outcome.samples.insert((spec.id.clone(), (*peer).to_owned()), samples);
            true
        });
        outcome.specs.push(spec);
    }
    for one in list(&all["syscalls"]) {
        let (Some(id), Some(peer), Some(calls)) = (one["id"].as_str(), one["peer"].as_str(), one["calls"].as_object())
        else {
            continue;
        };
        let mut calls: Vec<(String, f64)> =
            calls.iter().filter_map(|(name, count)| Some((name.clone(), count.as_f64()?))).collect();
        calls.sort_by(|a, b| b.1.total_cmp(&a.1));
        outcome.syscalls.insert((id.to_owned(), peer.to_owned()), calls);
    }
    Ok(outcome)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
