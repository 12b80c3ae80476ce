//! The real `jobctl` binary against a worker made up in this process, over mutual TLS.

mod cert;
mod connection;
mod fake_worker;
mod input;
mod interrupts;
mod jobctl;
mod jobs;
mod pki;
mod reconnect;
mod run;
mod script;
mod stream;
mod useless_connections;
mod writing;
