//! Lightning over a wallet of one's own, reached by NIP-47 (Nostr Wallet Connect).
//!
//! The talk: `connection` (the URI) → `client` (one subscription, requests and their answers) with `cipher`, `answer` and
//! `error`. The two ends of the rail: [`LightningNwcProcessor`] and [`LightningNwcHandler`].
//!
//! The client is made here because the ready-made one takes an old answer for a new one and cannot tell "no answer" from
//! "no", and money hangs on both.

mod answer;
pub(crate) mod cipher;
mod client;
mod connection;
mod error;
mod handler;
mod listener;
mod listing;
mod pending;
mod processor;
mod settings;

pub use connection::NwcConnection;
pub use handler::LightningNwcHandler;
pub use processor::LightningNwcProcessor;
pub use settings::NwcSettings;

/// Kind of the event in which a wallet says what it can do.
pub(crate) const INFO: u16 = 13194;
/// Kind of a request to a wallet.
pub(crate) const REQUEST: u16 = 23194;
/// Kind of its answer.
pub(crate) const RESPONSE: u16 = 23195;
/// Kind of a notification for clients that know NIP-04 only.
pub(crate) const NOTIFICATION_NIP04: u16 = 23196;
/// Kind of a notification in NIP-44.
pub(crate) const NOTIFICATION_NIP44: u16 = 23197;

/// Asks for an invoice.
const MAKE_INVOICE: &str = "make_invoice";
/// Asks how one payment stands.
const LOOKUP_INVOICE: &str = "lookup_invoice";
/// Asks for many.
const LIST_TRANSACTIONS: &str = "list_transactions";
/// Pays.
const PAY_INVOICE: &str = "pay_invoice";
/// Asks what the wallet can do.
const GET_INFO: &str = "get_info";
/// Says that money came in.
const PAYMENT_RECEIVED: &str = "payment_received";
