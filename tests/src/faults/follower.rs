//! A follower: reads a job's output from the first byte to the end, comes back where it was, and holds every byte
//! against what the job writes.

use std::time::{Duration, Instant};

use tonic::Status;

use super::lines::Expected;
use super::slot::Run;
use super::world::{PATIENCE, World};
use crate::api::stream_request::From;
use crate::api::stream_response::Event;
use crate::api::{Chunk, Job, OutputStream, StreamRequest};

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(50);

pub(super) struct Follower<'a> {
    world: &'a World,
    run: &'a Run,
    /// The only stream that it reads; unspecified: both.
    only: OutputStream,
    /// The absolute offset of the next byte.
    next: u64,
    stdout: Expected,
    stderr: Expected,
}

impl<'a> Follower<'a> {
    pub(super) fn new(world: &'a World, run: &'a Run, only: OutputStream) -> Self {
        let expected = |stream| Expected::new(run.plan.seed, stream);
        let (stdout, stderr) = (expected(OutputStream::Stdout), expected(OutputStream::Stderr));
        Self { world, run, only, next: 0, stdout, stderr }
    }

    /// Follows to the end, over every fault.
    pub(super) async fn follow(mut self) {
        let mut heard = Instant::now();
        loop {
            let before = self.next;
            let status = match self.attempt().await {
                Ok(job) => return self.check_end(&job),
                Err(status) => status,
            };
            if self.next > before {
                heard = Instant::now();
            }
            if self.world.is_final(&format!("stream {}", self.run.id), &status) {
                return;
            }
            if heard.elapsed() > PATIENCE {
                self.world
                    .wrong_answer(&format!("stream {}: nothing in {PATIENCE:?}: {status}", self.run.id));
                return;
            }
            self.world.figures().reconnects += 1;
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn attempt(&mut self) -> Result<Job, Status> {
        let request = StreamRequest {
            job: self.run.id.clone(),
            only: self.only.into(),
            from: Some(From::Offset(self.next)),
            no_follow: false,
        };
        let mut stream = self.world.connect().await?.stream(request).await?.into_inner();
        loop {
            // A job that writes is heard of long before this; one that does not ends before.
            let message = tokio::time::timeout(PATIENCE, stream.message()).await;
            match message.map_err(|_| Status::deadline_exceeded("a stream that says nothing"))?? {
                None => {
                    self.world.wrong_answer(&format!("stream {}: ended without the job's end", self.run.id));
                    return Err(Status::unavailable("the stream ended"));
                }
                Some(message) => match message.event.expect("an event") {
                    Event::Chunk(chunk) => self.check(&chunk),
                    Event::Gap(gap) => {
                        self.lost(gap.length, "a gap");
                        self.next = gap.offset + gap.length;
                    }
                    Event::End(job) => return Ok(job),
                },
            }
        }
    }

    fn check(&mut self, chunk: &Chunk) {
        let length = chunk.data.len() as u64;
        let all = self.only == OutputStream::Unspecified;
        if chunk.offset < self.next {
            self.repeated(self.next - chunk.offset, "an offset before the last");
        } else if all && chunk.offset > self.next {
            self.lost(chunk.offset - self.next, "offsets passed over");
        }
        self.next = chunk.offset + length;
        let expected =
            if chunk.stream() == OutputStream::Stderr { &mut self.stderr } else { &mut self.stdout };
        let (was_right, wrong) = (expected.wrong_bytes == 0, expected.check(&chunk.data));
        let mut figures = self.world.figures();
        figures.checked_bytes += length;
        figures.failures.lost_bytes += wrong;
        // From the first wrong byte on most are: it is told once.
        if wrong > 0 && was_right {
            figures.note(format!("stream {}: wrong bytes from about {} on", self.run.id, chunk.offset));
        }
    }

    fn check_end(&self, job: &Job) {
        self.run.check_verdict(self.world, job);
        let may_be_cut = self.world.was_shim_killed(&self.run.id);
        if self.only == OutputStream::Unspecified && !may_be_cut && self.next != job.output_bytes {
            self.lost(job.output_bytes.abs_diff(self.next), "the end is not where the job's output ends");
        }
        let written = self.run.written();
        for (expected, stream) in [(&self.stdout, OutputStream::Stdout), (&self.stderr, OutputStream::Stderr)]
        {
            if self.only != OutputStream::Unspecified && self.only != stream {
                continue;
            }
            let (at_least, at_most) = written(stream);
            if expected.seen_bytes < at_least && !may_be_cut {
                self.lost(at_least - expected.seen_bytes, "bytes that the kernel took from the job");
            }
            if expected.seen_bytes > at_most {
                self.repeated(expected.seen_bytes - at_most, "more than the job writes");
            }
        }
    }

    fn lost(&self, bytes: u64, why: &str) {
        let mut figures = self.world.figures();
        figures.failures.lost_bytes += bytes;
        figures.note(format!("stream {}: {bytes} bytes lost at {}: {why}", self.run.id, self.next));
    }

    fn repeated(&self, bytes: u64, why: &str) {
        let mut figures = self.world.figures();
        figures.failures.repeated_bytes += bytes;
        figures.note(format!("stream {}: {bytes} bytes repeated at {}: {why}", self.run.id, self.next));
    }
}
