use proptest::prelude::*;

use super::*;
use crate::identity::RoleProblem;
use crate::job::{JobId, JobRequest, fake};

mod envelope;
mod file;

fn somebody() -> ClientIdentity {
    ClientIdentity {
        name: "alice".to_owned(),
        common_name: "alice".to_owned(),
        role: Err(RoleProblem::Missing),
        serial: "1f".to_owned(),
        fingerprint_sha256: "ab".repeat(32),
        uris: Vec::new(),
        dns_names: Vec::new(),
        not_after_unix_sec: i64::MAX,
    }
}

fn client(role: Result<&str, RoleProblem>) -> ClientIdentity {
    ClientIdentity { role: role.map(str::to_owned), ..somebody() }
}

fn named(name: &str, role: &str) -> ClientIdentity {
    ClientIdentity { name: name.to_owned(), common_name: name.to_owned(), ..client(Ok(role)) }
}

fn policy(text: &str) -> Policy {
    Policy::parse("p.toml", text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn whose(client: &ClientIdentity) -> Whose {
    Whose { owner: client.owner(), os_user: None, created_unix_usec: 1 }
}

fn request() -> JobRequest {
    fake::spec(JobId::random(), "").request
}

fn start(
    policy: &Policy,
    client: &ClientIdentity,
    request: JobRequest,
) -> Result<Permit<action::Start>, Denial> {
    policy.decide(&Arc::new(client.clone()), action::Start { id: JobId::random(), request }, None)
}

/// The rule, or that there is none.
fn rule(
    policy: &Policy,
    client: &ClientIdentity,
    verb: Verb,
    whose: Option<&Whose>,
) -> Result<String, String> {
    let decided = policy.still_allows(client, verb, whose);
    decided.map(ToString::to_string).map_err(|denial| denial.rule().to_string())
}

#[test]
fn the_default_policy_verb_by_verb() {
    use Verb::{List, Status, Stream, Wait};
    let default = Policy::built_in();
    let (admin, user) = (client(Ok("admin")), client(Ok("user")));
    let without = [Ok("root"), Ok("Admin"), Ok("admin "), Ok("")].map(client);
    let broken =
        [RoleProblem::Missing, RoleProblem::Repeated, RoleProblem::Malformed].map(|why| client(Err(why)));
    let foreign = whose(&named("carol", "admin"));
    for verb in Verb::ALL.into_iter().filter(|verb| *verb != Verb::Renew) {
        let allowed = "built-in default.toml:12: roles.admin.all = \"any\"".to_owned();
        assert_eq!(rule(&default, &admin, verb, Some(&foreign)), Ok(allowed));
        let may = [List, Status, Stream, Wait].contains(&verb);
        let users = rule(&default, &user, verb, Some(&foreign));
        match users {
            Ok(rule) => assert!(may && rule.ends_with(&format!(": roles.user.{verb} = \"any\"")), "{rule}"),
            Err(rule) => {
                assert!(!may, "{verb}");
                assert_eq!(rule, format!("built-in default.toml:17: [roles.user] does not name {verb}"));
            }
        }
        for nobody in without.iter().chain(&broken) {
            let denied = default.admits(nobody, verb);
            assert!(matches!(denied, Err(Denial::NoRole { .. })), "{verb} {nobody:?}: {denied:?}");
        }
    }
}

#[test]
fn a_permit_holds_the_client_the_action_and_the_rule() {
    let (default, user, job) = (Policy::built_in(), Arc::new(client(Ok("user"))), JobId::random());
    let permit = default.decide(&user, action::Status { job }, None).unwrap();
    assert_eq!((permit.identity().name.as_str(), permit.action().job), ("alice", job));
    assert_eq!(permit.rule().as_str(), "built-in default.toml:19: roles.user.status = \"any\"");
    assert!(default.decide(&user, action::Wait { job }, None).is_ok());
    assert!(default.decide(&user, action::List, None).is_ok());
}

#[test]
fn denials_say_what_is_wrong() {
    let default = Policy::built_in();
    let words = |client: &ClientIdentity, verb| default.admits(client, verb).unwrap_err().to_string();
    let missing = words(&client(Err(RoleProblem::Missing)), Verb::List);
    assert_eq!(missing, "certificate of alice carries no usable role: it has no role extension");
    let unknown = words(&client(Ok("boss")), Verb::List);
    assert!(unknown.ends_with("unknown role \"boss\"; known are admin and user"), "{unknown}");
    assert_eq!(words(&client(Ok("user")), Verb::Stop), "role \"user\" may not stop");
    let owner = policy("[roles.user]\nstop = \"own\"");
    let foreign = whose(&named("bob", "user"));
    let denial = owner.still_allows(&client(Ok("user")), Verb::Stop, Some(&foreign)).unwrap_err();
    assert_eq!(
        denial.to_string(),
        "role \"user\" has the right to stop on jobs of its own only, and this is another's"
    );
    assert_eq!(denial.rule().as_str(), "p.toml:2: roles.user.stop = \"own\"");
}

#[test]
fn a_certificate_is_renewed_by_its_holder_unless_a_line_forbids_it() {
    let decided = |text: &str| {
        let decided = rule(&policy(text), &client(Ok("user")), Verb::Renew, None);
        decided.unwrap_or_else(|rule| format!("no: {rule}"))
    };
    for (text, expected) in [
        ("[roles.user]\nlist = \"any\"", "p.toml:1: [roles.user] does not forbid renew"),
        ("[roles.user]\nrenew = \"own\"", "p.toml:2: roles.user.renew = \"own\""),
        ("[roles.user]\nall = \"any\"", "p.toml:2: roles.user.all = \"any\""),
        ("[roles.user]\nall = \"any\"\nrenew = \"none\"", "no: p.toml:3: roles.user.renew = \"none\""),
        ("[roles.user]\nall = \"none\"", "no: p.toml:2: roles.user.all = \"none\""),
        ("[roles.user]\nall = \"none\"\nrenew = \"own\"", "p.toml:3: roles.user.renew = \"own\""),
    ] {
        assert_eq!(decided(text), expected, "{text}");
    }
    let default = Policy::built_in();
    for role in ["admin", "user"] {
        assert!(rule(&default, &client(Ok(role)), Verb::Renew, None).is_ok(), "{role}");
    }
    for nobody in [client(Ok("root")), client(Err(RoleProblem::Missing))] {
        let denied = default.admits(&nobody, Verb::Renew);
        assert!(matches!(denied, Err(Denial::NoRole { .. })), "{denied:?}");
    }
    let mine = "ab".repeat(32);
    let listed = |line: &str| {
        format!("identify = \"fingerprint\"\n[roles.user]\nfingerprints = [{mine:?}]\n{line} = \"any\"")
    };
    for line in ["all", "list"] {
        let denied = decided(&listed(line));
        assert!(denied.starts_with("no: p.toml: identify = \"fingerprint\": a renewed"), "{denied}");
    }
}

#[test]
fn without_the_job_a_right_to_ones_own_is_none() {
    let own = policy("[roles.user]\nall = \"own\"");
    let user = client(Ok("user"));
    for verb in Verb::ALL {
        assert_eq!(own.still_allows(&user, verb, None).is_ok(), !verb.is_about_a_job(), "{verb}");
        assert!(own.still_allows(&user, verb, Some(&whose(&user))).is_ok(), "{verb}");
    }
}

#[test]
fn what_is_ones_own_is_what_the_policy_compares() {
    let me = client(Ok("user"));
    let same_name =
        ClientIdentity { serial: "2".to_owned(), fingerprint_sha256: "cd".repeat(32), ..me.clone() };
    let same_serial = ClientIdentity { serial: me.serial.clone(), ..named("bob", "user") };
    let same_serial = ClientIdentity { fingerprint_sha256: "cd".repeat(32), ..same_serial };
    let other = ClientIdentity { serial: "3".to_owned(), ..same_serial.clone() };
    let alices = Whose { os_user: Some("alice".to_owned()), ..whose(&other) };
    for (ownership, expected) in [
        ("name", [true, true, false, false, false]),
        ("serial", [true, false, true, false, false]),
        ("fingerprint", [true, false, false, false, false]),
        ("os_user", [false, false, false, false, true]),
    ] {
        let text =
            format!("ownership = {ownership:?}\n[roles.user]\nstop = \"own\"\njobs.run_as = \"common_name\"");
        let policy = policy(&text);
        let jobs = [whose(&me), whose(&same_name), whose(&same_serial), whose(&other), alices.clone()];
        let owns = jobs.map(|job| policy.still_allows(&me, Verb::Stop, Some(&job)).is_ok());
        assert_eq!(owns, expected, "{ownership}");
    }
    let nobody = policy("ownership = \"os_user\"\n[roles.user]\nstop = \"own\"");
    assert!(nobody.still_allows(&me, Verb::Stop, Some(&whose(&me))).is_err(), "no OS user is nobody's");
}

#[test]
fn the_first_role_in_the_file_that_lists_a_certificate_is_its_role() {
    let (mine, other) = ("ab".repeat(32), "CD:".repeat(32));
    let text = |full: &str, log: &str| {
        format!(
            "identify = \"fingerprint\"\n[roles.z]\nfingerprints = [{full}]\nstop = \"any\"\n[roles.a]\nfingerprints = [{log}]\nlist = \"any\""
        )
    };
    let quoted = |hex: &str| format!("{:?}", hex.trim_end_matches(':'));
    let (mine, other) = (quoted(&mine), quoted(&other));
    let any_role = client(Ok("z"));
    let may = |text: &str| [Verb::Stop, Verb::List].map(|verb| policy(text).admits(&any_role, verb).is_ok());
    assert_eq!(may(&text(&mine, "")), [true, false]);
    assert_eq!(may(&text("", &mine)), [false, true]);
    assert_eq!(may(&text(&mine, &format!("{other}, {mine}"))), [true, false], "in both");
    assert_eq!(may(&text(&other, &other)), [false, false], "in neither, whatever the extension says");
    let uris = "identify = \"uri\"\n[roles.a]\nuris = [\"spiffe://x/a\"]\nlist = \"any\"";
    let with =
        |uri: &str| ClientIdentity { uris: vec!["spiffe://y".to_owned(), uri.to_owned()], ..somebody() };
    assert!(policy(uris).admits(&with("spiffe://x/a"), Verb::List).is_ok());
    assert!(policy(uris).admits(&with("spiffe://x/a/b"), Verb::List).is_err());
    assert!(policy(uris).admits(&client(Ok("a")), Verb::List).is_err());
}

#[test]
fn a_prefix_is_looked_for_where_the_client_may_look() {
    let user = client(Ok("user"));
    let among = |text: &str| policy(text).admits(&user, Verb::Stop).unwrap().among();
    let own = || Claim::Name("alice".to_owned());
    assert_eq!(among("[roles.user]\nall = \"any\""), Among::All);
    assert_eq!(among("[roles.user]\nall = \"own\""), Among::Own(own()));
    assert_eq!(among("[roles.user]\nstop = \"own\""), Among::Own(own()));
    assert_eq!(among("[roles.user]\nstop = \"own\"\nlist = \"any\""), Among::OwnFirst(own()));
}

fn grant() -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(prop_oneof![Just("none"), Just("own"), Just("any")])
}

proptest! {
    /// Of any policy, a right is given only by a line that says so, and that line is the one that is told.
    #[test]
    fn no_right_without_a_line(
        all in grant(), grants in proptest::collection::vec(grant(), Verb::ALL.len()),
        role in "user|admin|x", is_own: bool, verb in 0..Verb::ALL.len(),
    ) {
        let verb = Verb::ALL[verb];
        let is_renewal = verb == Verb::Renew;
        let grants: Vec<_> = Verb::ALL.into_iter().zip(grants)
            // A start and a renewal are never "any".
            .map(|(verb, grant)| {
                let never_any = matches!(verb, Verb::Start | Verb::Renew);
                (verb, grant.map(|grant| if never_any && grant == "any" { "own" } else { grant }))
            })
            .collect();
        let lines = grants.iter().filter_map(|(verb, grant)| Some(format!("{verb} = \"{}\"", (*grant)?)));
        let lines: Vec<_> = all.map(|all| format!("all = \"{all}\"")).into_iter().chain(lines).collect();
        let text = format!("[roles.user]\n{}", lines.join("\n"));
        let client = client(Ok(&role));
        let job = if is_own { whose(&client) } else { whose(&named("bob", "user")) };
        let decided = policy(&text).still_allows(&client, verb, Some(&job)).map(|rule| rule.as_str().to_owned());

        let specific = grants.iter().find(|(of, _)| *of == verb).and_then(|(_, grant)| *grant);
        let (key, grant) = specific.map_or(("all", all), |grant| (verb.as_str(), Some(grant)));
        let reaches = match grant {
            Some("any") => true,
            Some("own") => is_own || !verb.is_about_a_job(),
            None => is_renewal,
            _ => false,
        };
        prop_assert_eq!(decided.is_ok(), role == "user" && reaches, "{}: {:?}", text, decided);
        if is_renewal && grant.is_none() {
            prop_assert!(decided.is_err() || decided == Ok("p.toml:1: [roles.user] does not forbid renew".to_owned()));
        } else if let Ok(rule) = decided {
            let line = format!("{key} = \"{}\"", grant.unwrap());
            let number = 1 + text.lines().position(|other| other == line).expect("the text has it");
            prop_assert_eq!(rule, format!("p.toml:{number}: roles.user.{line}"));
        }
    }
}
