//! `jobworker certs status`: what ends when, and what is wrong; by its exit code, too.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use jobworker_tests::Pki;
use jobworker_tests::binaries::binary;
use jobworker_tests::pki::{role_extension, role_value};
use jobworker_tests::worker::clean;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::certs_support::{ending, list_until, renewal_authority, replace};
use crate::support::Answer;

fn status(args: &[&str]) -> Answer {
    let mut jobworker = Command::new(binary("jobworker"));
    clean(&mut jobworker);
    jobworker.args(["certs", "status"]).args(args).stdin(Stdio::null());
    Answer::of(jobworker.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// The columns of the line of a file.
#[track_caller]
fn line(answer: &Answer, file: &str) -> Vec<String> {
    let found =
        answer.stdout.lines().find(|line| line.split("  ").next().is_some_and(|path| path.ends_with(file)));
    let found = found.unwrap_or_else(|| panic!("no line of {file}: {answer:#?}"));
    found.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_folder_is_told_soonest_first_with_roles_and_keys() {
    let pki = Pki::new();
    ending(&pki, "soon", OffsetDateTime::now_utc() + Duration::hours(10 * 24 + 12));
    let dir = text(pki.dir());
    let answer = status(&["--dir", dir]).with_code(0);
    let days: Vec<i64> = answer
        .stdout
        .lines()
        .skip(1)
        .map(|line| {
            line.split("  ")
                .filter(|cell| !cell.trim().is_empty())
                .nth(3)
                .expect("a column")
                .trim()
                .parse()
                .expect("days")
        })
        .collect();
    assert!(days.is_sorted() && days.len() == 6, "{answer:#?}");
    assert_eq!(line(&answer, "/soon.pem")[1..2], ["client soon role admin"]);
    assert_eq!(line(&answer, "/soon.pem")[3..], ["10", "soon", "matches"]);
    assert_eq!(line(&answer, "/alice.pem")[1], "client alice role admin");
    assert_eq!(line(&answer, "/server.pem")[1], "server localhost, 127.0.0.1");
    assert_eq!(line(&answer, "/ca.pem")[1], "CA test CA");
    assert_eq!(line(&answer, "/ca.pem")[4..], ["ok", "matches"]);
    assert_eq!(line(&answer, "/crl.pem")[1], "revocation list of CA test CA");
    assert!(!answer.stdout.contains("PRIVATE") && !answer.stdout.contains("-key.pem"), "{answer:#?}");
}

#[test]
fn what_is_revoked_or_expired_or_not_its_keys_is_told_by_the_exit_code() {
    let pki = Pki::new();
    let dir = text(pki.dir());
    pki.revoke("bob");
    let answer = status(&["--dir", dir]).with_code(1);
    assert_eq!(line(&answer, "/bob.pem")[4], "revoked");
    assert_eq!(line(&answer, "/alice.pem")[4], "ok");
    // Alone, too: the list is beside it.
    let bob = pki.identity("bob");
    status(&[text(&bob.cert)]).with_code(1);
    status(&[text(&pki.identity("alice").cert)]).with_code(0);
    // Another CA of the same name has revoked nobody here, whatever serial it has.
    let other = Pki::new();
    assert_eq!(line(&status(&[text(&bob.cert), text(&other.crl())]).with_code(0), "/bob.pem")[4], "ok");

    let (alice, server) = (pki.identity("alice"), pki.server());
    let answer = status(&[text(&alice.cert), text(&server.key)]).with_code(1);
    assert_eq!(line(&answer, "/alice.pem")[5], "DOES NOT MATCH");

    let broken = pki.dir().join("broken.crl");
    replace(&broken, "garbage");
    status(&[text(&broken)])
        .with_code(1)
        .saying(&["broken.crl holds neither a certificate nor a revocation list"]);
    std::fs::remove_file(broken).expect("it is there");

    let over = pki.odd_client("over", |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() - Duration::hours(30);
        params.custom_extensions.push(role_extension(&role_value("user")));
    });
    let answer = status(&[text(&over.cert)]).with_code(1);
    assert_eq!(line(&answer, "/over.pem")[3..], ["-2", "expired", "matches"]);
    replace(&pki.crl(), list_until(&pki, OffsetDateTime::now_utc() - Duration::hours(1)));
    let answer = status(&[text(&pki.crl())]).with_code(1);
    assert_eq!(line(&answer, "/crl.pem")[4], "expired");
}

#[test]
fn a_workers_own_files_are_told_from_its_configuration() {
    let pki = Pki::new();
    let file = pki.dir().join("worker.toml");
    let toml = |crl: &str| {
        let (ca, server) = (pki.ca(), pki.server());
        format!("ca = {ca:?}\ncert = {:?}\nkey = {:?}\ncrl = {crl}\n", server.cert, server.key)
    };
    // One list as it was always written, or several.
    for crl in [format!("{:?}", pki.crl()), format!("[{:?}]", pki.crl())] {
        fs::write(&file, toml(&crl)).expect("a writable folder");
        let answer = status(&["--config", text(&file), "--output", "json"]).with_code(0);
        let all: Vec<Value> = serde_json::from_str(&answer.stdout).expect("JSON");
        assert_eq!(all.len(), 3, "{all:#?}");
        let server = all.iter().find(|one| one["what"] == "server localhost, 127.0.0.1").expect("a server");
        assert_eq!((&server["state"], &server["key"]), (&"ok".into(), &"matches".into()));
        assert!(server["not_after_unix_sec"].as_i64().is_some_and(|end| end > 1_700_000_000), "{server}");
    }
    // The CA that renews, with its key: another one, or the one that clients are trusted by.
    let renewal = renewal_authority(&pki, "renewal", false);
    let own = [pki.ca(), pki.dir().join("ca-key.pem")].map(|path| text(&path).to_owned());
    for ([ca, key], files, state) in [(renewal, 4, "soon"), (own, 3, "ok")] {
        let renewing =
            format!("{}renew-ca = {ca:?}\nrenew-key = {key:?}\n", toml(&format!("{:?}", pki.crl())));
        fs::write(&file, renewing).expect("a writable folder");
        let answer = status(&["--config", text(&file), "--output", "json"]).with_code(0);
        let all: Vec<Value> = serde_json::from_str(&answer.stdout).expect("JSON");
        assert_eq!(all.len(), files, "{all:#?}");
        let told = all.iter().find(|one| one["file"] == ca.as_str()).unwrap_or_else(|| panic!("{all:#?}"));
        assert_eq!((&told["state"], &told["key"]), (&state.into(), &"matches".into()), "{told}");
    }
    fs::write(&file, "").expect("a writable folder");
    status(&["--config", text(&file)]).with_code(1).saying(&["no FILE and no --dir", "--ca is missing"]);
    status(&[text(&file.with_extension("none"))]).with_code(1).saying(&["worker.none", "No such file"]);
}
