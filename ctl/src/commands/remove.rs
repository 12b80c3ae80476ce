//! `jobctl remove`: removes ended jobs and prints the id of each that is gone.

use clap::Args;

use crate::call_error::outage_cause;
use crate::cli::Format;
use crate::client::Client;
use crate::{exit, render};

/// Arguments of `remove`.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// The jobs' ids, or the beginnings of them
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
}

/// One that can't be removed does not keep the others from it.
pub(crate) async fn remove(client: &Client, format: Format, args: RemoveArgs) -> anyhow::Result<u8> {
    let mut code = exit::SUCCESS;
    for job in args.jobs {
        match client.remove(job).await.map_err(anyhow::Error::from) {
            Ok(job) => {
                if let Err(error) = render::job(format, &job, |job| Ok(job.id.clone())) {
                    render::note(&format!("job {} was removed, but {error:#}", job.id));
                    code = exit::FAILED;
                }
            }
            // The next would only say the same.
            Err(error) if outage_cause(&error).is_some() => return Err(error),
            Err(error) => {
                render::note(&format!("{error:#}"));
                code = exit::FAILED;
            }
        }
    }
    Ok(code)
}
