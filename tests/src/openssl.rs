//! Certificates by openssl with anything wrong that one likes: old signatures, weak keys, chains that break their own rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// For `openssl ca`, which dates as it is told.
const CONFIG: &str = "\
[ca]
default_ca = d
[d]
database = index.txt
new_certs_dir = .
crlnumber = crlnumber
policy = p
unique_subject = no
rand_serial = yes
default_md = sha256
[p]
commonName = supplied
";

/// The extensions of a CA that may have CAs below it.
pub const CA: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";

/// The extensions of an admin's certificate.
pub const CLIENT: &str = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n\
                          1.3.6.1.4.1.32473.1.1=ASN1:UTF8String:admin\n";

/// The extensions of a worker's certificate on this host.
pub const SERVER: &str = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n\
                          subjectAltName=DNS:localhost,IP:127.0.0.1\n";

/// A kind of key.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// On a curve, by openssl's name.
    Curve(&'static str),
    /// RSA, of so many bits.
    Rsa(u16),
}

/// What a certificate is to be.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// The files' name.
    pub file: &'a str,
    /// The common name.
    pub common_name: &'a str,
    /// Its key.
    pub key: Key,
    /// The file's name of the CA that signs it; `None`: itself.
    pub signer: Option<&'a str>,
    /// Its extensions, a line each.
    pub extensions: &'a str,
    /// The first and the last second, `YYMMDDHHMMSSZ`.
    pub validity: [&'a str; 2],
    /// How it is signed, as arguments of `openssl ca`.
    pub signature: &'a [&'a str],
}

impl Default for Certificate<'_> {
    fn default() -> Self {
        Self {
            file: "",
            common_name: "",
            key: Key::Curve("P-256"),
            signer: None,
            extensions: CA,
            validity: ["200101000000Z", "480101000000Z"],
            signature: &[],
        }
    }
}

/// A folder in which openssl works.
pub struct Openssl {
    dir: TempDir,
}

impl Openssl {
    /// An empty one.
    ///
    /// # Panics
    /// When it can't be made, as everything here does.
    pub fn new() -> Self {
        let openssl = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        for (file, text) in [("ca.cnf", CONFIG), ("index.txt", ""), ("crlnumber", "01\n")] {
            fs::write(openssl.path(file), text).expect("a writable folder");
        }
        openssl
    }

    /// A file in it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// What a file in it holds.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("a text file")
    }

    /// Makes `FILE.pem` and `FILE-key.pem`.
    pub fn issue(&self, certificate: Certificate<'_>) {
        let Certificate { file, common_name, key, signer, extensions, validity, signature } = certificate;
        let [pem, key_pem, csr, ext] = [".pem", "-key.pem", ".csr", ".ext"].map(|end| format!("{file}{end}"));
        match key {
            Key::Curve(curve) => {
                let curve = format!("ec_paramgen_curve:{curve}");
                self.run(&["genpkey", "-algorithm", "EC", "-pkeyopt", &curve, "-out", &key_pem]);
            }
            Key::Rsa(bits) => {
                let bits = format!("rsa_keygen_bits:{bits}");
                self.run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits, "-out", &key_pem]);
            }
        }
        self.run(&["req", "-new", "-subj", &format!("/CN={common_name}"), "-key", &key_pem, "-out", &csr]);
        fs::write(self.path(&ext), extensions).expect("a writable folder");
        let mut args = vec!["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", &csr, "-out", &pem];
        args.extend(["-extfile", &ext, "-startdate", validity[0], "-enddate", validity[1]]);
        let [signer_pem, signer_key] =
            [".pem", "-key.pem"].map(|end| format!("{}{end}", signer.unwrap_or(file)));
        match signer {
            None => args.extend(["-selfsign", "-keyfile", &signer_key]),
            Some(_) => args.extend(["-cert", &signer_pem, "-keyfile", &signer_key]),
        }
        args.extend(signature);
        self.run(&args);
    }

    /// A list of nobody, by a CA, PEM. It says nothing of the key that it is signed with.
    pub fn list(&self, signer: &str, lasts_until: &str) -> String {
        let [pem, key] = [".pem", "-key.pem"].map(|end| format!("{signer}{end}"));
        let args =
            ["ca", "-gencrl", "-config", "ca.cnf", "-cert", &pem, "-keyfile", &key, "-out", "list.pem"];
        let dates = ["-crl_lastupdate", "200101000000Z", "-crl_nextupdate", lasts_until];
        self.run(&[&args[..], &dates].concat());
        self.read("list.pem")
    }

    /// Runs openssl.
    pub fn run(&self, args: &[&str]) {
        let mut openssl = Command::new("openssl");
        let done = openssl.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).output();
        let done = done.expect("openssl can be executed");
        assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Default for Openssl {
    fn default() -> Self {
        Self::new()
    }
}
