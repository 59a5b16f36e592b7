//! Lightning: BOLT11 invoices, made and paid by wallets of several kinds under one payment method.

pub mod bolt11;
pub mod fake_wallet;
#[cfg(feature = "lnbits")]
pub mod lnbits;
pub mod nwc;
mod preimage;
mod proof;
mod wallet_name;

pub use bolt11::{Invoice, Network};
pub use preimage::{Preimage, judge_preimage};
pub use proof::PreimageProofs;
