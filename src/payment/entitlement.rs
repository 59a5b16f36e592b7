//! The contract for what lets a call through without paying for it: licences, allowances, lists.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{
    Amount, ClientPubkey, Invocation, PayReq, Pmi, PricedCapability, RequestEventId, Timestamp,
};
use crate::error::Error;

/// Decides whether one call must be paid for. A server asks its entitlements in their order, before it claims an
/// authorization and before it names a price; the first that covers the call, or refuses it, ends the questions.
///
/// It is asked on the way of every priced call, so it answers from memory, or from the disk at most, whenever it can. It has
/// a time limit, and may be asked several times about one request event: what it counts, it counts once for each event.
#[async_trait]
pub trait Entitlement: fmt::Debug + Send + Sync {
    /// What it is called in the config and in the books.
    fn name(&self) -> &str;

    /// Whether `claim` is covered.
    async fn examine(&self, claim: &EntitlementClaim) -> Entitled;

    /// What happens to a call of which it cannot tell.
    fn when_unknown(&self) -> WhenUnknown {
        WhenUnknown::Pay
    }

    /// A call that it covered with a [memo](Cover::memo) has succeeded, and its result is about to leave: for what is counted by
    /// use. Not called for one that failed, was cancelled, or whose handler was lost. It has a time limit, and the result
    /// leaves whatever comes of it.
    async fn delivered(&self, delivery: &Delivery) {
        let _ = delivery;
    }
}

/// What an entitlement is asked about.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EntitlementClaim {
    /// The call.
    pub invocation: Invocation,
    /// The entry of the price list that it matched.
    pub listed: Arc<PricedCapability>,
    /// What the client presented, over a channel that nobody else could read.
    pub tokens: Vec<BearerToken>,
    /// The client presented something where others could read it. It is not in `tokens`: whoever saw it could use it.
    pub exposed: bool,
    /// Nobody vouches for who the client is: its key stands for a connection, and the next one has another.
    pub nameless: bool,
    /// The request was answered before: whatever covers it, it is not served again, so nothing is counted for it.
    pub answered: bool,
    /// Now.
    pub at: Timestamp,
}

impl EntitlementClaim {
    /// A claim of `invocation` for `listed`, without tokens.
    #[must_use]
    pub fn new(invocation: Invocation, listed: Arc<PricedCapability>, at: Timestamp) -> Self {
        Self {
            invocation,
            listed,
            tokens: Vec::new(),
            exposed: false,
            nameless: false,
            answered: false,
            at,
        }
    }

    /// The same with what the client presented.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Vec<BearerToken>) -> Self {
        self.tokens = tokens;
        self
    }
}

/// The outcome of [`Entitlement::examine`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Entitled {
    /// The call need not be paid for.
    Covered(Cover),
    /// It says nothing for this call: the next one is asked, and in the end a price is named.
    ///
    /// What it has to say all the same (why a licence does not count) goes to the client with the price, and to
    /// [`resolve_price`](super::ResolvePrice), under its name.
    NotCovered(Option<Value>),
    /// It cannot be told now.
    Unknown(Error),
    /// The call is not served, paid for or not.
    Refused(Refusal),
    /// The call is served to those who have bought this first.
    Sold(Box<Sale>),
}

/// What has to be bought before a call is served, beside the price of a call: a pass, a subscription.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct Sale {
    /// For how much: what the price list says of it.
    pub amount: Amount,
    /// By which payment method.
    pub pmi: Pmi,
    /// Where it is paid.
    pub pay_req: PayReq,
    /// What is bought, for the buyer to read.
    pub description: String,
    /// How long the offer stands.
    pub ttl: Duration,
    /// Anything more, sent along as `_meta`.
    pub meta: Map<String, Value>,
    /// It is paid, and the money is on its way: nothing has to be paid again.
    pub pending: bool,
    /// The demand as the result of a tool, for hosts that show nobody the data of an error.
    pub as_result: Option<Value>,
}

/// A covered call that has succeeded.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the gate, field by field"
)]
pub struct Delivery {
    /// The request.
    pub event: RequestEventId,
    /// Who called.
    pub client: ClientPubkey,
    /// What the entitlement noted when it covered the call.
    pub memo: Value,
    /// What the handler answered.
    pub result: Box<RawValue>,
    /// When.
    pub at: Timestamp,
}

/// Why a call need not be paid for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Cover {
    /// In words for the books; no secrets.
    pub why: String,
    /// What the handler is told about it, in `params._meta` under `tollkeeper/entitlement`.
    pub claims: Option<Map<String, Value>>,
    /// What the entitlement wants back when the call [has succeeded](Entitlement::delivered). Nobody else sees it.
    pub memo: Option<Value>,
}

impl Cover {
    /// Covered, because of `why`.
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            claims: None,
            memo: None,
        }
    }

    /// Wants to hear when the call has succeeded, with `memo`.
    #[must_use]
    pub fn with_memo(mut self, memo: Value) -> Self {
        self.memo = Some(memo);
        self
    }

    /// Tells the handler.
    #[must_use]
    pub fn with_claims(mut self, claims: Map<String, Value>) -> Self {
        self.claims = Some(claims);
        self
    }
}

/// How a call is refused: a JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The code.
    pub code: i64,
    /// Why, in words for the client.
    pub message: String,
    /// More of it, for programs.
    pub data: Option<Value>,
    /// Said as the result of a tool instead, where the call is one of a tool.
    pub as_result: Option<Value>,
}

impl Refusal {
    /// Refused with `code` and `message`.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
            as_result: None,
        }
    }

    /// Says it as the result of a tool, where the call is one of a tool.
    #[must_use]
    pub fn as_result(mut self, result: Value) -> Self {
        self.as_result = Some(result);
        self
    }

    /// Says more, for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }
}

/// What happens to a call when an entitlement cannot tell whether it covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenUnknown {
    /// It goes on as if it were not covered: the client is asked to pay.
    #[default]
    Pay,
    /// It is refused until the entitlement can tell again.
    Refuse,
}

/// Something that a client presents and that whoever holds it can use, such as a licence. Never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BearerToken(Arc<str>);

impl BearerToken {
    /// The longest that is looked at, in bytes.
    pub const LONGEST: usize = 4096;

    /// The most that are looked at on one request.
    pub const MOST: usize = 4;

    /// Takes `text` for a token; `None` if it is empty, too long, or holds what no token holds.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && (1..=Self::LONGEST).contains(&text.len())).then(|| Self(text.into()))
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

/// Object safety is part of the contract.
const _: fn(&dyn Entitlement) = |_| {};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_plain_and_short_and_never_printed() {
        for bad in [
            "",
            "a b",
            "a\nb",
            "é",
            &"x".repeat(BearerToken::LONGEST + 1),
        ] {
            assert!(BearerToken::new(bad).is_none(), "{bad}");
        }
        let token = BearerToken::new("eyJhbGciOi.J9.x").unwrap();
        assert_eq!(token.reveal(), "eyJhbGciOi.J9.x");
        assert!(!format!("{token:?}").contains("eyJ"));
    }
}
