use super::*;

const CAPS: Caps = Caps { args: 4, args_bytes: 1 << 20 };

fn spec(edit: impl FnOnce(&mut v1::JobSpec)) -> v1::JobSpec {
    let mut spec = v1::JobSpec { command: b"/bin/true".to_vec(), ..v1::JobSpec::default() };
    edit(&mut spec);
    spec
}

fn refused(edit: impl FnOnce(&mut v1::JobSpec)) -> InvalidField {
    job(spec(edit), CAPS).expect_err("the request is bad")
}

#[test]
fn a_full_request_is_taken_over() {
    let request = job(
        spec(|spec| {
            spec.args = vec![b"\xff".to_vec()];
            spec.limits = Some(v1::Limits { memory: "64MiB".to_owned(), ..v1::Limits::default() });
            spec.env = vec![v1::EnvVar { key: "A".to_owned(), value: b"=".to_vec() }];
            spec.name = "nightly".to_owned();
            spec.timeout_msec = Some(1500);
        }),
        CAPS,
    )
    .unwrap();
    assert_eq!(request.args[0].as_bytes(), b"\xff");
    assert_eq!(request.limits.memory.unwrap().bytes(), 64 << 20);
    assert_eq!((request.env[0].0.as_str(), request.env[0].1.as_bytes()), ("A", &b"="[..]));
    assert_eq!((request.name.as_deref(), request.timeout_msec.unwrap().get()), (Some("nightly"), 1500));
}

#[test]
fn what_is_not_given_has_its_default() {
    let request = job(spec(|_| {}), CAPS).unwrap();
    assert_eq!(request.workdir.as_bytes(), b"/");
    assert!(request.limits.is_empty());
    assert_eq!((request.user, request.name, request.timeout_msec), (None, None, None));
}

#[test]
fn commands_and_arguments() {
    assert_eq!(refused(|spec| spec.command.clear()).field, "spec.command");
    assert_eq!(refused(|spec| spec.command = b"a\0".to_vec()).field, "spec.command");
    let nul = refused(|spec| spec.args = vec![b"x".to_vec(), b"a\0b".to_vec()]);
    assert_eq!(
        nul.to_string(),
        r#"spec.args[1]: "a\0b" holds a NUL byte at position 1; Linux can't pass it on"#
    );
    let long = refused(|spec| spec.args = vec![vec![b'x'; 128 << 10]]);
    assert_eq!(long.to_string(), "spec.args[0]: 131072 bytes; Linux takes at most 131071 in one string");
    let many = refused(|spec| spec.args = vec![Vec::new(); 5]);
    assert_eq!(many.to_string(), "spec.args: 5 arguments; this worker takes 4 (--max-args)");
    let big = refused(|spec| spec.args = vec![vec![b'x'; 5 << 20]]);
    assert_eq!(
        big.to_string(),
        "spec.args: 5242880 bytes of arguments; this worker takes 1048576 (--max-args-bytes)"
    );
}

#[test]
fn limits_are_named_with_their_value() {
    let limits = |limits| refused(|spec| spec.limits = Some(limits));
    for bad in ["0", "-1", "1.5G B", "99999999999T", "1"] {
        let error = limits(v1::Limits { memory: bad.to_owned(), ..v1::Limits::default() });
        assert_eq!(error.field, "spec.limits.memory");
        assert!(error.problem.contains(&format!("{bad:?}")), "{error}");
    }
    let error = limits(v1::Limits { io: vec!["10M".to_owned(), "x".to_owned()], ..v1::Limits::default() });
    assert_eq!(error.field, "spec.limits.io[1]");
    let error = limits(v1::Limits { cpu: "1".repeat(1 << 20), ..v1::Limits::default() });
    assert_eq!(error.to_string(), "spec.limits.cpu: 1048576 bytes are too many for a limit");
}

#[test]
fn not_more_io_limits_than_disks() {
    let many = |count| {
        move |spec: &mut v1::JobSpec| {
            spec.limits = Some(v1::Limits { io: vec!["1M".to_owned(); count], ..v1::Limits::default() });
        }
    };
    let refused = refused(many(MAX_IO_LIMITS + 1));
    assert_eq!(refused.field, "spec.limits.io");
    assert!(refused.problem.contains("257 limits"), "{}", refused.problem);
}

#[test]
fn the_environment() {
    let variable = |key: &str, value: &[u8]| v1::EnvVar { key: key.to_owned(), value: value.to_vec() };
    for key in ["", "A=B", "A\0"] {
        assert_eq!(refused(|spec| spec.env = vec![variable(key, b"")]).field, "spec.env[0].key");
    }
    let nul = refused(|spec| spec.env = vec![variable("A", b""), variable("B", b"\0")]);
    assert_eq!(nul.field, "spec.env[1].value");
    assert_eq!(refused(|spec| spec.env = vec![variable("A", &vec![b'x'; 131_070])]).field, "spec.env[0]");
    assert_eq!(refused(|spec| spec.env = vec![variable("A", b""); 5]).field, "spec.env");
}

#[test]
fn workdir_user_name_and_id() {
    for bad in [&b"tmp"[..], b"../x", b"/a\0", &[b'/'; 4096]] {
        assert_eq!(refused(|spec| spec.workdir = bad.to_vec()).field, "spec.workdir");
    }
    assert_eq!(refused(|spec| spec.user = "a\0".to_owned()).field, "spec.user");
    assert_eq!(refused(|spec| spec.name = "a\nb".to_owned()).field, "spec.name");
    assert_eq!(refused(|spec| spec.name = "ä".repeat(129)).field, "spec.name");
    assert!(job(spec(|spec| spec.name = "ä".repeat(128)), CAPS).is_ok());
    assert_eq!(id("not-a-uuid").unwrap_err().field, "id");
    assert_ne!(id("").unwrap(), id("").unwrap());
}

#[test]
fn signals_by_name_and_number() {
    for text in ["TERM", "term", "SIGTERM", "sigterm", "15"] {
        assert_eq!(signal("signal", text).unwrap(), SignalNumber::SIGTERM, "{text}");
    }
    for (text, number) in [("34", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)] {
        assert_eq!(signal("signal", text).unwrap().as_raw(), number, "{text}");
    }
    for bad in ["", "0", "-9", "SIG", "TERMINATE", "99", "SIGSIGTERM", "RTMIN+31"] {
        let error = signal("signal", bad).unwrap_err().to_string();
        assert!(error.starts_with(&format!("signal: {bad:?} is not a signal")), "{error}");
    }
}

#[test]
fn streams_and_beginnings() {
    assert_eq!(only(0).unwrap(), None);
    assert_eq!(only(2).unwrap(), Some(Kind::Stderr));
    assert_eq!(only(3).unwrap_err().field, "only");
    assert_eq!(beginning(None).unwrap(), Beginning::Start);
    assert_eq!(beginning(Some(WireFrom::SinceUnixUsec(7))).unwrap(), Beginning::Since { unix_usec: 7 });
    assert_eq!(beginning(Some(WireFrom::Offset((1 << 63) - 1))).unwrap(), Beginning::Offset((1 << 63) - 1));
    for offset in [1 << 63, u64::MAX] {
        assert_eq!(beginning(Some(WireFrom::Offset(offset))), Err(OffsetOutOfRange(offset)));
    }
}

#[test]
fn a_page_has_a_size_and_a_place_that_was_told() {
    let list = |size, token: &str| v1::ListRequest { page_size: size, page_token: token.to_owned() };
    let all = page(&list(None, "")).unwrap();
    assert_eq!((all.size, all.after), (None, None));
    let token = "1700000000000000.3f2b8c1e-9d4a-4c6b-8f0e-2a1b3c4d5e6f";
    let rest = page(&list(Some(7), token)).unwrap();
    assert_eq!((rest.size, rest.after.map(|after| after.to_string()).as_deref()), (Some(7), Some(token)));
    assert_eq!(page(&list(Some(u32::MAX), "")).unwrap().size, Some(MAX_PAGE_SIZE));
    assert_eq!(page(&list(Some(0), "")).unwrap_err().field, "page_size");
    assert_eq!(page(&list(None, "x")).unwrap_err().field, "page_token");
}

#[test]
fn the_last_minutes_count_by_this_clock_whatever_the_clients_says() {
    let since = |from, ago| since(from, ago, 1_000);
    for ahead in [None, Some(WireFrom::SinceUnixUsec(600_000_900))] {
        assert_eq!(since(ahead, Some(100)), Ok(Some(WireFrom::SinceUnixUsec(900))));
    }
    assert_eq!(since(None, Some(u64::MAX)), Ok(Some(WireFrom::SinceUnixUsec(0))));
    for from in [None, Some(WireFrom::SinceUnixUsec(7)), Some(WireFrom::TailLines(1))] {
        assert_eq!(since(from, None), Ok(from));
    }
    for from in [WireFrom::Offset(1), WireFrom::TailLines(1)] {
        assert_eq!(since(Some(from), Some(100)).unwrap_err().field, "since_usec_ago");
    }
}
