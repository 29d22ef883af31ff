//! Integration tests of the test kit: the checker, the simulation and the mutants.

mod golden;
mod seeds;
