//! Integration tests of riser-registry.

mod command_model;
mod commands;
mod conformance;
mod faults;
mod held;
mod model;
