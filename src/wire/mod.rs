//! CEP-8 and JSON-RPC as JSON and tags. Only data and its text form: no I/O, no clock, no policy.

// Messages.
mod error_object;
mod jsonrpc;
mod meta;
mod oversized;
mod presented;
mod progress_token;
mod request_id;
mod strict;

// What MCP methods mean to a price.
pub mod method;

// Payments on the wire.
mod direct_payment;
mod gating;
mod identity;
mod notification;
mod tag;

// Payments in the words of another protocol, beside CEP-8.
pub mod mpp;

pub use direct_payment::DirectPayment;
pub use error_object::{
    ErrorObject, INVALID_PARAMS_CODE, INVALID_REQUEST_CODE, PAYMENT_PENDING_CODE,
    PAYMENT_REQUIRED_CODE, SERVER_ERROR_CODE,
};
pub use gating::{
    PaymentOption, PaymentPendingData, PaymentRequiredData, UnsupportedInteractionData,
};
pub use identity::invocation_identity;
pub use jsonrpc::{MAX_DEPTH, Message, Notification, Payload, Request, Response, raw};
pub use meta::{meta_of, with_meta};
pub use notification::{
    PAYMENT_ACCEPTED, PAYMENT_REJECTED, PAYMENT_REQUIRED, PaymentAcceptedParams,
    PaymentNotification, PaymentRejectedParams, PaymentRequiredParams,
};
pub use oversized::{FrameKind, OversizedFrame, oversized_digest};
pub use presented::{ENTITLEMENT_KEY, ENTITLEMENTS_KEY, USAGE_KEY, take_tokens};
pub use progress_token::ProgressToken;
pub use request_id::RequestId;
pub use strict::{StrictJson, parse_strict};
pub use tag::{CapTag, Tag};
