//! How a client pays.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Budget, PaymentEvent};
use crate::error::{Error, Result};
use crate::payment::{Amount, BearerToken, PaymentHandler, PaymentInteraction};

/// Told about payments as they happen. Must not block.
pub(super) type Observer = Arc<dyn Fn(&PaymentEvent) + Send + Sync>;

/// How a client pays. Made by [`ClientPayments::builder`].
#[derive(Clone)]
pub struct ClientPayments {
    pub(super) handlers: Vec<Arc<dyn PaymentHandler>>,
    pub(super) budget: Budget,
    pub(super) interaction: Option<PaymentInteraction>,
    pub(super) licence: Option<BearerToken>,
    pub(super) observer: Observer,
    pub(super) longest_wait: Duration,
}

impl ClientPayments {
    /// Starts with no wallet and a budget of zero: nothing is ever paid unasked.
    pub fn builder() -> ClientPaymentsBuilder {
        ClientPaymentsBuilder {
            handlers: Vec::new(),
            total: None,
            per_call: None,
            interaction: None,
            licence: None,
            observer: Arc::new(|_| {}),
        }
    }

    /// The budget, shared with the client.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl fmt::Debug for ClientPayments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPayments")
            .field("handlers", &self.handlers)
            .field("budget", &self.budget)
            .field("interaction", &self.interaction)
            .finish_non_exhaustive()
    }
}

/// Builds [`ClientPayments`].
#[must_use]
pub struct ClientPaymentsBuilder {
    handlers: Vec<Arc<dyn PaymentHandler>>,
    total: Option<Amount>,
    per_call: Option<Amount>,
    interaction: Option<PaymentInteraction>,
    licence: Option<BearerToken>,
    observer: Observer,
}

impl ClientPaymentsBuilder {
    /// Adds a wallet, preferred less than those added before.
    pub fn handler(mut self, handler: impl PaymentHandler + 'static) -> Self {
        self.handlers.push(Arc::new(handler));
        self
    }

    /// Adds a wallet that is shared or boxed already.
    pub fn shared_handler(mut self, handler: Arc<dyn PaymentHandler>) -> Self {
        self.handlers.push(handler);
        self
    }

    /// The most that may be spent in all. Zero unless set.
    pub fn budget(mut self, total: Amount) -> Self {
        self.total = Some(total);
        self
    }

    /// The most that one call may cost; the whole budget unless set.
    pub fn per_call(mut self, most: Amount) -> Self {
        self.per_call = Some(most);
        self
    }

    /// Asks the server for this lifecycle. Unless set, the server's default applies, which is transparent.
    pub fn interaction(mut self, interaction: PaymentInteraction) -> Self {
        self.interaction = Some(interaction);
        self
    }

    /// Shows this licence with each request. A transport that others can read refuses to carry it.
    pub fn licence(mut self, licence: BearerToken) -> Self {
        self.licence = Some(licence);
        self
    }

    /// Is told about payments as they happen. Must not block.
    pub fn on_event(mut self, observer: impl Fn(&PaymentEvent) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Checks what can be checked beforehand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for two wallets of one payment method, and for a limit per call in
    /// another unit than the budget.
    pub fn build(self) -> Result<ClientPayments> {
        for (at, handler) in self.handlers.iter().enumerate() {
            if self.handlers[..at]
                .iter()
                .any(|before| before.pmi() == handler.pmi())
            {
                return Err(Error::config(format!(
                    "two wallets for the payment method {}",
                    handler.pmi()
                )));
            }
        }
        let budget = match (self.total, self.per_call) {
            (None, None) => Budget::none(),
            (None, Some(_)) => return Err(Error::config("a limit per call needs a budget")),
            (Some(total), per_call) => {
                let per_call = per_call.unwrap_or_else(|| total.clone());
                if per_call.unit() != total.unit() {
                    return Err(Error::config(
                        "the limit per call must be in the unit of the budget",
                    ));
                }
                Budget::new(total, per_call)
            }
        };
        Ok(ClientPayments {
            handlers: self.handlers,
            budget,
            interaction: self.interaction,
            licence: self.licence,
            observer: self.observer,
            longest_wait: Duration::from_secs(3600),
        })
    }
}

impl fmt::Debug for ClientPaymentsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPaymentsBuilder")
            .field("handlers", &self.handlers)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
