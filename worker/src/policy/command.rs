//! Which programs a role's jobs may execute.
//!
//! A list bounds what is executed, not what that does: a program that runs others (a shell, make, env) is as good as
//! no list, and so is a folder that jobs' users may write to. So under a list a command is a path from the root
//! without `.` and `..`; a name is the path in the list that ends with it, and never looked up in a `PATH` that the
//! client may have set; and of the environment only what the role names may be set (`LD_PRELOAD` is no such name).

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use crate::job::ByteStr;

/// A path from the root, in an execve(2) kind of way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AllowedCommand {
    /// This file.
    Exact(String),
    /// Any file below this folder; ends with `/`.
    Below(String),
}

impl AllowedCommand {
    fn allows(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == path,
            Self::Below(folder) => path.len() > folder.len() && path.starts_with(folder.as_bytes()),
        }
    }

    fn is_called(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(path) => path.rsplit('/').next().is_some_and(|last| last.as_bytes() == name),
            Self::Below(_) => false,
        }
    }
}

/// The command to execute, if it is among the allowed ones; else what is wrong with it.
pub(super) fn allowed(list: &[AllowedCommand], asked: &ByteStr) -> Result<ByteStr, String> {
    let path = asked.as_bytes();
    if !path.contains(&b'/') {
        let mut called = list.iter().filter(|allowed| allowed.is_called(path));
        return match (called.next(), called.next()) {
            (Some(AllowedCommand::Exact(path)), None) => {
                Ok(ByteStr::new(path.as_bytes()).expect("checked when it was parsed"))
            }
            _ => Err(format!("\"{asked}\" is not one of the allowed commands: {}", shown(list))),
        };
    }
    if !is_plain(path) {
        return Err(format!("\"{asked}\" is no path from the root without \".\", \"..\" and \"//\""));
    }
    match list.iter().any(|allowed| allowed.allows(path)) {
        true => Ok(asked.clone()),
        false => Err(format!("\"{asked}\" is not one of the allowed commands: {}", shown(list))),
    }
}

fn shown(list: &[AllowedCommand]) -> String {
    let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

/// `/usr/bin/make`: each of its parts is a name.
fn is_plain(path: &[u8]) -> bool {
    let Some(path) = path.strip_prefix(b"/") else { return false };
    path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

impl Display for AllowedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Exact(path) | Self::Below(path)) = self;
        f.write_str(path)
    }
}

impl FromStr for AllowedCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, allowed) = match text.strip_suffix('/') {
            Some(folder) => (folder, Self::Below(text.to_owned())),
            None => (text, Self::Exact(text.to_owned())),
        };
        if is_plain(path.as_bytes()) && !path.contains('\0') {
            return Ok(allowed);
        }
        Err(format!(
            "{text:?} is no command to allow: a path from the root is needed, like \"/usr/bin/make\", or a folder \
             with a '/' at its end, like \"/opt/tools/\"; without \".\", \"..\" and \"//\""
        ))
    }
}

impl<'de> Deserialize<'de> for AllowedCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Vec<AllowedCommand> {
        ["/usr/bin/make", "/opt/tools/", "/bin/true", "/usr/bin/true"]
            .map(|text| text.parse().unwrap())
            .to_vec()
    }

    fn asked(command: &str) -> Result<String, String> {
        allowed(&list(), &ByteStr::new(command).unwrap()).map(|path| path.to_string())
    }

    #[test]
    fn paths_in_the_list_or_below_a_folder_of_it() {
        for path in ["/usr/bin/make", "/opt/tools/x", "/opt/tools/a/b", "/bin/true", "/opt/tools/..x"] {
            assert_eq!(asked(path).as_deref(), Ok(path));
        }
        for path in [
            "/usr/bin/make2",
            "/usr/bin/mak",
            "/opt/tools/",
            "/opt/tools",
            "/opt/toolsx/y",
            "/opt/tools/../../bin/sh",
            "/opt/tools/./x",
            "/opt/tools//x",
            "//usr/bin/make",
            "./make",
            "usr/bin/make",
            "../usr/bin/make",
            "/",
        ] {
            asked(path).expect_err(path);
        }
    }

    #[test]
    fn a_name_is_the_path_in_the_list_that_ends_with_it() {
        assert_eq!(asked("make").as_deref(), Ok("/usr/bin/make"));
        for name in ["true", "tools", "x", "sh", "", "..", "MAKE"] {
            let refused = asked(name).expect_err("ambiguous, or not there");
            assert!(refused.contains("/usr/bin/make, /opt/tools/, /bin/true"), "{refused}");
        }
        assert!(allowed(&[], &ByteStr::new("make").unwrap()).unwrap_err().ends_with("none"));
    }

    #[test]
    fn what_is_no_path_is_not_taken_into_a_list() {
        for bad in ["", "make", "/", "//", "/bin/../make", "bin/", "/a//b", "/a/./", "/a\0"] {
            let error = bad.parse::<AllowedCommand>().expect_err(bad);
            assert!(error.contains("is no command to allow") && error.contains("/opt/tools/"), "{error}");
        }
    }
}
