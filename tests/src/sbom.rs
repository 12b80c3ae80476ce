//! The bill of materials of the programs that are handed out, as CycloneDX 1.5 (<https://cyclonedx.org/docs/1.5/json>), from
//! what cargo says: `cargo tree` knows what is really built in, `cargo metadata` the licences, and `Cargo.lock` the checksums.
//!
//! The same sources give the same document, byte by byte: its serial number is made from its content.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The programs that are handed out, by their packages.
pub const PROGRAMS: [&str; 2] = ["jobctl", "jobworker"];

/// What cargo says.
pub struct Sources<'a> {
    /// `cargo tree --prefix depth --format ' {p}'` of what is in the programs.
    pub linked: &'a str,
    /// The same with what only takes part in the build: build scripts, procedural macros, and what they need.
    pub built: &'a str,
    /// `cargo metadata`.
    pub metadata: &'a Value,
    /// `Cargo.lock`.
    pub lock: &'a str,
}

/// A package: name and version.
type Package = (String, String);
/// What each package depends on.
type Graph = BTreeMap<Package, BTreeSet<Package>>;

/// The document.
///
/// # Errors
/// When the sources do not fit each other.
pub fn bill(sources: &Sources<'_>) -> anyhow::Result<Value> {
    let (linked, built) = (graph(sources.linked)?, graph(sources.built)?);
    let checksums = checksums(sources.lock);
    let packages = sources.metadata["packages"].as_array().context("cargo metadata tells of no packages")?;
    let mut components = Vec::new();
    for package in built.keys() {
        let about =
            packages.iter().find(|about| about["name"] == *package.0 && about["version"] == *package.1);
        let about =
            about.with_context(|| format!("cargo metadata does not know {} {}", package.0, package.1))?;
        components.push(component(package, about, linked.contains_key(package), &checksums)?);
    }
    let mut dependencies: Vec<Value> = built
        .iter()
        .map(|(package, on)| json!({ "ref": reference(package), "dependsOn": on.iter().map(reference).collect::<Vec<_>>() }))
        .collect();
    let programs: Vec<&Package> =
        built.keys().filter(|(name, _)| PROGRAMS.contains(&name.as_str())).collect();
    anyhow::ensure!(programs.len() == PROGRAMS.len(), "cargo tree tells of {programs:?} only");
    let version = &programs[0].1;
    let whole = json!({
        "type": "application", "bom-ref": "jobworker-suite", "name": "jobworker", "version": version,
        "licenses": [{ "expression": "Apache-2.0" }],
    });
    let top = json!({ "ref": "jobworker-suite", "dependsOn": programs.into_iter().map(reference).collect::<Vec<_>>() });
    dependencies.insert(0, top);
    let serial = serial(&json!([components, dependencies]));
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": serial, "version": 1,
        "metadata": { "component": whole },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// Lines such as `2 serde v1.0.1` and `1 jobworker-limits v0.1.0 (/src/limits)`: a package's dependencies follow it, one
/// deeper; where it is named again they are left out.
fn graph(tree: &str) -> anyhow::Result<Graph> {
    let mut graph = Graph::new();
    let mut above: Vec<Package> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let [depth, name, version] = [(); 3].map(|()| words.next().unwrap_or_default());
        let depth: usize = depth.parse().with_context(|| format!("{line:?} is no line of cargo tree"))?;
        let version = version.strip_prefix('v').with_context(|| format!("{line:?} tells no version"))?;
        anyhow::ensure!(depth <= above.len(), "{line:?} is too deep for where it stands");
        let package = (name.to_owned(), version.to_owned());
        above.truncate(depth);
        if let Some(parent) = above.last() {
            graph.entry(parent.clone()).or_default().insert(package.clone());
        }
        graph.entry(package.clone()).or_default();
        above.push(package);
    }
    Ok(graph)
}

/// The SHA-256 of each package from a registry.
fn checksums(lock: &str) -> BTreeMap<Package, String> {
    let value = |section: &str, key: &str| {
        let line = section.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").skip(1);
    packages
        .filter_map(|section| {
            Some(((value(section, "name")?, value(section, "version")?), value(section, "checksum")?))
        })
        .collect()
}

fn component(
    package: &Package,
    about: &Value,
    is_linked: bool,
    checksums: &BTreeMap<Package, String>,
) -> anyhow::Result<Value> {
    let (name, version) = package;
    let kind = if PROGRAMS.contains(&name.as_str()) { "application" } else { "library" };
    let licence = about["license"].as_str().with_context(|| format!("{name} {version} tells no licence"))?;
    let mut component = json!({
        "type": kind, "bom-ref": reference(package), "name": name, "version": version,
        // In the words of CycloneDX: excluded is what is no part of what runs.
        "scope": if is_linked { "required" } else { "excluded" },
        "licenses": [{ "expression": expression(licence) }],
    });
    if !about["source"].is_null() {
        let checksum = checksums.get(package).with_context(|| format!("{name} {version} has no checksum"))?;
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        component["purl"] = reference(package).into();
    }
    if let Some(url) = about["repository"].as_str() {
        component["externalReferences"] = json!([{ "type": "vcs", "url": url }]);
    }
    if let Some(description) = about["description"].as_str() {
        component["description"] = description.split_whitespace().collect::<Vec<_>>().join(" ").into();
    }
    Ok(component)
}

/// A package URL (<https://github.com/package-url/purl-spec>); a `+` of the version would stand for a space.
fn reference((name, version): &Package) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// cargo's older way to write OR, as SPDX has it.
fn expression(licence: &str) -> String {
    licence.split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")
}

fn serial(content: &Value) -> String {
    let digest: [u8; 32] = Sha256::digest(content.to_string()).into();
    let (half, _) = digest.split_first_chunk().expect("32 bytes");
    format!("urn:uuid:{}", uuid::Builder::from_custom_bytes(*half).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINKED: &str = "0 jobctl v0.1.0 (/src/ctl)\n1 serde v1.0.1\n2 core v2.0.0+x\n\n0 jobworker v0.1.0 (/src/worker)\n1 serde v1.0.1 (*)\n";
    const BUILT: &str = "0 jobctl v0.1.0 (/src/ctl)\n1 serde v1.0.1\n2 core v2.0.0+x\n2 derive v1.0.1 (proc-macro)\n\n\
                         0 jobworker v0.1.0 (/src/worker)\n1 serde v1.0.1 (*)\n";
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nchecksum = \"aa\"\n\n[[package]]\n\
                        name = \"core\"\nversion = \"2.0.0+x\"\nchecksum = \"bb\"\n\n[[package]]\nname = \"derive\"\n\
                        version = \"1.0.1\"\nchecksum = \"cc\"\n\n[[package]]\nname = \"jobctl\"\nversion = \"0.1.0\"\n";

    fn metadata() -> Value {
        let ours =
            |name| json!({ "name": name, "version": "0.1.0", "source": null, "license": "Apache-2.0" });
        let theirs = |name, version| json!({ "name": name, "version": version, "source": "registry", "license": "MIT/Apache-2.0" });
        let all = [
            ours("jobctl"),
            ours("jobworker"),
            theirs("serde", "1.0.1"),
            theirs("core", "2.0.0+x"),
            theirs("derive", "1.0.1"),
        ];
        json!({ "packages": all })
    }

    fn made(lock: &str) -> anyhow::Result<Value> {
        bill(&Sources { linked: LINKED, built: BUILT, metadata: &metadata(), lock })
    }

    #[test]
    fn a_bill_tells_what_is_in_the_programs() {
        let bill = made(LOCK).unwrap();
        let components = bill["components"].as_array().unwrap();
        assert_eq!(components.len(), 5);
        let named = |name: &str| components.iter().find(|component| component["name"] == name).unwrap();
        assert_eq!(
            (&named("derive")["scope"], &named("core")["scope"]),
            (&"excluded".into(), &"required".into())
        );
        assert_eq!(named("core")["purl"], "pkg:cargo/core@2.0.0%2Bx");
        assert_eq!(named("serde")["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(named("serde")["hashes"][0]["content"], "aa");
        assert_eq!(
            (&named("jobctl")["purl"], &named("jobctl")["type"]),
            (&Value::Null, &"application".into())
        );
        let on = |name: &str| {
            let all = bill["dependencies"].as_array().unwrap();
            all.iter().find(|entry| entry["ref"] == name).unwrap()["dependsOn"].clone()
        };
        assert_eq!(
            on("pkg:cargo/serde@1.0.1"),
            json!(["pkg:cargo/core@2.0.0%2Bx", "pkg:cargo/derive@1.0.1"])
        );
        assert_eq!(on("jobworker-suite"), json!(["pkg:cargo/jobctl@0.1.0", "pkg:cargo/jobworker@0.1.0"]));
    }

    #[test]
    fn the_serial_number_is_the_contents() {
        let (bill, other) = (made(LOCK).unwrap(), made(&LOCK.replace("aa", "ab")).unwrap());
        assert_eq!(bill, made(LOCK).unwrap());
        assert_ne!(bill["serialNumber"], other["serialNumber"]);
        assert_eq!(bill["serialNumber"].as_str().map(str::len), Some("urn:uuid:".len() + 36));
    }

    #[test]
    fn what_is_not_complete_is_no_bill() {
        let error = made(&LOCK.replace("name = \"core\"", "name = \"crust\"")).unwrap_err().to_string();
        assert!(error.contains("core 2.0.0+x has no checksum"), "{error}");
        for odd in ["x serde v1", "0 serde", "1 serde v1.0.0", "0 serde 1.0.0"] {
            assert!(graph(odd).is_err(), "{odd}");
        }
    }
}
