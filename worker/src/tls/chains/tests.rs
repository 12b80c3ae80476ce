use jobworker_certs::{
    Authority, AuthorityRequest, ClientRequest, Days, Existing, Folder, Holder, KeyKind, RoleOid,
    ServerRequest,
};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, KeyPair,
    SerialNumber,
};
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

    /// Its list is one that ends so many seconds from now. Returns its last second.
    fn end_list_in(&self, seconds: i64) -> i64 {
        let end = now() + seconds;
        let list = CertificateRevocationListParams {
            this_update: OffsetDateTime::now_utc() - Duration::days(1),
            next_update: OffsetDateTime::from_unix_timestamp(end).unwrap(),
            crl_number: SerialNumber::from(vec![2]),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let authority = Authority::load(self.dir.path()).unwrap();
        let pem = list.signed_by(authority.issuer()).unwrap().pem().unwrap();
        std::fs::write(&self.files.crl[0], pem).unwrap();
        end
    }

    fn revoke(&self, name: &str) {
        let folder = Folder::at(self.dir.path());
        folder.revoke(&folder.serial_of(&Holder::Client(name.parse().unwrap())).unwrap()).unwrap();
    }
}

fn now() -> i64 {
    unix_sec(SystemTime::now())
}

fn words(chain: &Chain) -> Option<String> {
    chain.cut().map(ToString::to_string)
}

#[tokio::test]
async fn the_revoked_is_cut_off_on_all_its_connections_and_nobody_else() {
    let pki = Pki::new();
    let (first, bob, carol) = (pki.set(), pki.client("bob"), pki.client("carol"));
    let chains = Chains::new(Arc::clone(&first));
    let (one, two) = (chains.enter(&bob, "bob", &first, now()), chains.enter(&bob, "bob", &first, now()));
    let other = chains.enter(&carol, "carol", &first, now());
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
    let late = chains.enter(&bob, "bob", &first, now());
    assert_eq!(words(&late).as_deref(), Some("certificate of bob was revoked"));
    assert_eq!(words(&chains.enter(&carol, "carol", &first, now())), None);
}

#[test]
fn what_is_cut_off_stays_so_and_a_new_connection_begins_anew() {
    let pki = Pki::new();
    let (first, bob) = (pki.set(), pki.client("bob"));
    let chains = Chains::new(Arc::clone(&first));
    let before = chains.enter(&bob, "bob", &first, now());
    let list = std::fs::read(&pki.files.crl[0]).unwrap();
    pki.revoke("bob");
    let second = pki.set();
    verify_again(chains.bring_into_force(Arc::clone(&second)), &second);
    std::fs::write(&pki.files.crl[0], list).unwrap();
    let third = pki.set();
    verify_again(chains.bring_into_force(Arc::clone(&third)), &third);
    let after = chains.enter(&bob, "bob", &third, now());
    assert_eq!((words(&before).is_some(), words(&after)), (true, None));
    drop(before);
    assert_eq!(chains.all().len(), 1, "the old one's end does not take the new one's place");
}

#[test]
fn a_chain_is_due_when_its_end_has_come_and_gone_with_its_last_connection() {
    let pki = Pki::new();
    let set = pki.set();
    let chains = Chains::new(Arc::clone(&set));
    let began = now();
    let late = chains.enter(&pki.ending(began + 5000), "late", &set, now());
    let early = chains.enter(&pki.ending(began + 1000), "early", &set, now());
    assert_eq!(chains.next_due(), Some(began + 1000));
    assert!(chains.take_due(began + 999).is_empty());
    assert!(Arc::ptr_eq(&chains.take_due(began + 1000)[0].0, &early.0));
    assert_eq!(chains.next_due(), Some(began + 5000));
    drop(late);
    assert_eq!((chains.next_due(), chains.all().len()), (None, 1));
    // Let in by a handshake in its last second.
    let over = chains.enter(&pki.ending(now()), "over", &set, now());
    let words = words(&over).expect("cut off before its first call");
    assert!(words.starts_with("certificate of over expired on "), "{words}");
}

/// A client may take its time for a handshake, and whatever ends meanwhile has been looked at without it.
#[test]
fn what_ends_during_a_handshake_lets_nobody_in() {
    let pki = Pki::new();
    let (bob, slow) = (pki.client("bob"), pki.ending(now() + 2));
    let end = pki.end_list_in(2);
    let set = pki.set();
    let chains = Chains::new(Arc::clone(&set));
    let (began, quick) = (now(), chains.enter(&bob, "bob", &set, now()));
    assert_eq!(words(&quick), None);
    while now() <= end {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(quick);
    let late = words(&chains.enter(&bob, "bob", &set, began)).expect("cut off");
    assert!(late.contains("the list in --crl expired on"), "{late}");
    let late = words(&chains.enter(&slow, "slow", &set, began)).expect("cut off");
    assert!(late.contains("expired on"), "{late}");
}

#[test]
fn a_clock_that_is_set_back_takes_no_right_away_and_gives_none_back() {
    let pki = Pki::new();
    let (first, bob, carol) = (pki.set(), pki.client("bob"), pki.client("carol"));
    let chains = Chains::new(Arc::clone(&first));
    let (bob, carol) =
        (chains.enter(&bob, "bob", &first, now()), chains.enter(&carol, "carol", &first, now()));
    pki.revoke("bob");
    let second = pki.set();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    assert!(bob.is_cut_by(&second, long_ago), "revoked is revoked");
    assert!(!carol.is_cut_by(&second, long_ago));
}
