//! Compiles the `.proto` files without a `protoc` binary; the same descriptors serve gRPC reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const SOURCE: &str = "jobworker/v1/jobworker.proto";
    println!("cargo:rerun-if-changed={SOURCE}");
    let descriptors = protox::compile([SOURCE], ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("jobworker.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".jobworker.v1.Chunk.data").compile_fds(descriptors)?;
    Ok(())
}
