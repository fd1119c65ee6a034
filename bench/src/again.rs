//! The results of an earlier run, which are kept together with new measurements.

use std::path::Path;

use serde_json::Value;

use crate::error::{Result, fail};
use crate::measure::Sample;
use crate::outcome::Outcome;
use crate::series::Series;
use crate::spec;
use crate::spec::Spec;

/// Reads `results.json`.
pub fn load(dir: &Path) -> Result<Outcome> {
    let file = dir.join("results.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return fail(format!("there is no {} to add to", file.display()));
    };
    let all: Value = serde_json::from_str(&text)?;
    let mut outcome = Outcome::new(Vec::new(), all["quick"].as_bool().unwrap_or(false));
    outcome.series = list(&all["series"]).iter().filter_map(Series::from_json).collect();
    if outcome.series.is_empty() {
        outcome.series.push(undated(&all)?);
    }
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

impl Outcome {
    /// Prepares to measure these specs again: drops their old samples, and adds missing measurements in the order of
    /// the report.
    pub fn renew(&mut self, specs: &[Spec]) {
        let is_kept =
            |kept: &[Spec], id: &str, peer: &str| kept.iter().any(|spec| spec.id == id && spec.peers.contains(&peer));
        let mut all = spec::all();
        for spec in &mut all {
            let id = spec.id.clone();
            spec.peers.retain(|peer| is_kept(&self.specs, &id, peer) || is_kept(specs, &id, peer));
        }
        all.retain(|spec| !spec.peers.is_empty());
        self.specs = all;
        for spec in specs {
            let again = format!("{} was measured again", spec.id);
            self.notes.retain(|note| !note.starts_with(&again));
            for peer in &spec.peers {
                self.samples.remove(&(spec.id.clone(), (*peer).to_owned()));
                let failed = format!(": {} by {peer} failed", spec.id);
                self.notes.retain(|note| !note.contains(&failed));
            }
        }
        let is_left = |series: &Series| self.samples.values().flatten().any(|sample| series.has(sample.round));
        self.series.retain(is_left);
    }
}

/// The run of a report that has no date. Older versions of the benchmark wrote such reports.
fn undated(all: &Value) -> Result<Series> {
    Ok(Series {
        first: 1,
        rounds: all["rounds"].as_u64().ok_or("the report has no rounds")?.try_into()?,
        what: "everything".to_owned(),
        began: "unknown".to_owned(),
        commit: "unknown".to_owned(),
        machine: all["machine"].as_str().unwrap_or("unknown").to_owned(),
        seconds: all["seconds"].as_u64().unwrap_or(0),
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
