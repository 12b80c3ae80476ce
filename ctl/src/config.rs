//! Which worker to talk to and with which certificate: each value from the flag, else the environment (clap merges
//! these two), else the context in the configuration file.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

use crate::address::Address;
use crate::cli::Globals;
use crate::files;

const DEFAULT_ADDRESS: &str = "127.0.0.1:50051";

/// A worker and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) credentials: Credentials,
}

/// Files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) ca: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Revocation lists of the CAs in `ca`; none: no worker's certificate is revoked.
    pub(crate) crl: Vec<PathBuf>,
}

impl Target {
    /// # Errors
    /// The configuration file can't be used, the context is not in it, or a credential is named nowhere.
    pub(crate) fn resolve(globals: &Globals) -> anyhow::Result<Self> {
        let context = if is_complete(globals) { None } else { context(globals.context.as_deref())? };
        Self::merge(globals, context.unwrap_or_default())
    }

    /// Your certificate alone, for what needs no worker.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub(crate) fn certificate(globals: &Globals) -> anyhow::Result<PathBuf> {
        let context = if globals.cert.is_some() { None } else { context(globals.context.as_deref())? };
        pick("cert", &globals.cert, context.unwrap_or_default().cert)
    }

    fn merge(globals: &Globals, context: Context) -> anyhow::Result<Self> {
        let address = match (&globals.address, context.address) {
            (Some(address), _) => address.clone(),
            (None, Some(text)) => text.parse().context("address in the context")?,
            (None, None) => DEFAULT_ADDRESS.parse()?,
        };
        // A context's lists are those of its CAs.
        let listed = if globals.ca.is_none() { context.crl } else { Vec::new() };
        let credentials = Credentials {
            crl: globals.crl.clone().unwrap_or(listed),
            ca: pick("ca", &globals.ca, context.ca)?,
            cert: pick("cert", &globals.cert, context.cert)?,
            key: pick("key", &globals.key, context.key)?,
        };
        Ok(Self { address, credentials })
    }
}

/// The file need not be read when nothing can come from it.
fn is_complete(globals: &Globals) -> bool {
    let Globals { address, ca, cert, key, context, .. } = globals;
    context.is_none() && address.is_some() && ca.is_some() && cert.is_some() && key.is_some()
}

fn pick(name: &str, given: &Option<PathBuf>, in_context: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    given.clone().or(in_context).ok_or_else(|| {
        anyhow!(
            "no --{name}: give it as --{name} FILE, as JOBCTL_{} in the environment, or as `{name}` of a context in the \
             configuration file",
            name.to_uppercase(),
        )
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// Paths are relative to the file's folder.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    address: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default, deserialize_with = "one_or_more")]
    crl: Vec<PathBuf>,
}

/// A path, or a list of them.
fn one_or_more<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        One(PathBuf),
        More(Vec<PathBuf>),
    }
    Paths::deserialize(value).map(|paths| match paths {
        Paths::One(path) => vec![path],
        Paths::More(paths) => paths,
    })
}

/// The contexts that use the certificate in this file, with a CA's file other than `ca`: their names and CA's files. None
/// where the configuration file can't be used.
pub(crate) fn contexts_with(cert: &Path, ca: &Path) -> Vec<(String, PathBuf)> {
    let path = env::var_os("JOBCTL_CONFIG").map(PathBuf::from).or_else(default_path);
    let text = path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let Ok(ConfigFile { contexts, .. }) = toml::from_str(&text) else { return Vec::new() };
    let folder = path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let is_it = |one: &Path, other: &Path| {
        let real = |path: &Path| path.canonicalize().ok();
        one == other || real(one).is_some_and(|one| real(other) == Some(one))
    };
    let uses = |(name, context): (String, Context)| {
        let (own_cert, own_ca) = (folder.join(context.cert?), folder.join(context.ca?));
        (is_it(&own_cert, cert) && !is_it(&own_ca, ca)).then_some((name, own_ca))
    };
    contexts.into_iter().filter_map(uses).collect()
}

/// The context called `name`, else the file's current one; `None` when there is neither.
fn context(name: Option<&str>) -> anyhow::Result<Option<Context>> {
    let (path, must_exist) = match (env::var_os("JOBCTL_CONFIG"), default_path()) {
        (Some(path), _) => (PathBuf::from(path), true),
        (None, Some(path)) => (path, name.is_some()),
        (None, None) if name.is_none() => return Ok(None),
        (None, None) => {
            bail!("--context needs a configuration file, and neither JOBCTL_CONFIG nor HOME is set")
        }
    };
    let unreadable = || format!("cannot read the configuration file {}", path.display());
    let data = match files::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(None),
        read => read.with_context(unreadable)?,
    };
    let text = String::from_utf8(data).with_context(unreadable)?;
    select(&text, &path, name).with_context(|| format!("configuration file {}", path.display()))
}

/// The XDG base directory specification's place.
fn default_path() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(folder.join("jobctl/config.toml"))
}

fn select(text: &str, path: &Path, name: Option<&str>) -> anyhow::Result<Option<Context>> {
    let ConfigFile { current, mut contexts } = toml::from_str(text)?;
    let Some(name) = name.or(current.as_deref()) else { return Ok(None) };
    let Some(mut context) = contexts.remove(name) else {
        let known: Vec<_> = contexts.keys().map(String::as_str).collect();
        bail!(
            "no context {name:?}; there is: {}",
            if known.is_empty() { "none".into() } else { known.join(", ") }
        );
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = [&mut context.ca, &mut context.cert, &mut context.key].into_iter().flatten();
    for file in files.chain(&mut context.crl) {
        *file = folder.join(&*file);
    }
    Ok(Some(context))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Color, Format};

    const FILE: &str = r#"
        current = "prod"
        [contexts.prod]
        address = "prod.example:1"
        ca = "ca.pem"
        crl = ["crl.pem", "/abs/second-crl.pem"]
        cert = "/abs/alice.pem"
        key = "keys/alice-key.pem"
        [contexts.lab]
        address = "lab.example:2"
    "#;

    fn globals() -> Globals {
        let (output, color) = (Format::Text, Color::Auto);
        Globals { address: None, ca: None, crl: None, cert: None, key: None, context: None, output, color }
    }

    fn from_file(name: Option<&str>) -> anyhow::Result<Context> {
        Ok(select(FILE, Path::new("/etc/x/config.toml"), name)?.expect("a context"))
    }

    #[test]
    fn the_context_fills_what_is_not_given_and_its_paths_are_relative_to_the_file() {
        let given = Globals { cert: Some("bob.pem".into()), ..globals() };
        let target = Target::merge(&given, from_file(None).expect("current")).expect("complete");
        assert_eq!(target.address.to_string(), "prod.example:1");
        let expected = Credentials {
            ca: "/etc/x/ca.pem".into(),
            cert: "bob.pem".into(),
            key: "/etc/x/keys/alice-key.pem".into(),
            crl: vec!["/etc/x/crl.pem".into(), "/abs/second-crl.pem".into()],
        };
        assert_eq!(target.credentials, expected);
    }

    #[test]
    fn a_contexts_lists_go_with_its_ca() {
        let lists = |given: &Globals| {
            let target = Target::merge(given, from_file(None).expect("current")).expect("complete");
            target.credentials.crl
        };
        let own = Globals { crl: Some(vec!["own.pem".into()]), ..globals() };
        assert_eq!(lists(&own), [PathBuf::from("own.pem")]);
        assert_eq!(lists(&globals()).len(), 2);
        let other_ca = Globals { ca: Some("other.pem".into()), ..globals() };
        assert_eq!(lists(&other_ca), Vec::<PathBuf>::new());
        let one = select("current = 'a'\n[contexts.a]\ncrl = 'crl.pem'", Path::new("/etc/x/c.toml"), None);
        assert_eq!(one.expect("strict").expect("a").crl, [PathBuf::from("/etc/x/crl.pem")]);
    }

    #[test]
    fn what_is_given_wins_over_the_context() {
        let address = Some("other:3".parse().expect("address"));
        let target = Target::merge(&Globals { address, ..globals() }, from_file(None).expect("current"));
        assert_eq!(target.expect("complete").address.to_string(), "other:3");
        assert_eq!(from_file(Some("lab")).expect("lab").address.as_deref(), Some("lab.example:2"));
    }

    #[test]
    fn without_any_the_address_is_the_default_and_a_credential_is_asked_for() {
        let path = || Some(PathBuf::from("f"));
        let complete = Globals { ca: path(), cert: path(), key: path(), ..globals() };
        let target = Target::merge(&complete, Context::default()).expect("complete");
        assert_eq!(target.address.to_string(), DEFAULT_ADDRESS);

        let error =
            Target::merge(&Globals { cert: None, ..complete }, Context::default()).expect_err("no cert");
        let error = error.to_string();
        for way in ["--cert FILE", "JOBCTL_CERT", "`cert` of a context"] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn the_file_is_read_strictly() {
        let path = Path::new("config.toml");
        assert!(select("[contexts.a]\nadress = 'x:1'", path, None).is_err(), "misspelt key");
        assert!(select("curent = 'a'", path, None).is_err(), "misspelt key");
        let error = select(FILE, path, Some("prd")).expect_err("unknown context").to_string();
        assert_eq!(error, "no context \"prd\"; there is: lab, prod");
        assert!(select("", path, None).expect("an empty file is fine").is_none());
    }
}
