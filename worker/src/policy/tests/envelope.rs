//! What a role's jobs may be.

use super::*;
use crate::job::ByteStr;

fn under(jobs: &str, edit: impl FnOnce(&mut JobRequest)) -> Result<JobRequest, (String, String)> {
    let policy = policy(&format!("[roles.user]\nstart = \"own\"\n[roles.user.jobs]\n{jobs}"));
    let mut request = request();
    edit(&mut request);
    match start(&policy, &client(Ok("user")), request) {
        Ok(permit) => Ok(permit.into_action().request),
        Err(denial @ Denial::Request { .. }) => Err((denial.to_string(), denial.rule().to_string())),
        Err(other) => panic!("{other:?}"),
    }
}

fn some<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> Option<T> {
    Some(text.parse().unwrap())
}

#[test]
fn above_a_ceiling_is_refused_with_the_value_and_the_ceiling() {
    let expected = |field: &str, words: &str, rule: &str| {
        let rule = format!("p.toml:4: roles.user.jobs.{rule}");
        (format!("{field}: {words} (role \"user\")"), rule)
    };
    let refused = under("memory = \"512MiB\"", |job| job.limits.memory = some("513MiB")).unwrap_err();
    let rule = "memory = { max = \"512MiB\", default = \"512MiB\" }";
    assert_eq!(refused, expected("spec.limits.memory", "513MiB is above the ceiling of 512MiB", rule));
    let refused = under("timeout = \"1h\"", |job| job.timeout_msec = some("3600001")).unwrap_err().0;
    assert_eq!(refused, "spec.timeout_msec: 1h 1ms is above the ceiling of 1h (role \"user\")");
    for (jobs, field, edit) in [
        ("cpu = 1", "spec.limits.cpu", (|job| job.limits.cpu = some("1.001")) as fn(&mut JobRequest)),
        ("cpu_weight = 100", "spec.limits.cpu_weight", |job| job.limits.cpu_weight = some("101")),
        ("memory_high = \"1M\"", "spec.limits.memory_high", |job| job.limits.memory_high = some("2M")),
        ("swap = 0", "spec.limits.swap", |job| job.limits.swap = some("1M")),
        ("memory = \"1M\"", "spec.limits.swap", |job| job.limits.swap = some("1M")),
        ("pids = 5", "spec.limits.pids", |job| job.limits.pids = some("6")),
        ("output = \"2MiB\"", "spec.output_limit", |job| job.output_limit = some("3MiB")),
        ("io = [\"/:1M\"]", "spec.limits.io", |job| job.limits.io = vec!["/:rbps=2M".parse().unwrap()]),
    ] {
        let (words, _) = under(jobs, edit).expect_err(jobs);
        assert!(
            words.starts_with(&format!("{field}: ")) && words.contains("above the ceiling of "),
            "{words}"
        );
    }
}

type Edit = fn(&mut JobRequest);

/// Every limit that can be asked for, below the ceilings of [`CEILINGS`].
const ASKED: [(&str, Edit); 9] = [
    ("spec.limits.cpu", |job| job.limits.cpu = some("0.1")),
    ("spec.limits.cpu_weight", |job| job.limits.cpu_weight = some("2")),
    ("spec.limits.memory", |job| job.limits.memory = some("2MiB")),
    ("spec.limits.memory_high", |job| job.limits.memory_high = some("1MiB")),
    ("spec.limits.swap", |job| job.limits.swap = some("0")),
    ("spec.limits.pids", |job| job.limits.pids = some("2")),
    ("spec.limits.io", |job| job.limits.io = vec!["/:1M".parse().unwrap()]),
    ("spec.timeout_msec", |job| job.timeout_msec = some("1000")),
    ("spec.output_limit", |job| job.output_limit = some("1MiB")),
];

/// In the order of [`ASKED`].
const CEILINGS: [&str; 9] = [
    "cpu = { max = 1, default = 0.5 }",
    "cpu_weight = 50",
    "memory = { max = \"1GiB\", default = \"1MiB\" }",
    "memory_high = \"512MiB\"",
    "swap = 0",
    "pids = 64",
    "io = [\"/:5M\"]",
    "timeout = \"1h\"",
    "output = \"2MiB\"",
];

#[test]
fn limits_none_forbids_to_ask_and_sets_the_same() {
    let plain = CEILINGS.join("\n");
    for jobs in [String::new(), plain.clone()] {
        let none = format!("limits = \"none\"\n{jobs}");
        for (field, ask) in ASKED {
            let (words, rule) = under(&none, ask).expect_err(field);
            assert_eq!(words, format!("{field}: this role may not ask for limits (role \"user\")"));
            assert_eq!(rule, "p.toml:4: roles.user.jobs.limits = \"none\"");
        }
        assert_eq!(under(&none, |_| {}), under(&jobs, |_| {}), "what is not asked for is set as ever");
    }
}

#[test]
fn limits_ceiling_lets_ask_for_what_has_a_ceiling() {
    let words_of = |field| {
        format!("{field}: this role may ask for a limit only where the policy has a ceiling (role \"user\")")
    };
    for (at, (field, ask)) in ASKED.into_iter().enumerate() {
        let with = |ceilings: &str| under(&format!("limits = \"ceiling\"\n{ceilings}"), ask);
        assert_eq!(with(CEILINGS[at]), under(CEILINGS[at], ask), "{field} has one");
        assert_eq!(with(&CEILINGS.join("\n")), under(&CEILINGS.join("\n"), ask));
        let mut others = CEILINGS.to_vec();
        others.remove(at);
        // With memory's ceiling goes that of swap, which is 0.
        if field != "spec.limits.swap" {
            let (words, rule) = with(&others.join("\n")).expect_err(field);
            assert_eq!(
                (words, rule.as_str()),
                (words_of(field), "p.toml:4: roles.user.jobs.limits = \"ceiling\"")
            );
        }
    }
    let ceiling =
        |jobs: &str, edit: fn(&mut JobRequest)| under(&format!("limits = \"ceiling\"\n{jobs}"), edit);
    let swap = |job: &mut JobRequest| job.limits.swap = some("0");
    assert_eq!(ceiling("pids = 9", swap).unwrap_err().0, words_of("spec.limits.swap"));
    assert!(ceiling("memory = \"1M\"", swap).is_ok());
    let above = ceiling("memory = \"1M\"", |job| job.limits.memory = some("2M")).unwrap_err();
    assert!(
        above.0.contains("2MB is above the ceiling of 1MB") && above.1.contains("memory = "),
        "{above:?}"
    );
    let elsewhere = ceiling("io = [\"/:5M\"]", |job| job.limits.io = vec!["/data:1M".parse().unwrap()]);
    assert_eq!(elsewhere.unwrap_err().0, words_of("spec.limits.io"), "another disk");
}

#[test]
fn limits_any_is_as_if_nothing_were_said() {
    for jobs in [String::new(), CEILINGS.join("\n")] {
        for (field, ask) in ASKED {
            assert_eq!(under(&format!("limits = \"any\"\n{jobs}"), ask), under(&jobs, ask), "{field}");
        }
    }
}

#[test]
fn what_is_not_asked_for_is_set() {
    let all = "cpu = { max = 2, default = 0.5 }\ncpu_weight = 50\nmemory = \"1GiB\"\nmemory_high = \"512MiB\"\n\
               pids = 64\ntimeout = { max = \"1h\", default = \"1m\" }\noutput = \"2MiB\"\nswap = \"1GiB\"\n\
               io = [\"/:1M\", \"/data:riops=7\"]";
    let job = under(all, |_| {}).unwrap();
    let limits = serde_json::to_value(&job.limits).unwrap();
    let expected = serde_json::json!({
        "cpu": "0.5", "cpu_weight": "50", "memory": "1GiB", "memory_high": "512MiB", "pids": "64",
        "io": ["/:1MB", "/data:riops=7"],
    });
    assert_eq!(limits, expected, "swap is none under a memory limit, where it is not asked for");
    assert_eq!((job.timeout_msec, job.output_limit), (some("60000"), some("2MiB")));
    assert_eq!(under("swap = \"1GiB\"", |_| {}).unwrap().limits.swap, some("1GiB"));
    assert_eq!(under("", |_| {}).unwrap(), request(), "without a word on it, nothing");
}

#[test]
fn what_is_asked_for_below_a_ceiling_stays() {
    let jobs = "memory = { max = \"1GiB\", default = \"1MiB\" }\nio = [\"/:wbps=5M,rbps=1M\"]\nswap = \"2M\"";
    let job = under(jobs, |job| {
        job.limits.memory = some("1GiB");
        job.limits.swap = some("1M");
        job.limits.io = vec!["/:wbps=5M".parse().unwrap(), "/other:9G".parse().unwrap()];
    });
    let limits = job.unwrap().limits;
    assert_eq!((limits.memory, limits.swap), (some("1GiB"), some("1M")));
    let io: Vec<_> = limits.io.iter().map(ToString::to_string).collect();
    assert_eq!(io, ["/:rbps=1MB,wbps=5MB", "/other:9GB"]);
}

#[test]
fn under_a_list_of_commands_nothing_leads_around_it() {
    let list = "commands = [\"/usr/bin/make\"]";
    let bytes = |text: &str| ByteStr::new(text).unwrap();
    assert_eq!(under(list, |_| {}).unwrap().command, bytes("/usr/bin/make"), "make, and no PATH was asked");
    let (words, rule) = under(list, |job| job.command = bytes("/bin/sh")).unwrap_err();
    assert_eq!(
        words,
        "spec.command: \"/bin/sh\" is not one of the allowed commands: /usr/bin/make (role \"user\")"
    );
    assert_eq!(rule, "p.toml:4: roles.user.jobs.commands = [\"/usr/bin/make\"]");
    for key in ["LD_PRELOAD", "PATH", "BASH_ENV", "CI"] {
        let (words, _) = under(list, |job| job.env = vec![(key.to_owned(), bytes("x"))]).unwrap_err();
        assert!(words.starts_with("spec.env[0].key: ") && words.contains(key), "{words}");
    }
    let with = format!("{list}\nenv = [\"CI\", \"BUILD_*\"]");
    let set = |keys: &[&str]| {
        under(&with, |job| job.env = keys.iter().map(|key| ((*key).to_owned(), bytes("x"))).collect())
    };
    assert!(set(&["CI", "BUILD_", "BUILD_TYPE"]).is_ok());
    assert!(set(&["CI", "LD_PRELOAD"]).unwrap_err().0.starts_with("spec.env[1].key"));
    assert!(set(&["CI2"]).is_err() && set(&["ci"]).is_err() && set(&["BUILD"]).is_err());
    assert!(under("", |job| job.env = vec![("LD_PRELOAD".to_owned(), bytes("x"))]).is_ok());
}

fn as_user(jobs: &str, client: &ClientIdentity, asked: Option<&str>) -> Result<Option<String>, String> {
    let policy = policy(&format!("[roles.user]\nstart = \"own\"\n[roles.user.jobs]\n{jobs}"));
    let request = JobRequest { user: asked.map(str::to_owned), ..request() };
    let permit = start(&policy, client, request).map_err(|denial| denial.to_string())?;
    Ok(permit.into_action().request.user)
}

#[test]
fn os_users_are_named_by_the_certificate_or_by_those_who_may() {
    let alice = client(Ok("user"));
    let user = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(as_user("", &alice, None), Ok(None));
    assert!(
        as_user("", &alice, Some("alice")).unwrap_err().starts_with("spec.user: \"alice\" is not an OS user")
    );
    assert_eq!(as_user("users = \"any\"", &alice, Some("bob")), user("bob"));
    assert_eq!(as_user("users = [\"bob\"]", &alice, Some("bob")), user("bob"));
    assert!(as_user("users = [\"bob\"]", &alice, Some("1001")).is_err(), "nor by its number");
    assert_eq!(as_user("run_as = \"common_name\"", &alice, None), user("alice"));
    assert_eq!(as_user("run_as = \"common_name\"", &alice, Some("alice")), user("alice"));
    let refused = as_user("run_as = \"common_name\"", &alice, Some("bob")).unwrap_err();
    assert!(refused.contains("\"bob\" is not who these jobs run as, \"alice\""), "{refused}");
    assert_eq!(as_user("run_as = \"common_name\"\nusers = [\"b*\"]", &alice, Some("bob")), user("bob"));
    assert_eq!(as_user("run_as = { user = \"build\" }", &alice, None), user("build"));
    let names = "run_as = { names = { alice = \"al\" } }";
    assert_eq!(as_user(names, &alice, None), user("al"));
    assert!(
        as_user(names, &named("bob", "user"), None).unwrap_err().contains("no OS user is named for \"bob\"")
    );
    let uris = |uris: &[&str]| ClientIdentity {
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        ..alice.clone()
    };
    let by_uri = "run_as = { uri = \"spiffe://x/user/\" }";
    assert_eq!(as_user(by_uri, &uris(&["spiffe://x/host/a", "spiffe://x/user/bob"]), None), user("bob"));
    for bad in [
        &[][..],
        &["spiffe://x/user/"],
        &["spiffe://x/user/a", "spiffe://x/user/b"],
        &["spiffe://x/user/root"],
    ] {
        as_user(by_uri, &uris(bad), None).expect_err("no user, or more than one, or root");
    }
}

#[test]
fn a_certificate_names_no_user_by_number_and_never_root() {
    for name in ["root", "0", "1001", "", "-x", "a b", "a/b", "../a", "+0", "é", &"a".repeat(33)] {
        let refused = as_user("run_as = \"common_name\"", &named(name, "user"), None).expect_err(name);
        assert!(refused.starts_with("spec.user: "), "{refused}");
    }
    for name in ["alice", "_x", "a.b-c_9", "Alice"] {
        assert!(as_user("run_as = \"common_name\"", &named(name, "user"), None).is_ok(), "{name}");
    }
}
