//! What waives a payment: lists of clients, an allowance of free calls, licences. Each is an
//! [`Entitlement`](crate::payment::Entitlement); the server asks them in the order in which they are added.

mod clients;
mod free_per_day;
mod pace;

#[cfg(feature = "licence")]
pub mod licence;
#[cfg(feature = "stripe")]
pub mod stripe;

pub use clients::{AllowedClients, DeniedClients};
pub use free_per_day::FreePerDay;
pub use pace::ClientPace;

/// JSON-RPC error: the call is not for sale to this client, now or ever.
pub const NOT_ALLOWED_CODE: i64 = -32000;
