//! jobworker: jobs under limits on a Linux host, started, stopped, queried and streamed over mutual TLS.
//!
//! One binary, three processes; the file system between them is the interface.
//!
//! ```text
//!  jobctl ──mTLS/gRPC──▶ worker ──unix socket──▶ spawner ──fork──▶ shim ──clone3 into the group──▶ the job
//!                          ▲                                        │ ▲                             │
//!                          │                                        ▼ └──── stdout, stderr: pipes ──┘
//!                          └──── inotify, pread ──── jobs/<id>/{spec.json,state.json,output,index}
//! ```
//!
//! * [`spawner`]: single-threaded, privileged where jobs run as other users, in the delegated subtree. Forks shims.
//! * [`shim`]: one per job, the only owner of the job's life, from its group's creation to its removal.
//! * everything else is the worker: it is nobody's parent, needs no privilege and holds nothing that it can't read
//!   back from the jobs' folders. A request goes [`tls`] → [`identity`] → [`policy`] → [`service`] → [`job::engine`].
//!
//! Beside the requests, [`job::census`] knows how each job is and tells its end, and [`retention`] removes ended jobs where
//! an operator asks for that.
//!
//! [`renewal`] gives clients their next certificates, where an operator has handed it a CA's key.
//!
//! [`doctor`] tells an operator what they would find on a host, [`certs_status`] which certificates end when.
//!
//! Shared by all three: [`job`], the types and the folder of a job; [`output::index`], the file beside its output.

pub mod audit;
pub mod certs_status;
pub mod config;
pub mod doctor;
pub mod identity;
pub mod job;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod output;
pub mod policy;
pub mod renewal;
pub mod retention;
pub mod serve;
pub mod service;
pub mod shim;
pub mod spawner;
mod tally;
pub mod tasks;
pub mod tls;
mod turns;
mod watched;
