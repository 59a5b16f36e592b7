//! The buyer's side: invoices paid by the wallet, once each, and its word on what became of them.
//!
//! A wallet says "paid" with the preimage, and nothing else is a proof. It says "no" in two ways: it turned the request away
//! before it did anything, or it tried and gave up. The second is looked up before it is believed, because a payment that
//! was given up may be on its way. Whatever is neither is unknown, and stays so until the wallet's books say otherwise.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, sleep};
use tokio_util::sync::CancellationToken;

use super::answer::{Direction, State, Transaction, text_of};
use super::client::NwcClient;
use super::connection::NwcConnection;
use super::error::{Code, NwcError};
use super::listing::{Wanted, list};
use super::settings::NwcSettings;
use super::{LIST_TRANSACTIONS, LOOKUP_INVOICE, PAY_INVOICE};
use crate::error::Result;
use crate::payment::{
    BITCOIN_LIGHTNING_BOLT11, Examined, PayOutcome, PaymentHandler, PaymentProof, PaymentRequest,
    Pmi, RailError, Timestamp,
};
use crate::rails::lightning::bolt11::{self, Invoice};
use crate::rails::lightning::preimage::{Preimage, judge_preimage};

/// While an answer is waited for, the wallet's books are looked into this often: it may have paid, and the answer be lost.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// When a wallet's books are looked into once it says that a payment failed: they may be written a moment later.
const AFTER_A_NO: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
];
/// How long a payment that is in no book must have been impossible before it is believed that it never was: clocks differ
/// by so much (N-135).
const GRACE: Duration = Duration::from_secs(600);
/// The same, for a wallet that cannot list its payments: its look-up may know of invoices only.
const LONG_GRACE: Duration = Duration::from_secs(3600);
/// How long the wallet's books may take to be searched.
const SEARCH_WITHIN: Duration = Duration::from_secs(20);
/// Payments that are remembered, so that none is made twice.
const MOST_ATTEMPTS: usize = 65_536;

/// Pays by Lightning through a NIP-47 wallet.
pub struct LightningNwcHandler {
    pmi: Pmi,
    /// Which wallet it is.
    name: String,
    client: NwcClient,
    settings: NwcSettings,
    /// The payment hashes that this process has handed to the wallet, and when they expire.
    attempts: Mutex<HashMap<String, Timestamp>>,
}

impl fmt::Debug for LightningNwcHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LightningNwcHandler")
            .field("client", &self.client)
            .field("network", &self.settings.network)
            .finish_non_exhaustive()
    }
}

/// What the wallet's books say of a payment.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Settled(Preimage),
    OnItsWay,
    Failed,
    /// It is in none of them. `sure`: in the list of payments neither.
    Missing {
        sure: bool,
    },
    /// The books could not be seen.
    Unseen,
}

impl LightningNwcHandler {
    /// A handler that is connected, in the background, from now on. The wallet itself is asked nothing before there is
    /// something to pay.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn new(connection: NwcConnection, settings: NwcSettings) -> Result<Self> {
        Ok(Self {
            pmi: BITCOIN_LIGHTNING_BOLT11.parse()?,
            name: connection.name(),
            client: NwcClient::start(connection, false),
            settings,
            attempts: Mutex::default(),
        })
    }

    /// Remembers that `invoice` is handed to the wallet. `false`: it was before.
    fn begin(&self, invoice: &Invoice) -> std::result::Result<bool, RailError> {
        let now = self.settings.clock.now();
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= MOST_ATTEMPTS {
            attempts.retain(|_, expires| expires.plus(LONG_GRACE) > now);
        }
        if attempts.len() >= MOST_ATTEMPTS {
            return Err(RailError::refused("too many payments are under way"));
        }
        Ok(attempts
            .insert(invoice.payment_hash.clone(), invoice.expires_at)
            .is_none())
    }

    /// The wallet never took it: whoever wants to may try again.
    fn take_back(&self, invoice: &Invoice) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.remove(&invoice.payment_hash);
    }

    /// The wallet is there and may pay. Nothing has been asked of it that moves money.
    async fn reach(&self) -> std::result::Result<(), RailError> {
        let patience = self.settings.start_within;
        self.client.ready(patience).await.map_err(|error| {
            RailError::refused("no relay of the wallet can be reached; nothing was paid")
                .with_source(error)
        })?;
        let abilities = self
            .client
            .announced_or_asked(patience)
            .await
            .map_err(|error| RailError::refused(format!("{error}; nothing was paid")))?;
        if !abilities.may(PAY_INVOICE) {
            return Err(RailError::refused(
                "the wallet does not permit pay_invoice on this connection; nothing was paid",
            ));
        }
        if !abilities.may(LOOKUP_INVOICE) && !abilities.may(LIST_TRANSACTIONS) {
            tracing::warn!(
                "the wallet permits neither lookup_invoice nor list_transactions on this connection: a payment whose answer \
                 is lost stays unknown"
            );
        }
        match abilities.network {
            Some(network) if network != self.settings.network => Err(RailError::refused(format!(
                "the wallet is on {network}, where {} is expected; nothing was paid",
                self.settings.network
            ))),
            _ => Ok(()),
        }
    }

    /// Hands `invoice` to the wallet, and finds out what became of it.
    async fn pay(&self, text: &str, invoice: &Invoice, cancel: &CancellationToken) -> PayOutcome {
        let params = json!({ "invoice": text });
        let paying = self
            .client
            .ask(PAY_INVOICE, params, self.settings.pay_within);
        tokio::pin!(paying);
        let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut paying => break answer,
                () = cancel.cancelled() => return PayOutcome::Unknown,
                _ = looks.tick() => {
                    if let Fate::Settled(preimage @ Preimage::Matches(_)) = self.fate(invoice).await {
                        return paid(preimage, invoice);
                    }
                }
            }
        };
        match answer {
            Ok(result) => self.believe(&result, invoice).await,
            // Nothing reached a relay.
            Err(NwcError::NotSent(why)) => {
                tracing::warn!(
                    payment = short(invoice),
                    why,
                    "the wallet could not be asked to pay"
                );
                PayOutcome::Refused
            }
            Err(error) => {
                tracing::warn!(payment = short(invoice), %error, "the wallet does not confirm a payment");
                self.after_a_no(&error, invoice).await
            }
        }
    }

    /// The wallet says that it paid. Only the preimage proves it.
    async fn believe(&self, result: &Value, invoice: &Invoice) -> PayOutcome {
        let preimage = judge_preimage(text_of(result, "preimage"), &invoice.payment_hash);
        match preimage {
            Preimage::Matches(_) => paid(preimage, invoice),
            Preimage::Absent | Preimage::Differs => {
                tracing::error!(
                    payment = short(invoice),
                    ?preimage,
                    "the wallet says that it paid, and does not prove it; looking into its books"
                );
                match self.fate(invoice).await {
                    Fate::Settled(preimage) => paid(preimage, invoice),
                    _ => PayOutcome::Unknown,
                }
            }
        }
    }

    async fn after_a_no(&self, error: &NwcError, invoice: &Invoice) -> PayOutcome {
        let turned_away = error.code().is_some_and(Code::is_turned_away);
        for pause in AFTER_A_NO {
            sleep(pause).await;
            match self.fate(invoice).await {
                Fate::Settled(preimage) => return paid(preimage, invoice),
                Fate::Failed => return PayOutcome::Refused,
                // The request may have arrived twice, over two relays: then the no is an answer to the second.
                Fate::OnItsWay => {}
                Fate::Missing { .. } | Fate::Unseen if turned_away => return PayOutcome::Refused,
                // It was silent for long; asking again at once changes nothing.
                Fate::Missing { .. } | Fate::Unseen if *error == NwcError::Silent => break,
                Fate::Missing { .. } | Fate::Unseen => {}
            }
        }
        PayOutcome::Unknown
    }

    /// Looks into the wallet's books.
    async fn fate(&self, invoice: &Invoice) -> Fate {
        let hash = &invoice.payment_hash;
        let params = json!({ "payment_hash": hash });
        let asked = self
            .client
            .ask(LOOKUP_INVOICE, params, self.settings.answer_within)
            .await;
        let looked_up = match asked.map(|result| Transaction::read(&result)) {
            Ok(Some(found)) if !found.is_about(hash) => {
                tracing::warn!(
                    payment = short(invoice),
                    "the wallet describes another payment than it was asked for"
                );
                return Fate::Unseen;
            }
            // It made the invoice itself: the list of payments tells.
            Ok(Some(found)) if found.direction == Some(Direction::Incoming) => true,
            // It does not say which side it is on, and may speak of the payment: only the list tells.
            Ok(Some(found)) if found.direction.is_none() && found.state == State::Expired => false,
            Ok(Some(found)) => return fate_of(&found, hash),
            Err(NwcError::Said(Code::NotFound, _)) => true,
            Err(NwcError::Said(code, _)) if code.is_for_good() => false,
            Ok(None) | Err(_) => return Fate::Unseen,
        };
        let from = invoice
            .made_at
            .min(self.settings.clock.now())
            .minus(GRACE)
            .as_secs();
        let wanted = Wanted {
            from,
            direction: Direction::Outgoing,
            unpaid: true,
        };
        match list(&self.client, &wanted, Instant::now() + SEARCH_WITHIN).await {
            Ok(listed) => match listed
                .transactions
                .iter()
                .find(|t| t.payment_hash.as_ref() == Some(hash))
            {
                Some(found) => fate_of(found, hash),
                None if listed.complete || looked_up => Fate::Missing {
                    sure: listed.complete && looked_up,
                },
                None => Fate::Unseen,
            },
            Err(_) if looked_up => Fate::Missing { sure: false },
            Err(_) => Fate::Unseen,
        }
    }
}

fn fate_of(found: &Transaction, hash: &str) -> Fate {
    match found.state {
        State::Settled => Fate::Settled(judge_preimage(found.preimage.as_deref(), hash)),
        State::Failed => Fate::Failed,
        // "expired" and "canceled" are said of invoices. Of a payment they may be said because the time of its invoice is
        // over, while the money is still held on its way.
        State::Pending | State::Expired => Fate::OnItsWay,
    }
}

/// The wallet says that the money is gone. Never "paid" on a proof that is none, and never free to be paid again.
fn paid(preimage: Preimage, invoice: &Invoice) -> PayOutcome {
    match preimage {
        Preimage::Matches(preimage) => PayOutcome::Paid(PaymentProof::new(preimage)),
        // It is in the wallet's books as paid; some do not keep the proof.
        Preimage::Absent => PayOutcome::Paid(PaymentProof::default()),
        Preimage::Differs => {
            tracing::error!(
                payment = short(invoice),
                "THE WALLET CLAIMS A PAYMENT AND SHOWS A PREIMAGE THAT IS NOT ITS OWN: its outcome is unknown, and the \
                 money stays reserved; see what the wallet's own app says"
            );
            PayOutcome::Unknown
        }
    }
}

/// Enough of a payment hash to find it again.
fn short(invoice: &Invoice) -> &str {
    invoice.payment_hash.get(..8).unwrap_or_default()
}

#[async_trait]
impl PaymentHandler for LightningNwcHandler {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn examine(&self, request: &PaymentRequest) -> std::result::Result<Examined, RailError> {
        bolt11::examine(request, self.settings.network, self.settings.clock.now())
    }

    async fn can_handle(&self, request: &PaymentRequest) -> bool {
        match self.examine(request) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "an invoice is not paid");
                false
            }
        }
    }

    async fn handle(
        &self,
        request: &PaymentRequest,
        cancel: &CancellationToken,
    ) -> std::result::Result<PayOutcome, RailError> {
        self.examine(request)?;
        let text = request.pay_req.as_str().trim();
        let invoice = Invoice::parse(text)?;
        match cancel.run_until_cancelled(self.reach()).await {
            Some(reached) => reached?,
            None => return Ok(PayOutcome::Refused),
        }
        // The wallet may have been long in coming.
        self.examine(request)?;
        if !self.begin(&invoice)? {
            tracing::warn!(
                payment = short(&invoice),
                "an invoice is not handed to the wallet twice"
            );
            return self.lookup_payment(request).await;
        }
        let outcome = self.pay(text, &invoice, cancel).await;
        if outcome == PayOutcome::Refused {
            self.take_back(&invoice);
        }
        Ok(outcome)
    }

    fn wallet(&self) -> Option<String> {
        Some(self.name.clone())
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> std::result::Result<PayOutcome, RailError> {
        // It may have expired long since: that is no reason not to ask.
        let invoice = Invoice::parse(request.pay_req.as_str())?;
        self.reach().await.map_err(|error| {
            RailError::unknown("the wallet cannot be asked what became of a payment")
                .with_source(error)
        })?;
        Ok(match self.fate(&invoice).await {
            Fate::Settled(preimage) => paid(preimage, &invoice),
            Fate::Failed => PayOutcome::Refused,
            Fate::Missing { sure } => {
                let grace = if sure { GRACE } else { LONG_GRACE };
                if self.settings.clock.now() > invoice.expires_at.plus(grace) {
                    PayOutcome::Refused
                } else {
                    PayOutcome::Unknown
                }
            }
            Fate::OnItsWay => PayOutcome::Unknown,
            Fate::Unseen => {
                return Err(RailError::unknown(
                    "the wallet does not say what became of a payment",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_are_read_with_money_in_mind() {
        use nostr::hashes::{Hash, sha256};
        let hash = sha256::Hash::hash(&[1; 32]).to_string();
        let fate = |value: Value| fate_of(&Transaction::read(&value).unwrap(), &hash);
        let preimage = "01".repeat(32);
        assert_eq!(
            fate(json!({"state": "settled", "preimage": preimage})),
            Fate::Settled(Preimage::Matches(preimage.clone()))
        );
        assert_eq!(
            fate(json!({"settled_at": 5, "preimage": ""})),
            Fate::Settled(Preimage::Absent)
        );
        assert_eq!(
            fate(json!({"state": "settled", "preimage": "02".repeat(32)})),
            Fate::Settled(Preimage::Differs)
        );
        assert_eq!(fate(json!({"state": "pending"})), Fate::OnItsWay);
        assert_eq!(fate(json!({})), Fate::OnItsWay);
        assert_eq!(fate(json!({"state": "failed"})), Fate::Failed);
        // The end of its invoice is not the end of a payment that was begun before.
        for state in ["expired", "canceled", "cancelled"] {
            assert_eq!(fate(json!({"state": state})), Fate::OnItsWay, "{state}");
            let ours = json!({"type": "outgoing", "state": state});
            assert_eq!(fate(ours), Fate::OnItsWay, "{state}");
        }
    }
}
