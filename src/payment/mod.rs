//! The vocabulary of payments and the contracts that rails implement. Nothing here does I/O.
//!
//! Names are those of [CEP-8](https://docs.contextvm.org/spec/ceps/cep-8/) and of the existing SDKs, so that a
//! processor written for one of them ports by reading.

// Who and when.
mod clock;
mod peer;

// How much, of what.
mod amount;
mod pmi;
mod rate;
mod unit;

// What is sold.
mod capability;
mod invocation;
mod metering;
mod pattern;
mod resource_uri;

// What is asked, and what came in.
mod interaction;
mod request;
mod settlement;

// What users implement.
mod check_call;
mod entitlement;
mod handler;
mod mandate;
mod observer;
mod price;
mod processor;
mod proof;

pub use amount::{Amount, MAX_AMOUNT, PriceRange};
pub use capability::{Capability, OnFailure, PricedCapability};
pub use check_call::CheckCall;
pub use clock::{Clock, SystemClock, Timestamp};
pub use entitlement::{
    BearerToken, Cover, Delivery, Entitled, Entitlement, EntitlementClaim, Refusal, Sale,
    WhenUnknown,
};
pub use handler::{Examined, PayOutcome, PaymentHandler, PaymentProof};
pub use interaction::{PaymentInteraction, PaymentInteractionPolicy};
pub use invocation::{Invocation, InvocationIdentity};
pub use mandate::{ChargeMandate, Charged};
pub use metering::{MeterUnit, Metering, PriceModel, RESERVED_META, portion};
pub use observer::{ObservedPayment, PaymentHappening, PaymentObserver};
pub use pattern::CapabilityPattern;
pub use peer::{ClientPubkey, RequestEventId, ServerPubkey};
pub use pmi::{BITCOIN_LIGHTNING_BOLT11, FAKE, Pmi, STRIPE_CHECKOUT_URL, STRIPE_SPT_DIRECT};
pub use price::{PriceDecision, Quote, ResolvePrice, StaticPrice};
pub use processor::{PaymentProcessor, RailError, RailErrorKind, SettlementStream};
pub use proof::{CheckProof, PresentedProof, ProofTerms, Proven};
pub use rate::{FixedRates, Margin, Rate, RateSource};
pub use request::{PayReq, PaymentOrder, PaymentRequest};
pub use resource_uri::{has_unclear_host, spellings};
pub use settlement::{Settlement, SettlementNotice, SettlementStatus};
pub use unit::Unit;
