//! The charge of a mandate, whatever the mandate came with.
//!
//! | what | why |
//! |---|---|
//! | the charge has an entry of its own, with a name that follows from what is presented | one challenge, or one direct payment, is one charge, for ever, whoever asks |
//! | the entry is `issued`, with the mandate's digest, before the rail is asked | a crash finds it, and another mandate is not charged for it |
//! | what the rail cannot tell is not a failure | the same may be presented again; nobody is told to pay anew |

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use super::log::log_money;
use super::resolve_price::guarded;
use super::watch::look_up;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, NewEntry, Opened, Standing, Transition};
use crate::payment::{
    Charged, PayReq, PaymentHappening, PaymentOrder, PaymentProcessor, PaymentRequest,
    PresentedProof, RailError, Settlement, SettlementStatus,
};
use crate::wire::mpp::{Problem, proof_digest};

/// How long a request waits for a charge that was taken on: clients of this kind do not ask again by themselves.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How often an obstacle is cleared away before the client is told to come back.
const TRIES: usize = 3;

/// A mandate, with who charges it.
pub(super) struct Mandate {
    pub(super) proof: PresentedProof,
    pub(super) rail: Arc<dyn PaymentProcessor>,
    /// How old a charge may be to be asked for once more although its offer has ended. What is older is only looked for.
    pub(super) renewed_for: Duration,
}

/// What became of opening an entry for a charge.
pub(super) enum Opening {
    /// It is on the books, from now or from before.
    Charge(Entry),
    /// The call was paid for meanwhile: this entry is claimed for the request.
    Paid(Entry),
    /// Too many offers are open.
    Full,
    /// The same call is being charged for otherwise.
    Busy,
}

/// How a charge stands.
pub(super) enum Fate {
    /// The money is there.
    Paid(Box<Entry>, Settlement),
    /// Nothing was taken.
    Refused,
    /// It was given up before the rail was asked.
    GivenUp,
    /// It is the charge of another mandate.
    OfAnother,
    /// Nobody knows yet.
    Unsettled,
}

impl Gate {
    /// Whether `entry` is the charge of a mandate, which nobody can be asked to pay.
    pub(super) fn is_charge(&self, entry: &Entry) -> bool {
        let processor = self.processor(&entry.pmi);
        processor.is_some_and(|processor| processor.mandates().is_some())
    }

    /// Whether one of `standing` is a charge that is not decided.
    pub(super) fn has_charge(&self, standing: &Standing) -> bool {
        let mut entries = standing.of_identity.iter();
        entries.any(|entry| entry.state == EntryState::Issued && self.is_charge(entry))
    }

    /// Whether a charge for the call of `knock`, that was not decided when it came, is not decided now: while that is so, nobody is
    /// asked to pay for it again.
    pub(super) async fn is_charging(&self, knock: &Knock) -> Result<bool> {
        Ok(knock.charging && self.has_charge(&self.ledger.standing(&knock.caller()).await?))
    }

    /// Writes the entry of a charge down, for which an open offer of the same call ends.
    pub(super) async fn open_charge(&self, knock: &Knock, new: NewEntry) -> Result<Opening> {
        for _ in 0..TRIES {
            match self.ledger.open(new.clone(), self.settings.limits).await? {
                Opened::New(charge) | Opened::Exists(charge) if charge.id == new.id => {
                    return Ok(Opening::Charge(charge));
                }
                // The money for an earlier offer has come in: nobody pays twice.
                Opened::Authorized => {
                    if let Some(entry) = self.claim_oldest(knock).await? {
                        return Ok(Opening::Paid(entry));
                    }
                }
                Opened::Outstanding(other) if !self.is_charge(&other) => {
                    let expire = vec![Transition::Expire];
                    self.ledger
                        .apply(&other.id, expire, self.clock.now())
                        .await?;
                }
                Opened::Full => return Ok(Opening::Full),
                _ => break,
            }
        }
        Ok(Opening::Busy)
    }

    /// Takes a charge further that is on the books, and says how it stands.
    pub(super) async fn take_further(
        self: &Arc<Self>,
        charge: Entry,
        mandate: &Mandate,
    ) -> Result<Fate> {
        let digest = proof_digest(mandate.proof.fields());
        let charge = match charge.state {
            EntryState::Quoted => match self.issue_charge(&charge, &digest).await? {
                Some(charge) => charge,
                None => return Ok(Fate::Unsettled),
            },
            _ => charge,
        };
        let request = charge.payment_request.as_ref();
        if request.is_some_and(|request| request.pay_req.as_str() != digest) {
            // What became of the first is not this one's business.
            return Ok(Fate::OfAnother);
        }
        let renewed = self.clock.now().since(charge.quoted_at) < mandate.renewed_for;
        match (charge.state, &charge.settlement) {
            (EntryState::Abandoned, _) => Ok(Fate::GivenUp),
            (EntryState::Expired, None) if !renewed => {
                Ok(match self.look_up_charge(&charge, mandate).await {
                    SettlementStatus::Settled(settlement) => Fate::Paid(charge.into(), settlement),
                    SettlementStatus::Failed => Fate::Refused,
                    _ => Fate::Unsettled,
                })
            }
            (EntryState::Issued | EntryState::Expired, None) => {
                self.have_charged(charge, mandate).await
            }
            (_, Some(settlement)) => {
                let settlement = settlement.clone();
                Ok(Fate::Paid(charge.into(), settlement))
            }
            (_, None) => Ok(Fate::Unsettled),
        }
    }

    /// Has the rail charge, and writes down that it refused.
    async fn have_charged(self: &Arc<Self>, charge: Entry, mandate: &Mandate) -> Result<Fate> {
        match self.charge(&charge, mandate).await {
            Charged::Paid(settlement) => Ok(Fate::Paid(charge.into(), settlement)),
            Charged::Refused => {
                let expire = vec![Transition::Expire];
                let applied = self
                    .ledger
                    .apply(&charge.id, expire, self.clock.now())
                    .await?;
                if let Applied::Moved(charge) = &applied {
                    log_money(charge, "the charge was refused; nothing was taken");
                    let reason = Problem::Declined.reason();
                    self.observe(PaymentHappening::Failed, charge, reason);
                }
                // Should the rail err, the money is found.
                self.watcher.watch(&charge).await;
                Ok(Fate::Refused)
            }
            Charged::Pending | Charged::Unknown(_) => {
                self.watcher.watch(&charge).await;
                Ok(Fate::Unsettled)
            }
        }
    }

    /// What became of a charge whose offer has ended. It is not asked for any more, only looked for.
    async fn look_up_charge(&self, charge: &Entry, mandate: &Mandate) -> SettlementStatus {
        let Some(request) = charge.payment_request.clone() else {
            return SettlementStatus::Unknown;
        };
        let rail = Arc::clone(&mandate.rail);
        match look_up(rail, request, self.settings.processor_timeout).await {
            SettlementStatus::Settled(settlement) if !covers(&settlement, charge) => {
                SettlementStatus::Unknown
            }
            status => status,
        }
    }

    /// Asks the rail, and again while it has not decided.
    async fn charge(&self, charge: &Entry, mandate: &Mandate) -> Charged {
        let mut pauses = PAUSES.into_iter();
        loop {
            let order = PaymentOrder::new(
                charge.idempotency_key(),
                charge.amount.clone(),
                charge.description.clone(),
                self.settings.payment_ttl,
            );
            let (asked, proof) = (Arc::clone(&mandate.rail), mandate.proof.clone());
            let limit = self.settings.processor_timeout;
            let charged = guarded(limit, "a charge", async move {
                match asked.mandates() {
                    Some(mandates) => mandates.charge(&order, &proof).await,
                    None => Charged::Unknown(RailError::invalid("the rail charges nothing")),
                }
            });
            let charged = charged.await.unwrap_or_else(|error| {
                Charged::Unknown(RailError::unknown("no answer").with_source(error))
            });
            match charged {
                Charged::Paid(settlement) if !covers(&settlement, charge) => {
                    tracing::error!(entry = %charge.id, "less was charged than was asked for; the call is not served");
                    return Charged::Unknown(RailError::invalid("less was charged"));
                }
                Charged::Pending => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Charged::Pending,
                },
                Charged::Unknown(error) => {
                    tracing::error!(
                        entry = %charge.id, pmi = %charge.pmi, error = &error as &dyn std::error::Error,
                        "whether a mandate was charged is not known; it is asked again"
                    );
                    return Charged::Unknown(error);
                }
                charged => return charged,
            }
        }
    }

    /// Writes down that `charge` is about to be asked for by the mandate with this digest.
    async fn issue_charge(&self, charge: &Entry, mandate: &str) -> Result<Option<Entry>> {
        let now = self.clock.now();
        let payment_request = PaymentRequest::new(
            charge.pmi.clone(),
            charge.amount.clone(),
            PayReq::new(mandate),
            charge.idempotency_key(),
        )
        .expiring(charge.deadline);
        let issue = Transition::Issue {
            payment_request,
            watch_until: charge.deadline.plus(self.settings.watch_grace),
        };
        // Its name is not that of a request that could be parked: money that comes late is an authorization.
        let detach = Transition::Detach {
            reason: "what it brought is charged".to_owned(),
        };
        let moves = vec![issue, detach];
        match self.ledger.apply(&charge.id, moves, now).await? {
            Applied::Moved(entry) => {
                log_money(&entry, "a mandate is being charged");
                Ok(Some(entry))
            }
            // Another copy was faster, or what the last process quoted was given up.
            Applied::Already(entry) | Applied::Refused(entry) => {
                Ok((entry.state == EntryState::Issued).then_some(entry))
            }
        }
    }
}

fn covers(settlement: &Settlement, charge: &Entry) -> bool {
    settlement.amount.covers(&charge.amount) == Some(true)
}
