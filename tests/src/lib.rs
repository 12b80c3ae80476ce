//! What the end-to-end tests share: real binaries, throw-away certificates, a worker of one's own, a client, and
//! ways to wait and to count.
//!
//! The binaries are taken from `JOBWORKER_BIN_DIR`, else from the build folder that the test itself stands in.
//! A test that needs what the host does not give fails; nothing here skips.

pub mod attributes;
pub mod bench;
pub mod binaries;
pub mod census;
pub mod client;
pub mod documents;
pub mod faults;
pub mod http2;
pub mod metrics;
pub mod openssl;
pub mod pki;
pub mod policy;
pub mod prometheus;
pub mod proxy;
pub mod raw;
pub mod sbom;
pub mod scale;
pub mod scratch;
pub mod subtree;
pub mod wait;
pub mod worker;

pub use client::Client;
pub use pki::Pki;
pub use subtree::Subtree;
pub use wait::until;
pub use worker::Worker;

/// The API.
pub use jobworker_proto::v1 as api;
