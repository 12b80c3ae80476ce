//! The kernel's version, and what it has since.

use nix::sys::utsname::uname;

use super::finding::Finding;

/// `cgroup.kill`; `CLONE_INTO_CGROUP` is older (5.7), and `close_range` with `CLOSE_RANGE_CLOEXEC`, too (5.11).
const NEEDED: (u32, u32) = (5, 14);
/// `memory.peak`.
const WANTED: (u32, u32) = (5, 19);

pub(super) fn check() -> Vec<Finding> {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned());
    vec![judge(&release.unwrap_or_else(|errno| errno.to_string()))]
}

fn judge(release: &str) -> Finding {
    let remedy = "boot a newer kernel: Linux 5.14 at least, 5.19 to have all";
    match version(release) {
        None => Finding::warn("kernel", format!("can't tell the version of {release:?}"), remedy),
        Some(version) if version < NEEDED => {
            Finding::fail("kernel", format!("{release} has no cgroup.kill: jobs can't be ended"), remedy)
        }
        Some(version) if version < WANTED => {
            let text =
                format!("{release} has no memory.peak: the most memory that a job has used is not told");
            Finding::warn("kernel", text, remedy)
        }
        Some(_) => Finding::ok("kernel", format!("{release} (CLONE_INTO_CGROUP, cgroup.kill, memory.peak)")),
    }
}

/// The first two numbers of a release such as `6.1.0-18-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn what_a_kernel_lacks_is_told() {
        for (release, level, word) in [
            ("5.10.0-28-amd64", Level::Fail, "cgroup.kill"),
            ("4.19.0", Level::Fail, "cgroup.kill"),
            ("5.14.0-427.el9.x86_64", Level::Warn, "memory.peak"),
            ("5.19", Level::Ok, "CLONE_INTO_CGROUP"),
            ("6.1.0-18-cloud-amd64", Level::Ok, "cgroup.kill"),
            ("10.0.1+", Level::Ok, "10.0.1+"),
            ("plan9", Level::Warn, "plan9"),
        ] {
            let finding = judge(release);
            assert_eq!(finding.level, level, "{finding}");
            assert!(finding.text.contains(word), "{finding}");
        }
    }
}
