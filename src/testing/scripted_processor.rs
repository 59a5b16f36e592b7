//! A payment processor that does what the test says, and writes down what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};

use super::TestClock;
use crate::payment::{
    Amount, CheckProof, Clock, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi,
    PresentedProof, ProofTerms, Proven, RailError, Settlement, SettlementNotice, SettlementStatus,
    SettlementStream, Timestamp, Unit,
};

/// How many notices may wait.
const PUSHES: usize = 4096;

/// What [`create_payment_required`](PaymentProcessor::create_payment_required) does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MintScript {
    /// Makes what was ordered.
    Honest,
    /// Makes it after a delay.
    Slow(Duration),
    /// Fails; the text must never reach a client.
    Fail(String),
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
    /// Returns another amount.
    WrongAmount(Amount),
    /// Returns another payment method.
    WrongPmi(Pmi),
    /// Returns an empty `pay_req`.
    EmptyPayReq,
    /// Returns a payment request that has expired already.
    Expired,
    /// Returns a payment request that ends then, or does not say when.
    Expiring(Option<Timestamp>),
    /// Returns the same payment request for every order.
    Reused(String),
}

/// What [`lookup_payment`](PaymentProcessor::lookup_payment) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupScript {
    /// Says what is true.
    Honest,
    /// Fails.
    Fail,
    /// Never answers.
    Hang,
    /// Says that everything has expired.
    Expired,
}

/// What [`list_settled`](PaymentProcessor::list_settled) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListScript {
    /// Cannot list, like most rails.
    Cannot,
    /// Lists what is true.
    Honest,
    /// Lists which payments to look up, not what arrived.
    Hints,
    /// Fails.
    Fail,
    /// Never answers.
    Hang,
}

/// One line of the log of a scripted processor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RailEvent {
    /// Was asked to make a payment request under this key.
    Minted(String),
    /// Was asked about this reference.
    LookedUp(String),
    /// Was asked for everything settled of what was made since then.
    Listed(Timestamp),
    /// Settled this reference.
    Settled(String),
}

#[derive(Debug)]
struct State {
    mint: MintScript,
    lookup: LookupScript,
    list: ListScript,
    settle_at_once: bool,
    made: HashMap<String, PaymentRequest>,
    in_order: Vec<String>,
    settled: HashMap<String, Settlement>,
    log: Vec<RailEvent>,
}

/// The wallet: it outlives the processes that use it.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// To the process that subscribed last.
    pushes: Mutex<mpsc::Sender<SettlementNotice>>,
    minted: watch::Sender<usize>,
    clock: Arc<dyn Clock>,
}

impl Shared {
    async fn push(&self, notice: SettlementNotice) {
        let pushes = self
            .pushes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        // Nobody may be listening, as after a crash.
        let _ = pushes.send(notice).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`ProcessorControl`] for what it does.
#[derive(Debug)]
pub struct ScriptedProcessor {
    pmi: Pmi,
    units: Vec<Unit>,
    shared: Arc<Shared>,
    stream: Mutex<Option<SettlementStream>>,
}

/// The test's hand on a [`ScriptedProcessor`].
#[derive(Debug, Clone)]
pub struct ProcessorControl {
    shared: Arc<Shared>,
}

impl ScriptedProcessor {
    /// A processor for `pmi` that accepts sats, makes what is ordered, and settles nothing by itself. Its wallet's clock
    /// follows Tokio's, and does not jump.
    #[must_use]
    pub fn new(pmi: Pmi) -> (Self, ProcessorControl) {
        let (pushes, stream) = mpsc::channel(PUSHES);
        let state = State {
            mint: MintScript::Honest,
            lookup: LookupScript::Honest,
            list: ListScript::Cannot,
            settle_at_once: false,
            made: HashMap::new(),
            in_order: Vec::new(),
            settled: HashMap::new(),
            log: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            pushes: Mutex::new(pushes),
            minted: watch::Sender::new(0),
            clock: Arc::new(TestClock::new()),
        });
        Self::on(shared, pmi, stream)
    }

    fn on(shared: Arc<Shared>, pmi: Pmi, stream: SettlementStream) -> (Self, ProcessorControl) {
        let control = ProcessorControl {
            shared: Arc::clone(&shared),
        };
        let processor = Self {
            pmi,
            units: vec![Unit::SATS],
            shared,
            stream: Mutex::new(Some(stream)),
        };
        (processor, control)
    }

    /// Accepts these units.
    #[must_use]
    pub fn with_units(mut self, units: Vec<Unit>) -> Self {
        self.units = units;
        self
    }

    /// Another processor on the same wallet, as a restarted process would have. From now on, notices come to this one
    /// only.
    #[must_use]
    pub fn restarted(control: &ProcessorControl, pmi: Pmi) -> (Self, ProcessorControl) {
        let (pushes, stream) = mpsc::channel(PUSHES);
        *control
            .shared
            .pushes
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = pushes;
        Self::on(Arc::clone(&control.shared), pmi, stream)
    }
}

impl ProcessorControl {
    /// Changes how payment requests are made.
    pub fn on_mint(&self, script: MintScript) {
        self.shared.state().mint = script;
    }

    /// Changes how look-ups are answered.
    pub fn on_lookup(&self, script: LookupScript) {
        self.shared.state().lookup = script;
    }

    /// What lists do from now on.
    pub fn on_list(&self, script: ListScript) {
        self.shared.state().list = script;
    }

    /// Settles every payment request as soon as it is made, and says so.
    pub fn settle_at_once(&self) {
        self.shared.state().settle_at_once = true;
    }

    /// The references of all payment requests, in the order in which they were made.
    #[must_use]
    pub fn references(&self) -> Vec<String> {
        self.shared.state().in_order.clone()
    }

    /// What the processor was asked, in order.
    #[must_use]
    pub fn log(&self) -> Vec<RailEvent> {
        self.shared.state().log.clone()
    }

    /// How many payment requests were asked for.
    #[must_use]
    pub fn minted(&self) -> usize {
        self.log()
            .iter()
            .filter(|event| matches!(event, RailEvent::Minted(_)))
            .count()
    }

    /// Waits until `count` payment requests have been made.
    pub async fn wait_for_minted(&self, count: usize) {
        let mut minted = self.shared.minted.subscribe();
        // The sender lives as long as `self`.
        let _ = minted.wait_for(|made| *made >= count).await;
    }

    /// Settles `reference` and pushes a notice.
    pub async fn settle(&self, reference: &str) {
        if let Some(settlement) = self.settle_quietly(reference) {
            self.shared
                .push(SettlementNotice::new(reference, Some(settlement)))
                .await;
        }
    }

    /// Settles `reference`; only a look-up finds out.
    pub fn settle_quietly(&self, reference: &str) -> Option<Settlement> {
        let mut state = self.shared.state();
        let amount = state.made.get(reference)?.amount.clone();
        let settlement = Settlement::new(amount, "scripted");
        state
            .settled
            .insert(reference.to_owned(), settlement.clone());
        state.log.push(RailEvent::Settled(reference.to_owned()));
        Some(settlement)
    }

    /// Settles `reference` with `amount`, whatever was asked for, and pushes a notice.
    pub async fn settle_with(&self, reference: &str, amount: Amount) {
        let settlement = Settlement::new(amount, "scripted");
        self.shared
            .state()
            .settled
            .insert(reference.to_owned(), settlement.clone());
        self.shared
            .push(SettlementNotice::new(reference, Some(settlement)))
            .await;
    }

    /// Pushes a notice as it is: repeated, early, or about nothing.
    pub async fn push(&self, notice: SettlementNotice) {
        self.shared.push(notice).await;
    }

    /// The payment request that was made under `reference`.
    #[must_use]
    pub fn request(&self, reference: &str) -> Option<PaymentRequest> {
        self.shared.state().made.get(reference).cloned()
    }

    /// Pays `reference` and hands out what proves it. The wallet knows that it is paid, and does not say so by itself.
    pub fn proof_of(&self, reference: &str) -> Value {
        self.settle_quietly(reference);
        Value::from(Map::from_iter([(
            "preimage".to_owned(),
            preimage_of(reference).into(),
        )]))
    }

    /// Whether `reference` has settled.
    #[must_use]
    pub fn is_settled(&self, reference: &str) -> bool {
        self.shared.state().settled.contains_key(reference)
    }

    /// How many payment requests have settled.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.shared.state().settled.len()
    }
}

#[async_trait]
impl PaymentProcessor for ScriptedProcessor {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, unit: &Unit) -> bool {
        self.units.contains(unit)
    }

    #[expect(clippy::panic, reason = "a panicking processor is one of the scripts")]
    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        let script = {
            let mut state = self.shared.state();
            state
                .log
                .push(RailEvent::Minted(order.idempotency_key.clone()));
            state.mint.clone()
        };
        match &script {
            MintScript::Slow(delay) => tokio::time::sleep(*delay).await,
            MintScript::Hang => std::future::pending().await,
            MintScript::Fail(text) => return Err(RailError::unknown(text.clone())),
            MintScript::Panic => panic!("scripted"),
            _ => {}
        }
        let reference = match &script {
            MintScript::Reused(reference) => reference.clone(),
            _ => format!("ref-{}", order.idempotency_key),
        };
        let pay_req = PayReq::new(format!("scripted:{reference}"));
        let expires_at = self.shared.clock.now().plus(order.ttl);
        let mut request = PaymentRequest::new(
            self.pmi.clone(),
            order.amount.clone(),
            pay_req,
            reference.clone(),
        )
        .expiring(expires_at);
        match script {
            MintScript::WrongAmount(amount) => request.amount = amount,
            MintScript::WrongPmi(pmi) => request.pmi = pmi,
            MintScript::EmptyPayReq => request.pay_req = PayReq::new(""),
            MintScript::Expired => {
                request.expires_at = Some(Timestamp::from_secs(1));
            }
            MintScript::Expiring(at) => request.expires_at = at,
            _ => {}
        }
        let settle = {
            let mut state = self.shared.state();
            if state
                .made
                .insert(reference.clone(), request.clone())
                .is_none()
            {
                state.in_order.push(reference.clone());
            }
            self.shared.minted.send_replace(state.in_order.len());
            state.settle_at_once
        };
        if settle {
            ProcessorControl {
                shared: Arc::clone(&self.shared),
            }
            .settle(&reference)
            .await;
        }
        Ok(request)
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        let (script, settled) = {
            let mut state = self.shared.state();
            state
                .log
                .push(RailEvent::LookedUp(request.reference.clone()));
            (state.lookup, state.settled.get(&request.reference).cloned())
        };
        match script {
            LookupScript::Honest => {
                Ok(settled.map_or(SettlementStatus::Pending, SettlementStatus::Settled))
            }
            LookupScript::Fail => Err(RailError::unknown(
                "scripted failure of wallet nostr+walletconnect://secret",
            )),
            LookupScript::Hang => std::future::pending().await,
            LookupScript::Expired => Ok(SettlementStatus::Expired),
        }
    }

    async fn list_settled(
        &self,
        made_since: Timestamp,
    ) -> Result<Option<Vec<SettlementNotice>>, RailError> {
        let (script, settled) = {
            let mut state = self.shared.state();
            if state.list != ListScript::Cannot {
                state.log.push(RailEvent::Listed(made_since));
            }
            (state.list, state.settled.clone())
        };
        let hints = script == ListScript::Hints;
        match script {
            ListScript::Cannot => Ok(None),
            ListScript::Honest | ListScript::Hints => Ok(Some(
                settled
                    .into_iter()
                    .map(|(reference, s)| SettlementNotice::new(reference, (!hints).then_some(s)))
                    .collect(),
            )),
            ListScript::Fail => Err(RailError::unknown("scripted failure of the list")),
            ListScript::Hang => std::future::pending().await,
        }
    }

    fn settlements(&self) -> Option<SettlementStream> {
        self.stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn proofs(&self) -> Option<&dyn CheckProof> {
        Some(&ScriptedProofs)
    }
}

/// What a payer of `reference` holds.
fn preimage_of(reference: &str) -> String {
    format!("preimage of {reference}")
}

/// Checks what [`ProcessorControl::proof_of`] hands out.
#[derive(Debug)]
struct ScriptedProofs;

impl CheckProof for ScriptedProofs {
    fn method(&self) -> (&str, &str) {
        ("scripted", "charge")
    }

    fn terms(&self, request: &PaymentRequest) -> Option<ProofTerms> {
        let fields = [
            ("amount", request.amount.value().to_string()),
            ("currency", request.amount.unit().to_string()),
            ("invoice", request.pay_req.as_str().to_owned()),
        ];
        let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text)));
        Some(ProofTerms::charge("scripted", Map::from_iter(fields)))
    }

    fn check(&self, request: &PaymentRequest, proof: &PresentedProof) -> Proven {
        match proof.reveal("preimage") {
            None => Proven::Malformed,
            Some(given) if given == preimage_of(&request.reference) => Proven::Paid(
                Settlement::new(request.amount.clone(), request.reference.clone()),
            ),
            Some(_) => Proven::NotPaid,
        }
    }
}
