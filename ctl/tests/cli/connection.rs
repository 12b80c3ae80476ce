//! How jobctl finds the worker, who trusts whom, and wrong usage.

use std::fs;
use std::net::TcpListener;

use crate::fake_worker::Script;
use crate::jobctl::{Ran, World, as_client, bare, show};
use crate::pki::Pki;

fn ran(mut command: std::process::Command) -> Ran {
    Ran::from(command.output().expect("jobctl runs"))
}

#[test]
fn wrong_usage_is_2_and_125_where_the_code_is_the_jobs() {
    let table = [
        (&["run"][..], 125),
        (&["--address", "x:1", "run", "--bogus", "true"], 125),
        (&["run", "--timeout", "soon", "true"], 125),
        (&["wait"], 125),
        (&["start"], 2),
        (&["status"], 2),
        (&["stop", "--now", "--signal", "INT", "x"], 2),
        (&["stream", "--tail", "1", "--since", "1m", "x"], 2),
        (&["frobnicate"], 2),
        (&[], 2),
        (&["--help"], 0),
        (&["run", "--help"], 0),
        (&["--version"], 0),
    ];
    for (args, code) in table {
        let ran = ran(bare(args));
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
    }
}

#[test]
fn nobody_listens() {
    let pki = Pki::new();
    let free =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let list = ran(as_client(&pki, "alice", free, &["list"]));
    show("unreachable", &list);
    let words = format!("jobctl: cannot reach {free}: connection refused; is jobworker running there?\n");
    assert_eq!((list.code, list.stderr), (Some(1), words));
    assert_eq!(ran(as_client(&pki, "alice", free, &["run", "true"])).code, Some(125));
}

#[test]
fn without_a_certificate_it_says_how_to_give_one() {
    let ran = ran(bare(&["list"]));
    show("no --ca", &ran);
    assert_eq!(ran.code, Some(1));
    assert!(["--ca FILE", "JOBCTL_CA", "context"].iter().all(|way| ran.stderr.contains(way)), "{ran:?}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let world = World::new(Script::default());
    let mut command = world.command(&["list"]);
    let missing = ran({
        command.env("JOBCTL_KEY", "/nowhere/key.pem");
        command
    });
    assert!(missing.stderr.contains("--key /nowhere/key.pem"), "{missing:?}");
    let mut command = world.command(&["list"]);
    command.env("JOBCTL_KEY", world.pki.path("server-key.pem"));
    let mismatch = ran(command);
    show("key of another certificate", &mismatch);
    assert!(mismatch.stderr.contains("can't be used together"), "{mismatch:?}");
}

#[test]
fn a_file_without_an_end_is_no_configuration_and_no_certificate() {
    let world = World::new(Script::default());
    for name in ["JOBCTL_CA", "JOBCTL_CERT", "JOBCTL_KEY"] {
        let mut command = world.command(&["list"]);
        command.env(name, "/dev/zero");
        let ran = ran(command);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("/dev/zero: no ") && ran.stderr.contains("more than 1 MiB"), "{ran:?}");
    }
    let mut command = bare(&["list"]);
    command.env("JOBCTL_CONFIG", "/dev/zero");
    let ran = ran(command);
    assert_eq!(ran.code, Some(1));
    let words = "cannot read the configuration file /dev/zero: it holds more than 1 MiB";
    assert!(ran.stderr.contains(words), "{ran:?}");
}

/// jobctl with a client certificate that the worker does not accept.
fn refused(world: &World, client: &Pki, name: &str) -> String {
    let mut command = as_client(client, name, world.worker.address, &["list"]);
    command.env("JOBCTL_CA", world.pki.path("ca.pem"));
    let ran = ran(command);
    show(name, &ran);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("jobctl: unauthenticated: the worker refused the certificate"), "{ran:?}");
    ran.stderr
}

#[test]
fn a_refused_certificate_is_explained() {
    let world = World::new(Script::default());
    world.pki.issue_expired("old");
    let words = refused(&world, &world.pki, "old");
    assert!(words.contains("old.pem (old): certificate expired on 20"), "{words}");
    world.pki.issue_for_servers("other-purpose");
    assert!(refused(&world, &world.pki, "other-purpose").contains("not meant for clients"));
    for other in [Pki::of_ca("other CA"), Pki::new()] {
        let words = refused(&world, &other, "alice");
        assert!(words.contains("not signed by a CA that the worker knows (it was issued by CN="), "{words}");
    }
}

#[test]
fn the_alert_is_read_even_when_the_connection_was_reset_behind_it() {
    let world = World::new(Script { abrupt: true, ..Default::default() });
    world.pki.issue_expired("old");
    // Which side is faster differs from time to time.
    for _ in 0..20 {
        assert!(refused(&world, &world.pki, "old").contains("certificate expired on"));
    }
}

#[test]
fn a_worker_that_is_not_to_be_trusted_is_explained() {
    let world = World::new(Script::default());
    let other = Pki::new();
    let mut command = world.command(&["list"]);
    command.env("JOBCTL_CA", other.path("ca.pem"));
    let wrong_ca = ran(command);
    show("wrong --ca", &wrong_ca);
    assert!(wrong_ca.stderr.contains("its certificate is not signed by the CA in"), "{wrong_ca:?}");

    let address = format!("127.0.0.2:{}", world.worker.address.port());
    let listener = TcpListener::bind(&address).expect("127.0.0.2 is loopback too");
    let worker = world.worker.address;
    std::thread::spawn(move || forward(&listener, worker));
    let wrong_name = ran(as_client(&world.pki, "alice", &address, &["list"]));
    show("wrong name", &wrong_name);
    assert!(
        wrong_name.stderr.contains("is not for \"127.0.0.2\" but for localhost, 127.0.0.1"),
        "{wrong_name:?}"
    );
}

/// Passes one connection on to the worker.
fn forward(listener: &TcpListener, worker: std::net::SocketAddr) {
    let (mut client, _) = listener.accept().expect("jobctl connects");
    let mut server = std::net::TcpStream::connect(worker).expect("the worker listens");
    let (mut from_client, mut to_server) =
        (client.try_clone().expect("dup"), server.try_clone().expect("dup"));
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    let _ = std::io::copy(&mut server, &mut client);
}

#[test]
fn something_else_than_a_worker_is_recognised() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("jobctl connects");
        std::io::Write::write_all(&mut client, b"SSH-2.0-OpenSSH_9.2\r\n").expect("jobctl reads");
        // Until jobctl has left.
        let _ = std::io::copy(&mut client, &mut std::io::sink());
    });
    let ran = ran(as_client(&pki, "alice", address, &["list"]));
    show("not TLS", &ran);
    assert!(ran.stderr.contains("does not speak TLS"), "{ran:?}");
    server.join().expect("the server");
}

#[test]
fn contexts_come_from_the_configuration_file() {
    let world = World::new(Script::default());
    let config = world.pki.path("config.toml");
    let address = world.worker.address;
    let text = format!(
        "current = 'lab'\n[contexts.lab]\naddress = '{address}'\nca = 'ca.pem'\ncert = 'alice.pem'\nkey = 'alice-key.pem'\n\
         [contexts.broken]\naddress = 'nowhere'\n"
    );
    fs::write(&config, text).expect("config.toml");
    let list = |args: &[&str]| {
        let mut command = bare(args);
        command.env("JOBCTL_CONFIG", &config).current_dir("/");
        ran(command)
    };
    assert_eq!(list(&["list"]).code, Some(0), "relative paths are relative to the file");
    let broken = list(&["--context", "broken", "list"]);
    assert!(broken.stderr.contains("\"nowhere\" is not HOST:PORT"), "{broken:?}");
    let unknown = list(&["--context", "prod", "list"]);
    show("unknown context", &unknown);
    assert!(unknown.stderr.contains("no context \"prod\"; there is: broken, lab"), "{unknown:?}");

    let folder = world.pki.folder().join("xdg/jobctl");
    fs::create_dir_all(&folder).expect("a folder");
    fs::rename(&config, folder.join("config.toml")).expect("moved");
    let mut command = bare(&["list", "--ca", "nowhere.pem"]);
    let found = ran({
        command.env("XDG_CONFIG_HOME", world.pki.folder().join("xdg"));
        command
    });
    assert!(found.stderr.contains("--ca nowhere.pem"), "a flag wins over the context: {found:?}");
}
