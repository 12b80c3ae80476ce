//! What a job's process gets to see: a clean environment, and which files its command may be.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::attributes::Setting;
use super::birth::Image;
use crate::job::{ByteStr, JobRequest};
use crate::spawner::users::OsUser;

/// Where commands are looked up unless the request brings a `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Bytes are bytes for every program, and text is UTF-8.
const LANG: &str = "C.UTF-8";

/// Prepares a request for its execution as `user`; `in_group`: whether a group will hold the job together.
pub fn image(request: &JobRequest, user: &OsUser, settings: Vec<Setting>, in_group: bool) -> Image {
    let env = environment(request, user);
    let path = env.iter().rev().find(|(key, _)| key == "PATH").map_or(&[][..], |(_, value)| value);
    Image {
        programs: candidates(&request.command, path),
        argv: [&request.command].into_iter().chain(&request.args).map(ByteStr::to_c_string).collect(),
        env: env.iter().map(|(key, value)| c_string(&[key.as_bytes(), b"=", value].concat())).collect(),
        workdir: request.workdir.to_c_string(),
        settings,
        user: user.credentials.clone(),
        die_with_parent: !in_group,
    }
}

/// `PATH`, `HOME`, `USER`, `LANG`; then what was asked for, which replaces a variable of the same name.
fn environment(request: &JobRequest, user: &OsUser) -> Vec<(String, Vec<u8>)> {
    let mut env = vec![
        ("PATH".to_owned(), DEFAULT_PATH.into()),
        ("HOME".to_owned(), user.home.as_os_str().as_bytes().to_vec()),
        ("USER".to_owned(), user.name.clone().into_bytes()),
        ("LANG".to_owned(), LANG.into()),
    ];
    for (key, value) in &request.env {
        env.retain(|(known, _)| known != key);
        env.push((key.clone(), value.as_bytes().to_vec()));
    }
    env
}

/// A command with a slash is a path; any other is looked for in each folder of `path`, where an empty one is the
/// working directory (POSIX, XBD 8.3).
fn candidates(command: &ByteStr, path: &[u8]) -> Vec<CString> {
    if command.as_bytes().contains(&b'/') {
        return vec![command.to_c_string()];
    }
    path.split(|&b| b == b':')
        .map(|folder| if folder.is_empty() { b"." } else { folder })
        .map(|folder| c_string(&[folder, b"/", command.as_bytes()].concat()))
        .collect()
}

/// Whether a command that "does not exist" stands there all the same: then the interpreter it names is missing.
pub fn exists(command: &ByteStr, workdir: &ByteStr) -> bool {
    command.as_bytes().contains(&b'/') && Path::exists(&workdir.as_path().join(command.as_path()))
}

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("ByteStr, user names and environment keys hold no NUL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: &str, env: &[(&str, &str)]) -> JobRequest {
        let text = |s: &str| ByteStr::new(s).unwrap();
        JobRequest {
            command: text(command),
            args: vec![text("-j4")],
            limits: jobworker_limits::Limits::default(),
            user: None,
            env: env.iter().map(|(k, v)| ((*k).to_owned(), text(v))).collect(),
            workdir: text("/"),
            name: None,
            timeout_msec: None,
            output_limit: None,
        }
    }

    fn alice() -> OsUser {
        OsUser { name: "alice".to_owned(), home: "/home/alice".into(), credentials: None }
    }

    fn texts(strings: &[CString]) -> Vec<&str> {
        strings.iter().map(|s| s.to_str().unwrap()).collect()
    }

    #[test]
    fn the_environment_is_clean_and_requests_win() {
        let image =
            image(&request("make", &[("HOME", "/srv"), ("A", "1"), ("A", "2")]), &alice(), Vec::new(), true);
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(texts(&image.env), [&path, "USER=alice", "LANG=C.UTF-8", "HOME=/srv", "A=2"]);
        assert_eq!(texts(&image.argv), ["make", "-j4"]);
    }

    #[test]
    fn names_are_looked_up_in_the_jobs_own_path() {
        let image = image(&request("make", &[("PATH", "/opt/bin::/bin")]), &alice(), Vec::new(), true);
        assert_eq!(texts(&image.programs), ["/opt/bin/make", "./make", "/bin/make"]);
    }

    #[test]
    fn a_slash_makes_it_a_path() {
        let image = image(&request("./make", &[]), &alice(), Vec::new(), true);
        assert_eq!(texts(&image.programs), ["./make"]);
    }
}
