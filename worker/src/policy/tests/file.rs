//! What is wrong in a file is named, with its line; and the shipped ones are right.

use super::*;

fn words(text: &str) -> String {
    Policy::parse("p.toml", text).expect_err(text).to_string()
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, parts) in [
        ("", &["p.toml:", "no roles", "[roles.admin]"][..]),
        ("[roles.user]\nstop = \"mine\"", &["p.toml:2: `stop = \"mine\"`", "`mine`", "`own`", "`any`"]),
        ("[roles.user]\nstart = \"any\"", &["p.toml:2: `start = \"any\"`", "\"own\" is right here"]),
        ("[roles.user]\nrenew = \"any\"", &["p.toml:2: `renew = \"any\"`", "\"own\" is right here"]),
        (
            "identify = \"fingerprint\"\n[roles.user]\nfingerprints = []\nrenew = \"own\"",
            &["p.toml:4: `renew = \"own\"`", "has another fingerprint"],
        ),
        ("[roles.user]\n\nhalt = \"any\"", &["p.toml:3: `halt = \"any\"`", "unknown field `halt`", "`stop`"]),
        ("rolls = 1\n[roles.user]", &["p.toml:1: `rolls = 1`", "unknown field `rolls`"]),
        ("identify = \"name\"\n[roles.user]", &["p.toml:1:", "`name`", "`fingerprint`"]),
        ("ownership = \"role\"\n[roles.user]", &["p.toml:1:", "`role`", "`serial`"]),
        ("[roles.user\nstop = 1", &["p.toml:1: `[roles.user`"]),
        ("[roles.user]\nstop = \"any\"\nstop = \"own\"", &["p.toml:3:", "duplicate key"]),
        ("[roles.\"\"]\nstop = \"any\"", &["p.toml:1:", "1 to 127 bytes"]),
        (
            "[roles.user]\nfingerprints = []",
            &["p.toml:2:", "identify = \"extension\"", "\"fingerprint\" would"],
        ),
        ("identify = \"fingerprint\"\n[roles.user]\nuris = []", &["p.toml:3:", "identify = \"uri\" would"]),
        (
            "identify = \"fingerprint\"\n[roles.user]\nfingerprints = [\n  \"ab\",\n]",
            &["p.toml:3: `fingerprints = [`", "\"ab\" is not a SHA-256", "64 hex digits"],
        ),
        (
            "[roles.user.jobs]\nmemory = \"lots\"",
            &["p.toml:2: `memory = \"lots\"`", "\"lots\" is not a memory size"],
        ),
        ("[roles.user.jobs]\nmemory = { most = 1 }", &["p.toml:2:", "unknown field `most`", "`max`"]),
        ("[roles.user.jobs]\nmemory = { default = \"1M\" }", &["p.toml:2:", "missing field `max`"]),
        (
            "[roles.user.jobs]\nmemory = { max = \"1M\", default = \"2M\" }",
            &["p.toml:2:", "default 2MB is above max 1MB"],
        ),
        ("[roles.user.jobs]\npids = 0", &["p.toml:2:", "\"0\" is not"]),
        ("[roles.user.jobs]\npids = true", &["p.toml:2:", "boolean `true`", "the most, or { max"]),
        ("[roles.user.jobs]\ntimeout = 60", &["p.toml:2:", "\"60\" is not a time"]),
        ("[roles.user.jobs]\ntimeout = \"0s\"", &["p.toml:2:", "at least 1ms"]),
        ("[roles.user.jobs]\noutput = \"1k\"", &["p.toml:2:", "not an output limit"]),
        ("[roles.user.jobs]\nrunning = 0", &["p.toml:2:", "nonzero"]),
        ("[roles.user.jobs]\nio = [\"10M\"]", &["p.toml:2:", "names no disk", "\"/:10MB\""]),
        ("[roles.user.jobs]\nusers = \"all\"", &["p.toml:2:", "\"any\" or a list of names"]),
        ("[roles.user.jobs]\nenv = [\"A*B\"]", &["p.toml:2:", "maybe with a * at its end"]),
        ("[roles.user.jobs]\nrun_as = \"alice\"", &["p.toml:2:", "`alice`", "`common_name`"]),
        ("[roles.user.jobs]\ncommands = [\"make\"]", &["p.toml:2:", "a path from the root"]),
        ("[roles.user.jobs]\nlimit = 1", &["p.toml:2:", "unknown field `limit`", "`limits`", "`memory`"]),
        ("[roles.user.jobs]\nlimits = \"some\"", &["p.toml:2: `limits = \"some\"`", "`some`", "`ceiling`"]),
        ("[roles.user.jobs]\nlimits = 1", &["p.toml:2:", "limits = 1"]),
    ] {
        let error = words(text);
        assert!(parts.iter().all(|part| error.contains(part)), "{text:?}: {error}");
        assert!(!error.trim_end().contains('\n') || text.contains("[roles.user\n"), "one line: {error}");
    }
}

#[test]
fn numbers_may_stand_without_quotes_and_ceilings_without_tables() {
    let text = "[roles.user]\nstart = \"own\"\n[roles.user.jobs]\ncpu = 1.5\npids = { max = 9, default = 3 }\n\
                memory.max = \"1MiB\"\n";
    let permit = start(&policy(text), &client(Ok("user")), request()).unwrap();
    let limits = &permit.action().request.limits;
    assert_eq!(limits.cpu.unwrap().to_string(), "1.5");
    assert_eq!(limits.pids.unwrap().to_string(), "3");
    assert_eq!(limits.memory.unwrap().to_string(), "1MiB");
}

proptest! {
    /// A line of a right policy in place of another: an error in words, or a policy.
    #[test]
    fn no_text_panics(text in ".*", at in 0..30usize, from in 0..30usize, of in 0..SHIPPED.len()) {
        let _ = Policy::parse("p.toml", &text);
        let mut lines: Vec<_> = SHIPPED[of].1.lines().collect();
        let (at, from) = (at % lines.len(), from % lines.len());
        lines[at] = lines[from];
        for mixed in [lines.join("\n"), SHIPPED[of].1.replacen('\n', &text, 1)] {
            if let Err(error) = Policy::parse("p.toml", &mixed) {
                prop_assert!(error.to_string().contains("p.toml:"), "{}", error);
            }
        }
    }
}

const SHIPPED: [(&str, &str); 6] = [
    ("default", include_str!("../../../policies/default.toml")),
    ("owner", include_str!("../../../policies/owner.toml")),
    ("isolated", include_str!("../../../policies/isolated.toml")),
    ("fingerprint", include_str!("../../../policies/fingerprint.toml")),
    ("ceilings", include_str!("../../../policies/ceilings.toml")),
    ("os-user", include_str!("../../../policies/os-user.toml")),
];

#[test]
fn the_shipped_policies_are_right() {
    for (name, text) in SHIPPED {
        let policy = Policy::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
        let warnings = policy.warnings();
        let (count, words) = match name {
            "fingerprint" => (2, "its list is empty"),
            "owner" => (2, "run as one OS user"),
            "isolated" | "ceilings" => (1, "run as one OS user"),
            _ => (0, ""),
        };
        assert_eq!(warnings.len(), count, "{name}: {warnings:#?}");
        assert!(warnings.iter().all(|warning| warning.contains(words)), "{name}: {warnings:#?}");
        assert!(policy.summary().contains("role "), "{}", policy.summary());
    }
}

/// Where the policy keeps jobs apart and the kernel does not.
#[test]
fn clients_whose_jobs_share_an_os_user_are_warned_of() {
    let warnings = |head: &str, rights: &str, jobs: &str| {
        policy(&format!("{head}\n[roles.a]\n{rights}\n[roles.a.jobs]\n{jobs}")).warnings()
    };
    for (rights, jobs, part) in [
        (
            "all = \"own\"",
            "",
            "p.toml:2: [roles.a]: all jobs of its clients run as one OS user, the spawner's default:",
        ),
        ("all = \"any\"\nstart = \"own\"\nstream = \"none\"", "", "[roles.a]: all jobs of its clients"),
        (
            "all = \"own\"",
            "run_as = { user = \"build\" }",
            "p.toml:5: roles.a.jobs.run_as = { user = \"build\" }: all jobs of its clients run as one OS user, \"build\":",
        ),
        (
            "all = \"own\"",
            "run_as = { names = { ann = \"x\", bob = \"y\", eve = \"x\" } }",
            "the jobs of ann and eve run as one OS user, \"x\":",
        ),
        (
            "all = \"own\"",
            "run_as = \"common_name\"\nusers = [\"build\"]",
            "roles.a.jobs.users = [\"build\"]: its clients may name",
        ),
    ] {
        let told = warnings("", rights, jobs);
        assert!(
            told.len() == 1 && told[0].contains(part) && told[0].contains("common_name"),
            "{jobs}: {told:#?}"
        );
    }
    for (head, rights, jobs) in [
        ("", "all = \"any\"", ""),
        ("", "all = \"any\"", "users = \"any\""),
        ("", "stop = \"own\"", ""),
        ("", "all = \"own\"", "run_as = \"common_name\""),
        ("", "all = \"own\"", "run_as = { uri = \"spiffe://x/\" }\nusers = []"),
        ("", "all = \"own\"", "run_as = { names = { ann = \"x\", bob = \"y\" } }"),
        ("ownership = \"os_user\"", "all = \"own\"", "run_as = { user = \"build\" }"),
    ] {
        assert_eq!(warnings(head, rights, jobs), [""; 0], "{rights} {jobs}");
    }
}

#[test]
fn which_limits_may_be_asked_for_is_explained() {
    let with = |jobs: &str| policy(&format!("[roles.a]\nall = \"any\"\n[roles.a.jobs]\n{jobs}"));
    for (limits, words) in [
        ("none", "  limits: its clients may not ask for limits; jobs get the defaults"),
        (
            "ceiling",
            "  limits: its clients may ask for limits that have a ceiling, up to it, and for no others",
        ),
        ("any", "  limits: its clients may ask for any limit"),
    ] {
        let policy = with(&format!("limits = {limits:?}\npids = 9"));
        let summary = policy.summary();
        let rule = format!("  p.toml:4: roles.a.jobs.limits = {limits:?}\n");
        assert!(summary.contains(&rule) && summary.contains(words), "{summary}");
        assert_eq!(policy.warnings(), [""; 0]);
    }
    let warnings = with("limits = \"ceiling\"").warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("p.toml:4: roles.a.jobs.limits"), "{warnings:?}");
    assert!(warnings[0].contains("there is no ceiling"), "{warnings:?}");
}

#[test]
fn what_makes_little_sense_is_warned_of() {
    let (mine, text) = ("ab".repeat(32), |rest: &str| format!("identify = \"fingerprint\"\n{rest}"));
    let twice = text(&format!(
        "[roles.full]\nall = \"any\"\nfingerprints = [{mine:?}]\n[roles.log]\nlist = \"any\"\nfingerprints = [{mine:?}]"
    ));
    for (text, part) in [
        (text("[roles.a]\nlist = \"any\""), "p.toml:2: [roles.a]: nobody has it"),
        (twice, "p.toml:5: [roles.log]: abab"),
        ("[roles.a]\nall = \"none\"".to_owned(), "p.toml:1: [roles.a]: it may do nothing"),
        ("[roles.a]\nlist = \"any\"\njobs.pids = 3".to_owned(), "it may not start any"),
        ("ownership = \"os_user\"\n[roles.a]\nstop = \"own\"".to_owned(), "no job is its own"),
    ] {
        let warnings = policy(&text).warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{text}: {warnings:?}");
    }
    assert!(policy("[roles.a]\nlist = \"any\"").warnings().is_empty());
    assert_eq!(policy("[roles.a]\nrenew = \"own\"").warnings().len(), 1, "to renew is not to do anything");
    let summary = policy("[roles.a]\nall = \"any\"\n[roles.b]\nlist = \"any\"\nrenew = \"none\"").summary();
    assert!(
        summary.contains("remove\n  its certificate: renew\nrole b:\n  on any jobs: list\n"),
        "{summary}"
    );
}
