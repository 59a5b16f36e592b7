//! Why calls were free, on its way to the ledger: written in batches beside the calls, so that a free call waits for no
//! disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ledger::{FreeCall, Ledger};

/// How many records may wait. Beyond that they are dropped: they stand for no money.
const QUEUE: usize = 8192;

/// The most records in one write.
const BATCH: usize = 1024;

/// How long a record waits for others to share its write.
const PAUSE: Duration = Duration::from_millis(250);

/// The end of the line that calls leave their records at.
#[derive(Debug)]
pub(super) struct FreeCallLog {
    queue: mpsc::Sender<FreeCall>,
}

/// Starts writing to `ledger` until `closing`, and then writes what is left.
pub(super) fn start(
    ledger: Arc<dyn Ledger>,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) -> FreeCallLog {
    let (queue, records) = mpsc::channel(QUEUE);
    tasks.spawn(write_down(ledger, records, closing.clone()));
    FreeCallLog { queue }
}

impl FreeCallLog {
    /// Leaves a record, without waiting.
    pub(super) fn note(&self, call: FreeCall) {
        if self.queue.try_send(call).is_err() {
            tracing::warn!(
                "too many free calls at once: why one of them was free is not written down"
            );
        }
    }
}

async fn write_down(
    ledger: Arc<dyn Ledger>,
    mut records: mpsc::Receiver<FreeCall>,
    closing: CancellationToken,
) {
    loop {
        let mut batch = Vec::new();
        let taken = closing
            .run_until_cancelled(records.recv_many(&mut batch, BATCH))
            .await;
        if taken == Some(0) {
            return;
        }
        if taken.is_none() {
            records.close();
            while let Ok(call) = records.try_recv() {
                batch.push(call);
            }
        }
        if !batch.is_empty()
            && let Err(error) = ledger.note_free(batch).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "why some calls were free could not be written down"
            );
        }
        if taken.is_none() {
            return;
        }
        let _ = closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}
