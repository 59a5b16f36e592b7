//! A payment as LNbits describes it, in and out.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// Where in `extra` the key of an order is kept, beside `external_id`: older versions know only `extra`.
pub(super) const ORDER: &str = "tollkeeper";

/// How far a payment got, in LNbits's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Success,
    Failed,
}

/// One row of LNbits: an invoice that was made (a positive amount), or a payment (a negative one).
#[derive(Clone, Deserialize)]
pub(super) struct Payment {
    pub(super) payment_hash: String,
    /// In millisatoshis; negative for what goes out.
    pub(super) amount: i64,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    bolt11: Option<String>,
    #[serde(default)]
    payment_request: Option<String>,
    #[serde(default)]
    preimage: Option<String>,
    #[serde(default)]
    external_id: Option<String>,
    #[serde(default)]
    extra: Option<Value>,
}

impl Payment {
    /// How far it got; `None` for a word that is not known.
    pub(super) fn state(&self) -> Option<State> {
        match self.status.as_deref()? {
            "pending" => Some(State::Pending),
            "success" => Some(State::Success),
            "failed" => Some(State::Failed),
            _ => None,
        }
    }

    pub(super) fn is_incoming(&self) -> bool {
        self.amount > 0
    }

    pub(super) fn is_outgoing(&self) -> bool {
        self.amount < 0
    }

    /// How much it is, in millisatoshis.
    pub(super) fn msat(&self) -> u64 {
        self.amount.unsigned_abs()
    }

    pub(super) fn invoice(&self) -> Option<&str> {
        let invoice = self.bolt11.as_deref().or(self.payment_request.as_deref());
        invoice.filter(|text| !text.is_empty())
    }

    /// What proves it, once it is paid. LNbits also shows it before, for what it can pay to itself.
    pub(super) fn preimage(&self) -> Option<&str> {
        self.preimage.as_deref()
    }

    /// Whether it was made for the order `key`.
    pub(super) fn is_for(&self, key: &str) -> bool {
        self.external_id.as_deref() == Some(key)
            || self
                .extra
                .as_ref()
                .and_then(|extra| extra.get(ORDER)?.as_str())
                == Some(key)
    }
}

/// Neither invoice nor preimage.
impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("payment_hash", &self.payment_hash)
            .field("amount", &self.amount)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// The answer about one payment: its row is in `details`, and only for the wallet that it belongs to.
#[derive(Deserialize)]
pub(super) struct Looked {
    pub(super) paid: bool,
    #[serde(default)]
    pub(super) details: Option<Payment>,
}

/// One page of rows.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Payment>,
}

/// A wallet, as its key shows it.
#[derive(Deserialize)]
pub(super) struct Wallet {
    /// It must be there: it is what tells LNbits from any other JSON.
    #[serde(rename = "balance")]
    pub(super) _balance: serde_json::Number,
    /// Shown to the admin key only.
    #[serde(default)]
    pub(super) id: Option<String>,
}
