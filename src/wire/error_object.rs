//! JSON-RPC error objects and the codes that CEP-8 gives a meaning.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// CEP-8 Payment Required. MPP and MCP use the same number for other things: dispatch on the shape of `data`.
pub const PAYMENT_REQUIRED_CODE: i64 = -32042;
/// CEP-8 Payment Pending: ask again later, do not pay again. (MPP's -32043 means the opposite.)
pub const PAYMENT_PENDING_CODE: i64 = -32043;
/// JSON-RPC Invalid params; CEP-8 uses it for an unsupported payment interaction too.
pub const INVALID_PARAMS_CODE: i64 = -32602;
/// JSON-RPC Invalid request.
pub const INVALID_REQUEST_CODE: i64 = -32600;
/// A server error: every terminal failure that has no code of its own.
pub const SERVER_ERROR_CODE: i64 = -32000;

/// The `error` of a response.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ErrorObject {
    /// The number that code dispatches on.
    pub code: i64,
    /// The sentence that people read.
    pub message: String,
    /// More, by code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl ErrorObject {
    /// An error without data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The same error with `data`; data that cannot be written is left out.
    #[must_use]
    pub fn with_data(mut self, data: &impl Serialize) -> Self {
        self.data = serde_json::value::to_raw_value(data).ok();
        self
    }
}
