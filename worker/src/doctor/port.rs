//! The addresses to listen on, that of the metrics too: bound for a moment, unless a worker has them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::Subject;
use super::finding::Finding;
use super::holder::Holder;

/// What the worker's process is called, as long as nobody renames the program.
const WORKER: &str = "jobworker";

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let config = &subject.config;
    let mut findings = vec![check_one(format!("port {}", config.listen), "--listen", config.listen)];
    if let Some(address) = config.metrics_listen {
        findings.push(check_one(format!("port {address} for metrics"), "--metrics-listen", address.get()));
    }
    findings
}

fn check_one(name: String, flag: &str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => Finding::ok(name, "any that is free"),
        Ok(_) => Finding::ok(name, "free"),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => in_use(name, flag, Holder::of(address)),
        Err(error) => Finding::fail(name, format!("can't listen: {error}"), remedy(&error, flag, address)),
    }
}

fn in_use(name: String, flag: &str, holder: Option<Holder>) -> Finding {
    let remedy = |stop: String| format!("{stop}, or {flag} with another port");
    match holder {
        Some(Holder { process: Some((pid, comm)), .. }) if comm == WORKER => {
            Finding::ok(name, format!("a jobworker serves it (pid {pid})"))
        }
        Some(Holder { process: Some((pid, comm)), user, .. }) => {
            let text = format!("in use by {comm} (pid {pid}, user {user})");
            Finding::fail(name, text, remedy(format!("stop {comm}")))
        }
        // A service may be in a namespace of its own, where not even its user sees into it.
        Some(Holder { process: None, user, is_our_user: true }) => {
            let text =
                format!("in use by a process of {user} that can't be seen from here, maybe the worker");
            Finding::warn(name, text, "run this as root, who sees which")
        }
        Some(Holder { process: None, user, .. }) => {
            let text = format!("in use by a process of {user}, which only that user and root may see");
            Finding::fail(name, text, remedy("stop it (sudo ss -ltnp tells which)".to_owned()))
        }
        None => {
            let text =
                "in use by a process that can't be seen from here (another network namespace, or just gone)";
            Finding::fail(name, text, remedy("stop it (sudo ss -ltnp)".to_owned()))
        }
    }
}

fn remedy(error: &io::Error, flag: &str, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(
                "{flag} with a port from 1024, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the worker's unit"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "this host has no address {}: `ip address` lists them; 0.0.0.0 stands for all",
                address.ip()
            )
        }
        _ => format!("{flag} with another address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    fn held_by(comm: &str) -> Finding {
        let process = Some((7, comm.to_owned()));
        in_use(
            "port".to_owned(),
            "--listen",
            Some(Holder { user: "root".to_owned(), process, is_our_user: true }),
        )
    }

    #[test]
    fn a_worker_that_runs_is_no_fault() {
        assert_eq!(held_by("jobworker").level, Level::Ok);
        assert_eq!(
            held_by("nginx").to_string(),
            "FAIL  port: in use by nginx (pid 7, user root); do: stop nginx, or --listen with another port"
        );
        let unseen = |is_our_user| Holder { user: "www".to_owned(), process: None, is_our_user };
        let finding = in_use("port".to_owned(), "--listen", Some(unseen(false)));
        assert!(finding.level == Level::Fail && finding.text.contains("www"), "{finding}");
        assert_eq!(in_use("port".to_owned(), "--listen", Some(unseen(true))).level, Level::Warn);
        assert_eq!(in_use("port".to_owned(), "--listen", None).level, Level::Fail);
    }

    #[test]
    fn an_address_of_another_host_is_told_from_a_port_that_needs_a_right() {
        let address = "192.0.2.1:50051".parse().unwrap();
        let error = TcpListener::bind(address).unwrap_err();
        assert!(remedy(&error, "--listen", address).contains("no address 192.0.2.1"), "{error}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(remedy(&denied, "--listen", address).contains("CAP_NET_BIND_SERVICE"));
    }
}
