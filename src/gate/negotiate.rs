//! Which payment interaction a request is under (CEP-8; N-37 to N-48).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::challenge::{Challenged, Failed};
use super::journal::is_fresh;
use crate::payment::{ClientPubkey, PaymentInteraction, PaymentInteractionPolicy, Timestamp};
use crate::transport::Origin;
use crate::wire::method;

/// How long a session keeps its mode without a request. A client that restarts without saying so must not inherit for
/// ever what its former self asked for (D-23).
const INHERITED_FOR: Duration = Duration::from_secs(3600);

/// The most sessions whose mode is kept. Losing one means transparent, the default; no money depends on it.
const MOST: usize = 50_000;

/// The mode of each session that is not transparent.
#[derive(Debug, Default)]
pub(super) struct Modes {
    explicit_since: Mutex<HashMap<ClientPubkey, Timestamp>>,
}

/// What came of the negotiation of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Negotiated {
    /// The interaction that the request is under.
    pub(super) effective: PaymentInteraction,
    /// The request itself asked for explicit gating and does not get it. A priced one is then refused (N-42).
    pub(super) refused: bool,
    /// What the response must disclose (N-41, N-48).
    pub(super) disclose: Option<PaymentInteraction>,
    /// Whoever holds a proof of its client may use it.
    pub(super) bearer: bool,
    /// What challenges are to its session.
    pub(super) challenged: Challenged,
    /// It came with a credential that paid for nothing: the offer says so.
    pub(super) failed: Failed,
}

impl Modes {
    /// Negotiates for one request, and notes the outcome for those that follow it.
    pub(super) fn negotiate(
        &self,
        policy: PaymentInteractionPolicy,
        request_method: &str,
        origin: &Origin,
        now: Timestamp,
    ) -> Negotiated {
        use PaymentInteraction::{ExplicitGating, Transparent};
        let mut explicit_since = self
            .explicit_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let inherited = explicit_since
            .get(&origin.client)
            .is_some_and(|since| now.since(*since) <= INHERITED_FOR);
        let asked = match origin.interaction {
            Some(asked) => asked,
            None if inherited && request_method != method::INITIALIZE => ExplicitGating,
            None => Transparent,
        };
        let offered = policy == PaymentInteractionPolicy::Optional;
        let refused = origin.interaction == Some(ExplicitGating) && !offered;
        let effective = if offered { asked } else { Transparent };
        if origin.redelivered || !is_fresh(origin.created_at, now) {
            // A stranger must not switch the mode of a session by sending an old event of it again.
        } else if effective == ExplicitGating {
            if explicit_since.len() >= MOST && !explicit_since.contains_key(&origin.client) {
                explicit_since.retain(|_, since| now.since(*since) <= INHERITED_FOR / 2);
            }
            if explicit_since.len() < MOST {
                explicit_since.insert(origin.client, now);
            }
        } else {
            explicit_since.remove(&origin.client);
        }
        let disclose = (origin.interaction == Some(ExplicitGating)).then_some(effective);
        Negotiated {
            effective,
            refused,
            disclose,
            bearer: origin.bearer,
            challenged: Challenged::No,
            failed: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use PaymentInteraction::{ExplicitGating, Transparent};

    use super::*;
    use crate::payment::RequestEventId;

    fn origin(interaction: Option<PaymentInteraction>, at: Timestamp) -> Origin {
        let mut origin = Origin::new(
            ClientPubkey::from_bytes([1; 32]),
            RequestEventId::from_bytes([2; 32]),
            at,
        );
        origin.interaction = interaction;
        origin
    }

    #[test]
    fn d_23_a_session_keeps_its_mode_until_initialize_or_an_hour_of_silence() {
        let modes = Modes::default();
        let at = |secs: u64| Timestamp::from_secs(10_000 + secs);
        let negotiate = |interaction, method: &str, now| {
            modes
                .negotiate(
                    PaymentInteractionPolicy::Optional,
                    method,
                    &origin(interaction, now),
                    now,
                )
                .effective
        };
        assert_eq!(negotiate(None, "tools/call", at(0)), Transparent);
        assert_eq!(
            negotiate(Some(ExplicitGating), "tools/call", at(1)),
            ExplicitGating
        );
        assert_eq!(negotiate(None, "tools/call", at(2)), ExplicitGating);
        assert_eq!(negotiate(None, "initialize", at(3)), Transparent);
        assert_eq!(negotiate(None, "tools/call", at(4)), Transparent);
        assert_eq!(
            negotiate(Some(ExplicitGating), "tools/call", at(5)),
            ExplicitGating
        );
        assert_eq!(negotiate(None, "tools/call", at(5 + 3601)), Transparent);
        assert_eq!(
            negotiate(Some(ExplicitGating), "tools/call", at(9000)),
            ExplicitGating
        );
        assert_eq!(
            negotiate(Some(Transparent), "tools/call", at(9001)),
            Transparent
        );
        assert_eq!(negotiate(None, "tools/call", at(9002)), Transparent);
    }

    #[test]
    fn a_replay_does_not_switch_the_mode() {
        let modes = Modes::default();
        let now = Timestamp::from_secs(10_000);
        let mut replay = origin(Some(ExplicitGating), now);
        replay.redelivered = true;
        let old = origin(Some(ExplicitGating), Timestamp::from_secs(1));
        for origin in [replay, old, origin(None, now)] {
            modes.negotiate(
                PaymentInteractionPolicy::Optional,
                "tools/call",
                &origin,
                now,
            );
            assert!(modes.explicit_since.lock().unwrap().is_empty());
        }
    }

    #[test]
    fn a_server_without_explicit_gating_says_so_and_never_slips_into_transparent() {
        let modes = Modes::default();
        let negotiated = modes.negotiate(
            PaymentInteractionPolicy::Transparent,
            "tools/call",
            &origin(Some(ExplicitGating), Timestamp::from_secs(1)),
            Timestamp::from_secs(1),
        );
        assert_eq!(
            negotiated,
            Negotiated {
                effective: Transparent,
                refused: true,
                disclose: Some(Transparent),
                bearer: false,
                challenged: Challenged::No,
                failed: None,
            }
        );
    }
}
