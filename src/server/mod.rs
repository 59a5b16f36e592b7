//! `with_server_payments`: any server transport, with the gate in front of the handler.

mod builder;
mod counter;
mod serve;
mod top_up;

pub use builder::{ServerPayments, ServerPaymentsBuilder};
pub use counter::{Counter, Good, Purchase, tool_result};
pub use serve::{PaidServer, with_server_payments};
pub use top_up::{BalanceTool, TopUp, TopUpPrice};
