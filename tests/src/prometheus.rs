//! Debian's Prometheus, which `scripts/prometheus` unpacks, scraping a worker.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::metrics::http;
use crate::wait::until_within;

/// A running Prometheus, which ends when dropped.
pub struct Prometheus {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Prometheus {
    /// Scrapes `target` twice a second, as the job `jobworker`.
    ///
    /// # Panics
    /// When it is not there or does not start.
    pub fn scraping(target: &str) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/prometheus/usr/bin/prometheus");
        assert!(program.exists(), "{} is missing: run scripts/prometheus", program.display());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms }}\n\
             scrape_configs: [{{ job_name: jobworker, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("written");
        let address = format!("127.0.0.1:{}", free_port());
        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let process = Command::new(program)
            .arg(format!("--config.file={}/prometheus.yml", folder.path().display()))
            .arg(format!("--storage.tsdb.path={}/data", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it can be executed");
        let mut this = Self { process, address, folder };
        until_within(Duration::from_secs(120), "Prometheus has scraped the worker", || {
            let ended = this.process.try_wait().expect("our own child");
            assert!(ended.is_none(), "Prometheus has ended: {}", this.log());
            this.listens().then(|| this.query("up{job=\"jobworker\"} == 1"))?.first().map(|_| ())
        });
        this
    }

    /// The result of a query, as its API has it.
    ///
    /// # Panics
    /// When it does not take the query.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let answer = http(&self.address, "GET", &format!("/api/v1/query?query={}", encoded(query)));
        let json: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        assert_eq!(json["status"], "success", "{query}: {answer:#?}");
        json["data"]["result"].as_array().expect("a list of results").clone()
    }

    fn listens(&self) -> bool {
        std::net::TcpStream::connect(&self.address).is_ok()
            && http(&self.address, "GET", "/-/ready").status == 200
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("Prometheus's log: {}", self.log());
        }
    }
}

/// Somebody may take it in between: then it does not start, and says so.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
