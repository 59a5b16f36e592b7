//! The contract of a rail on the server's side.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    Amount, ChargeMandate, CheckProof, PaymentOrder, PaymentRequest, Pmi, SettlementNotice,
    SettlementStatus, Timestamp, Unit,
};

/// Notices of settlements, as a rail pushes them.
pub type SettlementStream = mpsc::Receiver<SettlementNotice>;

/// Makes payment requests of one payment method, and says whether they were paid.
///
/// The gate owns time: every call is made under a time limit, and its future may be dropped at any point; dropping must
/// not lose money, which is why an order carries its [idempotency key](PaymentOrder::idempotency_key). The gate also owns
/// truth: an amount or a method other than ordered is refused before the client sees it.
///
/// There is no method that waits for a payment. Waiting is the gate's: it listens to [`settlements`](Self::settlements)
/// and looks up, at a pace of its own, what no notice came for.
#[async_trait]
pub trait PaymentProcessor: fmt::Debug + Send + Sync {
    /// The payment method.
    fn pmi(&self) -> &Pmi;

    /// Whether amounts in `unit` can be charged.
    fn accepts(&self, unit: &Unit) -> bool;

    /// Whether so much can be charged. A rail with a minimum says no below it, and is not offered for such a price.
    fn can_charge(&self, amount: &Amount) -> bool {
        self.accepts(amount.unit())
    }

    /// How long an offer of this rail stands when `wanted` is asked for: a rail whose pages cannot be closed sooner says so, so
    /// that the client is not told an end at which it could still pay.
    fn offer_ttl(&self, wanted: Duration) -> Duration {
        wanted
    }

    /// Whether a person has to do something, for which minutes pass. Such a rail is not offered to a client that waits for its
    /// result meanwhile (transparent), unless it asks for this very method.
    fn takes_a_person(&self) -> bool {
        false
    }

    /// Makes the payment request for `order`. The same key again gives the same request, or at least none that could be
    /// paid beside the first.
    ///
    /// # Errors
    ///
    /// A [`RailError`]. Its text goes to the log, never to the client.
    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError>;

    /// Asks how `request` stands, now. May be asked at any time and any number of times, also after a restart.
    ///
    /// # Errors
    ///
    /// A [`RailError`], which the gate reads as [`SettlementStatus::Unknown`].
    async fn lookup_payment(&self, request: &PaymentRequest)
    -> Result<SettlementStatus, RailError>;

    /// Which of the payment requests made at or after `made_since` are settled, asked for together.
    ///
    /// This is what keeps watching cheap: one question for ten thousand open payment requests instead of one for each. A
    /// settlement may be listed that is not this server's, or listed again each time; one that is missing is found by
    /// [`lookup_payment`](Self::lookup_payment) later. `None`: the rail cannot list, and each payment is looked up by itself.
    ///
    /// # Errors
    ///
    /// A [`RailError`]; the gate asks again later.
    async fn list_settled(
        &self,
        made_since: Timestamp,
    ) -> Result<Option<Vec<SettlementNotice>>, RailError> {
        let _ = made_since;
        Ok(None)
    }

    /// Notices as they happen. Called once. A rail that has none is looked up only.
    fn settlements(&self) -> Option<SettlementStream> {
        None
    }

    /// What checks proofs of payment that clients present. `None`: only the rail's own word counts.
    fn proofs(&self) -> Option<&dyn CheckProof> {
        None
    }

    /// What charges mandates that clients present. A rail that has it makes no payment requests.
    fn mandates(&self) -> Option<&dyn ChargeMandate> {
        None
    }
}

/// Why a rail could not do as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RailErrorKind {
    /// No usable answer: whether it happened is not known.
    Unknown,
    /// Clearly not done: the rail said no.
    Refused,
    /// The rail answered with something that cannot be right.
    Invalid,
}

/// What implementors of rails return when something goes wrong.
pub struct RailError {
    kind: RailErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl RailError {
    /// No usable answer: a time-out, a broken connection.
    pub fn unknown(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: RailErrorKind::Unknown,
            message: message.into(),
            source: None,
        }
    }

    /// A clear no.
    pub fn refused(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: RailErrorKind::Refused,
            message: message.into(),
            source: None,
        }
    }

    /// An answer that cannot be right.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: RailErrorKind::Invalid,
            message: message.into(),
            source: None,
        }
    }

    /// The same error, with its cause kept.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The category.
    #[must_use]
    pub fn kind(&self) -> RailErrorKind {
        self.kind
    }
}

impl fmt::Display for RailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for RailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RailError")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl StdError for RailError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// Object safety is part of the contract: processors are looked up by PMI at run time.
const _: fn(&dyn PaymentProcessor) = |_| {};
