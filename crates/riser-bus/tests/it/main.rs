//! Integration tests of riser-bus.

mod bus;
mod log;
