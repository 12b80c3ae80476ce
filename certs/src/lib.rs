//! A small PKI for jobworker: one CA, server certificates, client certificates that carry a role, and revocation.
//!
//! A worker trusts exactly one CA and reads three things from a client's certificate: who it is (common name, URI
//! names), its serial number, and its **role**, a private X.509 extension (see [`RoleOid`]). This crate makes such
//! certificates, as a library and as the commands `jobworker certs init | server | client | sign | revoke` ([`Command`]).
//!
//! Who shall have the private key makes it, and a request ([`NewRequest`]); the CA checks that ([`Csr`]) and signs it.
//!
//! Everything lives in one folder: `ca.pem`, `ca-key.pem`, `crl.pem`, and `NAME.pem` with `NAME-key.pem` for the
//! server and each client. There is no other state: what is revoked is what `crl.pem` says.
//!
//! To make a certificate these commands refuse to make (a test's expired one, say), take [`Authority::issuer`] and
//! sign any `rcgen::CertificateParams` with it.

mod authority;
mod chain_fault;
mod commands;
mod crl;
mod csr;
mod error;
mod files;
mod folder;
mod hex;
mod holder;
mod issuance;
mod key;
mod leaf;
mod list_origin;
mod names;
mod new_request;
mod pem_problem;
mod public_key;
mod request;
mod role;
mod serial;
mod sign;
mod text;
mod validity;

pub use authority::Authority;
pub use chain_fault::{ACCEPTED_KEYS, ChainFault, Fault};
pub use commands::{Command, run};
pub use crl::Revocation;
pub use csr::{BadCsr, ClientNames, Csr, MAX_CSR_BYTES};
pub use error::{Error, InvalidValue};
pub use folder::{Existing, Folder};
pub use holder::Holder;
pub use key::KeyKind;
pub use leaf::{IssuerId, Leaf};
pub use list_origin::{ListOrigin, lists_for};
pub use names::{AuthorityName, ClientName, Host, Uri};
pub use new_request::{NewRequest, RequestedNames};
pub use pem_problem::pem_fault;
pub use public_key::{KeyFingerprint, PublicKey};
pub use request::{
    AuthorityRequest, ClientGrant, ClientRequest, Issued, Renewal, ServerGrant, ServerRequest, Signed,
};
pub use role::{ROLE_OID, Role, RoleOid};
pub use serial::Serial;
pub use text::{printable, visible, visible_json};
pub use validity::{Days, utc_text};
