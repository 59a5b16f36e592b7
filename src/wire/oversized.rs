//! The frames of CEP-22: a message that is too large for one event travels as `notifications/progress`, in pieces.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Notification, ProgressToken, method};
use crate::error::{Error, Result};

const TYPE: &str = "oversized-transfer";
const DIGEST_PREFIX: &str = "sha256:";

/// One frame, with its place in the transfer (N-117, N-118).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OversizedFrame {
    /// The progress token of the request that the transfer is, or answers.
    pub token: ProgressToken,
    /// Its place: strictly increasing.
    pub progress: u64,
    /// What it is.
    pub kind: FrameKind,
}

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "frameType", rename_all = "camelCase")]
#[expect(clippy::exhaustive_enums, reason = "CEP-22 has these five")]
pub enum FrameKind {
    /// The first.
    #[serde(rename_all = "camelCase")]
    Start {
        /// How the pieces become a message: `render`, which is all that there is.
        completion_mode: String,
        /// `sha256:` and the hex digest of the whole.
        digest: String,
        /// Bytes of the whole.
        total_bytes: u64,
        /// How many pieces follow.
        total_chunks: u64,
    },
    /// The other side is ready for more.
    Accept,
    /// A piece of the text.
    Chunk {
        /// The piece.
        data: String,
    },
    /// All was sent.
    End,
    /// Nothing more comes of it.
    Abort {
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    progress_token: ProgressToken,
    progress: u64,
    cvm: Value,
}

impl OversizedFrame {
    /// A frame.
    #[must_use]
    pub fn new(token: ProgressToken, progress: u64, kind: FrameKind) -> Self {
        Self {
            token,
            progress,
            kind,
        }
    }

    /// Reads a notification; `None` if it is no frame of CEP-22.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Wire`](crate::ErrorKind::Wire) if it is one that cannot be read.
    pub fn read(notification: &Notification) -> Result<Option<Self>> {
        let Some(params) = notification.params.as_ref().map(|params| params.get()) else {
            return Ok(None);
        };
        // Most progress is just progress: a search is cheaper than a parse.
        if notification.method != method::PROGRESS || !params.contains(TYPE) {
            return Ok(None);
        }
        let unreadable = || Error::wire("an oversized-transfer frame that cannot be read");
        let Ok(Value::Object(mut object)) = serde_json::from_str(params) else {
            return Ok(None);
        };
        if object.get("cvm").and_then(|cvm| cvm.get("type")) != Some(&TYPE.into()) {
            return Ok(None);
        }
        // Whatever else is said beside, such as `message` and `total`, is for people.
        object.retain(|key, _| matches!(key.as_str(), "progressToken" | "progress" | "cvm"));
        let params: Params = serde_json::from_value(Value::Object(object))
            .map_err(|source| unreadable().with_source(source))?;
        let kind = serde_json::from_value(params.cvm)
            .map_err(|source| unreadable().with_source(source))?;
        if !params.progress_token.is_short() {
            return Err(unreadable());
        }
        Ok(Some(Self::new(
            params.progress_token,
            params.progress,
            kind,
        )))
    }

    /// As a notification.
    ///
    /// # Errors
    ///
    /// When it cannot be written as JSON.
    pub fn to_notification(&self) -> Result<Notification> {
        let unwritable = |source| Error::wire("a frame cannot be written").with_source(source);
        let mut cvm = serde_json::to_value(&self.kind).map_err(unwritable)?;
        cvm["type"] = TYPE.into();
        Notification::new(
            method::PROGRESS,
            &Params {
                progress_token: self.token.clone(),
                progress: self.progress,
                cvm,
            },
        )
    }
}

/// The digest of a whole message, as a start frame carries it.
#[must_use]
pub fn oversized_digest(text: &str) -> String {
    let mut digest = DIGEST_PREFIX.to_owned();
    for byte in Sha256::digest(text) {
        digest.push_str(&format!("{byte:02x}"));
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    fn read(text: &str) -> Result<Option<OversizedFrame>> {
        let Message::Notification(notification) = Message::parse(text).unwrap() else {
            unreachable!()
        };
        OversizedFrame::read(&notification)
    }

    /// As the reference SDK 0.11.14 writes them.
    const START: &str = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"1","progress":1,"message":"starting oversized transfer","cvm":{"type":"oversized-transfer","frameType":"start","completionMode":"render","digest":"sha256:ab","totalBytes":9,"totalChunks":2}}}"#;
    const CHUNK: &str = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"1","progress":2,"cvm":{"type":"oversized-transfer","frameType":"chunk","data":"{\"é"}}}"#;
    const END: &str = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"1","progress":4,"message":"oversized transfer complete","cvm":{"type":"oversized-transfer","frameType":"end"}}}"#;

    #[test]
    fn the_frames_of_the_reference_sdk_are_read() {
        let start = read(START).unwrap().unwrap();
        assert_eq!((start.token.key().as_str(), start.progress), ("1", 1));
        assert_eq!(
            start.kind,
            FrameKind::Start {
                completion_mode: "render".into(),
                digest: "sha256:ab".into(),
                total_bytes: 9,
                total_chunks: 2
            }
        );
        let chunk = read(CHUNK).unwrap().unwrap();
        assert_eq!(
            chunk.kind,
            FrameKind::Chunk {
                data: "{\"é".into()
            }
        );
        assert_eq!(read(END).unwrap().unwrap().kind, FrameKind::End);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let kinds = [
            FrameKind::Accept,
            FrameKind::End,
            FrameKind::Abort { reason: None },
            FrameKind::Abort {
                reason: Some("x".into()),
            },
            FrameKind::Chunk { data: "\"".into() },
        ];
        for kind in kinds {
            let frame = OversizedFrame::new(ProgressToken::new("t"), 7, kind);
            let notification = frame.to_notification().unwrap();
            assert_eq!(OversizedFrame::read(&notification).unwrap(), Some(frame));
        }
    }

    #[test]
    fn other_progress_is_no_frame_and_a_broken_frame_is_an_error() {
        let progress = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#)
        };
        for params in [
            r#"{"progressToken":1,"progress":0.5}"#,
            r#"{"progressToken":1,"progress":1,"message":"oversized-transfer"}"#,
            r#"{"progressToken":1,"progress":1,"cvm":{"type":"open-stream","frameType":"start"},"message":"oversized-transfer"}"#,
        ] {
            assert_eq!(read(&progress(params)).unwrap(), None, "{params}");
        }
        for params in [
            r#"{"progress":1,"cvm":{"type":"oversized-transfer","frameType":"end"}}"#,
            r#"{"progressToken":1,"progress":-1,"cvm":{"type":"oversized-transfer","frameType":"end"}}"#,
            r#"{"progressToken":1,"progress":1,"cvm":{"type":"oversized-transfer","frameType":"new"}}"#,
            r#"{"progressToken":1,"progress":1,"cvm":{"type":"oversized-transfer","frameType":"start","completionMode":"render","digest":"sha256:ab","totalBytes":-9,"totalChunks":2}}"#,
        ] {
            assert!(read(&progress(params)).is_err(), "{params}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_text() {
        assert_eq!(
            oversized_digest("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
