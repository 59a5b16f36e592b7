//! One client's rmcp session: what it is working on, and the way of its messages out.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::rmcp::RoleServer;
use ::rmcp::model::NumberOrString;
use ::rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use ::rmcp::transport::Transport;
use tokio::sync::mpsc;

use super::from_rmcp;
use crate::error::{Error, Result};
use crate::payment::ClientPubkey;
use crate::transport::{InFlight, Outbound, Relabelled, ReplyTo, ServerTransport};
use crate::wire::{
    ErrorObject, Message, Notification, Payload, Request, RequestId, Response, SERVER_ERROR_CODE,
    method, raw,
};

/// What the caller of a lost handler is told.
pub(super) const LOST: &str = "The server lost this call before it was answered";

/// The most requests that one client may have open.
pub(super) const MOST_OPEN: usize = 256;

/// A client's session, shared by those who feed it and those who speak for it.
#[derive(Debug)]
pub(super) struct Session {
    client: ClientPubkey,
    transport: Arc<dyn ServerTransport>,
    open: Mutex<InFlight>,
    /// Labels of requests whose handler panicked, until the error has gone out.
    lost: Mutex<HashSet<i64>>,
}

impl Session {
    pub(super) fn new(client: ClientPubkey, transport: Arc<dyn ServerTransport>) -> Self {
        Self {
            client,
            transport,
            open: Mutex::new(InFlight::new(MOST_OPEN)),
            lost: Mutex::default(),
        }
    }

    fn open_calls(&self) -> MutexGuard<'_, InFlight> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_calls(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no request is open.
    pub(super) fn is_idle(&self) -> bool {
        self.open_calls().is_empty()
    }

    /// Takes a request in, under a label of its own.
    pub(super) fn open(&self, request: Request, reply_to: ReplyTo) -> Result<Request> {
        self.open_calls().open(request, reply_to)
    }

    /// Translates a cancellation. rmcp answers a cancelled request no more, so it is open no more.
    pub(super) fn cancel(&self, notification: &Notification) -> Option<Notification> {
        let mut open = self.open_calls();
        let translated = open.cancel(&self.client, notification)?;
        let params: serde_json::Value =
            serde_json::from_str(translated.params.as_ref()?.get()).ok()?;
        let label = params.get("requestId")?.as_i64()?;
        let _ = open.answer(Response {
            id: RequestId::Number(label),
            payload: Payload::Result(raw(&()).ok()?),
        });
        Some(translated)
    }

    /// The handler of `id` is lost.
    pub(super) fn lost(&self, id: &NumberOrString) {
        if let NumberOrString::Number(label) = id {
            self.lost_calls().insert(*label);
        }
    }

    /// Tells the client that one open request, by its label, will not be answered.
    pub(super) async fn give_up(&self, label: &RequestId, error: &ErrorObject) {
        let answer = Response::from_error(label.clone(), error);
        let relabelled = self.open_calls().answer(answer);
        if let Some(Relabelled { reply_to, message }) = relabelled {
            self.send(&reply_to, Outbound::new(message).handler_lost())
                .await;
        }
    }

    /// Tells the client that nothing that is open will be answered.
    pub(super) async fn give_up_all(&self) {
        let open = self.open_calls().drain();
        for (id, reply_to) in open {
            let error = ErrorObject::new(SERVER_ERROR_CODE, LOST);
            let answer = Response::from_error(id, &error);
            self.send(&reply_to, Outbound::new(answer).handler_lost())
                .await;
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) {
        if let Err(error) = self.transport.send(to, outbound).await {
            tracing::warn!(
                client = %self.client.short(),
                error = &error as &dyn std::error::Error,
                "an answer could not be sent"
            );
        }
    }

    /// Where a message of the handler goes: to one request, or (`None`) to the client as such.
    fn route(&self, message: Message) -> Option<(Option<ReplyTo>, Outbound)> {
        match message {
            Message::Response(response) => {
                let lost = matches!(response.id, RequestId::Number(label) if self.lost_calls().remove(&label));
                let Relabelled { reply_to, message } = self.open_calls().answer(response)?;
                let mut outbound = Outbound::new(message);
                outbound.handler_lost = lost;
                Some((Some(reply_to), outbound))
            }
            Message::Notification(progress) if progress.method == method::PROGRESS => {
                let Relabelled { reply_to, message } = self.open_calls().progress(&progress)?;
                Some((Some(reply_to), Outbound::new(message)))
            }
            other => Some((None, Outbound::new(other))),
        }
    }
}

/// The transport that rmcp sees: one client, alone.
#[derive(Debug)]
pub(super) struct SessionTransport {
    pub(super) session: Arc<Session>,
    pub(super) inbox: mpsc::Receiver<RxJsonRpcMessage<RoleServer>>,
}

impl Transport<RoleServer> for SessionTransport {
    type Error = Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        // Routed here and not in the future: an answer ends its request in the order in which the handler spoke.
        let routed = from_rmcp::<RoleServer>(&item).map(|message| self.session.route(message));
        let session = Arc::clone(&self.session);
        async move {
            match routed? {
                Some((Some(to), outbound)) => session.transport.send(&to, outbound).await,
                Some((None, outbound)) => {
                    let client = Some(&session.client);
                    session.transport.notify(client, outbound.message).await
                }
                None => Ok(()),
            }
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.inbox.recv().await
    }

    async fn close(&mut self) -> Result<()> {
        self.inbox.close();
        Ok(())
    }
}
