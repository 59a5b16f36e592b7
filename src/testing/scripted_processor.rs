//! A payment processor that does what the test says, and writes down what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::payment::{
    Amount, Clock, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi, RailError,
    Settlement, SettlementNotice, SettlementStatus, SettlementStream, SystemClock, Unit,
};

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

/// One line of the log of a scripted processor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RailEvent {
    /// Was asked to make a payment request under this key.
    Minted(String),
    /// Was asked about this reference.
    LookedUp(String),
    /// Settled this reference.
    Settled(String),
}

#[derive(Debug)]
struct State {
    mint: MintScript,
    lookup: LookupScript,
    settle_at_once: bool,
    made: HashMap<String, PaymentRequest>,
    in_order: Vec<String>,
    settled: HashMap<String, Settlement>,
    log: Vec<RailEvent>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    pushes: mpsc::Sender<SettlementNotice>,
    minted: watch::Sender<usize>,
}

impl Shared {
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
    /// A processor for `pmi` that accepts sats, makes what is ordered, and settles nothing by itself.
    #[must_use]
    pub fn new(pmi: Pmi) -> (Self, ProcessorControl) {
        let (pushes, stream) = mpsc::channel(4096);
        let state = State {
            mint: MintScript::Honest,
            lookup: LookupScript::Honest,
            settle_at_once: false,
            made: HashMap::new(),
            in_order: Vec::new(),
            settled: HashMap::new(),
            log: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            pushes,
            minted: watch::Sender::new(0),
        });
        let control = ProcessorControl {
            shared: Arc::clone(&shared),
        };
        let units = vec![Unit::SATS];
        (
            Self {
                pmi,
                units,
                shared,
                stream: Mutex::new(Some(stream)),
            },
            control,
        )
    }

    /// Accepts these units.
    #[must_use]
    pub fn with_units(mut self, units: Vec<Unit>) -> Self {
        self.units = units;
        self
    }

    /// Another processor on the same wallet, as a restarted process would have.
    #[must_use]
    pub fn restarted(control: &ProcessorControl, pmi: Pmi) -> (Self, ProcessorControl) {
        let (pushes, stream) = mpsc::channel(4096);
        let state = {
            let old = control.shared.state();
            State {
                mint: old.mint.clone(),
                lookup: old.lookup,
                settle_at_once: old.settle_at_once,
                made: old.made.clone(),
                in_order: old.in_order.clone(),
                settled: old.settled.clone(),
                log: old.log.clone(),
            }
        };
        let minted = watch::Sender::new(state.in_order.len());
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            pushes,
            minted,
        });
        let control = ProcessorControl {
            shared: Arc::clone(&shared),
        };
        (
            Self {
                pmi,
                units: vec![Unit::SATS],
                shared,
                stream: Mutex::new(Some(stream)),
            },
            control,
        )
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
            let _ = self
                .shared
                .pushes
                .send(SettlementNotice::new(reference, Some(settlement)))
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
        let _ = self
            .shared
            .pushes
            .send(SettlementNotice::new(reference, Some(settlement)))
            .await;
    }

    /// Pushes a notice as it is: repeated, early, or about nothing.
    pub async fn push(&self, notice: SettlementNotice) {
        let _ = self.shared.pushes.send(notice).await;
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
        let reference = format!("ref-{}", order.idempotency_key);
        let pay_req = PayReq::new(format!("scripted:{reference}"));
        let expires_at = SystemClock.now().plus(order.ttl);
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
                request.expires_at = Some(crate::payment::Timestamp::from_secs(1))
            }
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

    fn settlements(&self) -> Option<SettlementStream> {
        self.stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
