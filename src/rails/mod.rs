//! Ways of being paid: one folder and one cargo feature each. A rail knows money and its own service; it never sees a
//! JSON-RPC message.

#[cfg(feature = "fake")]
pub mod fake;
#[cfg(feature = "lightning")]
pub mod lightning;
#[cfg(feature = "rates")]
pub mod rates;
#[cfg(feature = "stripe")]
pub mod stripe;

#[cfg(any(feature = "lnbits", feature = "rates", feature = "stripe"))]
mod http;
