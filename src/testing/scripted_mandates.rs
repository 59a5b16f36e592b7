//! A rail that charges mandates as the test says, once for each order, and writes down what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::payment::{
    Amount, ChargeMandate, Charged, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi,
    PresentedProof, ProofTerms, RailError, Settlement, SettlementStatus, Unit,
};

/// What becomes of the next charge of an order that was not decided yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MandateScript {
    /// It is made.
    Pay,
    /// It is taken on, and decided when the script changes.
    Pending,
    /// It is refused.
    Refuse,
    /// Nothing is done, and nobody knows.
    LoseBefore,
    /// It is made, and nobody knows.
    LoseAfter,
    /// Nobody answers.
    Hang,
}

#[derive(Debug)]
struct State {
    script: MandateScript,
    /// What is decided, by order: paid or refused.
    decided: HashMap<String, bool>,
    asked: Vec<String>,
}

/// See [`MandateScript`].
#[derive(Debug)]
pub struct ScriptedMandates {
    pmi: Pmi,
    direct: Option<Pmi>,
    state: Arc<Mutex<State>>,
}

/// The test's hand on [`ScriptedMandates`]. It outlives the processes that use it.
#[derive(Debug, Clone)]
pub struct MandateControl {
    state: Arc<Mutex<State>>,
}

impl MandateControl {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of charges from now on.
    pub fn set(&self, script: MandateScript) {
        self.state().script = script;
    }

    /// How many charges were made.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.state().decided.values().filter(|paid| **paid).count()
    }

    /// How often a charge was asked for.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.state().asked.len()
    }
}

impl ScriptedMandates {
    /// Charges everything in dollar cents.
    ///
    /// # Errors
    ///
    /// None that a test could cause.
    pub fn new() -> Result<(Self, MandateControl)> {
        let state = State {
            script: MandateScript::Pay,
            decided: HashMap::new(),
            asked: Vec::new(),
        };
        let control = MandateControl {
            state: Arc::new(Mutex::new(state)),
        };
        Ok((Self::on(&control)?, control))
    }

    /// Another one on the same account, as a restarted process would have.
    ///
    /// # Errors
    ///
    /// None that a test could cause.
    pub fn on(control: &MandateControl) -> Result<Self> {
        Ok(Self {
            pmi: "scripted-mandate".parse()?,
            direct: None,
            state: Arc::clone(&control.state),
        })
    }

    /// Takes tokens (`spt_…`) that come with the request, too, as this payment method.
    #[must_use]
    pub fn direct(mut self, pmi: Pmi) -> Self {
        self.direct = Some(pmi);
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settlement(order: &str, amount: &Amount) -> Settlement {
    Settlement::new(amount.clone(), format!("charge of {order}"))
}

#[async_trait]
impl PaymentProcessor for ScriptedMandates {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, _unit: &Unit) -> bool {
        false
    }

    async fn create_payment_required(
        &self,
        _order: &PaymentOrder,
    ) -> std::result::Result<PaymentRequest, RailError> {
        Err(RailError::refused("a mandate is presented, not asked for"))
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> std::result::Result<SettlementStatus, RailError> {
        Ok(match self.state().decided.get(&request.reference) {
            Some(true) => {
                SettlementStatus::Settled(settlement(&request.reference, &request.amount))
            }
            Some(false) => SettlementStatus::Failed,
            None => SettlementStatus::Pending,
        })
    }

    fn mandates(&self) -> Option<&dyn ChargeMandate> {
        Some(self)
    }
}

#[async_trait]
impl ChargeMandate for ScriptedMandates {
    fn method(&self) -> (&str, &str) {
        ("mandate", "charge")
    }

    fn terms(&self, amount: &Amount) -> Option<ProofTerms> {
        let fields = [
            ("amount", amount.value().to_string()),
            ("currency", "usd".to_owned()),
        ];
        let fields = fields.map(|(name, text)| (name.to_owned(), Value::from(text)));
        (*amount.unit() == Unit::USD_CENTS)
            .then(|| ProofTerms::charge("mandate", Map::from_iter(fields)))
    }

    fn is_mandate(&self, mandate: &PresentedProof) -> bool {
        mandate.reveal("token").is_some()
    }

    async fn charge(&self, order: &PaymentOrder, _mandate: &PresentedProof) -> Charged {
        let key = &order.idempotency_key;
        let (script, decided) = {
            let mut state = self.state();
            state.asked.push(key.clone());
            let script = state.script;
            let pays = matches!(script, MandateScript::Pay | MandateScript::LoseAfter);
            if !state.decided.contains_key(key) && (pays || script == MandateScript::Refuse) {
                state.decided.insert(key.clone(), pays);
            }
            (script, state.decided.get(key).copied())
        };
        match (script, decided) {
            (MandateScript::Hang, _) => std::future::pending().await,
            (MandateScript::LoseBefore | MandateScript::LoseAfter, _) => {
                Charged::Unknown(RailError::unknown("scripted loss of spt_secret"))
            }
            (_, Some(true)) => Charged::Paid(settlement(key, &order.amount)),
            (_, Some(false)) => Charged::Refused,
            (_, None) => Charged::Pending,
        }
    }

    fn direct(&self) -> Option<&Pmi> {
        self.direct.as_ref()
    }

    fn read_direct(&self, payload: &str) -> Option<PresentedProof> {
        let fields = [("token".to_owned(), Value::from(payload))];
        let token = payload.starts_with("spt_");
        token.then(|| PresentedProof::new(Map::from_iter(fields)))
    }
}
