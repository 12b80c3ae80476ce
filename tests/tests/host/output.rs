//! A job's output: every byte of it, from both streams, as it was written, and an end that comes.

use jobworker_tests::api::stream_response::Event;
use jobworker_tests::api::{OutputStream, StreamRequest};
use jobworker_tests::client::{Output, everything, output, shell, spec, start, wait};
use jobworker_tests::wait::until_equal;
use jobworker_tests::{Client, Worker, census};

use crate::support::{jobctl, wait_for_file, write_in_turn};

async fn output_of(client: &mut Client, script: &str) -> Output {
    let job = start(client, shell(script)).await.expect("a job");
    let output = output(client, everything(&job.id)).await.expect("its output");
    assert!(output.end.as_ref().is_some_and(|end| end.id == job.id && end.outcome.is_some()), "{output:?}");
    assert_eq!(output.gap_bytes, 0);
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_bytes_of_a_short_job_arrive() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    for round in 0..20 {
        let job = start(&mut admin, spec(&["printf", "x"])).await.expect("a job");
        let found = output(&mut admin, everything(&job.id)).await.expect("its output");
        assert_eq!(
            (found.stdout.as_slice(), found.stderr.as_slice()),
            (&b"x"[..], &b""[..]),
            "round {round}"
        );
    }
    let silent = output_of(&mut admin, "exit 0").await;
    assert_eq!(silent.merged, b"", "no output at all is an answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_are_apart_and_in_order_together() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let lines = 0..20;
    let pieces: Vec<_> =
        lines.clone().flat_map(|i| [(1, format!("out{i}\\n")), (2, format!("err{i}\\n"))]).collect();
    let job = write_in_turn(&mut admin, &pieces).await;
    let merged = output(&mut admin, everything(&job.id)).await.expect("its output");
    let expected: String = lines.clone().map(|i| format!("out{i}\nerr{i}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&merged.merged), expected);
    for (only, name) in [(OutputStream::Stdout, "out"), (OutputStream::Stderr, "err")] {
        let request = StreamRequest { only: only.into(), ..everything(&job.id) };
        let one = output(&mut admin, request).await.expect("its output");
        let expected: String = lines.clone().map(|i| format!("{name}{i}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&one.merged), expected);
        assert!(one.end.is_some(), "the end comes whichever stream is read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobctl_splits_the_streams_and_changes_no_byte() {
    let worker = Worker::start();
    let script = r"printf '\000\377\r\n\033[0m\303'; printf '\376err\000' >&2; exit 9";
    let ran = worker.jobctl(&["run", "--", "sh", "-c", script]);
    assert_eq!(ran.status.code(), Some(9));
    assert_eq!(ran.stdout, b"\0\xff\r\n\x1b[0m\xc3");
    assert_eq!(ran.stderr, b"\xfeerr\0");
    let job = jobctl(&worker, &["start", "--", "sh", "-c", script]).stdout.trim_end().to_owned();
    let streamed = worker.jobctl(&["stream", &job]);
    assert_eq!((streamed.stdout, streamed.stderr), (ran.stdout.clone(), ran.stderr.clone()));
    let only = worker.jobctl(&["stream", "--stdout", &job]);
    assert_eq!((only.stdout, only.stderr), (ran.stdout, Vec::new()));
    let only = worker.jobctl(&["logs", "--stderr", &job]);
    assert_eq!((only.stdout, only.stderr), (Vec::new(), ran.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_each_write_as_it_comes() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gates: Vec<_> = (0..3).map(|number| folder.path().join(number.to_string())).collect();
    let script: String = gates.iter().map(|gate| format!("{}; printf x\n", wait_for_file(gate))).collect();
    let job = start(&mut admin, shell(&script)).await.expect("a job");
    let mut stream = admin.stream(everything(&job.id)).await.expect("its output").into_inner();
    for (offset, gate) in (0..).zip(&gates) {
        std::fs::write(gate, "").expect("a writable folder");
        let event = stream.message().await.expect("no error").expect("not the end").event.expect("an event");
        let Event::Chunk(chunk) = event else { panic!("not output: {event:?}") };
        assert_eq!((chunk.offset, &chunk.data[..]), (offset, &b"x"[..]));
        assert!(Some(chunk.time_unix_usec) >= job.started_unix_usec);
    }
    let event = stream.message().await.expect("no error").expect("not the end").event.expect("an event");
    assert!(matches!(event, Event::End(job) if job.output_bytes == 3));
    assert!(stream.message().await.expect("no error").is_none(), "the stream ends with the job");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_descendant_with_the_pipe_in_its_hands_does_not_keep_a_job_from_ending() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    // An odd number of seconds tells this test's processes from others'.
    for (seconds, script) in [
        ("301.25", "sleep 301.25 & echo done"),
        ("302.25", "setsid sleep 302.25 & echo done"),
        ("303.25", "(trap '' TERM HUP; setsid setsid sh -c 'trap \"\" TERM; sleep 303.25; :') & echo done"),
    ] {
        let found = output_of(&mut admin, script).await;
        assert_eq!(found.stdout, b"done\n", "{script}");
        until_equal(script, &Vec::new(), || census::processes_with(&format!("sleep {seconds}")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_closes_its_streams_runs_on() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gate = folder.path().join("gate");
    let script = format!("echo last; exec >&- 2>&-; {}; exit 6", wait_for_file(&gate));
    let job = start(&mut admin, shell(&script)).await.expect("a job");
    let mut stream = admin.stream(everything(&job.id)).await.expect("its output").into_inner();
    stream.message().await.expect("no error").expect("the line");
    std::fs::write(&gate, "").expect("a writable folder");
    let end = wait(&mut admin, &job.id).await.expect("the end").outcome.expect("an outcome");
    assert_eq!(end.ended, Some(jobworker_tests::api::outcome::Ended::ExitCode(6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_sees_a_clean_world() {
    let worker = Worker::start();
    let mut admin = worker.admin().await;
    let found = output_of(&mut admin, "env | grep -v '^_=' | cut -d= -f1 | sort | tr '\\n' ' '").await;
    // The shell itself adds PWD, and some shells OLDPWD or SHLVL.
    let names = String::from_utf8(found.stdout).expect("names of variables");
    let names: Vec<_> =
        names.split_whitespace().filter(|name| !["PWD", "OLDPWD", "SHLVL"].contains(name)).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "USER"]);
    let script = "pwd; cat; ls /proc/self/fd | wc -l; umask; read pid name state parent group session rest \
                  < /proc/$$/stat; [ $group = $$ ] && [ $session = $$ ] && echo its own session";
    let found = output_of(&mut admin, script).await;
    let text = String::from_utf8(found.stdout).expect("text");
    // ls itself opens the folder: no descriptor but 0, 1, 2 and that.
    assert_eq!(text.split_whitespace().collect::<Vec<_>>().join(" "), "/ 4 0022 its own session");
    // No shell in between: some ignore a signal or two themselves.
    let signals =
        start(&mut admin, spec(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])).await.expect("a job");
    let found = output(&mut admin, everything(&signals.id)).await.expect("its output");
    let text = String::from_utf8(found.stdout).expect("text");
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}
