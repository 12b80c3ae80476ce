//! A job's output: written once by its shim, read by any number of followers.

mod buffer;
mod extent;
pub mod follower;
pub mod hub;
pub mod index;
mod positioned;
mod reader;
mod records;
pub mod salvage;
mod seek;

pub use buffer::{Buffer, ROOM_BYTES};
pub use extent::Extent;
pub use records::OutputError;
