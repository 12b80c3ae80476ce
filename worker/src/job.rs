//! A job: its id, what was asked ([`spec`]), how it is ([`state`]), and the folder that holds both ([`folder`]).

#[cfg(test)]
pub(crate) mod any;
pub mod bytestr;
pub mod census;
pub mod engine;
#[cfg(test)]
pub(crate) mod fake;
pub mod folder;
pub mod id;
pub mod process;
pub mod spec;
pub mod state;
pub mod trusted_dir;
pub mod verdict;
pub mod view;
pub mod whose;

pub use bytestr::ByteStr;
pub use id::JobId;
pub use spec::{JobRequest, Owner, Spec};
pub use state::{Ended, Outcome, Phase, State};
pub use whose::Whose;
