//! `with_server_payments`: any server transport, with the gate in front of the handler.

mod builder;
mod serve;

pub use builder::{ServerPayments, ServerPaymentsBuilder};
pub use serve::{PaidServer, with_server_payments};
