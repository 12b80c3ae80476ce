use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

fn flags(args: &[&str]) -> Options {
    Command::try_parse_from([&["jobworker"], args].concat()).unwrap_or_else(|error| panic!("{error}")).options
}

const FILES: [&str; 6] = ["--ca", "ca.pem", "--cert", "server.pem", "--key", "server-key.pem"];

fn load(file: &str, args: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("worker.toml");
    fs::write(&path, file).unwrap();
    let args = [&FILES[..], args, &["--config", path.to_str().unwrap()]].concat();
    Config::load(flags(&args))
}

fn words(error: &ConfigError) -> String {
    error.to_string()
}

#[test]
fn defaults() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.state_dir, Path::new("/var/lib/jobworker"));
    assert_eq!(config.door.handshake_timeout, Duration::from_secs(10));
    assert_eq!((config.door.max_handshakes, config.door.max_connections), (256, 4096));
    assert_eq!(config.door.max_connections_per_client, 1024);
    assert_eq!(config.service.grace, Duration::from_secs(10));
    assert_eq!((config.max_request_bytes, config.max_request_bytes_per_client), (8 << 20, 32 << 20));
    assert_eq!(config.log, log::Settings::default());
    assert!(config.keep.is_everything());
    let Spawner::Own(spawner) = config.spawner else { panic!("{:?}", config.spawner) };
    assert_eq!(spawner.socket, Path::new("/var/lib/jobworker/spawner.sock"));
}

#[test]
fn a_flag_goes_before_the_file() {
    let file = "listen = \"127.0.0.1:1\"\nstate-dir = \"/a\"\ngrace = \"3s\"\nallow-user = [\"x\", \"y\"]\n\
                role-oid = \"1.3.6.1.4.1.99999.1\"\nlog-format = \"json\"\nmax-args = 7\n\
                keep-ended-for = \"7days\"\nkeep-ended-bytes = \"1G\"";
    let args = ["--listen", "[::1]:2", "--allow-user", "z", "--keep-ended-bytes", "5GiB"];
    let config = load(file, &args).unwrap();
    assert_eq!(config.keep.to_string(), "--keep-ended-for 7days, --keep-ended-bytes 5368709120");
    assert_eq!(config.listen.to_string(), "[::1]:2");
    assert_eq!(config.service.grace, Duration::from_secs(3));
    assert_eq!(config.door.role_oid.to_string(), "1.3.6.1.4.1.99999.1");
    assert_eq!((config.log.format, config.service.caps.args), (log::Format::Json, 7));
    let Spawner::Own(spawner) = config.spawner else { panic!("{:?}", config.spawner) };
    assert_eq!(spawner.allow_users, ["z"]);
    assert_eq!(spawner.socket, Path::new("/a/spawner.sock"));
}

#[test]
fn lists_of_revoked_certificates_may_be_none_one_or_several() {
    let lists = |file: &str, args: &[&str]| load(file, args).map(|config| config.tls.crl);
    assert_eq!(lists("", &[]).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(lists("crl = \"a.pem\"", &[]).unwrap(), [Path::new("a.pem")]);
    let two = [Path::new("a.pem"), Path::new("b.pem")];
    assert_eq!(lists("crl = [\"a.pem\", \"b.pem\"]", &[]).unwrap(), two);
    assert_eq!(lists("crl = \"c.pem\"", &["--crl", "a.pem", "--crl", "b.pem"]).unwrap(), two);
    let error = words(&lists("crl = 3", &[]).unwrap_err());
    assert!(error.contains("a path, or a list of paths, is needed"), "{error}");
}

#[test]
fn a_spawner_that_runs_already_is_not_told_anything() {
    let config = load("spawner-socket = \"/run/s.sock\"", &[]).unwrap();
    assert!(matches!(config.spawner, Spawner::Running(socket) if socket == Path::new("/run/s.sock")));
    let error = load("spawner-socket = \"/run/s.sock\"\ndefault-user = \"job\"", &[]).unwrap_err();
    assert!(words(&error).starts_with("--default-user is for a spawner that"), "{error}");
}

#[test]
fn what_jobs_begin_with_goes_to_the_spawner() {
    let file = "default-rlimit = [\"NOFILE=10:20\", \"CORE=unlimited\"]\ndefault-oom-score-adj = -5";
    let defaults = |args: &[&str]| match load(file, args).unwrap().spawner {
        Spawner::Own(spawner) => {
            let limits =
                spawner.defaults.rlimits().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            (limits, spawner.defaults.oom_score_adj().map(|badness| badness.to_string()).unwrap_or_default())
        }
        other => panic!("{other:?}"),
    };
    let texts = |limits: &str, badness: &str| (limits.to_owned(), badness.to_owned());
    assert_eq!(defaults(&[]), texts("NOFILE=10:20 CORE=unlimited:unlimited", "-5"));
    let args = ["--default-rlimit", "AS=1", "--default-oom-score-adj", "-7"];
    assert_eq!(defaults(&args), texts("AS=1:1", "-7"));

    for (file, part) in [
        ("default-rlimit = [\"CORE=0\", \"CORE=1\"]", "CORE=0:0 and CORE=1:1 are for the same resource"),
        ("default-rlimit = [\"OPEN=0\"]", "\"OPEN\" is no resource of setrlimit(2)"),
        ("default-rlimit = [\"CORE=2:1\"]", "the soft limit is above the hard one"),
        ("default-oom-score-adj = 1001", "-1000 to 1000"),
        ("spawner-socket = \"/run/s\"\ndefault-rlimit = []", "--default-rlimit is for a spawner that"),
        (
            "spawner-socket = \"/run/s\"\ndefault-oom-score-adj = 0",
            "--default-oom-score-adj is for a spawner that",
        ),
    ] {
        let error = words(&load(file, &[]).unwrap_err());
        assert!(error.contains(part), "{file}: {error}");
    }
}

#[test]
fn renewal_needs_a_ca_and_its_key() {
    assert!(load("", &[]).unwrap().renewal.is_none(), "off by default");
    let both = "renew-ca = \"r.pem\"\nrenew-key = \"r-key.pem\"\n";
    let settings = load(&format!("{both}renew-days = 10"), &["--renew-key", "other.pem"]).unwrap().renewal;
    let settings = settings.unwrap();
    assert_eq!((settings.ca.to_str(), settings.key.to_str()), (Some("r.pem"), Some("other.pem")));
    assert_eq!(settings.days.to_string(), "10");
    assert_eq!(load(both, &[]).unwrap().renewal.unwrap().days.to_string(), "45");
    for (file, part) in [
        ("renew-ca = \"r.pem\"", "--renew-ca makes no sense without --renew-key"),
        ("renew-key = \"r.pem\"", "--renew-key makes no sense without --renew-ca"),
        ("renew-days = 3", "--renew-days makes no sense without --renew-ca"),
        ("renew-days = 0", "1 to 36500"),
        ("renew-days = 40000", "1 to 36500"),
    ] {
        let error = words(&load(file, &[]).unwrap_err());
        assert!(error.contains(part), "{file}: {error}");
    }
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    let error = words(&load("max-arg = 3", &[]).unwrap_err());
    assert!(error.contains("worker.toml") && error.contains("unknown field `max-arg`"), "{error}");
    assert!(error.contains("`max-args`") && error.contains("line 1"), "{error}");
    for (file, part) in [
        ("listen = \"localhost\"", "invalid socket address"),
        ("grace = \"3\"", "\"3\" is not a time"),
        ("max-args = 0", "nonzero"),
        ("role-oid = \"x\"", "dotted object identifier"),
        ("keep-ended-for = \"0s\"", "\"0s\" is not a time to keep ended jobs for"),
        ("keep-ended-for = \"7\"", "\"7\" is not a time"),
        ("keep-ended-bytes = \"0\"", "\"0\" is not a size"),
        ("keep-ended-bytes = \"99999999999EB\"", "less than 8 EiB"),
        ("log-level = \"loud\"", "unknown variant `loud`"),
        ("config = \"/other\"", "unknown field `config`"),
        ("listen", "worker.toml"),
    ] {
        let error = words(&load(file, &[]).unwrap_err());
        assert!(error.contains(part), "{file}: {error}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let error = Config::load(flags(&["--ca", "ca.pem"])).unwrap_err();
    assert!(
        words(&error)
            .starts_with("--cert is missing: the worker's certificate; it may also be JOBWORKER_CERT")
    );
    let error = Config::load(flags(&["--config", "/no/such/worker.toml"])).unwrap_err();
    assert!(words(&error).contains("/no/such/worker.toml"), "{error}");
}

/// The file that the package installs.
const PACKAGED: &str = include_str!("../../debian/worker.toml");

/// With each option in force that is shown in a comment.
fn uncommented() -> String {
    let is_key = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase());
    PACKAGED.lines().map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line)).fold(
        String::new(),
        |mut text, line| {
            text.push_str(line);
            text.push('\n');
            text
        },
    )
}

#[test]
fn the_packaged_file_shows_every_option_and_nothing_else() {
    let shown: toml::Table = toml::from_str(&uncommented()).unwrap();
    let shown: Vec<_> = shown.keys().cloned().collect();
    let command = <Command as clap::CommandFactory>::command();
    let options = command.get_arguments().filter_map(clap::Arg::get_long);
    let mut options: Vec<_> = options.filter(|name| *name != "config").map(str::to_owned).collect();
    options.sort();
    assert_eq!(shown, options);
    let _: Options = toml::from_str(&uncommented()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_the_packaged_file_shows_as_defaults_is_the_default() {
    let explicit = [
        "state-dir",
        "spawner-socket",
        "cgroup",
        "default-user",
        "allow-user",
        "default-rlimit",
        "default-oom-score-adj",
        "keep-ended-for",
        "keep-ended-bytes",
        "policy",
        "metrics-listen",
        "renew-ca",
        "renew-key",
        "renew-days",
    ];
    let text = uncommented();
    let defaults = text.lines().filter(|line| !explicit.iter().any(|name| line.starts_with(name)));
    let shown = load(&defaults.fold(String::new(), |text, line| text + line + "\n"), &[]).unwrap();
    assert_eq!(format!("{shown:?}"), format!("{:?}", load(PACKAGED, &[]).unwrap()));
}
