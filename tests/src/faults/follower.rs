//! A follower: reads a job's output from the first byte to the end, comes back where it was, and holds every byte
//! against what the job writes.

use std::time::{Duration, Instant};

use tonic::Status;

use super::lines::Expected;
use super::slot::Run;
use super::world::{PATIENCE, World};
use crate::api::stream_request::From;
use crate::api::stream_response::Event;
use crate::api::{Chunk, Gap, Job, OutputStream, StreamRequest};

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(50);

pub(super) struct Follower<'a> {
    world: &'a World,
    run: &'a Run,
    /// The only stream that it reads; unspecified: both.
    only: OutputStream,
    /// The absolute offset of the next byte.
    next: u64,
    /// Bytes told as gone.
    gap_bytes: u64,
    stdout: Expected,
    stderr: Expected,
}

impl<'a> Follower<'a> {
    pub(super) fn new(world: &'a World, run: &'a Run, only: OutputStream) -> Self {
        let expected = |stream| Expected::new(run.plan.seed, stream);
        let (stdout, stderr) = (expected(OutputStream::Stdout), expected(OutputStream::Stderr));
        Self { world, run, only, next: 0, gap_bytes: 0, stdout, stderr }
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
            if self.world.is_final(&format!("stream {}", self.run.id), heard, &status) {
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
            ..StreamRequest::default()
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
                    Event::Gap(gap) => self.check_gap(&gap),
                    Event::End(job) => return Ok(job),
                },
            }
        }
    }

    fn check(&mut self, chunk: &Chunk) {
        let length = chunk.data.len() as u64;
        self.check_offset(chunk.offset);
        self.next = chunk.offset + length;
        let expected =
            if chunk.stream() == OutputStream::Stderr { &mut self.stderr } else { &mut self.stdout };
        let (was_right, wrong) = (expected.wrong_bytes == 0, expected.check(&chunk.data));
        self.world.figures().checked_bytes += length;
        self.wrong(wrong, was_right);
        self.check_missing();
    }

    fn check_offset(&self, offset: u64) {
        let all = self.only == OutputStream::Unspecified;
        if offset < self.next {
            self.repeated(self.next - offset, "an offset before the last");
        } else if all && offset > self.next {
            self.lost(offset - self.next, "offsets passed over");
        }
    }

    /// Only a disk that was full explains one.
    fn check_gap(&mut self, gap: &Gap) {
        self.check_offset(gap.offset);
        self.next = gap.offset + gap.length;
        if self.world.was_disk_full_since(self.run.begun) {
            self.world.figures().gap_bytes += gap.length;
        } else {
            self.lost(gap.length, "a gap, and the disk was not full");
        }
        self.gap_bytes += gap.length;
        let was_right = self.stdout.wrong_bytes + self.stderr.wrong_bytes == 0;
        let wrong = self.stdout.gap(gap.length) + self.stderr.gap(gap.length);
        self.wrong(wrong, was_right);
    }

    /// What both streams miss is what the gaps tell of, no byte more or less.
    fn check_missing(&self) {
        let missing = self.stdout.missing_bytes + self.stderr.missing_bytes;
        let clear = self.only == OutputStream::Unspecified
            && self.stdout.is_placed()
            && self.stderr.is_placed()
            && self.stdout.wrong_bytes + self.stderr.wrong_bytes == 0;
        if clear && missing != self.gap_bytes {
            self.inexact(&format!("{missing} bytes are missing"));
        }
    }

    fn check_end(&mut self, job: &Job) {
        self.run.check_verdict(self.world, job);
        let may_be_cut = self.world.was_shim_killed(&self.run.id);
        let was_right = self.stdout.wrong_bytes + self.stderr.wrong_bytes == 0;
        let wrong = self.stdout.settle() + self.stderr.settle();
        self.wrong(wrong, was_right);
        if !may_be_cut && self.gap_bytes != job.output_lost_bytes {
            self.inexact(&format!("the job tells of {} lost bytes", job.output_lost_bytes));
        }
        if self.only == OutputStream::Unspecified && !may_be_cut && self.next != job.output_bytes {
            self.lost(job.output_bytes.abs_diff(self.next), "the end is not where the job's output ends");
        }
        let written = self.run.written();
        if self.only == OutputStream::Unspecified && !may_be_cut {
            let (stdout, stderr) = (written(OutputStream::Stdout), written(OutputStream::Stderr));
            let (at_least, at_most) = (stdout.0 + stderr.0, stdout.1 + stderr.1);
            if !(at_least..=at_most).contains(&job.output_bytes) {
                let taken = format!("{} bytes of output, {at_least} to {at_most} taken", job.output_bytes);
                self.lost(job.output_bytes.abs_diff(at_least), &taken);
            }
        }
        for (expected, stream) in [(&self.stdout, OutputStream::Stdout), (&self.stderr, OutputStream::Stderr)]
        {
            if self.only != OutputStream::Unspecified && self.only != stream {
                continue;
            }
            let (at_least, at_most) = written(stream);
            let at_least = at_least.saturating_sub(self.gap_bytes);
            if expected.seen_bytes < at_least && !may_be_cut {
                self.lost(at_least - expected.seen_bytes, "bytes that the kernel took from the job");
            }
            if expected.seen_bytes + expected.missing_bytes > at_most {
                let more = expected.seen_bytes + expected.missing_bytes - at_most;
                self.repeated(more, "more than the job writes");
            }
        }
    }

    fn lost(&self, bytes: u64, why: &str) {
        let mut figures = self.world.figures();
        figures.failures.lost_bytes += bytes;
        figures.note(format!("stream {}: {bytes} bytes lost at {}: {why}", self.run.id, self.next));
    }

    /// From the first wrong byte on most are: it is told once.
    fn wrong(&self, bytes: u64, was_right: bool) {
        let mut figures = self.world.figures();
        figures.failures.lost_bytes += bytes;
        if bytes > 0 && was_right {
            figures.note(format!("stream {}: wrong bytes before {}", self.run.id, self.next));
        }
    }

    fn inexact(&self, why: &str) {
        let mut figures = self.world.figures();
        figures.failures.inexact_gaps += 1;
        let told = self.gap_bytes;
        figures.note(format!("stream {}: gaps of {told} bytes before {}: {why}", self.run.id, self.next));
    }

    fn repeated(&self, bytes: u64, why: &str) {
        let mut figures = self.world.figures();
        figures.failures.repeated_bytes += bytes;
        figures.note(format!("stream {}: {bytes} bytes repeated at {}: {why}", self.run.id, self.next));
    }
}
