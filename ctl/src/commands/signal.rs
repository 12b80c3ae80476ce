//! `jobctl signal`: sends a signal to a running job. Silent when it was sent.

use clap::Args;
use jobworker_proto::v1::SignalRequest;

use super::JobRef;
use crate::cli::Format;
use crate::client::Client;
use crate::{exit, render};

/// Arguments of `signal`.
#[derive(Args, Debug)]
pub(crate) struct SignalArgs {
    #[command(flatten)]
    job: JobRef,
    /// The signal: HUP, SIGHUP, 1 or RTMIN+3
    signal: String,
    /// Send it to every process of the job, not only to the main one
    #[arg(long)]
    all: bool,
}

pub(crate) async fn signal(client: &Client, format: Format, args: SignalArgs) -> anyhow::Result<u8> {
    let SignalArgs { job: JobRef { job }, signal, all } = args;
    let job = client.signal(SignalRequest { job, signal, all }).await?;
    if format == Format::Json {
        render::job(format, &job, render::text::status)?;
    }
    Ok(exit::SUCCESS)
}
