//! The commands as a user types them, and what openssl and rustls make of the files.

mod common;
mod handshake;
mod issue;
mod refuse;
mod revoke;
mod sign;
