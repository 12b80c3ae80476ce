use std::time::Duration;

use jobworker_certs::ROLE_OID;
use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType, SerialNumber, date_time_ymd};

use super::*;

fn certificate(edit: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "alice");
    edit(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn role_extension(value: &[u8]) -> CustomExtension {
    let arcs: Vec<u64> = ROLE_OID.split('.').map(|arc| arc.parse().unwrap()).collect();
    CustomExtension::from_oid_content(&arcs, value.to_vec())
}

fn identity(edit: impl FnOnce(&mut CertificateParams)) -> Result<ClientIdentity, IdentityError> {
    ClientIdentity::from_der(&certificate(edit), &RoleOid::default())
}

fn role_of(values: &[&[u8]]) -> Result<String, RoleProblem> {
    identity(|params| params.custom_extensions = values.iter().map(|value| role_extension(value)).collect())
        .unwrap()
        .role
}

#[test]
fn everything_that_a_certificate_says() {
    let der = certificate(|params| {
        params.serial_number = Some(SerialNumber::from(vec![0x00, 0xab, 0x01]));
        params.not_after = date_time_ymd(2040, 1, 2);
        params.custom_extensions = vec![role_extension(b"\x0c\x05admin")];
        params.subject_alt_names = vec![
            SanType::DnsName("build.example".try_into().unwrap()),
            SanType::URI("spiffe://example.org/alice".try_into().unwrap()),
            SanType::URI("spiffe://example.org/second".try_into().unwrap()),
        ];
    });
    let identity = ClientIdentity::from_der(&der, &RoleOid::default()).unwrap();
    assert_eq!(identity.name, "spiffe://example.org/alice");
    assert_eq!(identity.common_name, "alice");
    assert_eq!(identity.role.as_deref(), Ok("admin"));
    assert_eq!(identity.serial, "ab01");
    assert_eq!(identity.uris.len(), 2);
    assert_eq!(identity.dns_names, ["build.example"]);
    assert_eq!(identity.not_after(), "2040-01-02T00:00:00Z");
    assert_eq!(identity.fingerprint_sha256.len(), 64);
    assert_eq!(identity.owner().role, "admin");
}

#[test]
fn without_a_uri_the_common_name_is_the_name() {
    assert_eq!(identity(|_| {}).unwrap().name, "alice");
}

#[test]
fn a_role_is_one_strict_utf8string() {
    assert_eq!(role_of(&[b"\x0c\x05admin"]).as_deref(), Ok("admin"));
    assert_eq!(role_of(&[b"\x0c\x07unknown"]).as_deref(), Ok("unknown"));
    assert_eq!(role_of(&[]), Err(RoleProblem::Missing));
    assert_eq!(role_of(&[b"\x0c\x05admin", b"\x0c\x04user"]), Err(RoleProblem::Repeated));
    assert_eq!(role_of(&[b"\x0c\x05admin", b"\x0c\x05admin"]), Err(RoleProblem::Repeated));
    let malformed: [&[u8]; 9] = [
        b"admin",             // no DER at all
        b"",                  // nothing
        b"\x0c\x00",          // the empty role
        b"\x13\x05admin",     // a PrintableString
        b"\x0c\x06admin",     // shorter than it says
        b"\x0c\x05admin\x00", // something after it
        b"\x0c\x81\x05admin", // a length that is not in its shortest form
        b"\x0c\x05adm\xffn",  // not UTF-8
        b"\x0c\x06admin\n",   // a control character
    ];
    for value in malformed {
        assert_eq!(role_of(&[value]), Err(RoleProblem::Malformed), "{value:?}");
    }
}

#[test]
fn the_role_is_found_under_the_configured_oid_only() {
    let der = certificate(|params| params.custom_extensions = vec![role_extension(b"\x0c\x05admin")]);
    let other: RoleOid = "1.3.6.1.4.1.32473.7".parse().unwrap();
    assert_eq!(ClientIdentity::from_der(&der, &other).unwrap().role, Err(RoleProblem::Missing));
}

#[test]
fn a_certificate_that_names_nobody_is_refused() {
    let without_name = identity(|params| params.distinguished_name = rcgen::DistinguishedName::new());
    assert_eq!(without_name, Err(IdentityError::NoName));
    for name in ["a\nb", "\u{1b}[2J", &"x".repeat(MAX_NAME_BYTES + 1), ""] {
        let refused = identity(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        });
        assert_eq!(refused, Err(IdentityError::BadName { which: "common name" }), "{name:?}");
    }
    let long = format!("spiffe://{}", "x".repeat(MAX_NAME_BYTES));
    let refused =
        identity(|params| params.subject_alt_names = vec![SanType::URI(long.as_str().try_into().unwrap())]);
    assert_eq!(refused, Err(IdentityError::BadName { which: "first URI name" }));
}

#[test]
fn what_is_no_certificate_is_refused() {
    let mut der = certificate(|_| {});
    der.push(0);
    for bad in [&b""[..], b"x", &der, &der[..100]] {
        assert!(matches!(
            ClientIdentity::from_der(bad, &RoleOid::default()),
            Err(IdentityError::Malformed(_))
        ));
    }
}

#[test]
fn expiry_is_the_second_after_the_last() {
    let identity = identity(|params| params.not_after = date_time_ymd(2030, 6, 1)).unwrap();
    let last = UNIX_EPOCH + Duration::from_secs(u64::try_from(identity.not_after_unix_sec).unwrap());
    assert!(!identity.has_expired(last));
    assert!(identity.has_expired(last + Duration::from_secs(1)));
}
