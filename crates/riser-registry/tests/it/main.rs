//! Integration tests of riser-registry.

mod conformance;
mod faults;
mod model;
