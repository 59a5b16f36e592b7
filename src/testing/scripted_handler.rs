//! A payment handler that does what the test says, and writes down what it was asked to pay.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::ProcessorControl;
use crate::payment::{
    Amount, Examined, PayOutcome, PaymentHandler, PaymentProof, PaymentRequest, Pmi, RailError,
    Timestamp, Unit,
};

/// What [`handle`](PaymentHandler::handle) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerScript {
    /// Pays.
    Pay,
    /// Says no.
    Refuse,
    /// Pays, and loses the answer.
    PayAndLoseTheAnswer,
    /// Loses the answer without having paid.
    LoseTheAnswer,
    /// Fails clearly.
    Fail,
    /// Never answers.
    Hang,
    /// Would not handle the request at all.
    CannotHandle,
    /// Breaks down in the middle.
    Panic,
}

/// What [`lookup_payment`](PaymentHandler::lookup_payment) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LookUpScript {
    /// Nobody knows.
    #[default]
    Unknown,
    /// It was paid.
    Paid,
    /// It was paid, and there is no proof.
    PaidWithoutProof,
    /// It was not, and never will be.
    Refused,
    /// No usable answer.
    Fail,
    /// Never answers.
    Hang,
}

/// See [`HandlerControl`] for what it does.
#[derive(Debug)]
pub struct ScriptedHandler {
    pmi: Pmi,
    control: HandlerControl,
}

/// The test's hand on a [`ScriptedHandler`].
#[derive(Debug, Clone)]
pub struct HandlerControl {
    script: Arc<Mutex<HandlerScript>>,
    asked: Arc<Mutex<Vec<PaymentRequest>>>,
    look_up: Arc<Mutex<LookUpScript>>,
    looked_up: Arc<Mutex<Vec<PaymentRequest>>>,
    wallet: Option<ProcessorControl>,
    name: Arc<Mutex<Option<String>>>,
}

impl ScriptedHandler {
    /// A handler for `pmi` that says it pays. With a `wallet`, what it pays settles there.
    #[must_use]
    pub fn new(pmi: Pmi, wallet: Option<ProcessorControl>) -> (Self, HandlerControl) {
        let control = HandlerControl {
            script: Arc::new(Mutex::new(HandlerScript::Pay)),
            asked: Arc::default(),
            look_up: Arc::default(),
            looked_up: Arc::default(),
            wallet,
            name: Arc::default(),
        };
        (
            Self {
                pmi,
                control: control.clone(),
            },
            control,
        )
    }
}

impl HandlerControl {
    /// Changes what the handler does.
    pub fn script(&self, script: HandlerScript) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// What the handler was asked to pay, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<PaymentRequest> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says which wallet it is.
    pub fn name(&self, name: &str) {
        let mut own = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        *own = Some(name.to_owned());
    }

    /// Changes what the handler says of former payments.
    pub fn look_up(&self, script: LookUpScript) {
        *self.look_up.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Which former payments the handler was asked about, in order.
    #[must_use]
    pub fn looked_up(&self) -> Vec<PaymentRequest> {
        self.looked_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn pay(&self, request: &PaymentRequest) {
        if let Some(wallet) = &self.wallet {
            wallet
                .settle(request.pay_req.as_str().trim_start_matches("scripted:"))
                .await;
        }
    }
}

#[async_trait]
impl PaymentHandler for ScriptedHandler {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    /// One that begins with `asks:` is read; every other says nothing but which one it is.
    fn examine(&self, request: &PaymentRequest) -> Result<Examined, RailError> {
        let pay_req = request.pay_req.as_str();
        if !pay_req.starts_with("asks:") {
            return Ok(Examined::new(pay_req));
        }
        read(pay_req).ok_or_else(|| RailError::invalid("it cannot be read"))
    }

    async fn can_handle(&self, _request: &PaymentRequest) -> bool {
        *self
            .control
            .script
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            != HandlerScript::CannotHandle
    }

    async fn handle(
        &self,
        request: &PaymentRequest,
        _cancel: &CancellationToken,
    ) -> Result<PayOutcome, RailError> {
        self.control
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.clone());
        let script = *self
            .control
            .script
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match script {
            HandlerScript::Pay => {
                self.control.pay(request).await;
                Ok(PayOutcome::Paid(PaymentProof::new("scripted")))
            }
            HandlerScript::PayAndLoseTheAnswer => {
                self.control.pay(request).await;
                Ok(PayOutcome::Unknown)
            }
            HandlerScript::LoseTheAnswer => Err(RailError::unknown("no answer")),
            HandlerScript::Refuse | HandlerScript::CannotHandle => Ok(PayOutcome::Refused),
            HandlerScript::Fail => Err(RailError::refused("scripted failure")),
            HandlerScript::Hang => std::future::pending().await,
            HandlerScript::Panic => break_down(),
        }
    }

    fn wallet(&self) -> Option<String> {
        let name = self.control.name.lock();
        name.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn lookup_payment(&self, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
        self.control
            .looked_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.clone());
        let script = *self
            .control
            .look_up
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match script {
            LookUpScript::Unknown => Ok(PayOutcome::Unknown),
            LookUpScript::Paid => Ok(PayOutcome::Paid(PaymentProof::new("looked up"))),
            LookUpScript::PaidWithoutProof => Ok(PayOutcome::Paid(PaymentProof::default())),
            LookUpScript::Refused => Ok(PayOutcome::Refused),
            LookUpScript::Fail => Err(RailError::unknown("no answer")),
            LookUpScript::Hang => std::future::pending().await,
        }
    }
}

#[expect(clippy::panic, reason = "the test wants it to")]
fn break_down() -> Result<PayOutcome, RailError> {
    panic!("the scripted wallet breaks down")
}

/// `asks:AMOUNT:ID`, with `@MILLIS` behind it for one that expires then: what a payment request says by itself.
fn read(pay_req: &str) -> Option<Examined> {
    let (amount, id) = pay_req.strip_prefix("asks:")?.split_once(':')?;
    let (id, expires) = match id.split_once('@') {
        Some((id, at)) => (id, Some(Timestamp::from_millis(at.parse().ok()?))),
        None => (id, None),
    };
    let mut examined = Examined::new(id);
    examined.amount = Some(Amount::new(amount.parse().ok()?, Unit::SATS).ok()?);
    examined.expires_at = expires;
    Some(examined)
}
