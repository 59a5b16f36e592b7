//! The row: what was to be paid to whom for which call, what became of it, and what is known of the answer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::payment::{
    Amount, InvocationIdentity, PaymentProof, PaymentRequest, RequestEventId, ServerPubkey,
    Timestamp,
};

/// The number of an attempt in its books.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct AttemptId(u64);

impl AttemptId {
    /// From its number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AttemptId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse()
            .map(Self)
            .map_err(|_| Error::config("a payment is named by its number"))
    }
}

/// What became of an attempt to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the table is in the module")]
pub enum AttemptState {
    /// Written down; the wallet may have been asked. Its process lives.
    Reserved,
    /// The money is gone, for this.
    Paid,
    /// No money moved, and none will.
    Refused,
    /// Nobody knows. Counts as spent until somebody does.
    Unknown,
}

/// What is known of the answer to the call that was paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "there are no other ends of a call")]
pub enum AnswerState {
    /// The call is open.
    Waiting,
    /// The call ended here without an answer: it timed out, or was cancelled.
    Missing,
    /// The process, or the client in it, ended before there was an answer.
    Interrupted,
    /// A result came.
    Result,
    /// An error came.
    Error,
    /// None came, and the buyer has put up with it.
    Forgiven,
}

macro_rules! words {
    ($name:ident, $what:literal, $($variant:ident => $word:literal),+ $(,)?) => {
        impl $name {
            /// The word in the books.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(word: &str) -> Result<Self> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Error::config(concat!($what, " must be one of", $(" ", $word),+))),
                }
            }
        }
    };
}

words!(AttemptState, "a state",
    Reserved => "reserved", Paid => "paid", Refused => "refused", Unknown => "unknown");
words!(AnswerState, "an answer",
    Waiting => "waiting", Missing => "missing", Interrupted => "interrupted", Result => "result",
    Error => "error", Forgiven => "forgiven");

impl AnswerState {
    /// Whether nothing has come back for the money, as far as is known.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Missing | Self::Interrupted)
    }

    /// Whether the server is to blame that there is no result.
    #[must_use]
    pub const fn is_unserved(self) -> bool {
        matches!(self, Self::Missing | Self::Error)
    }
}

/// An attempt that is about to be made.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewAttempt {
    /// The call, named by the event of its first request: all tries of one call share it.
    pub call: RequestEventId,
    /// The request that is being paid for.
    pub event: RequestEventId,
    /// Who is paid.
    pub server: ServerPubkey,
    /// The same call again has the same identity.
    pub identity: InvocationIdentity,
    /// What is bought, in CEP-8's notation.
    pub capability: String,
    /// What the wallet is asked to pay; its reference is the id of the payment.
    pub payment: PaymentRequest,
    /// Which wallet is asked, in the words of its handler.
    pub wallet: Option<String>,
    /// What that is worth in the currency of the limits.
    pub worth: Option<Amount>,
    /// The signed request.
    pub request: String,
    /// The signed demand.
    pub demand: String,
    /// Now.
    pub at: Timestamp,
}

impl NewAttempt {
    /// An attempt to make `payment` to `server` for the call `event`.
    #[must_use]
    pub fn new(
        event: RequestEventId,
        server: ServerPubkey,
        identity: InvocationIdentity,
        capability: impl Into<String>,
        payment: PaymentRequest,
        at: Timestamp,
    ) -> Self {
        Self {
            call: event,
            event,
            server,
            identity,
            capability: capability.into(),
            payment,
            wallet: None,
            worth: None,
            request: String::new(),
            demand: String::new(),
            at,
        }
    }
}

/// Leaves out what was said, which belongs to the caller, and what could be paid.
impl fmt::Debug for NewAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAttempt")
            .field("event", &self.event)
            .field("server", &self.server)
            .field("amount", &self.payment.amount)
            .finish_non_exhaustive()
    }
}

/// A row.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Its number.
    pub id: AttemptId,
    /// What was written before the wallet was asked.
    pub new: NewAttempt,
    /// What became of it.
    pub state: AttemptState,
    /// What is known of the answer.
    pub answer: AnswerState,
    /// When the state was last decided.
    pub decided_at: Option<Timestamp>,
    /// The proof of payment.
    pub proof: Option<PaymentProof>,
    /// How its state is known.
    pub note: String,
    /// The last request for the same call that was sent after the payment, with its event.
    pub retry: Option<(RequestEventId, String)>,
    /// The signed word of the server that the money is there.
    pub acceptance: Option<String>,
    /// The signed answer.
    pub response: Option<String>,
}

impl Attempt {
    /// An attempt as it is first written.
    #[must_use]
    pub fn reserved(id: AttemptId, new: NewAttempt) -> Self {
        Self {
            id,
            new,
            state: AttemptState::Reserved,
            answer: AnswerState::Waiting,
            decided_at: None,
            proof: None,
            note: "the wallet is being asked".to_owned(),
            retry: None,
            acceptance: None,
            response: None,
        }
    }

    /// The last signed request that is to be answered for the money, with its event.
    #[must_use]
    pub fn last_request(&self) -> (RequestEventId, &str) {
        match &self.retry {
            Some((event, signed)) => (*event, signed),
            None => (self.new.event, &self.new.request),
        }
    }

    /// How much.
    #[must_use]
    pub fn amount(&self) -> &Amount {
        &self.new.payment.amount
    }

    /// Whether it stands in the way of another payment for the same call: nothing has come back for it yet, or it may
    /// still turn out to be a payment that brought only an error. A server can hold a payment and answer meanwhile.
    #[must_use]
    pub fn blocks_its_call(&self) -> bool {
        match self.state {
            AttemptState::Refused => false,
            AttemptState::Paid => self.answer.is_open(),
            AttemptState::Reserved | AttemptState::Unknown => {
                self.answer.is_open() || self.answer == AnswerState::Error
            }
        }
    }

    /// Whether it was paid, or may have been, and has brought no result, as far as is known.
    #[must_use]
    pub fn is_unserved(&self) -> bool {
        use AnswerState::{Error, Interrupted, Missing};
        self.state != AttemptState::Refused && matches!(self.answer, Missing | Interrupted | Error)
    }

    /// Notes what became of it.
    pub(super) fn settle(&mut self, end: super::Settled, at: Timestamp) {
        // What is paid stays paid, whatever a wallet says later; but a proof that was missing is welcome.
        if self.state == AttemptState::Paid && end.state != AttemptState::Paid {
            return;
        }
        self.state = end.state;
        self.decided_at = Some(at);
        self.note = end.note;
        if end.proof.is_some() {
            self.proof = end.proof;
        }
    }

    /// Notes what was heard of the call.
    pub(super) fn hear(&mut self, heard: super::Heard) {
        match heard {
            super::Heard::Retried(event, signed) => self.retry = Some((event, signed)),
            super::Heard::Accepted(signed) => self.acceptance = Some(signed),
            super::Heard::Ended(answer, signed) => {
                // An answer that came is not taken back by a time-out.
                if self.answer.is_open() || !answer.is_open() {
                    self.answer = answer;
                }
                if signed.is_some() {
                    self.response = signed;
                }
            }
        }
    }
}

/// Leaves out proofs, and what was said.
impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("new", &self.new)
            .field("state", &self.state)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}
