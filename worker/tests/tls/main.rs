//! Who gets in over TLS and what they may do there, against the worker's real door, service and engine.

mod audit;
mod door;
mod pki;
mod service;
mod shutdown;
mod worker;
