//! What is logged, and where to: to stderr, never to stdout.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::exit::{Failure, Outcome};
use super::output;

/// Libraries that write whole messages into the log. They are off unless they are named.
const SILENT: &str = "nostr=off,nostr_sdk=off,nostr_relay_pool=off,nostr_relay_builder=off,tungstenite=warn,tokio_tungstenite=warn";

/// Starts logging. `filter` is `--log` or TOLLKEEPER_LOG; `otherwise` is the level without either.
pub(super) fn start(filter: Option<&str>, otherwise: &str) -> Outcome {
    let filter = filter.unwrap_or(otherwise);
    let filter = EnvFilter::try_new(format!("{SILENT},{filter}")).map_err(|error| {
        Failure::usage(format!(
            "--log (TOLLKEEPER_LOG) must be a level such as debug or a filter such as tollkeeper=debug: {error}"
        ))
    })?;
    // A second start (in tests) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // By default, a line that cannot be written (the disk is full, the reader of the pipe is gone) is complained about
        // on stderr as well, and that panics: in the middle of whatever wanted to log, paid calls included.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && output::wants_colour())
        .try_init();
    Ok(())
}
