//! The properties of the model hold for the tables of the crate, and each of them can fail.
#![allow(clippy::unwrap_used)]

use bowline_model::model::{Connection, Setup};
use bowline_model::setups;
use bowline_model::tables::{Fault, Tables};
use stateright::{Checker, Model};

/// The properties that do not hold, each with the events that show it.
fn broken(setup: Setup, fault: Option<Fault>) -> Vec<String> {
    let checker = Connection { setup, tables: Tables { fault } }.checker().threads(2).spawn_bfs().join();
    let found = checker.discoveries().into_iter();
    found.map(|(property, path)| format!("{property}: {:?}", path.into_actions())).collect()
}

/// The setup in which the checker finds this fault.
fn shows_in(fault: Fault) -> &'static str {
    match fault {
        Fault::SendSkipsMarker
        | Fault::SendMarksTwice
        | Fault::SendAbortFinishes
        | Fault::RecvForgetsCleanEnd
        | Fault::ReasonIgnoresAbort
        | Fault::DeliveryIsAssumed
        | Fault::DeliveryIgnoresPending
        | Fault::ProducerStopsTwice
        | Fault::LossIsRepeated => "plaintext",
        Fault::RecvEndIsClean | Fault::ReasonTrustsBareEnd => "TLS",
        Fault::RecvIgnoresLoss
        | Fault::LeftoverIsAdmitted
        | Fault::UpgradeSettlesEarly
        | Fault::UpgradeForgetsFailure => "upgrade",
        Fault::SendIgnoresLoss | Fault::ProducerStaysPaused => "producer",
    }
}

#[test]
fn the_tables_of_the_crate_keep_every_property() {
    for setup in setups::small() {
        let name = setup.name;
        let broken = broken(setup, None);
        assert!(broken.is_empty(), "{name}: {broken:#?}");
    }
}

#[test]
fn each_fault_in_a_table_is_found() {
    for fault in Fault::ALL {
        let setup = setups::small().into_iter().find(|setup| setup.name == shows_in(fault)).unwrap();
        let broken = broken(setup, Some(fault));
        println!("{fault:?}: {broken:?}");
        assert!(!broken.is_empty(), "{fault:?} is not found");
    }
}
