//! What every implementation of [`BuyerLedger`](super::BuyerLedger) must do.
