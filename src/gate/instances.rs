//! Several instances of one server on one ledger: who answers a request, and what becomes of the work of one that is gone.
//!
//! Every request reaches all of them, and whoever takes its event in the ledger first answers it. Requests wait for their money, and
//! payments are watched, where they were taken. When an instance falls silent, each of its unfinished entries goes to one of the
//! others, which does with it what a restart would do. The instance itself, should it only have been asleep, finds that nothing that it
//! writes counts any more, and ends.
//!
//! A ledger without [instances](crate::ledger::Ledger::instances) is served by this process alone, and nothing of this happens.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Gate;
use super::door::Work;
use super::log::log_money;
use super::negotiate::Negotiated;
use crate::error::Result;
use crate::ledger::{Applied, Entry, Taken, Transition};
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};
use crate::transport::{Origin, Outbound, ReplyTo};
use crate::wire::{Message, Request, RequestId};

/// How often an instance looks for work that others have left.
const LOOK: Duration = Duration::from_secs(2);

/// How many entries are taken over at a time.
const PAGE: usize = 200;

/// How long a cancellation is left to the instance where its request waits.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(1);

/// How long a request waits for a ledger that cannot be asked whose it is.
const HELD: Duration = Duration::from_secs(30);

/// How soon something is tried again that the ledger did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes over what others have left, and ends the gate if others have taken over from us.
pub(super) async fn attend(gate: Arc<Gate>) {
    if !gate.is_shared() {
        return;
    }
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while gate
        .closing
        .run_until_cancelled(ticks.tick())
        .await
        .is_some()
    {
        let Some(instances) = gate.ledger.instances() else {
            return;
        };
        if instances.is_lost() {
            tracing::error!(
                "this instance has lost its place; it ends, and may be started again at once"
            );
            gate.closing.cancel();
            return;
        }
        if let Err(error) = gate.take_over().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what others have left could not be taken over yet"
            );
        }
    }
}

impl Gate {
    /// Whether other processes serve from the same ledger, or may.
    pub(super) fn is_shared(&self) -> bool {
        self.ledger.instances().is_some()
    }

    /// Whether this process was one of several instances, and was taken for gone.
    #[must_use]
    pub fn has_lost_its_place(&self) -> bool {
        self.ledger
            .instances()
            .is_some_and(|instances| instances.is_lost())
    }

    /// Whether this instance does what one alone should do.
    pub(super) fn keeps_house(&self) -> bool {
        self.ledger
            .instances()
            .is_none_or(|instances| instances.crowd().first)
    }

    /// Takes a request event. The first who does answers it; `None` if that is somebody else, or cannot be told.
    ///
    /// Where it cannot be told, the request waits for a while, and then nobody answers it from here: whoever has it may be about
    /// to serve it, and a client that hears of a failure asks anew, and would be asked to pay anew.
    pub(super) async fn take(&self, event: RequestEventId) -> Option<Taken> {
        let until = tokio::time::Instant::now() + HELD;
        while let Some(instances) = self.ledger.instances() {
            let error = match instances.take(event).await {
                Ok(Taken::Elsewhere) => return None,
                Ok(taken) => return Some(taken),
                Err(error) => error,
            };
            if instances.is_lost() || tokio::time::Instant::now() >= until {
                tracing::warn!(
                    request_event_id = %event, error = &error as &dyn std::error::Error,
                    "a request could not be taken; it is not answered from here"
                );
                return None;
            }
            let pause = tokio::time::sleep(AGAIN);
            self.closing.run_until_cancelled(pause).await?;
        }
        Some(Taken::First)
    }

    /// Whether a failure of the ledger may be the answer to a request. Not among several: the same request sent again may be served by
    /// another of them at that very moment, and its client, who heard of a failure, would ask anew and be asked to pay anew.
    pub(super) fn may_refuse(&self) -> bool {
        !self.is_shared()
    }

    /// Runs `work` beside the door, if the event is ours to answer.
    pub(super) async fn answer_if_ours(self: &Arc<Self>, event: RequestEventId, work: Work) {
        let gate = Arc::clone(self);
        self.in_a_task(Box::pin(async move {
            if gate.take(event).await.is_some() {
                work.await;
            }
        }))
        .await;
    }

    /// Takes a free request in, which only the one may run who is the first to take it. In a task of its own: it asks the ledger.
    pub(super) async fn enter_free_shared(
        self: &Arc<Self>,
        request: Request,
        origin: Origin,
        negotiated: Negotiated,
    ) {
        let gate = Arc::clone(self);
        self.in_a_task(Box::pin(async move {
            if gate.take(origin.event).await == Some(Taken::First) {
                gate.forward(request, origin, negotiated, None).await;
            }
        }))
        .await;
    }

    /// Whether what was claimed may be executed now: nobody else can have been given it meanwhile.
    pub(super) async fn may_execute(&self) -> bool {
        match self.ledger.instances() {
            Some(instances) => instances.holds().await,
            None => true,
        }
    }

    /// Whether everything that this process has in memory is somebody else's business.
    pub(super) fn is_succeeded(&self) -> bool {
        self.ledger
            .instances()
            .is_some_and(|instances| instances.is_lost())
    }

    /// Takes over the unfinished entries of instances that are gone.
    pub(super) async fn take_over(self: &Arc<Self>) -> Result<()> {
        let (mut taken, mut former) = (0usize, 0u32);
        while let Some(instances) = self.ledger.instances() {
            let page = instances.inherit(PAGE).await?;
            if page.is_empty() {
                break;
            }
            taken += page.len();
            for entry in page {
                self.recover_one(entry, &mut former).await?;
            }
        }
        if taken > 0 {
            tracing::info!(entries = taken, "took over what others have left");
        }
        Ok(())
    }

    /// The client takes a request back that does not wait here: should it wait at an instance that does not hear of it, its entry is
    /// told, and a payment that still comes is an authorization.
    pub(super) fn cancel_elsewhere(self: &Arc<Self>, client: ClientPubkey, request_id: RequestId) {
        if !self.is_shared() {
            return;
        }
        let (gate, heard) = (Arc::clone(self), self.clock.now());
        self.tasks.spawn(async move {
            let waited = tokio::time::sleep(LEFT_TO_OTHERS);
            if gate.closing.run_until_cancelled(waited).await.is_none() {
                return;
            }
            if let Err(error) = gate.detach_elsewhere(&client, &request_id, heard).await {
                tracing::warn!(
                    client_pubkey = client.short(),
                    error = &error as &dyn std::error::Error,
                    "a cancellation could not be passed on"
                );
            }
        });
    }

    async fn detach_elsewhere(
        &self,
        client: &ClientPubkey,
        request_id: &RequestId,
        heard: Timestamp,
    ) -> Result<()> {
        let Some(instances) = self.ledger.instances() else {
            return Ok(());
        };
        let is_meant = |entry: &Entry| {
            let request = entry
                .request
                .as_deref()
                .and_then(|json| Message::parse(json).ok());
            // One that came after the cancellation may have the same id.
            entry.quoted_at <= heard
                && matches!(request, Some(Message::Request(request)) if request.id == *request_id)
        };
        for entry in instances
            .waiting_of(client)
            .await?
            .iter()
            .filter(|entry| is_meant(entry))
        {
            let reason = "cancelled by the client".to_owned();
            let moves = vec![Transition::Detach { reason }];
            if let Applied::Moved(entry) = self
                .ledger
                .apply(&entry.id, moves, self.clock.now())
                .await?
            {
                // Ours from now on.
                self.watcher.watch(&entry).await;
            }
        }
        Ok(())
    }

    /// Sends the answer to a paid call as soon as its delivery is written down; never, if somebody else has been given the call
    /// meanwhile. As long as that is not known, the answer stays here: whoever has it must not have a right to another one.
    pub(super) fn deliver_later(
        self: &Arc<Self>,
        entry: RequestEventId,
        deliver: Transition,
        to: ReplyTo,
        outbound: Outbound,
    ) {
        let gate = Arc::clone(self);
        self.tasks.spawn(async move {
            let pause = || gate.closing.run_until_cancelled(tokio::time::sleep(AGAIN));
            while pause().await.is_some() && !gate.is_succeeded() {
                let moves = vec![deliver.clone()];
                match gate.ledger.apply(&entry, moves, gate.clock.now()).await {
                    Ok(applied) if gate.is_our_delivery(&applied, &deliver) => {
                        log_money(applied.entry(), "delivered at last");
                        let sent = gate.transport.send(&to, outbound).await;
                        if let Err(error) = sent {
                            tracing::warn!(%entry, error = &error as &dyn std::error::Error, "an answer could not be sent");
                        }
                        return;
                    }
                    Ok(_) => return,
                    Err(_) => {}
                }
            }
        });
    }

    /// Whether what the books say is the answer that `deliver` would have put there.
    pub(super) fn is_our_delivery(&self, applied: &Applied, deliver: &Transition) -> bool {
        match applied {
            Applied::Moved(_) => true,
            Applied::Already(entry) => {
                !self.is_shared()
                    || matches!(deliver, Transition::Deliver { response } if *response == entry.response)
            }
            Applied::Refused(_) => !self.is_shared(),
        }
    }
}
