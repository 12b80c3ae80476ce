//! What the tests of certificates in a running worker share: files that change, chains, readers that count every byte.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jobworker_certs::{Authority, AuthorityRequest, Days, Folder, KeyKind};
use jobworker_tests::api::Job;
use jobworker_tests::api::stream_response::Event;
use jobworker_tests::client::{everything, shell, start};
use jobworker_tests::pki::{Identity, role_extension, role_value};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Pki, Worker};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::task::JoinHandle;

pub(crate) const READ: &str = "certificates, key and lists read again; they are in force now";
pub(crate) const KEPT: &str = "that were read before stay in force";

/// Lines of the log with this in them.
pub(crate) fn told(worker: &Worker, words: &str) -> usize {
    worker.log().iter().filter(|line| line.contains(words)).count()
}

#[track_caller]
pub(crate) fn until_told(worker: &Worker, words: &str, times: usize) {
    until_equal(&format!("{words:?} in the log"), &times, || told(worker, words));
}

/// Puts a file with these bytes in the place of another, by rename.
pub(crate) fn replace(path: &Path, bytes: impl AsRef<[u8]>) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).expect("a writable folder");
    fs::rename(beside, path).expect("the same folder");
}

/// An admin's certificate that ends at a time.
pub(crate) fn ending(pki: &Pki, name: &str, not_after: OffsetDateTime) -> Identity {
    pki.odd_client(name, |params| {
        params.not_after = not_after;
        params.custom_extensions.push(role_extension(&role_value("admin")));
    })
}

/// The CA of a folder, to sign whatever.
pub(crate) fn authority(pki: &Pki) -> Authority {
    Authority::load(pki.dir()).expect("a CA in the folder")
}

/// A list of nobody, by the CA of a folder, that is to be replaced by then. PEM.
pub(crate) fn list_until(pki: &Pki, next_update: OffsetDateTime) -> String {
    list(authority(pki).issuer(), next_update, Vec::new())
}

fn list(
    issuer: &Issuer<'static, KeyPair>,
    next_update: OffsetDateTime,
    revoked_certs: Vec<RevokedCertParams>,
) -> String {
    let list = CertificateRevocationListParams {
        this_update: OffsetDateTime::now_utc() - time::Duration::days(40),
        next_update,
        crl_number: SerialNumber::from(vec![7]),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).expect("a signature").pem().expect("PEM")
}

/// A CA that may have CAs below it, and one below.
pub(crate) struct Tree {
    pub(crate) root_pem: String,
    below_pem: String,
    root: Issuer<'static, KeyPair>,
    below: Issuer<'static, KeyPair>,
}

/// The lower CA's serial number.
const BELOW: &[u8] = &[7, 7, 7];

impl Tree {
    pub(crate) fn new() -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            (params, KeyPair::generate().expect("a key"))
        };
        let ((root, root_key), (mut below, below_key)) = (ca("root CA"), ca("CA below"));
        below.serial_number = Some(SerialNumber::from_slice(BELOW));
        let root_pem = root.self_signed(&root_key).expect("a signature").pem();
        let root = Issuer::new(root, root_key);
        let below_pem = below.signed_by(&below_key, &root).expect("a signature").pem();
        Self { root_pem, below_pem, root, below: Issuer::new(below, below_key) }
    }

    /// The lists of both, PEM; the lower CA is on the root's, or nobody on any.
    pub(crate) fn lists(&self, is_below_revoked: bool) -> String {
        let revoked = |is_revoked: bool| {
            let below = RevokedCertParams {
                serial_number: SerialNumber::from_slice(BELOW),
                revocation_time: OffsetDateTime::now_utc() - time::Duration::hours(1),
                reason_code: None,
                invalidity_date: None,
            };
            is_revoked.then_some(below).into_iter().collect()
        };
        let next_update = OffsetDateTime::now_utc() + time::Duration::days(90);
        list(&self.root, next_update, revoked(is_below_revoked))
            + &list(&self.below, next_update, revoked(false))
    }

    /// A certificate by the lower CA, with that CA's behind it, and its key; in a folder.
    pub(crate) fn issue(
        &self,
        dir: &Path,
        name: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        edit(&mut params);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.below).expect("a signature").pem();
        let file = |suffix: &str| dir.join(format!("{name}{suffix}.pem"));
        let identity = Identity { cert: file(""), key: file("-key") };
        replace(&identity.cert, leaf + &self.below_pem);
        replace(&identity.key, key.serialize_pem());
        identity
    }
}

pub(crate) fn as_client(params: &mut CertificateParams, role: &str) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.custom_extensions.push(role_extension(&role_value(role)));
}

pub(crate) fn as_server(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().expect("a name"))];
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
}

/// How long ago.
pub(crate) fn since(moment: OffsetDateTime) -> Duration {
    SystemTime::now().duration_since(SystemTime::from(moment)).unwrap_or_default()
}

/// A job that counts, a line each number, until it is told to end.
pub(crate) struct Counter {
    pub(crate) job: String,
    gate: PathBuf,
    _folder: TempDir,
}

impl Counter {
    pub(crate) async fn start(client: &mut Client) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let gate = folder.path().join("end");
        let script = format!(
            "i=0; while [ ! -e {} ]; do i=$((i+1)); echo $i; [ $((i % 200)) = 0 ] && sleep 0.01; done; exit 0",
            gate.display()
        );
        let job = start(client, shell(&script)).await.expect("a job").id;
        Self { job, gate, _folder: folder }
    }

    pub(crate) fn end(&self) {
        fs::write(&self.gate, "").expect("a writable folder");
    }

    /// Reads all of it, until it ends.
    pub(crate) fn read(&self, mut client: Client) -> JoinHandle<Job> {
        let job = self.job.clone();
        tokio::spawn(async move {
            let mut stream = client.stream(everything(&job)).await.expect("the output").into_inner();
            let mut bytes = Vec::new();
            loop {
                let message = stream.message().await.expect("no error").expect("the end comes first");
                match message.event.expect("an event") {
                    Event::Chunk(chunk) => {
                        assert_eq!(chunk.offset, bytes.len() as u64, "no byte is left out, none comes twice");
                        bytes.extend_from_slice(&chunk.data);
                    }
                    Event::Gap(gap) => panic!("{gap:?}"),
                    Event::End(end) => {
                        let text = String::from_utf8(bytes).expect("numbers");
                        assert!(text.lines().zip(1..).all(|(line, number)| line == number.to_string()));
                        assert!(text.lines().count() > 1, "{text}");
                        return end;
                    }
                }
            }
        })
    }
}

/// A CA for renewals alone, whose certificate and list are added to those that the worker trusts.
pub(crate) fn renewal_authority(pki: &Pki, name: &str, trusted: bool) -> [String; 2] {
    let folder = pki.dir().join(name);
    let request = AuthorityRequest {
        name: name.parse().expect("a name"),
        key: KeyKind::P256,
        days: "20".parse::<Days>().expect("days"),
    };
    Folder::at(&folder).init(&request).expect("a CA");
    if trusted {
        for file in ["ca.pem", "crl.pem"] {
            let [all, more] =
                [pki.dir(), &folder].map(|dir| fs::read_to_string(dir.join(file)).expect("a file"));
            fs::write(pki.dir().join(file), all + &more).expect("a writable folder");
        }
    }
    ["ca.pem", "ca-key.pem"].map(|file| folder.join(file).to_str().expect("UTF-8").to_owned())
}
