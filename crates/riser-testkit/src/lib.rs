//! Riser's test kit: an in-process cluster, a seeded simulation of it, and the checker of what the simulation saw.
//!
//! [`cluster`] runs edges over the memory twins of the ports. [`sim`] lets simulated [`peer`]s live on such a cluster
//! while faults happen, all of it drawn from one seed and timed by a paused clock, and gives the [`history`] of what
//! the peers did and saw. [`check`](mod@check) is a pure function of a history. [`mutants`] break the ports on
//! purpose, to show that the checker finds what it is there for. [`real`] starts real servers.

pub mod check;
pub mod cluster;
pub mod history;
pub mod mutants;
pub mod peer;
pub mod real;
pub mod sim;
