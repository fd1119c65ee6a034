//! The setups that the checker explores.

use crate::model::Setup;

const SMALL: Setup = Setup {
    name: "",
    begins_secured: false,
    acknowledges: true,
    reset_discards: false,
    capacity: 2,
    writes: [1, 1],
    upgrades: 0,
    downgrades: 0,
    producers: [0, 0],
    disturbances: 1,
};

/// For every change: the checker needs seconds.
pub fn small() -> Vec<Setup> {
    vec![
        Setup { name: "plaintext", ..SMALL },
        Setup { name: "TLS", begins_secured: true, ..SMALL },
        Setup {
            name: "TLS, no acknowledgements",
            begins_secured: true,
            acknowledges: false,
            reset_discards: true,
            ..SMALL
        },
        Setup { name: "upgrade", upgrades: 1, writes: [1, 0], ..SMALL },
        Setup { name: "producer", producers: [1, 0], writes: [4, 0], capacity: 1, ..SMALL },
    ]
}

/// For every night: larger setups. The checker needs minutes.
pub fn whole() -> Vec<Setup> {
    let two = Setup { disturbances: 2, ..SMALL };
    vec![
        Setup { name: "plaintext", writes: [2, 2], ..two.clone() },
        Setup { name: "TLS", begins_secured: true, writes: [2, 2], ..two.clone() },
        Setup {
            name: "TLS, no acknowledgements",
            begins_secured: true,
            acknowledges: false,
            reset_discards: true,
            writes: [2, 2],
            ..two.clone()
        },
        Setup { name: "upgrade and downgrade", upgrades: 1, downgrades: 1, ..SMALL },
        Setup { name: "downgrade", begins_secured: true, downgrades: 1, writes: [2, 1], ..two.clone() },
        Setup { name: "producers", producers: [1, 1], writes: [4, 1], capacity: 1, ..SMALL },
        Setup {
            name: "producer over TLS",
            begins_secured: true,
            producers: [1, 0],
            writes: [4, 1],
            capacity: 1,
            ..SMALL
        },
    ]
}
