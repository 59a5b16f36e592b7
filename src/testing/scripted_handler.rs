//! A payment handler that does what the test says, and writes down what it was asked to pay.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::ProcessorControl;
use crate::payment::{PayOutcome, PaymentHandler, PaymentProof, PaymentRequest, Pmi, RailError};

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
    wallet: Option<ProcessorControl>,
}

impl ScriptedHandler {
    /// A handler for `pmi` that says it pays. With a `wallet`, what it pays settles there.
    #[must_use]
    pub fn new(pmi: Pmi, wallet: Option<ProcessorControl>) -> (Self, HandlerControl) {
        let control = HandlerControl {
            script: Arc::new(Mutex::new(HandlerScript::Pay)),
            asked: Arc::default(),
            wallet,
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
        }
    }
}
