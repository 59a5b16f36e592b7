//! CEP-22: messages that are too large for one event travel in pieces.
//!
//! Out: [`split`] makes frames of a message. In: [`Reassembly`] puts the frames of others together again, and lets nobody
//! take more memory or time for it than is meant for one peer.

mod reassembly;
mod split;

pub(super) use reassembly::{Key, Limits, Placed, Reassembly, Step};
pub(super) use split::{is_worth_splitting, split};

/// Flag of whoever takes messages in pieces.
pub(super) const SUPPORT_OVERSIZED: &str = "support_oversized_transfer";
/// Flag of whoever streams (CEP-41).
pub(super) const SUPPORT_OPEN_STREAM: &str = "support_open_stream";
/// Longest message that is sent in pieces.
pub(super) const MAX_SENT: usize = 16 * 1024 * 1024;
