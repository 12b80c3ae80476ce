use jobworker_certs::{
    Authority, AuthorityRequest, ClientRequest, Days, Existing, Folder, Holder, KeyKind, RoleOid,
    ServerRequest,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::tls::Files;

struct Pki {
    dir: TempDir,
    files: Files,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path());
        let request = AuthorityRequest { name: "CA".parse().unwrap(), key: KeyKind::P256, days: Days::YEAR };
        folder.init(&request).unwrap();
        let hosts = vec!["localhost".parse().unwrap()];
        let server = ServerRequest { hosts, key: KeyKind::P256, days: Days::YEAR };
        folder.issue(&Holder::Server, Existing::Keep, |ca| ca.issue_server(&server)).unwrap();
        let [ca, cert, key, crl] =
            ["ca.pem", "server.pem", "server-key.pem", "crl.pem"].map(|name| dir.path().join(name));
        Self { dir, files: Files { ca, cert, key, crl: vec![crl] } }
    }

    fn set(&self) -> Arc<Set> {
        Arc::new(Set::read(&self.files).unwrap())
    }

    fn client(&self, name: &str) -> Vec<CertificateDer<'static>> {
        let request = ClientRequest {
            name: name.parse().unwrap(),
            role: "user".parse().unwrap(),
            role_oid: RoleOid::default(),
            uris: Vec::new(),
            key: KeyKind::P256,
            days: Days::CLIENT,
        };
        let holder = Holder::Client(request.name.clone());
        Folder::at(self.dir.path()).issue(&holder, Existing::Keep, |ca| ca.issue_client(&request)).unwrap();
        vec![CertificateDer::from_pem_file(self.dir.path().join(format!("{name}.pem"))).unwrap()]
    }

    /// Ends at that second.
    fn ending(&self, not_after: i64) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
        params.not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap();
        let authority = Authority::load(self.dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        vec![params.signed_by(&key, authority.issuer()).unwrap().der().clone()]
    }

    fn revoke(&self, name: &str) {
        let folder = Folder::at(self.dir.path());
        folder.revoke(&folder.serial_of(&Holder::Client(name.parse().unwrap())).unwrap()).unwrap();
    }
}

fn words(chain: &Chain) -> Option<String> {
    chain.cut().map(ToString::to_string)
}

#[tokio::test]
async fn the_revoked_is_cut_off_on_all_its_connections_and_nobody_else() {
    let pki = Pki::new();
    let (first, bob, carol) = (pki.set(), pki.client("bob"), pki.client("carol"));
    let chains = Chains::new(Arc::clone(&first));
    let (one, two) = (chains.enter(&bob, "bob", &first), chains.enter(&bob, "bob", &first));
    let other = chains.enter(&carol, "carol", &first);
    assert!(Arc::ptr_eq(&one.0, &two.0), "each distinct chain once");
    assert_eq!(chains.all().len(), 2);
    pki.revoke("bob");
    let second = pki.set();
    let cut = verify_again(chains.bring_into_force(Arc::clone(&second)), &second);
    assert_eq!(cut.iter().map(ToString::to_string).collect::<Vec<_>>(), ["certificate of bob was revoked"]);
    assert_eq!(two.lost().await.to_string(), "certificate of bob was revoked");
    assert_eq!(words(&other), None);
    assert!(verify_again(chains.all(), &second).is_empty(), "told once");
}

#[test]
fn who_shook_hands_under_the_old_set_is_verified_by_the_new() {
    let pki = Pki::new();
    let (first, bob, carol) = (pki.set(), pki.client("bob"), pki.client("carol"));
    let chains = Chains::new(Arc::clone(&first));
    pki.revoke("bob");
    assert!(chains.bring_into_force(pki.set()).is_empty(), "nobody is registered as yet");
    let late = chains.enter(&bob, "bob", &first);
    assert_eq!(words(&late).as_deref(), Some("certificate of bob was revoked"));
    assert_eq!(words(&chains.enter(&carol, "carol", &first)), None);
}

#[test]
fn what_is_cut_off_stays_so_and_a_new_connection_begins_anew() {
    let pki = Pki::new();
    let (first, bob) = (pki.set(), pki.client("bob"));
    let chains = Chains::new(Arc::clone(&first));
    let before = chains.enter(&bob, "bob", &first);
    let list = std::fs::read(&pki.files.crl[0]).unwrap();
    pki.revoke("bob");
    let second = pki.set();
    verify_again(chains.bring_into_force(Arc::clone(&second)), &second);
    std::fs::write(&pki.files.crl[0], list).unwrap();
    let third = pki.set();
    verify_again(chains.bring_into_force(Arc::clone(&third)), &third);
    let after = chains.enter(&bob, "bob", &third);
    assert_eq!((words(&before).is_some(), words(&after)), (true, None));
    drop(before);
    assert_eq!(chains.all().len(), 1, "the old one's end does not take the new one's place");
}

#[test]
fn a_chain_is_due_when_its_end_has_come_and_gone_with_its_last_connection() {
    let pki = Pki::new();
    let set = pki.set();
    let chains = Chains::new(Arc::clone(&set));
    let now = unix_sec(SystemTime::now());
    let late = chains.enter(&pki.ending(now + 5000), "late", &set);
    let early = chains.enter(&pki.ending(now + 1000), "early", &set);
    assert_eq!(chains.next_due(), Some(now + 1000));
    assert!(chains.take_due(now + 999).is_empty());
    assert!(Arc::ptr_eq(&chains.take_due(now + 1000)[0].0, &early.0));
    assert_eq!(chains.next_due(), Some(now + 5000));
    drop(late);
    assert_eq!((chains.next_due(), chains.all().len()), (None, 1));
    // Let in by a handshake in its last second.
    let over = chains.enter(&pki.ending(unix_sec(SystemTime::now())), "over", &set);
    let words = words(&over).expect("cut off before its first call");
    assert!(words.starts_with("certificate of over expired on "), "{words}");
}

#[test]
fn a_clock_that_is_set_back_takes_no_right_away_and_gives_none_back() {
    let pki = Pki::new();
    let (first, bob, carol) = (pki.set(), pki.client("bob"), pki.client("carol"));
    let chains = Chains::new(Arc::clone(&first));
    let (bob, carol) = (chains.enter(&bob, "bob", &first), chains.enter(&carol, "carol", &first));
    pki.revoke("bob");
    let second = pki.set();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    assert!(bob.is_cut_by(&second, long_ago), "revoked is revoked");
    assert!(!carol.is_cut_by(&second, long_ago));
}
