//! The client presents a credential: a challenge of ours with its proof.
//!
//! A proof and the rail's own word are two witnesses of one payment. Each leads to the same two moves of the same entry,
//! settled and claimed, made in one write; whoever comes second finds them made. So one payment serves one call, whichever
//! of them is first, and a credential that is sent again gets the answer that it paid for.
//!
//! A credential is never answered with a demand for money unless nothing can have been paid for it.

use std::sync::Arc;

use serde_json::Value;

use super::Gate;
use super::claim::Claim;
use super::door::Knock;
use super::open_calls::Paid;
use super::resume::stored_response;
use crate::error::Result;
use crate::ledger::{Entry, EntryState};
use crate::payment::{PresentedProof, Proven, Settlement};
use crate::transport::Outbound;
use crate::wire::Message;
use crate::wire::mpp::{Challenge, Credential, Problem, Receipt, with_receipt};

/// A credential whose challenge is ours, bound to this call and this client.
pub(super) struct Presentation {
    pub(super) challenge: Challenge,
    pub(super) proof: PresentedProof,
    /// The entry that it asks for the money of.
    pub(super) entry: Entry,
    /// Whoever holds the proof may use it.
    pub(super) bearer: bool,
}

impl Gate {
    /// Serves `knock` by the credential that it presents. Gives it back if it presents none, or if nothing can have been paid for
    /// the one that it presents: then it is offered the call like any other.
    pub(super) async fn present(
        self: &Arc<Self>,
        mut knock: Box<Knock>,
    ) -> Result<Option<Box<Knock>>> {
        let Some(presented) = knock.shown.credential.take() else {
            return Ok(Some(knock));
        };
        if knock.shown.credential_exposed {
            return self.refuse_credential(&knock, Problem::Exposed, None).await;
        }
        if self.challenges.is_none() {
            // Not one of ours, whatever it is.
            return Ok(Some(knock));
        }
        let presentation = match self.recognise(&knock, presented).await? {
            Ok(presentation) => presentation,
            Err((problem, challenge)) => {
                return self
                    .refuse_credential(&knock, problem, challenge.as_ref())
                    .await;
            }
        };
        let proven = self.check_proof(&presentation);
        match proven {
            Some(Proven::Paid(settlement)) => {
                self.serve_proven(knock, presentation, settlement).await
            }
            Some(Proven::NotPaid) => {
                self.serve_unproven(knock, presentation, Problem::NotPaid)
                    .await
            }
            // Whose money it is does not hang on the form of a proof.
            Some(Proven::Malformed) if !presentation.bearer => {
                self.serve_unproven(knock, presentation, Problem::Malformed)
                    .await
            }
            Some(Proven::Malformed) => {
                let challenge = Some(&presentation.challenge);
                self.refuse_credential(&knock, Problem::Malformed, challenge)
                    .await
            }
            None => {
                let challenge = &presentation.challenge;
                match self.charger(&challenge.method, &challenge.intent).cloned() {
                    Some(rail) => self.present_mandate(knock, presentation, rail).await,
                    None => {
                        self.refuse_credential(&knock, Problem::UnknownMethod, Some(challenge))
                            .await
                    }
                }
            }
        }
    }

    /// Reads what is presented, and holds it against who presents it with which call. A forgery costs no look into the books.
    async fn recognise(
        &self,
        knock: &Knock,
        presented: Value,
    ) -> Result<std::result::Result<Presentation, (Problem, Option<Challenge>)>> {
        let Some(Credential {
            challenge, payload, ..
        }) = Credential::read(presented)
        else {
            return Ok(Err((Problem::Malformed, None)));
        };
        let ours = self.challenges.as_ref().is_some_and(|issuer| {
            issuer.keys.signed(&challenge) && challenge.realm == issuer.realm
        });
        let Some(binding) = challenge.binding().filter(|_| ours) else {
            return Ok(Err((Problem::Unknown, None)));
        };
        if binding.op != knock.invocation.identity {
            return Ok(Err((Problem::OtherCall, Some(challenge))));
        }
        let bearer = binding.pk.is_none();
        if binding.pk.is_some_and(|pk| pk != knock.origin.client) {
            return Ok(Err((Problem::OtherClient, Some(challenge))));
        }
        let Some(entry) = self.ledger.get(&binding.entry).await? else {
            return Ok(Err((Problem::Unknown, Some(challenge))));
        };
        Ok(Ok(Presentation {
            challenge,
            proof: PresentedProof::new(payload),
            entry,
            bearer,
        }))
    }

    /// What the rail that made the payment request says to the proof; `None` if the challenge is not one of that rail's.
    fn check_proof(&self, presentation: &Presentation) -> Option<Proven> {
        let Presentation {
            challenge,
            proof,
            entry,
            ..
        } = presentation;
        let proofs = self.processor(&entry.pmi)?.proofs()?;
        let request = entry.payment_request.as_ref()?;
        let named = (challenge.method.as_str(), challenge.intent.as_str());
        (proofs.method() == named).then(|| proofs.check(request, proof))
    }

    /// The proof is good: what it paid for is executed, is being executed, or was.
    ///
    /// It counts after the challenge has expired, too: the money is there.
    pub(super) async fn serve_proven(
        self: &Arc<Self>,
        knock: Box<Knock>,
        presentation: Presentation,
        settlement: Settlement,
    ) -> Result<Option<Box<Knock>>> {
        let Presentation {
            challenge, entry, ..
        } = presentation;
        if entry.state == EntryState::Settled && knock.replayed {
            // A request that was answered before does not use up what a newer one may have paid for (D-12).
            return self.refuse_replay(knock).await.map(|()| None);
        }
        let entry = match self.claim_paid(&knock, entry, settlement).await? {
            Claim::Made(entry) => return self.forward_proven(knock, &challenge, entry).await,
            Claim::NotMade(entry) => entry,
            Claim::TakenBack => return Ok(None),
        };
        self.answer_used(&knock, &challenge, &entry).await
    }

    /// Forwards the call whose entry has just been claimed for it; its result carries a receipt.
    pub(super) async fn forward_proven(
        self: &Arc<Self>,
        knock: Box<Knock>,
        challenge: &Challenge,
        entry: Entry,
    ) -> Result<Option<Box<Knock>>> {
        let receipt = self.receipt(challenge, &entry);
        let paid = Paid::with_receipt(entry.id, receipt);
        self.forward(knock.request, knock.origin, knock.negotiated, Some(paid))
            .await;
        Ok(None)
    }

    /// The proof proves nothing, which is its `problem`. The wallet may know better, and is asked: what is paid is served.
    async fn serve_unproven(
        self: &Arc<Self>,
        knock: Box<Knock>,
        presentation: Presentation,
        problem: Problem,
    ) -> Result<Option<Box<Knock>>> {
        let Presentation {
            challenge,
            entry,
            bearer,
            ..
        } = presentation;
        let unpaid = matches!(entry.state, EntryState::Issued | EntryState::Expired);
        let paid = match unpaid {
            true => self.whether_paid(&entry).await?,
            false => Some(true),
        };
        let Some(paid) = paid else {
            // Perhaps it was: an offer might make somebody pay twice.
            return self
                .refuse_credential(&knock, Problem::Unsettled, Some(&challenge))
                .await;
        };
        if !paid && matches!(problem, Problem::Malformed) {
            return self
                .refuse_credential(&knock, problem, Some(&challenge))
                .await;
        }
        if !paid {
            // Nothing has been paid for this challenge, so an offer cannot make anybody pay twice.
            let expired = entry.state == EntryState::Expired;
            let problem = if expired {
                Problem::Expired
            } else {
                Problem::NotPaid
            };
            return Ok(Some(knock.after(problem)));
        }
        let settled = self.ledger.get(&entry.id).await?;
        let settled = settled.and_then(|entry| entry.settlement);
        match settled {
            // It is this client's money, proven or not. A bearer has nothing but the proof.
            Some(settlement) if !bearer => {
                let entry = self.ledger.get(&entry.id).await?.unwrap_or(entry);
                let presentation = Presentation {
                    challenge,
                    proof: PresentedProof::new(serde_json::Map::new()),
                    entry,
                    bearer,
                };
                self.serve_proven(knock, presentation, settlement).await
            }
            _ => {
                self.refuse_credential(&knock, Problem::NotPaid, Some(&challenge))
                    .await
            }
        }
    }

    /// The credential was used. Its result again, or that it is on its way; never a demand.
    async fn answer_used(
        &self,
        knock: &Knock,
        challenge: &Challenge,
        entry: &Entry,
    ) -> Result<Option<Box<Knock>>> {
        let by_this = entry.claimed_by == Some(knock.origin.event);
        match entry.state {
            // Another copy of this very request is a step ahead, and answers.
            EntryState::Claimed if by_this => Ok(None),
            EntryState::Claimed | EntryState::Settled => {
                self.refuse_credential(knock, Problem::InUse, Some(challenge))
                    .await
            }
            EntryState::Delivered => {
                let Some(message) = self.stored_answer(knock, challenge, entry) else {
                    return self
                        .refuse_credential(knock, Problem::Used, Some(challenge))
                        .await;
                };
                self.send(&knock.origin.reply_to, Outbound::new(message))
                    .await;
                Ok(None)
            }
            _ => {
                self.refuse_credential(knock, Problem::Unknown, Some(challenge))
                    .await
            }
        }
    }

    /// The answer that `entry` paid for, under the id of this request.
    fn stored_answer(
        &self,
        knock: &Knock,
        challenge: &Challenge,
        entry: &Entry,
    ) -> Option<Message> {
        let response = stored_response(knock, entry)?;
        let receipt = self.receipt(challenge, entry);
        Some(with_receipt(response.into(), &receipt))
    }

    fn receipt(&self, challenge: &Challenge, entry: &Entry) -> Receipt {
        let settled = entry
            .history
            .iter()
            .find(|moment| moment.state == EntryState::Settled);
        let at = settled.map_or_else(|| self.clock.now(), |moment| moment.at);
        // A charge is known by what the rail calls it, a payment request by its own name.
        let reference = match (&entry.settlement, self.is_charge(entry)) {
            (Some(settlement), true) => Some(settlement.reference.clone()),
            _ => entry
                .payment_request
                .as_ref()
                .map(|made| made.reference.clone()),
        };
        Receipt::new(
            &challenge.id,
            &challenge.method,
            at.to_rfc3339(),
            reference.unwrap_or_default(),
        )
    }

    pub(super) async fn refuse_credential(
        &self,
        knock: &Knock,
        problem: Problem,
        challenge: Option<&Challenge>,
    ) -> Result<Option<Box<Knock>>> {
        tracing::warn!(
            request_event_id = %knock.origin.event, client_pubkey = knock.origin.client.short(),
            capability = %knock.listed.capability, reason = problem.reason(), "a credential was not taken"
        );
        // Nobody who sends this again later shall get what its author pays for meanwhile (D-12). What stands for no entry of ours never
        // will, and costs no write.
        if let Some(challenge) = challenge {
            self.observe_refusal(challenge, problem.reason()).await;
            self.ledger
                .note_answered(&knock.origin.event, self.clock.now())
                .await?;
        }
        let error = problem.to_error(challenge.map(|challenge| challenge.id.as_str()));
        self.answer_error(&knock.request.id, &knock.origin.reply_to, &error)
            .await;
        Ok(None)
    }
}
