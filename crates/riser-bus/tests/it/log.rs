//! The log and its memory twin.

mod conformance;
mod faults;
mod joins;
mod model;
