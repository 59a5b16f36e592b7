//! Hands a request to the handler. This is the only file that decides to forward, and it takes a claimed entry, a waiver
//! or a free request.

use std::sync::Arc;

use super::Gate;
use super::challenge::Challenged;
use super::door::Knock;
use super::log::log_money;
use super::negotiate::Negotiated;
use super::open_calls::{Covered, OpenCall, Paid};
use super::write_later::Unwritten;
use crate::error::Result;
use crate::ledger::{Entry, Transition};
use crate::payment::RequestEventId;
use crate::transport::{Inbound, Origin};
use crate::wire::{ErrorObject, Message, Request, SERVER_ERROR_CODE, meta_of, with_meta};

impl Gate {
    /// Forwards the request whose entry has just been claimed for it.
    pub(super) async fn forward_claimed(
        self: &Arc<Self>,
        knock: Box<Knock>,
        entry: Entry,
    ) -> Result<()> {
        self.forward(
            knock.request,
            knock.origin,
            knock.negotiated,
            Some(entry.id.into()),
        )
        .await;
        Ok(())
    }

    /// Forwards the request that waited for `entry`, which is claimed for it.
    pub(super) async fn forward_parked(self: &Arc<Self>, entry: &Entry, inbound: Inbound) {
        let Inbound {
            message: Message::Request(request),
            origin,
        } = inbound
        else {
            return;
        };
        let negotiated = Negotiated {
            effective: entry.interaction,
            refused: false,
            disclose: None,
            bearer: false,
            challenged: Challenged::No,
            failed: None,
        };
        self.forward(request, origin, negotiated, Some(entry.id.into()))
            .await;
    }

    /// Forwards `request` to the handler, once: `paid` names the entry that was claimed for it, `None` if it is free or
    /// waived. If the handler cannot take it, a paid request gets its right back and the client is told.
    pub(super) async fn forward(
        self: &Arc<Self>,
        request: Request,
        origin: Origin,
        negotiated: Negotiated,
        paid: Option<Paid>,
    ) {
        self.forward_as((request, origin), negotiated, paid, None)
            .await;
    }

    /// Forwards a request that need not be paid for; `covered` wants to hear if it succeeds.
    pub(super) async fn forward_covered(
        self: &Arc<Self>,
        request: Request,
        origin: Origin,
        negotiated: Negotiated,
        covered: Option<Arc<Covered>>,
    ) {
        self.forward_as((request, origin), negotiated, None, covered)
            .await;
    }

    async fn forward_as(
        self: &Arc<Self>,
        (request, mut origin): (Request, Origin),
        negotiated: Negotiated,
        paid: Option<Paid>,
        covered: Option<Arc<Covered>>,
    ) {
        let paid_by = paid.as_ref().map(|paid| paid.entry);
        origin.paid_by = paid_by;
        let may = paid_by.is_none() || self.may_execute().await;
        if !may && self.is_succeeded() {
            // Whoever has taken over serves it.
            return;
        }
        let (id, reply_to) = (request.id.clone(), origin.reply_to.clone());
        let mut call = OpenCall::new(&request, &origin, paid, negotiated.disclose);
        call.covered = covered;
        let taken = may
            && self.open_calls.insert(origin.event, call)
            && self
                .hand_over(Inbound::new(self.injected(request, &origin).into(), origin))
                .await;
        if taken {
            return;
        }
        self.open_calls.remove(&reply_to.event);
        if let Some(entry) = paid_by {
            self.restore(&entry, "the handler could not take it").await;
        }
        let text = if paid_by.is_some() {
            "The server could not take the call; your payment stands, send the same request again"
        } else {
            "The server is busy, retry later"
        };
        self.answer_error(&id, &reply_to, &ErrorObject::new(SERVER_ERROR_CODE, text))
            .await;
    }

    /// Puts a message into the handler's queue, waiting for room. `false` if the handler is gone.
    pub(super) async fn hand_over(&self, inbound: Inbound) -> bool {
        self.forwarded.send(inbound).await.is_ok()
    }

    /// Gives the right to one execution back, now or as soon as it can be written.
    pub(super) async fn restore(self: &Arc<Self>, entry: &RequestEventId, reason: &str) {
        let restore = Transition::Restore {
            reason: reason.to_owned(),
        };
        match self
            .ledger
            .apply(entry, vec![restore.clone()], self.clock.now())
            .await
        {
            Ok(applied) => log_money(
                applied.entry(),
                "execution failed by our fault; the payment stands",
            ),
            Err(error) => {
                tracing::error!(
                    %entry, error = &error as &dyn std::error::Error, "a payment could not be restored; it is tried again"
                );
                self.write_later(*entry, Unwritten::Move(restore));
            }
        }
    }

    /// The request as the handler gets it: untouched, but for the caller's key where that is switched on (CEP-16). A value
    /// that the client sent is always overwritten.
    fn injected(&self, mut request: Request, origin: &Origin) -> Request {
        if self.settings.inject_client_pubkey {
            let mut meta = meta_of(request.params.as_deref()).unwrap_or_default();
            meta.insert("clientPubkey".to_owned(), origin.client.to_string().into());
            if let Ok(params) = with_meta(request.params.take(), &meta) {
                request.params = params;
            }
        }
        request
    }
}
