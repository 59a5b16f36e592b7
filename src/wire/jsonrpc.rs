//! JSON-RPC 2.0 messages, kept lossless: `params`, `result` and `error` stay the text that arrived.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::mpp::lift_credential;
use super::{ErrorObject, RequestId};
use crate::error::{Error, Result};

/// How deep a message may be nested. Deeper ones are refused before anything walks them.
pub const MAX_DEPTH: usize = 100;

/// One JSON-RPC message.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_enums,
    reason = "JSON-RPC 2.0 has exactly these three"
)]
pub enum Message {
    /// Asks for an answer.
    Request(Request),
    /// Asks for none.
    Notification(Notification),
    /// Is one.
    Response(Response),
}

/// A request: a method, its params as they came, and the id to answer under.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "JSON-RPC 2.0 fixes the fields")]
pub struct Request {
    /// The id that the answer must carry.
    pub id: RequestId,
    /// The method, for example `tools/call`.
    pub method: String,
    /// The params, as text.
    pub params: Option<Box<RawValue>>,
}

/// A notification: a method without an id.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "JSON-RPC 2.0 fixes the fields")]
pub struct Notification {
    /// The method, for example `notifications/progress`.
    pub method: String,
    /// The params, as text.
    pub params: Option<Box<RawValue>>,
}

/// A response to one request.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "JSON-RPC 2.0 fixes the fields")]
pub struct Response {
    /// The id of the request.
    pub id: RequestId,
    /// What came of it.
    pub payload: Payload,
}

/// The body of a response, as text.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_enums,
    reason = "JSON-RPC 2.0 has exactly these two"
)]
pub enum Payload {
    /// `result`.
    Result(Box<RawValue>),
    /// `error`; read it with [`Response::error`].
    Error(Box<RawValue>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    id: Option<RequestId>,
    #[serde(default, borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present")]
    params: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "present")]
    error: Option<Box<RawValue>>,
    /// Beside the params, where MPP allows a credential.
    #[serde(default, rename = "_meta", deserialize_with = "present")]
    meta: Option<Box<RawValue>>,
}

/// Reads a field that is present, so that `"id":null` is an error rather than an absent id.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[derive(Serialize)]
struct Wire<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
}

impl Message {
    /// Reads exactly one message.
    ///
    /// Keeps everything inside `params`, `result` and `error` byte for byte, and the JSON type of the id. A `_meta` beside the
    /// params may hold a credential of MPP, which is moved into `params._meta`; whatever else it holds is passed over.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Wire`](crate::ErrorKind::Wire) for text that is not JSON, a batch, an `id` that is `null`, not a
    /// string and not an integer, unknown or repeated top-level keys, `params` that are neither an object nor an array,
    /// a version other than 2.0, or nesting beyond [`MAX_DEPTH`].
    pub fn parse(text: &str) -> Result<Self> {
        check_depth(text)?;
        let envelope: Envelope<'_> = serde_json::from_str(text)
            .map_err(|source| Error::wire("not a JSON-RPC message").with_source(source))?;
        if envelope.jsonrpc != "2.0" {
            return Err(Error::wire("jsonrpc must be \"2.0\""));
        }
        if let Some(params) = &envelope.params
            && !params.get().starts_with(['{', '['])
        {
            return Err(Error::wire("params must be an object or an array"));
        }
        let Envelope {
            id,
            method,
            params,
            result,
            error,
            meta,
            ..
        } = envelope;
        if meta.is_some() && method.is_none() {
            return Err(Error::wire("_meta belongs inside the result"));
        }
        match (id, method, result, error) {
            (Some(id), Some(method), None, None) => Ok(Self::Request(Request {
                id,
                method: method.into_owned(),
                params: lift_credential(params, meta.as_deref()),
            })),
            (None, Some(method), None, None) => Ok(Self::Notification(Notification {
                method: method.into_owned(),
                params,
            })),
            (Some(id), None, Some(result), None) if params.is_none() => {
                Ok(Self::Response(Response {
                    id,
                    payload: Payload::Result(result),
                }))
            }
            (Some(id), None, None, Some(error)) if params.is_none() => {
                Ok(Self::Response(Response {
                    id,
                    payload: Payload::Error(error),
                }))
            }
            _ => Err(Error::wire(
                "neither a request, a notification nor a response",
            )),
        }
    }

    /// The most bytes that [`to_json`](Self::to_json) can take, told without writing it.
    #[must_use]
    pub fn json_at_most(&self) -> usize {
        /// The names of the fields, the version, and a number as id.
        const FRAME: usize = 128;
        /// What a byte of text can take in JSON.
        const ESCAPED: usize = 6;
        let id = |id: &RequestId| match id {
            RequestId::Number(_) => 0,
            RequestId::Text(text) => ESCAPED * text.len(),
        };
        let raw = |raw: &Option<Box<RawValue>>| raw.as_ref().map_or(0, |raw| raw.get().len());
        FRAME
            + match self {
                Self::Request(request) => {
                    id(&request.id) + ESCAPED * request.method.len() + raw(&request.params)
                }
                Self::Notification(notification) => {
                    ESCAPED * notification.method.len() + raw(&notification.params)
                }
                Self::Response(response) => {
                    let (Payload::Result(body) | Payload::Error(body)) = &response.payload;
                    id(&response.id) + body.get().len()
                }
            }
    }

    /// The message as JSON text, always with `"jsonrpc":"2.0"`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut wire = Wire {
            jsonrpc: "2.0",
            id: None,
            method: None,
            params: None,
            result: None,
            error: None,
        };
        match self {
            Self::Request(request) => {
                wire.id = Some(&request.id);
                wire.method = Some(&request.method);
                wire.params = request.params.as_deref();
            }
            Self::Notification(notification) => {
                wire.method = Some(&notification.method);
                wire.params = notification.params.as_deref();
            }
            Self::Response(response) => {
                wire.id = Some(&response.id);
                match &response.payload {
                    Payload::Result(result) => wire.result = Some(result),
                    Payload::Error(error) => wire.error = Some(error),
                }
            }
        }
        // Strings, integers and raw JSON text cannot fail to serialise.
        serde_json::to_string(&wire).unwrap_or_default()
    }
}

impl Request {
    /// A request with `params` from anything that serialises.
    ///
    /// # Errors
    ///
    /// When `params` cannot be written as JSON.
    pub fn new(id: impl Into<RequestId>, method: &str, params: &impl Serialize) -> Result<Self> {
        Ok(Self {
            id: id.into(),
            method: method.to_owned(),
            params: Some(raw(params)?),
        })
    }
}

impl Notification {
    /// A notification with `params` from anything that serialises.
    ///
    /// # Errors
    ///
    /// When `params` cannot be written as JSON.
    pub fn new(method: &str, params: &impl Serialize) -> Result<Self> {
        Ok(Self {
            method: method.to_owned(),
            params: Some(raw(params)?),
        })
    }
}

impl Response {
    /// A response that carries `error`.
    #[must_use]
    pub fn from_error(id: RequestId, error: &ErrorObject) -> Self {
        let body = to_raw_value(error).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            id,
            payload: Payload::Error(body),
        }
    }

    /// The error, if this response is one that can be read.
    #[must_use]
    pub fn error(&self) -> Option<ErrorObject> {
        match &self.payload {
            Payload::Result(_) => None,
            Payload::Error(error) => serde_json::from_str(error.get()).ok(),
        }
    }

    /// The result, if this response is one.
    #[must_use]
    pub fn result(&self) -> Option<&RawValue> {
        match &self.payload {
            Payload::Result(result) => Some(result),
            Payload::Error(_) => None,
        }
    }
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Notification> for Message {
    fn from(notification: Notification) -> Self {
        Self::Notification(notification)
    }
}

impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// Writes `value` as raw JSON text.
///
/// # Errors
///
/// When `value` cannot be written as JSON.
pub fn raw(value: &impl Serialize) -> Result<Box<RawValue>> {
    to_raw_value(value)
        .map_err(|source| Error::wire("cannot be written as JSON").with_source(source))
}

/// Counts brackets outside strings, without recursion, so that a bomb is found before any parser meets it.
fn check_depth(text: &str) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Error::wire("nested too deep"));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_is_longer_than_was_told() {
        let nasty = "\u{0}\u{1f}\"\\é😀".repeat(50);
        let messages: [Message; 4] = [
            Request::new(nasty.as_str(), &nasty, &nasty).unwrap().into(),
            Request::new(i64::MIN, "", &()).unwrap().into(),
            Notification::new(&nasty, &nasty).unwrap().into(),
            Response {
                id: nasty.as_str().into(),
                payload: Payload::Result(raw(&nasty).unwrap()),
            }
            .into(),
        ];
        for message in messages {
            assert!(message.to_json().len() <= message.json_at_most());
        }
    }

    #[test]
    fn messages_come_back_byte_for_byte() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"b":1.0,"a":9007199254740993,"x":{"unknown":[]}}}"#,
            r#"{"jsonrpc":"2.0","id":"1","method":"ping"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"7"}}"#,
            r#"{"jsonrpc":"2.0","id":0,"result":{"content":[],"extra":1}}"#,
            r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"no","extra":true}}"#,
        ] {
            assert_eq!(Message::parse(text).unwrap().to_json(), text);
        }
    }

    #[test]
    fn what_is_not_one_message_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","cap":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}} x"#,
        ] {
            assert!(Message::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_depth_bomb_is_refused_without_a_stack() {
        let bomb = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{}{}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        assert!(Message::parse(&bomb).is_err());
        let brackets_in_text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":"\"{}"}}}}"#,
            "[".repeat(10_000)
        );
        assert!(Message::parse(&brackets_in_text).is_ok());
    }
}
