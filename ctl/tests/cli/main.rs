//! The real `jobctl` binary against a worker made up in this process, over mutual TLS.

mod cert;
mod connection;
mod fake_worker;
mod jobctl;
mod jobs;
mod pki;
mod reconnect;
mod run;
mod script;
mod stream;
