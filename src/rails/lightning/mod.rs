//! Lightning: BOLT11 invoices, made and paid by a wallet that speaks NIP-47 (Nostr Wallet Connect).

pub mod fake_wallet;
