//! The end of `serve`: what is executed is finished, and what cannot be finished in time is in the ledger.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::gateway::exit::{Failure, Outcome};
use crate::server::PaidServer;

/// How the four seconds that an orderly end may take are spent: on calls that are being executed, on children that do
/// not leave, on the books.
const FINISH: Duration = Duration::from_millis(1800);
const LEAVE: Duration = Duration::from_millis(1200);
const WRITE: Duration = Duration::from_millis(600);

/// Serves until told to stop, or left by the client that started us, then ends in order.
pub(super) async fn finish(
    mut work: JoinHandle<()>,
    paid: &PaidServer,
    [stop, left]: &[CancellationToken; 2],
    drop_calls: &CancellationToken,
) -> Outcome {
    let closing = paid.gate().closing();
    let mut at_work = true;
    tokio::select! {
        () = stop.cancelled() => {}
        () = left.cancelled() => {}
        () = closing.cancelled() => {}
        _ = &mut work => at_work = false,
    }
    // A client that leaves closes the gate, and that ends the work: which of them was noticed first does not tell why.
    let in_order = stop.is_cancelled() || left.is_cancelled();
    closing.cancel();
    if in_order {
        tracing::info!("stopping");
        if at_work && timeout(FINISH, &mut work).await.is_ok() {
            at_work = false;
        }
        if at_work {
            tracing::warn!(
                "some calls did not end in time; whoever paid for one gets the right to it back"
            );
        }
    }
    // Of a gate that closed by itself: what is being executed may not be ours any more.
    drop_calls.cancel();
    if at_work {
        let _ = timeout(LEAVE, &mut work).await;
    }
    let _ = timeout(WRITE, paid.shutdown(WRITE)).await;
    match (in_order, paid.gate().has_lost_its_place()) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::failed(
            "this instance was taken for gone, and others have taken over; start it again",
        )),
        (false, false) => Err(Failure::failed("the gate closed; the log says why")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::server::{ServerPayments, with_server_payments};
    use crate::transport::memory;

    async fn shop() -> Arc<PaidServer> {
        let (transport, _client) = memory::pair();
        let payments = ServerPayments::builder().build().unwrap();
        with_server_payments(transport, payments).await.unwrap()
    }

    async fn end_of(paid: &PaidServer, ends: [CancellationToken; 2]) -> Outcome {
        let work = tokio::spawn(paid.gate().closing().clone().cancelled_owned());
        finish(work, paid, &ends, &CancellationToken::new()).await
    }

    /// The client's leaving closes the gate as well, and either may be noticed first.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_left_is_an_orderly_end_whatever_is_noticed_first() {
        for _ in 0..32 {
            let paid = shop().await;
            let [stop, left] = [CancellationToken::new(), CancellationToken::new()];
            left.cancel();
            paid.gate().closing().cancel();
            assert!(end_of(&paid, [stop, left]).await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_that_closed_by_itself_is_a_failure() {
        let paid = shop().await;
        paid.gate().closing().cancel();
        let ends = [CancellationToken::new(), CancellationToken::new()];
        let failure = end_of(&paid, ends).await.unwrap_err();
        assert!(failure.message().contains("the log says why"));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_broke_off_is_a_failure_and_closes_the_gate() {
        let paid = shop().await;
        let work = tokio::spawn(async {});
        let ends = [CancellationToken::new(), CancellationToken::new()];
        let ended = finish(work, &paid, &ends, &CancellationToken::new()).await;
        assert!(ended.is_err() && paid.gate().closing().is_cancelled());
    }
}
