//! The bus and its memory twin.

mod conformance;
mod faults;
mod routes;
