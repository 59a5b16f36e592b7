//! A person who answers what the test says, and remembers what was asked.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::client::{AskBuyer, PaymentQuestion};

/// See [`AskerControl`] for what it does.
#[derive(Debug)]
pub struct ScriptedAsker(AskerControl);

/// The test's hand on a [`ScriptedAsker`].
#[derive(Debug, Clone, Default)]
pub struct AskerControl {
    /// `None`: never answers.
    answer: Arc<Mutex<Option<bool>>>,
    asked: Arc<Mutex<Vec<PaymentQuestion>>>,
}

impl ScriptedAsker {
    /// Answers `answer`; never, if that is `None`.
    #[must_use]
    pub fn new(answer: Option<bool>) -> (Self, AskerControl) {
        let control = AskerControl {
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        (Self(control.clone()), control)
    }
}

impl AskerControl {
    /// Changes the answer.
    pub fn answer(&self, answer: Option<bool>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// What was asked, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<PaymentQuestion> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[async_trait]
impl AskBuyer for ScriptedAsker {
    async fn ask(&self, question: &PaymentQuestion) -> bool {
        self.0
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(question.clone());
        let answer = *self.0.answer.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}
