//! Answers to requests that nobody here waits for: of a former run, say, which was killed while the server worked.
//!
//! A server that says the same thing again within a second says it in the same event, which counts as an echo and is not
//! seen twice. So a few of the last such answers are kept, in case somebody asks for what they answer.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::payment::RequestEventId;
use crate::wire::Response;

/// How many are kept.
const MOST: usize = 16;

/// The last answers to nothing.
#[derive(Debug, Default)]
pub(super) struct Strays(Mutex<VecDeque<(RequestEventId, Response, String)>>);

impl Strays {
    /// Keeps an answer, in the place of the oldest if need be.
    pub(super) fn keep(&self, about: RequestEventId, response: Response, signed: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.pop_front();
        }
        kept.push_back((about, response, signed));
    }

    /// The answer to `event`, if one came.
    pub(super) fn take(&self, event: &RequestEventId) -> Option<(Response, String)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(about, _, _)| about == event)?;
        let (_, response, signed) = kept.remove(at)?;
        Some((response, signed))
    }
}
