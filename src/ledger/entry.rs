//! The row: who is asked to pay how much for what, how far it got, and when.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Applied, Move, Transition};
use crate::error::{Error, Result};
use crate::payment::{
    Amount, ClientPubkey, InvocationIdentity, PaymentInteraction, PaymentRequest, Pmi,
    RequestEventId, Settlement, Timestamp,
};

/// How far a payment got.
///
/// ```text
/// Quoted ──► Issued ──► Settled ──► Claimed ──► Delivered
///   │          │           ▲  ▲         │
///   │          ▼           │  └─restore─┘
///   └──► Abandoned      Expired ──late settlement──► Settled
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::exhaustive_enums,
    reason = "the lifecycle is closed; see its table"
)]
pub enum EntryState {
    /// A price was named; the processor may or may not have been asked. Nothing has left for the client.
    Quoted,
    /// There is a payment request, and the client may know it. Money may arrive from here on.
    Issued,
    /// The money is there. Unless its own request is waiting, this is an authorization: the right to one execution.
    Settled,
    /// A request is being executed for it.
    Claimed,
    /// The handler answered. The end.
    Delivered,
    /// No payment request came of the quote. The end.
    Abandoned,
    /// The offer no longer stands, unpaid. Money that still arrives makes it `Settled`.
    Expired,
}

impl EntryState {
    /// The word in the books.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quoted => "quoted",
            Self::Issued => "issued",
            Self::Settled => "settled",
            Self::Claimed => "claimed",
            Self::Delivered => "delivered",
            Self::Abandoned => "abandoned",
            Self::Expired => "expired",
        }
    }

    /// Whether this is an open offer, which counts towards the limits.
    #[must_use]
    pub const fn is_open_offer(self) -> bool {
        matches!(self, Self::Quoted | Self::Issued)
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Abandoned)
    }
}

impl fmt::Display for EntryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EntryState {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        [
            Self::Quoted,
            Self::Issued,
            Self::Settled,
            Self::Claimed,
            Self::Delivered,
            Self::Abandoned,
            Self::Expired,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
        .ok_or_else(|| Error::config(format!("{word:?} is not a state of a ledger entry")))
    }
}

/// One line of an entry's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// The state from then on.
    pub state: EntryState,
    /// Why or by what, where it is not obvious.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The note of a [`Moment`] from which on money was known to be on its way.
pub const UNDER_WAY: &str = "the money is on its way";

/// Where `_meta` of a quote says what the price was before it was converted into other money.
pub const PRICE_META: &str = "tollkeeper/price";

/// An entry as it is first written.
#[derive(Clone, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the gate, field by field"
)]
pub struct NewEntry {
    /// The request that is asked to pay. One request event has at most one entry, for ever.
    pub id: RequestEventId,
    /// Who pays.
    pub client: ClientPubkey,
    /// What for: the canonical identity of the call.
    pub identity: InvocationIdentity,
    /// What for, in words: the entry of the price list.
    pub capability: String,
    /// Under which lifecycle.
    pub interaction: PaymentInteraction,
    /// By which payment method.
    pub pmi: Pmi,
    /// How much.
    pub amount: Amount,
    /// What the buyer reads.
    pub description: String,
    /// `_meta` of the quote as JSON, sent again with every repetition.
    pub meta: Option<String>,
    /// The request itself as JSON-RPC, so that it can be executed after a restart. `None` under explicit gating, where
    /// the client asks again.
    pub request: Option<String>,
    /// The transport's part of the reply address.
    pub route: String,
    /// Until when the offer stands.
    pub deadline: Timestamp,
    /// Now.
    pub quoted_at: Timestamp,
}

/// One payment request and everything that is known about it.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The request that is asked to pay; the name of the entry.
    pub id: RequestEventId,
    /// Who pays.
    pub client: ClientPubkey,
    /// The canonical identity of the call.
    pub identity: InvocationIdentity,
    /// The entry of the price list.
    pub capability: String,
    /// The lifecycle.
    pub interaction: PaymentInteraction,
    /// The payment method.
    pub pmi: Pmi,
    /// The price.
    pub amount: Amount,
    /// What the buyer reads.
    pub description: String,
    /// `_meta` of the quote, as JSON.
    pub meta: Option<String>,
    /// The request as JSON-RPC, under the transparent lifecycle, until it is delivered.
    pub request: Option<String>,
    /// The transport's part of the reply address.
    pub route: String,
    /// Until when the offer stands.
    pub deadline: Timestamp,
    /// When the price was named.
    pub quoted_at: Timestamp,

    /// How far it got.
    pub state: EntryState,
    /// Whether the request itself waits to be executed by this payment. Otherwise a settlement is an authorization.
    pub waiting: bool,
    /// What the client is asked to pay, from `Issued` on.
    pub payment_request: Option<PaymentRequest>,
    /// Until when the payment request is watched, from `Issued` on.
    pub watch_until: Option<Timestamp>,
    /// What arrived, from `Settled` on.
    pub settlement: Option<Settlement>,
    /// The request that was executed for it, from `Claimed` on.
    pub claimed_by: Option<RequestEventId>,
    /// The response, from `Delivered` on.
    pub response: Option<String>,
    /// The story so far.
    pub history: Vec<Moment>,
}

impl Entry {
    /// The price as it was named, where it was charged in other money; else the amount. What is credited for a payment is this:
    /// whoever pays ahead in cents has cents, whatever he pays with.
    #[must_use]
    pub fn price(&self) -> Amount {
        let priced = || -> Option<Amount> {
            let meta: serde_json::Value = serde_json::from_str(self.meta.as_deref()?).ok()?;
            let price = meta.get(PRICE_META)?;
            let unit = price.get("unit")?.as_str()?.parse().ok()?;
            Amount::new(price.get("amount")?.as_u64()?, unit).ok()
        };
        priced().unwrap_or_else(|| self.amount.clone())
    }

    /// How an entry begins.
    #[must_use]
    pub fn quoted(new: NewEntry) -> Self {
        let moment = Moment {
            at: new.quoted_at,
            state: EntryState::Quoted,
            note: None,
        };
        Self {
            id: new.id,
            client: new.client,
            identity: new.identity,
            capability: new.capability,
            interaction: new.interaction,
            pmi: new.pmi,
            amount: new.amount,
            description: new.description,
            meta: new.meta,
            waiting: new.interaction == PaymentInteraction::Transparent,
            request: new.request,
            route: new.route,
            deadline: new.deadline,
            quoted_at: new.quoted_at,
            state: EntryState::Quoted,
            payment_request: None,
            watch_until: None,
            settlement: None,
            claimed_by: None,
            response: None,
            history: vec![moment],
        }
    }

    /// The name under which a processor is asked to make the payment request.
    #[must_use]
    pub fn idempotency_key(&self) -> String {
        format!("tollkeeper-{}", self.id)
    }

    /// Whether this is a live authorization: money for one execution that no request waits for.
    #[must_use]
    pub fn is_authorization(&self) -> bool {
        self.state == EntryState::Settled && !self.waiting
    }

    /// Whether a request under `interaction` may claim this authorization.
    #[must_use]
    pub fn is_claimable_under(&self, interaction: PaymentInteraction) -> bool {
        self.is_authorization()
            && (self.interaction == PaymentInteraction::Transparent
                || interaction == PaymentInteraction::ExplicitGating)
    }

    /// What the payment request is looked up by: unique among all entries, because one payment settles one.
    #[must_use]
    pub fn reference(&self) -> Option<(Pmi, String)> {
        let request = self.payment_request.as_ref()?;
        Some((request.pmi.clone(), request.reference.clone()))
    }

    /// Whether this entry ended unpaid before `before`, so that nothing depends on it any more. What may still be paid does not.
    #[must_use]
    pub fn is_forgettable(&self, before: Timestamp) -> bool {
        matches!(self.state, EntryState::Abandoned | EntryState::Expired)
            && self.quoted_at < before
            && self.watch_until.is_none_or(|until| until < before)
    }

    /// Whether the response was given before `before`, whenever its payment was asked for.
    #[must_use]
    pub fn has_old_response(&self, before: Timestamp) -> bool {
        self.response.is_some() && self.quoted_at < before && self.updated_at() < before
    }

    /// When the entry came into its present state.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.history
            .last()
            .map_or(self.quoted_at, |moment| moment.at)
    }

    /// Makes all `moves` on a copy, or none. Ledgers differ in how they store what this returns, and in nothing else.
    #[must_use]
    pub fn make_all(&self, moves: Vec<Transition>, at: Timestamp) -> Applied {
        let mut moved = self.clone();
        let mut any = false;
        for transition in moves {
            match moved.make(transition, at) {
                Move::To(_) => any = true,
                Move::Already => {}
                Move::Illegal => return Applied::Refused(self.clone()),
            }
        }
        if any {
            Applied::Moved(moved)
        } else {
            Applied::Already(moved)
        }
    }

    /// Makes one move on this copy.
    #[must_use]
    pub fn make(&mut self, transition: Transition, at: Timestamp) -> Move {
        let step = self.state.after(transition.kind());
        let Move::To(state) = step else { return step };
        let note = match transition {
            Transition::Issue {
                payment_request,
                watch_until,
            } => {
                self.payment_request = Some(payment_request);
                self.watch_until = Some(watch_until);
                None
            }
            Transition::Abandon { reason } => {
                self.waiting = false;
                self.request = None;
                Some(reason)
            }
            Transition::Detach { reason } => {
                if !self.waiting {
                    return Move::Already;
                }
                self.waiting = false;
                self.request = None;
                Some(reason)
            }
            Transition::Expire => {
                self.waiting = false;
                self.request = None;
                None
            }
            Transition::UnderWay { until } => {
                if self.watch_until >= Some(until) {
                    return Move::Already;
                }
                self.watch_until = Some(until);
                Some(UNDER_WAY.to_owned())
            }
            Transition::Settle(settlement) => {
                let late = (self.state == EntryState::Expired).then(|| "late".to_owned());
                self.settlement = Some(settlement);
                late
            }
            Transition::Claim { by } => {
                self.claimed_by = Some(by);
                (by != self.id).then(|| format!("by {by}"))
            }
            Transition::Serve => {
                if !self.waiting {
                    return Move::Illegal;
                }
                self.claimed_by = Some(self.id);
                None
            }
            Transition::Restore { reason } => {
                self.claimed_by = None;
                self.waiting = false;
                self.request = None;
                Some(reason)
            }
            Transition::Deliver { response } => {
                self.waiting = false;
                self.request = None;
                self.response = response;
                None
            }
        };
        self.state = state;
        self.history.push(Moment { at, state, note });
        step
    }
}

/// Leaves out what belongs to the buyer: request, response and payment request.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("id", &self.id)
            .field("client", &self.client)
            .field("capability", &self.capability)
            .field("amount", &self.amount)
            .field("state", &self.state)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// As [`Entry`].
impl fmt::Debug for NewEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEntry")
            .field("id", &self.id)
            .field("client", &self.client)
            .field("capability", &self.capability)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}
