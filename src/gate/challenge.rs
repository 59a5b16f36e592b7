//! The offer once more, as challenges, for clients that pay by challenge and come back with a proof.
//!
//! A challenge stands for the payment request that is on the books, and for no other: it is made from the entry alone, so that
//! the same entry gives the same challenge whenever it is asked for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Gate;
use super::demand::offer_ends;
use super::journal::is_fresh;
use super::negotiate::Negotiated;
use crate::ledger::Entry;
use crate::payment::{ClientPubkey, PaymentInteraction, ProofTerms, Timestamp};
use crate::transport::Origin;
use crate::wire::mpp::{Challenge, ChallengeBinding, ChallengeKeys, Problem, declares_payment};
use crate::wire::{Request, method};

/// The most sessions that are remembered to pay by challenge. Losing one means that CEP-8 alone is spoken with it.
const MOST: usize = 50_000;

/// How long such a session is remembered without a request.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Under which name, and with which secrets, a server makes challenges.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ChallengeIssuer {
    /// Who asks, in a form that the client can hold against whom it talks to: `nostr:<key of the server>`, a host name.
    pub realm: String,
    /// What challenges are signed with.
    pub keys: ChallengeKeys,
}

impl ChallengeIssuer {
    /// Makes challenges as `realm`.
    #[must_use]
    pub fn new(realm: impl Into<String>, keys: ChallengeKeys) -> Self {
        Self {
            realm: realm.into(),
            keys,
        }
    }
}

/// What challenges are to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Challenged {
    /// Its session has none.
    #[default]
    No,
    /// An offer carries them beside the options of CEP-8, whose rules apply.
    Beside,
    /// The session knows nothing else: it is told the same offer as often as it asks, never to wait.
    Only,
}

/// The sessions that declared that they pay by challenge.
#[derive(Debug, Default)]
pub(super) struct Declared {
    since: Mutex<HashMap<ClientPubkey, Timestamp>>,
}

impl Declared {
    /// Whether the session of `request` has declared it, in this request or before.
    fn by(&self, request: &Request, origin: &Origin, now: Timestamp) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if request.method == method::INITIALIZE {
            let declares = declares_payment(request.params.as_deref());
            if origin.redelivered || !is_fresh(origin.created_at, now) {
                // A stranger must not switch a session by sending an old event of it again.
            } else if !declares {
                since.remove(&origin.client);
            } else {
                if since.len() >= MOST && !since.contains_key(&origin.client) {
                    since.retain(|_, at| now.since(*at) <= REMEMBERED_FOR / 2);
                }
                if since.len() < MOST {
                    since.insert(origin.client, now);
                }
            }
            return declares;
        }
        match since.get_mut(&origin.client) {
            Some(at) if now.since(*at) <= REMEMBERED_FOR => {
                *at = now;
                true
            }
            _ => false,
        }
    }
}

impl Gate {
    /// What challenges are to `request`, noted in what was negotiated for it.
    ///
    /// A client that declared that it pays by challenge, and said nothing of CEP-8, cannot pay in any other way; nor can one on
    /// a transport where nothing but answers reaches it. Their sessions are under explicit gating.
    pub(super) fn negotiate_challenges(
        &self,
        negotiated: &mut Negotiated,
        request: &Request,
        origin: &Origin,
    ) {
        let offered = self.challenges.is_some();
        // One that only answers reach need not be remembered for it.
        let remembered = offered && !origin.answers_only;
        let declared = remembered && self.declared.by(request, origin, self.clock.now());
        let silent = origin.interaction.is_none() && origin.pmis.is_empty();
        let implied = declared && silent && self.settings.challenges_imply_gating;
        if origin.answers_only || implied {
            negotiated.effective = PaymentInteraction::ExplicitGating;
            negotiated.refused = false;
            negotiated.challenged = Challenged::Only;
        } else if offered && negotiated.effective == PaymentInteraction::ExplicitGating {
            negotiated.challenged = Challenged::Beside;
        }
    }

    /// The challenges of `entry`: alternatives, of which the client pays one.
    pub(super) fn challenges_for(&self, entry: &Entry, bearer: bool) -> Vec<Challenge> {
        let Some(issuer) = &self.challenges else {
            return Vec::new();
        };
        let pk = (!bearer).then_some(entry.client);
        let binding = ChallengeBinding::new(entry.identity, entry.id, pk);
        let made = |terms: ProofTerms| {
            let mut challenge =
                Challenge::new(&issuer.realm, &terms.method, &terms.intent, terms.request);
            challenge.expires = Some(offer_ends(entry).to_rfc3339());
            challenge.description = Some(entry.description.clone());
            challenge.bound_to(&binding).signed(&issuer.keys)
        };
        let own = self.terms_of(entry).into_iter();
        own.chain(self.mandates_for(entry))
            .filter_map(made)
            .collect()
    }

    /// How the price of `entry` is put to clients whose mandates can be charged.
    fn mandates_for(&self, entry: &Entry) -> Vec<ProofTerms> {
        let price = entry.price();
        let able = self.processors.iter();
        able.filter_map(|processor| processor.mandates()?.terms(&price))
            .collect()
    }

    /// How the payment request of `entry` is put to clients that prove its payment.
    fn terms_of(&self, entry: &Entry) -> Option<ProofTerms> {
        let request = entry.payment_request.as_ref()?;
        self.processor(&entry.pmi)?.proofs()?.terms(request)
    }
}

/// What went wrong with a credential, if the answer to its request is an offer all the same.
pub(super) type Failed = Option<Problem>;
