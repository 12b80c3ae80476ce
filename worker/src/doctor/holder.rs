//! Who listens on a port already: from `/proc/net/tcp`, and the descriptors of the processes that may be looked at.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use nix::unistd::{Uid, User};

/// The state of a listening socket (`TCP_LISTEN` of the kernel's `tcp_states.h`), as the tables have it.
const LISTENING: &str = "0A";

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its socket's owner.
    pub(super) user: String,
    /// Whether we are that user.
    pub(super) is_our_user: bool,
    /// Its process and that one's name; none where only root may see it.
    pub(super) process: Option<(u32, String)>,
}

impl Holder {
    /// Whoever listens on the address's port.
    pub(super) fn of(address: SocketAddr) -> Option<Self> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let socket = tables
            .into_iter()
            .find_map(|table| listener(&fs::read_to_string(table).ok()?, address.port()))?;
        let user = User::from_uid(Uid::from_raw(socket.uid)).ok().flatten();
        let user = user.map_or_else(|| format!("uid {}", socket.uid), |user| user.name);
        let is_our_user = Uid::from_raw(socket.uid) == Uid::effective();
        Some(Self { user, is_our_user, process: process(Path::new("/proc"), socket.inode) })
    }
}

/// A line of a table, as far as needed.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    uid: u32,
    inode: u64,
}

/// The listening socket of that port (proc_pid_net(5): address:port in hex, state, …, uid, timeout, inode).
fn listener(table: &str, port: u16) -> Option<Socket> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENING, _, _, _, uid, _, inode, ..] = fields.as_slice() else { return None };
        let (_, hex) = local.rsplit_once(':')?;
        (u16::from_str_radix(hex, 16) == Ok(port))
            .then_some(Socket { uid: uid.parse().ok()?, inode: inode.parse().ok()? })
    })
}

fn process(proc: &Path, inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir(proc).ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        open.find(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()))?;
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some((pid, name.trim_end().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:C383 00000000:0000 0A 00000000:00000000 00:00000000 00000000   990        0 41 1 0 100 0 0 10 0
   1: 0100007F:C384 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0 100 0 0 10 0
   2: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1 0 100 0 0 10 0
";

    #[test]
    fn only_who_listens_counts() {
        assert_eq!(listener(TABLE, 50051), Some(Socket { uid: 990, inode: 41 }));
        assert_eq!(listener(TABLE, 50052), None);
        assert_eq!(listener(TABLE, 22), Some(Socket { uid: 0, inode: 43 }));
        assert_eq!(listener("", 22), None);
    }

    #[test]
    fn we_find_ourselves() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _connected = TcpStream::connect(address).unwrap();
        let (pid, _) = Holder::of(address).unwrap().process.unwrap();
        assert_eq!(pid, std::process::id());
    }
}
