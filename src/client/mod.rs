//! `with_client_payments`: any client transport, with a payer that asks its budget and its policy first. This list is the
//! map.

// Settings, and what the user is told.
mod ask;
mod builder;
mod event;

// The channel: requests out, answers in, correlated by event id.
mod answer;
mod call;
mod calls;
mod channel;
mod intercept;

// A demand for money: checked, budgeted, held against the policy, written down, paid.
mod budget;
mod check;
mod decline;
mod keep_alive;
pub mod ledger;
mod pay;
pub mod policy;
mod price_board;
mod wallet;

// The same under explicit gating.
mod gated;

// Afterwards: outcomes that were unknown, answers that are owed, receipts.
mod owed;
pub mod receipt;
mod resolve;
mod strays;

pub use ask::{AskBuyer, PaymentQuestion};
pub use budget::{Budget, Reservation, Spending};
pub use builder::{ClientPayments, ClientPaymentsBuilder};
pub use call::CallOutcome;
pub use channel::{PaidClient, with_client_payments};
pub use event::{DeclineReason, Earlier, PaymentEvent};
pub use policy::Policy;
pub use price_board::PriceBoard;

/// The program in the guide is compiled.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../docs/buying.md")]
struct Guide;
