//! The hook that keeps a client from paying for an error.

use super::Invocation;

/// Says whether a call can succeed at all, before a price is named: an unknown tool, arguments that the tool does not take.
///
/// Any `Fn(&Invocation) -> Option<String>` is one. It is asked for priced calls only, and has the time limit of
/// [`ResolvePrice`](super::ResolvePrice).
pub trait CheckCall: Send + Sync {
    /// Why `invocation` cannot succeed, in words for the client, which gets them as `-32602`; `None` if it may succeed.
    fn objection(&self, invocation: &Invocation) -> Option<String>;
}

impl<F> CheckCall for F
where
    F: Fn(&Invocation) -> Option<String> + Send + Sync,
{
    fn objection(&self, invocation: &Invocation) -> Option<String> {
        self(invocation)
    }
}

/// Object safety is part of the contract.
const _: fn(&dyn CheckCall) = |_| {};
