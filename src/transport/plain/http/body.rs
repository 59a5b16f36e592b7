//! What answers are made of: JSON at once, or a stream of events.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};

/// How often a stream without events shows that it is alive, which is also how a client that hung up is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Something that is done when an answer is over, or its client hangs up.
pub(super) type AtTheEnd = Box<dyn Send + Sync>;

/// A message on its way to a client.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) json: String,
    /// Nothing comes behind it.
    pub(super) last: bool,
}

/// The body of an answer.
pub(super) enum Answer {
    /// All of it, until it is taken.
    Whole(Option<Bytes>),
    /// Events as they come.
    Events(Box<Events>),
}

pub(super) struct Events {
    first: Option<Event>,
    coming: mpsc::Receiver<Event>,
    over: bool,
    silence: Pin<Box<Sleep>>,
    _at_the_end: AtTheEnd,
}

impl Answer {
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(Some(text.into()))
    }

    /// A stream that begins with `first`.
    pub(super) fn events(
        first: Option<Event>,
        coming: mpsc::Receiver<Event>,
        at_the_end: AtTheEnd,
    ) -> Self {
        Self::Events(Box::new(Events {
            first,
            coming,
            over: false,
            silence: Box::pin(sleep(SIGN_OF_LIFE)),
            _at_the_end: at_the_end,
        }))
    }
}

impl Events {
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        let event = match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.coming.poll_recv(cx),
        };
        let said = match event {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(event)) => {
                self.over = event.last;
                // `json` is one line.
                Bytes::from(format!("event: message\ndata: {}\n\n", event.json))
            }
            Poll::Pending => match self.silence.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => Bytes::from_static(b": still here\n\n"),
            },
        };
        self.silence.as_mut().reset(Instant::now() + SIGN_OF_LIFE);
        Poll::Ready(Some(said))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Events(events) => events.next(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Events(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Events(events) => events.over,
        }
    }
}
