//! The gRPC API of jobworker: `jobworker/v1/jobworker.proto` and the code generated from it.

/// Version 1 of the API. The documentation of every message and field is in the `.proto` file.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("jobworker.v1");

    /// The encoded `FileDescriptorSet` of this API, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/jobworker.v1.bin"));
}
