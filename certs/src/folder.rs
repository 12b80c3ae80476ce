//! The folder of a CA: which file is called how, and what is done to them together.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rcgen::{KeyPair, PublicKeyData};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    Authority, AuthorityRequest, Csr, Error, Holder, Issued, KeyKind, NewRequest, RequestedNames, Revocation,
    Serial, Signed,
    crl::{RevocationList, Unusable},
    files::{NewFile, pem_contents, write_set},
};

pub(crate) const AUTHORITY_CERTIFICATE: &str = "ca.pem";
pub(crate) const AUTHORITY_KEY: &str = "ca-key.pem";
const REVOCATION_LIST: &str = "crl.pem";

/// What to do with files that are already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave them and fail.
    Keep,
    /// Replace them: a renewal.
    Replace,
}

/// The folder that holds a CA and what it issued.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// Where certificates and keys that are issued go, if not into `dir`.
    out: Option<PathBuf>,
}

impl Folder {
    /// The folder at `dir`, which [`Self::init`] makes if it is missing.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), out: None }
    }

    /// Has what is issued stored in the folder `out` instead, where one is given; it is made if it is missing. So one CA can
    /// issue to several workers, whose files have the same names.
    #[must_use]
    pub fn issuing_to(self, out: Option<PathBuf>) -> Self {
        Self { out, ..self }
    }

    /// The path of a file in it.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// The path of a file that is issued: a certificate, or the key that was made with it.
    #[must_use]
    pub fn issued_path(&self, file: &str) -> PathBuf {
        self.out.as_ref().unwrap_or(&self.dir).join(file)
    }

    /// Makes a CA: `ca.pem`, `ca-key.pem` (0600), and `crl.pem`, an empty signed list. A folder that is missing is
    /// made with mode 0700.
    ///
    /// # Errors
    /// [`Error::AuthorityExists`] if one of the three files is there; [`Error::Io`], [`Error::Crypto`].
    pub fn init(&self, request: &AuthorityRequest) -> Result<Authority, Error> {
        create(&self.dir)?;
        let _lock = self.lock()?;
        let names = [AUTHORITY_CERTIFICATE, AUTHORITY_KEY, REVOCATION_LIST];
        if let Some(path) = first_existing(names.map(|file| self.path(file)))? {
            return Err(Error::AuthorityExists { path });
        }
        let authority = Authority::create(request)?;
        let list = RevocationList::empty().sign(&authority, OffsetDateTime::now_utc())?;
        write_set(
            &self.dir,
            &[
                NewFile::secret(AUTHORITY_KEY, &authority.key_pem()),
                NewFile::public(REVOCATION_LIST, &list),
                NewFile::public(AUTHORITY_CERTIFICATE, authority.certificate_pem()),
            ],
            Existing::Keep,
        )?;
        Ok(authority)
    }

    /// Has a certificate issued for `holder` by the folder's CA and stores it with its key (0600).
    ///
    /// # Errors
    /// [`Error::CertificateExists`] under [`Existing::Keep`]; what [`Authority::load`] and `issue` return;
    /// [`Error::Io`]. On an error the files are as they were.
    pub fn issue(
        &self,
        holder: &Holder,
        existing: Existing,
        issue: impl FnOnce(&Authority) -> Result<Issued, Error>,
    ) -> Result<Issued, Error> {
        let authority = Authority::load(&self.dir)?;
        let _lock = self.lock()?;
        let (certificate, key) = (holder.certificate_file(), holder.key_file());
        self.expect_room_for(&[&certificate, &key], existing)?;
        let issued = issue(&authority)?;
        let files =
            [NewFile::secret(&key, &issued.key_pem), NewFile::public(&certificate, &issued.certificate_pem)];
        self.write_issued(&files, existing)?;
        Ok(issued)
    }

    /// Makes a private key (0600) and a request for a certificate, for somebody else's CA to sign. A folder that is
    /// missing is made with mode 0700.
    ///
    /// # Errors
    /// [`Error::RequestExists`] under [`Existing::Keep`]; [`Error::Io`], [`Error::Crypto`]. On an error the files are
    /// as they were.
    pub fn request(
        &self,
        holder: &Holder,
        existing: Existing,
        key: KeyKind,
        names: &RequestedNames,
    ) -> Result<NewRequest, Error> {
        create(&self.dir)?;
        let _lock = self.lock()?;
        let (request, key_file) = (holder.request_file(), holder.key_file());
        if existing == Existing::Keep
            && let Some(path) = first_existing([&request, &key_file].map(|file| self.path(file)))?
        {
            return Err(Error::RequestExists { path });
        }
        let made = NewRequest::make(key, names)?;
        let files = [NewFile::secret(&key_file, &made.key_pem), NewFile::public(&request, &made.csr_pem)];
        write_set(&self.dir, &files, existing)?;
        Ok(made)
    }

    /// Has a request signed by the folder's CA and stores the certificate, so that [`Self::serial_of`] finds it. The
    /// key is somebody else's; one of that name in the folder must be the request's.
    ///
    /// # Errors
    /// [`Error::CertificateExists`] under [`Existing::Keep`], [`Error::OtherKey`]; what [`Authority::load`] and `sign`
    /// return; [`Error::Io`]. On an error the files are as they were.
    pub fn sign(
        &self,
        holder: &Holder,
        existing: Existing,
        csr: &Csr,
        sign: impl FnOnce(&Authority) -> Result<Signed, Error>,
    ) -> Result<Signed, Error> {
        let authority = Authority::load(&self.dir)?;
        let _lock = self.lock()?;
        let certificate = holder.certificate_file();
        self.expect_room_for(&[&certificate], existing)?;
        self.expect_key_of(holder, csr)?;
        let signed = sign(&authority)?;
        self.write_issued(&[NewFile::public(&certificate, &signed.certificate_pem)], existing)?;
        Ok(signed)
    }

    fn expect_room_for(&self, issued: &[&str], existing: Existing) -> Result<(), Error> {
        if existing == Existing::Replace {
            return Ok(());
        }
        let paths = issued.iter().map(|file| self.issued_path(file));
        first_existing(paths)?.map_or(Ok(()), |path| Err(Error::CertificateExists { path }))
    }

    fn write_issued(&self, files: &[NewFile<'_>], existing: Existing) -> Result<(), Error> {
        if let Some(out) = &self.out {
            create(out)?;
        }
        write_set(self.out.as_ref().unwrap_or(&self.dir), files, existing)
    }

    /// A certificate beside a key that is another's would be found out by whoever tries to use both.
    fn expect_key_of(&self, holder: &Holder, csr: &Csr) -> Result<(), Error> {
        let path = self.issued_path(&holder.key_file());
        let pem = match fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        match KeyPair::from_pem(&pem) {
            Ok(key) if key.subject_public_key_info() == csr.key().der() => Ok(()),
            _ => Err(Error::OtherKey { path }),
        }
    }

    /// The serial number in `holder`'s certificate.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`]; [`Error::ForeignIssuer`] if another CA signed it.
    pub fn serial_of(&self, holder: &Holder) -> Result<Serial, Error> {
        let authority = Authority::load(&self.dir)?;
        let path = self.issued_path(&holder.certificate_file());
        let pem = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let malformed = |reason| Error::Malformed { path: path.clone(), reason };
        let der = pem_contents(&pem, "CERTIFICATE").map_err(malformed)?;
        let (_, certificate) = X509Certificate::from_der(&der)
            .map_err(|error| malformed(format!("not a certificate: {error}")))?;
        if !authority.issued(certificate.issuer(), certificate.extensions()) {
            return Err(Error::ForeignIssuer { path });
        }
        Ok(Serial::from(&certificate.serial))
    }

    /// Adds a serial number to `crl.pem` and signs it again, with its number increased.
    ///
    /// # Errors
    /// [`Error::RevokesAuthority`]; [`Error::Io`], [`Error::Malformed`] or [`Error::ForeignIssuer`] if the list
    /// can't be used; [`Error::AuthorityExpired`], [`Error::Crypto`]. The list is then as it was.
    pub fn revoke(&self, serial: &Serial) -> Result<Revocation, Error> {
        let authority = Authority::load(&self.dir)?;
        if serial == authority.serial() {
            return Err(Error::RevokesAuthority { serial: serial.clone() });
        }
        // Two at once would each sign a list without the other's entry.
        let _lock = self.lock()?;
        let path = self.path(REVOCATION_LIST);
        let pem = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let mut list = RevocationList::parse(&pem, &authority).map_err(|unusable| match unusable {
            Unusable::Foreign => Error::ForeignIssuer { path },
            Unusable::Malformed(reason) => Error::Malformed { path, reason },
        })?;
        let now = OffsetDateTime::now_utc();
        let revocation = list.revoke(serial, now);
        if revocation == Revocation::Added {
            let pem = list.sign(&authority, now)?;
            write_set(&self.dir, &[NewFile::public(REVOCATION_LIST, &pem)], Existing::Replace)?;
        }
        Ok(revocation)
    }

    /// Held until the returned file is dropped; the kernel gives it up when the process ends.
    fn lock(&self) -> Result<File, Error> {
        let lock = File::open(&self.dir).map_err(Error::io("open folder", &self.dir))?;
        lock.lock().map_err(Error::io("lock folder", &self.dir))?;
        Ok(lock)
    }
}

fn create(dir: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(Error::io("create folder", dir))
}

fn first_existing(paths: impl IntoIterator<Item = PathBuf>) -> Result<Option<PathBuf>, Error> {
    for path in paths {
        // A dangling link is in the way, too.
        match fs::symlink_metadata(&path) {
            Ok(_) => return Ok(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("look up", path)(error)),
        }
    }
    Ok(None)
}
