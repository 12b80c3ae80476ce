//! The worker's API over one connection, its errors in words.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use jobworker_proto::v1::job_worker_client::JobWorkerClient;
use jobworker_proto::v1::stream_response::Event;
use jobworker_proto::v1::{self, Job};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::call_error::CallError;
use crate::config::Target;
use crate::dial;
use crate::tls::FirstFailure;

/// The key under which a stream's response says where it begins.
const OFFSET_METADATA: &str = "jobworker-offset";

const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Jobs in one answer of `List`: some hundred KiB.
const PAGE_SIZE: u32 = 1000;

/// A job's output as it comes.
pub(crate) type Events = Pin<Box<dyn Stream<Item = Result<Event, CallError>> + Send>>;

/// A connection to the worker.
#[derive(Clone)]
pub(crate) struct Client {
    rpc: JobWorkerClient<Channel>,
    target: Arc<Target>,
    failure: FirstFailure,
}

impl Client {
    /// # Errors
    /// As [`dial::dial`].
    pub(crate) async fn connect(target: Arc<Target>) -> anyhow::Result<Self> {
        let (channel, failure) = dial::dial(&target).await?;
        let rpc = JobWorkerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Self { rpc, target, failure })
    }

    /// Which worker this talks to.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Whether the other one is the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.failure, &other.failure)
    }

    /// The job, and what the worker warns of.
    pub(crate) async fn start(&self, request: v1::StartRequest) -> Result<(Job, Vec<String>), CallError> {
        let response = self.rpc.clone().start(request).await.map(tonic::Response::into_inner);
        let warnings = response.as_ref().map(|response| response.warnings.clone()).unwrap_or_default();
        Ok((self.job(response.map(|response| response.job))?, warnings))
    }

    /// The job, and whether it had ended before.
    pub(crate) async fn stop(&self, request: v1::StopRequest) -> Result<(Job, bool), CallError> {
        let response = self.rpc.clone().stop(request).await.map(tonic::Response::into_inner);
        let already_ended = response.as_ref().is_ok_and(|response| response.already_ended);
        Ok((self.job(response.map(|response| response.job))?, already_ended))
    }

    pub(crate) async fn status(&self, job: String) -> Result<Job, CallError> {
        let response = self.rpc.clone().status(v1::StatusRequest { job }).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    pub(crate) async fn wait(&self, job: String) -> Result<Job, CallError> {
        let response = self.rpc.clone().wait(v1::WaitRequest { job }).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    pub(crate) async fn signal(&self, request: v1::SignalRequest) -> Result<Job, CallError> {
        let response = self.rpc.clone().signal(request).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    /// The job as it was.
    pub(crate) async fn remove(&self, job: String) -> Result<Job, CallError> {
        let response = self.rpc.clone().remove(v1::RemoveRequest { job }).await;
        self.job(response.map(|response| response.into_inner().job))
    }

    /// The next certificate, with what belongs to it (PEM).
    pub(crate) async fn renew(&self, csr: Vec<u8>) -> Result<String, CallError> {
        let response = self.rpc.clone().renew(v1::RenewRequest { csr }).await;
        Ok(response.map_err(|status| self.explain(&status))?.into_inner().chain_pem)
    }

    /// Whether the worker answers this client at all, and as one who has a role: what it may do does not matter.
    pub(crate) async fn is_known(&self) -> Result<(), CallError> {
        let request = v1::ListRequest { page_size: Some(1), ..v1::ListRequest::default() };
        match self.rpc.clone().list(request).await {
            Err(status) if status.source().is_some() || status.code() == Code::Unauthenticated => {
                Err(self.explain(&status))
            }
            _ => Ok(()),
        }
    }

    /// All jobs, however many there are. A worker that knows no pages gives all in one.
    pub(crate) async fn list(&self) -> Result<Vec<Job>, CallError> {
        let mut all = Vec::new();
        let mut request = v1::ListRequest { page_size: Some(PAGE_SIZE), ..v1::ListRequest::default() };
        loop {
            let response = self.rpc.clone().list(request.clone()).await;
            let page = response.map_err(|status| self.explain(&status))?.into_inner();
            all.extend(page.jobs);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The events of a job's output, and the offset at which they begin, if the worker says so.
    pub(crate) async fn stream(
        &self,
        request: v1::StreamRequest,
    ) -> Result<(Option<u64>, Events), CallError> {
        let response = self.rpc.clone().stream(request).await.map_err(|status| self.explain(&status))?;
        let offset =
            response.metadata().get(OFFSET_METADATA).and_then(|offset| offset.to_str().ok()?.parse().ok());
        let client = self.clone();
        let events = response.into_inner().map(move |message| {
            message
                .map_err(|status| client.explain(&status))?
                .event
                .ok_or_else(|| CallError::incomplete("an event"))
        });
        Ok((offset, Box::pin(events)))
    }

    fn job(&self, answer: Result<Option<Job>, Status>) -> Result<Job, CallError> {
        answer.map_err(|status| self.explain(&status))?.ok_or_else(|| CallError::incomplete("the job"))
    }

    fn explain(&self, status: &Status) -> CallError {
        // Only what goes wrong on this side has a source.
        match status.source() {
            Some(source) => CallError::broken(source, &self.failure, &self.target),
            None => CallError::answer(status),
        }
    }
}
