//! Whole processes, as people call them: `jobctl run` and `jobctl status` against /bin/true, ssh and others that run a command.

use std::cell::RefCell;

use super::Settings;
use super::floor::{Birthplace, Program};
use super::line::{Bound, Figure, Line, Unit};
use super::peers::{self, Missing, Ssh};
use super::stats::{Party, Summary, interleave};
use super::subject::Subject;
use crate::client::spec;

const SPAWN: &str = "spawning /bin/true";

pub(super) fn jobctl(settings: Settings) -> anyhow::Result<Vec<Line>> {
    let subject = Subject::new(settings)?;
    let mut client = subject.connect()?;
    let job = subject.start(&mut client, spec(&["/bin/true"]))?;
    let job = subject.wait(&mut client, &job)?;
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    let own = |args: &[&str]| -> anyhow::Result<Birthplace> {
        let program = Program::of(&subject.worker.jobctl_as("alice", args));
        Ok(Birthplace::new(program).stdout(null.try_clone()?.into()))
    };
    let run = RefCell::new(own(&["run", "--", "/bin/true"])?);
    let status = RefCell::new(own(&["status", &job.id])?);
    let bare = RefCell::new(Birthplace::of_true());
    let run_once = || {
        let took = msec(&run);
        subject.settle(0)?;
        took
    };
    let [run_time, status_time, floor] =
        interleave(settings.rounds(200), [&mut || run_once(), &mut || msec(&status), &mut || msec(&bare)])?;
    let floor = figure(SPAWN, floor);
    let mut lines = vec![
        Line::new("jobctl", "jobctl run -- true", figure("jobctl", run_time), Some(floor.clone()))
            .goal(Bound::AtMost(10.0))
            .stretch(Bound::AtMost(7.0)),
        Line::new("jobctl", "jobctl status", figure("jobctl", status_time), Some(floor.clone()))
            .goal(Bound::AtMost(5.0))
            .stretch(Bound::AtMost(4.5)),
    ];
    lines.extend(against_ssh(settings, &run_once)?);
    lines.extend(against_programs(settings, &run_once)?);
    Ok(lines)
}

fn msec(place: &RefCell<Birthplace>) -> anyhow::Result<f64> {
    Ok(place.borrow_mut().run()?.as_secs_f64() * 1e3)
}

fn figure(name: &str, summary: Summary) -> Figure {
    Figure::new(name, Unit::Msec, summary)
}

/// The key exchange that costs least: not OpenSSH's default, which takes longer than the rest of the connection.
const CHEAPEST_EXCHANGE: [&str; 2] = ["-o", "KexAlgorithms=curve25519-sha256"];

fn against_ssh(settings: Settings, run: &dyn Fn() -> anyhow::Result<f64>) -> anyhow::Result<Vec<Line>> {
    const WHATS: [&str; 3] = [
        "jobctl run -- true, against ssh with ControlMaster",
        "jobctl run -- true, against ssh, fresh connection",
        "the same, ssh's default key exchange",
    ];
    let missing = |reason: &str| WHATS.map(|what| Line::missing("jobctl", what, reason)).into();
    let ssh = match Ssh::start() {
        Ok(ssh) => ssh,
        Err(reason) => return Ok(missing(&reason)),
    };
    let master = match ssh.master() {
        Ok(master) => master,
        Err(reason) => return Ok(missing(&reason)),
    };
    let master: Vec<&str> = master.iter().map(String::as_str).collect();
    let place = |options: &[&str]| RefCell::new(Birthplace::new(ssh.program(options, &["/bin/true"])));
    let (mastered, fresh, default) = (place(&master), place(&CHEAPEST_EXCHANGE), place(&[]));
    let [own, mastered, fresh, default] = interleave(
        settings.rounds(30),
        [&mut || run(), &mut || msec(&mastered), &mut || msec(&fresh), &mut || msec(&default)],
    )?;
    let own = figure("jobctl", own);
    let line = |what, name, peer| Line::new("jobctl", what, own.clone(), Some(figure(name, peer)));
    let [what_mastered, what_fresh, what_default] = WHATS;
    Ok(vec![
        line(what_mastered, "ssh, ControlMaster", mastered).goal(Bound::AtMost(0.8)),
        line(what_fresh, "ssh, curve25519", fresh).goal(Bound::AtMost(1.0 / 15.0)),
        line(what_default, "ssh", default),
    ])
}

fn against_programs(settings: Settings, run: &dyn Fn() -> anyhow::Result<f64>) -> anyhow::Result<Vec<Line>> {
    let folder = tempfile::tempdir()?;
    let one = |(name, peer): (&'static str, Result<Birthplace, Missing>)| {
        let what = format!("jobctl run -- true, against {name}");
        let peer = match peer {
            Ok(peer) => RefCell::new(peer),
            Err(reason) => return Ok(Line::missing("jobctl", &what, &reason)),
        };
        let parties: [Party<'_>; 2] = [&mut || run(), &mut || msec(&peer)];
        let [own, peer] = interleave(settings.rounds(30), parties)?;
        Ok(Line::new("jobctl", &what, figure("jobctl", own), Some(figure(name, peer))))
    };
    peers::programs(folder.path()).into_iter().map(one).collect()
}
