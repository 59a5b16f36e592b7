//! `with_client_payments`: any client transport, with a payer that asks its budget first. This list is the map.

// Settings, and what the user is told.
mod builder;
mod event;

// The channel: requests out, answers in, correlated by event id.
mod call;
mod calls;
mod channel;
mod intercept;

// A demand for money: checked, budgeted, paid.
mod budget;
mod check;
mod decline;
mod keep_alive;
mod pay;

pub use budget::{Budget, Reservation, Spending};
pub use builder::{ClientPayments, ClientPaymentsBuilder};
pub use call::CallOutcome;
pub use channel::{PaidClient, with_client_payments};
pub use event::{DeclineReason, PaymentEvent};
