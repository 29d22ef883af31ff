//! Integration tests of riser-bus.

mod bus;
mod kv;
mod log;
