//! Wallets for development: they speak NIP-47, make real BOLT11 invoices, and settle each other's. **They are not money.**
//!
//! All wallets of one [`FakeWallets`] stand on the same books, so a payment from one to the other moves what they hold, at
//! once and exactly. Nothing is connected to any Lightning network, and everything is forgotten when they end.
//!
//! They can be made to fail in every way that a wallet can fail ([`Faults`]), and count what they are asked, because that is
//! what tests need of a wallet.
//!
//! ```no_run
//! # async fn example() -> tollkeeper::Result<()> {
//! use tollkeeper::rails::lightning::fake_wallet::{FakeWallets, Method};
//!
//! let wallets = FakeWallets::builder()
//!     .relays(["ws://127.0.0.1:7777"])
//!     .balance_sats(1_000)
//!     .start()
//!     .await?;
//! let uri = wallets.seller().connection(); // for NWC_CONNECTION of the server
//! wallets.buyer().change(|faults| faults.mute = Method::PayInvoice.into());
//! # let _ = uri; Ok(()) }
//! ```
//!
//! The files, in the order of a request: `service` takes it from a relay, `cipher` opens it, `faults` say what goes wrong,
//! `answer` does what is asked with the `books` and `invoice`s, and the answer goes back.

mod answer;
mod books;
mod cipher;
mod connection;
mod faults;
mod invoice;
mod method;
mod service;
mod wallets;

pub use connection::ConnectionUri;
pub use faults::{Faults, Hold, InvoiceFault, NotificationFault, SWITCHES};
pub use method::{Method, Methods, Refusal};
pub use wallets::{FakeWallet, FakeWallets, FakeWalletsBuilder};
