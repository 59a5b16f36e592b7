//! The moves of an entry, as one pure table.
//!
//! | move | from | to | when |
//! |---|---|---|---|
//! | `Issue` | `Quoted` | `Issued` | the processor made the payment request; nothing has left for the client yet |
//! | `Abandon` | `Quoted` | `Abandoned` | no payment request came of it; nothing ever left |
//! | `Detach` | `Issued`, `Expired`, `Settled` | the same | the request no longer waits (cancelled, its client gone) |
//! | `Expire` | `Issued` | `Expired` | the offer no longer stands; money may still arrive |
//! | `UnderWay` | `Issued`, `Expired` | the same | the money is on its way, and takes longer than it was to be watched |
//! | `Settle` | `Issued`, `Expired` | `Settled` | the money is there |
//! | `Claim` | `Settled` | `Claimed` | one request may now be executed for it |
//! | `Serve` | `Settled`, its own request waiting | `Claimed` | as `Claim`, by that request |
//! | `Restore` | `Claimed` | `Settled` | it was not executed after all, by our fault |
//! | `Deliver` | `Claimed` | `Delivered` | the handler answered |
//!
//! A move that was made before is [`Move::Already`], so that a notice that comes twice changes nothing. Everything else is
//! [`Move::Illegal`].

use super::EntryState;
use crate::payment::{PaymentRequest, RequestEventId, Settlement, Timestamp};

/// A move with what it writes down.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Transition {
    /// The processor made `payment_request`, which is watched until `watch_until` whatever happens.
    Issue {
        /// What the client will be asked to pay.
        payment_request: PaymentRequest,
        /// The payment request's own end plus a grace.
        watch_until: Timestamp,
    },
    /// No payment request came of it.
    Abandon {
        /// Why, for the books.
        reason: String,
    },
    /// The request no longer waits for this payment.
    Detach {
        /// Why, for the books.
        reason: String,
    },
    /// The offer no longer stands.
    Expire,
    /// The money is on its way: it is watched until then at least, and the entry is kept as long.
    UnderWay {
        /// When it must have come, plus a grace.
        until: Timestamp,
    },
    /// The money is there.
    Settle(Settlement),
    /// `by` may now be executed for it.
    Claim {
        /// The event of the request that is executed.
        by: RequestEventId,
    },
    /// The request that waits for it may now be executed. Unlike `Claim`, not if it has stopped waiting.
    Serve,
    /// The execution did not happen, or its result is lost by our fault.
    Restore {
        /// Why, for the books.
        reason: String,
    },
    /// The handler answered.
    Deliver {
        /// The response, kept so that the same event gets the same answer again; `None` if it was too large to keep.
        response: Option<String>,
    },
}

/// The name of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "see the table of this module")]
#[expect(clippy::exhaustive_enums, reason = "the table is closed")]
pub enum TransitionKind {
    Issue,
    Abandon,
    Detach,
    Expire,
    UnderWay,
    Settle,
    Claim,
    Serve,
    Restore,
    Deliver,
}

impl Transition {
    /// Its name.
    #[must_use]
    pub const fn kind(&self) -> TransitionKind {
        match self {
            Self::Issue { .. } => TransitionKind::Issue,
            Self::Abandon { .. } => TransitionKind::Abandon,
            Self::Detach { .. } => TransitionKind::Detach,
            Self::Expire => TransitionKind::Expire,
            Self::UnderWay { .. } => TransitionKind::UnderWay,
            Self::Settle(_) => TransitionKind::Settle,
            Self::Claim { .. } => TransitionKind::Claim,
            Self::Serve => TransitionKind::Serve,
            Self::Restore { .. } => TransitionKind::Restore,
            Self::Deliver { .. } => TransitionKind::Deliver,
        }
    }
}

/// What the table says about one move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Move {
    /// Go there.
    To(EntryState),
    /// It has been made before; stay.
    Already,
    /// It cannot be made from here.
    Illegal,
}

impl EntryState {
    /// Where a move leads from this state. No I/O, no clock: the whole lifecycle is this function.
    #[must_use]
    pub const fn after(self, kind: TransitionKind) -> Move {
        use EntryState as S;
        use TransitionKind as T;
        match (self, kind) {
            (S::Quoted, T::Issue) => Move::To(S::Issued),
            (S::Quoted, T::Abandon) => Move::To(S::Abandoned),
            (S::Abandoned, T::Abandon) => Move::Already,

            (S::Issued, T::Detach) => Move::To(S::Issued),
            (S::Expired, T::Detach) => Move::To(S::Expired),
            (S::Settled, T::Detach) => Move::To(S::Settled),
            (S::Issued, T::Expire) => Move::To(S::Expired),
            (S::Expired, T::Expire) => Move::Already,

            (S::Issued, T::UnderWay) => Move::To(S::Issued),
            (S::Expired, T::UnderWay) => Move::To(S::Expired),

            (S::Issued | S::Expired, T::Settle) => Move::To(S::Settled),
            (S::Settled | S::Claimed | S::Delivered, T::Settle) => Move::Already,

            (S::Settled, T::Claim | T::Serve) => Move::To(S::Claimed),
            (S::Claimed, T::Restore) => Move::To(S::Settled),
            (S::Settled, T::Restore) => Move::Already,
            (S::Claimed, T::Deliver) => Move::To(S::Delivered),
            (S::Delivered, T::Deliver) => Move::Already,

            _ => Move::Illegal,
        }
    }
}

#[cfg(test)]
mod tests {
    use EntryState as S;
    use TransitionKind as T;

    use super::*;

    const STATES: [S; 7] = [
        S::Quoted,
        S::Issued,
        S::Settled,
        S::Claimed,
        S::Delivered,
        S::Abandoned,
        S::Expired,
    ];
    const KINDS: [T; 10] = [
        T::Issue,
        T::Abandon,
        T::Detach,
        T::Expire,
        T::UnderWay,
        T::Settle,
        T::Claim,
        T::Serve,
        T::Restore,
        T::Deliver,
    ];

    /// Every legal edge, written out a second time by hand.
    const EDGES: [(S, T, S); 14] = [
        (S::Quoted, T::Issue, S::Issued),
        (S::Quoted, T::Abandon, S::Abandoned),
        (S::Issued, T::Detach, S::Issued),
        (S::Expired, T::Detach, S::Expired),
        (S::Settled, T::Detach, S::Settled),
        (S::Issued, T::Expire, S::Expired),
        (S::Issued, T::UnderWay, S::Issued),
        (S::Expired, T::UnderWay, S::Expired),
        (S::Issued, T::Settle, S::Settled),
        (S::Expired, T::Settle, S::Settled),
        (S::Settled, T::Claim, S::Claimed),
        (S::Settled, T::Serve, S::Claimed),
        (S::Claimed, T::Restore, S::Settled),
        (S::Claimed, T::Deliver, S::Delivered),
    ];

    #[test]
    fn each_edge_leads_where_the_design_says_and_there_is_no_other() {
        for from in STATES {
            for kind in KINDS {
                let edge = EDGES.iter().find(|(f, k, _)| *f == from && *k == kind);
                match from.after(kind) {
                    Move::To(to) => assert_eq!(edge.map(|e| e.2), Some(to), "{from:?} {kind:?}"),
                    Move::Already => assert!(
                        kind_leads_to(kind).contains(&from) || kind == T::Settle,
                        "{from:?} {kind:?} never happened before"
                    ),
                    Move::Illegal => assert!(edge.is_none(), "{from:?} {kind:?}"),
                }
            }
        }
    }

    fn kind_leads_to(kind: T) -> Vec<S> {
        EDGES
            .iter()
            .filter(|(_, k, _)| *k == kind)
            .map(|(_, _, to)| *to)
            .collect()
    }

    #[test]
    fn only_settled_money_is_claimed_and_only_once() {
        for from in STATES {
            let claimable = matches!(from.after(T::Claim), Move::To(_) | Move::Already);
            assert_eq!(claimable, from == S::Settled, "{from:?}");
        }
    }

    #[test]
    fn money_that_arrived_is_never_forgotten() {
        for from in [S::Settled, S::Claimed, S::Delivered] {
            for kind in KINDS {
                if let Move::To(to) = from.after(kind) {
                    assert!(
                        matches!(to, S::Settled | S::Claimed | S::Delivered),
                        "{from:?} {kind:?}"
                    );
                }
            }
        }
    }
}
