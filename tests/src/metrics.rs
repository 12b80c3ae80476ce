//! A worker's metrics as a scraper gets them: plain HTTP by hand, and the text taken apart.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Worker;
use crate::wait::{PATIENCE, until};

/// The media type of OpenMetrics, for an `Accept` header.
pub const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0";

/// What an HTTP server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, as they came.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Sends `METHOD path` and reads the answer to the connection's end.
///
/// # Panics
/// When the server can't be reached, or does not answer with HTTP.
pub fn http(address: &str, method: &str, path: &str) -> Answer {
    http_with(address, method, path, &[])
}

/// As [`http()`], with more headers.
///
/// # Panics
/// When the server can't be reached, or does not answer with HTTP.
pub fn http_with(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut tcp = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(tcp, "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    tcp.read_to_string(&mut text).expect("an answer to the end");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {text}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Answer { status: status.unwrap_or_else(|| panic!("no status: {head}")), head: head.to_owned(), body }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Where a worker that was started with `--metrics-listen` tells its metrics, from its log.
///
/// # Panics
/// When it does not say so.
pub fn address(worker: &Worker) -> String {
    until("the metrics' address in the log", || {
        worker.log().iter().find_map(|line| {
            let (_, rest) = line.split_once("metrics at http://")?;
            rest.split_once("/metrics").map(|(address, _)| address.to_owned())
        })
    })
}

/// All samples by their name with its labels, like `jobworker_calls_total{method="List",code="OK"}`.
///
/// # Panics
/// When they can't be had, or are not whole.
pub fn samples(address: &str) -> BTreeMap<String, f64> {
    let answer = http_with(address, "GET", "/metrics", &[("Accept", OPEN_METRICS)]);
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert!(answer.body.ends_with("# EOF\n"), "{answer:#?}");
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    };
    lines.map(sample).collect()
}
