//! Several ways to one server: relays, a pipe, HTTP. One gate stands behind all of them, with one ledger and one price list.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::{Advertisement, Inbound, Outbound, ReplyTo, ServerTransport};
use crate::error::{Error, Result};
use crate::payment::ClientPubkey;
use crate::wire::Message;

/// Server transports that are served as one.
///
/// An answer leaves where its request came in: the [`route`](ReplyTo::route) tells. So an answer that was written down finds its
/// way after a restart, if that way is still there.
#[derive(Debug)]
pub struct Joined {
    ways: Vec<Way>,
    /// Which of them are closed; also where the next look begins, so that a busy one does not starve the others.
    turn: Mutex<Turn>,
}

#[derive(Debug)]
struct Way {
    /// What routes of this transport begin with.
    prefix: &'static str,
    transport: Arc<dyn ServerTransport>,
}

#[derive(Debug)]
struct Turn {
    open: Vec<bool>,
    next: usize,
}

impl Joined {
    /// Joins transports, each with what its routes begin with. Of several that fit a route the longest beginning counts, so one of
    /// them may have the empty one.
    #[must_use]
    pub fn new(ways: Vec<(&'static str, Arc<dyn ServerTransport>)>) -> Arc<Self> {
        let open = vec![true; ways.len()];
        let ways = ways
            .into_iter()
            .map(|(prefix, transport)| Way { prefix, transport });
        Arc::new(Self {
            ways: ways.collect(),
            turn: Mutex::new(Turn { open, next: 0 }),
        })
    }

    fn way_of(&self, to: &ReplyTo) -> Option<&Arc<dyn ServerTransport>> {
        let fits = self
            .ways
            .iter()
            .filter(|way| to.route.starts_with(way.prefix));
        fits.max_by_key(|way| way.prefix.len())
            .map(|way| &way.transport)
    }
}

#[async_trait]
impl ServerTransport for Joined {
    async fn recv(&self) -> Option<Inbound> {
        let mut turn = self.turn.lock().await;
        loop {
            let Turn { open, next } = &mut *turn;
            let count = self.ways.len();
            let mut waiting: Vec<_> = (0..count)
                .map(|at| (*next + at) % count)
                .filter(|at| open[*at])
                .map(|at| (at, self.ways[at].transport.recv()))
                .collect();
            if waiting.is_empty() {
                return None;
            }
            let first = pin!(std::future::poll_fn(|cx| {
                for (at, recv) in &mut waiting {
                    if let Poll::Ready(inbound) = recv.as_mut().poll(cx) {
                        return Poll::Ready((*at, inbound));
                    }
                }
                Poll::Pending
            }));
            let (at, inbound) = first.await;
            *next = (at + 1) % count;
            match inbound {
                Some(inbound) => return Some(inbound),
                None => open[at] = false,
            }
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        match self.way_of(to) {
            Some(transport) => transport.send(to, outbound).await,
            None => Err(Error::transport(
                "the way that this request came in is not served any more",
            )),
        }
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        let mut outcome = Ok(());
        for way in &self.ways {
            let sent = way.transport.notify(client, message.clone()).await;
            outcome = outcome.and(sent);
        }
        outcome
    }

    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        // What cannot be sent at all is no reason to think that the message is too large.
        self.way_of(to)
            .is_none_or(|transport| transport.can_carry(to, outbound))
    }

    fn advertise(&self, payments: Advertisement) {
        for way in &self.ways {
            way.transport.advertise(payments.clone());
        }
    }

    async fn close(&self) {
        for way in &self.ways {
            way.transport.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::transport::{ClientTransport, Introduction, memory};
    use crate::wire::{Payload, Request, Response, raw};

    #[tokio::test]
    async fn answers_leave_where_their_requests_came_in() {
        let (one, two) = (memory::server(), memory::server());
        let [to_one, to_two] = [(&one, 1), (&two, 2)]
            .map(|(server, key)| server.client(ClientPubkey::from_bytes([key; 32])));
        let joined = Joined::new(vec![("", one as _), ("two:", two as _)]);
        for client in [&to_two, &to_one, &to_two] {
            let ping = Request::new(1, "ping", &json!({})).unwrap();
            let prepared = client
                .prepare(&ping.into(), &Introduction::default())
                .await
                .unwrap();
            client.publish(&prepared).await.unwrap();
        }
        let mut came = Vec::new();
        for _ in 0..3 {
            came.push(joined.recv().await.unwrap().origin.event);
        }
        // Taken in turns: neither waits for the other to be empty.
        assert_ne!(came[0], came[1]);
        let answer = Response {
            id: 1.into(),
            payload: Payload::Result(raw(&json!({})).unwrap()),
        };
        let to = ReplyTo::new(ClientPubkey::from_bytes([2; 32]), came[0], "two:x");
        joined
            .send(&to, Outbound::new(answer.clone()))
            .await
            .unwrap();
        assert_eq!(to_two.recv().await.unwrap().in_reply_to, Some(came[0]));
        let to = ReplyTo::new(ClientPubkey::from_bytes([1; 32]), came[1], "");
        joined.send(&to, Outbound::new(answer)).await.unwrap();
        assert_eq!(to_one.recv().await.unwrap().in_reply_to, Some(came[1]));
    }

    #[tokio::test]
    async fn it_ends_when_all_have_ended() {
        let (one, _to_one) = memory::pair();
        let (two, to_two) = memory::pair();
        let joined = Joined::new(vec![("one:", Arc::clone(&one) as _), ("", two as _)]);
        one.close().await;
        let ping = Request::new(1, "ping", &json!({})).unwrap();
        let prepared = to_two
            .prepare(&ping.into(), &Introduction::default())
            .await
            .unwrap();
        to_two.publish(&prepared).await.unwrap();
        assert!(joined.recv().await.is_some());
        joined.close().await;
        assert!(joined.recv().await.is_none());
    }
}
