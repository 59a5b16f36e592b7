//! Shared payment tokens as a way of paying by challenge: the method `stripe` of MPP, beside whatever the server offers by CEP-8.

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::granted_token::{GrantedToken, TokenCharge, TokenCharger};
use super::money::currency_of;
use crate::error::{Error, Result};
use crate::payment::{
    Amount, ChargeMandate, Charged, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi,
    PresentedProof, ProofTerms, RailError, STRIPE_SPT_DIRECT, SettlementStatus, Unit,
};
use std::time::Duration;

const METHOD: &str = "stripe";
const INTENT: &str = "charge";

/// What stands for this way of paying in the books.
const STRIPE_SHARED_TOKEN: &str = "stripe-shared-token";

/// Where a mandate has the token.
const TOKEN: &str = "spt";

/// What a payer may pay with unless it is said otherwise.
const PAYMENT_METHOD_TYPES: [&str; 2] = ["card", "link"];

/// How a profile of Stripe begins.
const PROFILE: &str = "profile_";

/// Takes payments by shared payment tokens.
pub struct SharedTokenProcessor {
    pmi: Pmi,
    direct: Pmi,
    charger: TokenCharger,
    profile: String,
    types: Vec<String>,
}

impl SharedTokenProcessor {
    /// Takes payments to the account of `charger`, under its Stripe profile, which payers grant their tokens to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what cannot be a profile.
    pub fn new(charger: TokenCharger, profile: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if profile.is_empty() || profile.len() > 255 || !profile.bytes().all(plain) {
            return Err(Error::config(
                "the Stripe profile must look like profile_…: it is what payers grant their tokens to",
            ));
        }
        if !profile.starts_with(PROFILE) {
            tracing::warn!(
                "the Stripe profile does not begin with profile_: payers may not be able to grant tokens to it"
            );
        }
        Ok(Self {
            pmi: STRIPE_SHARED_TOKEN.parse()?,
            direct: STRIPE_SPT_DIRECT.parse()?,
            charger,
            profile: profile.to_owned(),
            types: PAYMENT_METHOD_TYPES.map(str::to_owned).to_vec(),
        })
    }

    /// Lets payers pay with these.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for none.
    pub fn payment_method_types(mut self, types: Vec<String>) -> Result<Self> {
        if types.is_empty() {
            return Err(Error::config("at least one payment method type is needed"));
        }
        self.types = types;
        Ok(self)
    }
}

impl fmt::Debug for SharedTokenProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTokenProcessor")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PaymentProcessor for SharedTokenProcessor {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, _unit: &Unit) -> bool {
        // Nobody can be sent anything to pay.
        false
    }

    async fn create_payment_required(
        &self,
        _order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        Err(RailError::refused(
            "a shared payment token is presented, not asked for",
        ))
    }

    /// Stripe's search runs behind, so what it does not find may still be there.
    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        let order = PaymentOrder::new(
            request.reference.clone(),
            request.amount.clone(),
            String::new(),
            Duration::ZERO,
        );
        let found = self.charger.find_charge(&order).await?;
        Ok(found.map_or(SettlementStatus::Pending, TokenCharge::into_status))
    }

    fn mandates(&self) -> Option<&dyn ChargeMandate> {
        Some(self)
    }
}

#[async_trait]
impl ChargeMandate for SharedTokenProcessor {
    fn method(&self) -> (&str, &str) {
        (METHOD, INTENT)
    }

    fn terms(&self, amount: &Amount) -> Option<ProofTerms> {
        if !self.charger.can_charge(amount) {
            return None;
        }
        let currency = currency_of(amount.unit())?;
        let details =
            json!({ "networkId": self.profile, "paymentMethodTypes": self.types.as_slice() });
        let fields: Map<String, Value> = Map::from_iter([
            ("amount".to_owned(), amount.value().to_string().into()),
            ("currency".to_owned(), currency.into()),
            ("methodDetails".to_owned(), details),
        ]);
        Some(ProofTerms::charge(METHOD, fields))
    }

    fn is_mandate(&self, mandate: &PresentedProof) -> bool {
        token(mandate).is_some()
    }

    async fn charge(&self, order: &PaymentOrder, mandate: &PresentedProof) -> Charged {
        let Some(token) = token(mandate) else {
            return Charged::Unknown(RailError::invalid("this is no shared payment token"));
        };
        let facts = [("mpp_intent", INTENT), ("mpp_sdk", "tollkeeper")];
        match self
            .charger
            .charge_granted_token(order, &token, &facts)
            .await
        {
            TokenCharge::Succeeded { settlement } => Charged::Paid(settlement),
            TokenCharge::Processing { .. } => Charged::Pending,
            // An agent cannot act for its person; Stripe gives such a charge up by itself, and nothing was taken.
            TokenCharge::RequiresAction { .. } | TokenCharge::Failed { .. } => Charged::Refused,
            TokenCharge::Unknown(error) => Charged::Unknown(error),
        }
    }

    fn direct(&self) -> Option<&Pmi> {
        Some(&self.direct)
    }

    fn read_direct(&self, payload: &str) -> Option<PresentedProof> {
        GrantedToken::parse(payload)?;
        let fields = [(TOKEN.to_owned(), payload.into())];
        Some(PresentedProof::new(Map::from_iter(fields)))
    }
}

fn token(mandate: &PresentedProof) -> Option<GrantedToken> {
    GrantedToken::parse(mandate.reveal(TOKEN)?)
}
