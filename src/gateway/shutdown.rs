//! When to stop: Ctrl-C or SIGTERM.

use tokio_util::sync::CancellationToken;

use super::exit::{Failure, Outcome};

/// A token that is cancelled by the first Ctrl-C or SIGTERM. From the call on, neither ends the process by itself.
pub(super) fn requested() -> Outcome<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let signals = signals()
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    tokio::spawn(async move {
        signals.await;
        cancelled.cancel();
    });
    Ok(token)
}

#[cfg(unix)]
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
