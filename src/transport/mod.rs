//! How MCP messages travel: two small traits, and the implementations behind them.
//!
//! A transport verifies who sent a message and says so in [`Origin`]; everything above trusts that and nothing else. It
//! keeps no money: whatever it forgets, the ledger remembers.

mod in_flight;
mod joined;
#[cfg(any(feature = "gateway", feature = "plain"))]
mod lines;
pub mod memory;

#[cfg(feature = "nostr")]
pub mod nostr;
#[cfg(feature = "plain")]
pub mod plain;
#[cfg(feature = "rmcp")]
pub mod rmcp;

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::in_flight::{InFlight, Relabelled};
pub use self::joined::Joined;
#[cfg(feature = "gateway")]
pub(crate) use self::lines::BoundedLines;
use crate::error::Result;
use crate::payment::{
    BearerToken, ClientPubkey, PaymentInteraction, Pmi, RequestEventId, ServerPubkey, Timestamp,
};
use crate::wire::{CapTag, DirectPayment, Message, Tag};

/// The server's end: messages come in with their verified origin, replies go out to where a request came from.
#[async_trait]
pub trait ServerTransport: Debug + Send + Sync {
    /// The next message; `None` once the transport is closed. Dropping the future loses nothing.
    async fn recv(&self) -> Option<Inbound>;

    /// Sends a response or a notification that belongs to one request.
    ///
    /// Returns once at least one relay took the message or none of them refused it. The same call again is allowed and
    /// may deliver twice: the other side correlates.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](crate::ErrorKind::TooLarge) if the message can never be carried to this client,
    /// [`Transport`](crate::ErrorKind::Transport) if it could not be carried now.
    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()>;

    /// Sends a notification that belongs to no request (`notifications/tools/list_changed`), to one client or to all
    /// clients with a session.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()>;

    /// Whether `outbound` can be carried to this address at all, where that is known beforehand; what is said here of a
    /// message is true of sending it. A paid result that cannot be carried is a failure of the server, not of the buyer.
    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        let _ = (to, outbound);
        true
    }

    /// Tells the transport what to say about payments wherever it introduces the server: in the first message of a
    /// session and in announcements. A later call replaces the earlier.
    fn advertise(&self, payments: Advertisement);

    /// Stops receiving; `recv` returns `None` when what was received is used up.
    async fn close(&self);
}

/// The client's end, tied to one server.
///
/// A request is prepared (it gets its event id), then registered by the caller, then published: so an answer can never
/// arrive before somebody knows what it answers.
#[async_trait]
pub trait ClientTransport: Debug + Send + Sync {
    /// The server at the other end.
    fn server(&self) -> ServerPubkey;

    /// Signs `message` without sending it. Two calls never give the same event id.
    ///
    /// # Errors
    ///
    /// When the message cannot be carried: [`TooLarge`](crate::ErrorKind::TooLarge).
    async fn prepare(&self, message: &Message, introduction: &Introduction) -> Result<Prepared>;

    /// Sends a prepared message, or sends it once more: the event id stays the same.
    ///
    /// # Errors
    ///
    /// When no relay took it.
    async fn publish(&self, prepared: &Prepared) -> Result<()>;

    /// The next message from the server; `None` once the transport is closed. Dropping the future loses nothing.
    async fn recv(&self) -> Option<ClientInbound>;

    /// Stops receiving.
    async fn close(&self);
}

/// A plain stream of MCP messages, as an MCP client or server library wants it: what [`ClientTransport`] becomes once
/// correlation and payment are taken care of.
#[async_trait]
pub trait MessageChannel: Debug + Send + Sync {
    /// Sends one message.
    ///
    /// # Errors
    ///
    /// When the channel is closed or cannot carry the message.
    async fn send(&self, message: Message) -> Result<()>;

    /// The next message; `None` once closed. Dropping the future loses nothing.
    async fn recv(&self) -> Option<Message>;

    /// Closes the channel.
    async fn close(&self);
}

/// A message from a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inbound {
    /// What was said.
    pub message: Message,
    /// Who said it.
    pub origin: Origin,
}

impl Inbound {
    /// A message with its origin.
    #[must_use]
    pub fn new(message: Message, origin: Origin) -> Self {
        Self { message, origin }
    }
}

/// Where a message came from, as verified by the transport.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Origin {
    /// The verified author of the inner event (CEP-4), never the key of a wrapping.
    pub client: ClientPubkey,
    /// The id of the inner signed event.
    pub event: RequestEventId,
    /// When the client says that it was written, by the client's clock.
    pub created_at: Timestamp,
    /// This event was sent again by its author (or replayed by somebody): it is a retry, not a new request. Copies of one
    /// sending that come over several relays are not passed on at all.
    pub redelivered: bool,
    /// The client's payment methods in its order of preference: from this event, else from its session's first message.
    pub pmis: Vec<Pmi>,
    /// The first `payment_interaction` tag on this very event; an unknown word counts as transparent (N-46).
    pub interaction: Option<PaymentInteraction>,
    /// Licences and the like that came beside the message.
    pub tokens: Vec<BearerToken>,
    /// Money that came with the request.
    pub direct_payments: Vec<DirectPayment>,
    /// Nobody but the two ends could read the message. What is presented in the clear does not count.
    pub confidential: bool,
    /// Nothing but answers reaches the client, as on a plain MCP transport: it is asked to pay by an answer, whatever it said of
    /// CEP-8.
    pub answers_only: bool,
    /// Nobody vouches for who the client is: the key stands for a connection. What such a client has paid for belongs to whoever
    /// holds the proof.
    pub bearer: bool,
    /// The entry in the ledger that paid for the request, on the way to the handler.
    pub paid_by: Option<RequestEventId>,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
}

impl Origin {
    /// An origin without payment tags, read by others for all that is known, whose answer goes to the plain address of `client` and `event`.
    #[must_use]
    pub fn new(client: ClientPubkey, event: RequestEventId, created_at: Timestamp) -> Self {
        let reply_to = ReplyTo {
            client,
            event,
            route: String::new(),
        };
        Self {
            client,
            event,
            created_at,
            redelivered: false,
            pmis: Vec::new(),
            interaction: None,
            tokens: Vec::new(),
            direct_payments: Vec::new(),
            confidential: false,
            answers_only: false,
            bearer: false,
            paid_by: None,
            reply_to,
        }
    }
}

/// The address of an answer, captured when the request came in, so that no session has to survive until it is used. It
/// can be written down and used after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplyTo {
    /// Who asked.
    pub client: ClientPubkey,
    /// The request that is answered.
    pub event: RequestEventId,
    /// What else the transport needs, in its own words (for Nostr: how the request was wrapped).
    pub route: String,
}

impl ReplyTo {
    /// An address. `route` is for the transport that made it.
    #[must_use]
    pub fn new(client: ClientPubkey, event: RequestEventId, route: impl Into<String>) -> Self {
        Self {
            client,
            event,
            route: route.into(),
        }
    }
}

/// A message to a client, with the tags that its content calls for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outbound {
    /// What is said.
    pub message: Message,
    /// Tags beyond those of the transport: `cap` on list results, disclosure of the payment interaction.
    pub tags: Vec<Tag>,
    /// The handler was lost before it could answer, and this error only says so: whoever paid for the call gets the
    /// right to it back.
    pub handler_lost: bool,
}

impl Outbound {
    /// A message without further tags.
    #[must_use]
    pub fn new(message: impl Into<Message>) -> Self {
        Self {
            message: message.into(),
            tags: Vec::new(),
            handler_lost: false,
        }
    }

    /// Adds tags.
    #[must_use]
    pub fn with_tags(mut self, tags: Vec<Tag>) -> Self {
        self.tags = tags;
        self
    }

    /// Marks the message as the end of a call whose handler was lost.
    #[must_use]
    pub fn handler_lost(mut self) -> Self {
        self.handler_lost = true;
        self
    }
}

/// What a server says about payments when it introduces itself.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Advertisement {
    /// Payment methods in order of preference: one `pmi` tag each.
    pub pmis: Vec<Pmi>,
    /// Whether explicit gating is on offer (N-26).
    pub explicit_gating: bool,
    /// Prices, for announcements. List responses carry the tags of what they list.
    pub caps: Vec<CapTag>,
}

impl Advertisement {
    /// What is on offer.
    #[must_use]
    pub fn new(pmis: Vec<Pmi>, explicit_gating: bool, caps: Vec<CapTag>) -> Self {
        Self {
            pmis,
            explicit_gating,
            caps,
        }
    }
}

/// What a client says about payments: on each request its payment methods (N-53), on its first message also how it wants
/// to pay (N-37).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Introduction {
    /// Payment methods in order of preference.
    pub pmis: Vec<Pmi>,
    /// The lifecycle asked for.
    pub interaction: Option<PaymentInteraction>,
    /// A licence, which a transport carries only where nobody else can read it.
    pub licence: Option<BearerToken>,
}

impl Introduction {
    /// What to say.
    #[must_use]
    pub fn new(pmis: Vec<Pmi>, interaction: Option<PaymentInteraction>) -> Self {
        Self {
            pmis,
            interaction,
            licence: None,
        }
    }

    /// Shows a licence, too.
    #[must_use]
    pub fn with_licence(mut self, licence: Option<BearerToken>) -> Self {
        self.licence = licence;
        self
    }
}

/// A signed message that can be sent, and sent again, under one event id.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Prepared {
    /// The id that answers will be correlated to.
    pub event: RequestEventId,
    /// The signed event as JSON: the proof of what was asked.
    pub signed: String,
}

impl Prepared {
    /// A message that is ready.
    #[must_use]
    pub fn new(event: RequestEventId, signed: String) -> Self {
        Self { event, signed }
    }
}

/// A message from the server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientInbound {
    /// What was said.
    pub message: Message,
    /// The request it is about, from its `e` tag; `None` for messages about none.
    pub in_reply_to: Option<RequestEventId>,
    /// The tags of the signed event, beyond `p` and `e`: prices, payment methods, discovery.
    pub tags: Vec<Tag>,
    /// The signed event as JSON: the proof of what was said.
    pub signed: String,
    /// The server has said something about the request, and this end could not put it together: the message is this
    /// end's own, in its place.
    pub broken: bool,
}

impl ClientInbound {
    /// A message about `in_reply_to`.
    #[must_use]
    pub fn new(message: Message, in_reply_to: Option<RequestEventId>) -> Self {
        Self {
            message,
            in_reply_to,
            tags: Vec::new(),
            signed: String::new(),
            broken: false,
        }
    }

    /// What to say in the place of a message that could not be put together.
    #[must_use]
    pub fn broken(message: Message, in_reply_to: RequestEventId) -> Self {
        Self {
            broken: true,
            ..Self::new(message, Some(in_reply_to))
        }
    }
}
