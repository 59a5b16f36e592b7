//! Requests that a handler is working on, under labels that cannot clash.
//!
//! Clients number their requests and progress tokens 0, 1, 2, …, all alike. A handler that serves several of them through
//! one stream must not see two requests with one id, and its progress must reach the one client that asked (D-22). So ids
//! and progress tokens are replaced on the way in and restored on the way out.

use std::collections::HashMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::ReplyTo;
use crate::error::{Error, Result};
use crate::wire::{
    Message, Notification, Request, RequestId, Response, meta_of, method, with_meta,
};

/// The requests that one handler has not answered yet.
#[derive(Debug)]
pub struct InFlight {
    next: i64,
    most: usize,
    by_label: HashMap<i64, Original>,
}

#[derive(Debug)]
struct Original {
    id: RequestId,
    reply_to: ReplyTo,
    progress_token: Option<Value>,
}

/// A message from the handler, as its client must see it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Relabelled {
    /// Where it goes.
    pub reply_to: ReplyTo,
    /// What it says, under the client's own id or progress token.
    pub message: Message,
}

impl InFlight {
    /// Room for `most` requests at a time.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            next: 0,
            most,
            by_label: HashMap::new(),
        }
    }

    /// How many requests are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_label.len()
    }

    /// Whether no request is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_label.is_empty()
    }

    /// Takes a request in; what is returned is for the handler.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) when there is no room; the request must then be answered.
    pub fn open(&mut self, request: Request, reply_to: ReplyTo) -> Result<Request> {
        if self.by_label.len() >= self.most {
            return Err(Error::closed("too many requests at once"));
        }
        let label = self.next;
        self.next += 1;
        let (params, progress_token) = replace_progress_token(request.params, label)?;
        self.by_label.insert(
            label,
            Original {
                id: request.id,
                reply_to,
                progress_token,
            },
        );
        Ok(Request {
            id: RequestId::Number(label),
            method: request.method,
            params,
        })
    }

    /// A response of the handler, for the client. `None`: it answers nothing that is open.
    pub fn answer(&mut self, response: Response) -> Option<Relabelled> {
        let RequestId::Number(label) = response.id else {
            return None;
        };
        let original = self.by_label.remove(&label)?;
        let response = Response {
            id: original.id,
            payload: response.payload,
        };
        Some(Relabelled {
            reply_to: original.reply_to,
            message: response.into(),
        })
    }

    /// A progress notification of the handler, for the client whose request it is about. `None`: it is about none.
    #[must_use]
    pub fn progress(&self, notification: &Notification) -> Option<Relabelled> {
        let mut params: Map<String, Value> =
            serde_json::from_str(notification.params.as_ref()?.get()).ok()?;
        let original = self.by_label.get(&params.get("progressToken")?.as_i64()?)?;
        params.insert("progressToken".to_owned(), original.progress_token.clone()?);
        let message = Notification::new(&notification.method, &params).ok()?;
        Some(Relabelled {
            reply_to: original.reply_to.clone(),
            message: message.into(),
        })
    }

    /// A client's `notifications/cancelled`, for the handler. Only the client that sent a request can cancel it. `None`:
    /// it names nothing that this client has open.
    #[must_use]
    pub fn cancel(
        &self,
        from: &crate::payment::ClientPubkey,
        notification: &Notification,
    ) -> Option<Notification> {
        let mut params: Map<String, Value> =
            serde_json::from_str(notification.params.as_ref()?.get()).ok()?;
        let id: RequestId = serde_json::from_value(params.get("requestId")?.clone()).ok()?;
        let (label, _) = self
            .by_label
            .iter()
            .find(|(_, open)| open.reply_to.client == *from && open.id == id)?;
        params.insert("requestId".to_owned(), (*label).into());
        Notification::new(method::CANCELLED, &params).ok()
    }

    /// Takes out everything that is open: the handler is gone, and each of these must be answered.
    pub fn drain(&mut self) -> Vec<(RequestId, ReplyTo)> {
        self.by_label
            .drain()
            .map(|(_, open)| (open.id, open.reply_to))
            .collect()
    }
}

/// Puts `label` in the place of `params._meta.progressToken`, if there is one.
fn replace_progress_token(
    params: Option<Box<RawValue>>,
    label: i64,
) -> Result<(Option<Box<RawValue>>, Option<Value>)> {
    // Params without a token pass untouched, byte for byte.
    let Some(mut meta) = meta_of(params.as_deref()) else {
        return Ok((params, None));
    };
    let Some(token) = meta.get_mut("progressToken") else {
        return Ok((params, None));
    };
    let original = std::mem::replace(token, label.into());
    Ok((with_meta(params, &meta)?, Some(original)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{ClientPubkey, RequestEventId};
    use crate::wire::raw;

    fn reply_to(n: u8) -> ReplyTo {
        ReplyTo::new(
            ClientPubkey::from_bytes([n; 32]),
            RequestEventId::from_bytes([n; 32]),
            "",
        )
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the calls")]
    fn call(id: i64, token: Value) -> Request {
        Request::new(
            id,
            "tools/call",
            &serde_json::json!({"name": "slow", "_meta": {"progressToken": token}}),
        )
        .unwrap()
    }

    #[test]
    fn equal_ids_and_tokens_of_two_clients_do_not_cross() {
        let mut open = InFlight::new(10);
        let first = open.open(call(1, 1.into()), reply_to(1)).unwrap();
        let second = open.open(call(1, "1".into()), reply_to(2)).unwrap();
        assert_ne!(first.id, second.id);

        let label = |request: &Request| match request.id {
            RequestId::Number(label) => label,
            RequestId::Text(_) => unreachable!(),
        };
        let progress = Notification::new(
            method::PROGRESS,
            &serde_json::json!({"progressToken": label(&second), "progress": 1}),
        )
        .unwrap();
        let relabelled = open.progress(&progress).unwrap();
        assert_eq!(relabelled.reply_to, reply_to(2));
        assert!(
            relabelled
                .message
                .to_json()
                .contains(r#""progressToken":"1""#)
        );

        let response = Response {
            id: first.id,
            payload: crate::wire::Payload::Result(raw(&1).unwrap()),
        };
        let relabelled = open.answer(response.clone()).unwrap();
        assert_eq!(relabelled.reply_to, reply_to(1));
        assert!(relabelled.message.to_json().contains(r#""id":1,"#));
        assert!(
            open.answer(response).is_none(),
            "one request has one answer"
        );
    }

    /// CEP-41: a handler may stream in its progress.
    #[test]
    fn what_else_progress_says_passes_unharmed() {
        let mut open = InFlight::new(10);
        let request = open.open(call(1, "t".into()), reply_to(1)).unwrap();
        let RequestId::Number(label) = request.id else {
            unreachable!()
        };
        let frame = serde_json::json!({"type": "open-stream", "frameType": "chunk", "data": "x", "chunkIndex": 0});
        let params =
            serde_json::json!({"progressToken": label, "progress": 1, "cvm": frame, "new": [1]});
        let progress = Notification::new(method::PROGRESS, &params).unwrap();
        let Message::Notification(passed) = open.progress(&progress).unwrap().message else {
            unreachable!()
        };
        let passed: Value = serde_json::from_str(passed.params.unwrap().get()).unwrap();
        assert_eq!(
            passed,
            serde_json::json!({"progressToken": "t", "progress": 1, "cvm": frame, "new": [1]})
        );
    }

    #[test]
    fn only_the_owner_can_cancel() {
        let mut open = InFlight::new(10);
        let request = open.open(call(7, 0.into()), reply_to(1)).unwrap();
        let cancelled =
            Notification::new(method::CANCELLED, &serde_json::json!({"requestId": 7})).unwrap();
        assert!(open.cancel(&reply_to(2).client, &cancelled).is_none());
        let translated = open.cancel(&reply_to(1).client, &cancelled).unwrap();
        let id = serde_json::to_string(&request.id).unwrap();
        assert!(
            translated
                .params
                .unwrap()
                .get()
                .contains(&format!("\"requestId\":{id}"))
        );
    }

    #[test]
    fn params_without_a_token_pass_byte_for_byte() {
        let text = r#"{"name":"a","arguments":{"x":1.0,"y":9007199254740993}}"#;
        let request = Request {
            id: 1.into(),
            method: "tools/call".into(),
            params: Some(RawValue::from_string(text.into()).unwrap()),
        };
        let mut open = InFlight::new(1);
        assert_eq!(
            open.open(request.clone(), reply_to(1))
                .unwrap()
                .params
                .unwrap()
                .get(),
            text
        );
        assert!(
            open.open(request, reply_to(1)).is_err(),
            "there is room for one"
        );
    }
}
