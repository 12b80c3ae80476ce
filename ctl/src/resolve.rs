//! The addresses of a host: its own, if it is one, else what the system's name service says (nsswitch.conf(5)).
//!
//! A jobctl that is linked statically starts sooner, and on any distribution, but can't ask that itself: the modules of
//! glibc's name service fit only the very glibc they were built with. So it calls getent(1), which comes with them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use tokio::net::lookup_host;
use tokio::process::Command;

/// Where to connect to, in this order.
///
/// # Errors
/// The name is not known, or nobody can be asked.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    if cfg!(target_feature = "crt-static") {
        Ok(ask_getent(host).await?.into_iter().map(|ip| (ip, port).into()).collect())
    } else {
        Ok(lookup_host((host, port)).await?.collect())
    }
}

async fn ask_getent(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut getent = Command::new("getent");
    getent.args(["ahosts", "--", name]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let answer = getent.output().await.map_err(|error| {
        io::Error::other(format!("cannot call getent, which this build of jobctl needs for names: {error}"))
    })?;
    let addresses = addresses(&String::from_utf8_lossy(&answer.stdout));
    if addresses.is_empty() {
        return Err(io::Error::other("name or service not known"));
    }
    Ok(addresses)
}

/// Of lines such as `192.0.2.1  STREAM worker.example`; there is one for each type of socket.
fn addresses(lines: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        (words.next()? == "STREAM").then_some(address)
    };
    lines.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_its_own() {
        for (host, address) in [("192.0.2.7", "192.0.2.7:9"), ("::1", "[::1]:9")] {
            let resolved = resolve(host, 9).await.expect("no question");
            assert_eq!(resolved, [address.parse().expect("an address")]);
        }
    }

    #[tokio::test]
    async fn getent_says_what_the_name_service_does() {
        let mut asked = ask_getent("localhost").await.expect("known everywhere");
        let mut looked_up: Vec<_> =
            lookup_host(("localhost", 9)).await.expect("known everywhere").map(|found| found.ip()).collect();
        asked.sort_unstable();
        looked_up.sort_unstable();
        looked_up.dedup();
        assert_eq!(asked, looked_up);
    }

    #[tokio::test]
    async fn an_unknown_name_is_an_error() {
        let error = ask_getent("worker.invalid").await.expect_err("RFC 6761: there is none").to_string();
        assert_eq!(error, "name or service not known");
    }

    #[test]
    fn one_of_each_address_is_taken() {
        let lines = "::1             STREAM localhost\n::1             DGRAM  \n::1             RAW    \n\
                     127.0.0.1       STREAM \n127.0.0.1       DGRAM  \n127.0.0.1       RAW    \n";
        let expected: [IpAddr; 2] = ["::1", "127.0.0.1"].map(|text| text.parse().expect("an address"));
        assert_eq!(addresses(lines), expected);
        assert!(addresses("fe80::1%eth0 STREAM x\nnonsense\n\n").is_empty());
    }
}
